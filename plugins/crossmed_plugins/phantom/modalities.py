"""From tissue layers to grey values: the physics and the display of six modalities.

Each modality takes the painted layers and the image's own random numbers and returns a float32 picture, black
at 0; `display` then exposes it and varies brightness, contrast and gamma.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from crossmed_plugins.phantom.geometry import Array, Draws, Layer, pixel_centres, soft_step
from crossmed_plugins.phantom.tissues import TISSUES

MODALITIES = ("xray", "ct", "t1", "t2", "us", "pet")

# CT display: soft tissue takes most of the grey scale; lung and bone keep some, so that no lesion hides.
_WINDOW_HU = (-1000.0, -820.0, -150.0, -20.0, 60.0, 200.0, 400.0, 1000.0)
_WINDOW_GREY = (0.0, 0.10, 0.24, 0.38, 0.54, 0.82, 0.92, 1.0)

# Ultrasound sector: a curved probe whose arc is centred above the picture. Half-widths and radians.
_APEX = -1.62
_NEAR, _FAR = 0.74, 2.50
_HALF_ANGLE = 0.72


def xray(layers: Sequence[Layer], draws: Draws, rng: np.random.Generator) -> Array:
    """Beer-Lambert attenuation along the projected paths, photon noise, logarithm; dense is white."""
    integral = np.zeros_like(layers[0].extent)
    for layer in layers:
        contrast = TISSUES[layer.tissue].mu - TISSUES[layer.within].mu
        if contrast:
            integral += contrast * layer.extent
    # Organs are painted thicker than some bodies are in places; no path is shorter than nothing.
    np.maximum(integral, 0.0, out=integral)
    integral *= 1.15
    counts = draws.uniform(900.0, 2500.0) * np.exp(-integral)
    # A Poisson variable's Gaussian limit: counts are around a hundred or more, and it is ten times as fast.
    relative_noise = _normal(rng, integral.shape) / np.sqrt(counts)
    integral -= _soften(relative_noise)
    grey: Array = 1.15 - 1.15 * np.exp(integral * -0.75)
    return grey


def ct(layers: Sequence[Layer], draws: Draws, rng: np.random.Generator) -> Array:
    """Hounsfield units with correlated noise, ring and streak artefacts, piecewise-linear window."""
    hu = _slice(layers, "hu", -1000.0)
    size = hu.shape[0]
    hu += 1.6 * draws.uniform(10.0, 24.0) * _soften(_normal(rng, hu.shape))
    ring_of = _ring_index(size)
    rings = rng.standard_normal(int(ring_of.max()) + 1, dtype=np.float32)
    hu += (draws.uniform(0.0, 8.0) * rings)[ring_of]
    angle, offset = draws.uniform(0.0, math.pi), draws.near(0.0, 0.5)
    row, column = _centres(size)
    streak = (math.cos(angle) * row - offset) + math.sin(angle) * column
    streak *= streak
    streak *= -1.0 / 0.06**2
    hu += draws.near(0.0, 30.0) * np.exp(streak)
    return np.interp(hu, _WINDOW_HU, _WINDOW_GREY).astype(np.float32)


def t1(layers: Sequence[Layer], draws: Draws, rng: np.random.Generator) -> Array:
    """T1-weighted MR magnitude."""
    return _magnetic_resonance(_slice(layers, "t1", 0.0), draws, rng)


def t2(layers: Sequence[Layer], draws: Draws, rng: np.random.Generator) -> Array:
    """T2-weighted MR magnitude."""
    return _magnetic_resonance(_slice(layers, "t2", 0.0), draws, rng)


def _magnetic_resonance(signal: Array, draws: Draws, rng: np.random.Generator) -> Array:
    """Receiver-coil bias field (a quadratic of the position), then Rician noise."""
    row, column = _centres(signal.shape[0])
    across = draws.near(0.0, 0.14) * row + draws.near(0.0, 0.10) * row * row
    along = draws.near(1.0, 0.04) + draws.near(0.0, 0.14) * column + draws.near(0.0, 0.10) * column * column
    signal *= across + along
    sigma = draws.uniform(0.03, 0.06)
    real = signal + sigma * _normal(rng, signal.shape)
    imaginary = sigma * _normal(rng, signal.shape)
    magnitude: Array = np.hypot(real, imaginary)
    return magnitude


def us(layers: Sequence[Layer], draws: Draws, rng: np.random.Generator) -> Array:
    """B-mode sector: echoes, interfaces, attenuation with gain compensation, speckle, logarithm."""
    echo = _slice(layers, "echo", 0.05)
    attenuation = _slice(layers, "attenuation", 0.0)
    sector = _sector(echo.shape[0])
    # Reflections follow the root of the contrast, so that the capsules of similar organs show as well.
    echo[1:] += 0.45 * np.sqrt(np.abs(echo[1:] - echo[:-1]))

    along_beams = attenuation.ravel()[sector.pixel_of_beam]
    # Gain compensation makes up for muscle; what attenuates more casts a shadow, fluid leaves a bright trail.
    along_beams -= TISSUES["muscle"].attenuation
    np.cumsum(along_beams, axis=0, out=along_beams)
    along_beams *= -32.0 * sector.step * draws.uniform(0.8, 1.1)
    np.exp(along_beams, out=along_beams)
    np.clip(along_beams, 0.12, 2.0, out=along_beams)

    scatter = _normal(rng, (2, *along_beams.shape))
    scatter[:, :, 1:] += 0.6 * scatter[:, :, :-1]
    scatter *= scatter
    speckle = np.sqrt(scatter[0] + scatter[1])
    speckle *= 0.28
    speckle += 0.22
    along_beams *= speckle
    echo *= sector.to_pixels(along_beams)
    dynamic_range = math.log(draws.uniform(25.0, 50.0))
    grey = np.log(np.maximum(echo, 1e-3))
    grey *= 1.0 / dynamic_range
    grey += 1.0
    np.clip(grey, 0.0, 1.2, out=grey)
    # A grey map steeper than the logarithm, as scanners offer: organs differ by little more than the speckle.
    grey *= np.sqrt(grey)
    grey *= sector.inside
    return grey


def pet(layers: Sequence[Layer], draws: Draws, rng: np.random.Generator) -> Array:
    """Tracer uptake blurred by the detector, Poisson-like noise (its Gaussian limit), recon filter."""
    uptake = _slice(layers, "uptake", 0.0)
    pixel = 2.0 / uptake.shape[0]
    uptake = gaussian_filter(uptake, draws.uniform(0.030, 0.040) / pixel, truncate=3.0)
    counts = draws.uniform(60.0, 140.0)
    uptake += np.sqrt(np.maximum(uptake, 0.0) * (1.0 / counts)) * _normal(rng, uptake.shape)
    uptake = gaussian_filter(uptake, 0.028 / pixel, truncate=3.0)
    grey: Array = np.power(np.maximum(uptake, 0.0), np.float32(0.8))
    return grey


RENDER: dict[str, Callable[[Sequence[Layer], Draws, np.random.Generator], Array]] = {
    "xray": xray,
    "ct": ct,
    "t1": t1,
    "t2": t2,
    "us": us,
    "pet": pet,
}


def display(grey: Array, draws: Draws) -> NDArray[np.uint8]:
    """8-bit picture under automatic exposure, with random brightness, offset and gamma.

    Exposing to a random mean is what keeps mean brightness from telling a large bright lesion from a
    small one.
    """
    gain, offset = draws.near(0.31, 0.06) / float(grey.mean()), draws.near(0.0, 0.06)
    gamma = np.float32(draws.uniform(0.85, 1.18))
    grey = np.clip(grey * gain + offset, 0.0, 1.0)
    np.power(grey, gamma, out=grey)
    grey *= 255.0
    grey += 0.5
    return grey.astype(np.uint8)


def field_of_view(modality: str, x: Array, y: Array) -> Array:
    """Signed distance from picture points to what the modality shows: a sector for ultrasound, or all."""
    if modality != "us":
        return np.maximum(np.abs(x), np.abs(y)) - 1.0
    depth = y - _APEX
    radius = np.hypot(x, depth)
    side = np.abs(x) * math.cos(_HALF_ANGLE) - depth * math.sin(_HALF_ANGLE)
    distance: Array = np.maximum(np.maximum(side, radius - _FAR), _NEAR - radius)
    return distance


def _slice(layers: Sequence[Layer], quantity: str, background: float) -> Array:
    """Paint one tissue property, later layers over earlier ones."""
    picture = np.full_like(layers[0].extent, background)
    for layer in layers:
        change = getattr(TISSUES[layer.tissue], quantity) - picture
        change *= layer.extent
        picture += change
    return picture


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape, dtype=np.float32)


def _soften(noise: Array) -> Array:
    """Correlate white noise with its neighbours (binomial 3 x 3, borders left as they are)."""
    noise[1:-1] = 0.25 * (noise[:-2] + noise[2:]) + 0.5 * noise[1:-1]
    noise[:, 1:-1] = 0.25 * (noise[:, :-2] + noise[:, 2:]) + 0.5 * noise[:, 1:-1]
    return noise


@lru_cache(maxsize=4)
def _centres(size: int) -> tuple[Array, Array]:
    centres = pixel_centres(size)
    return centres[None, :], centres[:, None]


@lru_cache(maxsize=4)
def _ring_index(size: int) -> NDArray[np.intp]:
    """Which detector ring each pixel lies on, one pixel wide each."""
    row, column = _centres(size)
    return np.asarray(np.hypot(row, column) * (size / 2), dtype=np.intp)


class _Sector(NamedTuple):
    """Look-up tables between the picture and the beams, (depths, beams).

    Attributes:
        pixel_of_beam: flat index of the pixel nearest to each beam sample.
        sample_of_pixel: flat indices of the four beam samples around each pixel, (4, size, size).
        weights: their bilinear weights.
        inside: (size, size), 0..1, the sector with soft edges.
        step: distance between beam samples, half-widths.
    """

    pixel_of_beam: NDArray[np.intp]
    sample_of_pixel: NDArray[np.intp]
    weights: Array
    inside: Array
    step: float

    def to_pixels(self, beams: Array) -> Array:
        """Scan conversion: beam samples to the picture."""
        values = beams.ravel()[self.sample_of_pixel]
        values *= self.weights
        picture: Array = (values[0] + values[1]) + (values[2] + values[3])
        return picture


@lru_cache(maxsize=4)
def _sector(size: int) -> _Sector:
    depths, beams = size, size
    step = (_FAR - _NEAR) / (depths - 1)
    turn = 2.0 * _HALF_ANGLE / (beams - 1)
    radius = (_NEAR + step * np.arange(depths))[:, None]
    angle = (-_HALF_ANGLE + turn * np.arange(beams))[None, :]
    to_index = size / 2
    column = np.clip(np.rint((radius * np.sin(angle) + 1.0) * to_index - 0.5), 0, size - 1).astype(np.intp)
    line = np.clip(np.rint((radius * np.cos(angle) + _APEX + 1.0) * to_index - 0.5), 0, size - 1).astype(np.intp)

    x, y = _centres(size)
    at_depth = np.clip((np.hypot(x, y - _APEX) - _NEAR) / step, 0.0, depths - 1.001)
    at_beam = np.clip((np.arctan2(x, y - _APEX) + _HALF_ANGLE) / turn, 0.0, beams - 1.001)
    i, j = at_depth.astype(np.intp), at_beam.astype(np.intp)
    u, v = at_depth - i, at_beam - j
    corner = i * beams + j
    samples = np.stack([corner, corner + 1, corner + beams, corner + beams + 1])
    weights = np.stack([(1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v]).astype(np.float32)
    inside = soft_step(field_of_view("us", x, y).astype(np.float32), 2.0 / size)
    return _Sector(line * size + column, samples, weights, inside, step)

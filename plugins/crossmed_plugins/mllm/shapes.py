"""Generic pictures: one figure of some shape, size and place on a busy ground.

They teach a small vision tower what the web teaches a large one. No body, organ or modality is drawn, but the
figures' shapes (a disc, a ring, a crescent, a group of dots) resemble those of the phantom's findings, which is
why a model pre-trained on them learns the phantom in a minute.

Coordinates are in half-widths of the picture: x from -1 (left) to 1 (right), y from -1 (top) to 1 (bottom).
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

SIDE = 64
"""Pixels per side."""

SHAPES = ("disc", "donut", "crescent", "dots", "bar")
SIZES = ((0.13, 0.18), (0.21, 0.26), (0.30, 0.36), (0.41, 0.48))
"""Ranges of the radius of the disc that has the figure's area, half-widths."""

PLACES = ((-1, -1), (1, -1), (-1, 1), (1, 1))
"""Signs of x and y: the four quarters of the picture."""

FACTORS = {"shape": len(SHAPES), "size": len(SIZES), "place": len(PLACES)}
"""What can be asked of a picture, and how many answers there are."""

_CHUNK = 256
_MARGIN = 0.12
_REACH = 0.66
_OTHERS = 5


class Pictures(NamedTuple):
    """Pictures and what they show.

    Attributes:
        images: (n, 64, 64) uint8.
        truth: for each of `FACTORS`, (n,) int64: index of the answer.
        figure: (n, 64, 64) bool, the pixels of the figure.
    """

    images: NDArray[np.uint8]
    truth: dict[str, NDArray[np.int64]]
    figure: NDArray[np.bool_]


def draw_pictures(count: int, *, seed: int) -> Pictures:
    """Draw pictures: a pure function of ``seed``, of which the first n are the same for every ``count``.

    Args:
        count: how many, 1 or more.
        seed: 0 or more.
    """
    chunks = [_draw_chunk(np.random.default_rng([seed, start])) for start in range(0, count, _CHUNK)]
    images, figures = (np.concatenate([chunk[i] for chunk in chunks])[:count] for i in (0, 2))
    truth = {factor: np.concatenate([chunk[1][factor] for chunk in chunks])[:count] for factor in FACTORS}
    return Pictures(images, truth, figures)


def _draw_chunk(rng: np.random.Generator) -> Pictures:
    truth = {factor: rng.integers(0, answers, _CHUNK) for factor, answers in FACTORS.items()}
    signs = np.array(PLACES)[truth["place"]]
    x, y = (_column(rng.uniform(_MARGIN, _REACH, _CHUNK) * signs[:, axis]) for axis in (0, 1))
    low, high = np.array(SIZES).T[:, truth["size"]]
    radius = _column(rng.uniform(low, high))

    ground = _ground(rng)
    outer, hole = _figure(rng, truth["shape"], x, y, radius)
    occupancy = _soften(outer)
    figure = occupancy > 0.5
    # The figure stands out from the mean of what it covers, so that neither its own grey nor its sign tells a thing.
    covered = (ground * occupancy).sum((1, 2)) / occupancy.sum((1, 2)).clip(1.0)
    contrast = rng.uniform(0.3, 0.7, _CHUNK) * rng.choice([-1.0, 1.0], _CHUNK)
    grey = _column(covered + contrast)
    picture = ground + occupancy * (grey - ground)
    core = _column(covered - contrast * rng.uniform(-0.3, 1.0, _CHUNK))
    picture += _soften(hole) * (core - picture)
    return Pictures(_expose(rng, picture), truth, figure & (hole > 0.0))


def _figure(
    rng: np.random.Generator, shape: NDArray[np.int64], x: Array, y: Array, radius: Array
) -> tuple[Array, Array]:
    """Signed distances, (n, 64, 64), to the figures and to the holes in the donuts."""
    across, down = _grid()
    turn = _column(rng.uniform(0.0, 2.0 * math.pi, _CHUNK))
    stretch = _column(np.sqrt(rng.uniform(1.0, 1.35, _CHUNK)))
    cos, sin = np.cos(turn), np.sin(turn)
    u, v = (across - x) * cos + (down - y) * sin, (down - y) * cos - (across - x) * sin

    disc = (np.hypot(u / stretch, v * stretch)) - radius
    tilt = _column(rng.uniform(-0.6, 0.6, _CHUNK))
    along, up = (
        (across - x) * np.cos(tilt) + (down - y) * np.sin(tilt),
        (across - x) * np.sin(tilt) - (down - y) * np.cos(tilt),
    )
    outer, up = 1.28 * radius, up + 0.3 * radius
    moon = np.maximum(np.hypot(along, up) - outer, 1.1 * outer - np.hypot(along, up - 1.15 * outer))
    dots = np.full_like(u, np.inf)
    count = rng.integers(5, 9, _CHUNK)
    for i in range(8):
        # A sunflower spiral spreads any number of dots evenly.
        reach = np.sqrt((i + 0.5) / count) * rng.uniform(0.92, 1.08, _CHUNK)
        angle = i * 2.399963 + rng.uniform(-0.15, 0.15, _CHUNK)
        spread = 1.08 * radius + 0.05
        distance = np.hypot(u - _column(reach * np.cos(angle)) * spread, v - _column(reach * np.sin(angle)) * spread)
        distance -= radius / _column(np.sqrt(count))
        np.minimum(dots, np.where((i < count)[:, None, None], distance, np.inf), out=dots)
    bar = np.maximum(np.abs(u) - 1.5 * radius, np.abs(v) - 0.5 * radius)
    kind = shape[:, None, None]
    figures = np.select([kind == i for i in range(len(SHAPES))], [disc, disc, moon, dots, bar])
    hole = np.where(kind == SHAPES.index("donut"), disc + 0.4 * radius, np.inf)
    return figures, hole


def _ground(rng: np.random.Generator) -> Array:
    """Overlapping ellipses with textures of several scales, often on a plain margin; about 0..1."""
    across, down = _grid()
    ground = _column(rng.uniform(0.2, 0.8, _CHUNK)) + np.zeros((1, SIDE, SIDE), dtype=np.float32)
    plate = _soften(_ellipses(rng, 0.12, (0.7, 1.05)))
    margin = _column(rng.uniform(0.0, 1.0, _CHUNK))
    for _ in range(_OTHERS):
        ellipse = _soften(_ellipses(rng, 0.75, (0.08, 0.45)))
        outline = (rng.random(_CHUNK) < 0.3)[:, None, None]
        inside = np.where(outline, ellipse * (1.0 - np.roll(ellipse, 2, axis=2)), ellipse)
        ground += inside * _column(rng.uniform(-0.2, 0.2, _CHUNK))
    for cells in (3, 8, 20):
        ground += _field(rng, cells) * _column(rng.uniform(0.0, 0.07, _CHUNK))
    stripes = np.sin(across * _column(rng.uniform(4, 25, _CHUNK)) + down * _column(rng.uniform(-20, 20, _CHUNK)))
    ground += stripes * _column(rng.uniform(0.02, 0.1, _CHUNK) * (rng.random(_CHUNK) < 0.3))
    framed = (rng.random(_CHUNK) < 0.6)[:, None, None]
    return np.where(framed, margin + plate * (ground - margin), ground)


def _ellipses(rng: np.random.Generator, shift: float, axes: tuple[float, float]) -> Array:
    across, down = _grid()
    x, y = (_column(rng.uniform(-shift, shift, _CHUNK)) for _ in range(2))
    a, b = (_column(rng.uniform(*axes, _CHUNK)) for _ in range(2))
    turn = _column(rng.uniform(0.0, math.pi, _CHUNK))
    u = (across - x) * np.cos(turn) + (down - y) * np.sin(turn)
    v = (down - y) * np.cos(turn) - (across - x) * np.sin(turn)
    distance: Array = (np.hypot(u / a, v / b) - 1.0) * np.sqrt(a * b)
    return distance


def _field(rng: np.random.Generator, cells: int) -> Array:
    """Smooth noise, (n, 64, 64), with about ``cells`` bumps per side and a standard deviation near 0.8."""
    position = (np.arange(SIDE) + 0.5) * cells / SIDE
    distance = np.abs(position[:, None] - np.arange(cells + 1)[None, :])
    weights = 0.5 + 0.5 * np.cos(np.pi * np.minimum(distance, 1.0))
    knots = rng.standard_normal((_CHUNK, cells + 1, cells + 1))
    field: Array = (weights @ knots @ weights.T).astype(np.float32)
    return field


def _expose(rng: np.random.Generator, picture: Array) -> NDArray[np.uint8]:
    """Blur, additive noise, speckle, and a random gain, offset and gamma."""
    blurred = picture.copy()
    for axis in (1, 2):
        blurred = 0.5 * blurred + 0.25 * (np.roll(blurred, 1, axis) + np.roll(blurred, -1, axis))
    picture = picture + _column(rng.uniform(0.0, 1.0, _CHUNK)) * (blurred - picture)
    noise, speckle = rng.standard_normal((2, *picture.shape), dtype=np.float32)
    picture += noise * _column(rng.uniform(0.005, 0.05, _CHUNK))
    speckled = rng.random(_CHUNK) < 0.25
    picture *= 1.0 + _column(speckled * rng.uniform(0.05, 0.2, _CHUNK)) * speckle
    level = picture.mean((1, 2), keepdims=True)
    picture = (picture - level) * _column(rng.uniform(0.6, 1.1, _CHUNK)) + _column(rng.uniform(0.2, 0.6, _CHUNK))
    picture = np.clip(picture, 0.0, 1.0) ** _column(rng.uniform(0.8, 1.25, _CHUNK))
    return (picture * 255.0 + 0.5).astype(np.uint8)


def _soften(distance: Array) -> Array:
    """1 inside, 0 outside, linear over one pixel across the edge."""
    share: Array = np.clip(0.5 - distance * (SIDE / 2), 0.0, 1.0)
    return share


def _column(values: NDArray[Any]) -> NDArray[Any]:
    return values[:, None, None].astype(np.float32)


def _grid() -> tuple[Array, Array]:
    centres = ((np.arange(SIDE) + 0.5) * (2.0 / SIDE) - 1.0).astype(np.float32)
    return centres[None, None, :], centres[None, :, None]

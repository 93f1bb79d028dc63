"""Shapes as signed distances, and the canvas that collects them.

Lengths are in half-widths of the picture, which spans -1..1 from left to right (x) and from top to bottom
(y). A signed distance is negative inside its shape; it is approximate (exact on circles), which is all a soft
edge needs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
"""Pictures and coordinates; float32 throughout, which halves the time."""


class Draws:
    """Uniform random numbers, drawn from the generator in one call because single draws are slow.

    Args:
        rng: the image's own generator.
        count: how many numbers one image may use.
    """

    def __init__(self, rng: np.random.Generator, count: int = 192) -> None:
        self._rng = rng
        self._values: Iterator[float] = iter(rng.random(count).tolist())

    def uniform(self, low: float, high: float) -> float:
        """One number in [low, high)."""
        return low + (high - low) * next(self._values)

    def near(self, value: float, spread: float) -> float:
        """One number within ``spread`` of ``value``."""
        return value + spread * (2.0 * next(self._values) - 1.0)

    def integer(self, low: int, high: int) -> int:
        """One integer in low..high, both included."""
        return low + int((high - low + 1) * next(self._values))

    def field(self, size: int, *, cells: int) -> Array:
        """A smooth Gaussian field, (size, size), about ``cells`` bumps per side, s.d. near 0.8."""
        knots = self._rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
        weights = _interpolation(size, cells)
        # einsum, not a BLAS product: its order of summation does not depend on the number of threads.
        field: Array = np.einsum("ij,kj->ik", np.einsum("ij,jk->ik", weights, knots), weights)
        return field


class Frame:
    """Pixel centres of a square picture, and the body's pose in it.

    Args:
        size: pixels per side.
        scale: body lengths to picture lengths.
        angle: rotation of the body in radians, clockwise as displayed.
        shift: (x, y) of the body's origin in the picture.
    """

    def __init__(
        self, size: int, *, scale: float = 1.0, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        self.size = size
        self.pixel = 2.0 / size
        centres = pixel_centres(size)
        self.row: Array = centres[None, :]
        self.column: Array = centres[:, None]
        self._cos = math.cos(angle) / scale
        self._sin = math.sin(angle) / scale
        self._shift = shift
        self._pixel_in_body = self.pixel / scale
        self.x = self.linear(1.0, 0.0)
        self.y = self.linear(0.0, 1.0)

    def to_body(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Picture coordinates to body coordinates."""
        x, y = x - self._shift[0], y - self._shift[1]
        return self._cos * x + self._sin * y, self._cos * y - self._sin * x

    def linear(self, along_x: float, along_y: float, offset: float = 0.0) -> Array:
        """``along_x * X + along_y * Y + offset`` at every pixel, (X, Y) being body coordinates.

        The pose is affine, so this is one outer sum of a row and a column, not four full-size operations.
        """
        per_row = along_x * self._cos - along_y * self._sin
        per_column = along_x * self._sin + along_y * self._cos
        offset -= per_row * self._shift[0] + per_column * self._shift[1]
        return (self.row * per_row + offset) + self.column * per_column

    def ellipse(self, cx: float, cy: float, a: float, b: float, angle: float = 0.0) -> Array:
        """Signed distance to an ellipse with half-axes ``a`` and ``b``, turned by ``angle``."""
        u, v = self._axes(cx, cy, a, b, angle)
        np.multiply(u, u, out=u)
        np.multiply(v, v, out=v)
        u += v
        np.sqrt(u, out=u)
        u -= 1.0
        u *= math.sqrt(a * b)
        return u

    def squircle(self, cx: float, cy: float, a: float, b: float, *, taper: float = 0.0, angle: float = 0.0) -> Array:
        """Signed distance to a rounded box; ``taper`` > 0 makes it narrower at the top than at the bottom."""
        u, v = self._axes(cx, cy, a, b, angle)
        if taper:
            u /= 1.0 + taper * v
        u *= u
        v *= v
        q = u * v
        u *= u
        v *= v
        q += u
        q += v
        np.sqrt(q, out=q)
        np.sqrt(q, out=q)
        q -= 1.0
        q *= math.sqrt(a * b)
        return q

    def _axes(self, cx: float, cy: float, a: float, b: float, angle: float) -> tuple[Array, Array]:
        cos, sin = math.cos(angle), math.sin(angle)
        u = self.linear(cos / a, sin / a, -(cos * cx + sin * cy) / a)
        v = self.linear(-sin / b, cos / b, (sin * cx - cos * cy) / b)
        return u, v

    def occupancy(self, distance: Array) -> Array:
        """Share of each pixel (0..1) that lies inside, from a signed distance in body lengths."""
        return soft_step(distance, self._pixel_in_body)


def pixel_centres(size: int) -> Array:
    """Coordinates of ``size`` pixels across the picture, (size,)."""
    return ((np.arange(size) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)


def soft_step(distance: Array, width: float) -> Array:
    """1 inside, 0 outside, linear over ``width`` across the edge."""
    share = distance * (-1.0 / width)
    share += 0.5
    return np.clip(share, 0.0, 1.0, out=share)


def smooth_step(value: Array) -> Array:
    """0 below 0, 1 above 1, and a cubic between."""
    t = np.clip(value, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@dataclass(frozen=True, slots=True)
class Host:
    """Where lesions may grow: an ellipse, or a rounded box, in body coordinates.

    Attributes:
        cx: centre, x.
        cy: centre, y.
        a: half-width.
        b: half-height.
        boxy: rounded box instead of ellipse.
    """

    cx: float
    cy: float
    a: float
    b: float
    boxy: bool = False

    def distance(self, x: Array, y: Array) -> Array:
        """Approximate signed distance (negative inside) of points given in body coordinates."""
        u = np.square((x - self.cx) / self.a)
        v = np.square((y - self.cy) / self.b)
        q: Array = np.sqrt(np.sqrt(u * u + v * v + u * v)) if self.boxy else np.sqrt(u + v)
        q -= 1.0
        q *= math.sqrt(self.a * self.b)
        return q


class Layer(NamedTuple):
    """One painted tissue.

    Attributes:
        tissue: key into `TISSUES`.
        extent: (size, size); in a slice the occupancy 0..1, in a projection the path length through it.
        within: the tissue it displaces; matters to projections only, a slice shows what was painted last.
    """

    tissue: str
    extent: Array
    within: str


class Canvas:
    """Collects layers in paint order, as a slice or as a projection.

    Args:
        frame: where the pixels are.
        projection: record path lengths instead of occupancies.
    """

    def __init__(self, frame: Frame, *, projection: bool) -> None:
        self.frame = frame
        self.projection = projection
        self.layers: list[Layer] = []

    def paint(self, tissue: str, distance: Array, *, depth: float, within: str = "muscle", bulge: float = 0.0) -> None:
        """Add one shape.

        Args:
            tissue: key into `TISSUES`.
            distance: signed distance, (size, size), body lengths.
            depth: thickness along the beam at the shape's middle; seen by projections only.
            within: tissue that the shape displaces along the beam.
            bulge: radius over which the thickness falls to zero at the edge, as a ball's does; 0: a plate.
        """
        if not self.projection:
            extent = self.frame.occupancy(distance)
        elif bulge:
            inside = np.clip(distance * (-1.0 / bulge), 0.0, 1.0)
            extent = depth * np.sqrt(inside * (2.0 - inside))
        else:
            extent = depth * self.frame.occupancy(distance)
        self.layers.append(Layer(tissue, extent, within))


def intersection(first: Array, *others: Array) -> Array:
    """Signed distance to what lies in all shapes."""
    for other in others:
        first = np.maximum(first, other)
    return first


def union(first: Array, *others: Array) -> Array:
    """Signed distance to what lies in any shape."""
    for other in others:
        first = np.minimum(first, other)
    return first


@lru_cache(maxsize=16)
def _interpolation(size: int, cells: int) -> Array:
    """Cosine-interpolation weights from ``cells + 1`` knots to ``size`` pixels, (size, cells + 1)."""
    position = (np.arange(size) + 0.5) * cells / size
    distance = np.abs(position[:, None] - np.arange(cells + 1)[None, :])
    return (0.5 + 0.5 * np.cos(np.pi * np.minimum(distance, 1.0))).astype(np.float32)

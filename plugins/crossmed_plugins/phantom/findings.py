"""Lesions: four shapes, four sizes, four quadrants.

A lesion's size is the radius of the disc with the area of its mask, whatever its shape; grades are ranges of
that radius with gaps between. Lengths are in half-widths of the picture; coordinates are the picture's, not
the body's, because "upper left" means upper left as displayed.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossmed_plugins.phantom.geometry import Array, Draws, Frame, Layer, soft_step

FINDINGS = ("nodule", "ring", "effusion", "infiltrate")
GRADES = ("minimal", "mild", "moderate", "severe")
LOCATIONS = ("upper left", "upper right", "lower left", "lower right")

RADIUS_RANGES: dict[str, tuple[float, float]] = {
    "minimal": (0.150, 0.175),
    "mild": (0.220, 0.250),
    "moderate": (0.300, 0.335),
    "severe": (0.390, 0.425),
}
QUADRANT_SIGNS: dict[str, tuple[int, int]] = {
    "upper left": (-1, -1),
    "upper right": (1, -1),
    "lower left": (-1, 1),
    "lower right": (1, 1),
}
AXIS_MARGIN = 0.14
"""Smallest distance of a lesion's centre from either axis of the picture."""

MASK_THRESHOLD = 0.30
"""A pixel belongs to the mask where the lesion fills more than this share of it."""

MIN_MASK_PIXELS = 6
CORE_RADIUS = 0.62
"""Radius of a ring lesion's core relative to the whole lesion."""

HOST_DILATION = 0.04
"""How far a lesion may reach over its organ's edge."""

TISSUE_OF: dict[str, str] = {
    "nodule": "lesion solid",
    "ring": "lesion rim",
    "effusion": "lesion fluid",
    "infiltrate": "lesion infiltrate",
}

_CENTRE_CANDIDATES = 40
_REACH = 0.80
_EDGE_CLEARANCE = 0.20
_FITTING_STEPS = 4

# The crescent, relative to its outer disc: radius and height of the disc bitten out of it, how far its centre
# of mass sags below the outer disc's centre, and the outer radius that gives it the area of the unit disc.
_CRESCENT_BITE = 1.1
_CRESCENT_BITE_AT = 1.15
_CRESCENT_SAG = 0.31
_CRESCENT_OUTER = 1.263

# Foci spread over a patch this much wider than the disc of their area, plus a gap visible at 64 pixels.
_PATCH_SPREAD = 1.05
_FOCUS_GAP = 0.04


class Lesion(NamedTuple):
    """A drawn lesion.

    Attributes:
        layers: in paint order, with occupancies 0..1 as extents; a projection multiplies them by a depth.
        mask: (size, size) bool, the ground truth.
    """

    layers: list[Layer]
    mask: NDArray[np.bool_]


Outline = Callable[[float], Array]
"""Size (nominal radius, half-widths) to signed distance over the picture."""


def place_centre(draws: Draws, clearance: Callable[[Array, Array], Array], location: str) -> tuple[float, float]:
    """Pick a lesion's centre uniformly in its quadrant, well inside the organ.

    The rule knows neither finding nor grade, so that the exact position does not give them away.

    Args:
        draws: random numbers.
        clearance: signed distance from picture points (x, y) to where lesions may grow.
        location: one of `LOCATIONS`.

    Returns:
        (x, y) in picture coordinates.
    """
    sign_x, sign_y = QUADRANT_SIGNS[location]
    offsets = [draws.uniform(AXIS_MARGIN, _REACH) for _ in range(2 * _CENTRE_CANDIDATES)]
    x = sign_x * np.array(offsets[::2], dtype=np.float32)
    y = sign_y * np.array(offsets[1::2], dtype=np.float32)
    distance = clearance(x, y)
    inside = distance < -_EDGE_CLEARANCE
    chosen = int(np.argmax(inside) if inside.any() else np.argmin(distance))
    return float(x[chosen]), float(y[chosen])


def draw_lesion(
    draws: Draws, picture: Frame, limit: Array, finding: str, grade: str, centre: tuple[float, float]
) -> Lesion:
    """Draw one lesion, clipped to ``limit`` and sized so that its mask has the area its grade demands.

    Args:
        draws: random numbers.
        picture: frame in the picture's own coordinates.
        limit: (size, size), 0..1, where lesions may show.
        finding: one of `FINDINGS`.
        grade: one of `GRADES`.
        centre: (x, y) in picture coordinates.
    """
    target = draws.uniform(*RADIUS_RANGES[grade])
    outline = _OUTLINES[finding](draws, picture, centre)
    size = radius = target
    for _ in range(_FITTING_STEPS):
        # Overlaps, soft edges and clipping change the area; a few proportional corrections restore it.
        size *= min(max(target / radius, 0.8), 1.25)
        distance = outline(size)
        occupancy = np.minimum(soft_step(distance, picture.pixel), limit)
        mask = occupancy > MASK_THRESHOLD
        radius = math.sqrt(max(int(np.count_nonzero(mask)), 1) / math.pi) * picture.pixel
        if abs(radius - target) < 0.02 * target:
            break
    layers = [Layer(TISSUE_OF[finding], occupancy, "muscle")]
    if finding == "ring":
        core = soft_step(distance + (1.0 - CORE_RADIUS) * size, picture.pixel)
        layers.append(Layer("lesion core", np.minimum(core, limit), "lesion rim"))
    return Lesion(layers, mask)


def _ellipse(draws: Draws, picture: Frame, centre: tuple[float, float], elongation: float) -> Outline:
    stretch = math.sqrt(draws.uniform(1.0, elongation))
    angle = draws.uniform(0.0, math.pi)
    return lambda size: picture.ellipse(*centre, size * stretch, size / stretch, angle)


def _nodule(draws: Draws, picture: Frame, centre: tuple[float, float]) -> Outline:
    return _ellipse(draws, picture, centre, 1.35)


def _ring(draws: Draws, picture: Frame, centre: tuple[float, float]) -> Outline:
    return _ellipse(draws, picture, centre, 1.2)


def _effusion(draws: Draws, picture: Frame, centre: tuple[float, float]) -> Outline:
    """A disc minus a larger disc above it: a crescent, concave side up."""
    tilt = draws.near(0.0, 0.2)
    up_x, up_y = math.sin(tilt), -math.cos(tilt)

    def outline(size: float) -> Array:
        outer = _CRESCENT_OUTER * size
        x = centre[0] + _CRESCENT_SAG * outer * up_x
        y = centre[1] + _CRESCENT_SAG * outer * up_y
        bite_x, bite_y = x + _CRESCENT_BITE_AT * outer * up_x, y + _CRESCENT_BITE_AT * outer * up_y
        bite = _CRESCENT_BITE * outer
        return np.maximum(picture.ellipse(x, y, outer, outer), -picture.ellipse(bite_x, bite_y, bite, bite))

    return outline


def _infiltrate(draws: Draws, picture: Frame, centre: tuple[float, float]) -> Outline:
    """Five to eight foci on a sunflower spiral, which spreads any number of them evenly."""
    count = draws.integer(5, 8)
    start = draws.uniform(0.0, 2.0 * math.pi)
    foci = []
    for i in range(count):
        turn = start + i * 2.399963 + draws.near(0.0, 0.15)
        reach = math.sqrt((i + 0.5) / count) * draws.near(1.0, 0.06)
        foci.append((reach * math.cos(turn), reach * math.sin(turn)))
    middle_x, middle_y = (sum(axis) / count for axis in zip(*foci, strict=True))

    def outline(size: float) -> Array:
        spread = _PATCH_SPREAD * size + _FOCUS_GAP
        squares = [
            np.square(picture.row - (centre[0] + spread * (x - middle_x)))
            + np.square(picture.column - (centre[1] + spread * (y - middle_y)))
            for x, y in foci
        ]
        nearest = squares[0]
        for square in squares[1:]:
            np.minimum(nearest, square, out=nearest)
        distance: Array = np.sqrt(nearest) - size / math.sqrt(count)
        return distance

    return outline


_OUTLINES: dict[str, Callable[[Draws, Frame, tuple[float, float]], Outline]] = {
    "nodule": _nodule,
    "ring": _ring,
    "effusion": _effusion,
    "infiltrate": _infiltrate,
}

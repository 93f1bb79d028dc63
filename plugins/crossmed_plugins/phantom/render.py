"""Phantom images by key: which factors an image shows, its pixels and its exact lesion mask.

Every image is a pure function of its `PhantomKey`: its random numbers come from a counter-based generator
keyed by a hash of the key, so any subset, in any order or process, gives the same bytes (with the same NumPy
and processor type; another machine's floating point may round a pixel differently).

    >>> key = PhantomKey("t2", "brain", "finding", "train", index=0, seed=0)
    >>> factors(key).finding in FINDINGS
    True
    >>> render(key).image.shape
    (64, 64)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from crossmed_plugins.phantom.anatomy import DRAW
from crossmed_plugins.phantom.findings import (
    FINDINGS,
    GRADES,
    HOST_DILATION,
    LOCATIONS,
    draw_lesion,
    place_centre,
)
from crossmed_plugins.phantom.geometry import Array, Canvas, Draws, Frame, soft_step
from crossmed_plugins.phantom.modalities import MODALITIES, RENDER, display, field_of_view

__all__ = [
    "ANATOMIES",
    "FINDINGS",
    "GRADES",
    "LOCATIONS",
    "MODALITIES",
    "PARTS",
    "RENDERER_VERSION",
    "TASKS",
    "Factors",
    "PhantomKey",
    "Rendered",
    "factors",
    "render",
    "render_many",
]

RENDERER_VERSION = 1
"""Raised whenever the bytes of any image change."""

ANATOMIES = tuple(DRAW)
TASKS = ("finding", "grade", "location", "segmentation")
PARTS = ("train", "val", "test")
COMBINATIONS = len(FINDINGS) * len(GRADES) * len(LOCATIONS)
MIN_SIZE = 48

_LESION_DEPTH = 0.55
"""Thickness of a lesion along an X-ray beam, half-widths."""


@dataclass(frozen=True, slots=True)
class PhantomKey:
    """Names one image.

    Attributes:
        modality: one of `MODALITIES`.
        anatomy: one of `ANATOMIES`.
        task: one of `TASKS`; part of the key so that no image serves two tasks.
        part: one of `PARTS`.
        index: position within the cell and part, 0 or more.
        seed: of the whole phantom.
    """

    modality: str
    anatomy: str
    task: str
    part: str
    index: int
    seed: int

    def __post_init__(self) -> None:
        """Refuse unknown names, which would otherwise render as someone else's image or fail late."""
        for field, known in (
            ("modality", MODALITIES),
            ("anatomy", ANATOMIES),
            ("task", TASKS),
            ("part", PARTS),
        ):
            if getattr(self, field) not in known:
                raise ValueError(f"unknown {field} {getattr(self, field)!r}; choose from {', '.join(known)}")
        if self.index < 0:
            raise ValueError(f"index must be 0 or more, got {self.index}")


@dataclass(frozen=True, slots=True)
class Factors:
    """What an image shows: one of `FINDINGS`, one of `GRADES`, one of `LOCATIONS`."""

    finding: str
    grade: str
    location: str


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """One image and its ground truth.

    Attributes:
        image: (size, size) uint8.
        mask: (size, size) bool, the pixels of the lesion.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def factors(key: PhantomKey) -> Factors:
    """The factors of an image, without drawing it.

    Every 64 consecutive indices from a multiple of 64 hold each combination of finding, grade and location
    once, in an order of their own.
    """
    block, position = divmod(key.index, COMBINATIONS)
    order = _block_order(key.seed, key.modality, key.anatomy, key.task, key.part, block)
    combination, location = divmod(order[position], len(LOCATIONS))
    finding, grade = divmod(combination, len(GRADES))
    return Factors(FINDINGS[finding], GRADES[grade], LOCATIONS[location])


def render(key: PhantomKey, *, size: int = 64) -> Rendered:
    """Draw one image.

    Args:
        key: which image.
        size: pixels per side, 48 or more. Another size shows the same body and lesion with other noise.
    """
    if size < MIN_SIZE:
        raise ValueError(f"size must be {MIN_SIZE} or more, got {size}")
    rng = _generator("image", key.seed, key.modality, key.anatomy, key.task, key.part, key.index)
    draws = Draws(rng)
    shown = factors(key)

    angle, shift = draws.near(0.0, 0.10), (draws.near(0.0, 0.05), draws.near(0.0, 0.05))
    body = Frame(size, scale=draws.uniform(0.93, 1.06), angle=angle, shift=shift)
    canvas = Canvas(body, projection=key.modality == "xray")
    host = DRAW[key.anatomy](canvas, draws)

    def clearance(x: Array, y: Array) -> Array:
        return np.maximum(host.distance(*body.to_body(x, y)), field_of_view(key.modality, x, y))

    picture = Frame(size)
    centre = place_centre(draws, clearance, shown.location)
    limit = soft_step(clearance(picture.row, picture.column) - HOST_DILATION, picture.pixel)
    lesion = draw_lesion(draws, picture, limit, shown.finding, shown.grade, centre)
    depth = _LESION_DEPTH if canvas.projection else 1.0
    layers = canvas.layers + [layer._replace(extent=depth * layer.extent) for layer in lesion.layers]
    grey = RENDER[key.modality](layers, draws, rng)
    return Rendered(display(grey, draws), lesion.mask)


def render_many(keys: Iterable[PhantomKey], *, size: int = 64) -> list[Rendered]:
    """`render` for each key, in order."""
    return [render(key, size=size) for key in keys]


@lru_cache(maxsize=1024)
def _block_order(seed: int, modality: str, anatomy: str, task: str, part: str, block: int) -> tuple[int, ...]:
    rng = _generator("order", seed, modality, anatomy, task, part, block)
    return tuple(rng.permutation(COMBINATIONS).tolist())


def _generator(purpose: str, *fields: str | int) -> np.random.Generator:
    digest = blake2b("/".join(map(str, (purpose, *fields))).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))

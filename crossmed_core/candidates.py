"""Segmentation as a four-option question: the true region among three others of like area at plausible places.

Neither paper says how a model that outlines nothing is asked for a region (CrossMed reports cIoU of multiple-choice
answers). Here it chooses among candidates: the true region and three distractors. A distractor is another patient's
region of the same cell and part, at its own place or mirrored, else moved; where those do not suffice, a mirrored or
moved copy of the true region. Areas match within a stated ratio, places lie on the body as the truth does, and no two
candidates overlap beyond a stated IoU. What a random choice and the best choice score is published beside the answers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossmed_core.images import decode_mask, encode_mask
from crossmed_core.questions import OPTIONS, UnaskableError
from crossmed_core.seeding import digest
from crossmed_core.types import LETTERS, RLE, Item

NEAREST = 48
"""Donors looked at per item: those of nearest area."""
MOVES = 12
"""Places tried per moved shape."""


@dataclass(frozen=True)
class CandidateRules:
    """How distractor regions are made; written into the benchmark's card.

    Attributes:
        max_iou: Largest intersection over union of any two candidates.
        max_area_ratio: Largest ratio of a distractor's area to the truth's, or the reverse; donors beyond are scaled.
        on_body: Least share of a distractor's pixels that lies on the body (brighter than `background`), or the truth's
            own share if that is less.
        background: Grey value up to which a pixel is background.
        min_area: Least area of the true region in pixels; smaller ones cannot be told apart.
    """

    max_iou: float = 0.1
    max_area_ratio: float = 1.25
    on_body: float = 0.9
    background: int = 8
    min_area: int = 12


@dataclass(frozen=True)
class Region:
    """A region without its surroundings.

    Attributes:
        shape: bool, the region's own bounding box.
        top: Row of the box's first row.
        left: Column of its first column.
        size: (height, width) of the image it lies in.
    """

    shape: NDArray[np.bool_]
    top: int
    left: int
    size: tuple[int, int]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Region:
        """Cut a non-empty mask down to its bounding box."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return cls(np.ascontiguousarray(box), int(rows[0]), int(columns[0]), (mask.shape[0], mask.shape[1]))

    @cached_property
    def area(self) -> int:
        """Pixels."""
        return int(np.count_nonzero(self.shape))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom (exclusive)."""
        return self.left, self.top, self.left + self.shape.shape[1], self.top + self.shape.shape[0]

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box as shares of the image's height and width."""
        left, top, right, bottom = self.box
        return (top + bottom) / 2 / self.size[0], (left + right) / 2 / self.size[1]

    @property
    def inside(self) -> bool:
        """Whether the box lies in the image."""
        left, top, right, bottom = self.box
        return left >= 0 and top >= 0 and right <= self.size[1] and bottom <= self.size[0]

    def at(self, centre: tuple[float, float], size: tuple[int, int]) -> Region:
        """Put the shape into an image of `size`, its box centred at these shares of height and width."""
        high, wide = self.shape.shape
        top, left = round(centre[0] * size[0] - high / 2), round(centre[1] * size[1] - wide / 2)
        return Region(self.shape, top, left, size)

    def mirrored(self) -> Region:
        """Return its mirror image, left to right."""
        right = self.box[2]
        return Region(np.ascontiguousarray(self.shape[:, ::-1]), self.top, self.size[1] - right, self.size)

    def scaled(self, factor: float) -> Region:
        """Return it enlarged by `factor` on both axes about its own centre."""
        high, wide = (max(1, round(side * factor)) for side in self.shape.shape)
        grey = Image.fromarray(self.shape.astype(np.uint8) * 255).resize((wide, high), Image.Resampling.BILINEAR)
        return Region(np.asarray(grey) >= 128, self.top, self.left, self.size).at(self.centre, self.size)

    def overlap(self, other: Region) -> int:
        """Count the pixels that both cover."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right, bottom = min(self.box[2], other.box[2]), min(self.box[3], other.box[3])
        if left >= right or top >= bottom:
            return 0
        mine = self.shape[top - self.top : bottom - self.top, left - self.left : right - self.left]
        theirs = other.shape[top - other.top : bottom - other.top, left - other.left : right - other.left]
        return int(np.count_nonzero(mine & theirs))

    def iou(self, other: Region) -> float:
        """Return intersection over union."""
        both = self.overlap(other)
        return both / (self.area + other.area - both)

    def rle(self) -> RLE:
        """Return it as run lengths of the whole image."""
        mask = np.zeros(self.size, dtype=bool)
        left, top, right, bottom = self.box
        mask[top:bottom, left:right] = self.shape
        return encode_mask(mask)


class Donors:
    """The regions of one cell and part, from which distractors are taken.

    Args:
        regions: (item id, patient, mask) of each, none of them empty.
    """

    def __init__(self, regions: Sequence[tuple[str, str, RLE]]) -> None:
        known = ((log(sum(mask.counts[1::2]) / (mask.size[0] * mask.size[1])), *one) for one in regions
                 for mask in [one[2]])  # fmt: skip
        self._sorted = sorted(known, key=lambda one: one[:3])
        self._areas = [one[0] for one in self._sorted]

    def near(self, item_id: str, patient: str, area: float) -> Iterator[Region]:
        """Yield other patients' regions of nearest relative area, in an order drawn by the item.

        Args:
            item_id: Seeds the order.
            patient: Whose regions are left out.
            area: Share of the image that the true region covers.
        """
        place = bisect_left(self._areas, log(area))
        low = high = place
        near: list[tuple[int, RLE]] = []
        while len(near) < NEAREST and (low > 0 or high < len(self._sorted)):
            below = log(area) - self._areas[low - 1] if low > 0 else float("inf")
            above = self._areas[high] - log(area) if high < len(self._sorted) else float("inf")
            low, high, taken = (low - 1, high, low - 1) if below <= above else (low, high + 1, high)
            _, donor, whose, mask = self._sorted[taken]
            if whose != patient:
                near.append((digest("donor", item_id, donor), mask))
        for _, mask in sorted(near, key=lambda one: one[0]):
            yield Region.of(decode_mask(mask))


def make_candidates(
    item: Item, truth: NDArray[np.bool_], pixels: NDArray[np.uint8], donors: Donors, rules: CandidateRules
) -> tuple[RLE, ...]:
    """Return four regions in the order shown, the true one among them.

    Args:
        item: Gives the id that seeds every draw, and the patient.
        truth: Its true region, (height, width).
        pixels: Its image, (height, width) or (height, width, 3).
        donors: Regions of the same cell and part.
        rules: Bounds on area, overlap and place.

    Raises:
        UnaskableError: If the true region is too small, or too few distractors fit.
    """
    area = int(np.count_nonzero(truth))
    if area < rules.min_area:
        raise UnaskableError(f"the true region has {area} pixels, fewer than {rules.min_area}")
    true = Region.of(truth)
    grey = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    body = grey > rules.background
    least = min(rules.on_body, _share_on(body, true))
    chosen = [true]
    for candidate in _proposals(item, true, body, donors, rules):
        fits = (
            candidate.inside
            and candidate.area > 0
            and 1 / rules.max_area_ratio <= candidate.area / true.area <= rules.max_area_ratio
            and _share_on(body, candidate) >= least
            and all(candidate.iou(other) <= rules.max_iou for other in chosen)
        )
        if fits:
            chosen.append(candidate)
            if len(chosen) == OPTIONS:
                break
    else:
        raise UnaskableError(f"only {len(chosen) - 1} of {OPTIONS - 1} distractor regions fit beside the true one")
    order = sorted(range(OPTIONS), key=lambda place: digest("order", item.id, place))
    return tuple(chosen[place].rle() for place in order)


def _proposals(
    item: Item, true: Region, body: NDArray[np.bool_], donors: Donors, rules: CandidateRules
) -> Iterator[Region]:
    """Yield regions to try: others' at their own places, mirrored, moved; last, the true one mirrored and moved."""
    size = true.size
    shapes = []
    for donor in donors.near(item.id, item.patient, true.area / (size[0] * size[1])):
        # A like area needs no scaling: resampling leaves traces by which a distractor could be told.
        ratio = true.area / donor.area
        alike = 1 / rules.max_area_ratio <= ratio <= rules.max_area_ratio
        shape = donor if alike else donor.scaled(sqrt(ratio))
        shapes.append(shape)
        yield shape.at(donor.centre, size)
        yield shape.at(donor.centre, size).mirrored()
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    if not rows.size:
        return
    rng = np.random.default_rng(digest("move", item.id))
    for shape in [*shapes, true.mirrored(), true]:
        if shape is not true:
            yield shape.at(shape.centre, size)
        for _ in range(MOVES):
            y, x = rng.uniform(rows[0], rows[-1] + 1), rng.uniform(columns[0], columns[-1] + 1)
            yield shape.at((y / size[0], x / size[1]), size)


def _share_on(body: NDArray[np.bool_], region: Region) -> float:
    left, top, right, bottom = region.box
    return float(np.count_nonzero(body[top:bottom, left:right] & region.shape)) / region.area


def choice_text(candidates: Sequence[RLE], rendering: str) -> tuple[str, tuple[str, ...]]:
    """Return the sentence that turns an instruction into a choice among candidates, and the options.

    Args:
        candidates: In the order shown.
        rendering: "contours": they are drawn on the image, lettered. "boxes": the options are their bounding boxes, as
            left, top, right, bottom in thousandths of width and height.
    """
    if rendering == "contours":
        letters = LETTERS[: len(candidates)]
        sentence = "Which of the regions outlined in the image, each marked by its letter, is it?"
        return sentence, tuple(f"region {letter}" for letter in letters)
    texts = []
    for mask in candidates:
        region = Region.of(decode_mask(mask))
        height, width = region.size
        left, top, right, bottom = region.box
        ends = (left / width, top / height, right / width, bottom / height)
        texts.append("[" + ", ".join(str(round(1000 * end)) for end in ends) + "]")
    return "Which box (left, top, right, bottom, in thousandths of width and height) encloses it?", tuple(texts)


@dataclass(frozen=True)
class ChoiceValue:
    """What a choice among candidates scores, over the items of a cell.

    Attributes:
        ciou: Summed intersections over summed unions.
        giou: Mean IoU.
        dice: Mean Dice.
    """

    ciou: float
    giou: float
    dice: float


def choice_values(items: Sequence[Item]) -> dict[str, ChoiceValue]:
    """Return what a uniformly random choice and the best choice score ("random", "best"), for the card."""
    rows = []
    for item in items:
        assert item.mask is not None and item.mask.rle is not None
        truth = Region.of(decode_mask(item.mask.rle))
        regions = [Region.of(decode_mask(one)) for one in item.candidates]
        rows.append([(float(truth.overlap(one)), float(one.area), float(truth.area)) for one in regions])
    return {name: _value(rows, best=name == "best") for name in ("random", "best")} if rows else {}


def _value(rows: Sequence[Sequence[tuple[float, float, float]]], *, best: bool) -> ChoiceValue:
    """Score a choice from (intersection, candidate's area, true area) of every candidate of every item."""
    sums = np.zeros(4)  # intersections, unions, IoUs, Dices
    for row in rows:
        both, area, true = np.array(row).T
        unions = area + true - both
        values = np.stack([both, unions, both / unions, 2 * both / (area + true)])
        sums += values[:, int(np.argmax(values[2]))] if best else values.mean(axis=1)
    return ChoiceValue(float(sums[0] / sums[1]), float(sums[2] / len(rows)), float(sums[3] / len(rows)))

"""Segmentation as a four-option question: the true region among three true regions of other patients.

Neither paper says how a model that outlines nothing is asked for a region (CrossMed reports cIoU of multiple-choice
answers). Here it chooses among candidates, and the danger is that the true one can be told without the image, by its
shape, its size or its place. So the regions of a cell and part are put into groups of four, from four patients, of
like area and apart from each other, and all four items of a group offer the same four regions, where they were drawn.
Each region is then the true one in exactly one of the four items, and whatever rule looks at the regions alone is right
once in four. What a random choice and the best choice score is published beside the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossmed_core.images import decode_mask, encode_mask
from crossmed_core.questions import OPTIONS
from crossmed_core.seeding import digest
from crossmed_core.types import LETTERS, MAT, RLE, Item
from crossmed_core.vocabulary import words

TRIES = 3000
"""Pairs of regions compared in the search for a group, per item and overlap allowed."""


@dataclass(frozen=True)
class CandidateRules:
    """What four regions must have in common to be offered together; written into the benchmark's card.

    Attributes:
        max_iou: Largest intersection over union of any two of them.
        relaxed_iou: What `max_iou` may grow to, in two steps, for regions that otherwise find no company: large ones
            cannot lie apart. The limit that was used stands in the item's provenance.
        max_area_ratio: Largest ratio of any two areas, as shares of their images.
        min_area: Least area in pixels; smaller regions cannot be told apart.
    """

    max_iou: float = 0.1
    relaxed_iou: float = 0.4
    max_area_ratio: float = 1.5
    min_area: int = 12

    def __post_init__(self) -> None:
        for name, low, high in (("max_iou", 0, 1), ("relaxed_iou", 0, 1), ("max_area_ratio", 1, float("inf"))):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie between {low} and {high}, not {getattr(self, name)}")

    @property
    def limits(self) -> tuple[float, ...]:
        """Overlaps allowed, tried in this order."""
        most = max(self.max_iou, self.relaxed_iou)
        return tuple(dict.fromkeys((self.max_iou, (self.max_iou + most) / 2, most)))


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

    def onto(self, size: tuple[int, int]) -> Region:
        """Return it as it lies in an image of `size`, (height, width): the same share of either axis."""
        if size == self.size:
            return self
        down, across = size[0] / self.size[0], size[1] / self.size[1]
        high, wide = (
            max(1, round(side * factor)) for side, factor in zip(self.shape.shape, (down, across), strict=True)
        )
        grey = Image.fromarray(self.shape.astype(np.uint8) * 255).resize((wide, high), Image.Resampling.BILINEAR)
        top = min(round(self.top * down), size[0] - high)
        left = min(round(self.left * across), size[1] - wide)
        return Region(np.asarray(grey) >= 128, top, left, size)

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


@dataclass(frozen=True)
class Drawn:
    """A true region on its way to be a candidate.

    Attributes:
        item: Id of the item whose true region it is.
        patient: Whose.
        mask: The region.
    """

    item: str
    patient: str
    mask: RLE

    @cached_property
    def region(self) -> Region:
        """The region, cut out."""
        return Region.of(decode_mask(self.mask))

    @cached_property
    def area(self) -> int:
        """Pixels."""
        return sum(self.mask.counts[1::2])

    @cached_property
    def share(self) -> float:
        """The share of the image that it covers."""
        return self.area / (self.mask.size[0] * self.mask.size[1])


@dataclass(frozen=True)
class Offered:
    """The candidates of an item.

    Attributes:
        regions: In the order shown.
        max_iou: The overlap that was allowed.
        grouped: Whether the same four regions are offered by all four items of a group; if not, three regions of other
            groups (or, where a part is too small, of other parts) were borrowed for an item that was left over.
    """

    regions: tuple[RLE, ...]
    max_iou: float
    grouped: bool


def offer(
    drawn: Sequence[Drawn],
    rules: CandidateRules,
    known: Sequence[Drawn] = (),
    elsewhere: Sequence[Drawn] = (),
) -> dict[str, Offered | str]:
    """Give every region of a cell and part three others for company.

    The largest regions, which are hardest to place, choose first. The result does not depend on the order of `drawn`.

    Args:
        drawn: The regions that need company; none of them empty.
        rules: What four regions must have in common.
        known: Regions that have theirs already and may be borrowed.
        elsewhere: Regions of the cell's other parts, borrowed from where a part is too small to find company in.

    Returns:
        Item id -> its candidates, or the reason why it has none.
    """
    found: dict[str, Offered | str] = {}
    ordered = sorted(drawn, key=lambda one: (-one.share, one.item))
    waiting = {one.item: one for one in ordered if one.area >= rules.min_area}
    for one in ordered:
        if one.item not in waiting:
            continue
        del waiting[one.item]
        group = _company(one, waiting.values(), rules)
        if group is None:
            found[one.item] = ""
            continue
        partners, limit = group
        members = (one, *partners)
        for member in members:
            waiting.pop(member.item, None)
            found[member.item] = _shown(member, members, limit, grouped=True)
    everyone = sorted((*drawn, *known), key=lambda one: (-one.share, one.item))
    usable = [one for one in everyone if one.area >= rules.min_area]
    others = [one for one in sorted(elsewhere, key=lambda one: one.item) if one.area >= rules.min_area]
    for one in ordered:
        if one.area < rules.min_area:
            found[one.item] = f"the true region has {one.area} pixels, fewer than {rules.min_area}"
        elif found[one.item] == "":
            borrowed = _company(one, usable, rules) or _company(one, [*usable, *others], rules)
            if borrowed is None:
                found[one.item] = f"no {OPTIONS - 1} regions of other patients are like it in area and apart from it"
            else:
                partners, limit = borrowed
                found[one.item] = _shown(one, (one, *partners), limit, grouped=False)
    return found


def _company(one: Drawn, others: Iterable[Drawn], rules: CandidateRules) -> tuple[list[Drawn], float] | None:
    """Find three regions of other patients, like in area and apart, under the strictest limit that three satisfy."""
    least, most = one.share / rules.max_area_ratio, one.share * rules.max_area_ratio
    like = [other for other in others if least <= other.share <= most and other.patient != one.patient]
    like.sort(key=lambda other: digest("company", one.item, other.item))
    for limit in rules.limits:
        partners = _search([one], like, limit, rules, [TRIES])
        if partners is not None:
            return partners[1:], limit
    return None


def _search(
    chosen: list[Drawn], like: Sequence[Drawn], limit: float, rules: CandidateRules, tries: list[int]
) -> list[Drawn] | None:
    """Extend a group to four by going back from dead ends, until the tries are used up."""
    if len(chosen) == OPTIONS:
        return chosen
    for place, other in enumerate(like):
        if tries[0] <= 0:
            return None
        if _fits(other, chosen, limit, rules, tries):
            group = _search([*chosen, other], like[place + 1 :], limit, rules, tries)
            if group is not None:
                return group
    return None


def _fits(other: Drawn, chosen: Sequence[Drawn], limit: float, rules: CandidateRules, tries: list[int]) -> bool:
    size = chosen[0].mask.size
    for one in chosen:
        tries[0] -= 1
        ratio = other.share / one.share
        if other.patient == one.patient or not 1 / rules.max_area_ratio <= ratio <= rules.max_area_ratio:
            return False
        if one.region.onto(size).iou(other.region.onto(size)) > limit:
            return False
    return True


def _shown(item: Drawn, members: Sequence[Drawn], limit: float, *, grouped: bool) -> Offered:
    """Put the members of a group on the image of one of them, in an order drawn by the item."""
    order = sorted(members, key=lambda member: digest("order", item.item, member.item))
    size = item.mask.size
    regions = (one.mask if one.mask.size == size else one.region.onto(size).rle() for one in order)
    return Offered(tuple(regions), limit, grouped)


CHOICES = (
    "Which of the outlined regions of this {modality} of the {anatomy} is {target}?",
    "Four regions are outlined in this {anatomy} {modality}. Which one is {target}?",
    "This {modality} shows the {anatomy} with four outlined regions. Which of them is {target}?",
    "Looking at this {anatomy} {modality}, choose the region that is {target}.",
    "Of the regions marked on this {modality} of the {anatomy}, which one is {target}?",
    "One of the regions marked on this {anatomy} {modality} is {target}. Which one?",
)
"""Instructions of a segmentation item that is asked as a choice; one is drawn per item."""
NEUTRAL_CHOICES = (
    "Which of the outlined regions of this image is {target}?",
    "Four regions are outlined in this image. Which one is {target}?",
    "This image is shown with four outlined regions. Which of them is {target}?",
    "Looking at this image, choose the region that is {target}.",
    "Of the regions marked on this image, which one is {target}?",
    "One of the regions marked on this image is {target}. Which one?",
)
BOXES = "Regions are given as boxes: left, top, right, bottom, in thousandths of the image's width and height."


def choice_wording(item_id: str, mat: MAT, target: str, *, neutral: bool) -> str:
    """Return the instruction of a segmentation item that is asked as a choice.

    Args:
        item_id: Draws the template.
        mat: The cell.
        target: What is outlined, e.g. "the pneumothorax".
        neutral: Whether to leave out modality and anatomy.
    """
    place = digest("template", item_id) % len(CHOICES)
    if neutral:
        return NEUTRAL_CHOICES[place].format(target=target)
    return CHOICES[place].format(modality=words(mat.modality), anatomy=words(mat.anatomy), target=target)


def choice_options(candidates: Sequence[RLE], rendering: str) -> tuple[str, ...]:
    """Return the options of a choice among candidates.

    Args:
        candidates: In the order shown.
        rendering: "contours": they are drawn on the image, lettered. "boxes": the options are their bounding boxes, as
            left, top, right, bottom in thousandths of width and height.
    """
    if rendering == "contours":
        return tuple(f"region {letter}" for letter in LETTERS[: len(candidates)])
    texts = []
    for mask in candidates:
        region = Region.of(decode_mask(mask))
        height, width = region.size
        left, top, right, bottom = region.box
        ends = (left / width, top / height, right / width, bottom / height)
        texts.append("[" + ", ".join(str(round(1000 * end)) for end in ends) + "]")
    return tuple(texts)


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

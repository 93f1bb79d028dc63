"""Metrics for items answered by a mask. Item i has truth G_i and prediction P_i, sets of pixels.

An empty-mask rule belongs to every mean over images: an empty prediction on an empty truth scores 1 (as LISA does), any
other pair with an empty side scores 0; the `-nonempty` forms leave images with an empty truth out. cIoU needs no rule:
empty pairs add nothing to either sum, and a false alarm enlarges the union.

Chance is what the better of two constant masks scores, every pixel foreground or none: neither looks at the image.
Where many truths are empty (78 % in SIIM-ACR), the empty mask is far the better one under the means over images.
A choice among candidate regions is scored by the chosen region; there chance is a random choice, and the best choice
bounds what can be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from crossmed_core.types import Item, Prediction
from crossmed_plugins.metrics.areas import area, overlap

Floats = NDArray[np.float64]
Pairs = Sequence[tuple[Item, Prediction]]


def _areas(item: Item, prediction: Prediction) -> tuple[float, float, float]:
    """Return |P and G|, |P|, |G| in pixels; P is the mask, or the candidate region that was chosen.

    Raises:
        ValueError: If the two masks differ in size, or one is missing.
        UnreadableImageError: If a mask cannot be read.
    """
    region = prediction.mask
    if region is None and item.candidates and prediction.option is not None:
        region = item.candidates[prediction.option]
    if item.mask is None or region is None:
        raise ValueError(f"item {item.id!r} has no mask to compare")
    try:
        return overlap(item.mask, region)
    except ValueError as error:
        raise ValueError(f"item {item.id!r}: {error}") from error


def _is_choice(item: Item) -> bool:
    return bool(item.options and item.candidates)


def _extreme(fixed: Floats, choices: Sequence[Floats], *, largest: bool) -> float:
    """Return the largest or smallest ratio of sums that can be had by one row of each item's choices.

    Dinkelbach (1967, Management Science 13): the rows that are best for the present ratio r, by numerator - r x
    denominator, give a better ratio, until the best is reached; exact, in a few rounds.

    Args:
        fixed: What is added to both sums in any case, shape (2,).
        choices: Per item the numerators and denominators to choose from, shape (choices, 2).
        largest: The largest ratio, or the smallest.

    Returns:
        NaN if no choice gives a denominator above 0.
    """
    sign = 1.0 if largest else -1.0
    ratio = float("nan")
    sums = sum((rows[np.argmax(rows[:, 1])] for rows in choices), start=fixed)
    while sums[1] > 0 and not sign * (sums[0] / sums[1] - ratio) <= 0:  # the first ratio is compared with NaN
        ratio = float(sums[0] / sums[1])
        gains = (sign * (rows[:, 0] - ratio * rows[:, 1]) for rows in choices)
        sums = sum((rows[np.argmax(gain)] for rows, gain in zip(choices, gains, strict=True)), start=fixed)
    return ratio


class _MaskMetric:
    """Common to all: terms of shape (items, 2), value = first sum / second sum.

    Attributes:
        unknown: What an item without a readable truth can add, shape (choices, 2).
    """

    unknown: Floats

    def __init__(self, *, with_empty: bool = True) -> None:
        self.with_empty = with_empty

    def of_areas(self, both: Floats, predicted: Floats, true: Floats) -> Floats:
        raise NotImplementedError("a mask metric defines of_areas")

    def terms(self, pairs: Pairs) -> Floats:
        """Return (items, 2): numerator and denominator of the ratio of sums."""
        found = np.array([_areas(item, prediction) for item, prediction in pairs]).reshape(-1, 3)
        return self.of_areas(*found.T)

    def value(self, sums: Floats) -> Floats:
        """Return the ratio for sums of shape (..., 2); NaN where nothing counts."""
        above, below = sums[..., 0], sums[..., 1]
        result: Floats = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
        return result

    def chance(self, items: Sequence[Item]) -> float:
        """Return the better of two constant masks: foreground everywhere, and nowhere.

        For choices among candidate regions, what a uniformly random choice scores.
        """
        if items and all(_is_choice(item) for item in items):
            return self._of_choices(items, lambda terms: terms.mean(axis=0))
        true, sizes = np.array([area(item.mask) for item in items if item.mask is not None]).reshape(-1, 2).T
        nothing = np.zeros_like(true)
        full = self.value(self.of_areas(true, sizes, true).sum(axis=0))
        empty = self.value(self.of_areas(nothing, nothing, true).sum(axis=0))
        return float(np.fmax(full, empty))

    def best(self, items: Sequence[Item]) -> float:
        """Return what the best choice among candidate regions scores; NaN for masks, which nothing bounds."""
        if not items or not all(_is_choice(item) for item in items):
            return float("nan")
        return self._of_choices(items, lambda terms: terms[int(np.argmax(self.value(terms)))])

    def bounds(self, pairs: Pairs, unscored: Sequence[Item]) -> tuple[float, float]:
        """Return the value if every unscored item were answered as badly, and as well, as can be.

        As well: by the truth. As badly: by its complement, which shares no pixel with it and has the largest union. A
        choice is answered by one of its candidates. An item without a readable truth could have been anything.
        """
        scored = self.terms(pairs).sum(axis=0)
        choices = [self._answers(item) for item in unscored]
        return _extreme(scored, choices, largest=False), _extreme(scored, choices, largest=True)

    def _answers(self, item: Item) -> Floats:
        """Return the terms of the answers to one item among which its worst and best are: (answers, 2)."""
        if item.mask is None:
            return self.unknown if self.with_empty else np.vstack([self.unknown, np.zeros((1, 2))])
        if _is_choice(item):
            return self._of_candidates(item)
        true, size = area(item.mask)
        both, predicted = np.array([0.0, true]), np.array([size - true, true])
        return self.of_areas(both, predicted, np.array([true, true]))

    def _of_candidates(self, item: Item) -> Floats:
        """Return the terms of every choice among the candidates: (candidates, 2)."""
        return self.terms([(item, Prediction(item.id, option=k)) for k in range(len(item.candidates))])

    def _of_choices(self, items: Sequence[Item], pick: Callable[[Floats], Floats]) -> float:
        """Return the value of the summed terms that `pick` makes of the (candidates, terms) of each item."""
        total = np.zeros(2)
        for item in items:
            total += pick(self._of_candidates(item))
        return float(self.value(total))

    def __call__(self, pairs: Pairs) -> float:
        """Return the metric; NaN without pairs."""
        return float(self.value(self.terms(pairs).sum(axis=0))) if pairs else float("nan")


class CumulativeIoU(_MaskMetric):
    """cIoU = sum_i |P_i and G_i| / sum_i |P_i or G_i| (LISA, arXiv 2308.00692). Not the Complete IoU of box losses."""

    unknown = np.zeros((1, 2))

    def of_areas(self, both: Floats, predicted: Floats, true: Floats) -> Floats:
        """Return intersection and union per image."""
        return np.stack([both, predicted + true - both], axis=-1)


class _MeanPerImage(_MaskMetric):
    unknown = np.array([[0.0, 1.0], [1.0, 1.0]])

    def of_areas(self, both: Floats, predicted: Floats, true: Floats) -> Floats:
        """Return score and weight per image, after the empty-mask rule."""
        above, below = self.overlap(both, predicted, true)
        scores = np.divide(above, below, out=np.ones_like(below), where=below > 0)
        weights = np.ones_like(true) if self.with_empty else (true > 0).astype(float)
        return np.stack([scores * weights, weights], axis=-1)

    def overlap(self, both: Floats, predicted: Floats, true: Floats) -> tuple[Floats, Floats]:
        raise NotImplementedError("a mean per image defines overlap")


class MeanIoU(_MeanPerImage):
    """gIoU as LISA names it = mean_i |P_i and G_i| / |P_i or G_i|. Not the Generalized IoU of box losses."""

    def overlap(self, both: Floats, predicted: Floats, true: Floats) -> tuple[Floats, Floats]:
        """Return intersection and union."""
        return both, predicted + true - both


class Dice(_MeanPerImage):
    """Mean_i 2 |P_i and G_i| / (|P_i| + |G_i|)."""

    def overlap(self, both: Floats, predicted: Floats, true: Floats) -> tuple[Floats, Floats]:
        """Return twice the intersection and the sum of areas."""
        return 2 * both, predicted + true


ciou = CumulativeIoU()
giou = MeanIoU()
giou_nonempty = MeanIoU(with_empty=False)
dice = Dice()
dice_nonempty = Dice(with_empty=False)

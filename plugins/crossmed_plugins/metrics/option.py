"""Metrics for items answered by an option. All are functions of sums over items (`contracts.AdditiveMetric`).

Notation: item i has true label y_i, chosen label p_i, k_i options; C = the labels that occur as y among the items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossmed_core.types import Item, Prediction

Floats = NDArray[np.float64]
Pairs = Sequence[tuple[Item, Prediction]]


def _ratio(above: Floats, below: Floats) -> Floats:
    """Divide, NaN where the denominator is 0."""
    result: Floats = np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below > 0)
    return result


def _answered(unscored: Sequence[Item], *, right: bool) -> list[tuple[Item, Prediction]]:
    """Answer every item right, or every item wrong (right where there is no second option)."""
    answers = [(item, item.answer if item.answer is not None else 0) for item in unscored]
    return [(item, Prediction(item.id, option=(k + (not right)) % len(item.options))) for item, k in answers]


class Accuracy:
    """(1 / n) sum_i [p_i = y_i]. Chance: (1 / n) sum_i 1 / k_i.

    `proportion` tells the scorer that Wilson's interval applies.
    """

    proportion = True

    def terms(self, pairs: Pairs) -> Floats:
        """Return (items, 2): right, 1."""
        return np.array([[float(p.option == i.answer), 1.0] for i, p in pairs]).reshape(-1, 2)

    def value(self, sums: Floats) -> Floats:
        """Return right / n for sums of shape (..., 2)."""
        return _ratio(sums[..., 0], sums[..., 1])

    def chance(self, items: Sequence[Item]) -> float:
        """Return the mean of 1 / options."""
        return float(np.mean([1 / len(item.options) for item in items])) if items else float("nan")

    def informed_chance(self, items: Sequence[Item]) -> float:
        """Return the mean of 1 / (options that are ever true in the cell)."""
        shares = [1 / max(1, len(item.options) - item.decoys) for item in items]
        return float(np.mean(shares)) if shares else float("nan")

    def bounds(self, pairs: Pairs, unscored: Sequence[Item]) -> tuple[float, float]:
        """Return the accuracy with every unscored item wrong, and with every one right."""
        worst, best = (self([*pairs, *_answered(unscored, right=right)]) for right in (False, True))
        return worst, best

    def __call__(self, pairs: Pairs) -> float:
        """Return the accuracy; NaN without pairs."""
        return float(self.value(self.terms(pairs).sum(axis=0)))


class _PerLabel:
    """Sums per label: how often it is true, found (true and chosen), chosen. Shape (items, 3 x labels)."""

    def terms(self, pairs: Pairs) -> Floats:
        """Return one-hot rows: true | found | chosen, each over the sorted labels."""
        chosen = [item.options[p.option] if p.option is not None else None for item, p in pairs]
        labels = sorted({item.label for item, _ in pairs} | {label for label in chosen if label is not None})
        place = {label: number for number, label in enumerate(labels)}
        rows = np.zeros((len(pairs), 3, len(labels)))
        for row, (item, _), label in zip(rows, pairs, chosen, strict=True):
            row[0, place[item.label]] = 1
            if label is not None:
                row[1, place[label]] = label == item.label
                row[2, place[label]] = 1
        return rows.reshape(len(pairs), -1)

    def value(self, sums: Floats) -> Floats:
        """Return the mean of `per_label` over the labels that occur as truth."""
        true, found, chosen = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
        occurs = true > 0
        scores = np.where(occurs, self.per_label(true, found, chosen), 0.0)
        return _ratio(scores.sum(axis=-1), occurs.sum(axis=-1).astype(float))

    def per_label(self, true: Floats, found: Floats, chosen: Floats) -> Floats:
        raise NotImplementedError("a metric per label defines per_label")

    def chance(self, items: Sequence[Item]) -> float:
        """Return the value at the expected counts of a uniform guess."""
        if not items:
            return float("nan")
        labels = sorted({label for item in items for label in item.options})
        place = {label: number for number, label in enumerate(labels)}
        expected = np.zeros((3, len(labels)))
        for item in items:
            share = 1 / len(item.options)
            expected[0, place[item.label]] += 1
            expected[1, place[item.label]] += share
            for label in item.options:
                expected[2, place[label]] += share
        return float(self.value(expected.ravel()))

    def __call__(self, pairs: Pairs) -> float:
        """Return the metric; NaN without pairs."""
        return float(self.value(self.terms(pairs).sum(axis=0))) if pairs else float("nan")


class BalancedAccuracy(_PerLabel):
    """Mean over labels c in C of recall_c = #(y = c, p = c) / #(y = c); scikit-learn's `balanced_accuracy_score`."""

    def per_label(self, true: Floats, found: Floats, chosen: Floats) -> Floats:
        """Return the recall of each label."""
        return np.nan_to_num(_ratio(found, true))

    def bounds(self, pairs: Pairs, unscored: Sequence[Item]) -> tuple[float, float]:
        """Return the value with every unscored item wrong, and with every one right.

        Exact, as an answer changes the recall of its item's own label only. (In F1 a wrong answer also costs the label
        that was chosen, so its worst case depends on all answers together: `MacroF1` gives none.)
        """
        worst, best = (self([*pairs, *_answered(unscored, right=right)]) for right in (False, True))
        return worst, best


class MacroF1(_PerLabel):
    """Mean over labels c in C of 2 #(y = c, p = c) / (#(y = c) + #(p = c)).

    Labels that are chosen but never true are not averaged over: an item's distractors are drawn from the cell's labels,
    and a label without a true item has no defined recall. With scikit-learn: `f1_score(y, p, labels=sorted(set(y)),
    average="macro", zero_division=0)`.
    """

    def per_label(self, true: Floats, found: Floats, chosen: Floats) -> Floats:
        """Return the F1 of each label."""
        return np.nan_to_num(_ratio(2 * found, true + chosen))


accuracy = Accuracy()
balanced_accuracy = BalancedAccuracy()
macro_f1 = MacroF1()

"""Metrics of an option answer's probabilities: do they mean what they say?

Notation: item i has k_i options with probabilities q_ij (`Prediction.option_scores`) and true option y_i; its
confidence is c_i = max_j q_ij, and r_i says whether the chosen option is the true one. All are functions of sums over
items. Only answers with probabilities are ever given to these metrics (`MetricRecord.needs_scores`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossmed_core.types import Item, Prediction

Floats = NDArray[np.float64]
Pairs = Sequence[tuple[Item, Prediction]]

BINS = 15
"""Equal-width bins of confidence, as in Guo et al. 2017 (arXiv 1706.04599)."""


def _probabilities(item: Item, prediction: Prediction) -> Floats:
    """Return one probability per option.

    Raises:
        ValueError: If there is not one for each option.
    """
    scores = np.array(prediction.option_scores or (), dtype=float)
    if len(scores) != len(item.options):
        raise ValueError(f"item {item.id!r} has {len(item.options)} options and {len(scores)} probabilities")
    return scores


def _confidence_and_right(pairs: Pairs) -> tuple[Floats, Floats]:
    """Return c_i and r_i, each of shape (items,)."""
    confidence = np.array([_probabilities(item, prediction).max() for item, prediction in pairs], dtype=float)
    return confidence, np.array([float(prediction.option == item.answer) for item, prediction in pairs], dtype=float)


def _mean(sums: Floats) -> Floats:
    """Return first sum / second sum for (..., 2); NaN where the second is 0."""
    below = sums[..., 1]
    result: Floats = np.divide(sums[..., 0], below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return result


class ExpectedCalibrationError:
    """ECE = sum over bins b of |sum_{i in b} c_i - sum_{i in b} r_i| / n (Guo et al. 2017, arXiv 1706.04599).

    Bin b of `BINS` holds b/15 <= c < (b+1)/15; the last also c = 1. 0 is best. It is 0 too for a model that knows
    nothing and says so, hence no chance level. In a small sample a calibrated model scores above 0 by accident alone,
    and a resample does so even more: there the interval lies too high, and a value near its lower end is no
    evidence of miscalibration.
    """

    conditional = True  # its bootstrap is biased upwards: the interval of a difference would be wrong

    def terms(self, pairs: Pairs) -> Floats:
        """Return (items, 3 x BINS): confidence | right | 1, each in the column of the item's bin."""
        confidence, right = _confidence_and_right(pairs)
        bins = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
        rows = np.zeros((len(pairs), 3, BINS))
        rows[np.arange(len(pairs)), :, bins] = np.stack([confidence, right, np.ones_like(right)], axis=-1)
        return rows.reshape(len(pairs), 3 * BINS)

    def value(self, sums: Floats) -> Floats:
        """Return the ECE for sums of shape (..., 3 x BINS)."""
        confidence, right, number = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, BINS), -2, 0)
        return _mean(np.stack([np.abs(confidence - right).sum(axis=-1), number.sum(axis=-1)], axis=-1))

    def __call__(self, pairs: Pairs) -> float:
        """Return the ECE, 0 to 1; NaN without pairs."""
        return float(self.value(self.terms(pairs).sum(axis=0)))


class BrierScore:
    """(1 / n) sum_i sum_j (q_ij - [j = y_i])^2, Brier's own form of 1950: 0 (sure and right) to 2 (sure and wrong).

    With two options it is twice scikit-learn's binary `brier_score_loss`.
    """

    def terms(self, pairs: Pairs) -> Floats:
        """Return (items, 2): squared error summed over the options, 1."""
        rows = np.ones((len(pairs), 2))
        for row, (item, prediction) in zip(rows, pairs, strict=True):
            truth = np.arange(len(item.options)) == item.answer
            row[0] = np.square(_probabilities(item, prediction) - truth).sum()
        return rows

    def value(self, sums: Floats) -> Floats:
        """Return the mean for sums of shape (..., 2)."""
        return _mean(sums)

    def chance(self, items: Sequence[Item]) -> float:
        """Return what equal probabilities score: the mean of 1 - 1 / options."""
        return float(np.mean([1 - 1 / len(item.options) for item in items])) if items else float("nan")

    def __call__(self, pairs: Pairs) -> float:
        """Return the Brier score, 0 to 2; NaN without pairs."""
        return float(self.value(self.terms(pairs).sum(axis=0)))


class AccuracyAtCoverage:
    """Accuracy among the most confident answers (selective accuracy; Geifman and El-Yaniv 2017, arXiv 1705.08500).

    The threshold is the confidence of the last of the ceil(percent x n / 100) most confident of the pairs given; ties
    with it are included, so that the order of items does not matter and coverage can be larger than asked for.

    `terms` sets the threshold from the pairs it is given, and a resample keeps it: the interval is conditional on the
    threshold, as for a threshold that was fixed beforehand, and leaves out its own uncertainty. Over several seeds at
    once the threshold of the interval is that of all their answers together; the value of each seed has its own.

    Args:
        percent: How many of a hundred answers are kept, 1 to 100.
    """

    conditional = True

    def __init__(self, percent: int) -> None:
        self.percent = percent

    def terms(self, pairs: Pairs) -> Floats:
        """Return (items, 2): right and kept, kept."""
        if not pairs:
            return np.zeros((0, 2))
        confidence, right = _confidence_and_right(pairs)
        least = -(-self.percent * len(pairs) // 100)  # rounded up, in integers: 0.8 is no binary fraction
        kept = (confidence >= np.sort(confidence)[-least]).astype(float)
        return np.stack([right * kept, kept], axis=-1)

    def value(self, sums: Floats) -> Floats:
        """Return right / kept for sums of shape (..., 2)."""
        return _mean(sums)

    def chance(self, items: Sequence[Item]) -> float:
        """Return the mean of 1 / options: confidence that knows nothing selects at random."""
        return float(np.mean([1 / len(item.options) for item in items])) if items else float("nan")

    def __call__(self, pairs: Pairs) -> float:
        """Return the accuracy among the most confident; NaN without pairs."""
        return float(self.value(self.terms(pairs).sum(axis=0)))


ece = ExpectedCalibrationError()
brier = BrierScore()
accuracy_at_80 = AccuracyAtCoverage(80)

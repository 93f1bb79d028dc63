"""What cyclic option orders disagree on: the flip rate and the letter bias of a condition, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from crossmed_core import statistics
from crossmed_core.orders import flipped
from crossmed_core.scoring import Answers, OrderAnswer, patient_of, score_of_terms
from crossmed_core.types import LETTERS, Score

FLIP_RATE, LETTER_BIAS = "flip-rate", "letter-bias"
ORDER_METRICS = (FLIP_RATE, LETTER_BIAS)


def order_scores(answers: Sequence[Answers]) -> list[Score]:
    """Score how much a condition depends on the order of the options.

    flip-rate: share of items whose orders are not all answered by the same option. letter-bias: total variation
    distance, 0 to 1, between how often each letter was chosen and equal shares. Of a model without a preference it is 0
    up to sampling: with n answers over k letters about sqrt(k / n) / 2 is expected.

    Args:
        answers: The trials of one condition, one per seed.

    Returns:
        Two scores over the items that were answered in all of their orders by every seed; none if no item was asked
        twice.
    """
    ordered = sorted(answers, key=lambda one: one.seed)
    complete = [_complete(one) for one in ordered]
    common = sorted(set.intersection(*(set(one) for one in complete)))
    if not common:
        return []
    items = {item.id: item for item, _ in ordered[0].pairs}
    clusters = [patient_of(items[name]) for name in common]
    letters = max(len(items[name].options) for name in common)
    flips, chosen = [], []
    for one in complete:
        flips.append(np.array([[float(flipped([a.option for a in one[name]])), 1.0] for name in common]))
        counts = np.zeros((len(common), 2 * letters))
        for place, name in enumerate(common):
            size = len(items[name].options)
            for answer in one[name]:
                counts[place, LETTERS.index(answer.letter)] += 1
            counts[place, letters : letters + size] += len(one[name]) / size
        chosen.append(counts)
    total = sum(counts.sum(axis=0)[:letters] for counts in chosen)
    shares = ", ".join(f"{LETTERS[k]} {value:.1%}" for k, value in enumerate(total / total.sum()))

    def bias(sums: statistics.Floats) -> statistics.Floats:
        shown, even = sums[..., :letters], sums[..., letters:]
        distance: statistics.Floats = np.abs(shown - even).sum(axis=-1) / 2 / shown.sum(axis=-1)
        return distance

    return [
        score_of_terms(ordered, FLIP_RATE, flips, lambda sums: sums[..., 0] / sums[..., 1], clusters, ""),
        score_of_terms(ordered, LETTER_BIAS, chosen, bias, clusters, f"letters chosen: {shares}"),
    ]


def _complete(answers: Answers) -> dict[str, list[OrderAnswer]]:
    """Return the items with an answer to each of several orders."""
    items = {item.id: item for item, _ in answers.pairs}
    most = Counter(len(found) for found in answers.orders.values())
    asked = max(most, default=0)
    return {
        name: list(found)
        for name, found in answers.orders.items()
        if name in items and len(found) > 1 and len(found) == min(asked, len(items[name].options))
    }

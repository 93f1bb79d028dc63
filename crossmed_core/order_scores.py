"""What cyclic option orders disagree on: the flip rate and the letter bias of a condition, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from crossmed_core import statistics
from crossmed_core.orders import flipped
from crossmed_core.scoring import Answers, OrderAnswer, how_made, patient_of
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
        _score(ordered, FLIP_RATE, flips, lambda sums: sums[..., 0] / sums[..., 1], clusters, ""),
        _score(ordered, LETTER_BIAS, chosen, bias, clusters, f"letters chosen: {shares}"),
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


def _score(
    answers: Sequence[Answers],
    name: str,
    terms: Sequence[statistics.Floats],
    value: Callable[[statistics.Floats], statistics.Floats],
    clusters: Sequence[str],
    detail: str,
) -> Score:
    sums = [statistics.cluster_sums(one, clusters) for one in terms]
    by_seed = tuple(float(value(one.sum(axis=0))) for one in sums)
    patients = len(set(clusters))
    low = high = None
    if patients > 1:
        low, high = statistics.interval(statistics.resampled_values(sums, value), by_seed, patients)
    first = answers[0]
    return Score(
        metric=name,
        target=first.target,
        model=first.model,
        split=first.split,
        value=float(np.mean(by_seed)),
        low=None if low is None else max(low, 0.0),  # both metrics lie between 0 and 1
        high=None if high is None else min(high, 1.0),
        n=len(clusters),
        patients=patients,
        chance=None,
        unscored=0,
        guessed=0,
        seeds=tuple(one.seed for one in answers),
        by_seed=by_seed,
        interval=how_made(len(answers), statistics.RESAMPLES) if low is not None else "none: one patient",
        train=first.train,
        fraction=first.fraction,
        variant=first.variant,
        small=statistics.too_small(patients, len(clusters)),
        detail=detail,
    )

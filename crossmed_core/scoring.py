"""Answered items -> scores with n, interval, chance and unscored counts, and the compositional gap. Needs no torch.

Unscored answers (errors, refusals) are left out of the value and counted beside it; they are never a guess and never
silently wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crossmed_core import statistics
from crossmed_core.contracts import AdditiveMetric, KnowsBest, KnowsChance, KnowsInformedChance, Metric
from crossmed_core.types import Item, Prediction, Score, person

Pairs = list[tuple[Item, Prediction]]


@dataclass(frozen=True)
class Answers:
    """All answers of one trial.

    Attributes:
        model: Model name.
        split: Split name.
        target: The tested cell, as text.
        seed: The training seed.
        pairs: Each test item with its prediction.
        train: Number of training items.
    """

    model: str
    split: str
    target: str
    seed: int
    pairs: Pairs
    train: int = 0

    def scored(self, only: set[str] | None = None) -> Pairs:
        """Return the pairs with an answer, sorted by item id, restricted to the ids in `only` if given."""
        kept = [pair for pair in self.pairs if pair[1].scored and (only is None or pair[0].id in only)]
        return sorted(kept, key=lambda pair: pair[0].id)


@dataclass(frozen=True)
class Gap:
    """The difference of two conditions on the same test items: first minus second.

    `guessed` names the conditions whose answers are all declared guesses: a gap to them is a gap to chance, by
    construction.
    """

    metric: str
    target: str
    model: str
    first: str
    second: str
    value: float
    low: float
    high: float
    n: int
    seeds: tuple[int, ...]
    interval: str
    guessed: tuple[str, ...] = ()


def patient_of(item: Item) -> str:
    """Return the cluster of an item for resampling."""
    return person(item.dataset, item.patient)


def score(answers: Sequence[Answers], name: str, metric: Metric, *, proportion: bool = False) -> Score:
    """Score one condition over its seeds.

    Args:
        answers: The trials of one (model, split, target), one per seed.
        name: Name of the metric.
        metric: The metric.
        proportion: Whether it is a share of right answers, for which Wilson's interval holds if there is one seed and
            every item is another patient.

    Returns:
        The mean over seeds, with a 95 % interval over patients (and seeds, if several).
    """
    first = answers[0]
    ordered = sorted(answers, key=lambda one: one.seed)
    # One set of items for value, interval, n and chance: those that every seed answered.
    common = set.intersection(*({item.id for item, _ in one.scored()} for one in ordered))
    pairs = [one.scored(common) for one in ordered]
    items = [item for item, _ in pairs[0]]
    by_seed = tuple(_finite(metric(one)) if common else None for one in pairs)
    known = [value for value in by_seed if value is not None]
    patients = len({patient_of(item) for item in items})
    low = high = None
    how = "none: fewer than two patients were scored"
    if len(known) == len(by_seed) and patients > 1:
        low, high, how = _interval(ordered, common, metric, known, patients, proportion)
    chance = _finite(metric.chance(items)) if items and isinstance(metric, KnowsChance) else None
    best = _finite(metric.best(items)) if items and isinstance(metric, KnowsBest) else None
    informed = None
    if chance is not None and isinstance(metric, KnowsInformedChance) and any(item.decoys for item in items):
        informed = _finite(metric.informed_chance(items))
    return Score(
        metric=name,
        target=first.target,
        model=first.model,
        split=first.split,
        value=sum(known) / len(known) if known else None,
        low=_finite(low),
        high=_finite(high),
        n=len(items),
        patients=patients,
        chance=chance,
        unscored=sum(len(one.pairs) - len(one.scored()) for one in ordered),
        guessed=sum(prediction.guess for one in pairs for _, prediction in one),
        seeds=tuple(one.seed for one in ordered),
        by_seed=by_seed,
        interval=how,
        train=first.train,
        best=best,
        informed=informed,
    )


def _interval(
    answers: Sequence[Answers],
    common: set[str],
    metric: Metric,
    by_seed: Sequence[float],
    patients: int,
    proportion: bool,
) -> tuple[float, float, str]:
    pairs = answers[0].scored(common)
    clusters = [patient_of(item) for item, _ in pairs]
    if len(answers) == 1 and proportion and patients == len(pairs):
        low, high = statistics.wilson(round(by_seed[0] * patients), patients)
        return low, high, "Wilson, one item per patient, one training seed"
    if isinstance(metric, AdditiveMetric):
        draws = statistics.resampled_values(_sums(answers, common, metric), metric.value)
        resamples = statistics.RESAMPLES
    else:
        scored = [one.scored(common) for one in answers]

        def of_sample(places: Sequence[int]) -> float:
            return float(np.mean([metric([one[place] for place in places]) for one in scored]))

        draws = statistics.generic_draws(of_sample, clusters)
        resamples = len(draws)
    if proportion and np.ptp(draws) == 0 and by_seed[0] in (0.0, 1.0):
        # All right or all wrong: resampling sees no variance where there may be some.
        low, high = statistics.wilson(round(by_seed[0] * patients), patients)
        return low, high, "Wilson on patients, as all answers are alike"
    low, high = statistics.interval(draws, by_seed)
    return low, high, _how(len(answers), resamples)


def _how(seeds: int, resamples: int) -> str:
    if seeds == 1:
        return f"bootstrap over patients, {resamples} resamples, one training seed"
    return f"t interval over {seeds} training seeds and patients ({resamples} resamples)"


def _sums(answers: Sequence[Answers], common: set[str], metric: AdditiveMetric) -> list[statistics.Floats]:
    # One call for all seeds, so that a metric whose terms depend on the labels present lays them out alike.
    per_seed = [one.scored(common) for one in answers]
    terms = metric.terms([pair for pairs in per_seed for pair in pairs])
    size = len(per_seed[0])
    clusters = [patient_of(item) for item, _ in per_seed[0]]
    return [
        statistics.cluster_sums(terms[number * size : (number + 1) * size], clusters) for number in range(len(answers))
    ]


def gap(first: Sequence[Answers], second: Sequence[Answers], name: str, metric: Metric) -> Gap | None:
    """Compare two conditions on the items and seeds that both have, with a paired interval.

    Returns:
        First minus second, or None if they share no scored item or seed, or the metric is not a function of sums.
    """
    seeds = sorted({one.seed for one in first} & {one.seed for one in second})
    if not seeds or not isinstance(metric, AdditiveMetric):
        return None
    sides = [[next(one for one in side if one.seed == seed) for seed in seeds] for side in (first, second)]
    common = set.intersection(*({item.id for item, _ in one.scored()} for side in sides for one in side))
    if not common:
        return None
    sums = _sums([one for side in sides for one in side], common, metric)
    halves = sums[: len(seeds)], sums[len(seeds) :]
    # Equal seed and shapes: both draw the same patients, so the difference is paired.
    draws = [statistics.resampled_values(half, metric.value) for half in halves]
    values = [[float(metric.value(one.sum(axis=0))) for one in half] for half in halves]
    differences = [one - other for one, other in zip(*values, strict=True)]
    low, high = statistics.interval(draws[0] - draws[1], differences)
    return Gap(
        metric=name,
        target=first[0].target,
        model=first[0].model,
        first=first[0].split,
        second=second[0].split,
        value=float(np.mean(differences)),
        low=low,
        high=high,
        n=len(common),
        seeds=tuple(seeds),
        interval=f"paired {_how(len(seeds), statistics.RESAMPLES)}",
        guessed=tuple(side[0].split for side in sides if _all_guessed(side, common)),
    )


def _all_guessed(side: Sequence[Answers], common: set[str]) -> bool:
    return all(prediction.guess for one in side for _, prediction in one.scored(common))


def conditions(answers: Iterable[Answers]) -> dict[tuple[str, str, str], list[Answers]]:
    """Group trials by (model, target, split), in order of appearance."""
    groups: dict[tuple[str, str, str], list[Answers]] = {}
    for one in answers:
        groups.setdefault((one.model, one.target, one.split), []).append(one)
    return groups


def gaps(answers: Iterable[Answers], metrics: Mapping[str, Metric], compared: Sequence[tuple[str, str]]) -> list[Gap]:
    """Return the gap of each pair of splits in `compared`, for every model and target that has both.

    Args:
        answers: Trials whose items the metrics score.
        metrics: Name -> metric.
        compared: Pairs of split names, e.g. ("related", "zero-overlap").
    """
    groups = conditions(answers)
    found = []
    for model, target in dict.fromkeys((model, target) for model, target, _ in groups):
        for first, second in compared:
            one, other = groups.get((model, target, first)), groups.get((model, target, second))
            if one and other:
                results = (gap(one, other, name, metric) for name, metric in metrics.items())
                found += [result for result in results if result is not None]
    return found


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)

"""Answered items -> scores with n, interval, chance and unscored counts, and the compositional gap. Needs no torch.

Unscored answers (errors, refusals) are left out of the value and counted beside it; they are never a guess and never
silently wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from crossmed_core import statistics
from crossmed_core.contracts import AdditiveMetric, KnowsChance, Metric
from crossmed_core.types import Item, Prediction, Score

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
    """

    model: str
    split: str
    target: str
    seed: int
    pairs: Pairs

    def scored(self, only: set[str] | None = None) -> Pairs:
        """Return the pairs with an answer, sorted by item id, restricted to the ids in `only` if given."""
        kept = [pair for pair in self.pairs if pair[1].scored and (only is None or pair[0].id in only)]
        return sorted(kept, key=lambda pair: pair[0].id)


@dataclass(frozen=True)
class Gap:
    """The difference of two conditions on the same test items: first minus second."""

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


def patient_of(item: Item) -> str:
    """Return the cluster of an item for resampling."""
    return f"{item.dataset}\x1f{item.patient}"


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
    common = set.intersection(*({item.id for item, _ in one.scored()} for one in ordered))
    values = tuple(_finite(metric(one.scored())) if one.scored() else None for one in ordered)
    known = [value for value in values if value is not None]
    items = [item for item, _ in first.scored(common)]
    patients = len({patient_of(item) for item in items})
    low = high = None
    interval = "none: nothing was scored"
    if known and common:
        low, high, interval = _interval(ordered, common, metric, values, patients, proportion)
    chance = _finite(metric.chance([item for item, _ in first.pairs])) if isinstance(metric, KnowsChance) else None
    return Score(
        metric=name,
        target=first.target,
        model=first.model,
        split=first.split,
        value=sum(known) / len(known) if known else None,
        low=_finite(low),
        high=_finite(high),
        n=len({item.id for one in ordered for item, _ in one.scored()}),
        patients=patients,
        chance=chance,
        unscored=sum(len(one.pairs) - len(one.scored()) for one in ordered),
        guessed=sum(prediction.guess for one in ordered for _, prediction in one.scored()),
        seeds=tuple(one.seed for one in ordered),
        by_seed=values,
        interval=interval,
    )


def _interval(
    answers: Sequence[Answers],
    common: set[str],
    metric: Metric,
    values: Sequence[float | None],
    patients: int,
    proportion: bool,
) -> tuple[float, float, str]:
    pairs = answers[0].scored(common)
    if len(answers) == 1 and proportion and patients == len(pairs):
        n = len(pairs)
        low, high = statistics.wilson(round((values[0] or 0.0) * n), n)
        return low, high, "Wilson, one item per patient, one training seed"
    over = "patients" if len(answers) == 1 else f"patients and {len(answers)} training seeds"
    if isinstance(metric, AdditiveMetric):
        draws = statistics.resampled_values(_sums(answers, common, metric), metric.value)
        return *statistics.percentile_interval(draws), f"bootstrap over {over}, {statistics.RESAMPLES} resamples"

    def of_sample(indices: Sequence[int]) -> float:
        return float(np.mean([metric([one[i] for i in indices]) for one in scored]))

    scored = [one.scored(common) for one in answers]
    clusters = [patient_of(item) for item, _ in pairs]
    return *statistics.generic_interval(of_sample, clusters), "bootstrap over patients, 500 resamples"


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
    # Equal seed and shapes: both draw the same patients and training seeds, so the difference is paired.
    draws = [statistics.resampled_values(half, metric.value) for half in halves]
    means = [float(np.mean([metric.value(one.sum(axis=0)) for one in half])) for half in halves]
    low, high = statistics.percentile_interval(draws[0] - draws[1])
    over = "patients" if len(seeds) == 1 else f"patients and {len(seeds)} training seeds"
    return Gap(
        metric=name,
        target=first[0].target,
        model=first[0].model,
        first=first[0].split,
        second=second[0].split,
        value=means[0] - means[1],
        low=low,
        high=high,
        n=len(common),
        seeds=tuple(seeds),
        interval=f"paired bootstrap over {over}, {statistics.RESAMPLES} resamples",
    )


def conditions(answers: Iterable[Answers]) -> dict[tuple[str, str, str], list[Answers]]:
    """Group trials by (model, target, split), in order of appearance."""
    groups: dict[tuple[str, str, str], list[Answers]] = {}
    for one in answers:
        groups.setdefault((one.model, one.target, one.split), []).append(one)
    return groups


def gaps(
    answers: Iterable[Answers],
    metric_of: Callable[[str], Mapping[str, Metric]],
    compared: Sequence[tuple[str, str]],
) -> list[Gap]:
    """Return the gap of each pair of splits in `compared`, for every model and target that has both.

    Args:
        answers: All trials.
        metric_of: Answer kind -> the metrics by name to compare.
        compared: Pairs of split names, e.g. ("related", "zero-overlap").
    """
    groups = conditions(answers)
    found = []
    for model, target in dict.fromkeys((model, target) for model, target, _ in groups):
        for pair in compared:
            sides = [groups.get((model, target, split)) for split in pair]
            if not all(sides):
                continue
            first, second = cast(list[list[Answers]], sides)
            kind = first[0].pairs[0][0].kind if first[0].pairs else "option"
            for name, metric in metric_of(kind).items():
                result = gap(first, second, name, metric)
                if result is not None:
                    found.append(result)
    return found


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)

"""Answered items -> scores with n, interval, chance and unscored counts. Needs no torch.

Unscored answers (errors, refusals) are left out of the value and counted beside it; they are never a guess and never
silently wrong. What the value could have been with them is given as its worst and best case.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from crossmed_core import statistics
from crossmed_core.comparison import adjust
from crossmed_core.contracts import AdditiveMetric, KnowsBest, KnowsBounds, KnowsChance, KnowsInformedChance, Metric
from crossmed_core.types import Item, Prediction, Score, person

Pairs = list[tuple[Item, Prediction]]


class OrderAnswer(NamedTuple):
    """The answer to an item in one cyclic order of its options.

    Attributes:
        order: How far the options were moved.
        letter: The letter chosen, as shown.
        option: The chosen option's place in the item's own order.
    """

    order: int
    letter: str
    option: int


class Condition(NamedTuple):
    """What is scored together: trials that differ in their seed only."""

    model: str
    target: str
    split: str
    fraction: float
    variant: str


@dataclass(frozen=True)
class Answers:
    """All answers of one trial, or of a control or baseline beside them.

    Attributes:
        model: Model name.
        split: Split name.
        target: The tested cell, as text.
        seed: The training seed.
        pairs: Each test item with its prediction.
        train: Number of training items.
        fraction: Share of the matched training size.
        variant: "" for the answers themselves; "control:NAME", "baseline:NAME" or "seen" for those beside them.
        orders: Item id -> the answers to its single orders, where several were asked.
    """

    model: str
    split: str
    target: str
    seed: int
    pairs: Pairs
    train: int = 0
    fraction: float = 1.0
    variant: str = ""
    orders: Mapping[str, Sequence[OrderAnswer]] = field(default_factory=dict)

    @property
    def condition(self) -> Condition:
        """What it is scored with."""
        return Condition(self.model, self.target, self.split, self.fraction, self.variant)

    def scored(self, only: set[str] | None = None) -> Pairs:
        """Return the pairs with an answer, sorted by item id, restricted to the ids in `only` if given."""
        kept = [pair for pair in self.pairs if pair[1].scored and (only is None or pair[0].id in only)]
        return sorted(kept, key=lambda pair: pair[0].id)


def patient_of(item: Item) -> str:
    """Return the cluster of an item for resampling."""
    return person(item.dataset, item.patient)


def score(answers: Sequence[Answers], name: str, metric: Metric, *, proportion: bool = False) -> Score:
    """Score one condition over its seeds.

    Args:
        answers: The trials of one condition, one per seed.
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
    by_seed = tuple(finite(metric(one)) if common else None for one in pairs)
    known = [value for value in by_seed if value is not None]
    patients = len({patient_of(item) for item in items})
    low = high = None
    how = "none: fewer than two patients were scored"
    if len(known) == len(by_seed) and patients > 1:
        low, high, how = _interval(ordered, common, metric, known, patients, proportion)
    unscored = [[(item, prediction) for item, prediction in one.pairs if not prediction.scored] for one in ordered]
    worst = optimum = None
    if any(unscored) and isinstance(metric, KnowsBounds):
        # Of the items that the value is of; whatever another seed lacks counts as missing here, too.
        missing = [item for item, _ in first.pairs if item.id not in common]
        ends = [metric.bounds(one, missing) for one in pairs]
        worst, optimum = (finite(float(np.mean(end))) for end in zip(*ends, strict=True))
    failures = Counter(prediction.failure for missing in unscored for _, prediction in missing)
    chance = finite(metric.chance(items)) if items and isinstance(metric, KnowsChance) else None
    best = finite(metric.best(items)) if items and isinstance(metric, KnowsBest) else None
    informed = None
    if chance is not None and isinstance(metric, KnowsInformedChance) and any(item.decoys for item in items):
        informed = finite(metric.informed_chance(items))
    return Score(
        metric=name,
        target=first.target,
        model=first.model,
        split=first.split,
        value=sum(known) / len(known) if known else None,
        low=finite(low),
        high=finite(high),
        n=len(items),
        patients=patients,
        chance=chance,
        unscored=sum(map(len, unscored)),
        guessed=sum(prediction.guess for one in pairs for _, prediction in one),
        seeds=tuple(one.seed for one in ordered),
        by_seed=by_seed,
        interval=how,
        train=first.train,
        best=best,
        informed=informed,
        fraction=first.fraction,
        variant=first.variant,
        unparsed=failures["unparsed"],
        refused=failures["refused"],
        worst=worst,
        optimum=optimum,
        small=statistics.too_small(patients, len(items)),
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
        draws = statistics.resampled_values(term_sums(answers, common, metric), metric.value)
        resamples = statistics.RESAMPLES
    else:
        scored = [one.scored(common) for one in answers]

        def of_sample(places: Sequence[int]) -> list[float]:
            return [metric([one[place] for place in places]) for one in scored]

        draws = statistics.generic_draws(of_sample, clusters)
        resamples = len(draws)
    if proportion and np.ptp(draws) == 0 and by_seed[0] in (0.0, 1.0):
        # All right or all wrong: resampling sees no variance where there may be some.
        low, high = statistics.wilson(round(by_seed[0] * patients), patients)
        return low, high, "Wilson on patients, as all answers are alike"
    low, high = statistics.interval(draws, by_seed, patients)
    return low, high, how_made(len(answers), resamples)


def how_made(seeds: int, resamples: int) -> str:
    """Say in words how an interval was made."""
    if seeds == 1:
        return f"bootstrap over patients, {resamples} resamples, one training seed"
    return f"t interval over {seeds} training seeds and patients ({resamples} resamples)"


def term_sums(answers: Sequence[Answers], common: set[str], metric: AdditiveMetric) -> list[statistics.Floats]:
    """Return the metric's terms over the items in `common`, summed by patient: one (patients, terms) per trial."""
    # One call for all seeds, so that a metric whose terms depend on the labels present lays them out alike.
    per_seed = [one.scored(common) for one in answers]
    terms = metric.terms([pair for pairs in per_seed for pair in pairs])
    size = len(per_seed[0])
    clusters = [patient_of(item) for item, _ in per_seed[0]]
    return [
        statistics.cluster_sums(terms[number * size : (number + 1) * size], clusters) for number in range(len(answers))
    ]


def with_probabilities(answers: Answers) -> Answers:
    """Return answers of which those without option probabilities are unscored."""
    lacking = "the model gave no probabilities"
    return replace(
        answers,
        pairs=[
            (
                item,
                Prediction(item.id, error=lacking)
                if prediction.scored and not prediction.option_scores
                else prediction,
            )
            for item, prediction in answers.pairs
        ],
    )


def conditions(answers: Iterable[Answers]) -> dict[Condition, list[Answers]]:
    """Group trials that differ in their seed only, in order of appearance."""
    groups: dict[Condition, list[Answers]] = {}
    for one in answers:
        groups.setdefault(one.condition, []).append(one)
    return groups


def tested_against_chance(scores: Sequence[Score], lower_is_better: Collection[str] = ()) -> list[Score]:
    """Add `p_chance` to the scores of controls and baselines that ought to be at chance.

    By the normal approximation, with the standard error that the interval's lower end implies. wrong-mat leaves the
    image, and need not be at chance.

    Args:
        scores: All scores of a run.
        lower_is_better: Names of metrics that are errors or losses, which have no such test.
    """
    from statistics import NormalDist

    tested: dict[str, list[int]] = {}
    p_values: dict[int, float] = {}
    for place, one in enumerate(scores):
        if not one.variant.startswith(("control:", "baseline:")) or one.variant == "control:wrong-mat":
            continue
        if one.small or one.value is None or one.low is None or one.chance is None or one.metric in lower_is_better:
            continue
        error = (one.value - one.low) / NormalDist().inv_cdf((1 + statistics.LEVEL) / 2)
        above = one.value - one.chance
        p_values[place] = 1 - NormalDist().cdf(above / error) if error > 0 else float(above <= 0)
        tested.setdefault(one.metric, []).append(place)
    found = list(scores)
    for places in tested.values():
        for place, p in zip(places, adjust([p_values[place] for place in places], "holm"), strict=True):
            found[place] = replace(found[place], p_chance=p)
    return found


def finite(value: float | None) -> float | None:
    """Return a number, or None for NaN, infinity and None."""
    return None if value is None or not math.isfinite(value) else float(value)


def score_of_terms(
    answers: Sequence[Answers],
    name: str,
    terms: Sequence[statistics.Floats],
    value: Callable[[statistics.Floats], statistics.Floats],
    clusters: Sequence[str],
    detail: str = "",
) -> Score:
    """Score a condition by a value between 0 and 1 that is a function of sums over items.

    Args:
        answers: The trials of the condition, one per seed.
        name: Of the metric.
        terms: Per seed, the summands (items, terms).
        value: Turns sums (..., terms) into values (...).
        clusters: Whose each item is (`patient_of`).
        detail: What else a reader wants to know.
    """
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
        low=None if low is None else max(low, 0.0),  # a symmetric interval may cross them
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

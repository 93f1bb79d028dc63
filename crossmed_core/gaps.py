"""The compositional gap: two conditions on the same test items, with a paired interval and a test.

related - zero-overlap asks what sharing two factors is worth, in-domain - zero-overlap what there is to lose, and a
condition minus its own control how much of the score rests on what the control takes away (visual reliance: the score
minus that on shuffled images, Zafar et al., arXiv 2603.03437).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from crossmed_core import statistics
from crossmed_core.comparison import adjust, swap_test
from crossmed_core.contracts import AdditiveMetric, KnowsChance, Metric
from crossmed_core.scoring import Answers, conditions, finite, how_made, term_sums


@dataclass(frozen=True)
class Gap:
    """The difference of two conditions on the same test items: first minus second.

    Attributes:
        metric: The metric's name.
        target: The tested cell.
        model: Model name.
        first: Split of the first condition.
        second: Split of the second.
        value: First minus second, mean over seeds.
        low: Lower end of the 95 % interval; None with fewer than two patients, as is all else that rests on them.
        high: Upper end.
        n: Items that both answered.
        patients: Distinct patients among them.
        seeds: Seeds that both have.
        interval: How the interval was made.
        guessed: Conditions whose answers are all declared guesses: a gap to them is a gap to chance, by construction.
        fraction: Share of the matched training size.
        variant: "" for a gap between two splits; "control:NAME" where the second is the first one's control.
        relative: The gap as a share of what the first scores above chance: 1 = all of it is lost. None where the
            first's interval does not lie above chance, the metric has no chance level, or lower is better.
        relative_low: Lower end of its 95 % interval.
        relative_high: Upper end.
        p: Two-sided p-value of no difference, by the same standard error as the interval.
        p_holm: Adjusted by Holm over the targets, for the same model, metric, splits and fraction.
        q_bh: Adjusted by Benjamini and Hochberg, likewise.
        mde: The smallest difference that such a comparison finds with 80 % power at 5 %; None if nothing varied.
        small: Whether too few patients were compared to rank it.
    """

    metric: str
    target: str
    model: str
    first: str
    second: str
    value: float
    low: float | None
    high: float | None
    n: int
    seeds: tuple[int, ...]
    interval: str
    guessed: tuple[str, ...] = ()
    patients: int = 0
    fraction: float = 1.0
    variant: str = ""
    relative: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    q_bh: float | None = None
    mde: float | None = None
    small: bool = False


def gap(
    first: Sequence[Answers], second: Sequence[Answers], name: str, metric: Metric, *, relative: bool = True
) -> Gap | None:
    """Compare two conditions on the items and seeds that both have.

    Args:
        first: The trials of one condition, one per seed.
        second: Those of the other.
        name: Name of the metric.
        metric: The metric.
        relative: Whether to put the gap into relation to chance; senseless where lower is better.

    Returns:
        First minus second, or None if they share no scored item or seed, or the metric is not a function
        of sums that can be compared (`contracts.AdditiveMetric`).
    """
    seeds = sorted({one.seed for one in first} & {one.seed for one in second})
    if not seeds or not isinstance(metric, AdditiveMetric) or getattr(metric, "conditional", False):
        return None
    sides = [[next(one for one in side if one.seed == seed) for seed in seeds] for side in (first, second)]
    common = set.intersection(*({item.id for item, _ in one.scored()} for side in sides for one in side))
    if not common:
        return None
    sums = term_sums([one for side in sides for one in side], common, metric)
    halves = sums[: len(seeds)], sums[len(seeds) :]
    draws = statistics.paired_values(halves, metric.value)
    values = [[float(metric.value(one.sum(axis=0))) for one in half] for half in halves]
    differences = [one - other for one, other in zip(*values, strict=True)]
    patients = len(sums[0])
    differences_drawn = draws[0] - draws[1]
    low, high = statistics.interval(differences_drawn, differences, patients) if patients > 1 else (None, None)
    items = [item for item, _ in sides[0][0].scored(common)]
    chance = metric.chance(items) if relative and isinstance(metric, KnowsChance) else float("nan")
    share = _share_lost(chance, draws, values, patients) if patients > 1 else (None, None, None)
    spread = statistics.Spread.of(differences_drawn, differences, patients)
    return Gap(
        metric=name,
        target=first[0].target,
        model=first[0].model,
        first=first[0].split,
        second=second[0].split,
        value=float(np.mean(differences)),
        low=finite(low),
        high=finite(high),
        n=len(common),
        seeds=tuple(seeds),
        interval=f"paired {how_made(len(seeds), statistics.RESAMPLES)}",
        guessed=tuple(_named(side[0]) for side in sides if _all_guessed(side, common)),
        patients=patients,
        fraction=first[0].fraction,
        variant=second[0].variant,
        relative=share[0],
        relative_low=share[1],
        relative_high=share[2],
        p=_p_value(halves, metric, spread, differences) if patients > 1 else None,
        mde=finite(spread.detectable()) if patients > 1 and spread.error > 0 else None,
        small=statistics.too_small(patients, len(common)),
    )


def _p_value(
    halves: Sequence[Sequence[statistics.Floats]],
    metric: AdditiveMetric,
    spread: statistics.Spread,
    differences: Sequence[float],
) -> float | None:
    """Return the p-value of no difference.

    One seed: patients swap the two conditions' answers (exact under the null that they are exchangeable). Several: the
    t-test that belongs to the interval, so that the two agree.
    """
    if len(differences) == 1:
        return finite(swap_test(halves[0][0], halves[1][0], metric.value))
    return finite(spread.p_value(float(np.mean(differences))))


def _share_lost(
    chance: float, draws: Sequence[statistics.Floats], values: Sequence[Sequence[float]], patients: int
) -> tuple[float | None, float | None, float | None]:
    """Return the gap as a share of what the first condition scores above chance, with its interval (delta method).

    None where the first is not above chance by its own interval: a share of next to nothing says nothing.
    """
    above = np.array(values[0]) - chance
    if not np.isfinite(chance) or not statistics.interval(draws[0] - chance, above.tolist(), patients)[0] > 0:
        return None, None, None
    lost = np.array(values[0]) - np.array(values[1])
    whole = float(above.mean())
    share = float(lost.mean()) / whole
    # How far each seed and draw pulls the ratio of the means, to first order.
    by_seed = share + (lost - share * above) / whole
    drawn = share + (draws[0] - draws[1] - share * (draws[0] - chance)) / whole
    low, high = statistics.interval(drawn, by_seed.tolist(), patients)
    return share, finite(low), finite(high)


def _named(answers: Answers) -> str:
    return f"{answers.split} under {answers.variant.partition(':')[2]}" if answers.variant else answers.split


def _all_guessed(side: Sequence[Answers], common: set[str]) -> bool:
    return all(prediction.guess for one in side for _, prediction in one.scored(common))


def gaps(
    answers: Iterable[Answers],
    metrics: Mapping[str, Metric],
    compared: Sequence[tuple[str, str]],
    *,
    lower_is_better: Collection[str] = (),
) -> list[Gap]:
    """Return the gap of each pair of splits in `compared`, and of each condition and its controls.

    Args:
        answers: Trials whose items the metrics score.
        metrics: Name -> metric.
        compared: Pairs of split names, e.g. ("related", "zero-overlap"); a split with an argument by its name alone.
        lower_is_better: Names of metrics that are errors or losses.

    Returns:
        For every model, target and fraction that has both, with p-values adjusted over the targets.
    """
    groups = conditions(answers)
    found: list[Gap] = []
    pairs = []
    for key, one in groups.items():
        if key.variant.startswith("control:"):
            real = groups.get(key._replace(variant=""))
            pairs += [(real, one)] if real else []
    for first, second in compared:
        for key, one in groups.items():
            if key.variant or not _is(key.split, first):
                continue
            for other_key, other in groups.items():
                if other_key._replace(split=key.split) == key and _is(other_key.split, second) and other is not one:
                    pairs.append((one, other))
    for one, other in pairs:
        results = (
            gap(one, other, name, metric, relative=name not in lower_is_better) for name, metric in metrics.items()
        )
        found += [result for result in results if result is not None]
    return _adjusted(found)


def _is(split: str, name: str) -> bool:
    return split == name or split.partition(":")[0] == name


def _adjusted(found: Sequence[Gap]) -> list[Gap]:
    """Adjust the p-values of each family: the same comparison over several targets. Small cells are not ranked."""
    families: dict[tuple[object, ...], list[int]] = {}
    for place, one in enumerate(found):
        if not one.small:
            names = (one.first.partition(":")[0], one.second.partition(":")[0])
            families.setdefault((one.metric, one.model, *names, one.fraction, one.variant), []).append(place)
    adjusted = list(found)
    for places in families.values():
        values = [found[place].p for place in places]
        for place, holm, bh in zip(places, adjust(values, "holm"), adjust(values, "bh"), strict=True):
            adjusted[place] = replace(found[place], p_holm=holm, q_bh=bh)
    return adjusted

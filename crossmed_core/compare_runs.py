"""Two runs on the same items: which items both were asked, how the answers differ, and whether by more than chance.

An item is the same where its question, options, true answer, label, image digest and masks are; anything else would
compare two exams. What only one run has, or has otherwise, is left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from crossmed_core.bound import loss
from crossmed_core.comparison import adjust, mcnemar
from crossmed_core.contracts import Metric
from crossmed_core.gaps import gap
from crossmed_core.records import MetricRecord
from crossmed_core.run import kinds_of
from crossmed_core.scoring import Answers, Condition, conditions, finite, patient_of, with_probabilities
from crossmed_core.types import Item, Prediction

IOU_DIFFERS = 0.1
"""Two masks of one item count as different where their IoU with the truth differs by more than this."""


class Matched(NamedTuple):
    """The same condition in two runs, restricted to the items that both were asked.

    Attributes:
        target: The tested cell.
        split: Split name.
        fraction: Share of the matched training size.
        first: The trials of run A, one per seed.
        second: Those of run B.
    """

    target: str
    split: str
    fraction: float
    first: list[Answers]
    second: list[Answers]

    @property
    def models(self) -> tuple[str, str]:
        """The model of A and that of B."""
        return self.first[0].model, self.second[0].model


@dataclass(frozen=True)
class LeftOut:
    """Items that are not compared; distinct ids over all conditions.

    Attributes:
        only_first: Ids that only run A has.
        only_second: Ids that only run B has.
        differ: Id -> what differs ("question", "options", "image" ...).
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    differ: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """Two runs under one metric in one condition: A minus B on the items and seeds that both scored.

    Attributes:
        metric: The metric's name.
        target: The tested cell.
        split: Split name.
        fraction: Share of the matched training size.
        model_a: Model of run A.
        model_b: Model of run B.
        a: Value of A, mean over seeds.
        b: Value of B.
        difference: A minus B.
        low: Lower end of the 95 % interval of the difference, paired over patients (and seeds, if several).
        high: Upper end.
        n: Items that both answered for every seed.
        patients: Distinct patients among them.
        seeds: Seeds that both have.
        p: Two-sided p-value of no difference: patients swap answers (one seed) or the interval's t-test (several).
        p_holm: Adjusted by Holm over the rows of this metric.
        q_bh: Adjusted by Benjamini and Hochberg, likewise.
        mcnemar: Exact p-value of McNemar's test; for a share of right answers (accuracy) and one seed only.
        ignores_patients: Whether that test is too sure of itself, as a patient has several items.
        only_a: Answers that only A has right, over all seeds; None unless the metric is a share of right answers.
        only_b: Answers that only B has right.
        mde: The smallest difference that such a comparison finds with 80 % power at 5 %.
        small: Whether too few patients were compared to rank it; then p is not adjusted.
        interval: How the interval was made.
        train_a: Training items of A's trials; another number than B's is a difference of its own.
        train_b: Those of B.
    """

    metric: str
    target: str
    split: str
    fraction: float
    model_a: str
    model_b: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    n: int
    patients: int
    seeds: tuple[int, ...]
    p: float | None
    p_holm: float | None = None
    q_bh: float | None = None
    mcnemar: float | None = None
    ignores_patients: bool = False
    only_a: int | None = None
    only_b: int | None = None
    mde: float | None = None
    small: bool = False
    interval: str = ""
    train_a: int = 0
    train_b: int = 0


def match(first: Iterable[Answers], second: Iterable[Answers]) -> tuple[list[Matched], LeftOut]:
    """Find the conditions and items that two runs have in common. Controls, baselines and seen cells do not count.

    Where each run has one model for a target, split and fraction, these two are compared; else equal names are.

    Args:
        first: Answers of run A (`run.read_answers`).
        second: Those of run B.

    Returns:
        The conditions in the order of A, those without a common item left out; and the items that are left out.
    """
    sides = [_by_place(side) for side in (first, second)]
    found: list[Matched] = []
    only: tuple[set[str], set[str]] = (set(), set())
    differ: dict[str, str] = {}
    for place, models in sides[0].items():
        others = sides[1].get(place, {})
        if len(models) == len(others) == 1:
            couples = [(next(iter(models.values())), next(iter(others.values())))]
        else:
            couples = [(models[name], others[name]) for name in models if name in others]
        for one, other in couples:
            items = [{item.id: item for trial in side for item, _ in trial.pairs} for side in (one, other)]
            only[0].update(items[0].keys() - items[1].keys())
            only[1].update(items[1].keys() - items[0].keys())
            common = items[0].keys() & items[1].keys()
            different = {name: what for name in common if (what := _difference(items[0][name], items[1][name]))}
            differ |= different
            same = common - different.keys()
            if same:
                found.append(Matched(*place, *(_restricted(side, same) for side in (one, other))))
    return found, LeftOut(tuple(sorted(only[0])), tuple(sorted(only[1])), dict(sorted(differ.items())))


def _by_place(answers: Iterable[Answers]) -> dict[tuple[str, str, float], dict[str, list[Answers]]]:
    """Return (target, split, fraction) -> model -> trials, of the answers themselves."""
    places: dict[tuple[str, str, float], dict[str, list[Answers]]] = {}
    for key, trials in conditions(one for one in answers if not one.variant and one.pairs).items():
        places.setdefault(_place(key), {})[key.model] = trials
    return places


def _place(key: Condition) -> tuple[str, str, float]:
    return key.target, key.split, key.fraction


def _restricted(trials: Sequence[Answers], ids: Iterable[str]) -> list[Answers]:
    kept = set(ids)
    return [replace(one, pairs=[pair for pair in one.pairs if pair[0].id in kept]) for one in trials]


def _difference(one: Item, other: Item) -> str:
    """Say in which respect two items of one id differ; "" if in none.

    A digest of the image counts where both runs recorded it: a model that looks at no image leaves it out.
    """
    for name in ("mat", "question", "options", "answer", "label", "mask", "candidates"):
        if getattr(one, name) != getattr(other, name):
            return "cell" if name == "mat" else name
    for digest in ("sha256", "pixels"):
        known = {getattr(one.image, digest), getattr(other.image, digest)} - {None}
        if len(known) > 1:
            return "image"
    return "" if patient_of(one) == patient_of(other) else "patient"


def compare(matched: Sequence[Matched], metrics: Mapping[str, tuple[MetricRecord, Metric]]) -> list[Row]:
    """Compare the runs in every condition under every metric that scores its items.

    Args:
        matched: From `match`.
        metrics: Name -> record and metric, in the order wanted.

    Returns:
        Rows by metric, then in the order of `matched`. A condition without a common scored item or seed, or a metric
        that is no function of sums over items (`contracts.AdditiveMetric`), gives none.
    """
    rows = []
    for name, (record, metric) in metrics.items():
        found = [row for one in matched if (row := _row(one, name, record, metric)) is not None]
        ranked = [place for place, row in enumerate(found) if not row.small]
        values = [found[place].p for place in ranked]
        for place, holm, bh in zip(ranked, adjust(values, "holm"), adjust(values, "bh"), strict=True):
            found[place] = replace(found[place], p_holm=holm, q_bh=bh)
        rows += found
    return rows


def _row(one: Matched, name: str, record: MetricRecord, metric: Metric) -> Row | None:
    if record.answers not in kinds_of(one.first[0]):
        return None
    sides = [list(side) for side in (one.first, one.second)]
    if record.needs_scores:
        sides = [[with_probabilities(trial) for trial in side] for side in sides]
    result = gap(sides[0], sides[1], name, metric)
    if result is None:
        return None
    pairs = _common_pairs(sides, result.seeds)
    values = [finite(float(np.mean([metric(trial) for trial in side]))) for side in pairs]
    row = Row(
        metric=name,
        target=one.target,
        split=one.split,
        fraction=one.fraction,
        model_a=one.models[0],
        model_b=one.models[1],
        a=values[0],
        b=values[1],
        difference=finite(result.value),
        low=finite(result.low),
        high=finite(result.high),
        n=result.n,
        patients=result.patients,
        seeds=result.seeds,
        p=finite(result.p),
        mde=result.mde,
        small=result.small,
        interval=result.interval,
        train_a=one.first[0].train,
        train_b=one.second[0].train,
    )
    if not getattr(metric, "proportion", False):
        return row
    right = [
        np.array([prediction.option == item.answer for trial in side for item, prediction in trial]) for side in pairs
    ]
    row = replace(row, only_a=int(np.sum(right[0] & ~right[1])), only_b=int(np.sum(~right[0] & right[1])))
    if len(result.seeds) > 1:
        return row
    return replace(row, mcnemar=mcnemar(right[0], right[1]), ignores_patients=result.patients < result.n)


def _common_pairs(
    sides: Sequence[Sequence[Answers]], seeds: Iterable[int]
) -> list[list[list[tuple[Item, Prediction]]]]:
    """Return per side and seed the pairs that all of them scored, in the order of item ids."""
    trials = [[next(one for one in side if one.seed == seed) for seed in seeds] for side in sides]
    common = set.intersection(*({item.id for item, _ in one.scored()} for side in trials for one in side))
    return [[one.scored(common) for one in side] for side in trials]


def differing(matched: Sequence[Matched]) -> list[dict[str, Any]]:
    """List the answers in which the two runs differ: one is right and the other is not, or their IoU is apart.

    An answer that failed is neither right nor wrong, so it differs from both. Masks count as different where their IoU
    with the truth differs by more than `IOU_DIFFERS`, or only one run has a mask.

    Args:
        matched: From `match`.

    Returns:
        Plain values for JSON, one per item, condition and seed: "item", "cell", "patient", "split", "fraction", "seed",
        "model_a", "model_b", and under "a" and "b" what each answered: "option" (its text), "raw", "error" and "right",
        or "iou" (0 to 1) instead of "option" and "right" for masks.
    """
    rows = []
    for one in matched:
        for seed in sorted({trial.seed for trial in one.first} & {trial.seed for trial in one.second}):
            sides = [next(trial for trial in side if trial.seed == seed) for side in (one.first, one.second)]
            answers = [{item.id: (item, prediction) for item, prediction in side.pairs} for side in sides]
            for name in sorted(answers[0].keys() & answers[1].keys()):
                a, b = (_answer(*side[name]) for side in answers)
                if not _apart(a, b):
                    continue
                item = answers[0][name][0]
                who: dict[str, Any] = {"item": name, "cell": one.target, "patient": item.patient, "split": one.split}
                who |= {"fraction": one.fraction, "seed": seed, "model_a": one.models[0], "model_b": one.models[1]}
                rows.append({**who, "a": a, "b": b})
    return rows


def _answer(item: Item, prediction: Prediction) -> dict[str, Any]:
    said = {"raw": prediction.raw, "error": None if prediction.scored else prediction.error or "no answer"}
    if item.options:
        option = prediction.option if prediction.scored else None
        right = None if option is None else option == item.answer
        return {"option": None if option is None else item.options[option], **said, "right": right}
    return {"iou": 1 - loss(item, prediction) if prediction.scored else None, **said}


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    if "right" in a:
        return bool(a["right"] != b["right"])
    known = [one["iou"] for one in (a, b) if one["iou"] is not None]
    return len(known) == 1 or (len(known) == 2 and abs(known[0] - known[1]) > IOU_DIFFERS)

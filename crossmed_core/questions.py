"""Sample -> Item: a template, distractors and an option order, each drawn from the sample's own id.

CrossMed's pipeline is raw sample -> template pool -> selection -> distractor sampling -> options with MAT tags (its
Fig. 3); it gives neither the templates nor the rules. Here every draw is a hash of the sample id, so an item is the
same in whatever order or process it is made. Answer letters are balanced because each
order is equally likely; the exact counts are in the benchmark card.

A distractor is a label of the same cell that is neither true nor possibly true for the image. Labels that can seldom be
distractors (a parent of other findings) would give themselves away when they are offered; so a build weighs the draw
until every label of a part is true in the same share of the items that offer it, as far as that can be had
(`distractor_weights`). Where a cell has fewer
labels than options (a glioma has two grades), plausible labels from outside fill up, or the item has fewer options: a
choice of the build, recorded in its card. Chance follows per item.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log1p
from typing import Literal

from crossmed_core.errors import CrossmedError
from crossmed_core.parts import part_of
from crossmed_core.seeding import digest
from crossmed_core.types import LETTERS, MAT, Item, Question, Sample
from crossmed_core.vocabulary import words

OPTIONS = 4
ADJUSTMENTS = 200
"""Rounds of adjusting the weights of distractors."""


class UnaskableError(CrossmedError):
    """A sample of which no question can be made: every other label is or may be true too."""


@dataclass(frozen=True)
class Asking:
    """How questions are worded and options filled up; part of a benchmark's digest.

    Attributes:
        prompts: "named" says modality and anatomy, "neutral" gives neither away.
        fill: "outside" fills up to four options with the cell's outside labels, "own" offers only its own labels.
        weights: Label -> weight of its being drawn as a distractor; 1 where it is not named.
    """

    prompts: Literal["named", "neutral"] = "named"
    fill: Literal["outside", "own"] = "outside"
    weights: Mapping[str, float] = field(default_factory=dict)


def make_item(sample: Sample, question: Question, *, dataset: str, asking: Asking | None = None) -> Item:
    """Turn a sample into a question.

    Args:
        sample: The labelled image.
        question: What its cell asks.
        dataset: Name of the dataset, kept with the item.
        asking: How it is asked.

    Raises:
        UnaskableError: If fewer than two options are left.
        CrossmedError: If the sample lacks the answer that its cell asks for, or its label is not one of the cell's.
    """
    asking = asking or Asking()
    options: tuple[str, ...] = ()
    answer: int | None = None
    if question.kind == "option":
        options = sample.options or _options(sample, question, dataset, asking)
        if sample.label not in options:
            raise CrossmedError(f"Sample {sample.id!r} of {dataset}: its label {sample.label!r} is not an option.")
        answer = options.index(sample.label)
    elif sample.mask is None:
        raise CrossmedError(f"Sample {sample.id!r} of {dataset}: {sample.mat} asks for a mask, and it has none.")
    return Item(
        id=sample.id,
        dataset=dataset,
        mat=sample.mat,
        patient=sample.patient,
        part=part_of(sample),
        image=sample.image,
        # A source's own question names modality and anatomy as often as not; neutral wording is always ours.
        question=sample.question
        if sample.question and asking.prompts == "named"
        else wording(sample.id, question, asking),
        options=options,
        answer=answer,
        label=sample.label or "",
        mask=sample.mask if question.kind == "mask" else None,
        study=sample.study,
        decoys=len(set(options) & set(question.outside)),
    )


def wording(item_id: str, question: Question, asking: Asking) -> str:
    """Return the instruction of an item: the drawn template, filled in, or its neutral form."""
    if asking.prompts == "neutral" and not question.neutral:
        raise CrossmedError(
            f"Cell {question.mat} has no neutral prompts.", hint="Its dataset would have to declare them."
        )
    place = digest("template", item_id) % len(question.templates)
    if asking.prompts == "neutral":
        return question.neutral[place % len(question.neutral)]
    mat: MAT = question.mat
    return question.templates[place].format(modality=words(mat.modality), anatomy=words(mat.anatomy))


def _options(sample: Sample, question: Question, dataset: str, asking: Asking) -> tuple[str, ...]:
    if sample.label not in question.labels:
        raise CrossmedError(
            f"Sample {sample.id!r} of {dataset} has label {sample.label!r}, which cell {sample.mat} does not declare.",
            hint=f"Declared: {', '.join(question.labels)}.",
        )
    barred = {sample.label, *sample.excluded}
    own = [label for label in question.labels if label not in barred]
    # Weighted sampling without replacement (Efraimidis and Spirakis 2006): the smallest exponential times come first.
    others = sorted(own, key=lambda label: (_time(sample.id, label) / asking.weights.get(label, 1.0), label))
    if asking.fill == "outside":
        outside = [label for label in question.outside if label not in barred]
        others += sorted(outside, key=lambda label: _time(sample.id, label))
    if not others:
        raise UnaskableError(f"every other label of {sample.mat} is true or uncertain for {sample.id}")
    shown = [sample.label, *others[: OPTIONS - 1]]
    shown.sort(key=lambda label: digest("order", sample.id, label))
    return tuple(shown)


def _time(sample_id: str, label: str) -> float:
    """Return an exponentially distributed number that belongs to a sample and a label."""
    return -log1p(-(digest("distractor", sample_id, label) >> 11) / 2**53)


def distractor_weights(samples: Sequence[Sample], question: Question) -> dict[str, float]:
    """Weigh labels so that being offered says little about being true.

    A label that is true in T of these samples is to be a distractor in (OPTIONS - 1) T of them. The draws of all
    samples are simulated and the weights adjusted until the numbers fit, or as far as they can: a label that is barred
    for most samples, or true in more than one of OPTIONS, cannot reach its number.

    Args:
        samples: Of one cell and part.
        question: What the cell asks.

    Returns:
        Label -> weight, rounded to 4 digits; empty if there is nothing to weigh.
    """
    import numpy as np  # only builds weigh

    labels = list(question.labels)
    asked = [sample for sample in samples if sample.label in labels and not sample.options]
    if not asked or len(labels) <= OPTIONS:
        return {}
    times = np.full((len(asked), len(labels)), np.inf)
    true = np.zeros(len(labels))
    for row, sample in enumerate(asked):
        barred = {sample.label, *sample.excluded}
        true[labels.index(str(sample.label))] += 1
        for column, label in enumerate(labels):
            if label not in barred:
                times[row, column] = _time(sample.id, label)
    wanted = (OPTIONS - 1) * true
    weights = np.ones(len(labels))
    best, least = weights.copy(), np.inf
    for _ in range(ADJUSTMENTS):
        weighed = times / weights
        first = np.argsort(weighed, axis=1, kind="stable")[:, : OPTIONS - 1]
        drawn = np.isfinite(np.take_along_axis(weighed, first, axis=1))
        found = np.bincount(first[drawn], minlength=len(labels))
        miss = float(np.abs(found - wanted).sum())
        if miss < least:
            best, least = weights.copy(), miss
        weights = np.clip(weights * np.sqrt((wanted + 1) / (found + 1)), 1e-4, 1e4)
    return {label: float(f"{weight:.4g}") for label, weight in zip(labels, best, strict=True)}


def letter_counts(items: Iterable[Item]) -> dict[str, int]:
    """Count how often each letter is the answer."""
    counts = Counter(LETTERS[item.answer] for item in items if item.answer is not None)
    return dict(sorted(counts.items()))


def options_only(train: Sequence[Item], test: Sequence[Item]) -> float | None:
    """Return how often the options alone give the answer: a level that a model has to beat.

    The player picks the option that was most often true among the training items that offered it.

    Args:
        train: Where it learns; the test items themselves if there are none.
        test: What it answers.

    Returns:
        Its accuracy, ties counted in shares; None without items.
    """
    offered: Counter[str] = Counter()
    true: Counter[str] = Counter()
    for item in train or test:
        offered.update(item.options)
        true[item.label] += 1
    right = 0.0
    for item in test:
        shares = [true[option] / offered[option] if offered[option] else 0.0 for option in item.options]
        best = [option for option, share in zip(item.options, shares, strict=True) if share == max(shares)]
        right += (item.label in best) / len(best)
    return right / len(test) if test else None

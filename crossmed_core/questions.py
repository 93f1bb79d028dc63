"""Sample -> Item: a template, distractors and an option order, each drawn from the sample's own id.

CrossMed's pipeline is raw sample -> template pool -> selection -> distractor sampling -> options with MAT tags (its
Fig. 3); it gives neither the templates nor the rules. Here every draw is a hash of the sample id, so an item is the
same whichever other samples exist, in whatever order or process they are made. Answer letters are balanced because each
order is equally likely; the exact counts are in the benchmark card.

A distractor is a label of the same cell that is neither true nor possibly true for the image. Where a cell has fewer
labels than options (a glioma has two grades), plausible labels from outside fill up, or the item has fewer options: a
choice of the build, recorded in its card. Chance follows per item.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from crossmed_core.errors import CrossmedError
from crossmed_core.parts import part_of
from crossmed_core.seeding import digest
from crossmed_core.types import LETTERS, MAT, Item, Question, Sample
from crossmed_core.vocabulary import words

OPTIONS = 4


class UnaskableError(CrossmedError):
    """A sample of which no question can be made: all other labels may be true too, or too few regions fit."""


@dataclass(frozen=True)
class Asking:
    """How questions are worded and options filled up; part of a benchmark's digest.

    Attributes:
        prompts: "named" says modality and anatomy, "neutral" gives neither away.
        fill: "outside" fills up to four options with the cell's outside labels, "own" offers only its own labels.
    """

    prompts: Literal["named", "neutral"] = "named"
    fill: Literal["outside", "own"] = "outside"


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

    def drawn(labels: Iterable[str]) -> list[str]:
        left = [label for label in labels if label not in barred]
        return sorted(left, key=lambda label: digest("distractor", sample.id, label))

    others = drawn(question.labels)
    if asking.fill == "outside":
        others += drawn(question.outside)
    if not others:
        raise UnaskableError(f"every other label of {sample.mat} is true or uncertain for {sample.id}")
    shown = [sample.label, *others[: OPTIONS - 1]]
    shown.sort(key=lambda label: digest("order", sample.id, label))
    return tuple(shown)


def letter_counts(items: Iterable[Item]) -> dict[str, int]:
    """Count how often each letter is the answer."""
    counts = Counter(LETTERS[item.answer] for item in items if item.answer is not None)
    return dict(sorted(counts.items()))

"""Sample -> Item: a template, distractors and an option order, each drawn from the sample's own id.

CrossMed's pipeline is raw sample -> template pool -> selection -> distractor sampling -> options with MAT tags (its
Fig. 3); it gives neither the templates nor the rules. Here every draw is a hash of the sample id, so an item is the
same whichever other samples exist, in whatever order or process they are made. Answer letters are balanced because each
order is equally likely; the exact counts are in the benchmark card.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from crossmed_core.errors import CrossmedError
from crossmed_core.seeding import digest
from crossmed_core.types import LETTERS, Item, Part, Question, Sample
from crossmed_core.vocabulary import words

OPTIONS = 4
_PARTS: tuple[tuple[int, Part], ...] = ((80, "train"), (90, "val"), (100, "test"))


def part_of(sample: Sample) -> Part:
    """Return the part that the source assigns, else one drawn by patient: 80 % train, 10 % val, 10 % test."""
    if sample.part is not None:
        return sample.part
    percent = digest("part", sample.patient) % 100
    return next(part for bound, part in _PARTS if percent < bound)


def make_item(sample: Sample, question: Question, *, dataset: str) -> Item:
    """Turn a sample into a question.

    Args:
        sample: The labelled image.
        question: What its cell asks.
        dataset: Name of the dataset, kept with the item.

    Raises:
        CrossmedError: If the sample lacks the answer that its cell asks for, or its label is not one of the cell's.
    """
    mat = sample.mat
    template = question.templates[digest("template", sample.id) % len(question.templates)]
    text = template.format(modality=words(mat.modality), anatomy=words(mat.anatomy))
    options: tuple[str, ...] = ()
    answer: int | None = None
    if question.kind == "option":
        if sample.label not in question.labels:
            raise CrossmedError(
                f"Sample {sample.id!r} of {dataset} has label {sample.label!r}, which cell {mat} does not declare.",
                hint=f"Declared: {', '.join(question.labels)}.",
            )
        others = [label for label in question.labels if label != sample.label]
        others.sort(key=lambda label: digest("distractor", sample.id, label))
        shown = [sample.label, *others[: OPTIONS - 1]]
        shown.sort(key=lambda label: digest("order", sample.id, label))
        options, answer = tuple(shown), shown.index(sample.label)
    elif sample.mask is None:
        raise CrossmedError(f"Sample {sample.id!r} of {dataset} lies in {mat}, which asks for a mask, but has none.")
    return Item(
        id=sample.id,
        dataset=dataset,
        mat=mat,
        patient=sample.patient,
        part=part_of(sample),
        image=sample.image,
        question=text,
        options=options,
        answer=answer,
        label=sample.label or "",
        mask=sample.mask if question.kind == "mask" else None,
        study=sample.study,
    )


def letter_counts(items: Iterable[Item]) -> dict[str, int]:
    """Count how often each letter is the answer."""
    counts = Counter(LETTERS[item.answer] for item in items if item.answer is not None)
    return dict(sorted(counts.items()))

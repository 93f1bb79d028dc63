"""Controls: the same test items and the same trained model, with something taken away that a sound answer needs.

A model that scores above chance without the image does not answer from the image (SURE-VQA, arXiv 2411.19688; Zafar et
al., arXiv 2603.03437); one that scores as well on wrong words as on right ones does not read them; one that finds the
answer from the options alone shows that the distractors are weak (Easy-Options Bias, arXiv 2508.13428).

    text-only       question and options without the image
    options-only    the options alone: neither image nor question
    blank-image     the image replaced by mid grey; candidate regions stay drawn
    shuffled-image  another test item's image in its place, of another patient; candidate regions stay drawn
    wrong-mat       the question names another modality and anatomy than the image shows

Each is scored apart (`Score.variant`), never mixed with the real answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import read_mask
from crossmed_core.records import ModelRecord
from crossmed_core.seeding import digest
from crossmed_core.types import MAT, Item, person
from crossmed_core.vocabulary import SYNONYMS, shared_factors, words

_OF_IMAGES = ("blank-image", "shuffled-image")

Asked = Item | str
"""A test item as the control asks it, or why it cannot be asked so."""


def why_not(control: str, record: ModelRecord) -> str:
    """Say why a control tells nothing about a model; "" if it applies."""
    if control in _OF_IMAGES:
        return "" if record.sees_images else "the model never looks at an image"
    if record.reads_text:
        return ""
    if control == "wrong-mat":
        return "the model reads no words"
    return "the model reads no words: what is left is blank-image; question-only, beside the result, answers from text"


def controlled(control: str, items: Sequence[Item], cells: Iterable[MAT]) -> list[Asked]:
    """Return the items as a control asks them, in order.

    Args:
        control: One of `recipe.CONTROLS`.
        items: All test items of the trial: the shuffled image of one is that of another.
        cells: Cells of the benchmark, from which wrong words are taken.

    Returns:
        One item per item, with the same id, options and answer; or the reason why it cannot be asked so.
    """
    if control == "text-only":
        return [replace(item, withheld=frozenset({"image"})) for item in items]
    if control == "options-only":
        return [replace(item, withheld=frozenset({"image", "question"}), question="") for item in items]
    if control == "blank-image":
        return [replace(item, image=replace(item.image, blank=True)) for item in items]
    if control == "wrong-mat":
        known = sorted(set(cells))
        return [_with_wrong_words(item, known) for item in items]
    return _shuffled(items)


def _shuffled(items: Sequence[Item]) -> list[Asked]:
    """Give each item the image of the next one, in an order drawn by hashes, that has another patient.

    An item that is answered on the image's own pixel grid (a mask, candidate regions) takes one of the same size.
    """
    rings: dict[tuple[int, ...] | None, list[Item]] = {}
    sizes = {item.id: _grid(item) for item in items}
    for item in sorted(items, key=lambda item: (digest("shuffle", item.id), item.id)):
        rings.setdefault(sizes[item.id], []).append(item)
    donors: dict[str, Asked] = {}
    for ring in rings.values():
        for place, item in enumerate(ring):
            own = person(item.dataset, item.patient)
            others = (*ring[place + 1 :], *ring[:place])
            donor = next((one for one in others if person(one.dataset, one.patient) != own), None)
            donors[item.id] = (
                replace(item, image=replace(donor.image, marks=item.image.marks))
                if donor is not None
                else "no other patient's image of this size is among the test items"
            )
    return [donors[item.id] for item in items]


def _grid(item: Item) -> tuple[int, ...] | None:
    """Return the (height, width) that an answer is tied to; None where any image will do."""
    if item.mask is None:
        return None
    try:
        return read_mask(item.mask).shape
    except UnreadableImageError:
        return (-1,)


def _with_wrong_words(item: Item, cells: Sequence[MAT]) -> Asked:
    """Put another modality and anatomy into the question: one drawn by the item's id, both wrong if there is such.

    A word is wrong only if it does not hold for the image in a wider sense either (a lung CT does show the chest).
    """
    wrong = {cell[:2]: 2 - len(shared_factors(item.mat, cell) - {"task"}) for cell in cells}
    most = max(wrong.values(), default=0)
    pool = sorted(place for place, words_wrong in wrong.items() if words_wrong == most)
    if most == 0:
        return "the benchmark has no other modality or anatomy"
    modality, anatomy = pool[digest("wrong-mat", item.id) % len(pool)]
    # One pass over both, so that a word put in is never taken out again.
    new = {**_names(item.mat.modality, words(modality)), **_names(item.mat.anatomy, words(anatomy))}
    longest_first = sorted(new, key=lambda name: (-len(name), name))
    pattern = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, longest_first)) + r")(?![\w-])", re.IGNORECASE)
    question, changed = pattern.subn(lambda found: new[found[0].lower()], item.question)
    if not changed or question == item.question:
        return "its question names neither modality nor anatomy"
    return replace(item, question=question)


def _names(slug: str, replacement: str) -> dict[str, str]:
    """Map every way to write a slug, in lower case, to the words that take its place."""
    names = {slug, words(slug), *(name for name, meant in SYNONYMS.items() if meant == slug)}
    return {form.lower(): replacement for name in names for form in (name, name.replace("-", " "))}

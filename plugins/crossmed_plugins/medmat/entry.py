"""One object of a Med-MAT file -> its question, options and true label, or why it has none.

Rules after the README of Med-MAT and its Figure 8: `Question-choice` holds the question, one line "A: ..." per option,
and the instruction to answer with a letter; `Answer-choice` is the letter, `Answer` the label in words.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import PurePosixPath
from typing import Any, NamedTuple

KEYS = ("id", "image", "Question", "Answer", "Question-choice", "Answer-choice", "data-no")
"""What is read of an object. `caption`, the original label, is copied where it is there."""

FEWEST, MOST = 2, 4
"""Options per question: "up to four"; a dataset with two classes has two."""

# Letters past D are matched so that a longer list is noticed instead of cut.
_OPTION = re.compile(r"([A-H]):[ \t]?(.*)")

MALFORMED, DISAGREEMENT, AMBIGUOUS = "malformed rows", "label disagreements", "ambiguous options"


class Entry(NamedTuple):
    """One question as the authors ask it.

    Attributes:
        id: Running number within the file.
        image: Path relative to the parent of `med-mat/`, with forward slashes.
        question: The open question, without options.
        options: The options in their order.
        letter: The true option's letter.
        label: The true option.
        original: Number of the original dataset.
        caption: The original label, or None.
        true_in_distractors: How many wrong options share a label with a comma-joined true one.
    """

    id: int
    image: str
    question: str
    options: tuple[str, ...]
    letter: str
    label: str
    original: int
    caption: str | None
    true_in_distractors: int


class Refused(NamedTuple):
    """An object that gives no sample.

    Attributes:
        kind: Under which heading it is counted.
        reason: Why, in one line.
        id: The object's `id`, where it has one.
    """

    kind: str
    reason: str
    id: int | None = None


def read_entry(content: Any, *, multi_label: bool) -> Entry | Refused:
    """Read one object.

    Args:
        content: The decoded JSON value.
        multi_label: Whether commas join several labels in this subset.

    Returns:
        The entry, or why it is refused. A letter and an answer that disagree are refused, never guessed between.
    """
    if not isinstance(content, dict):
        return Refused(MALFORMED, f"is no object but {_shown(content)}")
    if missing := [key for key in KEYS if key not in content]:
        return Refused(MALFORMED, f"lacks {', '.join(map(repr, missing))}", _whole(content.get("id")))
    number, original = _whole(content["id"]), _whole(content["data-no"])
    if number is None:
        return Refused(MALFORMED, f"'id' is no whole number of 0 or more: {_shown(content['id'])}")
    if original is None:
        return Refused(MALFORMED, f"'data-no' is no number of a dataset: {_shown(content['data-no'])}", number)
    for key in ("image", "Question", "Answer", "Question-choice", "Answer-choice"):
        if not _is_text(content[key]):
            return Refused(MALFORMED, f"{key!r} is no text or empty: {_shown(content[key])}", number)
    path = PurePosixPath(content["image"].strip().replace("\\", "/"))
    image = str(path)
    if path.is_absolute() or ".." in path.parts or "\0" in image:
        return Refused(MALFORMED, f"its image {image!r} lies outside the download", number)
    options = read_options(content["Question-choice"])
    if isinstance(options, str):
        return Refused(MALFORMED, options, number)
    letter, answer = content["Answer-choice"].strip().upper(), content["Answer"].strip()
    place = "ABCD".find(letter) if len(letter) == 1 else -1
    if not 0 <= place < len(options):
        return Refused(MALFORMED, f"'Answer-choice' {letter!r} is none of its {len(options)} options", number)
    label = options[place]
    if _folded(label) != _folded(answer):
        reason = f"label disagreement: option {letter} is {label!r}, 'Answer' is {answer!r}"
        return Refused(DISAGREEMENT, reason, number)
    labels = [_labels(option) if multi_label else {_folded(option)} for option in options]
    for one, option in enumerate(options):
        if (other := labels.index(labels[one])) != one:
            return Refused(AMBIGUOUS, f"two options are the same: {options[other]!r} and {option!r}", number)
    caption = content.get("caption")
    if isinstance(caption, str) and caption.strip() and not _is_text(caption):
        return Refused(MALFORMED, f"'caption' is no text: {_shown(caption)}", number)
    return Entry(
        id=number,
        image=image,
        question=content["Question"].strip(),
        options=options,
        letter=letter,
        label=label,
        original=original,
        caption=caption if isinstance(caption, str) else None,
        true_in_distractors=sum(bool(labels[place] & other) for one, other in enumerate(labels) if one != place),
    )


def read_options(text: str) -> tuple[str, ...] | str:
    r"""Read the options of a `Question-choice`.

    Returns:
        The options in their order, or a sentence that says why they cannot be read.

    Example:
        >>> read_options("Review this scan.\nA: Stone\nB: Cyst\nAnswer with the option's letter.")
        ('Stone', 'Cyst')
    """
    found = [match for line in text.split("\n") if (match := _OPTION.fullmatch(line.rstrip()))]
    letters, options = "".join(match[1] for match in found), tuple(match[2].strip() for match in found)
    if not FEWEST <= len(options) <= MOST:
        return f"options in 'Question-choice': {len(options)}, expected {FEWEST} to {MOST}"
    if letters != "ABCD"[: len(letters)]:
        return f"the options of 'Question-choice' are lettered {letters}"
    if "" in options:
        return f"option {letters[options.index('')]} of 'Question-choice' is empty"
    return options


def is_joined(label: str) -> bool:
    """Whether a label of a multi-label subset joins several."""
    return len(_labels(label)) > 1


def _labels(text: str) -> set[str]:
    return {folded for part in text.split(",") if (folded := _folded(part))}


def _folded(text: str) -> str:
    return "".join(text.split()).casefold()


def _whole(value: object) -> int | None:
    if isinstance(value, str) and len(value) <= 12 and value.strip().isascii() and value.strip().isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode().strip())
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell but no file name or report can hold
        return False


def _shown(value: object) -> str:
    return textwrap.shorten(ascii(value), 60, placeholder=" ...")

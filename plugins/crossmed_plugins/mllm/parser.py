"""A strict reader of generated answers. What names no single option is a failure with a kind, never a guess.

Accepted, besides white space and case: the letter alone, in brackets or before its own option's text ("B", "(B)",
"B. nodule"), "Answer: B", "The answer is B" or "Option B" with nothing but that text after it, and the option's own
text alone. Everything else is unparsed: a search for letters inside sentences turns the article "a" into option A and
"vitamin D deficiency" into option D.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from crossmed_core.types import LETTERS, FailureKind

_LEAD = r"(?:(?:the\s+)?(?:correct\s+|best\s+|final\s+)?(?:answer|option|choice)\s*(?:is|:)?\s*:?\s*(?:option\s+)?)?"
_REFUSAL = re.compile(
    r"\b(?:i(?:\s+am|'m)?\s+(?:sorry|unable|not\s+able)|i\s+(?:can\s*not|can't|won't|will\s+not|must\s+decline)"
    r"|as\s+an\s+ai|i\s+apologi[sz]e|consult\s+a\s+(?:doctor|physician|medical))\b",
    re.IGNORECASE,
)


def parse_option(text: str, options: Sequence[str]) -> tuple[int | None, FailureKind | None]:
    """Read which option a generated answer names.

    Args:
        text: As generated, without special tokens.
        options: Option texts in the order shown.

    Returns:
        The option's index and None, or None and the kind of failure.
    """
    said = text.strip().strip("*`\"'").strip()
    letters = LETTERS[: len(options)]
    found = re.fullmatch(rf"{_LEAD}\(?\[?([{letters}])\]?\)?\s*[.:,)\-]*\s*(.*)", said, re.IGNORECASE | re.DOTALL)
    if found and _is_letter(said, found):
        option = letters.index(found[1].upper())
        rest = _plain(found[2])
        if rest in ("", _plain(options[option])):
            return option, None
    spoken = [place for place, option in enumerate(options) if _plain(option) and _plain(option) == _plain(said)]
    if len(spoken) == 1:
        return spoken[0], None
    return None, failure_of(said)


def failure_of(text: str) -> FailureKind:
    """Tell a refusal from other words that are no answer."""
    return "refused" if _REFUSAL.search(text.replace("’", "'")) else "unparsed"


def _is_letter(said: str, found: re.Match[str]) -> bool:
    """Whether the letter stands alone: "A nodule" is an article, "a." is a letter, "Dark" is a word."""
    after = said[found.end(1) : found.end(1) + 1]
    if after.isalnum():
        return False
    return not (after.isspace() and found[2] and said[found.end(1) : found.start(2)].isspace())


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().strip(".,;:!*`\"'()").strip().casefold()

"""The texts that pictures are compared with: made of the item's question and options, and of nothing else.

An item's cell says which modality, anatomy and task it belongs to; that is the benchmark's bookkeeping, not something
that is asked. So modality and anatomy are looked for in the question, by the vocabulary's words, and where it does not
name them (neutral wording, a withheld question) the prompts do not either. The controls follow: wrong words in the
question are wrong words in the prompts, and without a question only the options are left.

Prompts are averaged over templates, as CLIP's own zero-shot evaluation does (Radford et al. 2021, arXiv 2103.00020,
section 3.1.4).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from string import Formatter

from crossmed_core.candidates import BOXES, CHOICES, NEUTRAL_CHOICES
from crossmed_core.errors import CrossmedError, suggest
from crossmed_core.types import Item
from crossmed_core.vocabulary import ANATOMIES, MODALITIES, SYNONYMS, words

TEMPLATES = (
    "{modality} of the {anatomy} showing {finding}",
    "{finding} in the {anatomy}, {modality}",
    "{finding} is seen in this {modality} of the {anatomy}",
)
FIELDS = ("modality", "anatomy", "label", "finding", "question")
"""What a template may hold: what the question names, the option as it is and as something seen, the question."""

ANY_MODALITY, ANY_ANATOMY = "medical image", "body"
"""In place of what the question does not name."""
ANY_TARGET = "the abnormal area"
"""The target of a choice among regions whose question is withheld."""

_NORMAL = {
    "normal", "healthy", "none", "negative", "nothing", "absent", "no finding", "no findings", "no abnormality",
    "no abnormalities", "no abnormal finding", "no abnormal findings", "no lesion", "no disease", "unremarkable",
}  # fmt: skip
_DEGREES = {"minimal", "slight", "mild", "moderate", "marked", "severe", "very", "extensive", "critical"}
_PLACES = {
    "upper", "lower", "middle", "left", "right", "central", "centre", "center", "top", "bottom", "anterior",
    "posterior", "medial", "lateral", "inner", "outer", "superior", "inferior",
}  # fmt: skip


def is_choice(item: Item) -> bool:
    """Whether an item asks for one of several regions."""
    return bool(item.candidates) and len(item.candidates) == len(item.options)


def compared(item: Item) -> tuple[str, ...]:
    """Return what each option stands for in words: itself, or the target if the options are regions.

    Example:
        >>> from crossmed_core.testing.items import CELL
        >>> from crossmed_core.types import ImageRef
        >>> compared(Item("i", "d", CELL, "p", "test", ImageRef("/i.png"), "Which?", ("ring", "nodule"), 0))
        ('ring', 'nodule')
    """
    return (target(item.question),) * len(item.options) if is_choice(item) else item.options


def named(question: str) -> tuple[str, str]:
    """Return the modality and the anatomy that a question names first, in the vocabulary's words; "" = none.

    Abbreviations of up to three letters count in capitals only: "US" is ultrasound, "us" is not (and "eye" is none).

    Example:
        >>> named("What does this thoracic radiograph show?"), named("Tell us what this image shows.")
        (('X-ray', 'chest'), ('', ''))
    """
    return _first(question, tuple(MODALITIES)), _first(question, tuple(ANATOMIES))


def _first(question: str, slugs: tuple[str, ...]) -> str:
    pattern, meant = _forms(slugs)
    for found in pattern.finditer(question):
        name = words(meant[found[0].lower()])
        if len(found[0]) > 3 or found[0].isupper() or name == found[0].lower():
            return name
    return ""


@cache
def _forms(slugs: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """Return a pattern of every way to write one of these slugs, longest first, and what each form means."""
    meant: dict[str, str] = {}
    for slug in slugs:
        synonyms = (name for name, other in SYNONYMS.items() if other == slug)
        for name in (slug, words(slug), *synonyms):
            meant |= {form.lower(): slug for form in (name, name.replace("-", " "))}
    longest_first = sorted(meant, key=lambda form: (-len(form), form))
    forms = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?<![\w-])(?:{forms})(?![\w-])", re.IGNORECASE), meant


def target(question: str) -> str:
    """Return what a choice among regions asks for: "the pneumothorax".

    It is read out of the core's instructions (`candidates.CHOICES`); an instruction of another wording is its own
    target.

    Example:
        >>> target("Looking at this chest X-ray, choose the region that is the pneumothorax.")
        'the pneumothorax'
    """
    asked = _instruction(question)
    if not asked:
        return ANY_TARGET
    found = (pattern.fullmatch(asked) for pattern in _choice_patterns())
    return next((one["target"] for one in found if one), asked)


def _instruction(question: str) -> str:
    return question.removesuffix(BOXES).strip()


@cache
def _choice_patterns() -> tuple[re.Pattern[str], ...]:
    groups = {"target": "(?P<target>.+)", "modality": ".+", "anatomy": ".+", None: ""}
    return tuple(
        re.compile("".join(re.escape(text) + groups[field] for text, field, _, _ in Formatter().parse(template)))
        for template in (*NEUTRAL_CHOICES, *CHOICES)
    )


def finding(label: str) -> str:
    """Return an option as something that is seen, where it is not that by itself.

    Example:
        >>> finding("No finding"), finding("mild"), finding("upper left"), finding("nodule")
        ('no abnormality', 'a mild abnormality', 'an abnormality in the upper left part', 'nodule')
    """
    plain = label.strip().lower().rstrip(".")
    parts = set(re.split(r"[\s-]+", plain))
    if plain in _NORMAL:
        return "no abnormality"
    if parts <= _DEGREES:
        return f"a {plain} abnormality"
    if parts <= _PLACES:
        return f"an abnormality in the {plain} part"
    return label


@dataclass(frozen=True)
class Wording:
    """Makes the prompts of an option.

    Attributes:
        templates: With `FIELDS` in braces. None = `TEMPLATES`, which say nothing of two kinds of options: a yes or no
            is put behind its question instead, and a choice among regions whose target is not known is the instruction.
    """

    templates: tuple[str, ...] | None = None

    @classmethod
    def of(cls, option: object) -> Wording:
        """Check the option `templates`.

        Args:
            option: None, one template or a list of them.

        Raises:
            CrossmedError: Naming the template and what is wrong with it.
        """
        if option is None:
            return cls()
        templates = [option] if isinstance(option, str) else option
        if not isinstance(templates, Sequence) or not templates or not all(isinstance(one, str) for one in templates):
            raise CrossmedError(
                f"templates must be a text or a list of texts, not {option!r}.", hint=f"E.g. {TEMPLATES[0]!r}."
            )
        for template in templates:
            _check_template(template)
        return cls(tuple(templates))

    def prompts(self, item: Item, text: str) -> tuple[str, ...]:
        """Return the prompts that stand for one option; pictures are compared with the mean of their embeddings.

        Args:
            item: Only its question is read.
            text: What the option stands for (`compared`).
        """
        templates = self.templates or TEMPLATES
        if self.templates is None:
            if text.strip().lower() in ("yes", "no"):
                return (f"{item.question} {text}".strip(),)
            if text and text == _instruction(item.question):
                return (text,)
        modality, anatomy = named(item.question)
        fields = {
            "modality": modality or ANY_MODALITY,
            "anatomy": anatomy or ANY_ANATOMY,
            "label": text,
            "finding": finding(text),
            "question": item.question,
        }
        return tuple(dict.fromkeys(template.format(**fields).strip() for template in templates))


def _check_template(template: str) -> None:
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:  # a brace without its other half
        raise CrossmedError(f"Template {template!r} is not one: {error}.") from error
    for _, field, specification, conversion in parts:
        if field not in FIELDS or specification or conversion:
            hint = suggest(str(field), FIELDS) or f"Known: {', '.join(f'{{{one}}}' for one in FIELDS)}."
            raise CrossmedError(f"Template {template!r} holds {field!r} in braces, which is no field.", hint=hint)
    if not {"label", "finding"} & {field for _, field, _, _ in parts}:
        raise CrossmedError(f"Template {template!r} lacks {{label}} or {{finding}}: every option would read alike.")

"""General lessons: questions about generic pictures, and exercises in naming an option's letter.

No exercise names a body, an organ or a modality. The labels of the phantom (nodule, upper left ...) occur only in
`spell`, where the answer is written in the question itself and no picture is shown: it teaches that these words can be
options, not what they look like.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from crossmed_core.types import LETTERS
from crossmed_core.vocabulary import words
from crossmed_plugins.phantom.dataset import LABELS, TEMPLATES
from crossmed_plugins.phantom.render import ANATOMIES, MODALITIES

OPTIONS = 4

NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "shape": (
        ("disc", "coin", "pebble", "dax", "blob"),
        ("donut", "hoop", "tyre", "wug", "bangle"),
        ("boat", "crescent", "smile", "fep", "banana"),
        ("dots", "specks", "crumbs", "toma", "confetti"),
        ("bar", "stick", "rod", "zup", "plank"),
    ),
    "size": (
        ("tiny", "minute", "bim", "mouse", "ant"),
        ("small", "little", "rop", "cat", "bird"),
        ("large", "big", "gan", "horse", "cow"),
        ("huge", "giant", "vol", "whale", "mammoth"),
    ),
    "place": (
        ("northwest", "north west", "lum pa", "first field", "red corner"),
        ("northeast", "north east", "lum to", "second field", "blue corner"),
        ("southwest", "south west", "sok pa", "third field", "green corner"),
        ("southeast", "south east", "sok to", "fourth field", "gold corner"),
    ),
}
"""For each factor of a picture, the names of each of its answers; some are made up, so that any word may serve."""

ASKED: dict[str, tuple[str, ...]] = {
    "shape": ("Which figure is in this picture?", "What shape does the object have?", "Name the form of the figure."),
    "size": ("How big is the figure in this picture?", "What size has the object?", "Name the extent of the figure."),
    "place": (
        "Where in this picture is the figure?",
        "In which corner is the object?",
        "Name the place of the figure.",
    ),
}
_SPELL = ("Which option says {word}?", "Choose {word}.", "The answer is {word}. Name its letter.")


class Exercise(NamedTuple):
    """A question with lettered options, as a person would read it, and the index of the answer."""

    prompt: str
    answer: int


def _lettered(question: str, options: list[str]) -> str:
    return "\n".join([question, *(f"{LETTERS[i]}. {text}" for i, text in enumerate(options))])


def ask(rng: np.random.Generator, factor: str, truth: int, *, hint: float = 0.0) -> Exercise:
    """Ask for one factor of a picture.

    Args:
        rng: random numbers.
        factor: one of `NAMES`.
        truth: index of the answer among `NAMES[factor]`.
        hint: probability that the question tells the answer's name.
    """
    names = NAMES[factor]
    false = [i for i in rng.permutation(len(names)).tolist() if i != truth][: OPTIONS - 1]
    shown = rng.permutation([truth, *false]).tolist()
    style = rng.integers(0, len(names[0]))
    # Most questions keep to one style of names, some mix them: a name is understood by itself.
    mixed = rng.random() < 0.3
    options = [names[i][rng.integers(0, len(names[i])) if mixed else style] for i in shown]
    answer = shown.index(truth)
    question = str(rng.choice(ASKED[factor]))
    if rng.random() < hint:
        question = f"{question} It is {options[answer]}."
    return Exercise(_lettered(question, options), answer)


def spell(rng: np.random.Generator) -> Exercise:
    """Ask for the letter of an option that the question names; no picture is needed."""
    pool = _SPELLED[rng.integers(0, len(_SPELLED))] if rng.random() < 0.5 else _WORDS
    options = [str(word) for word in rng.choice(pool, OPTIONS, replace=False)]
    answer = int(rng.integers(0, OPTIONS))
    question = str(rng.choice(_SPELL)).format(word=options[answer])
    return Exercise(_lettered(question, options), answer)


def _phantom_questions() -> Iterator[str]:
    for templates in TEMPLATES.values():
        for template in templates:
            for modality in MODALITIES:
                for anatomy in ANATOMIES:
                    yield template.format(modality=words(modality), anatomy=words(anatomy))


def texts() -> Iterator[str]:
    """Yield the texts that a tokenizer is trained on: the phantom's questions and labels, and the lessons."""
    yield from _phantom_questions()
    for pool in _SPELLED:
        for word in pool:
            for letter in LETTERS[:6]:
                yield from [f"{letter}. {word}\n"] * 20
    for questions in ASKED.values():
        yield from [*questions] * 100
    yield from [*_SPELL] * 100
    yield from ["<|im_start|>user\n<|im_start|>assistant\nUSER: \n ASSISTANT:"] * 100


_SPELLED = [list(names) for names in LABELS.values()] + [
    [name for names in factor for name in names] for factor in NAMES.values()
]
_WORDS = [word for pool in _SPELLED for word in pool]

"""Registers the baselines."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import ModelRecord
from crossmed_core.types import AnswerKind

_BOTH: frozenset[AnswerKind] = frozenset({"option", "mask"})
_MODULE = "crossmed_plugins.baseline.model"


@hookimpl
def crossmed_models() -> Iterator[ModelRecord]:
    """Yield four baselines."""
    yield ModelRecord(
        name="chance",
        summary="A uniform guess among the options; every pixel for a mask",
        target=f"{_MODULE}:ChanceFamily",
        answers=_BOTH,
        sees_images=False,
        trains=False,
    )
    yield ModelRecord(
        name="majority",
        summary="The label most often true in training; the region most often true for a mask",
        target=f"{_MODULE}:MajorityFamily",
        answers=_BOTH,
        sees_images=False,
        zero_shot=True,
    )
    yield ModelRecord(
        name="question-only",
        summary="Naive Bayes on question and options, never the image: finds what the text gives away",
        target=f"{_MODULE}:QuestionOnlyFamily",
        answers=_BOTH,
        sees_images=False,
        reads_text=True,
        zero_shot=True,
    )
    yield ModelRecord(
        name="oracle",
        summary="Reads the answer key: the ceiling, and a test of the pipeline",
        target=f"{_MODULE}:OracleFamily",
        answers=_BOTH,
        sees_images=False,
        trains=False,
    )

"""Registers the splits."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import SplitRecord

_RULES = "crossmed_plugins.splits.rules"


@hookimpl
def crossmed_splits() -> Iterator[SplitRecord]:
    """Yield five conditions."""
    yield SplitRecord(
        name="in-domain",
        summary="Train on the target cell itself: the ceiling",
        target=f"{_RULES}:in_domain",
        source="Med-MAT (arXiv 2412.20070), single-task training",
    )
    yield SplitRecord(
        name="related",
        summary="Train on cells that share exactly two of modality, anatomy and task with the target",
        target=f"{_RULES}:related",
        source="CrossMed (arXiv 2511.11034), Theorem 1",
    )
    yield SplitRecord(
        name="unrelated",
        summary="Train on cells that share at most one factor with the target",
        target=f"{_RULES}:unrelated",
        source="CrossMed (arXiv 2511.11034); weaker than zero-overlap, which it lists apart",
    )
    yield SplitRecord(
        name="zero-overlap",
        summary="Train on cells that share no factor with the target",
        target=f"{_RULES}:zero_overlap",
        source="CrossMed (arXiv 2511.11034); called Unrelated in Med-MAT",
    )
    yield SplitRecord(
        name="all-data",
        summary="Train on every cell, the target's own training part included",
        target=f"{_RULES}:all_data",
        source="CrossMed (arXiv 2511.11034), multi-task upper bound",
    )

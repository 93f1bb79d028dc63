"""Registers the phantom."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import DatasetRecord


@hookimpl
def crossmed_datasets() -> Iterator[DatasetRecord]:
    """Yield the synthetic benchmark."""
    yield DatasetRecord(
        name="phantom",
        summary="Synthetic: 6 modalities x 4 anatomies x 4 tasks, exact masks, drawn when needed; not medicine",
        target="crossmed_plugins.phantom.dataset:Phantom",
        generated=True,
        synthetic=True,
        default_targets=("t2/brain/finding", "ct/abdomen/segmentation"),
        licence="Apache-2.0",
        access="Nothing to download.",
    )

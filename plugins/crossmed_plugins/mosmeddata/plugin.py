"""Registers MosMedData."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import DatasetRecord


@hookimpl
def crossmed_datasets() -> Iterator[DatasetRecord]:
    """Yield the reader of MosMedData COVID19_1110."""
    yield DatasetRecord(
        name="mosmeddata",
        summary="MosMedData COVID19_1110: chest CT of 1,110 patients, severity of COVID-19 pneumonia; 50 masks",
        target="crossmed_plugins.mosmeddata.dataset:MosMedData",
        packages=("nibabel", "openpyxl"),
        extra="data",
        licence="CC BY-NC-ND 3.0",
        access="Download COVID19_1110 from the portal of the Moscow Center for Diagnostics and Telemedicine.",
        url="https://mosmed.ai/datasets/covid19_1110",
        tree="\n".join(
            (
                "COVID19_1110/",
                "  dataset_registry.xlsx (or .csv)",
                "  studies/",
                "    CT-0/study_0001.nii.gz (or .nii)",
                "    ... CT-4/study_1110.nii.gz",
                "  masks/",
                "    study_0255_mask.nii.gz",
                "    ... study_0304_mask.nii.gz",
            )
        ),
        citation="Morozov et al. 2020, arXiv:2005.06465",
    )

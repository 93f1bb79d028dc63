"""Registers Med-MAT."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import DatasetRecord

TREE = """\
Aggregated_Subsets/Subset--01-train.json ... Subset--37-train.json
Original_Medical_Datasets/ori--01-train.json ...     (read where there are no subsets)
med-mat/                                             (beside them or above; images keep their sources' names)
  CT_Kindney_Dataset/...
  CheXpert-v1.0-small/...
  ...
"""


@hookimpl
def crossmed_datasets() -> Iterator[DatasetRecord]:
    """Yield the questions of Med-MAT over the images that a person has."""
    yield DatasetRecord(
        name="medmat",
        summary="Med-MAT: 37 subsets with their own questions and options; images come from their original sources",
        target="crossmed_plugins.medmat.dataset:MedMat",
        default_targets=("ct/lung/covid", "xray/lung/covid-pneumonia"),
        licence="Not stated by the authors; each original image set keeps its own terms",
        access="Questions: Med-MAT's page (FreedomIntelligence/Med-MAT). Images: each original dataset's own page.",
        url="https://github.com/FreedomIntelligence/Med-MAT",
        tree=TREE,
        citation="Cai et al. 2024, arXiv:2412.20070",
    )

"""Registers CheXpert."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import DatasetRecord

TREE = """\
A  CheXpert-v1.0-small, and the same without its version folder (C)
   CheXpert-v1.0-small/
     train.csv  valid.csv
     train/patient00001/study1/view1_frontal.jpg ...
     valid/patient64541/study1/view1_frontal.jpg ...
B  full resolution, in four batches
   CheXpert-v1.0 batch 1 (validate & csv)/
     train.csv  valid.csv  valid/patient64541/...
   CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg ...
   CheXpert-v1.0 batch 3 (train 2)/...   CheXpert-v1.0 batch 4 (train 3)/...
D  CheXlocalize, which holds the test set
   CheXpert/
     val_labels.csv  test_labels.csv
     val/patient64541/...   test/patient64741/study1/view1_frontal.jpg ...
E  CheXpert Plus
   df_chexpert_plus_240401.csv
   chexbert_labels/report_fixed.json (or impression_fixed.json, findings_fixed.json)
   PNG/train/patient00001/study1/view1_frontal.png ...   or   DICOM/...
"""


@hookimpl
def crossmed_datasets() -> Iterator[DatasetRecord]:
    """Yield the chest radiographs of Stanford Hospital."""
    yield DatasetRecord(
        name="chexpert",
        summary="Chest X-rays with 14 findings read from reports; all five downloads, CheXpert Plus included",
        target="crossmed_plugins.chexpert.dataset:CheXpert",
        licence="Stanford University Research Use Agreement (non-commercial, no redistribution)",
        access="Register with Stanford AIMI (CheXpert, CheXpert Plus, CheXlocalize) and unpack; nothing is renamed.",
        url="https://aimi.stanford.edu/datasets/chexpert-chest-x-rays",
        tree=TREE,
        citation="Irvin et al. 2019, arXiv:1901.07031; CheXpert Plus: Chambon et al. 2024, arXiv:2405.19538",
    )

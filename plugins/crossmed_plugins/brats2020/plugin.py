"""Registers BraTS 2020."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import DatasetRecord


@hookimpl
def crossmed_datasets() -> Iterator[DatasetRecord]:
    """Yield the reader of the BraTS 2020 training data."""
    yield DatasetRecord(
        name="brats2020",
        summary="BraTS 2020 training: brain MRI of 369 glioma patients, grade and tumour regions",
        target="crossmed_plugins.brats2020.dataset:Brats2020",
        packages=("nibabel",),
        extra="data",
        licence="BraTS 2020 data use agreement: research, no redistribution",
        access="Register for BraTS 2020; the training data suffice.",
        url="https://www.med.upenn.edu/cbica/brats2020/data.html",
        tree="\n".join(
            (
                "MICCAI_BraTS2020_TrainingData/",
                "  BraTS20_Training_001/",
                "    BraTS20_Training_001_flair.nii (or .nii.gz)",
                "    BraTS20_Training_001_t1.nii",
                "    BraTS20_Training_001_t1ce.nii",
                "    BraTS20_Training_001_t2.nii",
                "    BraTS20_Training_001_seg.nii",
                "  ... BraTS20_Training_369/",
                "  name_mapping.csv",
                "  survival_info.csv (only checked)",
            )
        ),
        citation="Menze et al. 2015, doi:10.1109/TMI.2014.2377694; Bakas et al. 2017, doi:10.1038/sdata.2017.117; "
        "Bakas et al. 2018, arXiv:1811.02629",
    )

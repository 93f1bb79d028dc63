"""Registers SIIM-ACR Pneumothorax Segmentation."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import DatasetRecord

TREE = """\
nested  copies of the original download
        train-rle.csv
        dicom-images-train/STUDY_UID/SERIES_UID/IMAGE_UID.dcm ...
        dicom-images-test/...
flat    the competition's page (only the stage 2 test images, whose labels were never published)
        stage_2_train.csv
        stage_2_images/ID_0a1b2c3d4.dcm ...
png     PNG copies
        stage_1_train_images.csv  stage_1_test_images.csv
        png_images/0_train_1_.png ...   png_masks/0_train_1_.png ...
"""


@hookimpl
def crossmed_datasets() -> Iterator[DatasetRecord]:
    """Yield the dataset."""
    yield DatasetRecord(
        name="siim-acr",
        summary="SIIM-ACR Pneumothorax Segmentation 2019: 12,047 chest X-rays with regions; DICOM or PNG copies",
        target="crossmed_plugins.siim_acr.dataset:SiimAcr",
        packages=("pydicom",),
        extra="data",
        licence="Kaggle competition rules (research and education only); the images are NIH ChestX-ray14's",
        access="Kaggle 'siim-acr-pneumothorax-segmentation': copies that hold dicom-images-train and train-rle.csv",
        url="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
        tree=TREE,
        citation="SIIM-ACR Pneumothorax Segmentation (2019); images: Wang et al. 2017, arXiv:1705.02315",
    )

"""A counterfeit of the BraTS 2020 download: synthetic heads of 24 x 24 x 16 voxels with the real one's oddities.

What a reader must find is written to `manifest.json` from the arrays as they are drawn: they are stored from the
patient's right to left, front to back and feet to head (LPS), so slice z is displayed as `array[:, :, z].T`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmed_core.seeding import digest

SHAPE = (24, 24, 16)
AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1.0, 0, SHAPE[1] - 1], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}

HIGH = (*range(1, 19), 84, 355)
LOW = (*range(260, 278), 301)
ODD_NAME, BAD, NO_T2, FLOAT_SEG, UNLISTED, NO_FOLDER = 355, 301, 16, 17, 400, 369
NO_ENHANCEMENT = tuple(number for number in LOW if number % 2 == 0)  # 260 among them
PLAIN = (260, ODD_NAME)  # .nii, as copies on Kaggle have it; the others .nii.gz

# Signal of the healthy brain, and of labels 1, 2 and 4, by sequence.
SIGNALS = {
    "flair": (110, {1: 130, 2: 220, 4: 190}),
    "t1": (150, {1: 80, 2: 115, 4: 105}),
    "t1ce": (150, {1: 70, 2: 115, 4: 240}),
    "t2": (120, {1: 230, 2: 210, 4: 170}),
}


def write_fixture(root: Path, *, seed: int) -> None:
    """Write both folders of the download and `manifest.json`."""
    training = root / "BraTS2020_TrainingData" / "MICCAI_BraTS2020_TrainingData"
    training.mkdir(parents=True)
    cases: dict[str, Any] = {}
    skipped = {}
    for number in sorted((*HIGH, *LOW, UNLISTED)):
        name = f"BraTS20_Training_{number:03d}"
        labels = _labels(number, seed)
        low = number in LOW
        _write_case(training / name, name, number, labels, low=low, seed=seed)
        if number == BAD:
            skipped[name] = "label 3"
            continue
        cases[name] = {
            "grade": None if number == UNLISTED else "low-grade glioma" if low else "high-grade glioma",
            "voxels": {region: int(np.isin(labels, values).sum()) for region, values in REGIONS.items()},
            "areas": {
                region: [int(np.isin(labels[:, :, z], values).sum()) for z in range(SHAPE[2])]
                for region, values in REGIONS.items()
            },
            "box": _box(labels),
        }
    _write_tables(training)
    (training / "BraTS20_Training_001" / "._BraTS20_Training_001_flair.nii.gz").write_bytes(b"\x00\x05\x16\x07\x00\x02")
    (training / f"BraTS20_Training_{ODD_NAME}" / "._W39_1998.09.19_Segm.nii").write_bytes(b"\x00\x05\x16\x07\x00\x02")
    (root / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")

    validation = root / "BraTS2020_ValidationData" / "MICCAI_BraTS2020_ValidationData"
    name = "BraTS20_Validation_001"
    for sequence in SIGNALS:
        pixels = _pixels(1000, sequence, _labels(1000, seed), low=False, seed=seed)
        _write(validation / name / f"{name}_{sequence}.nii.gz", pixels)
    header = "BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,BraTS20ID"
    (validation / "name_mapping_validation_data.csv").write_text(f"{header}\nNA,NA,NA,NA,{name}\n")

    skipped |= {
        f"BraTS20_Training_{NO_FOLDER}": "no folder",
        f"BraTS20_Training_{UNLISTED}": "no grade",
        f"BraTS20_Training_{NO_T2:03d}": "no t2 image; no cell shows it as set",
    }
    manifest = {
        "cases": cases,
        "skipped": skipped,
        "no_t2": f"BraTS20_Training_{NO_T2:03d}",
        "counted": {
            "cases found": len(HIGH) + len(LOW) + 1,
            "cases without labels": 1,
            "images found": 4 * (len(HIGH) + len(LOW) + 1) - 1,
            "rows labelled": len(HIGH) + len(LOW) + 1,
            "rows resolved": len(HIGH) + len(LOW),
        },
        "high": len(HIGH) + 1,
        "low": len(LOW),
    }
    (root / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _labels(number: int, seed: int) -> NDArray[np.int16]:
    """Draw a tumour off the midline in one quadrant: oedema around an enhancing shell around a necrotic core."""
    rng = np.random.default_rng(digest("brats tumour", seed, number))
    right, front = (True, True) if number == 1 else rng.integers(0, 2, size=2).astype(bool)
    middle = (7.5 if right else 15.5, 7.5 if front else 15.5, float(rng.integers(6, 10)))
    distance = _distance(tuple(at + rng.uniform(-0.5, 0.5) for at in middle), (1.0, 1.1, 0.9))
    whole, core = rng.uniform(4.6, 5.2), rng.uniform(3.0, 3.6)
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[distance < whole] = 2
    labels[distance < core] = 1
    if number not in NO_ENHANCEMENT:
        labels[(distance < core) & (distance >= core - (1.0 if number in LOW else 1.6))] = 4
    if number == BAD:
        labels[labels == 4] = 3
        labels[labels == 1] = 3
    return labels


def _pixels(number: int, sequence: str, labels: NDArray[np.int16], *, low: bool, seed: int) -> NDArray[np.int16]:
    """Draw what a sequence shows: a stripped brain on zero, dark ventricles, the tumour by its labels."""
    rng = np.random.default_rng(digest("brats pixels", seed, number, sequence))
    healthy, tumour = SIGNALS[sequence]
    middle = ((SHAPE[0] - 1) / 2, (SHAPE[1] - 1) / 2, (SHAPE[2] - 1) / 2)
    brain = _distance(middle, (1.0, 11.0 / 11.6, 11.0 / 8.5)) < 11.0
    pixels = np.full(SHAPE, float(healthy))
    pixels[_distance(middle, (2.2, 0.9, 1.0)) < 3.5] = 230 if sequence == "t2" else 40
    for label in np.unique(labels[labels > 0]):
        # High grades enhance brightly; the few low grades that enhance do so faintly.
        signal = tumour.get(int(label), 100)
        pixels[labels == label] = 150 if low and label == 4 and sequence == "t1ce" else signal
    pixels = pixels * rng.uniform(0.9, 1.1) + 6 * rng.integers(-2, 3, SHAPE)  # coarse steps compress well
    scale = rng.uniform(0.6, 6.0)  # MRI has no unit: every scanner has its own
    brain |= labels > 0
    return np.where(brain, np.maximum(np.rint(pixels), 1) * np.rint(scale), 0).astype(np.int16)


def _distance(centre: tuple[float, ...], stretch: tuple[float, float, float]) -> NDArray[np.float64]:
    grid = np.indices(SHAPE).astype(np.float64)
    by_axis = [(axis - at) * by for axis, at, by in zip(grid, centre, stretch, strict=True)]
    distance: NDArray[np.float64] = np.sqrt(np.square(by_axis).sum(axis=0))
    return distance


def _box(labels: NDArray[np.int16]) -> dict[str, list[int]]:
    """Return first and last row and column of the whole tumour as displayed, by slice."""
    boxes = {}
    for z in range(SHAPE[2]):
        rows, columns = np.nonzero(labels[:, :, z].T)
        if rows.size:
            boxes[str(z)] = [int(value) for value in (rows.min(), rows.max(), columns.min(), columns.max())]
    return boxes


def _write_case(folder: Path, name: str, number: int, labels: NDArray[np.int16], *, low: bool, seed: int) -> None:
    suffix = ".nii" if number in PLAIN else ".nii.gz"
    for sequence in SIGNALS:
        if (number, sequence) != (NO_T2, "t2"):
            _write(folder / f"{name}_{sequence}{suffix}", _pixels(number, sequence, labels, low=low, seed=seed))
    segmentation = "W39_1998.09.19_Segm.nii" if number == ODD_NAME else f"{name}_seg{suffix}"
    _write(folder / segmentation, labels.astype(np.float64) if number == FLOAT_SEG else labels)


def _write(path: Path, values: NDArray[Any]) -> None:
    import nibabel

    image = nibabel.Nifti1Image(values, AFFINE)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 6, mtime=0) if path.suffix == ".gz" else content)


def _write_tables(training: Path) -> None:
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    years = ("BraTS_2017_subject_ID", "BraTS_2018_subject_ID", "TCGA_TCIA_subject_ID", "BraTS_2019_subject_ID")
    table.writerow(["Grade", *years, "BraTS_2020_subject_ID"])
    table.writerows(_rows())
    (training / "name_mapping.csv").write_bytes(buffer.getvalue().encode())
    survival = (
        "Brats20ID,Age,Survival_days,Extent_of_Resection",
        "BraTS20_Training_001,60.5,300,GTR",
        "BraTS20_Training_084,61.6,ALIVE (361 days later),GTR",
        "BraTS20_Training_355,67,880,NA",
    )
    (training / "survival_info.csv").write_bytes("".join(f"{line}\r\n" for line in survival).encode())


def _rows() -> Iterator[list[str]]:
    for number in sorted((*HIGH, *LOW, NO_FOLDER)):
        grade = "LGG" if number in LOW else "HGG"
        if number in (ODD_NAME, NO_FOLDER):
            known = ["NA"] * 4
        else:
            tcga = f"TCGA-XX-{number:04d}" if number % 3 == 2 else "NA"
            known = [f"Brats17_XXX_{number}_1", f"Brats18_XXX_{number}_1", tcga, f"BraTS19_XXX_{number}_1"]
        yield [grade, *known, f"BraTS20_Training_{number:03d}"]

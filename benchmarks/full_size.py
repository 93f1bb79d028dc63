"""Build crossmed-20200 from counterfeit downloads of the real size, twice, with different numbers of processes.

The counterfeits have the published counts (datasets' own papers and label tables): 223,414 CheXpert rows and images of
64,540 patients, 12,047 SIIM-ACR images of which 2,669 have a pneumothorax, 369 BraTS cases (293 high-grade), 1,110
MosMedData studies. Images are small and made up; label tables are as long as the real ones.

    python benchmarks/full_size.py FOLDER            # about ten minutes and 2 GB on two cores; FOLDER is kept

Prints items, seconds and peak memory of each build, and whether the digests are equal.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image

# CheXpert's train.csv (arXiv 1901.07031): how often each label is 1, 0 and -1 among 223,414 rows.
CHEXPERT_ROWS, CHEXPERT_PATIENTS = 223_414, 64_540
CHEXPERT_COUNTS = {
    "No Finding": (22_381, 0, 0),
    "Enlarged Cardiomediastinum": (10_798, 21_638, 12_403),
    "Cardiomegaly": (27_000, 11_116, 8_087),
    "Lung Opacity": (105_581, 6_599, 5_598),
    "Lung Lesion": (9_186, 1_270, 1_488),
    "Edema": (52_246, 20_726, 12_984),
    "Consolidation": (14_783, 28_097, 27_742),
    "Pneumonia": (6_039, 2_799, 18_770),
    "Atelectasis": (33_376, 1_328, 33_739),
    "Pneumothorax": (19_448, 56_341, 3_145),
    "Pleural Effusion": (86_187, 35_396, 11_628),
    "Pleural Other": (3_523, 316, 2_653),
    "Fracture": (9_040, 2_512, 642),
    "Support Devices": (116_001, 6_137, 1_079),
}
SIIM_IMAGES, SIIM_POSITIVE, SIIM_MORE_ROWS, SIIM_SIDE = 12_047, 2_669, 907, 96
BRATS_CASES, BRATS_SHAPE = 369, (64, 64, 48)
MOSMED_CLASSES = (254, 684, 125, 45, 2)
MOSMED_SHAPE = (48, 48, 40)


def noise(seed: int, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """Return made-up pixels that no other seed has."""
    return np.random.default_rng(seed).integers(low, high, shape)


# -- CheXpert --------------------------------------------------------------------------------------


def chexpert(root: Path, processes: Pool) -> None:
    """Write layout A with every row and image."""
    base = root / "CheXpert-v1.0-small"
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    values = {}
    for name, counts in CHEXPERT_COUNTS.items():
        shares = [count / CHEXPERT_ROWS for count in counts]
        values[name] = rng.choice(["1.0", "0.0", "-1.0", ""], CHEXPERT_ROWS, p=[*shares, 1 - sum(shares)])
    sick = np.any(
        [values[name] == "1.0" for name in CHEXPERT_COUNTS if name not in ("No Finding", "Support Devices")], 0
    )
    values["No Finding"] = np.where(sick, "", values["No Finding"])
    further = rng.integers(0, CHEXPERT_PATIENTS, CHEXPERT_ROWS - CHEXPERT_PATIENTS)
    patients = np.sort(np.concatenate([np.arange(CHEXPERT_PATIENTS), further]))
    names, studies = [], {}
    for patient in patients:
        studies[patient] = studies.get(patient, 0) + 1
        names.append(f"train/patient{patient + 1:05d}/study{studies[patient]}/view1_frontal.jpg")
    order = rng.permutation(CHEXPERT_ROWS)  # the real file is not sorted
    with (base / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_COUNTS])
        for row in order:
            labels = [values[name][row] for name in CHEXPERT_COUNTS]
            table.writerow([f"CheXpert-v1.0-small/{names[row]}", "Female", 60, "Frontal", "AP", *labels])
    step = 2_000
    chunks = [(str(base), names[first : first + step], first) for first in range(0, len(names), step)]
    processes.starmap(_chexpert_images, chunks)


def _chexpert_images(base: str, names: list[str], first: int) -> None:
    for place, name in enumerate(names):
        path = Path(base, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(first + place, (32, 32), 0, 256).astype(np.uint8)).save(path, quality=60)


# -- SIIM-ACR --------------------------------------------------------------------------------------


def siim_acr(root: Path, processes: Pool) -> None:
    """Write the nested layout with the table of both stages: 12,047 images in 12,954 rows."""
    base = root / "siim"
    base.mkdir(parents=True)
    chunks = [(str(base), first) for first in range(0, SIIM_IMAGES, 500)]
    rows = [row for some in processes.starmap(_siim_images, chunks) for row in some]
    text = "ImageId,EncodedPixels\n" + "".join(f"{uid},{code}\n" for uid, code in rows)
    (base / "stage_2_train.csv").write_text(text)


def _siim_images(base: str, first: int) -> list[tuple[str, str]]:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    rows = []
    for number in range(first, min(first + 500, SIIM_IMAGES)):
        rng = np.random.default_rng(number)
        uid = f"1.2.276.0.7230010.3.1.4.8323329.{number}.1517875201.850819"
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        meta.MediaStorageSOPInstanceUID = uid
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID, data.PatientID = meta.MediaStorageSOPClassUID, uid, f"{number:08x}-0000"
        data.PatientAge, data.PatientSex, data.ViewPosition, data.Modality = "62", "F", "PA", "CR"
        data.Rows = data.Columns = SIIM_SIDE
        data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = (
            1,
            8,
            8,
            7,
            0,
        )
        data.PhotometricInterpretation = "MONOCHROME2"
        data.PixelData = rng.integers(40, 220, (SIIM_SIDE, SIIM_SIDE)).astype(np.uint8).tobytes()
        folder = Path(base, "dicom-images-train", uid.replace(".4.", ".2.", 1), uid.replace(".4.", ".3.", 1))
        folder.mkdir(parents=True)
        data.save_as(folder / f"{uid}.dcm", enforce_file_format=True)
        positive = number * SIIM_POSITIVE // SIIM_IMAGES != (number + 1) * SIIM_POSITIVE // SIIM_IMAGES
        if not positive:
            rows.append((uid, "-1"))
            continue
        mask = _ellipse(rng, SIIM_SIDE, 3, 12)
        half = np.zeros_like(mask)
        half[:, int(np.flatnonzero(mask.any(axis=0)).mean()) :] = True
        # As in the real table, a third of the regions is told in two rows, which overlap here and there.
        several = rng.random() < SIIM_MORE_ROWS / SIIM_POSITIVE
        rows += [(uid, _relative_runs(part)) for part in ([mask, mask & half] if several else [mask])]
    return rows


def _ellipse(rng: np.random.Generator, side: int, least: int, most: int) -> np.ndarray:
    high, wide = rng.uniform(least, most, 2)
    y, x = rng.uniform(high, side - high), rng.uniform(wide, side - wide)
    rows, columns = np.mgrid[:side, :side]
    return ((rows - y) / high) ** 2 + ((columns - x) / wide) ** 2 <= 1


def _relative_runs(mask: np.ndarray) -> str:
    flat = np.concatenate(([0], mask.T.ravel().astype(np.int8), [0]))
    edges = np.flatnonzero(np.diff(flat))
    starts, ends = edges[::2], edges[1::2]
    gaps = starts - np.concatenate(([0], ends[:-1]))
    return " ".join(f"{gap} {length}" for gap, length in zip(gaps, ends - starts, strict=True))


# -- volumes ---------------------------------------------------------------------------------------


def write_nifti(path: Path, voxels: np.ndarray, x_step: float, y_step: float) -> None:
    """Write a .nii.gz with a diagonal affine, by nibabel, without a time stamp in the gzip header."""
    import nibabel

    affine = np.diag([x_step, y_step, 1.0, 1.0])
    content = nibabel.Nifti1Image(voxels, affine).to_bytes()
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as file:
        file.write(content)
    path.write_bytes(buffer.getvalue())


def brats2020(root: Path, processes: Pool) -> None:
    """Write 369 cases and name_mapping.csv."""
    base = root / "BraTS2020_TrainingData" / "MICCAI_BraTS2020_TrainingData"
    base.mkdir(parents=True)
    columns = ["Grade", *(f"BraTS_{year}_subject_ID" for year in (2017, 2018)), "TCGA_TCIA_subject_ID",
               *(f"BraTS_{year}_subject_ID" for year in (2019, 2020))]  # fmt: skip
    with (base / "name_mapping.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for number in range(1, BRATS_CASES + 1):
            grade = "LGG" if 260 <= number <= 335 else "HGG"
            table.writerow([grade, "NA", "NA", "NA", "NA", f"BraTS20_Training_{number:03d}"])
    processes.starmap(_brats_case, [(str(base), number) for number in range(1, BRATS_CASES + 1)])


def _brats_case(base: str, number: int) -> None:
    rng = np.random.default_rng(number)
    name = f"BraTS20_Training_{number:03d}"
    folder = Path(base, name)
    folder.mkdir()
    x, y, z = np.ogrid[: BRATS_SHAPE[0], : BRATS_SHAPE[1], : BRATS_SHAPE[2]]
    head = ((x - 32) / 28) ** 2 + ((y - 32) / 30) ** 2 + ((z - 24) / 23) ** 2 <= 1
    centre = rng.uniform((20, 20, 20), (44, 44, 28))
    radius = rng.uniform((5, 5, 12), (10, 10, 16))
    far = sum(((axis - c) / r) ** 2 for axis, c, r in zip((x, y, z), centre, radius, strict=True))
    labels = np.select([far <= 0.2, far <= 0.5, far <= 1], [1, 4, 2], 0).astype(np.int16)
    for sequence in ("flair", "t1", "t1ce", "t2"):
        voxels = (head * rng.integers(200, 400, BRATS_SHAPE) + 150 * (labels > 0)).astype(np.int16)
        write_nifti(folder / f"{name}_{sequence}.nii.gz", voxels, -1, -1)
    write_nifti(folder / f"{name}_seg.nii.gz", labels, -1, -1)


def mosmeddata(root: Path, processes: Pool) -> None:
    """Write 1,110 studies and the registry."""
    from openpyxl import Workbook

    base = root / "COVID19_1110"
    base.mkdir(parents=True)
    book = Workbook()
    sheet = book.active
    sheet.title = "MosMedData COVID19_1110"
    sheet.append(["study_id", "category", "study_file", "mask_file"])
    classes = [grade for grade, count in enumerate(MOSMED_CLASSES) for _ in range(count)]
    for number, grade in enumerate(classes, start=1):
        sheet.append([number, f"CT-{grade}", f"/studies/CT-{grade}/study_{number:04d}.nii.gz", None])
    book.save(base / "dataset_registry.xlsx")
    for grade in range(5):
        (base / "studies" / f"CT-{grade}").mkdir(parents=True)
    processes.starmap(_mosmed_study, [(str(base), number, grade) for number, grade in enumerate(classes, start=1)])


def _mosmed_study(base: str, number: int, grade: int) -> None:
    voxels = noise(number, MOSMED_SHAPE, -1024, 400).astype(np.int16)
    write_nifti(Path(base, "studies", f"CT-{grade}", f"study_{number:04d}.nii.gz"), voxels, -0.7, 0.7)


# -- the builds ------------------------------------------------------------------------------------


def build(raw: Path, out: Path, jobs: int) -> dict[str, object]:
    """Run the command as a user would, and measure it."""
    shutil.rmtree(out, ignore_errors=True)
    code = "import sys; from crossmed_cli.main import main; main()"
    arguments = ["build", "--data", str(raw), "--out", str(out), "--jobs", str(jobs), "--json"]
    started = time.monotonic()
    # A fork of its own, so that the peak of its children is theirs alone.
    wrapper = (
        "import resource, subprocess, sys\n"
        "result = subprocess.run([sys.executable, '-c', sys.argv[1], *sys.argv[2:]], stdout=subprocess.PIPE)\n"
        "sys.stdout.buffer.write(result.stdout)\n"
        "print('PEAK', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n"
        "sys.exit(result.returncode)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", wrapper, code, *arguments], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(result.stderr)
    card = json.loads(result.stdout)
    peak = int(result.stderr.rsplit("PEAK", 1)[1]) / 1024
    return {
        "jobs": jobs,
        "items": card["n"],
        "seconds": round(time.monotonic() - started, 1),
        "peak MiB of the largest process": round(peak),
        "sha256": card["sha256"],
        "items.jsonl": card["items_sha256"],
        "cells": {
            cell: {part: one["labels"] for part, one in facts["parts"].items()} for cell, facts in card["cells"].items()
        },
        "skipped": {name: len(one["skipped"]) for name, one in card["sources"].items()},
    }


def main() -> None:
    """Forge what is missing, build twice, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, nargs=2, default=(1, 2), help="processes of the two builds")
    arguments = parser.parse_args()
    raw = arguments.folder.resolve() / "raw"
    with Pool(2) as processes:
        for forge in (chexpert, siim_acr, brats2020, mosmeddata):
            done = raw / f".{forge.__name__}-done"
            if not done.exists():
                started = time.monotonic()
                shutil.rmtree(raw / forge.__name__, ignore_errors=True)
                forge(raw / forge.__name__, processes)
                done.touch()
                print(f"forged {forge.__name__} in {time.monotonic() - started:.0f} s", flush=True)
    builds = [build(raw, arguments.folder.resolve() / f"bench-{jobs}", jobs) for jobs in arguments.jobs]
    for one in builds:
        print(json.dumps(one, indent=1))
    same = builds[0]["sha256"] == builds[1]["sha256"] and builds[0]["items.jsonl"] == builds[1]["items.jsonl"]
    print("digests are equal" if same else "DIGESTS DIFFER")
    sys.exit(not same)


if __name__ == "__main__":
    main()

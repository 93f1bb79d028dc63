"""A counterfeit of MosMedData: synthetic chests of 32 x 32 x 6 voxels with the real download's oddities.

Slices are drawn as they are displayed (row 0 in front, column 0 at the patient's right) and then turned into the order
of the files, left to anterior to superior (LAS); `manifest.json` holds what a reader must find, taken before that turn.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmed_core.seeding import digest

SIDE, SLICES = 32, 6
ZOOMS = (0.7, 0.7, 8.0)
AFFINE = np.diag([-ZOOMS[0], ZOOMS[1], ZOOMS[2], 1.0])
SHEET = "MosMedData COVID19_1110"

# Category -> studies, with real ids where there are enough (the real CT-4 has two), and share of the lungs involved.
STUDIES = {
    "CT-0": range(1, 16),
    "CT-1": range(255, 273),
    "CT-2": range(939, 954),
    "CT-3": range(1064, 1079),
    "CT-4": range(1109, 1124),
}
INVOLVED = {"CT-0": (0.0, 0.0), "CT-1": (0.12, 0.22), "CT-2": (0.3, 0.45), "CT-3": (0.55, 0.7), "CT-4": (0.8, 0.95)}
LABELS = {
    "CT-0": "grade 0: nothing is involved",
    "CT-1": "grade 1: under 25 % involved",
    "CT-2": "grade 2: 25 to 50 % involved",
    "CT-3": "grade 3: 50 to 75 % involved",
    "CT-4": "grade 4: over 75 % involved",
}
PADDED, METAL, UNMASKED, PLAIN = 1, 255, 256, 939
UNLISTED, NO_FILE = 16, 19


def write_fixture(root: Path, *, seed: int) -> None:
    """Write studies, masks, both registries and `manifest.json`."""
    download = root / "COVID19_1110"
    rows: list[tuple[int, str, str, str | None]] = []
    studies: dict[str, Any] = {}
    for category, numbers in STUDIES.items():
        for number in numbers:
            name = f"study_{number:04d}"
            chest, lesion = _draw(number, category, seed)
            masked = category == "CT-1" and number != UNMASKED
            _write(download / "studies" / category / f"{name}.nii{'' if number == PLAIN else '.gz'}", chest)
            if masked:
                _write(download / "masks" / f"{name}_mask.nii.gz", lesion.astype(np.int16))
            # As published, also for the study whose file was gunzipped since.
            rows.append((number, category, f"/studies/{category}/{name}.nii.gz", _mask_cell(name) if masked else None))
            studies[name] = {"label": LABELS[category], "lowest": int(chest.min()), "highest": int(chest.max())}
            if masked:
                studies[name] |= {"areas": [int(plane.sum()) for plane in lesion], "box": _box(lesion)}
    _write(download / "studies" / "CT-0" / f"study_{UNLISTED:04d}.nii.gz", _draw(UNLISTED, "CT-0", seed)[0])
    rows.append((NO_FILE, "CT-0", f"/studies/CT-0/study_{NO_FILE:04d}.nii.gz", None))
    rows.sort()
    _write_registry(download, rows)
    (download / "studies" / "CT-1" / "._study_0255.nii.gz").write_bytes(b"\x00\x05\x16\x07\x00\x02")
    (download / "masks" / "._study_0255_mask.nii.gz").write_bytes(b"\x00\x05\x16\x07\x00\x02")
    (download / "LICENSE").write_text("Synthetic images; the real data are CC BY-NC-ND 3.0.\n")
    manifest = {
        "studies": studies,
        "skipped": {f"study_{UNLISTED:04d}": "not in the registry", f"study_{NO_FILE:04d}": "is not there"},
        "counted": {
            "studies found": len(studies) + 1,
            "studies without labels": 1,
            "rows labelled": len(rows),
            "rows resolved": len(rows) - 1,
        },
        "masks": sum("areas" in study for study in studies.values()),
        "middle": [1, 2, 3, 4],
    }
    (root / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _mask_cell(name: str) -> str:
    return f"/masks/{name}_mask.nii.gz"


def _draw(number: int, category: str, seed: int) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Return Hounsfield units and lesions as displayed, (slices from the feet, rows, columns)."""
    rng = np.random.default_rng(digest("mosmed", seed, number))
    z, row, column = np.indices((SLICES, SIDE, SIDE)).astype(np.float64)
    row, column = row - (SIDE - 1) / 2, column - (SIDE - 1) / 2
    wide = rng.uniform(0.96, 1.04)
    body = (column / (14.5 * wide)) ** 2 + (row / 11.5) ** 2 < 1
    narrower = 1 - 0.07 * z  # towards the apex
    lungs = np.zeros_like(body)
    for side in (-6.8, 6.8):
        lungs |= ((column - side * wide) / (5.2 * narrower)) ** 2 + (row / (8.2 * narrower)) ** 2 < 1
    heart = ((column - 1.5) / 4.0) ** 2 + ((row + 3.0) / 3.5) ** 2 < 1 + 0 * z
    lungs &= ~(heart & (z < 4))
    spine = (column / 2.2) ** 2 + ((row - 7.5) / 2.2) ** 2 < 1

    # Lesions spread from one corner of one lung, of study 0255 from the patient's right and behind.
    right, behind = (True, True) if number == METAL else rng.integers(0, 2, size=2).astype(bool)
    corner = np.hypot(column - (-12 if right else 12), row - (9 if behind else -9))
    distance = np.hypot(corner, 2.5 * (z - rng.uniform(1.5, 3.5))) + rng.uniform(0, 0.5, body.shape)
    share = rng.uniform(*INVOLVED[category])
    lesion = lungs & (distance < np.quantile(distance[lungs], share)) if share else np.zeros_like(lungs)

    values = np.full(body.shape, -1024.0)
    values[body] = 40
    values[lungs] = -850
    # Every patient has a texture of his own: real people differ in detail, and the proof of a split looks for copies.
    for down, across, phase in rng.uniform((-0.9, -0.9, 0), (0.9, 0.9, 6.28), (8, 3)):
        values[body] += 15 * np.rint(2 * np.sin(down * row + across * column + phase + 0.3 * z))[body]
    values[spine] = 400
    values[lesion] = -450 if category in ("CT-1", "CT-2") else -200
    values[body] += 20 * rng.integers(-2, 3, int(body.sum()))  # coarse steps compress well
    if number == PADDED:
        values[row**2 + column**2 > 15.5**2] = -2048
    if number == METAL:
        values[2, 20, 15] = 3071
    return values.astype(np.int16), lesion


def _box(lesion: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Return first and last row and column of the lesion as displayed, by slice."""
    boxes = {}
    for z, plane in enumerate(lesion):
        rows, columns = np.nonzero(plane)
        if rows.size:
            boxes[str(z)] = [int(value) for value in (rows.min(), rows.max(), columns.min(), columns.max())]
    return boxes


def _write(path: Path, planes: NDArray[np.int16]) -> None:
    import nibabel

    image = nibabel.Nifti1Image(np.ascontiguousarray(planes.transpose(2, 1, 0)[:, ::-1]), AFFINE)
    image.set_qform(AFFINE, code=1)
    image.set_sform(AFFINE, code=1)
    image.header.set_xyzt_units("mm")
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([np.nan, np.nan], "<f4").tobytes()  # scl_slope and scl_inter, as in the real masks
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(bytes(content), 6, mtime=0) if path.suffix == ".gz" else bytes(content))


def _write_registry(download: Path, rows: list[tuple[int, str, str, str | None]]) -> None:
    """Write the same rows as a workbook and as the CSV copy with a byte order mark."""
    import openpyxl

    header = ("study_id", "category", "study_file", "mask_file")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = SHEET
    for row in (header, *rows):
        sheet.append(row)
    buffer = io.BytesIO()
    book.save(buffer)
    with zipfile.ZipFile(buffer) as dated, zipfile.ZipFile(download / "dataset_registry.xlsx", "w") as fixed:
        for name in dated.namelist():
            content = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"2020-05-08T00:00:00Z", dated.read(name))
            fixed.writestr(zipfile.ZipInfo(name, (2020, 5, 8, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in (header, *rows)]
    (download / "dataset_registry.csv").write_bytes(b"\xef\xbb\xbf" + "".join(f"{one}\r\n" for one in lines).encode())

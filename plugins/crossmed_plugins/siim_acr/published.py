"""What is known of the published download, to hold a copy against. Counts only; no pixels are read.

Counts of rows and images were counted in the copy of the table that torchxrayvision ships (stage 1 with the revealed
test rows) and, for train-rle.csv, in its stage-1 part. Numbers of files are told by others and were not verified: they
are hints.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from crossmed_core.contracts import Check, Layout
from crossmed_core.errors import UnreadableImageError
from crossmed_core.files import relative, require_regular, walk
from crossmed_core.types import Skipped
from crossmed_plugins.siim_acr import rle
from crossmed_plugins.siim_acr.download import PNG_IMAGES, PNG_MASKS, children, dicom_folders, rle_table
from crossmed_plugins.siim_acr.tables import PNG_COLUMNS, PNG_TABLES, TableError, rows_of, run_length_rows

STAGE_1_TRAIN = {"rows": 11582, "images": 10675, "positive images": 2379, "negative images": 8296, "region rows": 3286}
ALL = {"rows": 12954, "images": 12047, "positive images": 2669, "negative images": 9378, "region rows": 3576}
ROWS_PER_POSITIVE = {1: 2045, 2: 447, 3: 112, 4: 40, 5: 18, 6: 3, 7: 1, 8: 2, 10: 1}
"""Rows per positive image -> images, in the tables that have all 12,047."""
DIGESTS = {
    "siim-pneumothorax-train-rle.csv": ("4a2d2a46", "54f"),
    "siim-pneumothorax-train-rle.csv.gz": ("f3663a1a", "489"),
    "stage_2_sample_submission.csv": ("f03947f4", "f24"),
}
"""File -> how its SHA-256 begins and ends."""
DICOM_FILES = {"dicom-images-train": 10712, "dicom-images-test": 1377, "stage_2_images": 3205}
PNG_FILES = 12047
PNG_ROWS = {"stage_1_train_images.csv": (10675, 2379), "stage_1_test_images.csv": (1372, 290)}
"""Table of the PNG copies -> rows, rows with pneumothorax."""


def checks(layout: Layout, root: Path) -> Iterator[Check]:
    """Yield the checks of a download.

    Args:
        layout: Where it lies.
        root: What names of files are relative to.
    """
    if layout.name == "png":
        yield from _png_tables(layout.root, root)
        for name in (PNG_IMAGES, PNG_MASKS):
            found = sum(_files(folder, ".png") for folder in children(layout.root, (name,)))
            yield _number(f"files in {name}", found, PNG_FILES, "hint")
        return
    if table := rle_table(layout.root, root):
        yield from _table(table, root)
    else:
        yield Check("label table", "none", "stage_2_train.csv or train-rle.csv", "differs")
    for folder in dicom_folders(layout.root):
        if expected := DICOM_FILES.get(folder.name.lower()):
            yield _number(f"DICOM files in {folder.name}", _files(folder, ".dcm"), expected, "hint")
    for path in children(layout.root, DIGESTS):
        yield _digest(path)


def _table(path: Path, root: Path) -> Iterator[Check]:
    shown = relative(path, root)
    try:
        images = dict(one for one in run_length_rows(path, root) if not isinstance(one, Skipped))
    except TableError as error:
        yield Check(shown, str(error), "a table with ImageId and EncodedPixels", "differs")
        return
    regions = {image: sum(not rle.is_negative(row.text) for row in rows) for image, rows in images.items()}
    positive = {image: count for image, count in regions.items() if count}
    found = {
        "rows": sum(map(len, images.values())),
        "images": len(images),
        "positive images": len(positive),
        "negative images": len(images) - len(positive),
        "region rows": sum(positive.values()),
    }
    stage_1 = path.name.lower() == "train-rle.csv"
    for what, expected in (STAGE_1_TRAIN if stage_1 else ALL).items():
        yield _number(f"{what} in {shown}", found[what], expected, "differs")
    if not stage_1:
        spread = dict(sorted(Counter(positive.values()).items()))
        verdict = "ok" if spread == ROWS_PER_POSITIVE else "differs"
        yield Check(f"rows per positive image in {shown}", _spread(spread), _spread(ROWS_PER_POSITIVE), verdict)


def _png_tables(folder: Path, root: Path) -> Iterator[Check]:
    for path in children(folder, PNG_TABLES):
        shown = relative(path, root)
        try:
            rows = rows_of(path, PNG_COLUMNS)
        except TableError as error:
            yield Check(shown, str(error), "a table with new_filename and has_pneumo", "differs")
            continue
        expected, positive = PNG_ROWS[path.name.lower()]
        yield _number(f"rows in {shown}", len(rows), expected, "differs")
        found = sum(values.get("has_pneumo") == "1" for _, values in rows)
        yield _number(f"rows with pneumothorax in {shown}", found, positive, "differs")


def _digest(path: Path) -> Check:
    first, last = DIGESTS[path.name.lower()]
    try:
        require_regular(path)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except UnreadableImageError as error:
        found = f"cannot be read: {str(error).removeprefix(f'{path}: ')}"
    except OSError as error:
        found = f"cannot be read: {error.strerror}"
    same = found.startswith(first) and found.endswith(last)
    return Check(f"SHA-256 of {path.name}", found, f"{first}...{last}", "ok" if same else "hint")


def _number(what: str, found: int, expected: int, otherwise: str) -> Check:
    return Check(what, f"{found:,}", f"{expected:,}", "ok" if found == expected else otherwise)


def _files(folder: Path, suffix: str) -> int:
    return sum(isinstance(path, Path) and path.suffix.lower() == suffix for path in walk(folder))


def _spread(counts: dict[int, int]) -> str:
    return ", ".join(f"{rows}: {images:,}" for rows, images in counts.items())

"""What is published of CheXpert, held against a download.

Counts of train.csv are those of the released table (223,414 rows). Of the others: valid and test from CheXlocalize's
README, CheXpert Plus from arXiv 2405.19538; its own table is re-issued, so that its counts are hints.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from crossmed_core.contracts import Check, Layout
from crossmed_core.errors import UnreadableImageError
from crossmed_core.files import require_regular
from crossmed_plugins.chexpert.labels import FINDINGS
from crossmed_plugins.chexpert.paths import Images
from crossmed_plugins.chexpert.tables import Row, Tables

TRAIN = {"rows": 223_414, "patients": 64_540, "studies": 187_641, "frontal": 191_027, "lateral": 32_387}
VALID = {"rows": 234, "patients": 200, "frontal": 202}
TEST = {"images": 668, "patients": 500}
PLUS = {"rows": 223_228, "patients": 64_725}
FOLDERS = {"train": 64_540, "valid": 200, "test": 500}

LABEL_COUNTS: dict[str, tuple[int, int, int, int]] = {
    "No Finding": (22_381, 0, 0, 201_033),
    "Enlarged Cardiomediastinum": (10_798, 21_638, 12_403, 178_575),
    "Cardiomegaly": (27_000, 11_116, 8_087, 177_211),
    "Lung Opacity": (105_581, 6_599, 5_598, 105_636),
    "Lung Lesion": (9_186, 1_270, 1_488, 211_470),
    "Edema": (52_246, 20_726, 12_984, 137_458),
    "Consolidation": (14_783, 28_097, 27_742, 152_792),
    "Pneumonia": (6_039, 2_799, 18_770, 195_806),
    "Atelectasis": (33_376, 1_328, 33_739, 154_971),
    "Pneumothorax": (19_448, 56_341, 3_145, 144_480),
    "Pleural Effusion": (86_187, 35_396, 11_628, 90_203),
    "Pleural Other": (3_523, 316, 2_653, 216_922),
    "Fracture": (9_040, 2_512, 642, 211_220),
    "Support Devices": (116_001, 6_137, 1_079, 100_197),
}
"""Finding -> how often train.csv says 1, 0, -1 and nothing."""

TRAIN_SHA256 = "b4bcd3d7942de23349bbe922a2389185d639cb06a24e700efb4980caae80b8e8"
"""Of one public copy of train.csv, which may well be re-saved."""


def checks(layout: Layout, tables: Tables, images: Images) -> Iterator[Check]:
    """Yield the checks that fit a layout.

    Args:
        layout: Where the download lies.
        tables: Its label rows.
        images: Its folders of patients.
    """
    for one in tables.skipped:
        yield Check(one.where, one.reason, "a label table that can be read", "differs")
    split: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
    for row in tables.rows:
        split[row.split].append(row)
    if layout.name == "E":
        plus = split["train"] + split["valid"]
        yield _count("images with labels in CheXpert Plus", len(plus), PLUS["rows"], sure=False)
        yield _count("patients of CheXpert Plus", _patients(plus), PLUS["patients"], sure=False)
    else:
        yield from _training(split["train"], sure=layout.name != "D")
        yield from _training_file(tables)
    if split["valid"] and layout.name != "E":
        yield _count("validation rows", len(split["valid"]), VALID["rows"])
        yield _count("validation patients", _patients(split["valid"]), VALID["patients"])
        yield _count("frontal validation images", _frontal(split["valid"]), VALID["frontal"])
    if split["test"]:
        if all(row.stem for row in split["test"]):
            yield _count("test rows", len(split["test"]), TEST["images"])
        yield _count("test patients", _patients(split["test"]), TEST["patients"])
    for name, expected in FOLDERS.items():
        on_disk: set[str] = set()
        for home in images.homes:
            if home.split == name:
                on_disk |= home.patients
        if on_disk or split[name]:
            yield _count(f"folders of {name} patients", len(on_disk), expected, sure=layout.name != "E")


def _training(rows: Sequence[Row], *, sure: bool) -> Iterator[Check]:
    found = {
        "rows": len(rows),
        "patients": _patients(rows),
        "studies": len({(row.patient, row.study) for row in rows}),
        "frontal": _frontal(rows),
        "lateral": len(rows) - _frontal(rows),
    }
    names = {"frontal": "frontal training images", "lateral": "lateral training images"}
    for what, expected in TRAIN.items():
        # CheXlocalize holds no training images: that they are missing is no fault.
        yield _count(names.get(what, f"training {what}"), found[what], expected, sure=sure)
    if not rows:
        return
    for place, finding in enumerate(FINDINGS):
        seen = Counter(row.values[place] for row in rows)
        counts = (seen[1], seen[0], seen[-1], seen[None])
        verdict = "ok" if counts == LABEL_COUNTS[finding] else "differs"
        yield Check(f"training labels: {finding}", _shown(counts), _shown(LABEL_COUNTS[finding]), verdict)


def _training_file(tables: Tables) -> Iterator[Check]:
    for path in tables.files:
        if path.name.lower() == "train.csv":
            found = _sha256(path)
            verdict = "ok" if found == TRAIN_SHA256 else "hint"
            yield Check("SHA-256 of train.csv", found, f"{TRAIN_SHA256} (one public copy)", verdict)
            return


def _sha256(path: Path) -> str:
    try:
        require_regular(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except UnreadableImageError as error:
        return f"cannot be read: {str(error).removeprefix(f'{path}: ')}"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _count(what: str, found: int, expected: int, *, sure: bool = True) -> Check:
    verdict = "ok" if found == expected else "differs" if sure else "hint"
    return Check(what, f"{found:,}", f"{expected:,}", verdict)


def _patients(rows: Sequence[Row]) -> int:
    return len({row.patient for row in rows})


def _frontal(rows: Sequence[Row]) -> int:
    return sum(not row.lateral for row in rows)


def _shown(counts: Sequence[int]) -> str:
    return ", ".join(f"{value}: {count:,}" for value, count in zip(("1", "0", "-1", "blank"), counts, strict=True))

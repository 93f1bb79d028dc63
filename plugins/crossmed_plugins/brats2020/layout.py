"""Finding the BraTS 2020 training data and what lies in a case's folder; telling other years from it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from crossmed_core.contracts import Layout
from crossmed_core.errors import CrossmedError, ExitCode, UnreadableImageError
from crossmed_core.files import folders, is_junk, not_found, require_regular
from crossmed_core.types import Skipped
from crossmed_core.volumes import folder_names, reason

SEQUENCES = ("flair", "t1", "t1ce", "t2")
MAPPING = "name_mapping.csv"
SURVIVAL = "survival_info.csv"
ID_COLUMN = "BraTS_2020_subject_ID"
CASE = re.compile(r"BraTS20_Training_(\d{1,9})", re.IGNORECASE | re.ASCII)
_VALIDATION = re.compile(r"BraTS20_Validation_\d+", re.IGNORECASE)
# On the suffix: "t1" is a prefix of "t1ce".
_SUFFIX = re.compile(r"_(flair|t1|t1ce|t2|seg)\.nii(\.gz)?$", re.IGNORECASE)

# Folder names that give other sources away, the surest first. Not checked against their downloads: only a message
# depends on them.
_OTHERS = (
    (re.compile(r"BraTS2021_\d{5}", re.IGNORECASE), "BraTS 2021"),
    (re.compile(r"BraTS-[A-Za-z]+-\d{5}-\d{3}", re.IGNORECASE), "BraTS 2023 or later, which numbers its labels anew"),
    (re.compile(r"Task01_BrainTumour", re.IGNORECASE), "Task 01 of the Medical Segmentation Decathlon (4-D images)"),
    (re.compile(r"Brats17_.+", re.IGNORECASE), "BraTS 2017"),
    (re.compile(r"Brats18_.+", re.IGNORECASE), "BraTS 2018"),
    (re.compile(r"BraTS19_.+", re.IGNORECASE), "BraTS 2019"),
    (re.compile(r"[HL]GG"), "BraTS 2017 to 2019 (folders HGG and LGG)"),
    (_VALIDATION, "the BraTS 2020 validation data, which come without labels"),
)


class Row(NamedTuple):
    """What `name_mapping.csv` tells of a case; "NA" stays "NA".

    Attributes:
        grade: "HGG" or "LGG".
        tcga: The patient's id in The Cancer Genome Atlas: the same patient may stand in other data sets.
    """

    grade: str
    tcga: str


def locate(root: Path) -> Layout:
    """Find the folder that holds the cases.

    Raises:
        DownloadNotFoundError: If there is none.
        CrossmedError: If it looks like another year; says which.
    """
    others: set[int] = set()
    for folder in folders(root):
        names = folder_names(folder)
        if any(CASE.fullmatch(name) for name in names):
            return Layout("BraTS 2020 training", folder)
        for name in [folder.name, *names]:
            others.update(place for place, (pattern, _) in enumerate(_OTHERS) if pattern.fullmatch(name))
    if others:
        raise CrossmedError(
            f"{root} looks like {_OTHERS[min(others)][1]}; brats2020 reads the BraTS 2020 training data only "
            f"(folders BraTS20_Training_001 to 369).",
            hint="'crossmed datasets brats2020' shows the expected tree.",
            exit_code=ExitCode.ENVIRONMENT,
        )
    raise not_found("brats2020", root, [f"a folder with BraTS20_Training_001 ... and {MAPPING}"])


def case_folders(folder: Path) -> dict[str, Path]:
    """Return the cases' folders by id ("BraTS20_Training_001"), in order."""
    found = {}
    for name in sorted(folder_names(folder)):
        if match := CASE.fullmatch(name):
            found[f"BraTS20_Training_{match[1]}"] = folder / name
    return found


def validation_cases(root: Path, training: Path) -> int:
    """Count the validation cases that lie beside the training data, not above `root`."""
    base = training
    for _ in range(2):  # MICCAI_BraTS2020_TrainingData, BraTS2020_TrainingData
        base = base.parent if base != root else base
    return len({name for folder in folders(base, depth=2) for name in folder_names(folder) if _VALIDATION.match(name)})


def case_files(folder: Path) -> dict[str, Path]:
    """Return a case's files by sequence, and its segmentation as "seg".

    The single file without a known suffix is the segmentation where there is no other: case 355 of the published
    download has W39_1998.09.19_Segm.nii.

    Raises:
        OSError: If the folder cannot be listed.
    """
    files: dict[str, Path] = {}
    unknown = []
    for path in sorted(folder.iterdir()):
        name = path.name
        if is_junk(name) or not name.lower().endswith((".nii", ".nii.gz")):
            continue
        if match := _SUFFIX.search(name):
            files.setdefault(match[1].lower(), path)
        else:
            unknown.append(path)
    if "seg" not in files and len(unknown) == 1:
        files["seg"] = unknown[0]
    return files


def read_mapping(folder: Path) -> Iterator[tuple[str, Row] | Skipped]:
    """Yield the id and the row of each case in `name_mapping.csv`, columns by name.

    Raises:
        CrossmedError: If the table is missing, not text, or lacks a column: parts are drawn by grade from all of it.
    """
    path = folder / MAPPING
    lines = _table(path, ("Grade", ID_COLUMN))
    seen = set()
    for number, line in lines:
        where = f"{MAPPING}, line {number}"
        case, grade = (line.get(ID_COLUMN) or "").strip(), (line.get("Grade") or "").strip().upper()
        match = CASE.fullmatch(case)
        if not match:
            shown = repr(case) if len(case) <= 60 else f"{case[:60]!r} ..."
            yield Skipped(where, f"{shown} is not a BraTS 2020 training id (BraTS20_Training_001)")
        elif grade not in ("HGG", "LGG"):
            yield Skipped(where, f"{case} has grade {grade!r}, neither HGG nor LGG; it is left out of the grade cell")
        elif match[1] in seen:
            yield Skipped(where, f"{case} is listed twice; the first row counts")
        else:
            seen.add(match[1])
            yield f"BraTS20_Training_{match[1]}", Row(grade, (line.get("TCGA_TCIA_subject_ID") or "").strip())


def read_survival(folder: Path) -> dict[str, str]:
    """Return the days of survival by case, as written ("ALIVE (361 days later)" for 084).

    Raises:
        CrossmedError: If the table is missing, not text, or lacks a column.
    """
    lines = _table(folder / SURVIVAL, ("Brats20ID", "Survival_days"))
    return {(line["Brats20ID"] or "").strip(): (line["Survival_days"] or "").strip() for _, line in lines}


def _table(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str | None]]]:
    """Read a CSV file with a header; lines with their numbers in the file."""
    try:
        require_regular(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or ()
            lines: list[tuple[int, dict[str, str | None]]] = [(reader.line_num, dict(line)) for line in reader]
    except (UnreadableImageError, OSError, UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, UnreadableImageError):
            why = reason(error, path)
        else:
            why = str(error.strerror) if isinstance(error, OSError) else f"not a CSV file ({error})"
        raise CrossmedError(
            f"{path} cannot be read: {why}.",
            hint="Take it from the download again.",
            exit_code=ExitCode.ENVIRONMENT,
        ) from error
    if absent := [name for name in columns if name not in header]:
        raise CrossmedError(
            f"{path} lacks the column {', '.join(absent)}; it has: {', '.join(header) or 'none'}.",
            hint="The table of BraTS 2020 is needed; that of 2019 has other ids.",
            exit_code=ExitCode.ENVIRONMENT,
        )
    return lines

"""Finding the MosMedData download, and reading its registry."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from crossmed_core.contracts import Layout
from crossmed_core.errors import CrossmedError, ExitCode, UnreadableImageError
from crossmed_core.files import folders, is_folder, not_found, require_regular
from crossmed_core.types import Skipped
from crossmed_core.volumes import folder_names, reason

CATEGORIES = ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")
REGISTRY = "dataset_registry"
COLUMNS = ("study_id", "category", "study_file", "mask_file")
# Matched in full, which leaves out "._study_0255.nii.gz" and other junk.
_STUDY = re.compile(r"study_(\d{1,9})\.nii(\.gz)?", re.IGNORECASE | re.ASCII)
_FILE = re.compile(r"study_(\d{1,9})(_mask)?\.nii(\.gz)?", re.IGNORECASE | re.ASCII)


class Row(NamedTuple):
    """One row of the registry, its paths as written ("/studies/CT-1/study_0255.nii.gz"; "" = no mask)."""

    where: str
    study: str
    category: str
    study_file: str
    mask_file: str


def locate(root: Path) -> Layout:
    """Find the folder that holds `studies` with folders CT-0 ... CT-4.

    Raises:
        DownloadNotFoundError: If there is none.
    """
    for folder in folders(root):
        if any(_is_category(name) for name in folder_names(folder / "studies")):
            return Layout("MosMedData COVID19_1110", folder)
    raise not_found("mosmeddata", root, [f"a folder with {REGISTRY}.xlsx (or .csv) and studies/CT-0 ... CT-4"])


def studies_on_disk(folder: Path) -> dict[str, Path]:
    """Return the files of all studies by id ("study_0255"), in order; lists the category folders only."""
    found: dict[str, Path] = {}
    for category in sorted(folder_names(folder / "studies")):
        if _is_category(category):
            for path in _files(folder / "studies" / category):
                if match := _STUDY.fullmatch(path.name):
                    found.setdefault(f"study_{match[1]}", path)
    return dict(sorted(found.items()))


def masks_on_disk(folder: Path) -> dict[str, Path]:
    """Return the files of all masks by the study's id."""
    found: dict[str, Path] = {}
    for path in _files(folder / "masks"):
        match = _FILE.fullmatch(path.name)
        if match and match[2]:
            found.setdefault(f"study_{match[1]}", path)
    return found


def resolve(folder: Path, written: str) -> Path | None:
    """Return the file that a path of the registry means, .nii or .nii.gz, or None if neither is a regular file.

    Registry paths start with a slash, which would otherwise lead to the root of the machine.
    """
    path = folder.joinpath(*(part for part in written.replace("\\", "/").split("/") if part not in ("", ".", "..")))
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    for one in (path, path.with_name(f"{stem}.nii.gz"), path.with_name(f"{stem}.nii")):
        try:
            if one.is_file():
                return one
        except (OSError, ValueError):  # a path that is too long
            continue
    return None


def read_registry(folder: Path) -> Iterator[Row | Skipped]:
    """Yield the rows of dataset_registry.xlsx; of dataset_registry.csv if the former is absent or cannot be read.

    Raises:
        CrossmedError: If neither can be read: parts are drawn by category from all of it.
    """
    failures = []
    for path, read in ((folder / f"{REGISTRY}.xlsx", _read_xlsx), (folder / f"{REGISTRY}.csv", _read_csv)):
        if not path.exists():
            failures.append(f"{path.name} is missing")
            continue
        try:
            require_regular(path)
            table = read(path)
        except UnreadableImageError as error:
            failures.append(f"{path.name} cannot be read ({reason(error, path)})")
            continue
        except CrossmedError:
            raise
        except Exception as error:  # a damaged workbook raises what zipfile, XML and openpyxl raise
            failures.append(f"{path.name} cannot be read ({' '.join(str(error).split()) or type(error).__name__})")
            continue
        header = [str(cell or "").strip() for cell in table[0]] if table else []
        if absent := [name for name in COLUMNS if name not in header]:
            failures.append(f"{path.name} lacks the column {', '.join(absent)}")
            continue
        if path.suffix == ".csv" and (folder / f"{REGISTRY}.xlsx").exists():
            yield Skipped(f"{REGISTRY}.xlsx", f"{failures[0]}; {path.name} is read in its place")
        yield from _rows(path.name, header, table[1:])
        return
    raise CrossmedError(
        f"{folder} has no registry that can be read: {'; '.join(failures)}.",
        hint="Take dataset_registry.xlsx from the download again.",
        exit_code=ExitCode.ENVIRONMENT,
    )


def _shown(text: str) -> str:
    """Quote what a cell says in a report, cut short if it is long."""
    return repr(text) if len(text) <= 80 else f"{text[:80]!r} ..."


def _rows(name: str, header: list[str], lines: list[list[Any]]) -> Iterator[Row | Skipped]:
    seen = set()
    for number, line in enumerate(lines, start=2):
        cells = {title: str("" if cell is None else cell).strip() for title, cell in zip(header, line, strict=False)}
        if not any(cells.values()):
            continue
        where = f"{name}, row {number}"
        study_id, category, file, mask = (cells.get(column, "") for column in COLUMNS)
        match = _STUDY.fullmatch(file.replace("\\", "/").rpartition("/")[2])
        if not match:
            yield Skipped(where, f"study_file {_shown(file)} names no study (…/study_0001.nii.gz)")
        elif category not in CATEGORIES:
            yield Skipped(where, f"category {_shown(category)} is none of {', '.join(CATEGORIES)}")
        elif study_id.removesuffix(".0") != str(int(match[1])):
            yield Skipped(where, f"study_id {_shown(study_id)} and study_file {_shown(file)} name different studies")
        elif match[1] in seen:
            yield Skipped(where, f"study {match[1]} is listed twice; the first row counts")
        else:
            seen.add(match[1])
            yield Row(where, f"study_{match[1]}", category, file, mask)


def _read_xlsx(path: Path) -> list[list[Any]]:
    try:
        import openpyxl
    except ImportError as error:
        raise CrossmedError(
            f"{path} needs openpyxl, which this environment lacks.",
            hint="Install it with: pip install 'crossmed[data]'",
            exit_code=ExitCode.ENVIRONMENT,
        ) from error
    with path.open("rb") as file:  # opened here, so that it is closed whatever openpyxl meets
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # some programs write a size that is too small
        return [list(line) for line in sheet.iter_rows(values_only=True)]


def _read_csv(path: Path) -> list[list[Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # the published copy starts with a byte order mark
        return [list(line) for line in csv.reader(file)]


def _is_category(name: str) -> bool:
    return name.upper() in CATEGORIES


def _files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as listing:
            return sorted(folder / one.name for one in listing if not is_folder(one))
    except OSError:
        return []

"""Where the label tables of a download lie, and which of the five layouts it is."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from crossmed_core.contracts import Layout
from crossmed_core.errors import UnreadableImageError
from crossmed_core.files import folders, is_junk, not_found, require_regular
from crossmed_plugins.chexpert.labels import COMPETITION
from crossmed_plugins.chexpert.paths import is_batch, is_house, table_folders

LAYOUTS = (
    "A: CheXpert-v1.0-small/ (or CheXpert-v1.0/) with train/, valid/, train.csv, valid.csv",
    "B: 'CheXpert-v1.0 batch 1 (validate & csv)/' to 'batch 4 (train 3)/'",
    "C: train/, valid/, train.csv, valid.csv",
    "D: CheXpert/ with val/, test/, val_labels.csv, test_labels.csv (CheXlocalize)",
    "E: PNG/ or DICOM/, df_chexpert_plus_*.csv, chexbert_labels/ (CheXpert Plus)",
)
_TABLE = re.compile(r"(train|valid|val|test)(_labels)?\.csv|groundtruth\.csv|df_chexpert_plus.*\.csv")
_ORDER = ("train", "valid", "val", "test", "ground", "df_chex")
_ALIASES = {"airspace opacity": "lung opacity"}  # CheXlocalize's word for it
PATH_COLUMNS = ("path", "study", "path_to_image")
"""What the column of paths is called, of images or of whole studies."""


def label_tables(folder: Path) -> list[Path]:
    """List the label tables of CheXpert that belong to a download at `folder`, in the order in which they count.

    A damaged table counts too where its folder is one of CheXpert, so that reading it tells what is wrong.
    """
    found = []
    for house in table_folders(folder):
        try:
            files = [path for path in house.iterdir() if _TABLE.fullmatch(path.name.lower()) and not is_junk(path.name)]
        except OSError:
            continue
        if is_house(house.name) or any(_looks_right(path) for path in files):
            found += files
    return sorted(found, key=lambda path: (_rank(path), path))


def _rank(path: Path) -> int:
    return next(place for place, start in enumerate(_ORDER) if path.name.lower().startswith(start))


def is_plus(path: Path) -> bool:
    """Whether a table is the one of CheXpert Plus, which holds no labels itself."""
    return path.name.lower().startswith("df_chexpert_plus")


def _looks_right(path: Path) -> bool:
    """Whether the first line is that of a CheXpert table."""
    try:
        require_regular(path)
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            columns = columns_of(next(csv.reader(file), []))
    except (UnreadableImageError, OSError, csv.Error):
        return False
    if is_plus(path):
        return "path_to_image" in columns
    return any(name in columns for name in PATH_COLUMNS) and all(name.lower() in columns for name in COMPETITION)


def columns_of(header: Sequence[str]) -> dict[str, int]:
    """Return the place of each column, by its name in lower case: the order differs between tables."""
    names = [name.strip().lower() for name in header]
    return {_ALIASES.get(name, name): place for place, name in enumerate(names)}


def locate(root: Path) -> Layout:
    """Find a download at `root` or a few folders below; the nearest wins, and there the one with training labels.

    Raises:
        DownloadNotFoundError: If there is none.
    """
    root = Path(root).absolute()
    best: tuple[int, bool, Path, list[Path]] | None = None
    for folder in folders(root):
        depth = len(folder.relative_to(root).parts)
        if best is not None and depth > best[0]:
            break
        if tables := label_tables(folder):
            trains = any(_rank(path) == 0 or is_plus(path) for path in tables)
            if best is None or (trains and not best[1]):
                best = (depth, trains, folder, tables)
    if best is None:
        raise not_found("chexpert", root, LAYOUTS)
    return Layout(_layout_name(best[3]), best[2])


def _layout_name(tables: Sequence[Path]) -> str:
    if any(is_plus(path) for path in tables):
        return "E"
    houses = [path.parent.name for path in tables]
    if any(is_batch(house) for house in houses):
        return "B"
    if any(house.lower().startswith("chexpert-v1.0") for house in houses):
        return "A"
    names = {path.name.lower() for path in tables}
    return "C" if names & {"train.csv", "valid.csv"} and not names & {"val_labels.csv", "test_labels.csv"} else "D"

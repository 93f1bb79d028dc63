"""Cells from a CSV file, with stand-in keys: what a split would train on, without a benchmark."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from crossmed_core.errors import CrossmedError
from crossmed_core.types import MAT, PARTS, ItemKey
from crossmed_core.vocabulary import canonical

_COLUMNS = {"modality": ("modality",), "anatomy": ("anatomy", "area"), "task": ("task",)}
_COUNT = "n"


def read_cell_table(path: Path) -> dict[MAT, int | None]:
    """Read the cells of a CSV file with the columns modality, anatomy (or area), task, and perhaps n.

    Args:
        path: The file, UTF-8. Spellings are brought to slugs ("X-ray" is xray, "Bones" is bone); further columns are
            passed over.

    Returns:
        Cell -> training items, summed over the rows of the cell; None without a column n.

    Raises:
        CrossmedError: If the file cannot be read, a column is missing, or a row is empty or has no whole number as n.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CrossmedError(f"{path} cannot be read as CSV: {error}.") from error
    columns = {}
    for axis, choices in _COLUMNS.items():
        found = [names[choice] for choice in choices if choice in names]
        if not found:
            raise CrossmedError(
                f"{path} has no column {' or '.join(map(repr, choices))}.",
                hint="Its first line must name modality, anatomy (or area), task, and perhaps n.",
            )
        columns[axis] = found[0]
    cells: dict[MAT, int | None] = {}
    for number, row in enumerate(rows, start=2):
        # A slash would take the slug apart where a cell is written as text ("Det/Seg").
        parts = [canonical((row[column] or "").replace("/", " ")) for column in columns.values()]
        if not all(parts):
            raise CrossmedError(f"{path}, row {number}: modality, anatomy or task is empty.")
        cell = MAT(*parts)
        if _COUNT not in names:
            cells[cell] = None
            continue
        text = (row[names[_COUNT]] or "").strip()
        if not text.isdecimal():
            raise CrossmedError(f"{path}, row {number}: n must be a whole number of at least 0, not {text!r}.")
        cells[cell] = (cells.get(cell) or 0) + int(text)
    if not cells:
        raise CrossmedError(f"{path} holds no row.")
    return cells


def stand_in_keys(cells: Mapping[MAT, int | None]) -> list[ItemKey]:
    """Return one item per cell and part, so that rules on cells can be asked; none in training for a cell with n = 0.

    Example:
        >>> [key.id for key in stand_in_keys({MAT("ct", "lung", "finding"): 0})]
        ['ct/lung/finding/val', 'ct/lung/finding/test']
    """
    return [
        ItemKey(f"{cell}/{part}", cell, f"{cell}/{part}", "table", "", part)
        for cell, n in cells.items()
        for part in PARTS
        if part != "train" or n != 0
    ]

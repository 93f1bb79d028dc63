"""The label tables: rows of run lengths beside the DICOM files, rows of file names beside the PNG copies.

Column names and values are stripped: the competition's own table has a column called " EncodedPixels" that says " -1".
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO, cast

from crossmed_core.errors import UnreadableImageError
from crossmed_core.files import relative, require_regular
from crossmed_core.types import Skipped
from crossmed_plugins.siim_acr import rle

RLE_TABLES = (
    "stage_2_train.csv",
    "siim-pneumothorax-train-rle.csv",
    "siim-pneumothorax-train-rle.csv.gz",
    "train-rle.csv",
)
"""Names of the tables of run lengths, the fullest first: only the last lacks the rows of stage 1's test images.

Sample submissions are no labels, whatever they look like: they say -1 for every image.
"""
RLE_COLUMNS = ("ImageId", "EncodedPixels")
PNG_TABLES: Mapping[str, str] = {
    "stage_1_train_images.csv": "stage 1 train",
    "stage_1_test_images.csv": "stage 1 test",
}
"""Names of the tables of the PNG copies -> the stage of their images."""
PNG_COLUMNS = ("new_filename", "has_pneumo")


class Row(NamedTuple):
    """One row about one image.

    Attributes:
        number: Line in the file; the header is 1.
        text: Its run lengths, or has_pneumo.
    """

    number: int
    text: str


class TableError(ValueError):
    """A table that cannot be read; the text says why."""


def header(path: Path) -> tuple[str, ...]:
    """Return the column names of a table, stripped and in lower case; empty if it cannot be read."""
    try:
        with _opened(path) as file:
            return _names(next(csv.reader(file), []))
    except (UnreadableImageError, OSError, EOFError, ValueError, csv.Error, zlib.error):
        return ()


def holds(path: Path, columns: Sequence[str]) -> bool:
    """Whether a table has the columns. Other competitions have a stage_2_train.csv too."""
    return {name.lower() for name in columns} <= set(header(path))


def rows_of(path: Path, columns: Sequence[str]) -> list[tuple[int, Mapping[str, str]]]:
    """Read a table.

    Args:
        path: The CSV file, gzipped if its name ends in .gz.
        columns: The columns that it must have.

    Returns:
        Line number, and the values by column name in lower case; short rows lack some.

    Raises:
        TableError: If it cannot be read to its end, or lacks a column.
    """
    try:
        with _opened(path) as file:
            reader = csv.reader(file)
            names = _names(next(reader, []))
            if missing := [name for name in columns if name.lower() not in names]:
                raise TableError(f"has no column {' or '.join(missing)}; its header is {','.join(names) or 'empty'}")
            return [
                (reader.line_num, dict(zip(names, (one.strip() for one in fields), strict=False)))
                for fields in reader
                if any(one.strip() for one in fields)
            ]
    except UnreadableImageError as error:
        raise TableError(f"cannot be read: {str(error).removeprefix(f'{path}: ')}") from error
    except OSError as error:
        raise TableError(f"cannot be read: {error.strerror or error}") from error
    except (EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise TableError(f"is damaged or not a CSV file ({error}); download it again") from error


def run_length_rows(path: Path, root: Path) -> Iterator[tuple[str, tuple[Row, ...]] | Skipped]:
    """Yield each image of a table with all its rows, in the order of the ids, and the rows that say nothing.

    Raises:
        TableError: As `rows_of`.
    """
    found: dict[str, list[Row]] = defaultdict(list)
    shown = relative(path, root)
    for number, values in rows_of(path, RLE_COLUMNS):
        image, text = values.get("imageid", ""), values.get("encodedpixels", "")
        if not image:
            yield Skipped(f"{shown} row {number}", "names no image (ImageId is empty)")
        elif rle.is_blank(text):
            yield Skipped(f"{shown} row {number}", "EncodedPixels is empty; -1 would mean no pneumothorax")
        else:
            found[image].append(Row(number, text))
    yield from ((image, tuple(found[image])) for image in sorted(found))


def row_names(shown: str, rows: Sequence[Row]) -> str:
    """Name rows of a table as reports do: "train-rle.csv rows 4, 5"."""
    return f"{shown} row{'s' if len(rows) > 1 else ''} {', '.join(str(row.number) for row in rows)}"


def _opened(path: Path) -> TextIO:
    require_regular(path)
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    return cast(TextIO, opener(path, "rt", encoding="utf-8-sig", newline=""))


def _names(fields: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in fields)

"""The label tables of all releases, read by column name into one kind of row."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from crossmed_core.contracts import Layout
from crossmed_core.errors import UnreadableImageError
from crossmed_core.files import relative, require_regular
from crossmed_core.types import Skipped
from crossmed_plugins.chexpert.labels import FINDINGS, parse_value
from crossmed_plugins.chexpert.layouts import PATH_COLUMNS, columns_of, is_plus, label_tables
from crossmed_plugins.chexpert.paths import parse_path

PLUS_LABELS = ("report_fixed.json", "impression_fixed.json", "findings_fixed.json")
"""CheXpert Plus' labels of the whole report, its impression, its findings. The first that is there is read: only a
quarter of the reports has a findings section (arXiv 2405.19538)."""
SHOWN = 50
"""Rows of one kind of trouble that are reported one by one."""

_NO_TEXT = re.compile(r"[\ud800-\udfff]")
"""What Python makes of bytes that are no UTF-8 when it is told to go on ("surrogateescape")."""
_OPEN = "has a quotation mark that is not closed"

Values = tuple[int | None, ...]


class Row(NamedTuple):
    """One labelled image, or one labelled study.

    Attributes:
        patient: "patient00001".
        study: "study1".
        stem: "view1_frontal"; "" where the row is about all images of the study.
        split: "train", "valid" or "test".
        values: 1, 0, -1 or None for each of `labels.FINDINGS`.
        sex: As the table says, or None.
        age: In years, capped at 90 by the source; None where not told.
        projection: "AP", "PA", "LL", "RL" or None.
        source: "report" (read out of the radiology report by a labeller) or "radiologists" (official valid and test).
        table: The table, relative to the root.
        line: Line of the row in its table.
        labels: File with the labels, relative to the root; the table itself but for CheXpert Plus.
    """

    patient: str
    study: str
    stem: str
    split: str
    values: Values
    sex: str | None
    age: int | None
    projection: str | None
    source: str
    table: str
    line: int
    labels: str

    @property
    def lateral(self) -> bool:
        """Whether the row is about a lateral image."""
        return self.stem.endswith("lateral")


class Trouble:
    """Reports the first rows of a kind of trouble singly and the rest as one number per table.

    Args:
        what: The kind, as a plural ("rows without an image").
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._shown = 0
        self._more: Counter[str] = Counter()
        self._ends: dict[str, tuple[str, str]] = {}

    def add(self, table: str, line: int, reason: str, who: str = "") -> list[Skipped]:
        """Return the report of one row, or nothing when there were enough.

        Args:
            table: The table, relative to the root.
            line: Its line.
            reason: What is wrong and what to do.
            who: The patient, named in the summary.
        """
        self._shown += 1
        if self._shown <= SHOWN:
            return [Skipped(f"{table} line {line}", reason)]
        self._more[table] += 1
        first, last = self._ends.get(table, (who, who))
        self._ends[table] = (min(first, who), max(last, who))
        return []

    def rest(self) -> Iterator[Skipped]:
        """Yield one row per table for all that was not reported singly."""
        for table, count in self._more.items():
            first, last = self._ends[table]
            among = f", {first} to {last}" if first else ""
            yield Skipped(table, f"{count:,} more {self.what}{among}")


class _Lines:
    """The lines of a file, of which those that a bad row swallowed can be read again.

    A quotation mark that is never closed makes one row of all that follows it.

    Attributes:
        last: How many lines were handed out; the number of the last one.

    Args:
        lines: The lines.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self._taken: list[str] = []
        self.last = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._taken.append(line)
        self.last += 1
        return line

    def several(self) -> bool:
        """Whether the row at hand runs over several lines."""
        return len(self._taken) > 1

    def begin(self) -> None:
        """Begin another row."""
        self._taken.clear()

    def rewind(self) -> int:
        """Take the row at hand for one line; return the line's number."""
        self._again.extendleft(reversed(self._taken[1:]))
        self.last -= len(self._taken) - 1
        self._taken.clear()
        return self.last


class Tables:
    """All label rows of a download.

    Attributes:
        files: The tables, in the order in which they count.
        rows: One row per image (or study), sorted by patient, study and view; of repeated ones the first.
        repeated: How many rows were left out because an earlier one is about the same image.
        skipped: What could not be read.

    Args:
        layout: Where the download lies.
    """

    def __init__(self, layout: Layout) -> None:
        self.root = layout.root
        self.files = label_tables(layout.root)
        self.skipped: list[Skipped] = []
        self.repeated = 0
        self._shared: dict[object, object] = {}
        self._bad = Trouble("rows that cannot be read")
        conflicts = Trouble("rows that repeat an image with other labels")
        rows: dict[tuple[str, str, str], Row] = {}
        for path in self.files:
            for row in self._plus(path) if is_plus(path) else self._official(path):
                first = rows.setdefault((row.patient, row.study, row.stem), row)
                if first is not row:
                    self.repeated += 1
                    if first.values != row.values:
                        reason = f"labels differ from those of {first.table} line {first.line}, which are used"
                        self.skipped += conflicts.add(row.table, row.line, reason, row.patient)
        self.skipped += [*self._bad.rest(), *conflicts.rest()]
        self.rows: list[Row] = sorted(rows.values(), key=_place)

    def _share(self, value: str) -> str:
        return str(self._shared.setdefault(value, value))  # 64,540 patients, not 223,414 copies of their names

    def _lines(self, path: Path, table: str) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows of a CSV file with the line on which each ends; a row that cannot be read costs only itself.

        Without a first row, which names the columns, there are none.
        """
        line = width = 0
        try:
            require_regular(path)
            with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
                lines = _Lines(file)
                reader = csv.reader(lines)
                while True:
                    lines.begin()
                    try:
                        cells = next(reader)
                    except StopIteration:
                        break
                    except csv.Error as error:
                        if not width:
                            raise
                        reason = _OPEN if lines.several() else f"cannot be read ({error})"
                        line = lines.rewind()
                        self._skip(table, line, f"{reason}; download it again")
                        continue
                    text = "".join(cells)
                    bad = not text.isascii() and _NO_TEXT.search(text)
                    if bad and not width:
                        raise csv.Error("its header is not UTF-8 text")
                    line = lines.last
                    if not cells:
                        continue
                    if len(cells) < width and lines.several():
                        line = lines.rewind()
                        self._skip(table, line, f"{_OPEN}; download it again")
                    elif bad:
                        self._skip(table, line, "holds bytes that are not UTF-8 text; download it again")
                    else:
                        width = width or len(cells)
                        yield line, cells
            if not line:
                self.skipped.append(Skipped(table, "is empty; download it again"))
        except (UnreadableImageError, OSError, csv.Error) as error:
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            reason = reason.removeprefix(f"{path}: ")
            self.skipped.append(Skipped(table, f"cannot be read beyond line {line}: {reason}; download it again"))

    def _official(self, path: Path) -> Iterator[Row]:
        table = relative(path, self.root)
        lines = self._lines(path, table)
        columns = self._header(lines, table, FINDINGS)
        if not columns:
            return
        where = next(columns[name] for name in PATH_COLUMNS if name in columns)
        labels = [columns[finding.lower()] for finding in FINDINGS]
        width = max(where, *labels) + 1
        places = [columns.get(name) for name in ("sex", "age", "ap/pa")]
        for line, cells in lines:
            if len(cells) < width:
                self._skip(table, line, f"has {len(cells)} of {len(columns)} columns; is the file cut off?")
                continue
            texts = tuple(cells[place] for place in labels)
            row = self._row(cells[where], texts, _facts(cells, places), "", (table, line, table))
            if row is not None:
                yield row

    def _plus(self, path: Path) -> Iterator[Row]:
        """Read CheXpert Plus: who and which image from the CSV, the labels from JSON lines, keyed by path."""
        table = relative(path, self.root)
        folder = path.parent / "chexbert_labels"
        file = next((folder / name for name in PLUS_LABELS if (folder / name).is_file()), None)
        if file is None:
            self.skipped.append(Skipped(table, f"has no labels: none of {', '.join(PLUS_LABELS)} in chexbert_labels/"))
            return
        labels, beside = dict(self._json_labels(file)), relative(file, self.root)
        lines = self._lines(path, table)
        columns = self._header(lines, table, ())
        if not columns:
            return
        where = next(columns[name] for name in PATH_COLUMNS if name in columns)
        places = [columns.get(name) for name in ("sex", "age", "ap_pa")]
        for line, cells in lines:
            if len(cells) <= where:
                self._skip(table, line, f"has {len(cells)} of {len(columns)} columns; is the file cut off?")
                continue
            name = cells[where].strip()
            if name not in labels:
                self._skip(table, line, f"{name!r} has no labels in {beside}")
                continue
            row = self._row(name, labels[name], _facts(cells, places), "report", (table, line, beside))
            if row is not None:
                yield row

    def _json_labels(self, file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
        table, line = relative(file, self.root), 0
        try:
            require_regular(file)
            with file.open(encoding="utf-8-sig", errors="surrogateescape") as text:
                for line, one in enumerate(text, start=1):
                    if not one.strip():
                        continue
                    if not one.isascii() and _NO_TEXT.search(one):
                        self._skip(table, line, "holds bytes that are not UTF-8 text; download it again")
                        continue
                    try:
                        entry = json.loads(one)
                        path = entry["path_to_image"].strip()
                        texts = tuple("" if entry[finding] is None else str(entry[finding]) for finding in FINDINGS)
                    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                        self._skip(table, line, f"is no line of labels ({type(error).__name__}: {error})")
                        continue
                    yield path, self._shared.setdefault(texts, texts)  # type: ignore[misc]  # the same tuple
        except (UnreadableImageError, OSError) as error:
            reason = str(error).removeprefix(f"{file}: ")
            self.skipped.append(Skipped(table, f"cannot be read beyond line {line}: {reason}; download it again"))

    def _header(
        self, lines: Iterator[tuple[int, list[str]]], table: str, labels: Sequence[str]
    ) -> dict[str, int] | None:
        """Read the first line; None, and a report, where a column is missing."""
        first = next(lines, None)
        if first is None:
            return None
        columns = columns_of(first[1])
        missing = [] if any(name in columns for name in PATH_COLUMNS) else ["Path"]
        missing += [finding for finding in labels if finding.lower() not in columns]
        if missing:
            self.skipped.append(Skipped(table, f"lacks the columns {', '.join(missing)}; download it again"))
            return None
        return columns

    def _row(
        self,
        name: str,
        texts: tuple[str, ...],
        facts: tuple[str, str, str],
        source: str,
        origin: tuple[str, int, str],
    ) -> Row | None:
        table, line, labels = origin
        try:
            split, patient, study, file = parse_path(name)
            values = self._values(texts)
        except ValueError as error:
            self._skip(table, line, str(error))
            return None
        sex, age, projection = facts
        return Row(
            patient=self._share(patient),
            study=self._share(study),
            stem=self._share(file.rpartition(".")[0]) if file else "",
            split=split,
            values=values,
            sex=self._share(sex) if sex else None,
            age=int(float(age)) if re.fullmatch(r"\d{1,3}(\.\d*)?", age) else None,
            projection=self._share(projection) if projection else None,
            source=source or ("report" if split == "train" else "radiologists"),
            table=table,
            line=line,
            labels=labels,
        )

    def _values(self, texts: tuple[str, ...]) -> Values:
        """Read the 14 cells of a row; equal rows share one tuple.

        Raises:
            ValueError: Naming the column and the cell.
        """
        known = self._shared.get(("values", texts))
        if known is None:
            values = []
            for finding, text in zip(FINDINGS, texts, strict=True):
                try:
                    values.append(parse_value(text))
                except ValueError as error:
                    raise ValueError(f"{finding}: {error}") from None
            known = self._shared[("values", texts)] = tuple(values)
        return known  # type: ignore[return-value]

    def _skip(self, table: str, line: int, reason: str) -> None:
        self.skipped += self._bad.add(table, line, reason)


def _facts(cells: Sequence[str], places: Sequence[int | None]) -> tuple[str, str, str]:
    sex, age, projection = (
        cells[place].strip() if place is not None and place < len(cells) else "" for place in places
    )
    return sex, age, projection


def _place(row: Row) -> tuple[str, int, int, str]:
    view = row.stem[4:].partition("_")[0]
    # Rows about a whole study after those about one image, which say more.
    return row.patient, int(row.study[5:]), int(view) if view else 10**9, row.stem

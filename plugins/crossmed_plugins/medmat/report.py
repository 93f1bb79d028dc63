"""Refused items, grouped: the first ones by name, the rest as a number, so that a missing image set is no flood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from crossmed_core.types import Counted, Skipped
from crossmed_plugins.medmat.entry import Refused
from crossmed_plugins.medmat.tables import Original

SHOWN = 20
"""Rows per kind (and per original dataset, for missing images) that are named one by one."""


class Refusals:
    """Collects what one file's reading refuses.

    Args:
        file: The file, as reports show it.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._groups: Counter[tuple[str, Original | None]] = Counter()

    def add(self, place: int, refused: Refused, missing_from: Original | None = None) -> Iterator[Skipped]:
        """Count an item, and yield it while there are few of its group.

        Args:
            place: Its position in the file, from 1.
            refused: Why.
            missing_from: The dataset whose image is not there, if that is why.
        """
        group = (refused.kind, missing_from)
        self._groups[group] += 1
        if self._groups[group] <= SHOWN:
            name = "" if refused.id is None else f" (id {refused.id})"
            yield Skipped(f"{self._file} item {place}{name}", refused.reason)

    def summaries(self) -> Iterator[Skipped | Counted]:
        """Yield one row per group that was cut short, and the number of each kind."""
        kinds: Counter[str] = Counter()
        for (kind, original), n in self._groups.items():
            kinds[kind] += n
            if n <= SHOWN:
                continue
            if original is None:
                yield Skipped(self._file, f"{n} {kind} in all; the first {SHOWN} are named above")
            else:
                yield Skipped(
                    f"{self._file} data-no {original.number}",
                    f"{n} items in all lack their image of {original.name!r}; get it from {original.link} and put it "
                    "under med-mat/ by the paths named above",
                )
        for kind, n in kinds.items():
            yield Counted(kind, n)

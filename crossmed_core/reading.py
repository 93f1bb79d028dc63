"""Reading a download: its samples, and beside them what was counted and what was passed over, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossmed_core.contracts import Dataset
from crossmed_core.types import Counted, Reading, Sample, Skipped


@dataclass
class ReadingReport:
    """What a reading met besides samples.

    Attributes:
        counted: What was counted, e.g. "images found", summed by name, in order of appearance.
        skipped: Files and rows that yield no sample.
    """

    counted: Counter[str] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)

    def take(self, one: Counted | Skipped) -> None:
        """Add one."""
        if isinstance(one, Skipped):
            self.skipped.append(one)
        else:
            self.counted[one.what] += one.n

    def samples(self, readings: Iterable[Reading]) -> Iterator[Sample]:
        """Yield the samples of a stream; take everything else."""
        for one in readings:
            if isinstance(one, Sample):
                yield one
            else:
                self.take(one)

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in a benchmark's card."""
        return {
            "counted": dict(self.counted),
            "skipped": [{"where": one.where, "reason": one.reason} for one in self.skipped],
        }


def samples_of(dataset: Dataset, root: Path) -> list[Sample]:
    """Return all samples under `root`, leaving the report aside. For small downloads and generated datasets."""
    return list(ReadingReport().samples(dataset.samples(root)))

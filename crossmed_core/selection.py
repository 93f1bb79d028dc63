"""Which samples of a download become items: as many per cell as a recipe asks for, balanced over labels and patients.

Every sample has a rank that depends on its id alone, so the choice does not depend on the order of reading. Per
(cell, part, label) only as many are kept as the recipe could need: memory is bounded by the recipe, not the download.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from crossmed_core.parts import part_of
from crossmed_core.seeding import digest
from crossmed_core.types import MAT, Part, Sample

EMPTY = "no region"
"""Stratum of segmentation samples with an empty mask."""


@dataclass(frozen=True)
class Quota:
    """How many items a cell gets.

    Attributes:
        items: In all parts together; None = every sample.
        test: Share of the items that is tested.
        val: Share that validates.
        empty: Share of the items of a segmentation cell whose mask is empty. Such an item cannot be asked as a choice
            among regions.
    """

    items: int | None = None
    test: float = 0.1
    val: float = 0.06
    empty: float = 0.0


class _Entry(NamedTuple):
    """A sample with its rank. Turned round in comparisons, so that a heap has the last in rank on top."""

    priority: int
    turn: int
    number: int
    id: str
    sample: Sample

    def __lt__(self, other: tuple[Any, ...]) -> bool:
        return self[:4] > other[:4]


class Selection:
    """Collects samples, then chooses: by priority, and the first sample of every patient before anybody's second.

    Args:
        quota: Cell -> its quota.
        seed: Another seed chooses other samples.
        spare: How many more samples per stratum are kept than a cell can need, for those that turn out unusable.
    """

    def __init__(self, quota: Callable[[MAT], Quota], *, seed: int = 0, spare: int = 200) -> None:
        self._quota = quota
        self._seed = seed
        self._spare = spare
        self._kept: dict[MAT, dict[Part, dict[str, list[_Entry]]]] = {}
        self.offered: dict[MAT, dict[Part, dict[str, int]]] = {}

    def add(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Take samples and pass them on. The samples of a patient must follow each other to share the turns fairly."""
        for _, group in groupby(samples, key=lambda sample: sample.patient):
            mine = list(group)
            turns: dict[tuple[MAT, str], int] = defaultdict(int)
            numbers = {sample.id: digest(self._seed, "select", sample.id) for sample in mine}
            for sample in sorted(mine, key=lambda one: (numbers[one.id], one.id)):
                number, stratum = numbers[sample.id], stratum_of(sample)
                turn = turns[sample.mat, stratum]
                turns[sample.mat, stratum] += 1
                self._offer(sample, stratum, turn, number)
            yield from mine

    def _offer(self, sample: Sample, stratum: str, turn: int, number: int) -> None:
        part = part_of(sample)
        counts = self.offered.setdefault(sample.mat, {}).setdefault(part, {})
        counts[stratum] = counts.get(stratum, 0) + 1
        heap = self._kept.setdefault(sample.mat, {}).setdefault(part, {}).setdefault(stratum, [])
        quota = self._quota(sample.mat)
        entry = _Entry(sample.priority, turn, number, sample.id, sample)
        if quota.items is None or len(heap) < quota.items + self._spare:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)

    def choose(self, unusable: Collection[str] = (), *, ahead: int = 0) -> list[Sample]:
        """Choose the samples, in the order of cells, parts, labels and ranks.

        Args:
            unusable: Ids of samples to leave out; others take their places.
            ahead: How many more of each label to name, the next in rank.
        """
        chosen: list[Sample] = []
        for mat in sorted(self._kept):
            ranked = {
                part: {
                    label: [one.sample for one in sorted(heap, reverse=True) if one.id not in unusable]
                    for label, heap in sorted(strata.items())
                }
                for part, strata in self._kept[mat].items()
            }
            for part, wanted in wanted_counts(
                {part: {label: len(some) for label, some in strata.items()} for part, strata in ranked.items()},
                self._quota(mat),
            ).items():
                for label, count in sorted(wanted.items()):
                    chosen += ranked[part][label][: count + ahead if count else 0]
        return chosen


def stratum_of(sample: Sample) -> str:
    """Return what a cell is balanced over: the label, or whether there is a region."""
    if sample.mask is None:
        return sample.label or ""
    rle = sample.mask.rle
    return EMPTY if rle is not None and sum(rle.counts[1::2]) == 0 else "region"


def wanted_counts(available: Mapping[Part, Mapping[str, int]], quota: Quota) -> dict[Part, dict[str, int]]:
    """Say how many samples of each part and label a cell takes.

    The test and validation parts get their shares of the quota, as far as there are samples; training takes the rest,
    and what it cannot fill goes back to test, then validation. Within a part, labels share evenly (`even_counts`).

    Args:
        available: Part -> label -> samples.
        quota: What is wanted.
    """
    order: tuple[Part, ...] = ("test", "val", "train")
    strata = {part: dict(available.get(part, {})) for part in order}
    if quota.items is None:
        return strata
    empties = {part: counts.pop(EMPTY, 0) for part, counts in strata.items()}
    with_region = max(round(quota.items * (1 - quota.empty)), quota.items - sum(empties.values()))
    totals = _part_totals({part: sum(counts.values()) for part, counts in strata.items()}, with_region, quota)
    chosen: dict[Part, dict[str, int]] = {part: even_counts(strata[part], totals[part]) for part in order}
    if with_region < quota.items:
        for part, count in _part_totals(empties, quota.items - with_region, quota).items():
            if count:
                chosen[part][EMPTY] = count
    return chosen


def _part_totals(available: Mapping[Part, int], items: int, quota: Quota) -> dict[Part, int]:
    test = min(round(items * quota.test), available["test"])
    val = min(round(items * quota.val), available["val"])
    train = min(items - test - val, available["train"])
    test = min(items - train - val, available["test"])
    val = min(items - train - test, available["val"])
    return {"test": test, "val": val, "train": train}


def even_counts(available: Mapping[str, int], wanted: int) -> dict[str, int]:
    """Share `wanted` over labels as evenly as the numbers available allow.

    Scarce labels give all they have, the others share the rest evenly; what does not divide goes to the labels first in
    the alphabet.

    Example:
        >>> even_counts({"a": 100, "b": 3, "c": 100}, 20)
        {'a': 9, 'b': 3, 'c': 8}
    """
    left = min(wanted, sum(available.values()))
    ordered = sorted(available, key=lambda label: (available[label], label))
    level = 0  # the largest number that every label can get, or all that it has
    for place, label in enumerate(ordered):
        level = left // (len(ordered) - place)
        if available[label] > level:
            break
        left -= available[label]
    counts = {label: min(available[label], level) for label in sorted(available)}
    rest = min(wanted, sum(available.values())) - sum(counts.values())
    for label in [label for label in counts if available[label] > level][:rest]:
        counts[label] += 1
    return counts

"""Splits as rules on sets of cells: fair order, size matching, the proof of disjointness, and the card.

A rule picks the training cells; everything else is common to all rules. The pools come in an order of which every
prefix is as even over cells, and within a cell over labels, as the data allow. So taking the first n is size matching,
and smaller training sizes are nested in larger ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crossmed_core.errors import CrossmedError
from crossmed_core.seeding import digest
from crossmed_core.types import MAT, ItemKey, Split, person
from crossmed_core.vocabulary import shared_factors

Share = Callable[[MAT], int]
Rule = Callable[[MAT, Sequence[MAT], Share], Iterable[MAT]]


class SplitViolationError(CrossmedError):
    """A split broke a promise (a patient on both sides, a leaked test item). The trial fails."""


@dataclass(frozen=True)
class CellRule:
    """A splitter made of a rule.

    Attributes:
        name: Name of the split.
        rule: Takes the target, all cells in sorted order, and a function that counts the factors a cell shares with the
            target (3 for the target itself); returns the training cells.
        containment: Whether an anatomy inside the other counts as shared (lung in chest).

    Example:
        >>> related = CellRule("related", lambda target, cells, share: [c for c in cells if share(c) == 2])
        >>> cells = [MAT("ct", "lung", "finding"), MAT("ct", "brain", "finding")]
        >>> keys = [ItemKey(f"{c}/{i}", c, f"p{c}{i}", "d", "a", "train") for c in cells for i in range(2)]
        >>> [str(cell) for cell in related(keys, target=cells[0], seed=0).cells]
        ['ct/brain/finding']
    """

    name: str
    rule: Rule
    containment: bool = True

    def __call__(self, keys: Sequence[ItemKey], *, target: MAT, seed: int) -> Split:
        """Return the pools for `target` (`contracts.Splitter`)."""
        by_cell: dict[MAT, list[ItemKey]] = defaultdict(list)
        for key in keys:
            by_cell[key.mat].append(key)
        cells = sorted(by_cell)

        def share(cell: MAT) -> int:
            return len(shared_factors(target, cell, containment=self.containment))

        chosen = sorted(set(self.rule(target, cells, share)))
        pool = [key for cell in chosen for key in by_cell.get(cell, ())]
        return Split(
            rule=self.name,
            target=target,
            seed=seed,
            train=fair_order((key for key in pool if key.part == "train"), seed=seed),
            val=fair_order((key for key in pool if key.part == "val"), seed=seed),
            test=random_order(key for key in by_cell.get(target, ()) if key.part == "test"),
            cells=tuple(chosen),
            note="" if chosen else f"no cell of this benchmark satisfies {self.name!r} for {target}",
        )


def fair_order(keys: Iterable[ItemKey], *, seed: int) -> tuple[str, ...]:
    """Order ids so that every prefix is even over cells, and over the labels of each cell.

    Within a (cell, label) the order is by a hash of seed and id; the labels of a cell take turns, then the cells do.
    """
    strata: dict[MAT, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for key in keys:
        strata[key.mat][key.label].append(key.id)
    queues = []
    for cell in sorted(strata, key=lambda cell: digest(seed, "cell", cell)):
        labels = sorted(strata[cell], key=lambda label: digest(seed, "label", cell, label))
        ranked = [sorted(strata[cell][label], key=lambda item: (digest(seed, item), item)) for label in labels]
        queues.append(_take_turns(ranked))
    return tuple(_take_turns(queues))


def random_order(keys: Iterable[ItemKey]) -> tuple[str, ...]:
    """Order test ids by a hash of the id: every prefix is a simple random sample, labels as frequent as they are.

    The order is the same for every seed: seeds vary the training, not the exam.
    """
    return tuple(sorted((key.id for key in keys), key=lambda item: (digest("exam", item), item)))


def _take_turns(queues: Sequence[Sequence[str]]) -> list[str]:
    ordered = sorted(((turn, place) for place, queue in enumerate(queues) for turn in range(len(queue))))
    return [queues[place][turn] for turn, place in ordered]


def matched(split: Split, *, train: int | None, val: int | None, test: int | None) -> Split:
    """Keep the first `train`, `val` and `test` items of each pool; None keeps all."""
    return replace(split, train=split.train[:train], val=split.val[:val], test=split.test[:test])


def prove(split: Split, keys: Mapping[str, ItemKey]) -> None:
    """Check what every split promises.

    Args:
        split: The split to check.
        keys: Item id -> key.

    Raises:
        SplitViolationError: Naming the first item or patient that stands on both sides, an unknown id, a test item
            outside the target cell, a training item outside the declared cells, or an item of the wrong part.
    """
    sides = {"train": split.train, "val": split.val, "test": split.test}
    patients: dict[str, str] = {}
    for side, ids in sides.items():
        if len(set(ids)) != len(ids):
            twice = next(item for item, count in Counter(ids).items() if count > 1)
            raise SplitViolationError(f"{split.rule}: item {twice!r} stands twice in {side}")
        for item in ids:
            key = keys.get(item)
            if key is None:
                raise SplitViolationError(f"{split.rule}: {side} item {item!r} is not in the benchmark")
            if key.part != side:
                raise SplitViolationError(f"{split.rule}: {side} holds {item!r}, which the source keeps for {key.part}")
            allowed = (split.target,) if side == "test" else split.cells
            if key.mat not in allowed:
                raise SplitViolationError(f"{split.rule}: {side} item {item!r} lies in {key.mat}, outside its cells")
            who = person(key.dataset, key.patient)
            other = patients.setdefault(who, side)
            if other != side:
                raise SplitViolationError(
                    f"{split.rule}: patient {key.patient!r} of {key.dataset} stands in {other} and in {side}"
                )


def split_digest(split: Split) -> str:
    """Return a SHA-256 over everything that the split decides."""
    lines = [split.rule, str(split.target), str(split.seed)]
    for side in (split.train, split.val, split.test):
        lines += ["--", *side]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def split_card(split: Split, keys: Mapping[str, ItemKey]) -> dict[str, Any]:
    """Describe a split for split.json: cells, counts, shared factors, digests and ids."""
    counts = {
        side: Counter((str(keys[item].mat), keys[item].label or "mask") for item in ids)
        for side, ids in (("train", split.train), ("val", split.val), ("test", split.test))
    }
    per_cell: dict[str, dict[str, dict[str, int]]] = {}
    for side, counter in counts.items():
        for (cell, label), n in sorted(counter.items()):
            per_cell.setdefault(cell, {}).setdefault(side, {})[label] = n
    strict = {str(cell): sorted(shared_factors(split.target, cell, containment=False)) for cell in split.cells}
    wide = {str(cell): sorted(shared_factors(split.target, cell)) for cell in split.cells}
    return {
        "rule": split.rule,
        "target": str(split.target),
        "seed": split.seed,
        "note": split.note,
        "cells": [str(cell) for cell in split.cells],
        "shared_factors": wide,
        "shared_only_by_containment": {cell: sorted(set(wide[cell]) - set(strict[cell])) for cell in wide
                                       if wide[cell] != strict[cell]},
        "datasets": sorted({keys[item].dataset for item in (*split.train, *split.test)}),
        "n": {"train": len(split.train), "val": len(split.val), "test": len(split.test)},
        "n_per_cell_and_label": per_cell,
        "patients": {
            side: len({person(keys[item].dataset, keys[item].patient) for item in ids})
            for side, ids in (("train", split.train), ("val", split.val), ("test", split.test))
        },
        "proof": "no patient and no item on two sides; parts as the source assigns them",
        "sha256": split_digest(split),
        "train": list(split.train),
        "val": list(split.val),
        "test": list(split.test),
    }  # fmt: skip


def require_cells(split: Split, *, train: bool = True) -> None:
    """Refuse an empty condition in words that help.

    Args:
        split: The split.
        train: Whether the model trains, and so needs training items.

    Raises:
        CrossmedError: If nothing can be trained on or tested.
    """
    if not split.test:
        raise CrossmedError(f"Target {split.target} has no test items.", hint="See 'crossmed show cell CELL'.")
    if train and not split.train:
        raise CrossmedError(
            f"Split {split.rule!r} is empty for {split.target}: {split.note or 'its cells hold no training items'}.",
            hint="See 'crossmed show split NAME --target CELL' for what is there.",
        )

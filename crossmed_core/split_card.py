"""The card of a split, split.json: who trains, who is tested, what they share, and what a reader must know of it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crossmed_core.splits import CONTAINMENT, Shares, prove, split_digest
from crossmed_core.types import MAT, ItemKey, Split, person
from crossmed_core.vocabulary import shared_factors, task_kind

_AXES = ("modality", "anatomy", "task")
_FEW = 3
"""Up to this many training cells (Med-MAT's triples), the card says which one brings which factor."""


def split_card(
    split: Split,
    keys: Mapping[str, ItemKey],
    *,
    settings: Mapping[str, Any] | None = None,
    proof: Mapping[str, Any] | None = None,
    matching: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe a split for split.json, having proven it.

    Args:
        split: The split, matched to its size.
        keys: Item id -> key, of the whole benchmark.
        settings: The splitter's settings (`Catalog.split_settings`); `containment` is taken as on if it is not there.
        proof: What else was checked (images ...), laid beside what is checked here.
        matching: What else is known of the matching (steps, items there were ...), laid beside what is counted here.

    Returns:
        Plain values for JSON. "cells_out" holds every cell that is not trained on with the factors that it shares with
        the target; "factor_overlap" the share of training items (0 to 1, None without any) that share each factor;
        "ids_sha256" a digest of the sorted ids of each side; "sha256" a digest of all that the split decides.

    Raises:
        SplitViolationError: If the split breaks a promise (`splits.prove`).
    """
    prove(split, keys)
    settings = dict(settings or {})
    share = Shares(split.target, bool(settings.get(CONTAINMENT, True)))
    sides: dict[str, list[ItemKey]] = {
        side: [keys[item] for item in ids]
        for side, ids in (("train", split.train), ("val", split.val), ("test", split.test))
    }
    here = sorted({key.mat for key in keys.values()})
    datasets = {side: sorted({key.dataset for key in found}) for side, found in sides.items()}
    return {
        "rule": split.rule,
        "settings": settings,
        "target": str(split.target),
        "seed": split.seed,
        "trains": split.trains,
        "note": split.note,
        "remarks": remarks(split, keys, containment=share.containment),
        "cells": [str(cell) for cell in split.cells],
        "cells_out": {str(cell): _named(share.factors(cell)) for cell in here if cell not in split.cells},
        "shared_factors": {str(cell): _named(share.factors(cell)) for cell in split.cells},
        "shared_only_by_containment": {
            str(cell): _named(only)
            for cell in split.cells
            if (only := share.factors(cell) - shared_factors(split.target, cell, containment=False))
        },
        "factor_overlap": _overlap(sides["train"], share),
        "source_datasets": {
            "train": datasets["train"],
            "test": datasets["test"],
            "shared": sorted({*datasets["train"]} & {*datasets["test"]}),
        },
        "n": {side: len(found) for side, found in sides.items()},
        "n_per_cell_and_label": _per_cell(sides),
        "patients": {side: len({person(key.dataset, key.patient) for key in found}) for side, found in sides.items()},
        "studies": {
            side: {
                "known": len({person(key.dataset, key.study) for key in found if key.study is not None}),
                "items_without": sum(key.study is None for key in found),
            }
            for side, found in sides.items()
        },
        "matching": {**_evenness(sides["train"]), **(matching or {})},
        "proof": {
            "items": "none twice, none on two sides",
            "parts": "every item on the side that its source or the build assigns it",
            "cells": "test items in the target cell, training and validation items in the cells above",
            "patients": "none on two sides",
            "studies": "none on two sides, where the source tells the study",
            **(proof or {}),
        },
        "ids_sha256": {
            **{side: _digest(key.id for key in found) for side, found in sides.items()},
            "all": _digest((*split.train, *split.val, *split.test)),
        },
        "sha256": split_digest(split),
        "train": list(split.train),
        "val": list(split.val),
        "test": list(split.test),
    }


def remarks(split: Split, keys: Mapping[str, ItemKey], *, containment: bool = True) -> list[str]:
    """Say what a reader must know before he calls a score of this split compositional.

    Args:
        split: The split, full or matched.
        keys: Item id -> key, of the whole benchmark.
        containment: Whether an anatomy inside the other counts as shared.

    Returns:
        Sentences without a full stop: which factors are fixed, which recombine, which are missing; another answer
        format than the target's; source datasets that coincide; factors that this benchmark cannot tell apart.
    """
    if not split.cells:
        return []
    train = [keys[item] for item in split.train]
    share = Shares(split.target, containment)
    found = _composition(split, share)
    if train and (empty := [cell for cell in split.cells if cell not in {key.mat for key in train}]):
        found.append(f"no training items in {_join(empty)}")
    found += _datasets(split, train, keys)
    return found + coinciding_factors(keys.values())


def _composition(split: Split, share: Shares) -> list[str]:
    """Say what the training cells have of the target."""
    target, cells = split.target, split.cells
    if target in cells:
        return []
    shared = {cell: share.factors(cell) for cell in cells}
    brought = frozenset[str]().union(*shared.values())
    lines = []
    if not brought:
        kinds = sorted({task_kind(cell.task) for cell in cells})
        if task_kind(target.task) not in kinds:
            lines.append(
                f"every training cell asks for a {' or a '.join(kinds)}, the target for a {task_kind(target.task)}: "
                "a low score may mean the unknown answer format rather than a lack of composition"
            )
        return lines
    if missing := [axis for axis in _AXES if axis not in brought]:
        lines.append(f"no training cell shares the target's {_join(missing, 'or')}")
        if "task" in missing and task_kind(target.task) not in {task_kind(cell.task) for cell in cells}:
            lines.append("the answer format of the target is never trained on, which alone may lower its score")
    if len(cells) <= _FEW:
        fixed = [axis for axis in _AXES if all(axis in factors for factors in shared.values())]
        bring = [
            f"{axis} from {_join(cell for cell in cells if axis in shared[cell])}"
            for axis in _AXES
            if axis in brought and axis not in fixed
        ]
        lines.append(f"fixed: {', '.join(fixed) or 'nothing'}; recombined: {', '.join(bring) or 'nothing'}")
    return lines


def _datasets(split: Split, train: Sequence[ItemKey], keys: Mapping[str, ItemKey]) -> list[str]:
    """Say where the source dataset may stand in for the factors. In a benchmark of one dataset it cannot."""
    if len({key.dataset for key in keys.values()}) == 1 or not train or split.target in split.cells:
        return []
    ours = {key.dataset for key in train}
    same = sorted(ours & {keys[item].dataset for item in split.test})
    lines = []
    if len(ours) == 1:
        lines.append(f"all training items are of one source dataset, {min(ours)}")
    if same:
        lines.append(
            f"the target is of {_join(same)}, which is trained on too: look-alike images may help beyond composition"
        )
    return lines


def coinciding_factors(keys: Iterable[ItemKey]) -> list[str]:
    """Say which factors, or factors and source dataset, a benchmark cannot tell apart, as each decides the other.

    Example:
        >>> cells = [MAT("xray", "chest", "finding"), MAT("mri", "brain", "finding")]
        >>> coinciding_factors(ItemKey(f"{cell}", cell, "p", "d", "a", "train") for cell in cells)
        ['in this benchmark modality and anatomy coincide: an effect of one may be that of the other']
    """
    rows = {(key.mat.modality, key.mat.anatomy, key.mat.task, key.dataset) for key in keys}
    names = ("modality", "anatomy", "task", "source dataset")
    lines = []
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            pairs = {(row[first], row[second]) for row in rows}
            if 1 < len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}):
                lines.append(
                    f"in this benchmark {names[first]} and {names[second]} coincide: an effect of one may be that of "
                    "the other"
                )
    places = defaultdict(set)
    for modality, anatomy, _, dataset in rows:
        places[dataset].add((modality, anatomy))
    if len(places) > 1 and all(len(found) == 1 for found in places.values()):
        lines.append(
            "in this benchmark each source dataset shows one anatomy in one modality: neither can be told from the "
            "look of its dataset"
        )
    return lines


def _overlap(train: Sequence[ItemKey], share: Shares) -> dict[str, float | None]:
    cells = Counter(key.mat for key in train)
    return {
        axis: sum(n for cell, n in cells.items() if axis in share.factors(cell)) / len(train) if train else None
        for axis in _AXES
    }


def _per_cell(sides: Mapping[str, Sequence[ItemKey]]) -> dict[str, dict[str, dict[str, int]]]:
    per_cell: dict[str, dict[str, dict[str, int]]] = {}
    for side, found in sides.items():
        for (cell, label), n in sorted(Counter((str(key.mat), key.label or "mask") for key in found).items()):
            per_cell.setdefault(cell, {}).setdefault(side, {})[label] = n
    return per_cell


def _evenness(train: Sequence[ItemKey]) -> dict[str, Any]:
    """Count how even the training items are over cells and labels, and say what could not be made even."""
    labels: dict[MAT, Counter[str]] = defaultdict(Counter)
    for key in train:
        labels[key.mat][key.label] += 1
    cells = [counter.total() for counter in labels.values()]
    counts = [n for counter in labels.values() for n in counter.values()]
    uneven = []
    if cells and max(cells) - min(cells) > 1:  # turns are taken, so one item apart is even
        uneven.append(f"cells: {min(cells)} to {max(cells)} training items each")
    uneven += [
        f"labels of {cell}: {min(counter.values())} to {max(counter.values())} training items each"
        for cell, counter in sorted(labels.items())
        if max(counter.values()) - min(counter.values()) > 1
    ]
    return {
        "per_cell": {"min": min(cells), "max": max(cells)} if cells else None,
        "per_label": {"min": min(counts), "max": max(counts)} if counts else None,
        "uneven": uneven,
    }


def _digest(ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def _named(factors: Iterable[str]) -> list[str]:
    return [axis for axis in _AXES if axis in set(factors)]


def _join(things: Iterable[object], word: str = "and") -> str:
    names = [str(thing) for thing in things]
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1] if names else ""]))

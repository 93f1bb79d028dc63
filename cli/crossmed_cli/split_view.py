"""What a person sees of a split: the grid of cells with marks, what is trained on, and what to know of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmed_cli.console import out, print_json, print_table
from crossmed_core.catalog import Catalog
from crossmed_core.errors import CrossmedError, suggest
from crossmed_core.split_card import remarks
from crossmed_core.splits import CONTAINMENT, Shares, coincidences, draw, split_digest
from crossmed_core.types import MAT, ItemKey, Split

_AXES = ("modality", "anatomy", "task")


@dataclass(frozen=True)
class Asked:
    """What splits are drawn from, and for which target.

    Attributes:
        keys: All items that may be drawn.
        target: The target.
        seed: Seed of the draw.
        options: What --split-option says.
        counts: Cell -> training items; None where nobody said how many.
        table: Whether the keys stand in for a table of cells, and so tell nothing of validation and test.
    """

    keys: Sequence[ItemKey]
    target: MAT
    seed: int
    options: Mapping[str, Any]
    counts: Mapping[MAT, int | None]
    table: bool = False

    @property
    def containment(self) -> bool:
        """Whether an anatomy inside the other counts as shared."""
        return bool(self.options.get(CONTAINMENT, True))

    def n(self, split: Split) -> int | None:
        """Return how many training items a split has, None if nobody knows."""
        counts = [self.counts.get(cell, 0) for cell in split.cells]
        return None if None in counts else sum(n for n in counts if n is not None)


def training_counts(keys: Sequence[ItemKey]) -> dict[MAT, int | None]:
    """Count the training items of each cell."""
    counter = Counter(key.mat for key in keys if key.part == "train")
    return {cell: counter[cell] for cell in sorted({key.mat for key in keys})}


def show_one(catalog: Catalog, text: str, asked: Asked, *, as_json: bool) -> None:
    """Print one split for one target.

    Raises:
        CrossmedError: For an unknown split or option, or a split that refuses the target.
    """
    record = catalog.split_claim(text).record
    splitter = catalog.splitter(text, asked.options)
    split = draw(splitter, asked.keys, name=text, target=asked.target, seed=asked.seed)
    others = [one for one in _all_splits(catalog, asked).values() if isinstance(one, Split) and one.rule != split.rule]
    same = [other.rule for other in others if coincidences([split, other])]
    share = Shares(asked.target, asked.containment)
    rows = [_row(cell, share, asked) for cell in split.cells]
    said = remarks(split, {key.id: key for key in asked.keys}, containment=asked.containment)
    if as_json:
        print_json(
            {
                "split": text,
                "summary": record.summary,
                "source": record.source,
                "settings": catalog.split_settings(text, asked.options),
                "target": str(split.target),
                "seed": split.seed,
                "trains": split.trains,
                "cells": rows,
                "cells_out": [_row(cell, share, asked) for cell in asked.counts if cell not in split.cells],
                "n": {
                    "train": asked.n(split),
                    **({} if asked.table else {"val": len(split.val), "test": len(split.test)}),
                },
                "remarks": said,
                "same_as": same,
                "note": split.note,
                "sha256": split_digest(split),
            }
        )
        return
    out.print(f"{text}: {record.summary}", style="bold", markup=False, soft_wrap=True)
    if record.source:
        out.print(f"Source: {record.source}", markup=False, soft_wrap=True)
    settings = catalog.split_settings(text, asked.options)
    if settings:
        out.print(f"Settings: {', '.join(f'{name} {_plain(value)}' for name, value in settings.items())}")
    out.print()
    _print_grid(asked, set(split.cells))
    out.print()
    if rows:
        print_table(
            ["trained on", "items", "shares"],
            [[row["cell"], row["train"], ", ".join(row["shares"]) or "nothing"] for row in rows],
            right=["items"],
        )
        out.print()
    if split.note:
        out.print(f"Empty: {split.note}.", style="yellow", markup=False, soft_wrap=True)
    for line in said:
        out.print(f"Note: {line}.", markup=False, soft_wrap=True)
    if same:
        out.print(f"For this target it trains on the same as {', '.join(same)}.", style="yellow", soft_wrap=True)
    out.print(_summary(split, asked))


def show_all(catalog: Catalog, asked: Asked, *, as_json: bool) -> None:
    """Print one line for every split that takes no argument.

    Raises:
        CrossmedError: For an option that none of them knows.
    """
    known = {option for claim in catalog.plugins.records("split").values() for option, _ in claim.record.options}
    for name in asked.options:
        if name not in known:
            raise CrossmedError(f"No split has an option {name!r}.", hint=suggest(name, known))
    found = _all_splits(catalog, asked)
    same = coincidences([split for split in found.values() if isinstance(split, Split)])
    rows: list[dict[str, Any]] = []
    for name, split in found.items():
        if isinstance(split, CrossmedError):
            rows.append({"split": name, "cells": None, "train": None, "note": str(split)})
            continue
        note = split.note if split.trains else "nothing is trained"
        cells = [str(cell) for cell in split.cells]
        rows.append({"split": name, "cells": cells, "train": asked.n(split) if split.trains else 0, "note": note})
    if as_json:
        print_json({"target": str(asked.target), "seed": asked.seed, "splits": rows, "coincidences": same})
        return
    print_table(
        ["split", "cells", "items", "about"],
        [
            [row["split"], None if row["cells"] is None else len(row["cells"]), row["train"], row["note"] or _few(row)]
            for row in rows
        ],
        title=f"Target {asked.target}",
        right=["cells", "items"],
    )
    if same:
        out.print()
    for line in same:
        out.print(f"{line}.", style="yellow", markup=False, soft_wrap=True)


def _all_splits(catalog: Catalog, asked: Asked) -> dict[str, Split | CrossmedError]:
    """Draw every split that takes no argument; one that fails is its error."""
    found: dict[str, Split | CrossmedError] = {}
    for name, claim in catalog.plugins.records("split").items():
        if claim.record.argument:
            continue
        known = catalog.split_options(name)
        try:
            options = {key: value for key, value in asked.options.items() if key in known}
            found[name] = draw(
                catalog.splitter(name, options), asked.keys, name=name, target=asked.target, seed=asked.seed
            )
        except CrossmedError as error:
            found[name] = error
    return found


def _row(cell: MAT, share: Shares, asked: Asked) -> dict[str, Any]:
    factors = share.factors(cell)
    return {
        "cell": str(cell),
        "train": asked.counts.get(cell, 0),
        "shares": [axis for axis in _AXES if axis in factors],
    }


def _few(row: Mapping[str, Any]) -> str:
    cells: list[str] = row["cells"]
    return ", ".join(cells) if len(cells) <= 3 else ", ".join(cells[:2]) + f" and {len(cells) - 2} more"


def _summary(split: Split, asked: Asked) -> str:
    n, cells = asked.n(split), f"{len(split.cells)} training cell" + "s" * (len(split.cells) != 1)
    if not asked.table:
        return f"{cells}; items: {n} training, {len(split.val)} validation, {len(split.test)} test."
    items = "the table does not say how many items" if n is None else f"{n} training items"
    return f"{cells} of {len(asked.counts)}; {items}."


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _print_grid(asked: Asked, chosen: set[MAT]) -> None:
    """Print modality x anatomy: one letter per task where the letters differ, else how many cells are trained on."""
    cells, target = set(asked.counts), asked.target
    modalities, anatomies, tasks = (sorted({cell[axis] for cell in cells}) for axis in range(3))
    lettered = len({task[0] for task in tasks}) == len(tasks)

    def letter(cell: MAT) -> str:
        if cell not in cells:
            return " "
        text = cell.task[0].upper() if cell in chosen else cell.task[0]
        return f"[{text}]" if cell == target else text

    def square(modality: str, anatomy: str) -> str:
        if lettered:
            return " ".join(letter(MAT(modality, anatomy, task)) for task in tasks)
        here = [cell for cell in cells if cell[:2] == (modality, anatomy)]
        text = f"{len(chosen & set(here))}/{len(here)}" if here else ""
        return f"[{text}]" if target in here else text

    # The longer axis goes down the page.
    if len(anatomies) > len(modalities):
        rows = [[anatomy, *(square(modality, anatomy) for modality in modalities)] for anatomy in anatomies]
        print_table(["", *modalities], rows)
    else:
        rows = [[modality, *(square(modality, anatomy) for anatomy in anatomies)] for modality in modalities]
        print_table(["", *anatomies], rows)
    if lettered:
        out.print(", ".join(f"{task[0]} = {task}" for task in tasks), style="dim")
        legend = "CAPITAL: trained on; small: left out; [brackets]: the target, tested"
    else:
        legend = "cells trained on / cells there; [brackets]: with the target, tested"
    out.print(legend, style="dim", markup=False)

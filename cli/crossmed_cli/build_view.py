"""What a person sees of a build: bars with rate and time left or quiet lines, and the card as tables."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from crossmed_cli.console import out, print_table
from crossmed_cli.progress import RateColumn
from crossmed_core.build import BuildResult
from crossmed_core.types import PARTS

WORDS = {"reading": "reading", "images": "images of", "regions": "choosing"}
QUIET_SECONDS = 10.0
"""Least seconds between two lines of one phase where there is no terminal."""
SHOWN = 8
"""Skipped rows shown per dataset; card.json has them all."""
_SOURCE_COLUMNS = ("dataset", "layout", "items", "patients", "skipped", "licence")
_CELL_COLUMNS = ("cell", "answer", *PARTS, "chance", "labels")


class BuildView:
    """Shows the progress of a build (`build_sources.Progress`).

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: dict[tuple[str, str], TaskID] = {}
        self._said: dict[tuple[str, str], float] = {}
        self._started = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )

    def __enter__(self) -> BuildView:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._progress.stop()

    def __call__(self, phase: str, what: str, done: int, total: int | None) -> None:
        """Move a bar, or print a line now and then and when a phase is done."""
        key = phase, what
        if self.console.is_terminal:
            if key not in self._bars:
                self._bars[key] = self._progress.add_task(f"{WORDS[phase]} {what}", total=total, overall=False)
            self._progress.update(self._bars[key], completed=done, total=total)
            return
        now = time.monotonic()
        last = self._said.get(key)
        ended = total is not None and done >= total
        if ended and last == float("inf"):
            return
        if last is None or ended or now - last >= QUIET_SECONDS:
            seconds = int(now - self._started)
            of = "" if total is None else f" of {total}"
            self.console.print(
                f"{seconds // 60:>2}:{seconds % 60:02d} {WORDS[phase]} {what}: {done}{of}", soft_wrap=True
            )
            self._said[key] = float("inf") if ended else now


def warn_of_problems(console: Console, result: BuildResult) -> None:
    """Name the datasets that are there but could not be read."""
    for name, reason in result.problems.items():
        console.print(f"warning: {name} is left out: {reason}", style="yellow", soft_wrap=True)


def print_card(result: BuildResult) -> None:
    """Print what was built: cells, sources, what was skipped."""
    card = result.card
    state = "were built before" if result.reused else "built"
    out.print(f"{card['n']} items {state}, in {result.folder}", style="bold", soft_wrap=True)
    promised = card["promised"]
    if promised is not None and promised != card["n"]:
        out.print(
            f"Recipe {card['name']} gives {promised} items from full downloads; "
            f"here {promised - card['n']} are missing: the data are partial, or files were skipped.",
            style="yellow",
            soft_wrap=True,
        )
    out.print()
    print_table(
        _CELL_COLUMNS, [_cell_row(cell, facts) for cell, facts in card["cells"].items()], right=_CELL_COLUMNS[2:6]
    )
    out.print()
    rows = [
        [name, one["layout"], one["items"], one["patients"], len(one["skipped"]), one["licence"]]
        for name, one in card["sources"].items()
    ]
    print_table(_SOURCE_COLUMNS, rows, right=_SOURCE_COLUMNS[2:5])
    for name, one in card["sources"].items():
        _print_report(name, one)
    out.print()
    out.print(f"SHA-256 {card['sha256']}; all of it in {result.folder / 'card.json'}", style="dim", soft_wrap=True)
    split = "zero-overlap" if len(card["cells"]) > 3 else "in-domain"
    out.print(f"Next: crossmed run --model resnet18 --split {split} --data {result.folder}", soft_wrap=True)


def _cell_row(cell: str, facts: dict[str, Any]) -> list[Any]:
    parts = facts["parts"]
    test = parts["test"]
    counted = [parts[part]["n"] for part in PARTS]
    if facts["answers"] == "option":
        labels = test["labels"].values()
        each = f"{min(labels)}" if len(set(labels)) == 1 else f"{min(labels)} to {max(labels)}" if labels else "none"
        chance = test["chance"]
        return [
            cell,
            "option",
            *counted,
            None if chance is None else f"{chance:.3f}",
            f"{len(labels)}, {each} tested each",
        ]
    choice = test["choice"]
    if not choice:
        return [cell, "mask", *counted, None, None]
    return [cell, "mask/region", *counted, f"{choice['random']['ciou']:.3f} cIoU", None]


def _print_report(name: str, source: dict[str, Any]) -> None:
    counted = ", ".join(f"{what} {n}" for what, n in source["counted"].items())
    out.print()
    out.print(f"{name}: {counted or 'nothing counted'}", style="bold", soft_wrap=True, markup=False)
    for one in source["skipped"][:SHOWN]:
        text = f"  skipped {one['where']}: {one['reason']}"
        # Names of files may hold line breaks and control characters.
        text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
        out.print(text, style="yellow", soft_wrap=True, markup=False)
    more = Counter(one["reason"] for one in source["skipped"][SHOWN:]).total()
    if more:
        out.print(f"  and {more} more skipped, all in card.json", style="yellow")


def card_json(result: BuildResult) -> dict[str, Any]:
    """Return what --json prints: the card, where it lies, and what could not be read."""
    return {"folder": str(result.folder), "reused": result.reused, "problems": dict(result.problems), **result.card}

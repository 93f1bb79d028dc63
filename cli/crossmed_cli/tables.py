"""The tables that a plan and `show` print, and how numbers are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossmed_cli.console import out, print_table
from crossmed_core.study import PlannedTrial

PLAN_COLUMNS = ("trained on", "seed", "share", "cells", "train", "per cell", "val", "test", "rough time", "state")


def number(value: float | None, *, sign: bool = False) -> str:
    """Format a score, or a dash."""
    return "–" if value is None else f"{value:+.3f}" if sign else f"{value:.3f}"


def interval(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """Format an interval, or a dash."""
    return "–" if low is None or high is None else f"[{number(low, sign=sign)}, {number(high, sign=sign)}]"


def planned_json(trial: PlannedTrial) -> dict[str, Any]:
    """Describe a planned trial."""
    spec = trial.spec
    return {
        "id": spec.id,
        "model": spec.model,
        "split": spec.split,
        "target": str(spec.target),
        "seed": spec.seed,
        "train": spec.train_size,
        "available": trial.available,
        "val": spec.val_size,
        "test": trial.test,
        "cells": {str(cell): dict(counts) for cell, counts in trial.cells.items()},
        "state": trial.state,
        "problem": trial.problem,
        "fraction": spec.fraction,
        "remarks": list(trial.remarks),
        "rough_seconds": None if trial.seconds is None else round(trial.seconds),
    }


def print_plan(trials: Sequence[PlannedTrial], folder: Path, jobs: int) -> None:
    """Print what would be run."""
    for target, model in dict.fromkeys((trial.spec.target, trial.spec.model) for trial in trials):
        group = [trial for trial in trials if (trial.spec.target, trial.spec.model) == (target, model)]
        out.print(f"{target} · {model}", style="bold cyan", markup=False)
        print_table(PLAN_COLUMNS, [_plan_row(trial) for trial in group], right=PLAN_COLUMNS[1:9])
        for remark in dict.fromkeys(remark for trial in group for remark in trial.remarks):
            out.print(f"{remark}.", style="yellow", markup=False, soft_wrap=True)
        out.print()
    left = [trial for trial in trials if trial.state != "finished" and not trial.problem]
    known = [trial.seconds for trial in left if trial.seconds is not None]
    out.print(f"Run folder {folder}: {len(left)} trials to do, {len(trials) - len(left)} reused or impossible.")
    if left and len(known) == len(left):
        minutes = sum(known) / min(jobs, len(left)) / 60
        out.print(f"Rough time: {minutes:.1f} min with {jobs} at a time, by a figure measured on one CPU core.")
    elif left:
        out.print("Rough time: unknown for models without a measured figure.")


def _plan_row(trial: PlannedTrial) -> list[Any]:
    spec = trial.spec
    state = trial.problem or ("reused" if trial.state == "finished" else trial.state)
    rough = "–" if trial.seconds is None or trial.state == "finished" else f"{trial.seconds:.0f} s"
    sizes = [f"{spec.train_size} of {trial.available}", _per_cell(trial), spec.val_size, trial.test]
    return [spec.split, spec.seed, f"{spec.fraction:g}", len(trial.cells), *sizes, rough, state]


def _per_cell(trial: PlannedTrial) -> str:
    counts = [cell["train"] for cell in trial.cells.values()]
    return "–" if not counts else str(max(counts)) if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"

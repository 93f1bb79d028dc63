"""The tables that a plan and `show` print, and how numbers are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crossmed_cli.console import out, print_table
from crossmed_core.contracts import Forecast
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
        "forecast": None if trial.forecast is None else asdict(trial.forecast),
    }


def print_plan(trials: Sequence[PlannedTrial], folder: Path, jobs: int) -> None:
    """Print what would be run."""
    for target, model in dict.fromkeys((trial.spec.target, trial.spec.model) for trial in trials):
        group = [trial for trial in trials if (trial.spec.target, trial.spec.model) == (target, model)]
        out.print(f"{target} · {model}", style="bold cyan", markup=False)
        # That of a trial that trains says all that one without training does.
        forecasts = sorted((one.forecast for one in group if one.forecast), key=lambda one: one.train_gib is None)
        for line in forecast_lines(forecasts[0] if forecasts else None):
            out.print(line, markup=False, soft_wrap=True)
        print_table(PLAN_COLUMNS, [_plan_row(trial) for trial in group], right=PLAN_COLUMNS[1:9])
        for remark in dict.fromkeys(remark for trial in group for remark in trial.remarks):
            out.print(f"{remark}.", style="yellow", markup=False, soft_wrap=True)
        out.print()
    left = [trial for trial in trials if trial.state != "finished" and not trial.problem]
    known = [trial.seconds for trial in left if trial.seconds is not None]
    out.print(f"Run folder {folder}: {len(left)} trials to do, {len(trials) - len(left)} reused or impossible.")
    if left and len(known) == len(left):
        minutes = sum(known) / min(jobs, len(left)) / 60
        out.print(f"Rough time: {minutes:.1f} min with {jobs} at a time.")
    elif left:
        out.print("Rough time: unknown for models without a measured figure.")


def forecast_lines(forecast: Forecast | None) -> list[str]:
    """Say what is known of a model before it is loaded."""
    if forecast is None:
        return []
    facts = [f"weights {forecast.weights}"]
    if forecast.parameters_m is not None:
        millions = forecast.parameters_m
        facts.append(
            f"{millions / 1000:.2f} billion parameters" if millions >= 1000 else f"{millions:.3g} M parameters"
        )
    if forecast.dtype:
        facts.append(forecast.dtype)
    if forecast.predict_gib is not None:
        facts.append(f"about {memory(forecast.predict_gib)} to answer")
    if forecast.train_gib is not None:
        facts.append(f"about {memory(forecast.train_gib)} to train")
    return [", ".join(facts) + ".", *(f"{note}." for note in forecast.notes)]


def memory(gib: float) -> str:
    """Format an amount of memory."""
    return f"{gib:.1f} GiB" if gib >= 1 else f"{gib * 1024:.0f} MiB"


def _plan_row(trial: PlannedTrial) -> list[Any]:
    spec = trial.spec
    state = trial.problem or ("reused" if trial.state == "finished" else trial.state)
    unknown = trial.seconds is None or trial.problem or trial.state == "finished"
    rough = "–" if unknown else f"{trial.seconds:.0f} s"
    sizes = [f"{spec.train_size} of {trial.available}", _per_cell(trial), spec.val_size, trial.test]
    return [spec.split, spec.seed, f"{spec.fraction:g}", len(trial.cells), *sizes, rough, state]


def _per_cell(trial: PlannedTrial) -> str:
    counts = [cell["train"] for cell in trial.cells.values()]
    return "–" if not counts else str(max(counts)) if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"

"""The tables that `run` and `score` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from crossmed_cli.console import out, print_table
from crossmed_core.catalog import Catalog
from crossmed_core.runner import TrialResult
from crossmed_core.scoring import Gap
from crossmed_core.study import PlannedTrial
from crossmed_core.types import Score

SCORE_COLUMNS = ("trained on", "items", "value", "95 % interval", "n", "chance", "unscored", "guessed")
GAP_COLUMNS = ("gap", "difference", "95 % interval", "n", "")
PLAN_COLUMNS = ("trained on", "seed", "cells", "train", "per cell", "val", "test", "rough time", "state")


def number(value: float | None, *, sign: bool = False) -> str:
    """Format a score, or a dash."""
    return "–" if value is None else f"{value:+.3f}" if sign else f"{value:.3f}"


def interval(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """Format an interval, or a dash."""
    return "–" if low is None or high is None else f"[{number(low, sign=sign)}, {number(high, sign=sign)}]"


def print_scores(
    run: Mapping[str, Any],
    scores: Sequence[Score],
    gaps: Sequence[Gap],
    catalog: Catalog,
    results: Sequence[TrialResult] = (),
    metrics: Sequence[str] = (),
) -> None:
    """Print the end table, the gaps, and what a reader must know of them.

    Args:
        run: Content of run.json.
        scores: All scores; the primary metric of each kind is shown unless `metrics` are named.
        gaps: All gaps.
        catalog: Knows which metrics are primary.
        results: How trials ended, to name those that failed.
        metrics: Names to show instead.
    """
    records = catalog.plugins.records("metric")
    shown = set(metrics) or {name for name, claim in records.items() if claim.record.primary}
    rows = [one for one in scores if one.metric in shown]
    for target, model, metric in dict.fromkeys((one.target, one.model, one.metric) for one in rows):
        key = (target, model, metric)
        group = [one for one in rows if (one.target, one.model, one.metric) == key]
        seeds = sorted({seed for one in group for seed in one.seeds})
        said = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        out.print()
        out.print(f"{target} · {model} · {metric} · {said}", style="bold cyan", markup=False, soft_wrap=True)
        bounded = any(one.best is not None for one in group)
        columns = (*SCORE_COLUMNS[:6], "best", *SCORE_COLUMNS[6:]) if bounded else SCORE_COLUMNS
        print_table(columns, [_score_row(one, bounded=bounded) for one in group], right=columns[1:])
        found = [one for one in gaps if (one.target, one.model, one.metric) == key]
        if found:
            out.print()
            print_table(GAP_COLUMNS, [_gap_row(one) for one in found], right=GAP_COLUMNS[1:4])
    _print_notes(run, rows, results)


def _score_row(one: Score, *, bounded: bool) -> list[Any]:
    values = [one.split, one.train, number(one.value), interval(one.low, one.high), one.n, number(one.chance)]
    values += [number(one.best)] if bounded else []
    answers = one.n * len(one.seeds)
    return [*values, one.unscored, f"{one.guessed / answers:.0%}" if answers else "–"]


def _gap_row(one: Gap) -> list[Any]:
    away = one.low > 0 or one.high < 0
    verdict = Text("away from 0" if away else "not away from 0", style="green" if away else "yellow")
    if one.guessed:
        verdict.append(f" ({' and '.join(one.guessed)}: all guesses)", style="dim")
    values = [number(one.value, sign=True), interval(one.low, one.high, sign=True), one.n]
    return [f"{one.first} − {one.second}", *values, verdict]


def _print_notes(run: Mapping[str, Any], rows: Sequence[Score], results: Sequence[TrialResult]) -> None:
    notes = []
    if run["benchmark"]["synthetic"]:
        notes.append("Synthetic phantom: this shows the pipeline at work and says nothing about hospital images.")
    if rows and all(len(one.seeds) == 1 for one in rows):
        notes.append(
            "One training seed: intervals cover the choice of test items, not of training runs; try --seeds 5."
        )
    if any(len(one.seeds) > 1 for one in rows):
        notes.append("Several training seeds: values are means, intervals cover test items and training runs.")
    if any(one.guessed for one in rows):
        notes.append(
            "Guessed: the model had no ground to choose (labels or masks never trained on, a tie); a seeded coin did."
        )
    if any(one.unscored for one in rows):
        notes.append("Unscored: items without an answer (see 'error' in predictions.jsonl); left out of value and n.")
    if any(one.best is not None for one in rows):
        notes.append(
            "Regions: a model that only chooses is shown four; chance: a random choice among them, best: the best one."
        )
    if any(one.metric == "ciou" and one.best is None for one in rows):
        notes.append("Chance for masks: the better score of marking every pixel and of marking none.")
    informed = sorted({(one.target, one.informed) for one in rows if one.informed is not None})
    for target, value in informed:
        notes.append(
            f"{target}: some options are never true in this cell; who knows its labels guesses {number(value)}, "
            "who does not, chance."
        )
    failed = [one for one in results if one.status != "finished"]
    notes += [f"Failed: {one.spec.id}: {one.message}" for one in failed]
    if notes:
        out.print()
    for note in notes:
        out.print(note, style="dim" if not note.startswith("Failed") else "red", soft_wrap=True, markup=False)


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
        "rough_seconds": None if trial.seconds is None else round(trial.seconds),
    }


def print_plan(trials: Sequence[PlannedTrial], folder: Path, jobs: int) -> None:
    """Print what would be run."""
    for target, model in dict.fromkeys((trial.spec.target, trial.spec.model) for trial in trials):
        group = [trial for trial in trials if (trial.spec.target, trial.spec.model) == (target, model)]
        out.print(f"{target} · {model}", style="bold cyan", markup=False)
        print_table(PLAN_COLUMNS, [_plan_row(trial) for trial in group], right=PLAN_COLUMNS[1:8])
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
    return [spec.split, spec.seed, len(trial.cells), *sizes, rough, state]


def _per_cell(trial: PlannedTrial) -> str:
    counts = [cell["train"] for cell in trial.cells.values()]
    return "–" if not counts else str(max(counts)) if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"

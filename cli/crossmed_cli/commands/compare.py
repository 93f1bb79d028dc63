"""`crossmed compare`."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from crossmed_cli.console import err, out, print_json, print_table
from crossmed_cli.options import catalog_options, json_option, many, option
from crossmed_cli.tables import interval, number
from crossmed_core.catalog import Catalog
from crossmed_core.compare_runs import LeftOut, Matched, Row, compare, differing, match
from crossmed_core.errors import CrossmedError, ExitCode, unknown
from crossmed_core.run import read_answers
from crossmed_core.runlog import write_bytes
from crossmed_core.scoring import Answers

WHERE = ("cell", "trained on")
NUMBERS = ("A", "B", "A − B", "95 % interval", "n", "p", "Holm", "BH")
CHOICES = ("only A right", "only B right", "McNemar")


@click.command("compare")
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@option("--split", "-s", multiple=True, help="Only what was trained on under these splits.")
@option("--metric", multiple=True, help="Metric to compare by. [default: the primary ones]")
@option("--target", "-t", multiple=True, help="Only these cells; wildcards.")
@option(
    "--items",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the items in which A and B differ to this JSONL file.",
)
@json_option
@catalog_options
def command(
    first: Path,
    second: Path,
    catalog: Catalog,
    split: tuple[str, ...],
    metric: tuple[str, ...],
    target: tuple[str, ...],
    items: Path | None,
    as_json: bool,
) -> int:
    """Compare run A with run B on the items that both were asked: paired intervals, tests, and who is right where.

    \b
    crossmed compare runs/resnet runs/vit --split related,zero-overlap
    crossmed compare runs/a runs/b --items differ.jsonl
    """  # noqa: D301  (\b is click's mark for lines that it must not wrap)
    for folder in (first, second):
        if not (folder / "run.json").is_file():
            raise CrossmedError(f"{folder} holds no run (no run.json).", exit_code=ExitCode.RUN_FOLDER)
    if first.samefile(second):
        raise CrossmedError(
            f"{first} and {second} are the same run.",
            hint="Splits of one run are compared by 'crossmed score RUN --compare A:B'.",
        )
    metrics = {name: catalog.metric(name) for name in many(metric)}
    sides, complete = [], True
    for folder in (first, second):
        answers, states = read_answers(folder)
        for state in states:
            if state["status"] != "finished":
                complete = False
                _warn(f"{folder}: trial {state['id']} is {state['status']}")
        sides.append([one for one in answers if not one.variant])
    wanted = _wanted_splits(many(split), sides), _wanted_targets(many(target), sides)
    chosen = [[one for one in side if one.split in wanted[0] and one.target in wanted[1]] for side in sides]
    matched, left_out = match(*chosen)
    if not matched:
        raise _nothing(first, second, chosen, left_out)
    rows = compare(matched, metrics or _primary(catalog))
    fitting = {row.metric for row in rows}
    for name in metrics:
        if name not in fitting:
            _warn(f"metric {name!r} scores none of the items that both runs answered, or cannot be compared")
    differ = differing(matched) if items is not None else []
    if items is not None:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in differ)
        write_bytes(items, lines.encode())
    if as_json:
        print_json(
            {
                "a": str(first),
                "b": str(second),
                "rows": [asdict(row) for row in rows],
                "left_out": asdict(left_out),
                "differing": len(differ) if items is not None else None,
            }
        )
    else:
        _print(first, second, matched, rows, left_out)
        if items is not None:
            out.print(f"Written: {items}, {len(differ)} answers that differ", markup=False, soft_wrap=True)
    return ExitCode.OK if complete else ExitCode.TRIALS_FAILED


def _primary(catalog: Catalog) -> dict[str, Any]:
    names = [name for kind in ("option", "mask") for name in catalog.metrics_for(kind, primary=True)]
    return {name: catalog.metric(name) for name in names}


def _wanted_splits(names: Sequence[str], sides: Sequence[Sequence[Answers]]) -> set[str]:
    """Return the splits that are meant; one with an argument also by its name alone.

    Raises:
        CrossmedError: For a split that neither run has.
    """
    known = {one.split for side in sides for one in side}
    wanted: set[str] = set()
    for name in names:
        found = {one for one in known if name in (one, one.partition(":")[0])}
        if not found:
            raise unknown("split of these runs", name, known)
        wanted |= found
    return wanted if names else known


def _wanted_targets(names: Sequence[str], sides: Sequence[Sequence[Answers]]) -> set[str]:
    """Return the targets that names and wildcards stand for.

    Raises:
        CrossmedError: For one that neither run has.
    """
    known = {one.target for side in sides for one in side}
    wanted: set[str] = set()
    for name in names:
        found = set(fnmatch.filter(known, name))
        if not found:
            raise unknown("target of these runs", name, known)
        wanted |= found
    return wanted if names else known


def _nothing(first: Path, second: Path, sides: Sequence[Sequence[Answers]], left_out: LeftOut) -> CrossmedError:
    """Say why two runs have nothing in common."""
    for folder, side in zip((first, second), sides, strict=True):
        if not side:
            return CrossmedError(f"Run {folder} has no answers to compare.", exit_code=ExitCode.RUN_FOLDER)
    if left_out.differ:
        name, what = next(iter(left_out.differ.items()))
        why = f"their items differ (the {what} of {name}, ...)"
    elif left_out.only_first:
        why = f"no item is in both (only A has {left_out.only_first[0]}, only B {left_out.only_second[0]}, ...)"
    elif {(one.target, one.split) for one in sides[0]} & {(one.target, one.split) for one in sides[1]}:
        models = [", ".join(sorted({one.model for one in side})) for side in sides]
        why = f"several models, none in both ({models[0]}; {models[1]}), or other fractions of the training size"
    else:
        one, other = (sorted({f"{one.target} {one.split}" for one in side})[0] for side in sides)
        why = f"no target and split is in both (A: {one}, ...; B: {other}, ...)"
    return CrossmedError(f"Nothing to compare: {why}.", exit_code=ExitCode.RUN_FOLDER)


def _print(first: Path, second: Path, matched: Sequence[Matched], rows: Sequence[Row], left_out: LeftOut) -> None:
    out.print(f"A: {first}", style="bold", markup=False, soft_wrap=True)
    out.print(f"B: {second}", style="bold", markup=False, soft_wrap=True)
    models = list(dict.fromkeys(one.models for one in matched))
    for name, models_of in dict.fromkeys((row.metric, (row.model_a, row.model_b)) for row in rows):
        group = [row for row in rows if row.metric == name and (row.model_a, row.model_b) == models_of]
        out.print()
        title = f"{models_of[0]} (A) − {models_of[1]} (B) · {name} · {_seeds(group)}"
        out.print(title, style="bold cyan", markup=False, soft_wrap=True)
        choices = any(row.only_a is not None for row in group)
        columns = [*WHERE, *NUMBERS, *(CHOICES if choices else ())]
        print_table(columns, [_cells(row, choices=choices) for row in group], right=columns[2:])
    scored = {(row.model_a, row.model_b) for row in rows}
    for one, other in models:
        if (one, other) not in scored:
            out.print(f"{one} (A), {other} (B): no seed and answered item in common.", markup=False, soft_wrap=True)
    notes = _left_out(left_out)
    if any(len(row.seeds) == 1 for row in rows):
        notes.append("One training seed: the interval covers the choice of test items; p: patients swap their answers.")
    if any(len(row.seeds) > 1 for row in rows):
        notes.append("Several training seeds: the interval covers test items and training runs; p: its t-test.")
    notes.append("Holm, BH: p adjusted over the rows of a metric.")
    unequal = sorted({(row.train_a, row.train_b) for row in rows if row.train_a != row.train_b})
    if unequal:
        sizes = ", ".join(f"{a} and {b}" for a, b in unequal)
        notes.append(f"A and B were trained on different numbers of items ({sizes}): that may be the difference.")
    if any(row.ignores_patients for row in rows):
        notes.append("McNemar *: ignores patients, of whom some have several items; p is the one to read.")
    if any(row.small for row in rows):
        notes.append("Grey: too few patients to rank; left out of the adjustment.")
    out.print()
    for note in notes:
        out.print(note, style="dim", markup=False, soft_wrap=True)


def _seeds(rows: Sequence[Row]) -> str:
    seeds = sorted({seed for row in rows for seed in row.seeds})
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _cells(row: Row, *, choices: bool) -> list[Any]:
    split = row.split if row.fraction == 1 else f"{row.split} ({row.fraction:.4g} of it)"
    cells: list[Any] = [row.target, split, number(row.a), number(row.b), number(row.difference, sign=True)]
    cells += [interval(row.low, row.high, sign=True), row.n]
    cells += [_probability(p) for p in (row.p, row.p_holm, row.q_bh)]
    if choices:
        exact = _probability(row.mcnemar) + (" *" if row.ignores_patients else "")
        cells += [_count(row.only_a), _count(row.only_b), exact]
    return [Text(str(cell), style="dim") for cell in cells] if row.small else cells


def _count(value: int | None) -> str:
    return "–" if value is None else str(value)


def _probability(value: float | None) -> str:
    return "–" if value is None else "<.001" if value < 0.001 else f"{value:.3f}"


def _left_out(left_out: LeftOut) -> list[str]:
    notes = []
    for ids, whose in ((left_out.only_first, "A"), (left_out.only_second, "B")):
        if ids:
            notes.append(f"Left out: {len(ids)} items that only {whose} has, e.g. {ids[0]}.")
    if left_out.differ:
        name, what = next(iter(left_out.differ.items()))
        notes.append(f"Left out: {len(left_out.differ)} items that are not the same in both, e.g. {name} ({what}).")
    return notes


def _warn(message: str) -> None:
    err.print(f"warning: {message}", style="yellow", soft_wrap=True)

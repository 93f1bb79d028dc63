"""`crossmed power`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from crossmed_cli.console import out, print_json, print_table
from crossmed_cli.options import FiniteRange, catalog_options, json_option, many, option, pairs
from crossmed_cli.tables import number
from crossmed_core.benchmark import EITHER, Benchmark
from crossmed_core.catalog import Catalog
from crossmed_core.errors import CrossmedError
from crossmed_core.types import MAT, person

COLUMNS = (
    *("cell", "items", "patients", "design effect", "effective n", "chance", "least accuracy", "least gap"),
    *("items for .05", "items for .10"),
)
GAPS = (0.05, 0.10)
_SHARE = FiniteRange(0, 1)
_OPEN = FiniteRange(0, 1, min_open=True, max_open=True)


@dataclass(frozen=True)
class CellPower:
    """What a test of one cell could find.

    Attributes:
        cell: The cell, as text.
        answers: "option" or "mask"; for masks only the counts are known before a run.
        n: Test items.
        patients: Distinct patients among them.
        design_effect: By how much items of one patient inflate the variance of a mean.
        effective_n: Independent items that they are worth: n / design effect.
        chance: Mean of 1 / options.
        least_accuracy: The smallest accuracy told from chance; None if none is.
        least_gap: The smallest difference of two conditions found; None if none is.
        items_for: Gap -> test items, of patients alike, that find it; None where no number does.
        small: Whether too few patients are tested to rank it.
    """

    cell: str
    answers: str
    n: int
    patients: int
    small: bool
    design_effect: float | None = None
    effective_n: float | None = None
    chance: float | None = None
    least_accuracy: float | None = None
    least_gap: float | None = None
    items_for: Mapping[str, int | None] | None = None


@dataclass(frozen=True)
class Assumptions:
    """What is not known before a run.

    Attributes:
        seeds: Training seeds of each condition.
        icc: Correlation of two items of one patient, 0 to 1.
        discordant: Share of items that only one of two conditions has right.
        seed_sd: Standard deviation of the accuracy over training seeds; 0 for one seed, whose intervals and tests speak
            of these weights only.
        alpha: Level of the tests.
        power: Wanted power.
    """

    seeds: int
    icc: float
    discordant: float
    seed_sd: float
    alpha: float
    power: float


@click.command("power")
@option("--dataset", default="phantom", show_default=True, help="Dataset.")
@option("--data", type=click.Path(path_type=Path), help="A benchmark that was built.")
@option("--dataset-option", multiple=True, metavar="KEY=VALUE", help="Option of the dataset.")
@option("--target", "-t", multiple=True, help="Cell to test; wildcards; 'all'. [default: as for run]")
@option("--limit", type=click.IntRange(min=1), help="At most this many test items per target.")
@option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Training seeds of each condition.")
@option("--icc", type=_SHARE, default=0.1, show_default=True, help="Correlation of two items of one patient.")
@option(
    "--discordant",
    type=FiniteRange(0, 1, min_open=True),
    default=0.3,
    show_default=True,
    help="Share of items that only one of two conditions has right.",
)
@option(
    "--seed-sd",
    type=_SHARE,
    default=0.02,
    show_default=True,
    help="Standard deviation of accuracy over training seeds.",
)
@option("--alpha", type=_OPEN, default=0.05, show_default=True, help="Level of the tests.")
@option("--power", type=_OPEN, default=0.8, show_default=True, help="Wanted power.")
@json_option
@catalog_options
def command(
    catalog: Catalog,
    dataset: str,
    data: Path | None,
    dataset_option: tuple[str, ...],
    target: tuple[str, ...],
    limit: int | None,
    seeds: int,
    icc: float,
    discordant: float,
    seed_sd: float,
    alpha: float,
    power: float,
    as_json: bool,
) -> int:
    """Say before a run what its test items can show: the least accuracy told from chance, the least gap found.

    \b
    crossmed power --data bench --seeds 3
    crossmed power --target 'ct/*/*' --limit 500 --discordant 0.2
    """  # noqa: D301  (\b is click's mark for lines that it must not wrap)
    from crossmed_core.study import find_targets

    if power <= alpha:
        raise CrossmedError(f"--power {power:g} is no more than --alpha {alpha:g}, which needs no data at all.")
    assumed = Assumptions(seeds, icc, discordant, seed_sd if seeds > 1 else 0.0, alpha, power)
    benchmark = catalog.benchmark(dataset, pairs("--dataset-option", dataset_option), data)
    cells = find_targets(many(target), benchmark, EITHER)
    rows = [cell_power(benchmark, cell, limit, assumed) for cell in cells]
    if as_json:
        print_json(
            {"benchmark": benchmark.name, "assumptions": asdict(assumed), "cells": [asdict(row) for row in rows]}
        )
    else:
        print_table(COLUMNS, [_row(row) for row in rows], right=COLUMNS[1:])
        _print_notes(rows, assumed)
    return 0


def cell_power(benchmark: Benchmark, cell: MAT, limit: int | None, assumed: Assumptions) -> CellPower:
    """Work out what a test of one cell could find.

    Args:
        benchmark: Where its test items are.
        cell: The cell.
        limit: At most this many test items, those that a run with --limit would take; None = all.
        assumed: What is not known.
    """
    from crossmed_core.power import design_effect, items_for_gap, least_accuracy, least_gap
    from crossmed_core.splits import random_order
    from crossmed_core.statistics import too_small

    keys = benchmark.keys
    ids = random_order(key for key in keys.values() if key.mat == cell and key.part == "test")[:limit]
    sizes = Counter(person(keys[one].dataset, keys[one].patient) for one in ids)
    # A segmentation cell with candidate regions is asked of most models as a choice among four.
    answers = benchmark.answered_by(cell, {"option"}) or benchmark.questions[cell].kind
    row = CellPower(str(cell), answers, len(ids), len(sizes), too_small(len(sizes), len(ids)))
    if answers == "mask" or not ids:
        return row
    inflated = design_effect(list(sizes.values()), assumed.icc)
    effective = len(ids) / inflated
    chance = sum(1 / len(item.options) for item in benchmark.items(ids, {"option"})) / len(ids)
    about = {"discordant": assumed.discordant, "seeds": assumed.seeds, "seed_sd": assumed.seed_sd}
    about |= {"alpha": assumed.alpha, "power": assumed.power}
    needed = {f"{gap:.2f}": items_for_gap(gap, **about) for gap in GAPS}  # type: ignore[arg-type]
    return CellPower(
        row.cell,
        answers,
        row.n,
        row.patients,
        row.small,
        design_effect=inflated,
        effective_n=effective,
        chance=chance,
        least_accuracy=least_accuracy(floor(effective), chance, alpha=assumed.alpha, power=assumed.power),
        least_gap=least_gap(effective, **about),  # type: ignore[arg-type]
        items_for={gap: None if n is None else ceil(n * inflated) for gap, n in needed.items()},
    )


def _row(row: CellPower) -> list[Any]:
    cells: list[Any] = [row.cell, row.n, row.patients]
    if row.items_for is None:
        cells += ["–"] * (len(COLUMNS) - len(cells))
    else:
        assert row.design_effect is not None and row.effective_n is not None
        cells += [f"{row.design_effect:.2f}", f"{row.effective_n:.0f}", number(row.chance)]
        cells += ["none" if value is None else number(value) for value in (row.least_accuracy, row.least_gap)]
        cells += ["never" if n is None else n for n in row.items_for.values()]
    return [Text(str(cell), style="dim") for cell in cells] if row.small else cells


def _print_notes(rows: Sequence[CellPower], assumed: Assumptions) -> None:
    varies = (
        f"{assumed.seeds} training seeds per condition, whose accuracy varies by {assumed.seed_sd:g} (--seed-sd)"
        if assumed.seeds > 1
        else "one training seed per condition, whose variation is left out (--seeds 5)"
    )
    notes = [
        f"Assumed: {varies}; {assumed.discordant:.0%} of items right under one of two conditions only "
        f"(--discordant); items of one patient correlated by {assumed.icc:g} (--icc); tests at {assumed.alpha:g} "
        f"(--alpha) with power {assumed.power:g} (--power). --seed-sd and --discordant can be taken from a pilot run.",
        "Least accuracy: told from chance by an exact binomial test. Least gap: of two conditions on the same items. "
        "Items for .05 and .10: to find such a gap.",
    ]
    if any(row.answers == "mask" for row in rows):
        notes.append("Cells answered by masks: the variance of a mask metric is not known before a run.")
    if any(row.items_for is not None and None in row.items_for.values() for row in rows):
        notes.append(
            "Never: no number of items finds it; training runs vary too much (more --seeds), or too few items differ."
        )
    if any(row.small for row in rows):
        notes.append("Grey: too few patients to rank.")
    out.print()
    for note in notes:
        out.print(note, style="dim", markup=False, soft_wrap=True)

"""`crossmed show`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from crossmed_cli.console import out, print_json, print_table
from crossmed_cli.options import catalog_options, json_option, option, pairs
from crossmed_cli.split_view import Asked, show_all, show_one, training_counts
from crossmed_core.benchmark import EITHER, Benchmark
from crossmed_core.built import BuiltBenchmark
from crossmed_core.catalog import Catalog
from crossmed_core.cell_table import read_cell_table, stand_in_keys
from crossmed_core.errors import CrossmedError, unknown
from crossmed_core.runlog import item_to_json
from crossmed_core.study import find_targets
from crossmed_core.types import LETTERS, MAT, PARTS
from crossmed_core.vocabulary import canonical_cell


@click.group("show")
def command() -> None:
    """Show one item, cell, model, dataset or split."""


def _dataset_options(function: Any) -> Any:
    function = option("--dataset-option", multiple=True, metavar="KEY=VALUE", help="Option of the dataset.")(function)
    function = option("--data", type=click.Path(path_type=Path), help="A benchmark that was built.")(function)
    return option("--dataset", default="phantom", show_default=True, help="Dataset.")(function)


def _benchmark(catalog: Catalog, dataset: str, data: Path | None, dataset_option: tuple[str, ...]) -> Benchmark:
    return catalog.benchmark(dataset, pairs("--dataset-option", dataset_option), data)


def _print_facts(facts: dict[str, Any]) -> None:
    print_table(["", ""], [[key, _text(value)] for key, value in facts.items()])


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    """Bring nested facts to one level, the inner names alone, leaving out what is not set."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat.update(_flat(value) if isinstance(value, dict) else {name: value})
    return {name: value for name, value in flat.items() if value is not None}


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return "\n".join(f"{key} = {inner}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


@command.command("item")
@click.argument("item_id", metavar="ITEM")
@option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the image, with the true region outlined, to this PNG.",
)
@option("--choice", is_flag=True, help="As it is asked of a model that only chooses: among lettered regions.")
@_dataset_options
@json_option
@catalog_options
def show_item(
    item_id: str,
    catalog: Catalog,
    choice: bool,
    dataset: str,
    data: Path | None,
    dataset_option: tuple[str, ...],
    picture: Path | None,
    as_json: bool,
) -> int:
    """Show the question, options, answer and image of one item, e.g. phantom0-t2-brain-finding-test-00000."""
    benchmark = _benchmark(catalog, dataset, data, dataset_option)
    item = benchmark.items([item_id], ("option",) if choice else EITHER)[0]
    if choice and item.kind != "option":
        raise CrossmedError(f"Item {item_id!r} cannot be asked as a choice: it carries no candidate regions.")
    benchmark.materialise([item_id])
    if picture is not None:
        from crossmed_cli.pictures import save_item

        save_item(item, picture)
    provenance = benchmark.row(item_id)["provenance"] if isinstance(benchmark, BuiltBenchmark) else None
    if as_json:
        print_json({**item_to_json(item), **({"provenance": provenance} if provenance else {})})
        return 0
    facts = {
        "item": item.id,
        "dataset": item.dataset,
        "cell": str(item.mat),
        "part": item.part,
        "patient": item.patient,
        "image": item.image.path,
    }
    _print_facts({**facts, **_flat(provenance or {})})
    out.print()
    out.print(item.question, style="bold", markup=False)
    for index, text in enumerate(item.options):
        out.print(f"{LETTERS[index]}. {text}" + ("   ← answer" if index == item.answer else ""), markup=False)
    if item.kind == "mask" and item.mask is not None:
        where = item.mask.path or "the item's own run lengths (--json; --picture draws it)"
        out.print(f"Answer: the region in {where}", markup=False, soft_wrap=True)
    if picture is not None:
        out.print(f"Written: {picture}")
    return 0


@command.command("cell")
@click.argument("cell", default="all")
@_dataset_options
@json_option
@catalog_options
def show_cell(
    cell: str,
    catalog: Catalog,
    dataset: str,
    data: Path | None,
    dataset_option: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show what CELL asks and how many items it holds; 'all' (default) or a wildcard lists cells."""
    benchmark = _benchmark(catalog, dataset, data, dataset_option)
    cells = find_targets([cell], benchmark, ("option", "mask"))
    card = benchmark.card()["cells"] if len(cells) == 1 or as_json else {}
    counts = dict.fromkeys(((str(c), part) for c in cells for part in PARTS), 0)
    for key in benchmark.keys.values():
        if (str(key.mat), key.part) in counts:
            counts[str(key.mat), key.part] += 1
    rows = [
        {
            "cell": str(one),
            "answers": benchmark.questions[one].kind,
            **{part: counts[str(one), part] for part in PARTS},
            "labels": list(benchmark.questions[one].labels),
        }
        for one in cells
    ]
    if as_json:
        detail = [
            {**row, "templates": list(benchmark.questions[one].templates), **card[str(one)]}
            for row, one in zip(rows, cells, strict=True)
        ]
        print_json(detail)
        return 0
    print_table(
        list(rows[0]),
        [[", ".join(v) if isinstance(v, list) else v for v in row.values()] for row in rows],
        right=PARTS,
    )
    if len(cells) == 1:
        out.print()
        out.print("Questions (one is drawn per item):", style="bold")
        for template in benchmark.questions[cells[0]].templates:
            out.print(f"  {template}", markup=False)
        facts = card[str(cells[0])]
        letters = facts.get("test_answer_letters") or facts["parts"].get("test", {}).get("letters")
        if letters:
            out.print(f"Answer letters of the test part: {', '.join(f'{k} {v}' for k, v in letters.items())}")
    return 0


@command.command("model")
@click.argument("name")
@json_option
@catalog_options
def show_model(name: str, catalog: Catalog, as_json: bool) -> int:
    """Show what a model name stands for: family, weights, licence, options and training settings."""
    resolved = catalog.model(name)
    missing = resolved.record.missing()
    facts: dict[str, Any] = {
        "name": name,
        "summary": (resolved.entry and resolved.entry.summary) or resolved.record.summary,
        "family": resolved.spec.family,
        "plugin": resolved.claim.plugin.key,
        "answers": sorted(resolved.record.answers),
        "trains": resolved.record.trains,
        "hub": resolved.spec.hub or None,
        "revision": resolved.spec.revision or None,
        "licence": resolved.spec.licence or None,
        "gated": bool(resolved.entry and resolved.entry.gated),
        "status": f"needs {', '.join(missing)}: {resolved.record.install_hint()}" if missing else "ready",
        "options": dict(resolved.spec.options),
        "options it knows (--set)": dict(resolved.record.options),
        "training (--set)": asdict(resolved.settings) if resolved.record.trains else {},
    }
    if as_json:
        print_json(facts)
    else:
        _print_facts(facts)
    return 0


@command.command("dataset")
@click.argument("name", default="phantom")
@option("--data", type=click.Path(path_type=Path), help="A benchmark that was built.")
@option("--dataset-option", multiple=True, metavar="KEY=VALUE", help="Option of the dataset.")
@option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a contact sheet, one row per anatomy and task, to this PNG.",
)
@json_option
@catalog_options
def show_dataset(
    name: str,
    catalog: Catalog,
    data: Path | None,
    dataset_option: tuple[str, ...],
    sheet: Path | None,
    as_json: bool,
) -> int:
    """Show a dataset, or with --data a built benchmark: licence, options, cells; --sheet draws a contact sheet."""
    if data is not None:
        return _show_built(catalog, data, dataset_option, sheet, as_json=as_json)
    record = catalog.dataset_record(name)
    entry = catalog.registry.datasets.get(name)
    facts: dict[str, Any] = {
        "name": name,
        "summary": record.summary,
        "licence": (entry and entry.licence) or record.licence,
        "access": (entry and entry.access) or record.access,
        "url": (entry and entry.url) or record.url or None,
        "synthetic": record.synthetic,
        "default targets": list(record.default_targets),
    }
    if record.generated:
        facts |= _contents(_benchmark(catalog, name, None, dataset_option), sheet)
    elif sheet is not None:
        raise CrossmedError(
            f"A contact sheet of {name!r} needs its images.", hint="Build a benchmark of them, and name it with --data."
        )
    if as_json:
        print_json(facts)
    else:
        _print_facts(facts)
    return 0


def _contents(benchmark: Benchmark, sheet: Path | None) -> dict[str, Any]:
    """Describe what a benchmark holds, and write its contact sheet if one is asked for."""
    facts: dict[str, Any] = {
        "options (--dataset-option)": benchmark.options,
        "cells": len(benchmark.questions),
        "items": {part: sum(key.part == part for key in benchmark.keys.values()) for part in PARTS},
        "digest": benchmark.digest,
    }
    if sheet is not None:
        from crossmed_cli.pictures import save_sheet

        save_sheet(benchmark, sheet)
        facts["sheet"] = str(sheet)
    return facts


def _show_built(
    catalog: Catalog, data: Path, dataset_option: tuple[str, ...], sheet: Path | None, *, as_json: bool
) -> int:
    benchmark = _benchmark(catalog, "", data, dataset_option)
    card = benchmark.card()
    facts: dict[str, Any] = {"benchmark": benchmark.name, "about": card.get("about")}
    for name, source in card["sources"].items():
        facts[name] = f"{source['items']} items of {source['patients']} patients; {source['licence']}"
    facts |= _contents(benchmark, sheet)
    if as_json:
        print_json(facts)
    else:
        _print_facts(facts)
    return 0


@command.command("split")
@click.argument("name", required=False)
@option("--target", "-t", required=True, help="Target cell.")
@option("--all", "every", is_flag=True, help="Every split that takes no argument, a line each.")
@option("--split-option", multiple=True, metavar="KEY=VALUE", help="Option of the split, e.g. containment=false.")
@option(
    "--cells",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Cells from a CSV (modality, anatomy or area, task, perhaps n) instead of a benchmark.",
)
@option("--seed", type=int, default=0, show_default=True, help="Seed of the draw.")
@option("--model", "-m", default="chance", show_default=True, help="Leave out cells that this model cannot answer.")
@_dataset_options
@json_option
@catalog_options
def show_split(
    name: str | None,
    catalog: Catalog,
    target: str,
    every: bool,
    split_option: tuple[str, ...],
    cells: Path | None,
    seed: int,
    model: str,
    dataset: str,
    data: Path | None,
    dataset_option: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show which cells a split trains on for a target, what each shares with it, and what to know of it.

    NAME may carry an argument: direction:CELL+CELL, held-out:CELL, sharing:modality+task.
    """
    if (name is None) != every:
        raise CrossmedError("Name one split, or ask for --all.", hint="See 'crossmed ls splits'.")
    options = pairs("--split-option", split_option)
    if cells is not None:
        counts = read_cell_table(cells)
        asked = Asked(stand_in_keys(counts), _cell_of_table(target, counts), seed, options, counts, table=True)
    else:
        benchmark = _benchmark(catalog, dataset, data, dataset_option)
        found = find_targets([target], benchmark, ("option", "mask"))
        if len(found) != 1:
            raise CrossmedError(f"--target {target!r} stands for {len(found)} cells; name one.")
        # The default, chance, answers everything: then no cell is left out for the sake of a model.
        keys = benchmark.keys_for(catalog.model(model).record.answers)
        asked = Asked(keys, found[0], seed, options, training_counts(keys))
    if name is None:
        show_all(catalog, asked, as_json=as_json)
    else:
        show_one(catalog, name, asked, as_json=as_json)
    return 0


def _cell_of_table(target: str, cells: Iterable[MAT]) -> MAT:
    """Return the target among the cells of a table.

    Raises:
        CrossmedError: If it is none of them.
    """
    try:
        cell = canonical_cell(target)
    except ValueError as error:
        raise CrossmedError(f"Target {error}.") from error
    known = [str(one) for one in cells]
    if str(cell) not in known:
        raise unknown("cell of this table", str(cell), known)
    return cell

"""`crossmed ls`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import crossmed_core
from crossmed_cli.console import print_json, print_table
from crossmed_cli.options import catalog_options, json_option
from crossmed_core.catalog import Catalog
from crossmed_core.recipe import read_recipe

KINDS = ("datasets", "models", "splits", "metrics", "recipes")


@click.command("ls")
@click.argument("kind", type=click.Choice(KINDS))
@json_option
@catalog_options
def command(kind: str, catalog: Catalog, as_json: bool) -> int:
    """List what can be used by name: datasets, models, splits, metrics or recipes."""
    rows = _LISTS[kind](catalog)
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo(f"No {kind}.")
    else:
        columns = [column for column in rows[0] if column != "ready"]
        print_table(columns, ([_cell(row[column]) for column in columns] for row in rows), right=["params (M)"])
    return 0


def _cell(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else ("" if value is None else value)


def _datasets(catalog: Catalog) -> list[dict[str, Any]]:
    rows = []
    for name, claim in catalog.plugins.records("dataset").items():
        entry = catalog.registry.datasets.get(name)
        rows.append(
            {
                "name": name,
                "summary": claim.record.summary,
                "licence": (entry and entry.licence) or claim.record.licence or None,
                "access": (entry and entry.access) or claim.record.access or None,
                "plugin": claim.plugin.distribution,
            }
        )
    return rows


def _models(catalog: Catalog) -> list[dict[str, Any]]:
    claims = catalog.plugins.records("model")
    rows = []
    for name, claim in claims.items():
        record = claim.record
        rows.append(_model(f"{name}:..." if record.needs_spec else name, record, claim.plugin, record.summary))
    for alias, entry in catalog.registry.models.items():
        if entry.family in claims:
            claim = claims[entry.family]
            row = _model(alias, claim.record, claim.plugin, entry.summary)
            rows.append({**row, "params (M)": entry.parameters_m, "licence": entry.licence or None})
    return sorted(rows, key=lambda row: str(row["name"]))


def _model(name: str, record: Any, plugin: Any, summary: str) -> dict[str, Any]:
    missing = record.missing()
    return {
        "name": name,
        "answers": sorted(record.answers),
        "params (M)": None,
        "licence": None,
        "plugin": plugin.name if plugin.builtin else plugin.distribution,
        "summary": summary + (f" (needs {record.install_hint()})" if missing else ""),
        "ready": not missing,
    }


def _splits(catalog: Catalog) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "summary": c.record.summary,
            "source": c.record.source,
            "plugin": c.plugin.distribution,
        }
        for name, c in catalog.plugins.records("split").items()
    ]


def _metrics(catalog: Catalog) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "scores": c.record.answers,
            "primary": "yes" if c.record.primary else "",
            "summary": c.record.summary,
            "plugin": c.plugin.distribution,
        }
        for name, c in catalog.plugins.records("metric").items()
    ]


def _recipes(catalog: Catalog) -> list[dict[str, Any]]:
    from crossmed_core.build_recipe import build_recipes, read_build_recipe  # numpy: other lists do not wait for it

    folder = Path(crossmed_core.__file__).parent / "recipes"
    rows = [("crossmed run", path, read_recipe(path).about) for path in sorted(folder.glob("*.toml"))]
    rows += [("crossmed build", path, read_build_recipe(str(path)).about) for path in build_recipes().values()]
    return [{"name": path.stem, "for": command, "about": about} for command, path, about in rows]


_LISTS: dict[str, Callable[[Catalog], list[dict[str, Any]]]] = {
    "datasets": _datasets,
    "models": _models,
    "splits": _splits,
    "metrics": _metrics,
    "recipes": _recipes,
}

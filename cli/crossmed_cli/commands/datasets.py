"""`crossmed datasets`."""

from __future__ import annotations

from typing import Any

import click

from crossmed_cli.console import out, print_json, print_table
from crossmed_cli.options import catalog_options, json_option
from crossmed_core.catalog import Catalog
from crossmed_core.errors import unknown


@click.command("datasets")
@click.argument("name", required=False)
@json_option
@catalog_options
def command(name: str | None, catalog: Catalog, as_json: bool) -> int:
    """Show each dataset's licence, how to get it, and the files that are expected; NAME shows one in full."""
    claims = catalog.plugins.records("dataset")
    if name is not None and name not in claims:
        raise unknown("dataset", name, claims)
    rows = [_facts(catalog, one) for one in claims if name in (None, one)]
    if as_json:
        print_json(rows if name is None else rows[0])
    elif name is None:
        columns = ("name", "summary", "licence", "access")
        print_table(columns, [[row[column] for column in columns] for row in rows])
        out.print()
        out.print("'crossmed datasets NAME' shows where to get one, the expected tree and what to cite.", style="dim")
    else:
        row = rows[0]
        print_table(["", ""], [[key, value] for key, value in row.items() if key != "tree" and value])
        if row["tree"]:
            out.print()
            out.print("Expected files:", style="bold")
            out.print(row["tree"], markup=False)
        out.print()
        ready = "crossmed run" if row["generated"] else f"crossmed build --dataset {name} --data DIR --out BENCH"
        out.print(f"Next: {ready}", style="dim")
    return 0


def _facts(catalog: Catalog, name: str) -> dict[str, Any]:
    claim = catalog.plugins.records("dataset")[name]
    record, entry = claim.record, catalog.registry.datasets.get(name)
    return {
        "name": name,
        "summary": record.summary,
        "licence": (entry and entry.licence) or record.licence,
        "access": (entry and entry.access) or record.access,
        "url": (entry and entry.url) or record.url,
        "citation": record.citation,
        "needs": record.install_hint() if record.missing() else "",
        "plugin": claim.plugin.distribution,
        "generated": record.generated,
        "tree": record.tree,
    }

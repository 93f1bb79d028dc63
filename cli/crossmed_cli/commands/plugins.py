"""`crossmed plugins`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.text import Text

from crossmed_cli.console import out, print_json, print_table
from crossmed_cli.options import catalog_options, json_option
from crossmed_core.catalog import Catalog
from crossmed_core.errors import ExitCode, unknown
from crossmed_core.plugins import PluginInfo, Status

_STYLES = {
    Status.OK: "green",
    Status.BROKEN: "red",
    Status.INCOMPATIBLE: "red",
    Status.MISSING_EXTRA: "yellow",
}


@click.group("plugins")
def command() -> None:
    """List, show and check plugins.

    Statuses: found (not imported yet), ok, disabled, missing-extra, incompatible, broken.
    """


@command.command("list")
@json_option
@catalog_options
def list_plugins(catalog: Catalog, as_json: bool) -> int:
    """List all plugins without importing any; the status is that of the last time each was loaded."""
    _print(catalog.plugins.remembered(), as_json=as_json)
    return ExitCode.OK


@command.command("doctor")
@json_option
@catalog_options
def doctor(catalog: Catalog, as_json: bool) -> int:
    """Import every plugin and say what is wrong with it. Exit code 3 if one is broken or incompatible."""
    catalog.plugins.load()
    rows = catalog.plugins.plugins
    _print(rows, as_json=as_json)
    bad = [info for info in rows if info.status in (Status.BROKEN, Status.INCOMPATIBLE)]
    if not as_json:
        out.print()
        for info in bad:
            out.print(f"{info.name}: {_advice(info)}", soft_wrap=True, markup=False)
        out.print(f"{len(rows)} plugins, {len(bad)} of them broken or incompatible.")
    return ExitCode.ENVIRONMENT if bad else ExitCode.OK


def _advice(info: PluginInfo) -> str:
    off = f"or switch it off with --no-plugin {info.name} or CROSSMED_DISABLE={info.name}"
    if info.status is Status.INCOMPATIBLE:
        return f"upgrade crossmed, {off}"
    if info.distribution == "local file":
        return f"fix {info.module}"
    return f"upgrade or uninstall the distribution {info.distribution}, {off}"


@command.command("show")
@click.argument("name")
@json_option
@catalog_options
def show(name: str, catalog: Catalog, as_json: bool) -> int:
    """Load plugin NAME (or distribution:NAME) and show all that is known of it."""
    catalog.plugins.load()
    rows = [info for info in catalog.plugins.plugins if name in (info.name, info.key)]
    if not rows:
        raise unknown("plugin", name, [info.name for info in catalog.plugins.plugins], see="crossmed plugins list")
    if as_json:
        print_json([_facts(info) for info in rows])
        return ExitCode.OK
    for info in rows:
        print_table(["", ""], [[key, _text(value)] for key, value in _facts(info).items()])
    return ExitCode.OK


def _print(rows: list[PluginInfo], *, as_json: bool) -> None:
    if as_json:
        print_json([_facts(info) for info in rows])
        return
    print_table(
        ["plugin", "distribution", "version", "status", "provides", "reason"],
        [
            [info.name, info.distribution, info.version, _status(info), ", ".join(info.records), info.reason]
            for info in rows
        ],
    )


def _status(info: PluginInfo) -> Text:
    return Text(
        info.status + (" (last load)" if info.remembered and info.status is not Status.OK else ""),
        style=_STYLES.get(info.status, ""),
    )


def _facts(info: PluginInfo) -> dict[str, Any]:
    return {**asdict(info), "status": str(info.status), "key": info.key}


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else ("" if value is None else str(value))

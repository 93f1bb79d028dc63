"""`crossmed plugins`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from crossmed_cli.options import json_option, plugin_options
from crossmed_cli.plain import print_columns
from crossmed_core.errors import ExitCode, unknown
from crossmed_core.plugin_info import LOCAL, PluginInfo, Status
from crossmed_core.plugins import PluginManager

_COLOURS = {Status.OK: "green", Status.BROKEN: "red", Status.INCOMPATIBLE: "red", Status.MISSING_EXTRA: "yellow"}


@click.group("plugins")
def command() -> None:
    """List, show and check plugins.

    Statuses: found (not imported yet), ok, disabled, missing-extra, incompatible, broken.
    """


@command.command("list")
@json_option
@plugin_options
def list_plugins(plugins: PluginManager, as_json: bool) -> int:
    """List all plugins without importing any; the status is that of the last time each was loaded."""
    _print(plugins.remembered(), as_json=as_json)
    return ExitCode.OK


@command.command("doctor")
@json_option
@plugin_options
def doctor(plugins: PluginManager, as_json: bool) -> int:
    """Import every plugin and say what is wrong with it. Exit code 3 if one is broken or incompatible."""
    plugins.load()
    rows = plugins.plugins
    _print(rows, as_json=as_json)
    bad = [info for info in rows if info.status in (Status.BROKEN, Status.INCOMPATIBLE)]
    if not as_json:
        click.echo()
        for info in bad:
            click.echo(f"{info.name}: {_advice(info)}")
        click.echo(f"{len(rows)} plugins, {len(bad)} of them broken or incompatible.")
    return ExitCode.ENVIRONMENT if bad else ExitCode.OK


def _advice(info: PluginInfo) -> str:
    off = f"or switch it off with --no-plugin {info.name} or CROSSMED_DISABLE={info.name}"
    if info.status is Status.INCOMPATIBLE:
        return f"upgrade crossmed, {off}"
    if info.distribution == LOCAL:
        return f"fix {info.module}"
    return f"upgrade or uninstall the distribution {info.distribution}, {off}"


@command.command("show")
@click.argument("name")
@json_option
@plugin_options
def show(name: str, plugins: PluginManager, as_json: bool) -> int:
    """Load plugin NAME (or distribution:NAME) and show all that is known of it."""
    plugins.load()
    rows = [info for info in plugins.plugins if name in (info.name, info.key)]
    if not rows:
        raise unknown("plugin", name, [info.name for info in plugins.plugins], see="crossmed plugins list")
    if as_json:
        _print_json(rows)
        return ExitCode.OK
    for info in rows:
        for key, value in _facts(info).items():
            click.echo(f"{key:15} {_text(value)}")
    return ExitCode.OK


def _print(rows: list[PluginInfo], *, as_json: bool) -> None:
    if as_json:
        _print_json(rows)
        return
    print_columns(
        ["plugin", "distribution", "version", "status", "provides", "reason"],
        [
            [info.name, info.distribution, info.version, _status(info), ", ".join(info.records), info.reason]
            for info in rows
        ],
        folding=["provides", "reason"],
        colours={_status(info): _COLOURS.get(info.status, "") for info in rows if info.status in _COLOURS},
    )


def _status(info: PluginInfo) -> str:
    return info.status + (" (last load)" if info.remembered and info.status is not Status.OK else "")


def _print_json(rows: list[PluginInfo]) -> None:
    click.echo(json.dumps([_facts(info) for info in rows], indent=1, ensure_ascii=False))


def _facts(info: PluginInfo) -> dict[str, Any]:
    return {**asdict(info), "status": str(info.status), "key": info.key}


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else ("" if value is None else str(value))

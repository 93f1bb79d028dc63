"""Options shared by commands, and how they are read. Every flag is also an environment variable CROSSMED_*."""

from __future__ import annotations

import functools
import math
import os
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from crossmed_core.errors import CrossmedError, unknown
from crossmed_core.plugins import PluginConfig, PluginManager
from crossmed_core.registry import load_registry

Function = TypeVar("Function", bound=Callable[..., Any])

# The registry loader reads this variable itself, so that it also works where there is no flag.
_READ_ELSEWHERE = {"--registry"}


def option(flag: str, *names: str, **settings: Any) -> Callable[[Function], Function]:
    """Make a click option that CROSSMED_FLAG_NAME sets too."""
    if flag not in _READ_ELSEWHERE:
        settings.setdefault("envvar", "CROSSMED_" + flag.lstrip("-").partition("/")[0].replace("-", "_").upper())
    return click.option(flag, *names, **settings)


class FiniteRange(click.FloatRange):
    """A range of numbers that NaN and infinity are not in; click's own lets them pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a number.

        Raises:
            click.BadParameter: If it is none, not finite, or out of range.
        """
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def plugin_options(function: Function) -> Function:
    """Add --registry, --plugin and --no-plugin, and hand the command a `plugins` manager."""

    @option(
        "--registry",
        multiple=True,
        type=click.Path(path_type=Path),
        help="A registry over the shipped one. [env var: CROSSMED_REGISTRY]",
    )
    @option("--plugin", multiple=True, type=click.Path(path_type=Path), help="Load a plugin from a Python file.")
    @option("--no-plugin", multiple=True, metavar="NAME", help="Do not import this plugin.")
    @functools.wraps(function)
    def wrapped(registry: Sequence[Path], plugin: Sequence[Path], no_plugin: Sequence[str], **arguments: Any) -> Any:
        config = PluginConfig.from_environment(files=plugin, disabled=no_plugin)
        layers = load_registry(registry)
        return function(plugins=PluginManager(config, layers), **arguments)

    return wrapped  # type: ignore[return-value]


def catalog_options(function: Function) -> Function:
    """Add the options of `plugin_options`, and hand the command a `catalog`."""

    @plugin_options
    @functools.wraps(function)
    def wrapped(plugins: PluginManager, **arguments: Any) -> Any:
        from crossmed_core.catalog import Catalog  # 'plugins list' does not wait for it

        return function(catalog=Catalog(plugins), **arguments)

    return wrapped  # type: ignore[return-value]


def json_option(function: Function) -> Function:
    """Add --json."""
    return option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else there.")(function)


def cores() -> int:
    """Return the CPU cores this process may use; a Slurm job often has few of many."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def many(values: Sequence[str]) -> tuple[str, ...]:
    """Split comma-separated values of a repeatable option, keeping the order, dropping repeats."""
    parts = [part.strip() for value in values for part in value.split(",")]
    return tuple(dict.fromkeys(part for part in parts if part))


def pairs(flag: str, values: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE options; values are TOML (true, 3, 1e-3, [1, 2], {a = 1}), anything else is text.

    Raises:
        CrossmedError: For a value without "=".
    """
    found: dict[str, Any] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise CrossmedError(f"{flag} {text!r}: write KEY=VALUE.")
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value
    return found


def compared(values: Sequence[str], splits: Sequence[str]) -> list[tuple[str, str]]:
    """Read FIRST:SECOND pairs of --compare.

    Args:
        values: As typed.
        splits: The splits there are; one with an argument may be named without it.

    Raises:
        CrossmedError: For another form, or a split that is not there.
    """
    found = []
    splits = [*splits, *(split.partition(":")[0] for split in splits)]
    for text in many(values):
        if ":" not in text:
            raise CrossmedError(f"--compare {text!r}: write FIRST:SECOND, e.g. related:zero-overlap.")
        # A split with an argument holds a colon itself: the one between two known splits is meant, else the first.
        places = [place for place, sign in enumerate(text) if sign == ":"]
        between = [place for place in places if text[:place] in splits and text[place + 1 :] in splits]
        place = (between or places)[0]
        first, second = text[:place], text[place + 1 :]
        for name in (first, second):
            if name not in splits:
                raise unknown("split to compare", name, splits)
        found.append((first, second))
    return found

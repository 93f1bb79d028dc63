"""`crossmed verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from crossmed_cli.console import err, out, print_json, print_table
from crossmed_cli.options import catalog_options, json_option, many, option
from crossmed_core.build_sources import refuse_unfinished
from crossmed_core.built import BuiltBenchmark, is_built
from crossmed_core.catalog import Catalog
from crossmed_core.contracts import Check, KnowsItsDownload
from crossmed_core.errors import CrossmedError, DownloadNotFoundError, ExitCode

_STYLES = {"ok": "green", "differs": "red", "hint": "yellow"}
_COLUMNS = ("what", "found", "expected", "verdict")


@click.command("verify")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@option("--dataset", multiple=True, help="Only these datasets. [default: all that are there]")
@json_option
@catalog_options
def command(folder: Path, dataset: tuple[str, ...], catalog: Catalog, as_json: bool) -> int:
    """Hold a raw download, or a built benchmark, against what is known of it.

    Counts and layouts are published facts; a checksum is a hint, as copies get re-saved. Exit code 1 if something
    differs. Of a built benchmark every image is opened and compared with its recorded digest.
    """
    if not folder.is_dir():
        raise CrossmedError(f"{folder} is not a folder.", exit_code=ExitCode.ENVIRONMENT)
    refuse_unfinished(folder)
    if is_built(folder):
        benchmark = BuiltBenchmark(folder.resolve(), {})
        found: dict[str, Sequence[Check]] = {benchmark.name: list(benchmark.verify())}
    else:
        with err.status("Looking ..."):
            found = _of_downloads(folder.resolve(), many(dataset), catalog)
    if as_json:
        print_json({name: [check._asdict() for check in checks] for name, checks in found.items()})
    else:
        for name, checks in found.items():
            out.print(name, style="bold cyan", markup=False)
            print_table(_COLUMNS, [_row(check) for check in checks])
            out.print()
        if any(check.verdict == "hint" for checks in found.values() for check in checks):
            out.print(
                "hint: differs from a copy that may be re-saved, or from a fact that nobody has verified.", style="dim"
            )
    differs = any(check.verdict == "differs" for checks in found.values() for check in checks)
    return ExitCode.TRIALS_FAILED if differs else ExitCode.OK


def _of_downloads(root: Path, names: Sequence[str], catalog: Catalog) -> dict[str, Sequence[Check]]:
    found: dict[str, Sequence[Check]] = {}
    reasons = []
    for name in names or [name for name, one in catalog.plugins.records("dataset").items() if not one.record.generated]:
        try:
            reader, _ = catalog.dataset(name, {})
            if not isinstance(reader, KnowsItsDownload):
                raise DownloadNotFoundError(f"Nothing is known of the download of {name!r}.")
            found[name] = list(reader.verify(root))
        except DownloadNotFoundError as error:
            if names:
                raise
            reasons.append(f"  {name}: {error}")
        except CrossmedError as error:  # it is there, and cannot be read
            if names:
                raise
            found[name] = [Check("readable", str(error), "yes", "differs")]
    if not found:
        raise CrossmedError(
            f"{root} holds no download that is known:\n" + "\n".join(reasons), exit_code=ExitCode.ENVIRONMENT
        )
    return found


def _row(check: Check) -> list[Any]:
    return [check.what, check.found, check.expected, Text(check.verdict, style=_STYLES.get(check.verdict, ""))]

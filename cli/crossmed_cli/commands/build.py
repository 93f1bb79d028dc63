"""`crossmed build`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from crossmed_cli.console import err, print_json
from crossmed_cli.options import catalog_options, cores, json_option, many, option, pairs
from crossmed_core.catalog import Catalog
from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.recipe import DEFAULT_BUILD


@click.command("build")
@option(
    "--data",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Where raw downloads lie, or a folder above them. Repeatable. Never written to.",
)
@option("--dataset", multiple=True, help="Only these datasets. [default: all that the recipe names and that are there]")
@option("--recipe", default=DEFAULT_BUILD, show_default=True, help="A shipped build recipe or a TOML file.")
@option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the benchmark, new or empty.",
)
@option(
    "--dataset-option",
    multiple=True,
    metavar="DATASET.KEY=VALUE",
    help="Option of a dataset over the recipe's, e.g. chexpert.uncertain=ones.",
)
@option(
    "--images",
    type=click.Choice(["copy", "reference"]),
    default="copy",
    show_default=True,
    help="Copy displayable files, or leave them where they lie. Others become PNG in any case.",
)
@option("--jobs", type=click.IntRange(min=1), help="Processes. The bytes do not depend on it. [default: CPU cores]")
@json_option
@catalog_options
def command(
    catalog: Catalog,
    data: tuple[Path, ...],
    dataset: tuple[str, ...],
    recipe: str,
    out: Path,
    dataset_option: tuple[str, ...],
    images: str,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Build a benchmark of four-option questions from raw downloads.

    Reads CheXpert, SIIM-ACR, BraTS 2020, MosMedData and Med-MAT in the forms in which they are distributed, and the
    datasets of plugins. Broken files are listed in card.json and replaced; the rest is built. The same command goes on
    with a build that was stopped.

    \b
    crossmed build --data ~/downloads --out bench
    crossmed build --data ~/downloads --recipe mini --dataset chexpert --out small
    crossmed run --model resnet18 --split zero-overlap --data bench
    """  # noqa: D301  (\b is click's mark for lines that it must not wrap)
    # Behind --help: numpy, Pillow and all that a build needs.
    from crossmed_cli.build_view import BuildView, card_json, print_card, warn_of_problems
    from crossmed_core.build import build
    from crossmed_core.build_recipe import read_build_recipe
    from crossmed_core.build_sources import BuildRequest

    request = BuildRequest(
        roots=data,
        out=Path(os.path.abspath(out)),  # noqa: PTH100  (resolve raises on a link to itself)
        recipe=read_build_recipe(recipe),
        datasets=many(dataset),
        options=dataset_options(dataset_option),
        images="copy" if images == "copy" else "reference",
        jobs=jobs or cores(),
    )
    # What a plugin prints must not spoil the results on stdout.
    with BuildView(err) as view, contextlib.redirect_stdout(sys.stderr):
        result = build(request, catalog, view)
    warn_of_problems(err, result)
    if as_json:
        print_json(card_json(result))
    else:
        print_card(result)
    return ExitCode.TRIALS_FAILED if result.problems else ExitCode.OK


def dataset_options(values: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Read DATASET.KEY=VALUE options into a table per dataset.

    Raises:
        CrossmedError: For another form.
    """
    found: dict[str, dict[str, Any]] = {}
    given: Mapping[str, Any] = pairs("--dataset-option", values)
    for key, value in given.items():
        dataset, dot, name = key.partition(".")
        if not dot or not dataset or not name:
            raise CrossmedError(f"--dataset-option {key!r}: write DATASET.KEY=VALUE, e.g. chexpert.uncertain=ones.")
        found.setdefault(dataset, {})[name] = value
    return found

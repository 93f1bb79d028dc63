"""Raw downloads -> a benchmark folder: read, choose, render, ask, write. Streaming, resumable, the same for any jobs.

The order of reading decides nothing: samples are ranked by their ids (`selection`), files that turn out broken are
replaced by the next in rank, and every image, question and region is a function of its sample. What was rendered is
kept in BENCH/.work until the card is written, so a build that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossmed_core import __version__
from crossmed_core.build_card import write_benchmark
from crossmed_core.build_items import start
from crossmed_core.build_recipe import BuildRecipe
from crossmed_core.build_rounds import Rounds
from crossmed_core.build_sources import WORK, BuildRequest, Progress, Source, find_sources, read_source
from crossmed_core.built import CARD, SCHEMA_VERSION, is_built
from crossmed_core.catalog import Catalog
from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.paths import cache_folder
from crossmed_core.pool import Workers
from crossmed_core.runlog import locked, read_json, write_json, writing


@dataclass(frozen=True)
class BuildResult:
    """How a build ended.

    Attributes:
        folder: The benchmark.
        card: Content of card.json.
        reused: Whether it was there already.
        problems: Datasets that were there and could not be read, with the reasons.
    """

    folder: Path
    card: dict[str, Any]
    reused: bool
    problems: Mapping[str, str]


def build(request: BuildRequest, catalog: Catalog, progress: Progress) -> BuildResult:
    """Build a benchmark, go on with one that was stopped, or find that it is there.

    Args:
        request: What to build.
        catalog: Where names are looked up.
        progress: Receives what is going on.

    Raises:
        CrossmedError: If nothing can be read, the folder holds something else, or it cannot be written.
    """
    sources, problems = find_sources(request, catalog)
    options = {source.name: source.settings for source in sources}
    key = _key(request, sources)
    _refuse_place(request, sources)
    with locked(request.out):
        if is_built(request.out):
            card = read_json(request.out / CARD, ["build", "problems"])
            if card["build"] == key:
                return BuildResult(request.out, card, True, card["problems"])
            raise CrossmedError(
                f"{request.out} holds another benchmark, or one of other data.",
                hint="Choose another folder with --out, or delete this one.",
                exit_code=ExitCode.RUN_FOLDER,
            )
        work = _open_work(request.out, key)
        with Workers(request.jobs, start, catalog.plugins.config, catalog.registry, options) as workers:
            for source in list(sources):
                try:
                    read_source(source, workers, progress)
                except CrossmedError as error:
                    if error.exit_code is ExitCode.TRIALS_FAILED or len(sources) == 1:  # a dead worker; the last one
                        raise
                    problems[source.name] = str(error)
                    sources.remove(source)
            rounds = Rounds(request, sources, work, workers, progress)
            items, rows = rounds.run()
        card = write_benchmark(request, sources, items, rows, rounds.weights, key, problems)
        with writing(work):
            wanted = {item.image.path for item in items}
            for image in request.out.glob("images/*/*"):  # of items that gave way, of a process that was killed
                if image.relative_to(request.out).as_posix() not in wanted:
                    image.unlink()
            shutil.rmtree(work)
    return BuildResult(request.out, card, False, problems)


def build_in_cache(
    data: Path, recipe: BuildRecipe, datasets: tuple[str, ...], catalog: Catalog, progress: Progress, *, jobs: int
) -> BuildResult:
    """Build a benchmark of raw downloads into the cache, displayable images left where they lie, or find it there.

    Args:
        data: Where the downloads lie.
        recipe: What to take.
        datasets: Datasets asked for by name; empty = all that the recipe wants and that are found.
        catalog: Where names are looked up.
        progress: Receives what is going on.
        jobs: Processes.

    Raises:
        CrossmedError: As `build`.
    """
    request = BuildRequest((data,), Path(), recipe, datasets, images="reference", jobs=jobs)
    sources, _ = find_sources(request, catalog)
    folder = cache_folder() / "builds" / f"{recipe.name}-{_key(request, sources)[:12]}"
    return build(replace(request, out=folder.absolute()), catalog, progress)


def _key(request: BuildRequest, sources: Sequence[Source]) -> str:
    """Name a build by what it is made of, so that only the same request goes on with its folder."""
    facts = {
        "schema": SCHEMA_VERSION,
        "crossmed": __version__,
        "recipe": repr(request.recipe),  # in its own order: the first pattern of cells that fits counts
        "images": request.images,
        "sources": {
            one.name: {"root": str(one.root), "options": one.settings, "files": _fingerprint(one.root)}
            for one in sources
        },
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _fingerprint(root: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of the files that lie directly in a download: its label tables, above all.

    Not of every image: a download is taken to be whole, or its tables to change when it grows.
    """
    if not root.is_dir():  # of a generated dataset that was never drawn
        return []
    states = [(entry.name, entry.stat()) for entry in os.scandir(root) if entry.is_file()]
    return sorted((name, state.st_size, state.st_mtime_ns) for name, state in states)


def _refuse_place(request: BuildRequest, sources: Sequence[Source]) -> None:
    """Refuse to build into a download, or into a folder that holds something else, before anything is written.

    Raises:
        CrossmedError: Naming the folder.
    """
    out = request.out
    for source in sources:
        if not source.record.generated and (out == source.root or out.is_relative_to(source.root)):
            raise CrossmedError(
                f"--out {out} lies in the download of {source.name}, which is never written to.",
                hint="Choose another folder with --out.",
            )
    if not out.is_dir() or is_built(out) or (out / WORK).is_dir():
        return
    others = sorted(entry.name for entry in out.iterdir() if entry.name != ".lock")
    if others:
        raise CrossmedError(
            f"{out} is not empty and holds no benchmark ({others[0]}, ...).",
            hint="Choose another folder with --out.",
            exit_code=ExitCode.RUN_FOLDER,
        )


def _open_work(out: Path, key: str) -> Path:
    work = out / WORK
    path = work / "build.json"
    if path.exists():
        if read_json(path, ["build"])["build"] != key:
            raise CrossmedError(
                f"{out} holds another build that was not finished.",
                hint="Choose another folder with --out, or delete this one.",
                exit_code=ExitCode.RUN_FOLDER,
            )
        return work
    write_json(path, {"build": key})
    return work

"""The downloads that a build is made of: found, and read into a selection with a report of what was passed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from crossmed_core.build_items import read_unit
from crossmed_core.build_recipe import BuildRecipe, DatasetPlan
from crossmed_core.catalog import Catalog
from crossmed_core.contracts import Dataset, LocatesItself, ReadsInUnits
from crossmed_core.errors import CrossmedError, DownloadNotFoundError, ExitCode
from crossmed_core.paths import cache_folder
from crossmed_core.pool import Workers
from crossmed_core.reading import ReadingReport
from crossmed_core.records import DatasetRecord
from crossmed_core.selection import Selection
from crossmed_core.types import MAT, PARTS, Counted, ImageRef, Question, Reading, Sample, Skipped

WORK = ".work"
"""Folder in a benchmark that keeps what was rendered while it is built."""


class Progress(Protocol):
    """Receives what a build is doing."""

    def __call__(self, phase: str, what: str, done: int, total: int | None) -> None:
        """Report a phase ("reading", "images", "regions") of a dataset; `total` is None while it is not known."""


@dataclass(frozen=True)
class BuildRequest:
    """What is to be built.

    Attributes:
        roots: Where the downloads lie: the folders themselves, or folders above.
        out: The benchmark folder.
        recipe: What to take.
        datasets: Datasets asked for by name; empty = all that the recipe wants and that are found.
        options: Dataset -> options over the recipe's.
        images: "copy" makes a folder that stands alone; "reference" leaves displayable files where they are.
        jobs: Processes.
    """

    roots: tuple[Path, ...]
    out: Path
    recipe: BuildRecipe
    datasets: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    images: Literal["copy", "reference"] = "copy"
    jobs: int = 1


@dataclass
class Source:
    """A dataset that was found.

    Attributes:
        name: Its name.
        record: Its plugin's record.
        dataset: The reader.
        settings: All its options.
        root: Where it lies.
        layout: In which form.
        plan: What the recipe takes of it.
        report: What its reading met.
        selection: Its samples.
        questions: What it asks.
        unusable: Ids that turned out broken or cannot be asked, with the reasons.
    """

    name: str
    record: DatasetRecord
    dataset: Dataset
    settings: dict[str, Any]
    root: Path
    layout: str
    plan: DatasetPlan
    report: ReadingReport = field(default_factory=ReadingReport)
    selection: Selection = field(init=False)
    questions: Mapping[MAT, Question] = field(init=False)
    unusable: dict[str, str] = field(default_factory=dict)


def refuse_unfinished(folder: Path) -> None:
    """Refuse a build that was stopped where a finished one, or a download, is wanted.

    Raises:
        CrossmedError: Saying how to finish it.
    """
    if (folder / WORK / "build.json").exists():
        raise CrossmedError(
            f"{folder} holds a build that was not finished.",
            hint="Repeat the 'crossmed build' command that made it; it goes on.",
            exit_code=ExitCode.ENVIRONMENT,
        )


def find_sources(request: BuildRequest, catalog: Catalog) -> tuple[list[Source], dict[str, str]]:
    """Find the downloads that a build is made of.

    Returns:
        The sources in the order of their names, and the datasets that are there but cannot be read, with the reasons.

    Raises:
        CrossmedError: If no dataset is found, or one that was asked for by name.
    """
    for root in request.roots:
        if not root.is_dir():
            raise CrossmedError(f"--data {root} is not a folder.", exit_code=ExitCode.ENVIRONMENT)
        refuse_unfinished(root)
    claims = catalog.plugins.records("dataset")
    for name in (*request.datasets, *request.options):
        catalog.dataset_record(name)  # an unknown name is an error
    names = request.datasets or tuple(
        name for name, claim in claims.items() if not claim.record.generated and request.recipe.plan_for(name)
    )
    sources, absent, problems = [], {}, {}
    for name in sorted(names):
        record = catalog.dataset_record(name)
        plan = request.recipe.plan_for(name, named=name in request.datasets)
        if plan is None:
            continue
        try:
            options = {**plan.options, **request.options.get(name, {})}
            dataset, settings = catalog.dataset(name, options)
        except CrossmedError as error:
            if name in request.datasets or error.exit_code is ExitCode.USAGE:
                raise
            problems[name] = str(error)
            continue
        try:
            root, layout = _locate(dataset, record, request.roots)
            questions = dataset.questions()
        except DownloadNotFoundError as error:
            absent[name] = str(error)
            continue
        except CrossmedError as error:  # something is there, and refused: another year, a folder that cannot be read
            if name in request.datasets:
                raise
            problems[name] = str(error)
            continue
        except (Exception, SystemExit) as error:
            problems[name] = f"it failed: {type(error).__name__}: {error}. That is a fault of its plugin."
            continue
        source = Source(name, record, dataset, settings, root, layout, plan)
        source.questions = questions
        source.selection = Selection(plan.quota, seed=request.recipe.seed)
        sources.append(source)
    missing = [name for name in request.datasets if name in absent]
    if missing:
        raise CrossmedError(absent[missing[0]], exit_code=ExitCode.ENVIRONMENT)
    if not sources:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in {**problems, **absent}.items())
        raise CrossmedError(
            f"No dataset of build recipe {request.recipe.name!r} can be read from "
            f"{', '.join(map(str, request.roots))}:\n{reasons}",
            exit_code=ExitCode.ENVIRONMENT,
        )
    return sources, problems


def _locate(dataset: Dataset, record: DatasetRecord, roots: Sequence[Path]) -> tuple[Path, str]:
    if record.generated:
        return cache_folder() / "generated" / record.name, "generated"
    if not isinstance(dataset, LocatesItself):
        return roots[0].resolve(), "as given"
    errors: list[CrossmedError] = []
    for root in roots:
        try:
            layout = dataset.locate(root.resolve())
            return layout.root, layout.name
        except CrossmedError as error:
            errors.append(error)
    raise min(errors, key=lambda error: isinstance(error, DownloadNotFoundError))


def read_source(source: Source, workers: Workers, progress: Progress) -> None:
    """Read a whole download into the source's selection and report.

    Raises:
        CrossmedError: If the plugin fails, or a sample lies in a cell that asks nothing.
    """
    seen: set[str] = set()
    try:
        stream = source.report.samples(_readings(source, workers, progress))
        for number, sample in enumerate(source.selection.add(_unique(stream, seen, source.report)), start=1):
            if sample.mat not in source.questions:
                raise CrossmedError(
                    f"Dataset {source.name}: sample {sample.id!r} lies in {sample.mat}, which asks nothing."
                )
            if number % 1000 == 0:
                progress("reading", source.name, number, None)
    except CrossmedError:
        raise
    except (Exception, SystemExit) as error:
        raise CrossmedError(
            f"Reading {source.name} from {source.root} failed: {type(error).__name__}: {error}.",
            hint="That is a fault of its plugin.",
            exit_code=ExitCode.ENVIRONMENT,
        ) from error
    progress("reading", source.name, len(seen), len(seen))


def _readings(source: Source, workers: Workers, progress: Progress) -> Iterator[Reading]:
    if not isinstance(source.dataset, ReadsInUnits):
        yield from source.dataset.samples(source.root)
        return
    units = list(source.dataset.units(source.root))
    yield from (unit for unit in units if isinstance(unit, Skipped | Counted))
    tasks = [(source.name, unit) for unit in units if not isinstance(unit, Skipped | Counted)]
    for done, readings in enumerate(workers.map(read_unit, tasks), start=1):
        progress("reading", source.name, done, len(tasks))
        yield from readings


def _unique(samples: Iterator[Sample], seen: set[str], report: ReadingReport) -> Iterator[Sample]:
    """Pass sound samples on; report those that a plugin should not have yielded."""
    for sample in samples:
        fault = _fault(sample)
        if fault is None and sample.id in seen:
            fault = "a second sample with this id"
        if fault is not None:
            report.take(Skipped(str(sample.id), f"{fault}: a fault of its plugin"))
            continue
        seen.add(sample.id)
        yield sample


def _fault(sample: Sample) -> str | None:
    if not isinstance(sample.id, str) or not sample.id or not isinstance(sample.patient, str):
        return "its id or patient is no text"
    if not isinstance(sample.image, ImageRef):
        return "it has no image"
    if sample.part not in (None, *PARTS):
        return f"its part is {sample.part!r}"
    return None

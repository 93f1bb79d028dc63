"""The plan of a study: targets found, training sizes matched over conditions, problems named before anything runs."""

from __future__ import annotations

import fnmatch
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from crossmed_core.benchmark import Benchmark
from crossmed_core.catalog import Catalog, ResolvedModel
from crossmed_core.contracts import Forecast
from crossmed_core.errors import CrossmedError, suggest
from crossmed_core.recipe import Block, Study
from crossmed_core.runlog import read_json, trial_folder
from crossmed_core.runner import BASELINES, TrialSpec, make_split, untrainable
from crossmed_core.splits import coincidences
from crossmed_core.types import MAT, AnswerKind, Split
from crossmed_core.vocabulary import canonical_cell

START_SECONDS = 8.0
"""Importing torch, drawing or reading images: what a trial takes besides training, roughly."""


@dataclass(frozen=True)
class PlannedTrial:
    """A trial and what is known of it before it runs.

    Attributes:
        spec: The trial; `train_size` is already matched.
        cells: Training cells -> how many items they have ("available"), and lend to "train" and "val".
        available: Training items before matching.
        test: Test items.
        problem: Why it cannot be run, or "".
        state: "new", "started", "finished" or "failed", as found in the run folder.
        seconds: Rough seconds on one core, or None if unknown.
        remarks: What a reader must know of the comparison: conditions that train on the same cells ...
        forecast: What is known of the model before it is loaded.
    """

    spec: TrialSpec
    cells: Mapping[MAT, Mapping[str, int]]
    available: int
    test: int
    problem: str = ""
    state: str = "new"
    seconds: float | None = None
    remarks: tuple[str, ...] = ()
    forecast: Forecast | None = None


def plan(
    study: Study, catalog: Catalog, benchmark: Benchmark, folder: Path, *, device: str, threads: int
) -> list[PlannedTrial]:
    """Lay out all trials, with the training size matched over the conditions of each model and target.

    Args:
        study: What is asked.
        catalog: Where names are looked up.
        benchmark: The study's benchmark.
        folder: The run folder, looked at for what is already there.
        device: "cpu" or "cuda".
        threads: CPU threads per trial.

    Raises:
        CrossmedError: For an unknown model, split, target or option.
    """
    _check_split_options(study, catalog)
    planned: list[PlannedTrial] = []
    for block in study.blocks:
        for model in block.models:
            resolved = catalog.model(model, block.set)
            for target in find_targets(block.targets, benchmark, resolved.record.answers):
                for seed in block.seeds:
                    base = TrialSpec(
                        model, "", target, seed, study.dataset, dict(block.set), dict(study.dataset_options),
                        study.data, device=device, threads=threads, split_options=dict(study.split_options),
                        option_orders=study.option_orders, controls=study.controls, seen=study.seen,
                        near_duplicates=study.near_duplicates,
                        baselines=BASELINES if study.baselines else (),
                    )  # fmt: skip
                    plans = [_plan_one(replace(base, split=name), study, catalog, benchmark) for name in block.splits]
                    plans = [(_with_forecast(one, split, catalog, resolved), split) for one, split in plans]
                    for fraction in block.fractions:
                        planned += _matched(plans, block, fraction, resolved, benchmark, folder)
    ids = [trial.spec.id for trial in planned]
    if twice := {one for one in ids if ids.count(one) > 1}:
        raise CrossmedError(f"The study holds {sorted(twice)[0]!r} twice; blocks must not repeat a trial.")
    return planned


def _plan_one(
    spec: TrialSpec, study: Study, catalog: Catalog, benchmark: Benchmark
) -> tuple[PlannedTrial, Split | None]:
    resolved = catalog.model(spec.model, spec.options)
    try:
        split = make_split(benchmark, catalog, resolved, spec)
    except CrossmedError as error:
        return PlannedTrial(spec, {}, 0, 0, problem=str(error)), None
    test = len(split.test) if study.limit is None else min(study.limit, len(split.test))
    problem = ""
    if not split.test:
        problem = f"target {spec.target} has no test items"
    elif reason := untrainable(resolved, split):
        problem = reason
    elif not split.train and resolved.record.trains and split.trains:
        problem = f"nothing to train on: {split.note or 'its cells hold no training items'}"
    return PlannedTrial(replace(spec, test_size=study.limit), {}, len(split.train), test, problem), split


def _with_forecast(trial: PlannedTrial, split: Split | None, catalog: Catalog, resolved: ResolvedModel) -> PlannedTrial:
    """Add what is known of the model, and what stands against loading it."""
    trains = split is not None and split.trains and resolved.record.trains
    try:
        forecast = catalog.forecast(resolved, device=trial.spec.device, trains=trains)
    except CrossmedError as error:
        return replace(trial, problem=trial.problem or str(error))
    if forecast is None:
        return trial
    return replace(trial, forecast=forecast, problem=trial.problem or forecast.problem)


def _check_split_options(study: Study, catalog: Catalog) -> None:
    """Refuse an option that none of the study's splits knows; each split takes those that it knows.

    Raises:
        CrossmedError: Naming the option.
    """
    known = set[str]().union(*(catalog.split_options(split) for block in study.blocks for split in block.splits))
    for name in study.split_options:
        if name not in known:
            raise CrossmedError(f"None of these splits has an option {name!r}.", hint=suggest(name, known))
    for split in {split for block in study.blocks for split in block.splits}:
        mine = catalog.split_options(split)
        catalog.splitter(split, {name: value for name, value in study.split_options.items() if name in mine})


def _matched(
    plans: Sequence[tuple[PlannedTrial, Split | None]],
    block: Block,
    fraction: float,
    resolved: ResolvedModel,
    benchmark: Benchmark,
    folder: Path,
) -> Iterator[PlannedTrial]:
    """Give the conditions of one model, target and seed the same numbers of training items, validation items and steps.

    A condition that trains on nothing (zero-shot) does not count.
    """
    sound = [split for trial, split in plans if split is not None and not trial.problem]
    training = [split for split in sound if split.trains]
    size = min((len(split.train) for split in training), default=0)
    if block.train_size is not None:
        size = min(size, block.train_size)
    size = math.ceil(size * fraction)
    val = min([max(32, size // 16), *(len(split.val) for split in training)])
    settings = resolved.settings
    per_step = settings.batch_size * settings.accumulate
    steps = settings.steps if block.epochs is None else max(1, math.ceil(block.epochs * size / per_step))
    rate = resolved.entry.ms_per_image if resolved.entry else None
    remarks: dict[str, list[str]] = {}
    for one, other in combinations(training, 2):
        for remark in coincidences([one, other]):
            remarks.setdefault(one.rule, []).append(remark)
            remarks.setdefault(other.rule, []).append(remark)
    for trial, split in plans:
        cells: dict[MAT, dict[str, int]] = {}
        trains = split is not None and split.trains and resolved.record.trains
        if split is not None:
            taken = {"available": split.train, "train": split.train[:size], "val": split.val[:val]}
            counts = {part: Counter(benchmark.keys[item].mat for item in ids) for part, ids in taken.items()}
            cells = {cell: {part: counter[cell] for part, counter in counts.items()} for cell in split.cells}
        spec = replace(trial.spec, fraction=fraction, train_size=size if trains else 0, val_size=val if trains else 0)
        if trains and block.epochs is not None:
            spec = replace(spec, options={**spec.options, "steps": steps})
        seconds = START_SECONDS + (steps * per_step * rate / 1000 if trains else 0) if rate is not None else None
        known = seconds if spec.device == "cpu" else None
        if rate is None and trial.forecast is not None and trial.forecast.answer_ms is not None:
            learning = steps * per_step * (trial.forecast.train_ms or 0) if trains else 0
            answering = trial.test * spec.option_orders * trial.forecast.answer_ms
            known = START_SECONDS + (learning + answering) / 1000
        said = tuple(remarks.get(split.rule, ())) if split is not None else ()
        yield replace(trial, spec=spec, cells=cells, state=_state(folder, spec), seconds=known, remarks=said)


def _state(folder: Path, spec: TrialSpec) -> str:
    path = trial_folder(folder, spec.id) / "trial.json"
    return str(read_json(path).get("status", "started")) if path.exists() else "new"


def find_targets(wanted: Sequence[str], benchmark: Benchmark, answers: Iterable[AnswerKind]) -> list[MAT]:
    """Return the target cells that names and wildcards stand for.

    Args:
        wanted: Names as typed; empty = the dataset's default targets that the model can answer, else every such cell.
        benchmark: Says which cells there are, and which are tested by default.
        answers: What the model can answer.

    Raises:
        CrossmedError: For a name that matches no cell, or a cell that the model cannot answer.
    """
    able = set(answers)
    cells = sorted(benchmark.questions)
    answerable = [cell for cell in cells if benchmark.answered_by(cell, able)]
    if not wanted:
        defaults = [MAT.parse(name) for name in benchmark.default_targets]
        return [cell for cell in defaults if cell in answerable] or answerable
    found: list[MAT] = []
    for name in wanted:
        if name == "all":
            found += answerable
        elif any(sign in name for sign in "*?["):
            matching = [cell for cell in answerable if fnmatch.fnmatchcase(str(cell), name)]
            if not matching:
                raise CrossmedError(
                    f"No cell that this model answers matches {name!r}.", hint="See 'crossmed show cell all'."
                )
            found += matching
        else:
            found.append(_one_target(name, cells, answerable, able))
    return list(dict.fromkeys(found))


def _one_target(name: str, cells: Sequence[MAT], answerable: Sequence[MAT], able: set[AnswerKind]) -> MAT:
    try:
        cell = canonical_cell(name)
    except ValueError as error:
        raise CrossmedError(f"Target {error}.") from error
    if cell not in cells:
        hint = suggest(str(cell), [str(one) for one in cells])
        raise CrossmedError(
            f"Target {name!r} is not a cell of this benchmark.",
            hint=f"{hint} See 'crossmed show cell all'.".strip(),
        )
    if cell not in answerable:
        raise CrossmedError(
            f"Target {cell} is not answered by an {' or '.join(sorted(able))}, which is all this model gives.",
            hint="Choose a model for it; 'crossmed ls models' shows what each one answers.",
        )
    return cell

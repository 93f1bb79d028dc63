"""`crossmed run`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from crossmed_cli import score_tables, tables
from crossmed_cli.console import err, print_json
from crossmed_cli.options import FiniteRange, catalog_options, compared, cores, json_option, many, option, pairs
from crossmed_cli.progress import RunView
from crossmed_core import __version__
from crossmed_core.adapters import find_adapter
from crossmed_core.benchmark import Benchmark
from crossmed_core.built import is_built
from crossmed_core.catalog import Catalog
from crossmed_core.devices import resolve_device
from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.recipe import (
    CONTROLS,
    DEFAULT_BUILD,
    DEFAULT_DATASET,
    DEFAULT_SPLITS,
    DEFAULT_TRAIN_SIZE,
    NEAR_DUPLICATES,
    Block,
    Study,
    check_controls,
    check_fractions,
    read_recipe,
    recipe_path,
)
from crossmed_core.run import (
    close_run,
    header,
    open_run,
    read_answers,
    score_run,
    session_facts,
    write_scores,
)
from crossmed_core.runlog import locked
from crossmed_core.runner import TrialResult
from crossmed_core.study import PlannedTrial, plan
from crossmed_core.workers import run_study

DEMO = "demo"


@click.command("run")
@option("--model", "-m", multiple=True, help="Model, alias or family:name. Repeat or separate by commas.")
@option(
    "--split",
    "-s",
    multiple=True,
    help=f"Training condition, NAME or NAME:ARGUMENT. [default: {', '.join(DEFAULT_SPLITS)}]",
)
@option("--split-option", multiple=True, metavar="KEY=VALUE", help="Option of the splits, e.g. containment=false.")
@option("--target", "-t", multiple=True, help="Cell to test, e.g. ct/chest/segmentation; wildcards; 'all'.")
@option("--dataset", default=None, help="Dataset. [default: phantom; with --data, all that are found]")
@option(
    "--data",
    type=click.Path(path_type=Path),
    help="A benchmark that was built, or raw downloads, of which one is built into the cache on first use.",
)
@option(
    "--build-recipe",
    help=f"What is built of raw downloads: a shipped build recipe or a TOML file. [default: {DEFAULT_BUILD}]",
)
@option(
    "--dataset-option",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the dataset, e.g. size=128; of a built benchmark, prompts=neutral or regions=boxes.",
)
@option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the model or its training, e.g. steps=2000.",
)
@option(
    "--train-size",
    type=click.IntRange(min=1),
    help=f"Training items per condition, at most. [default: {DEFAULT_TRAIN_SIZE}]",
)
@option(
    "--fraction",
    multiple=True,
    metavar="SHARE",
    help="Share of that size, e.g. 0.01,0.05,0.1,0.5,1; smaller ones are nested in larger ones. [default: 1]",
)
@option("--epochs", type=FiniteRange(min=0, min_open=True), help="Passes over the training items.")
@option(
    "--adapter",
    type=click.Path(path_type=Path),
    help="Start from the adapter that a run, or one of its trials, saved (mllm).",
)
@option("--steps", type=click.IntRange(min=1), help="Optimizer steps; short for --set steps=N.")
@option("--seed", type=int, multiple=True, help="Seed of draw, weights and order. Repeatable. [default: 0]")
@option("--seeds", type=click.IntRange(min=1), help="Use seeds 0 .. N-1.")
@option(
    "--compare", multiple=True, metavar="A:B", help="Gap between two splits to report. [default: those of the recipe]"
)
@option("--limit", type=click.IntRange(min=1), help="At most this many test items per target.")
@option(
    "--control",
    multiple=True,
    metavar="NAME",
    help=f"Ask the trained model again, of: {', '.join(CONTROLS)}; or all. Can be added to a finished run.",
)
@option(
    "--option-orders",
    type=click.IntRange(min=1),
    help="Ask each item in this many cyclic orders of its options and average. [default: 1]",
)
@option("--seen", type=click.IntRange(min=1), help="Ask this many test items of the training cells too.")
@option("--baselines/--no-baselines", default=None, help="Majority and question-only beside the result. [default: on]")
@option(
    "--near-duplicates",
    type=click.Choice(NEAR_DUPLICATES),
    help="Test images that look like edited copies of training images: fail, or list them in split.json. [default: "
    "refuse]",
)
@option("--recipe", help="A shipped recipe or a TOML file; --model replaces its models. [default: demo]")
@option("--out", type=click.Path(path_type=Path, file_okay=False), help="Run folder. [default: runs/NAME]")
@option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where networks run.",
)
@option("--jobs", type=click.IntRange(min=1), help="Trials at a time. [default: CPU cores; 1 on CUDA]")
@option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="CPU threads per trial; the bytes depend on it.",
)
@option("--dry-run", is_flag=True, help="Show cells, sizes, what would be reused and a rough time; run nothing.")
@json_option
@catalog_options
def command(
    catalog: Catalog,
    recipe: str | None,
    out: Path | None,
    device: str,
    jobs: int | None,
    threads: int,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Train models on MAT splits, score them on the target cell, and say how large the gap is.

    Without arguments the demo recipe runs on the synthetic phantom: size-matched in-domain, related, unrelated and
    zero-overlap training for one classification and one segmentation target, in minutes on a laptop. The same command
    again goes on with a run that was stopped.

    \b
    crossmed run
    crossmed run --model resnet18 --split zero-overlap
    crossmed run --model unet --split related --target ct/chest/segmentation --seeds 3
    """  # noqa: D301  (\b is click's mark for lines that it must not wrap)
    study = _study(recipe, flags)
    if flags["compare"]:
        splits = [split for block in study.blocks for split in block.splits]
        study = replace(study, compare=tuple(compared(flags["compare"], splits)))
    needs_torch = any(
        "torch" in catalog.model(model, block.set).record.packages for block in study.blocks for model in block.models
    )
    for block in study.blocks:
        for split in block.splits:
            catalog.split_claim(split)
        for model in block.models:
            _require_packages(catalog, model, block.set)
    chosen, reason = resolve_device(device, needs_torch=needs_torch)
    if study.data is not None:
        study = replace(study, data=built_folder(study, flags["build_recipe"], catalog, jobs or cores()))
    folder = out if out is not None else Path("runs") / _folder_name(study, chosen, threads, recipe)
    # What a plugin prints must not spoil the results on stdout.
    with err.status("Reading the dataset ..."), contextlib.redirect_stdout(sys.stderr):
        benchmark = catalog.benchmark(study.dataset, study.dataset_options, study.data)
        trials = plan(study, catalog, benchmark, folder, device=chosen, threads=threads)
    if not trials:
        raise CrossmedError("There is nothing to run: no target is left for these models.")
    if not as_json:
        _print_header(catalog, chosen, reason)
    at_a_time = jobs or (1 if chosen == "cuda" else min(cores(), len(trials)))
    if dry_run:
        return _dry_run(trials, folder, at_a_time, as_json=as_json)
    return _run(study, trials, folder, catalog, benchmark, chosen, reason, threads, at_a_time, as_json=as_json)


def _study(recipe: str | None, flags: Mapping[str, Any]) -> Study:
    """Turn flags, or a recipe and the flags over it, into a study."""
    models = many(flags["model"])
    seeds = tuple(range(flags["seeds"])) if flags["seeds"] else flags["seed"]
    over: dict[str, Any] = {"splits": many(flags["split"]), "targets": many(flags["target"]), "seeds": seeds}
    over = {name: value for name, value in over.items() if value}
    if flags["train_size"]:
        over["train_size"] = flags["train_size"]
    if flags["fraction"]:
        over["fractions"] = check_fractions(many(flags["fraction"]), "--fraction")
    settings = pairs("--set", flags["settings"])
    if flags["epochs"] and (flags["steps"] or "steps" in settings):
        raise CrossmedError("--epochs and --steps both say how long to train; give one of them.")
    if flags["epochs"]:
        over["epochs"] = flags["epochs"]
    if flags["steps"]:
        settings["steps"] = flags["steps"]
    if flags["adapter"]:
        settings["adapter"] = str(find_adapter(flags["adapter"]))
    if models and recipe is None:
        study = Study("", (Block(models, **over, set=settings),))
    else:
        study = read_recipe(recipe_path(recipe or DEMO))
        if models:
            over["models"] = models
        if "steps" in settings:
            over["epochs"] = None
        blocks = tuple(replace(block, **over, set={**block.set, **settings}) for block in study.blocks)
        study = replace(study, blocks=blocks)
    if not all(block.models for block in study.blocks):
        raise CrossmedError(f"Recipe {recipe!r} leaves the model to you.", hint="Name one with --model.")
    study = _asked(study, flags)
    options = pairs("--dataset-option", flags["dataset_option"])
    if flags["dataset"] and flags["dataset"] != study.dataset:
        study = replace(study, dataset=flags["dataset"], dataset_options={})
    study = replace(study, dataset_options={**study.dataset_options, **options})
    data = flags["data"] or study.data
    if flags["build_recipe"] and data is None:
        raise CrossmedError("--build-recipe says what is built of raw downloads; it needs --data DIR.")
    if data is not None and not flags["dataset"] and study.dataset == DEFAULT_DATASET:
        study = replace(study, dataset="", dataset_options=options)  # whatever lies there
    return replace(study, data=data.resolve() if data else None, limit=flags["limit"] or study.limit)


def _asked(study: Study, flags: Mapping[str, Any]) -> Study:
    """Add to a study how the trained models are asked."""
    controls = many(flags["control"])
    changes: dict[str, Any] = {
        "split_options": {**study.split_options, **pairs("--split-option", flags["split_option"])},
        "controls": check_controls(controls or study.controls),
    }
    if flags["option_orders"]:
        changes["option_orders"] = flags["option_orders"]
    if flags["seen"]:
        changes["seen"] = flags["seen"]
    if flags["near_duplicates"]:
        changes["near_duplicates"] = flags["near_duplicates"]
    if flags["baselines"] is not None:
        changes["baselines"] = flags["baselines"]
    return replace(study, **changes)


def built_folder(study: Study, recipe: str | None, catalog: Catalog, jobs: int) -> Path:
    """Return the benchmark that `study.data` is, or the one built of the raw downloads there, in the cache.

    Raises:
        CrossmedError: If nothing can be built of it.
    """
    from crossmed_cli.build_view import BuildView, warn_of_problems  # numpy and all that a build needs
    from crossmed_core.build import build_in_cache
    from crossmed_core.build_recipe import read_build_recipe

    assert study.data is not None
    if is_built(study.data):
        if recipe:
            raise CrossmedError(f"{study.data} is a benchmark that was built already; --build-recipe has no use.")
        return study.data
    named = (study.dataset,) if study.dataset else ()
    wanted = read_build_recipe(recipe or DEFAULT_BUILD)
    with BuildView(err) as view, contextlib.redirect_stdout(sys.stderr):
        result = build_in_cache(study.data, wanted, named, catalog, view, jobs=jobs)
    warn_of_problems(err, result)
    state = "built before" if result.reused else "built now"
    skipped = sum(len(one["skipped"]) for one in result.card["sources"].values())
    err.print(
        f"benchmark {result.card['name']} of {study.data}, {state}: {result.card['n']} items of "
        f"{', '.join(result.card['sources'])}, {skipped} files or rows skipped; in {result.folder}",
        soft_wrap=True,
    )
    return result.folder


def _require_packages(catalog: Catalog, model: str, options: Mapping[str, Any]) -> None:
    record = catalog.model(model, options).record
    if missing := record.missing():
        raise CrossmedError(
            f"Model {model!r} needs {', '.join(missing)}, which this environment lacks.",
            hint=f"Install it with: {record.install_hint()}",
            exit_code=ExitCode.ENVIRONMENT,
        )


def _folder_name(study: Study, device: str, threads: int, recipe: str | None) -> str:
    """Name the run after what is asked, so that the same command finds its folder again and another one does not."""
    study = _as_answered(study)
    facts = json.dumps([asdict(study), device, threads], default=str, sort_keys=True)
    digest = hashlib.sha256(facts.encode()).hexdigest()[:8]
    if study.name:
        pure = read_recipe(recipe_path(recipe or DEMO))
        name = _plain(study.name)
        return name if study == _as_answered(pure) and device == "cpu" and threads == 1 else f"{name}-{digest}"
    block = study.blocks[0]
    words = "-".join([*block.models, *(block.splits if block.splits != DEFAULT_SPLITS else ())])
    return f"{_plain(words)}-{digest}"


def _as_answered(study: Study) -> Study:
    """Leave out what changes no answer, so that it can be asked of a run that is there."""
    return replace(study, controls=(), seen=0, baselines=True)


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text)[:80].lstrip(".") or "run"


def _print_header(catalog: Catalog, device: str, reason: str) -> None:
    catalog.plugins.load()
    active = [info for info in catalog.plugins.plugins if info.status in ("ok", "missing-extra")]
    ours = [info.name for info in active if info.builtin]
    theirs = [f"{info.name} ({info.distribution} {info.version})" for info in active if not info.builtin]
    err.print(f"crossmed {__version__} · device {device} ({reason})")
    err.print(f"plugins: {', '.join(ours + theirs)}", soft_wrap=True)
    for info in catalog.plugins.plugins:
        if info.status in ("broken", "incompatible") or (info.status == "ok" and info.reason):
            err.print(
                f"warning: plugin {info.name} ({info.distribution}) {info.status}: {info.reason}",
                style="yellow",
                soft_wrap=True,
            )


def _dry_run(trials: Sequence[PlannedTrial], folder: Path, jobs: int, *, as_json: bool) -> int:
    if as_json:
        print_json({"run": str(folder), "jobs": jobs, "trials": [tables.planned_json(trial) for trial in trials]})
    else:
        tables.print_plan(trials, folder, jobs)
    return ExitCode.TRIALS_FAILED if any(trial.problem for trial in trials) else ExitCode.OK


def _run(
    study: Study,
    trials: Sequence[PlannedTrial],
    folder: Path,
    catalog: Catalog,
    benchmark: Benchmark,
    device: str,
    reason: str,
    threads: int,
    jobs: int,
    *,
    as_json: bool,
) -> int:
    with locked(folder), contextlib.redirect_stdout(sys.stderr):
        wanted = header(study, trials, catalog, benchmark, device=device, threads=threads)
        run, warnings = open_run(folder, wanted, session_facts(["crossmed", *sys.argv[1:]], reason, catalog))
        for warning in warnings:
            _warn(warning)
        finished = sum(trial.state == "finished" for trial in trials)
        say = "going on" if len(run["sessions"]) > 1 else "new"
        err.print(
            f"run folder {folder} ({say}): {len(trials)} trial{'s' * (len(trials) > 1)}, {finished} finished before, "
            f"{jobs} at a time, {threads} thread{'s' * (threads > 1)} each",
            soft_wrap=True,
        )
        if run["about"]:
            err.print(run["about"], soft_wrap=True)
        catalog.plugins.observe("crossmed_run_started", _warn, run=run)
        status = "interrupted"
        try:
            with RunView(err, trials, catalog, folder) as view:
                results = run_study(trials, folder, catalog, benchmark, view, jobs=jobs)
            status = "finished" if all(one.status == "finished" for one in results) else "failed"
        finally:
            close_run(folder, run, status)
        answers, states = read_answers(folder)
        for state in states:
            for variant, reason in state.get("failed_beside", {}).items():
                _warn(f"trial {state['id']}: {variant} has no score: {reason}")
        scores, gaps = score_run(answers, catalog, study.compare, warn=_warn)
        write_scores(folder, scores, gaps)
        catalog.plugins.observe("crossmed_run_finished", _warn, run=run, scores=scores)
    if as_json:
        print_json(
            {
                "run": str(folder),
                "status": status,
                "synthetic": run["benchmark"]["synthetic"],
                "scores": [asdict(one) for one in scores],
                "gaps": [asdict(one) for one in gaps],
                "trials": [_result_json(one) for one in results],
            }
        )
    else:
        score_tables.print_scores(run, scores, gaps, catalog, results)
        err.print(f"All of it is in {folder}; 'crossmed score {folder}' shows it again.", soft_wrap=True)
    return ExitCode.OK if status == "finished" else ExitCode.TRIALS_FAILED


def _warn(message: str) -> None:
    err.print(f"warning: {message}", style="yellow", soft_wrap=True)


def _result_json(result: TrialResult) -> dict[str, Any]:
    facts = {"id": result.spec.id, "status": result.status, "reused": result.reused}
    return {**facts, "message": result.message, "seconds": round(result.seconds, 2)}

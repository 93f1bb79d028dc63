"""A run from its folder's point of view: the header, going on with an earlier one, and the scores at the end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crossmed_core import provenance
from crossmed_core.benchmark import Benchmark
from crossmed_core.built import BuiltBenchmark
from crossmed_core.catalog import Catalog
from crossmed_core.contracts import Metric
from crossmed_core.devices import precision
from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.gaps import Gap, gaps
from crossmed_core.letter_mass import LETTER_MASS, mass_scores
from crossmed_core.order_scores import ORDER_METRICS, order_scores
from crossmed_core.recipe import Study
from crossmed_core.records import MetricRecord
from crossmed_core.runlog import (
    SCHEMA_VERSION,
    append_rows,
    read_json,
    read_rows,
    score_to_json,
    trial_folder,
    write_json,
    writing,
)
from crossmed_core.scoring import (
    Answers,
    Condition,
    conditions,
    score,
    tested_against_chance,
    with_probabilities,
)
from crossmed_core.study import PlannedTrial
from crossmed_core.trial_files import read_trial
from crossmed_core.types import AnswerKind, Score

_MAY_CHANGE = ("about", "controls", "seen", "baselines", "remarks")
"""Fields of run.json that change no answer: what they ask for can be added to a run that was finished."""
RUN_FIELDS = ("schema_version", "benchmark", "splits", "trials", "compare", "status", "sessions")
"""What every run.json has."""


def header(
    study: Study,
    trials: Sequence[PlannedTrial],
    catalog: Catalog,
    benchmark: Benchmark,
    *,
    device: str,
    threads: int,
) -> dict[str, Any]:
    """Describe what is run. Equal requests give equal headers; everything that may differ on a resume is kept apart."""
    models: dict[str, Any] = {}
    for trial in trials:
        resolved = catalog.model(trial.spec.model, trial.spec.options)
        models[trial.spec.model] = {
            **asdict(resolved.spec),
            "train": asdict(resolved.settings),
            "plugin": resolved.claim.plugin.key,
        }
    splits = {trial.spec.split: catalog.split_claim(trial.spec.split).plugin.key for trial in trials}
    return {
        "schema_version": SCHEMA_VERSION,
        "name": study.name,
        "about": study.about,
        "compare": [list(pair) for pair in study.compare],
        "benchmark": {
            "dataset": benchmark.name,
            "options": benchmark.options,
            "data": str(study.data) if study.data else None,
            "sha256": benchmark.digest,
            "synthetic": benchmark.synthetic,
            "plugins": _dataset_plugins(study, benchmark, catalog),
        },
        "models": models,
        "splits": splits,
        "split_options": dict(study.split_options),
        "option_orders": study.option_orders,
        "near_duplicates": study.near_duplicates,
        "limit": study.limit,
        "remarks": list(dict.fromkeys(remark for trial in trials for remark in trial.remarks)),
        "controls": list(study.controls),
        "seen": study.seen,
        "baselines": study.baselines,
        "device": device,
        "precision": precision(device),
        "threads": threads,
        "trials": [trial.spec.id for trial in trials],
    }


def _dataset_plugins(study: Study, benchmark: Benchmark, catalog: Catalog) -> dict[str, str]:
    """Name the plugins of a benchmark's datasets, where installed: a benchmark may have been built elsewhere."""
    names = sorted(benchmark.card()["sources"]) if isinstance(benchmark, BuiltBenchmark) else [study.dataset]
    claims = catalog.plugins.records("dataset")
    return {name: claims[name].plugin.key for name in names if name in claims}


def open_run(folder: Path, wanted: Mapping[str, Any], session: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Write run.json, or check that the folder holds this very run and add a session to it.

    Args:
        folder: The run folder, held by the caller.
        wanted: From `header`.
        session: Who asks now: argv, device reason, environment.

    Returns:
        The content of run.json, and warnings about what changed since the run began.

    Raises:
        CrossmedError: If the folder holds another run, or something that is no run.
    """
    path = folder / "run.json"
    now = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        **session,
    }
    warnings: list[str] = []
    if path.exists():
        run = read_json(path)
        changed = _changed(run, wanted)
        if changed:
            raise CrossmedError(
                f"{folder} holds another run (different: {', '.join(changed)}).",
                hint="Choose another folder with --out, or give the flags it was started with to go on.",
                exit_code=ExitCode.RUN_FOLDER,
            )
        warnings = _changes(run["sessions"][0]["environment"], now["environment"])
        run |= {name: wanted[name] for name in _MAY_CHANGE}
        run["sessions"].append(now)
    else:
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        if others:
            raise CrossmedError(
                f"{folder} is not empty and holds no run ({others[0]}, ...).",
                hint="Choose another folder with --out.",
                exit_code=ExitCode.RUN_FOLDER,
            )
        run = {**wanted, "sessions": [now]}
    run["status"] = "running"
    write_json(path, run)
    return run, warnings


def _changes(first: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which code changed since a run began; its finished trials are of the older one."""
    before, after = dict(first["packages"]), dict(now["packages"])
    before |= {f"plugin {one['name']}": one["version"] for one in first["plugins"]}
    after |= {f"plugin {one['name']}": one["version"] for one in now["plugins"]}
    before["the git commit"], after["the git commit"] = first["git_commit"], now["git_commit"]
    return [
        f"{name} was {version} when this run began and is {after.get(name)} now; finished trials are kept"
        for name, version in before.items()
        if after.get(name) != version
    ]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    import json

    plain = json.loads(json.dumps(new, default=list))
    return [name for name in plain if name not in _MAY_CHANGE and old.get(name) != plain[name]]


def close_run(folder: Path, run: dict[str, Any], status: str) -> None:
    """Record how the run ended."""
    run["status"] = status
    run["sessions"][-1]["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / "run.json", run)


def session_facts(argv: Sequence[str], device_reason: str, catalog: Catalog) -> dict[str, Any]:
    """Describe who asks, for `open_run`."""
    return {
        "argv": list(argv),
        "device_reason": device_reason,
        "environment": provenance.environment(catalog.plugins),
        "registries": [str(path) for path in catalog.registry.sources],
    }


# -- scores ----------------------------------------------------------------------------------------

OWN_METRICS = (*ORDER_METRICS, LETTER_MASS)
"""Computed from more than pairs of item and option, so no plugins."""


def read_answers(folder: Path) -> tuple[list[Answers], list[dict[str, Any]]]:
    """Read the answers of all trials that have any, in the order of run.json, and every trial's state.

    The answers of controls and baselines and to seen cells follow each trial's own; `Answers.variant` tells them apart.

    Raises:
        CrossmedError: If the folder holds no run, or a file is damaged.
    """
    run = read_json(folder / "run.json", RUN_FIELDS)
    answers, states = [], []
    for trial in run["trials"]:
        place = trial_folder(folder, trial)
        if not (place / "trial.json").exists():
            states.append({"id": trial, "status": "not started"})
            continue
        state, found = read_trial(place)
        state["answered"] = len(found[0].pairs)
        states.append(state)
        answers += [one for one in found if one.pairs]
    return answers, states


def score_run(
    answers: Sequence[Answers],
    catalog: Catalog,
    compare: Iterable[Sequence[str]],
    metrics: Sequence[str] = (),
    warn: Callable[[str], object] = lambda message: None,
) -> tuple[list[Score], list[Gap]]:
    """Score every condition with every metric that fits, and compare.

    Args:
        answers: From `read_answers`.
        catalog: Knows the metrics.
        compare: Pairs of splits whose gap is wanted.
        metrics: Names; empty = all metrics that fit the answers.
        warn: Told about a metric that fails; the others go on.

    Raises:
        CrossmedError: For an unknown metric, or one that fits none of the answers.
    """
    by_kind: dict[AnswerKind, dict[str, Metric]] = {
        kind: _metrics(catalog, kind, metrics) for kind in ("option", "mask")
    }
    lower = {name for name, claim in catalog.plugins.records("metric").items() if claim.record.lower_is_better}
    primary = {name for kind in by_kind for name in catalog.metrics_for(kind, primary=True)}
    kinds = {kind for one in answers for kind in kinds_of(one)}
    for name in metrics:
        if answers and name not in OWN_METRICS and not any(name in by_kind[kind] for kind in kinds):
            wanted, _ = catalog.metric(name)
            raise CrossmedError(
                f"Metric {name!r} scores {wanted.answers} items; this run has {' and '.join(kinds)} items."
            )
    scores: list[Score] = []
    pairs = [(first, second) for first, second in compare]
    found: list[Gap] = []
    for kind, known in by_kind.items():
        mine = [one for one in answers if kind in kinds_of(one)]
        for name, metric in known.items() if mine else ():
            record, _ = catalog.metric(name)
            # Beside the answers (controls, baselines) only the main metrics are computed, or those asked for.
            wide = bool(metrics) or name in primary
            shown = mine if wide else [one for one in mine if not one.variant]
            if record.needs_scores:
                shown = [one for one in map(with_probabilities, shown) if one.scored()]
            try:
                proportion = bool(getattr(metric, "proportion", False))
                groups = conditions(shown).values()
                scores += [_within(score(group, name, metric, proportion=proportion), record) for group in groups]
            except (Exception, SystemExit) as error:
                reason = f"{type(error).__name__}: {error}"
                if name in metrics:
                    raise CrossmedError(
                        f"Metric {name!r} failed: {reason}.", hint="That is a fault of its plugin."
                    ) from error
                warn(f"metric {name!r} failed and is left out: {reason}")
                continue
            try:
                found += gaps(shown, {name: metric}, pairs, lower_is_better=lower)
            except (Exception, SystemExit) as error:
                warn(f"gaps of metric {name!r} failed and are left out: {type(error).__name__}: {error}")
    if not metrics or set(metrics) & set(ORDER_METRICS):
        groups = conditions(one for one in answers if one.orders).values()
        scores += [one for group in groups for one in order_scores(group) if not metrics or one.metric in metrics]
    if not metrics or LETTER_MASS in metrics:
        scores += [one for group in conditions(answers).values() for one in mass_scores(group)]
    order = {key: place for place, key in enumerate(conditions(answers))}
    scores = tested_against_chance(scores, lower)
    scores.sort(key=lambda one: order[Condition(one.model, one.target, one.split, one.fraction, one.variant)])
    return scores, found


def _within(one: Score, record: MetricRecord) -> Score:
    """Cut an interval off at the metric's own bounds: that of several seeds is symmetric and may cross them."""
    low = one.low if one.low is None else max(one.low, record.low)
    high = one.high if one.high is None else min(one.high, record.high)
    return replace(one, low=low, high=high)


def kinds_of(answers: Answers) -> tuple[AnswerKind, ...]:
    """Return which metrics score a trial; all items of a cell are answered alike.

    A choice among candidate regions is scored both as a choice and by the chosen region.
    """
    item = answers.pairs[0][0]
    return ("option", "mask") if item.options and item.candidates else (item.kind,)


def _metrics(catalog: Catalog, kind: AnswerKind, names: Sequence[str]) -> dict[str, Metric]:
    if not names:
        return catalog.metrics_for(kind)
    chosen = {name: catalog.metric(name) for name in names if name not in OWN_METRICS}
    return {name: metric for name, (record, metric) in chosen.items() if record.answers == kind}


def write_scores(folder: Path, scores: Sequence[Score], gaps_found: Sequence[Gap]) -> None:
    """Write scores.jsonl anew: scores first, then gaps, then what was there of metrics that are not installed now."""
    known = {one.metric for one in scores}
    kept = [row for row in read_rows(folder / "scores.jsonl") if row.get("metric") not in known]
    partial = folder / "scores.jsonl.partial"
    with writing(folder):
        partial.unlink(missing_ok=True)
    append_rows(partial, [{"type": "score", **score_to_json(one)} for one in scores])
    append_rows(partial, [{"type": "gap", **asdict(one)} for one in gaps_found])
    append_rows(partial, kept)
    with writing(folder):
        partial.replace(folder / "scores.jsonl")

"""Runs the trials of a plan, in this process or several. Killing the parent ends the workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any, Protocol

from crossmed_core.benchmark import Benchmark
from crossmed_core.catalog import Catalog
from crossmed_core.plugins import PluginConfig, PluginManager
from crossmed_core.pool import THREAD_VARIABLES, become_worker, deaf, terminate, worker_died
from crossmed_core.registry import Registry
from crossmed_core.runlog import trial_folder
from crossmed_core.runner import TrialResult, TrialSpec, run_trial
from crossmed_core.study import PlannedTrial


class Watch(Protocol):
    """Receives everything that happens while a study runs."""

    def progress(self, trial: TrialSpec, phase: str, done: int, total: int, values: Mapping[str, Any]) -> None:
        """A trial moved on."""

    def finished(self, result: TrialResult) -> None:
        """A trial ended."""


def run_study(
    trials: Sequence[PlannedTrial],
    folder: Path,
    catalog: Catalog,
    benchmark: Benchmark,
    watch: Watch,
    *,
    jobs: int,
) -> list[TrialResult]:
    """Run all trials that can be run, in this process or in `jobs` worker processes.

    Args:
        trials: The plan.
        folder: The run folder, held by the caller.
        catalog: Where names are looked up.
        benchmark: The study's benchmark.
        watch: Receives progress.
        jobs: Trials at a time. One thread each: several torch threads on a busy machine are slower than one, and the
            bytes of a result depend on their number.

    Returns:
        One result per trial, in the order of the plan.

    Raises:
        CrossmedError: If the run folder cannot be written.
    """
    results: dict[str, TrialResult] = {}
    runnable = []
    for trial in trials:
        if trial.problem:
            results[trial.spec.id] = TrialResult(trial.spec, "failed", message=trial.problem)
            watch.finished(results[trial.spec.id])
        else:
            runnable.append(trial.spec)
    if jobs <= 1 or len(runnable) <= 1:
        for spec in runnable:
            limit_threads(spec.threads)
            emit = _local_emit(spec, watch)
            results[spec.id] = run_trial(spec, trial_folder(folder, spec.id), catalog, benchmark, emit)
            watch.finished(results[spec.id])
    else:
        _run_in_processes(runnable, folder, catalog, watch, min(jobs, len(runnable)), results)
    return [results[trial.spec.id] for trial in trials]


def _local_emit(spec: TrialSpec, watch: Watch) -> Any:
    def emit(phase: str, done: int, total: int, **values: Any) -> None:
        watch.progress(spec, phase, done, total, values)

    return emit


def _run_in_processes(
    specs: Sequence[TrialSpec],
    folder: Path,
    catalog: Catalog,
    watch: Watch,
    jobs: int,
    results: dict[str, TrialResult],
) -> None:
    context = get_context("spawn")  # forked torch processes can hang, and inherit locks
    events: Queue[Any] = context.Queue()
    by_id = {spec.id: spec for spec in specs}
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(specs[0].threads)))  # read when a child imports its libraries
    try:
        with ProcessPoolExecutor(
            jobs, context, _start_worker, (catalog.plugins.config, catalog.registry, events)
        ) as pool:
            with deaf():
                waiting: set[Future[TrialResult]] = {pool.submit(_work, spec, folder) for spec in specs}
            try:
                while waiting:
                    ended, waiting = wait(waiting, timeout=0.1, return_when=FIRST_COMPLETED)
                    _drain(events, by_id, watch)
                    for future in ended:
                        result = future.result()
                        results[result.spec.id] = result
                        watch.finished(result)
            except BrokenProcessPool as error:
                raise worker_died() from error
            except BaseException:
                terminate(pool)
                raise
            _drain(events, by_id, watch)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _drain(events: Queue[Any], by_id: Mapping[str, TrialSpec], watch: Watch) -> None:
    while True:
        try:
            trial, phase, done, total, values = events.get_nowait()
        except Empty:
            return
        watch.progress(by_id[trial], phase, done, total, values)


_worker: dict[str, Any] = {}


def _start_worker(config: PluginConfig, registry: Registry, events: Queue[Any]) -> None:
    become_worker()
    _worker.update(catalog=Catalog(PluginManager(config, registry)), events=events, benchmarks={})


def _work(spec: TrialSpec, folder: Path) -> TrialResult:
    limit_threads(spec.threads)
    catalog: Catalog = _worker["catalog"]
    key = (spec.dataset, str(sorted(spec.dataset_options.items())), spec.data)
    if key not in _worker["benchmarks"]:
        _worker["benchmarks"] = {key: catalog.benchmark(spec.dataset, spec.dataset_options, spec.data)}
    events: Queue[Any] = _worker["events"]

    def emit(phase: str, done: int, total: int, **values: Any) -> None:
        events.put((spec.id, phase, done, total, values))

    return run_trial(spec, trial_folder(folder, spec.id), catalog, _worker["benchmarks"][key], emit)


def limit_threads(threads: int) -> None:
    """Bound the threads of torch in this process, if it is or will be imported."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)

"""The door for plugins: pluggy hook specifications.

A plugin is a light module that a distribution names in the entry point group `crossmed`. It must not import torch or
any other heavy library: it yields frozen records that say where the heavy code is, and `crossmed` imports that when the
name is used.

    [project.entry-points.crossmed]
    my-plugin = "my_package.plugin"

Hooks grow by added arguments, which a plugin may leave out; records grow by keyword-only fields with defaults. A plugin
that needs a newer `crossmed` says so with a module-level `CROSSMED_API_VERSION = 2`, and is listed as incompatible
instead of failing. Each hook's docstring carries an example that the test suite runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from crossmed_core.records import DatasetRecord, MetricRecord, ModelRecord, SplitRecord
    from crossmed_core.types import Score

PROJECT = "crossmed"
API_VERSION = 1
"""Raised by one when a hook is added or changed."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of the same name."""


@hookspec
def crossmed_datasets() -> Iterable[DatasetRecord]:  # type: ignore[empty-body]
    """Yield the datasets of this plugin.

    Example:
        >>> from crossmed_core import hookimpl
        >>> from crossmed_core.records import DatasetRecord
        >>> @hookimpl
        ... def crossmed_datasets():
        ...     yield DatasetRecord(
        ...         name="my-xrays",
        ...         summary="Chest X-rays of my hospital: two findings",
        ...         target="my_package.dataset:MyXrays",
        ...         licence="CC-BY-4.0",
        ...     )
    """


@hookspec
def crossmed_models() -> Iterable[ModelRecord]:  # type: ignore[empty-body]
    """Yield the model families of this plugin.

    Example:
        >>> from crossmed_core import hookimpl
        >>> from crossmed_core.records import ModelRecord
        >>> @hookimpl
        ... def crossmed_models():
        ...     yield ModelRecord(
        ...         name="my-net",
        ...         summary="A small network of mine",
        ...         target="my_package.model:MyFamily",
        ...         answers=frozenset({"option"}),
        ...         packages=("torch",),
        ...         extra="torch",
        ...     )
    """


@hookspec
def crossmed_splits() -> Iterable[SplitRecord]:  # type: ignore[empty-body]
    """Yield the splits of this plugin. A rule on cells needs one line: `CellRule` does the rest.

    Example:
        >>> from crossmed_core import hookimpl
        >>> from crossmed_core.records import SplitRecord
        >>> from crossmed_core.splits import CellRule
        >>> same_task = CellRule("same-task", lambda target, cells, share: [c for c in cells if c.task == target.task])
        >>> @hookimpl
        ... def crossmed_splits():
        ...     yield SplitRecord(
        ...         name="same-task",
        ...         summary="Train on every cell with the target's task",
        ...         target="my_package.splits:same_task",
        ...     )
    """


@hookspec
def crossmed_metrics() -> Iterable[MetricRecord]:  # type: ignore[empty-body]
    """Yield the metrics of this plugin.

    Example:
        >>> from crossmed_core import hookimpl
        >>> from crossmed_core.records import MetricRecord
        >>> def error_rate(pairs):
        ...     return sum(prediction.option != item.answer for item, prediction in pairs) / len(pairs)
        >>> @hookimpl
        ... def crossmed_metrics():
        ...     yield MetricRecord(
        ...         name="error-rate", summary="Share of wrong answers", target="my_package.metrics:error_rate"
        ...     )
    """


@hookspec
def crossmed_run_started(run: Mapping[str, Any]) -> None:
    """Called once in the main process after run.json is written; `run` is its content.

    Example:
        >>> from crossmed_core import hookimpl
        >>> @hookimpl
        ... def crossmed_run_started(run):
        ...     print("started", run["name"])
        >>> crossmed_run_started({"name": "demo"})
        started demo
    """


@hookspec
def crossmed_trial_finished(trial: Mapping[str, Any], scores: Sequence[Score]) -> None:
    """Called in the main process after each trial, reused and failed ones too; `trial` is the content of trial.json.

    Example:
        >>> from crossmed_core import hookimpl
        >>> @hookimpl
        ... def crossmed_trial_finished(trial, scores):
        ...     print(trial["id"], len(scores))
        >>> crossmed_trial_finished({"id": "resnet18__related"}, [])
        resnet18__related 0
    """


@hookspec
def crossmed_run_finished(run: Mapping[str, Any], scores: Sequence[Score]) -> None:
    """Called once in the main process at the end, with the scores of the end table.

    Example:
        >>> from crossmed_core import hookimpl
        >>> @hookimpl
        ... def crossmed_run_finished(run, scores):
        ...     print(run["status"], [score.split for score in scores])
        >>> crossmed_run_finished({"status": "finished"}, [])
        finished []
    """

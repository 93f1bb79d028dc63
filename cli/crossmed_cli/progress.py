"""Progress of a run: bars with rate and time left on a terminal, one quiet line per step of a trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from crossmed_core.catalog import Catalog
from crossmed_core.run import score_run
from crossmed_core.runlog import read_json, trial_folder
from crossmed_core.runner import TrialResult, TrialSpec
from crossmed_core.study import PlannedTrial
from crossmed_core.trial_files import read_trial
from crossmed_core.types import Score

WORDS = {"images": "images", "load": "loading", "fit": "training", "predict": "answering"}
NARROW = 100
"""Below this many columns, bars show the share done instead of counts, and neither model nor loss."""
UNITS = {"images": "images", "load": "model", "fit": "steps", "predict": "items"}


class RateColumn(ProgressColumn):
    """Units per second, at the current speed."""

    def render(self, task: Task) -> Text:
        """Show the rate, or nothing before it is known."""
        speed = task.finished_speed or task.speed
        return Text(
            "" if speed is None or task.fields["overall"] else f"{speed:.0f}/s" if speed >= 10 else f"{speed:.1f}/s",
            style="cyan",
        )


class RemainingColumn(TimeRemainingColumn):
    """Time left of a phase. None for all trials: they differ too much for one rate."""

    def render(self, task: Task) -> Text:
        """Show the time left."""
        return Text("") if task.fields["overall"] else super().render(task)


class RunView:
    """Shows what happens (`workers.Watch`), and tells the observers of plugins when a trial ends.

    Args:
        console: Where to show it.
        trials: The plan.
        catalog: Scores trials and knows the observers.
        folder: The run folder.
    """

    def __init__(self, console: Console, trials: Sequence[PlannedTrial], catalog: Catalog, folder: Path) -> None:
        self.console = console
        self.trials = trials
        self.catalog = catalog
        self.folder = folder
        self.ended = 0
        self._bars: dict[str, TaskID] = {}
        self._phase: dict[str, str] = {}
        self._loss: dict[str, float] = {}
        self._done: set[str] = set()
        self._told: set[str] = set()
        self._started = time.monotonic()
        wide = console.width >= NARROW
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24 if wide else 8),
            MofNCompleteColumn() if wide else TaskProgressColumn(),
            RateColumn(),
            RemainingColumn(compact=True),
            TextColumn("{task.fields[loss]}"),
            console=console,
            transient=True,
        )
        self._overall: TaskID | None = None

    def __enter__(self) -> RunView:
        if self.console.is_terminal:
            self._progress.start()
            self._overall = self._progress.add_task(
                "[bold]all trials (starting)", total=len(self.trials), loss="", overall=True
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._progress.stop()

    def progress(self, trial: TrialSpec, phase: str, done: int, total: int, values: Mapping[str, Any]) -> None:
        """Move a bar, or say that a trial entered its next phase."""
        if trial.id in self._done and phase != "warning":
            return  # events and results come by different pipes: this one was overtaken by the trial's end
        if phase == "warning":
            self._say(f"warning: {name(trial)}: {values['message']}", "yellow")
            return
        self._loss.update({trial.id: values["loss"]} if "loss" in values else {})
        if not self.console.is_terminal:
            if self._phase.get(trial.id) != phase:
                self._say(f"        {name(trial)}: {WORDS[phase]}, {total} {UNITS[phase]}")
            self._phase[trial.id] = phase
            return
        if self._overall is not None and not self._phase:
            self._progress.update(self._overall, description="[bold]all trials")
        if self._phase.get(trial.id) != phase:
            self._drop(trial.id)
            description = f"{trial.split} {trial.target} s{trial.seed} {WORDS[phase]}"
            if self.console.width >= NARROW:
                description = f"{trial.model} {description}"
            self._bars[trial.id] = self._progress.add_task(description, total=total, loss="", overall=False)
            self._phase[trial.id] = phase
        loss = f"loss {self._loss[trial.id]:.2f}" if phase == "fit" and trial.id in self._loss else ""
        self._progress.update(self._bars[trial.id], completed=done, loss=loss if self.console.width >= NARROW else "")

    def finished(self, result: TrialResult) -> None:
        """Print one line with the score of a trial."""
        self.ended += 1
        self._done.add(result.spec.id)
        self._drop(result.spec.id)
        if self._overall is not None:
            self._progress.update(self._overall, completed=self.ended)
        count = f"[{self.ended}/{len(self.trials)}]"
        if result.status != "finished":
            self._say(f"{count:>7} {name(result.spec)}: FAILED: {result.message}", "red")
            self._tell_observers(result, [])
            return
        place = trial_folder(self.folder, result.spec.id)
        _, answers = read_trial(place)
        scores, _ = score_run(answers[:1], self.catalog, (), warn=self._warn_once) if answers[0].pairs else ([], [])
        primary = {metric for kind in ("option", "mask") for metric in self.catalog.metrics_for(kind, primary=True)}
        shown = ", ".join(f"{s.metric} {s.value:.3f}" for s in scores if s.metric in primary and s.value is not None)
        how = "reused" if result.reused else f"{result.seconds:.0f} s"
        self._say(f"{count:>7} {name(result.spec)}: {shown or 'nothing scored'} ({how})", "green")
        self._tell_observers(result, scores)

    def _tell_observers(self, result: TrialResult, scores: Sequence[Score]) -> None:
        path = trial_folder(self.folder, result.spec.id) / "trial.json"
        state = read_json(path) if path.exists() else {"id": result.spec.id, "status": result.status}
        self.catalog.plugins.observe("crossmed_trial_finished", self._say, trial=state, scores=scores)

    def _warn_once(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._say(f"warning: {message}", "yellow")

    def _drop(self, trial: str) -> None:
        if trial in self._bars:
            self._progress.remove_task(self._bars.pop(trial))

    def _say(self, text: str, style: str = "") -> None:
        elapsed = int(time.monotonic() - self._started)
        self.console.print(
            f"{elapsed // 60:>2}:{elapsed % 60:02d} {text}", style=style or None, soft_wrap=True, markup=False
        )


def name(trial: TrialSpec) -> str:
    """Name a trial for people."""
    share = "" if trial.fraction == 1 else f" · {trial.fraction:g} of the data"
    return f"{trial.model} · {trial.split} · {trial.target} · seed {trial.seed}{share}"

"""Fine-tuning in several processes. This one starts them, shows their progress and takes the weights they leave.

Without a configuration, torch's launcher starts equal processes that share the batches (data parallel). With one of
'accelerate config', accelerate's launcher does what it says. Either way `crossmed run` stays one process, and its run
folder has one writer.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from crossmed_core.contracts import FitContext, TrainSettings
from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.types import Item, ModelSpec

if TYPE_CHECKING:
    from crossmed_plugins.mllm.model import MllmModel

JOB, PROGRESS, WEIGHTS, LOG = "job.pickle", "progress.jsonl", "weights", "log.txt"
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """All that a training process needs to know."""

    spec: ModelSpec
    device: str
    train: Sequence[Item]
    val: Sequence[Item]
    seed: int
    settings: TrainSettings
    checkpoints: Path | None
    parent: int


def train_in_processes(model: MllmModel, train: Sequence[Item], val: Sequence[Item], context: FitContext) -> None:
    """Train in several processes and become what they trained.

    Args:
        model: Its settings say how many processes, or which configuration.
        train: Training items.
        val: Validation items.
        context: As for training here.

    Raises:
        CrossmedError: If the processes fail; names their log.
    """
    job = Job(model.spec, model.device, train, val, context.seed, context.settings, context.folder, os.getpid())
    # A folder that nobody else may read or write: the job is a pickle.
    with tempfile.TemporaryDirectory(prefix="crossmed-training-") as name:
        folder = Path(name)
        (folder / JOB).write_bytes(pickle.dumps(job))
        with (folder / LOG).open("wb") as log:
            process = subprocess.Popen(
                _command(model, folder), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            _watch(process, folder / PROGRESS, context)
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode or not (folder / WEIGHTS).is_dir():
            raise CrossmedError(
                f"Training in several processes failed: {_reason(folder / LOG, context.folder)}",
                hint="Try --set processes=1.",
                exit_code=ExitCode.TRIALS_FAILED,
            )
        model.restore(folder / WEIGHTS)


def _command(model: MllmModel, folder: Path) -> list[str]:
    settings = model.settings
    if settings.accelerate_config:
        launcher = ["accelerate.commands.launch", "--config_file", settings.accelerate_config]
        if settings.processes > 1:
            launcher += ["--num_processes", str(settings.processes)]
    else:
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(settings.processes)]
    return [sys.executable, "-m", *launcher, "-m", "crossmed_plugins.mllm.distributed", str(folder)]


def _watch(process: subprocess.Popen[bytes], path: Path, context: FitContext) -> None:
    """Pass on what the first process reports, until all have ended."""
    read = 0
    while True:
        ended = process.poll() is not None
        if path.exists():
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            for line in content[read:whole].splitlines():
                row = json.loads(line)
                if "warning" in row:
                    context.warn(row["warning"])
                else:
                    context.log(row["step"], row["total"], **row["values"])
            read = max(read, whole)
        if ended:
            return
        time.sleep(POLL_SECONDS)


def _reason(log: Path, keep: Path | None) -> str:
    """Return the last error in a log, and keep the log."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if "Error" in line and "ChildFailedError" not in line]
    reason = (lines or ["no reason given"])[-1][:300]
    if keep is None:
        return reason
    kept = keep.parent / "training-processes.log"
    kept.write_text(text, encoding="utf-8")
    return f"{reason} (all of it in {kept})."


# -- in the processes --------------------------------------------------------------------------------------------------


def _leave_with(parent: int) -> None:
    """End this process once the one that started the training is gone: a new run may want the folder."""

    def look() -> None:
        while True:
            time.sleep(1)
            try:
                os.kill(parent, 0)
            except OSError:
                os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def work(folder: Path) -> None:
    """Be one of the processes: train, and leave the weights behind if this is the first of them."""
    from crossmed_plugins.mllm.model import MllmModel
    from crossmed_plugins.mllm.settings import Settings

    job: Job = pickle.loads((folder / JOB).read_bytes())  # noqa: S301 - from our own parent, in a private folder
    _leave_with(job.parent)
    first = os.environ.get("RANK", "0") == "0"
    if job.device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.set_num_threads(1)

    def report(row: dict[str, object]) -> None:
        if first:
            with (folder / PROGRESS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def log(step: int, total: int, **values: float) -> None:
        report({"step": step, "total": total, "values": values})

    context = FitContext(
        job.seed, job.device, job.settings, job.checkpoints, log, lambda message: report({"warning": message})
    )
    settings = replace(Settings.of(job.spec.options), processes=1, accelerate_config="")
    model = MllmModel(job.spec, settings, device=job.device)
    model.fit(job.train, job.val, context)
    if first:
        partial = folder / "partial"
        partial.mkdir()
        model.save(partial)
        partial.rename(folder / WEIGHTS)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    work(Path(sys.argv[1]))

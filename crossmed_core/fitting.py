"""Training within a trial's folder: it can be killed at any moment and goes on from its last checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from crossmed_core.contracts import FitContext, Model, SavesWeights, TrainSettings
from crossmed_core.errors import CrossmedError
from crossmed_core.predicting import Emit
from crossmed_core.runlog import append_rows, drop_torn_line, read_rows, replace_folder, rewrite_rows, writing
from crossmed_core.types import Item


def warner(folder: Path, emit: Emit) -> Callable[[str], None]:
    """Return what keeps a warning in train.jsonl and shows it."""

    def warn(message: str) -> None:
        append_rows(folder / "train.jsonl", [{"warning": message}])
        emit("warning", 0, 0, message=message)

    return warn


def fit(
    model: Model,
    train: Sequence[Item],
    val: Sequence[Item],
    folder: Path,
    emit: Emit,
    *,
    seed: int,
    device: str,
    settings: TrainSettings,
) -> None:
    """Train a model, go on with a training that was killed, or restore the weights of a finished one.

    Args:
        model: As it was loaded.
        train: Training items.
        val: Validation items.
        folder: The trial's folder: model/, checkpoint/ and train.jsonl lie there.
        emit: Receives progress.
        seed: Seed of weights, order and augmentation.
        device: "cpu" or "cuda".
        settings: How to train.

    Raises:
        CrossmedError: If finished weights cannot be read.
    """
    weights, checkpoint, log_path = folder / "model", folder / "checkpoint", folder / "train.jsonl"
    if weights.exists() and isinstance(model, SavesWeights):
        try:
            model.restore(weights)
        except Exception as error:
            raise CrossmedError(
                f"The weights in {weights} cannot be read ({type(error).__name__}: {error}).",
                hint="Delete that folder and run the same command again to train anew.",
            ) from error
        shutil.rmtree(checkpoint, ignore_errors=True)  # left if the run was killed between saving and this
        return
    drop_torn_line(log_path)

    fresh = True

    def log(step: int, total: int, **values: float) -> None:
        nonlocal fresh
        if fresh:  # a killed run goes on from its last checkpoint: what was logged after it happens again
            _forget_steps(log_path, step)
            fresh = False
        if values:
            append_rows(log_path, [{"step": step, "total": total, **values}])
        emit("fit", step, total, **values)

    with writing(checkpoint):
        checkpoint.mkdir(exist_ok=True)
    context = FitContext(seed, device, settings, checkpoint, log, warner(folder, emit))
    model.fit(train, val, context)
    if isinstance(model, SavesWeights):
        partial = folder / "model.partial"
        with writing(partial):
            if partial.exists():
                shutil.rmtree(partial)
            partial.mkdir()
            model.save(partial)
        replace_folder(partial, weights)
    with writing(checkpoint):
        shutil.rmtree(checkpoint)


def _forget_steps(path: Path, first: int) -> None:
    rows = read_rows(path)
    kept = [row for row in rows if row.get("step", 0) < first]
    if len(kept) < len(rows):
        rewrite_rows(path, kept)

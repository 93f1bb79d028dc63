"""One trial: split -> fit -> predict. The only module that sees everything, and it can be killed at any moment."""

from __future__ import annotations

import hashlib
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from crossmed_core.answers import answer_block
from crossmed_core.benchmark import Benchmark
from crossmed_core.catalog import Catalog, ResolvedModel
from crossmed_core.contracts import FitContext, Model, SavesWeights
from crossmed_core.errors import CrossmedError, ExitCode, UnreadableImageError
from crossmed_core.images import encode_mask, read_image, read_mask
from crossmed_core.runlog import (
    append_rows,
    drop_torn_line,
    item_from_json,
    item_to_json,
    locked,
    prediction_from_json,
    prediction_to_json,
    read_json,
    read_rows,
    replace_folder,
    write_bytes,
    write_json,
    writing,
)
from crossmed_core.scoring import Answers
from crossmed_core.splits import (
    SplitViolationError,
    matched,
    prove,
    require_cells,
    split_card,
    split_digest,
)
from crossmed_core.types import MAT, Item, MaskRef, Split

BLOCK = 64
"""Test items per call of `predict`. A block is predicted whole, so bytes do not depend on where a run was killed."""


@dataclass(frozen=True)
class TrialSpec:
    """What defines one trial. Picklable; equal specs give equal predictions.

    Attributes:
        model: Model name as asked for.
        options: Overrides of the model's options and training settings.
        split: Split name.
        target: Target cell.
        seed: Seed of the training draw, weights and augmentation.
        dataset: Dataset name.
        dataset_options: Options of the dataset.
        data: Root of the download, if it needs one.
        train_size: Training items, the same for all conditions compared; None = all.
        val_size: Validation items.
        test_size: Test items; None = all.
        device: "cpu" or "cuda".
        threads: CPU threads of the numeric libraries.
    """

    model: str
    split: str
    target: MAT
    seed: int
    dataset: str
    options: Mapping[str, Any] = field(default_factory=dict)
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None
    train_size: int | None = None
    val_size: int = 128
    test_size: int | None = None
    device: str = "cpu"
    threads: int = 1

    @property
    def id(self) -> str:
        """A readable name, unique within a run, usable as a folder name."""
        parts = (self.model, self.split, "-".join(self.target), f"s{self.seed}")
        return "__".join("".join(c if c.isalnum() or c in "._-" else "-" for c in part) for part in parts)

    @property
    def key(self) -> dict[str, Any]:
        """All of it as JSON, for trial.json; two trials with different keys never share a folder."""
        content = asdict(self)
        content |= {"target": str(self.target), "data": str(self.data) if self.data else None}
        return content


class Emit(Protocol):
    """Receives what a trial is doing, for bars and lines."""

    def __call__(self, phase: str, done: int, total: int, **values: Any) -> None:
        """Report progress of a phase: "images", "load", "fit", "predict" or "warning" (with `message`)."""


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        spec: The trial.
        status: "finished" or "failed".
        reused: Whether it had been finished before.
        message: Why it did not finish.
        seconds: Wall time spent now.
    """

    spec: TrialSpec
    status: str
    reused: bool = False
    message: str = ""
    seconds: float = 0.0


def make_split(benchmark: Benchmark, catalog: Catalog, resolved: ResolvedModel, spec: TrialSpec) -> Split:
    """Return the full pools of a trial, restricted to the cells that the model can answer, and proven disjoint.

    Raises:
        SplitViolationError: If the splitter breaks a promise.
    """
    keys = benchmark.keys_for(resolved.record.answers)
    splitter = catalog.splitter(spec.split)
    try:
        split = splitter(keys, target=spec.target, seed=spec.seed)
        prove(split, benchmark.keys)
    except CrossmedError:
        raise
    except (Exception, SystemExit) as error:
        raise CrossmedError(
            f"Split {spec.split!r} failed for {spec.target}: {type(error).__name__}: {error}."
        ) from error
    return split


def run_trial(spec: TrialSpec, folder: Path, catalog: Catalog, benchmark: Benchmark, emit: Emit) -> TrialResult:
    """Run, resume or reuse one trial.

    Args:
        spec: What to run.
        folder: The trial's own folder; created if missing.
        catalog: Where names are looked up.
        benchmark: The benchmark of `spec`.
        emit: Receives progress.

    Returns:
        How it ended. Expected failures are results, not exceptions, so that the other trials go on.

    Raises:
        CrossmedError: If the folder cannot be written or another process holds it; then no trial could go on.
    """
    started = time.monotonic()
    with locked(folder):
        state = _open_trial(spec, folder, benchmark)
        if state["status"] == "finished" and _is_complete(folder):
            return TrialResult(spec, "finished", reused=True)
        try:
            # `writing` makes a full disk, met anywhere, the end of the run: no other trial could go on either.
            with writing(folder, anything=False):
                _run(spec, folder, catalog, benchmark, emit)
        except (Exception, SystemExit) as error:  # a plugin's sys.exit must not end the run, least of all with its code
            if isinstance(error, CrossmedError) and error.exit_code is ExitCode.RUN_FOLDER:
                raise
            message = str(error) if isinstance(error, CrossmedError) else _with_traceback(error, folder)
            state |= {"status": "failed", "error": message}
            write_json(folder / "trial.json", state)
            return TrialResult(spec, "failed", message=message, seconds=time.monotonic() - started)
        seconds = round(time.monotonic() - started, 2)
        state |= {"status": "finished", "seconds": round(state.get("seconds", 0.0) + seconds, 2)}
        state.pop("error", None)
        write_json(folder / "trial.json", state)
    return TrialResult(spec, "finished", seconds=seconds)


def _is_complete(folder: Path) -> bool:
    """Whether every test item has its line; files may have been deleted since the trial finished."""
    card = folder / "split.json"
    wanted = set(read_json(card, ["test"])["test"]) if card.exists() else set()
    items = {row["id"] for row in read_rows(folder / "items.jsonl", ["id"])}
    return bool(wanted) and items == wanted <= {
        row["item"] for row in read_rows(folder / "predictions.jsonl", ["item"])
    }


def _with_traceback(error: BaseException, folder: Path) -> str:
    """Keep the traceback of a plugin's failure in a file, and return one line that points there."""
    path = folder / "error.txt"
    write_bytes(path, "".join(traceback.format_exception(error)).encode())
    first = (str(error).splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {first} (traceback in {path})"


def _open_trial(spec: TrialSpec, folder: Path, benchmark: Benchmark) -> dict[str, Any]:
    """Read or write trial.json.

    Raises:
        CrossmedError: If the folder holds another trial.
    """
    path = folder / "trial.json"
    key = {**spec.key, "benchmark_sha256": benchmark.digest}
    if path.exists():
        state = read_json(path, ["id", "status", "spec"])
        # Through JSON, so that tuples and lists compare equal.
        changed = [name for name in key if _as_json(state.get("spec", {}).get(name)) != _as_json(key[name])]
        if changed:
            was = ", ".join(f"{name} {state.get('spec', {}).get(name)!r} -> {key[name]!r}" for name in changed)
            raise CrossmedError(
                f"{folder} holds a trial with other settings ({was}).",
                hint="Choose another folder with --out, or delete this one.",
                exit_code=ExitCode.RUN_FOLDER,
            )
        return state
    state = {"id": spec.id, "status": "started", "spec": key}
    write_json(path, state)
    return state


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _as_json(inner) for name, inner in value.items()}
    return [_as_json(inner) for inner in value] if isinstance(value, list | tuple) else value


def _run(spec: TrialSpec, folder: Path, catalog: Catalog, benchmark: Benchmark, emit: Emit) -> None:
    resolved = catalog.model(spec.model, spec.options)
    split = make_split(benchmark, catalog, resolved, spec)
    require_cells(split, train=resolved.record.trains)
    split = matched(
        split,
        train=spec.train_size if resolved.record.trains else 0,
        val=spec.val_size if resolved.record.trains else 0,
        test=spec.test_size,
    )
    card_path = folder / "split.json"
    if not card_path.exists():
        write_json(card_path, split_card(split, benchmark.keys))
    elif read_json(card_path).get("sha256") != split_digest(split):
        raise CrossmedError(
            f"{card_path} records another split than the one made now.",
            hint="The split plugin changed; choose another folder with --out.",
            exit_code=ExitCode.RUN_FOLDER,
        )
    weights = folder / "model"
    answers = resolved.record.answers
    needed = (*split.test,) if weights.exists() else (*split.train, *split.val, *split.test)
    if not resolved.record.sees_images:
        needed = tuple(item for item in needed if benchmark.answered_by(benchmark.keys[item].mat, answers) == "mask")
    benchmark.materialise(needed, lambda done, total: emit("images", done, total))
    train, val, test = (benchmark.items(ids, answers) for ids in (split.train, split.val, split.test))
    if not weights.exists():
        _refuse_shared_images(train + val, test)
    _write_test_items(folder / "items.jsonl", test, benchmark.root, seen=resolved.record.sees_images)
    path = folder / "predictions.jsonl"
    done = {row["item"] for row in _resumable_rows(path)}
    if all(item.id in done for item in test):
        return
    emit("load", 0, 1)
    model = catalog.load_model(resolved, device=spec.device)
    if resolved.record.trains:
        _fit(model, train, val, spec, resolved, folder, emit)
    _predict(model, test, done, path, emit)


def _file_digest(item: Item) -> str | None:
    """Return the SHA-256 of an item's image: of its pixels where the benchmark records it, else of its file.

    None if the file cannot be read, which is reported when its turn comes.
    """
    if item.image.pixels is not None:
        return item.image.pixels
    try:
        read_image(item.image)  # broken files may well be alike: that is no leak
        return hashlib.sha256(Path(item.image.path).read_bytes()).hexdigest()
    except (UnreadableImageError, OSError):
        return None


def _refuse_shared_images(train: Sequence[Item], test: Sequence[Item]) -> None:
    """Refuse a test image whose bytes were trained on, under whatever name.

    Raises:
        SplitViolationError: Naming both items.
    """
    seen = {digest: item.id for item in train if (digest := _file_digest(item)) is not None}
    for item in test:
        other = seen.get(_file_digest(item) or "")
        if other is not None:
            raise SplitViolationError(f"test item {item.id!r} shows the same image file as training item {other!r}")


def _write_test_items(path: Path, test: Sequence[Item], root: Path, *, seen: bool) -> None:
    """Write the test items once, masks inline and digests of seen images with them: scoring needs no other file."""
    if [row["id"] for row in read_rows(path, ["id"])] == [item.id for item in test]:
        return
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        partial.unlink(missing_ok=True)
    append_rows(partial, (item_to_json(_self_contained(item, seen=seen), root) for item in test))
    with writing(path):
        partial.replace(path)


def _self_contained(item: Item, *, seen: bool) -> Item:
    """Add the image digest and bring the mask inline. A mask that cannot be read is left out: the item is unscored."""
    if seen:
        known = item.image.sha256 or item.image.pixels
        item = replace(item, image=item.image if known else replace(item.image, sha256=_file_digest(item)))
    if item.mask is None or item.mask.rle is not None:
        return item
    try:
        return replace(item, mask=MaskRef(rle=encode_mask(read_mask(item.mask))))
    except UnreadableImageError:
        return replace(item, mask=None)


def _fit(
    model: Model,
    train: Sequence[Item],
    val: Sequence[Item],
    spec: TrialSpec,
    resolved: ResolvedModel,
    folder: Path,
    emit: Emit,
) -> None:
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

    def warn(message: str) -> None:
        append_rows(log_path, [{"warning": message}])
        emit("warning", 0, 0, message=message)

    with writing(checkpoint):
        checkpoint.mkdir(exist_ok=True)
    context = FitContext(spec.seed, spec.device, resolved.settings, checkpoint, log, warn)
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
        with writing(path):
            path.unlink()
        append_rows(path, kept)


def _resumable_rows(path: Path) -> list[dict[str, Any]]:
    drop_torn_line(path)
    return read_rows(path, ["item"])


def _predict(model: Model, test: Sequence[Item], done: set[str], path: Path, emit: Emit) -> None:
    emit("predict", len(done), len(test))
    finished = 0
    for start in range(0, len(test), BLOCK):
        block = test[start : start + BLOCK]
        finished += len(block)
        missing = [item for item in block if item.id not in done]
        if missing:
            by_id = answer_block(model, block)
            append_rows(path, [prediction_to_json(by_id[item.id]) for item in missing])
        emit("predict", finished, len(test))


def read_trial(folder: Path) -> tuple[dict[str, Any], Answers]:
    """Read a trial's state and answers back, as far as it came.

    Raises:
        CrossmedError: If its files are damaged.
    """
    state = read_json(folder / "trial.json", ["id", "status", "spec"])
    card = folder / "split.json"
    try:
        spec = state["spec"]
        items = [item_from_json(row) for row in read_rows(folder / "items.jsonl")]
        rows = read_rows(folder / "predictions.jsonl", ["item"])
        predictions = {row["item"]: prediction_from_json(row) for row in rows}
        train = read_json(card, ["n"])["n"]["train"] if card.exists() else 0
        who = Answers(spec["model"], spec["split"], spec["target"], spec["seed"], [], train)
    except (KeyError, TypeError, ValueError) as error:
        raise CrossmedError(
            f"The files of trial {folder} are damaged ({type(error).__name__}: {error}).",
            hint="Delete that folder and run the same command again to make it anew.",
            exit_code=ExitCode.RUN_FOLDER,
        ) from error
    if state["status"] == "finished" and not _is_complete(folder):
        raise CrossmedError(
            f"Trial {folder} is finished, but items.jsonl or predictions.jsonl lacks test items of split.json.",
            hint="Run the same command again to make them anew.",
            exit_code=ExitCode.RUN_FOLDER,
        )
    return state, replace(who, pairs=[(item, predictions[item.id]) for item in items if item.id in predictions])

"""One trial: split -> fit -> predict, then controls and baselines. It can be killed at any moment.

The only module that sees everything.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from crossmed_core.benchmark import Benchmark
from crossmed_core.catalog import Catalog, ResolvedModel
from crossmed_core.contracts import DescribesItself, FitContext, Model, Warns
from crossmed_core.controls import controlled, why_not
from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.fitting import fit, warner
from crossmed_core.leaks import SignatureCache, prove_images
from crossmed_core.predicting import Emit, answered, orders_kept, predict
from crossmed_core.runlog import (
    locked,
    read_json,
    write_bytes,
    write_json,
    writing,
)
from crossmed_core.split_card import split_card
from crossmed_core.splits import SplitViolationError, draw, fair_order, matched, require_cells, split_digest
from crossmed_core.trial_files import NOT_INSTALLED, SEEN, Variant, is_complete, write_items
from crossmed_core.types import MAT, Item, Split, person

BASELINES = ("majority", "question-only")
"""Beside every result, trained on the same items; the chance level needs no model."""


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
        split_options: Options of the split.
        fraction: Share of the matched training size; smaller shares are nested in larger ones.
        option_orders: Cyclic orders of its options in which each test item is asked.
        controls: Controls to score beside the answers (`recipe.CONTROLS`).
        baselines: Models to train on the same items and score beside the answers.
        seen: Test items of the cells that were trained on, to be answered too.
        near_duplicates: "refuse" a test image that is a near-duplicate of a training image, or "report" it in the card.
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
    split_options: Mapping[str, Any] = field(default_factory=dict)
    fraction: float = 1.0
    option_orders: int = 1
    controls: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    seen: int = 0
    near_duplicates: str = "refuse"

    @property
    def id(self) -> str:
        """A readable name, unique within a run, usable as a folder name."""
        share = () if self.fraction == 1 else (f"f{self.fraction:g}",)
        parts = (self.model, self.split, "-".join(self.target), f"s{self.seed}", *share)
        return "__".join("".join(c if c.isalnum() or c in "._-" else "-" for c in part) for part in parts)

    @property
    def key(self) -> dict[str, Any]:
        """All that decides the answers, as JSON for trial.json; trials with different keys never share a folder."""
        content = asdict(self)
        for name in ("controls", "baselines", "seen"):
            del content[name]  # these change no answer, and may be asked for later
        content |= {"target": str(self.target), "data": str(self.data) if self.data else None}
        return content

    @property
    def variants(self) -> tuple[Variant, ...]:
        """What is wanted beside the answers."""
        found = [Variant("control", name) for name in self.controls]
        found += [Variant("baseline", name) for name in self.baselines if name != self.model]
        return (*found, Variant(SEEN)) if self.seen else tuple(found)


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
    splitter = catalog.splitter(spec.split, _known_options(catalog, spec))
    keys = benchmark.keys_for(resolved.record.answers)
    return draw(splitter, keys, name=spec.split, target=spec.target, seed=spec.seed)


def _known_options(catalog: Catalog, spec: TrialSpec) -> dict[str, Any]:
    """Return those of the study's split options that this split knows."""
    known = catalog.split_options(spec.split)
    return {name: value for name, value in spec.split_options.items() if name in known}


def _is_complete(spec: TrialSpec, folder: Path, state: Mapping[str, Any]) -> bool:
    return is_complete(folder, spec.variants, state.get("passed_over"), orders=spec.option_orders, seen=spec.seen)


def untrainable(resolved: ResolvedModel, split: Split) -> str:
    """Say why a model cannot be asked without training, where the split gives none; else ""."""
    record = resolved.record
    if split.trains or not record.trains or record.zero_shot:
        return ""
    return f"model {resolved.spec.name!r} knows nothing before it is trained, so {split.rule} cannot be asked of it"


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
        if state["status"] == "finished" and _is_complete(spec, folder, state):
            return TrialResult(spec, "finished", reused=True)
        try:
            # `writing` makes a full disk, met anywhere, the end of the run: no other trial could go on either.
            with writing(folder, anything=False):
                _run(spec, folder, catalog, benchmark, emit, state)
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


@cache
def _signatures() -> SignatureCache:
    """Return what this process knows of images; the trials of a study show the same ones over and over."""
    return SignatureCache()


def _run(
    spec: TrialSpec, folder: Path, catalog: Catalog, benchmark: Benchmark, emit: Emit, state: dict[str, Any]
) -> None:
    resolved = catalog.model(spec.model, spec.options)
    record = resolved.record
    split = make_split(benchmark, catalog, resolved, spec)
    trains = record.trains and split.trains
    if reason := untrainable(resolved, split):
        raise CrossmedError(reason)
    require_cells(split, train=trains)
    available = len(split.train)
    split = matched(
        split,
        train=spec.train_size if trains else 0,
        val=spec.val_size if trains else 0,
        test=spec.test_size,
    )
    weights = folder / "model"
    answers = record.answers
    seen_ids = _seen_cells(benchmark, split, resolved, spec.seen) if spec.seen and trains else ()
    baselines = [one for one in spec.variants if one.kind == "baseline"]
    seen_done = set(seen_ids) <= answered(Variant(SEEN).path(folder))
    fitted = weights.exists() and seen_done and all(set(split.test) <= answered(one.path(folder)) for one in baselines)
    needed = (*split.test, *seen_ids) if fitted else (*split.train, *split.val, *split.test, *seen_ids)
    if not record.sees_images:
        needed = tuple(item for item in needed if benchmark.answered_by(benchmark.keys[item].mat, answers) == "mask")
    benchmark.materialise(needed, lambda done, total: emit("images", done, total))
    train, val, test = (benchmark.items(ids, answers) for ids in (split.train, split.val, split.test))
    _write_card(spec, folder, catalog, benchmark, resolved, split, available, train + val, test)
    write_items(folder / "items.jsonl", test, benchmark.root, seen=record.sees_images)

    @cache
    def ready() -> Model:
        emit("load", 0, 1)
        model = catalog.load_model(resolved, device=spec.device)
        if isinstance(model, Warns):
            model.warn = warner(folder, emit)
        if trains:
            fit(model, train, val, folder, emit, seed=spec.seed, device=spec.device, settings=resolved.settings)
        if isinstance(model, DescribesItself):
            state["model"] = dict(model.facts())
            write_json(folder / "trial.json", state)
        return model

    def ask(path: Path, items: Sequence[Item], **how: Any) -> None:
        if not {item.id for item in items} <= answered(path) or "singles" in how:
            path.parent.mkdir(exist_ok=True)
            predict(ready(), items, path, emit, seed=spec.seed, orders=spec.option_orders, **how)

    path, singles = folder / "predictions.jsonl", folder / "orders.jsonl"
    if spec.option_orders == 1:
        ask(path, test)
    elif not (set(split.test) <= answered(path) and orders_kept(singles, test, spec.option_orders)):
        ask(path, test, singles=singles)

    def answer(variant: Variant) -> str:
        """Answer as a variant asks; return why it says nothing here, or ""."""
        if variant.kind == "control":
            if not (reason := why_not(variant.name, record)):
                ask(variant.path(folder), test, asked=controlled(variant.name, test, benchmark.questions))
            return reason
        if variant.kind == "baseline":
            return _run_baseline(variant, spec, folder, catalog, train, val, test, emit)
        seen = benchmark.items(seen_ids, answers)
        if not seen:
            return "no other cell that is answered alike was trained on"
        if not seen_done or not (folder / SEEN / "card.json").exists():
            refuse = spec.near_duplicates == "refuse"
            proof = {}
            if record.sees_images:
                proof = prove_images(train + val, seen, _signatures(), refuse=refuse).to_json()
            (folder / SEEN).mkdir(exist_ok=True)
        else:
            proof = read_json(folder / SEEN / "card.json").get("proof", {})
        write_items(folder / SEEN / "items.jsonl", seen, benchmark.root, seen=record.sees_images)
        ask(variant.path(folder), seen)
        write_json(folder / SEEN / "card.json", {"asked": spec.seen, "n": len(seen), "proof": proof})
        return ""

    passed_over: dict[str, str] = {}
    failed: dict[str, str] = {}
    for variant in spec.variants:
        # What stands beside the answers must not take them down with it.
        try:
            reason = answer(variant)
        except (Exception, SystemExit) as error:
            if isinstance(error, CrossmedError) and error.exit_code is ExitCode.RUN_FOLDER:
                raise
            failed[str(variant)] = str(error) if isinstance(error, CrossmedError) else _with_traceback(error, folder)
            emit("warning", 0, 0, message=f"{variant} failed, the answers themselves stand: {failed[str(variant)]}")
            continue
        if reason:
            passed_over[str(variant)] = reason
    state["passed_over"] = passed_over
    state.pop("failed_beside", None)
    if failed:
        state["failed_beside"] = failed


def _write_card(
    spec: TrialSpec,
    folder: Path,
    catalog: Catalog,
    benchmark: Benchmark,
    resolved: ResolvedModel,
    split: Split,
    available: int,
    train: Sequence[Item],
    test: Sequence[Item],
) -> None:
    """Prove the split and write its card, or check that the card there is of this split.

    Raises:
        SplitViolationError: If a test image was trained on.
        CrossmedError: If the card is of another split.
    """
    path = folder / "split.json"
    if path.exists():
        if read_json(path).get("sha256") != split_digest(split):
            raise CrossmedError(
                f"{path} records another split than the one made now.",
                hint="The split plugin changed; choose another folder with --out.",
                exit_code=ExitCode.RUN_FOLDER,
            )
        return
    if resolved.record.sees_images and train:
        refuse = spec.near_duplicates == "refuse"
        images = prove_images(train, test, _signatures(), refuse=refuse).to_json()
    else:
        images = {"result": "not compared: nothing is trained on, or the model never looks at an image"}
    settings = resolved.settings
    matching = {
        "fraction": spec.fraction,
        "available": available,
        "steps": settings.steps if train else 0,
        "items_per_step": settings.batch_size * settings.accumulate if train else 0,
    }
    chosen = catalog.split_settings(spec.split, _known_options(catalog, spec))
    card = split_card(split, benchmark.keys, settings=chosen, proof={"images": images}, matching=matching)
    write_json(path, card)


def _seen_cells(benchmark: Benchmark, split: Split, resolved: ResolvedModel, n: int) -> tuple[str, ...]:
    """Return test items of the training cells, even over cells, labels as frequent as they are; alike for every seed.

    Raises:
        SplitViolationError: If one of their patients was trained on.
    """

    def asked_alike(cell: MAT) -> bool:
        kinds = benchmark.questions[cell].kind, benchmark.answered_by(cell, resolved.record.answers)
        own = benchmark.questions[split.target].kind, benchmark.answered_by(split.target, resolved.record.answers)
        return kinds == own

    # Cells that are answered as the target is: the same metrics score them.
    cells = {cell for cell in split.cells if cell != split.target and asked_alike(cell)}
    keys = [key for key in benchmark.keys_for(resolved.record.answers) if key.part == "test" and key.mat in cells]
    trained = {person(benchmark.keys[item].dataset, benchmark.keys[item].patient) for item in split.train + split.val}
    for key in keys:
        if person(key.dataset, key.patient) in trained:
            raise SplitViolationError(
                f"{split.rule}: patient {key.patient!r} of {key.dataset} is tested in {key.mat} and trained on"
            )
    return fair_order((key._replace(label="") for key in keys), seed=0)[:n]


def _run_baseline(
    variant: Variant,
    spec: TrialSpec,
    folder: Path,
    catalog: Catalog,
    train: Sequence[Item],
    val: Sequence[Item],
    test: Sequence[Item],
    emit: Emit,
) -> str:
    """Train a baseline on the same items and ask it; return why it says nothing here, or ""."""
    if variant.name not in catalog.plugins.records("model"):
        return NOT_INSTALLED
    resolved = catalog.model(variant.name)
    if resolved.record.trains and not train:
        return "there is nothing to train on"
    if variant.name == "question-only" and test[0].kind == "mask":
        return "a mask has no options to choose among"
    path = variant.path(folder)
    if {item.id for item in test} <= answered(path):
        return ""
    path.parent.mkdir(exist_ok=True)
    model = catalog.load_model(resolved, device="cpu")
    warn = warner(folder, emit)
    model.fit(train, val, FitContext(spec.seed, "cpu", resolved.settings, warn=warn))
    predict(model, test, path, lambda *phase, **values: None, seed=spec.seed, orders=spec.option_orders)
    return ""

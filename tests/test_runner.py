"""Trials: run, resumed, reused; killed at any moment; with broken files, models and folders."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossmed_core.benchmark import Benchmark
from crossmed_core.catalog import Catalog
from crossmed_core.errors import CrossmedError
from crossmed_core.plugins import PluginConfig
from crossmed_core.predicting import BLOCK
from crossmed_core.runlog import locked, read_json, read_rows
from crossmed_core.runner import TrialSpec, run_trial
from crossmed_core.trial_files import read_trial
from crossmed_core.types import MAT, Item, Prediction

SMALL = {"modalities": "xray,ct,t2", "anatomies": "chest,brain", "train": 64, "val": 8, "test": 96}
TARGET = MAT("t2", "brain", "finding")
MASKS = MAT("ct", "chest", "segmentation")


def quiet(phase: str, done: int, total: int, **values: Any) -> None:
    pass


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def benchmark(catalog: Catalog) -> Benchmark:
    return catalog.benchmark("phantom", SMALL, None)


def trial(model: str = "majority", **more: Any) -> TrialSpec:
    base = TrialSpec(model, "related", TARGET, 0, "phantom", dataset_options=SMALL, train_size=64, val_size=16)
    return replace(base, **more)


TINY_RUN = {"model": "cnn-tiny", "options": {"steps": 6, "batch_size": 8}, "train_size": 32}


def run(spec: TrialSpec, folder: Path, catalog: Catalog, benchmark: Benchmark, emit: Any = quiet) -> bytes:
    result = run_trial(spec, folder, catalog, benchmark, emit)
    assert result.status == "finished", result.message
    return (folder / "predictions.jsonl").read_bytes()


def test_a_trial_leaves_all_that_scoring_needs(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    for target in (TARGET, MASKS):
        folder = tmp_path / str(target).replace("/", "-")
        run(trial("oracle", target=target), folder, catalog, benchmark)
        state, (answers, *_) = read_trial(folder)
        assert state["status"] == "finished" and state["spec"]["benchmark_sha256"] == benchmark.digest
        assert len(answers.pairs) == 96 and all(prediction.scored for _, prediction in answers.pairs)
        kind = answers.pairs[0][0].kind
        for name, metric in catalog.metrics_for(kind).items():
            assert metric(answers.pairs) == (0.0 if catalog.metric(name)[0].lower_is_better else 1.0), name
        card = read_json(folder / "split.json")
        assert card["n"] == {"train": 0, "val": 0, "test": 96}, "an oracle trains on nothing"


def test_the_same_spec_is_reused_and_another_refused(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    first = run(trial(), tmp_path / "t", catalog, benchmark)
    again = run_trial(trial(), tmp_path / "t", catalog, benchmark, quiet)
    assert again.reused and (tmp_path / "t" / "predictions.jsonl").read_bytes() == first
    with pytest.raises(CrossmedError, match=r"other settings \(seed 0 -> 1\)"):
        run_trial(trial(seed=1), tmp_path / "t", catalog, benchmark, quiet)


def test_predictions_cut_anywhere_end_the_same(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    spec = trial(**TINY_RUN)
    whole = run(spec, tmp_path / "whole", catalog, benchmark)
    path = tmp_path / "whole" / "predictions.jsonl"
    rng = random.Random(0)
    for cut in [0, 1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(3))]:
        path.write_bytes(whole[:cut])
        state = read_json(tmp_path / "whole" / "trial.json")
        (tmp_path / "whole" / "trial.json").write_text(json.dumps({**state, "status": "started"}))
        assert run(spec, tmp_path / "whole", catalog, benchmark) == whole, f"cut at {cut}"
    assert len(whole.splitlines()) == 96 > BLOCK


class DiedError(Exception):
    pass


def test_an_interrupted_fit_goes_on(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    spec = trial(**{**TINY_RUN, "options": {"steps": 6, "batch_size": 8, "checkpoint_seconds": 0.0}})
    whole = run(spec, tmp_path / "whole", catalog, benchmark)
    seen: list[int] = []

    def dying(phase: str, done: int, total: int, **values: Any) -> None:
        if phase == "fit":
            seen.append(done)
            if len(seen) == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(spec, tmp_path / "cut", catalog, benchmark, dying)
    assert read_json(tmp_path / "cut" / "trial.json")["status"] == "started"
    assert run(spec, tmp_path / "cut", catalog, benchmark, dying) == whole
    assert seen[4] == 4, "training went on at the step after the last checkpoint"
    assert not (tmp_path / "cut" / "checkpoint").exists()


def test_a_corrupt_image_costs_one_item(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    mine = catalog.benchmark("phantom", {**SMALL, "seed": 7}, None)
    spec = replace(trial(**TINY_RUN), dataset_options={**SMALL, "seed": 7})
    mine.materialise(list(mine.keys))
    victim = mine.items([key.id for key in mine.keys.values() if key.mat == TARGET and key.part == "test"])[5]
    trained = mine.items([key.id for key in mine.keys.values() if key.mat[:2] == TARGET[:2] and key.part == "train"])
    Path(victim.image.path).write_bytes(b"\x89PNG broken")
    for item in trained:
        Path(item.image.path).write_bytes(b"")
    told: list[str] = []

    def emit(phase: str, done: int, total: int, **values: Any) -> None:
        if phase == "warning":
            told.append(values["message"])

    run(spec, tmp_path / "t", catalog, mine, emit)
    rows = {row["item"]: row for row in read_rows(tmp_path / "t" / "predictions.jsonl")}
    assert victim.image.path in rows[victim.id]["error"] and "option" not in rows[victim.id]
    assert sum("error" in row for row in rows.values()) == 1 and len(rows) == 96
    assert told and all("left out" in message for message in told)


def test_an_image_trained_on_under_another_name_is_refused(tmp_path: Path, catalog: Catalog) -> None:
    mine = catalog.benchmark("phantom", {**SMALL, "seed": 8}, None)
    spec = replace(trial(**TINY_RUN), dataset_options={**SMALL, "seed": 8}, train_size=64)
    result = run_trial(spec, tmp_path / "first", catalog, mine, quiet)
    card = read_json(tmp_path / "first" / "split.json")
    train, test = mine.items(card["train"][:1]) + mine.items(card["test"][:1])
    assert result.status == "finished"
    Path(test.image.path).write_bytes(Path(train.image.path).read_bytes())
    leaky = run_trial(spec, tmp_path / "second", catalog, mine, quiet)
    assert leaky.status == "failed" and train.id in leaky.message and test.id in leaky.message


# -- models that misbehave --------------------------------------------------------------------------------------------

BAD_MODEL = """
from collections.abc import Sequence
from crossmed_core import hookimpl
from crossmed_core.records import ModelRecord
from crossmed_core.types import Prediction


BAD = set()


def chosen(items):
    # One item of each block, the same one when it is asked alone.
    if len(items) > 1:
        BAD.add(items[10].id)
    return BAD


class Model:
    def fit(self, train, val, context):
        if KIND == "fit":
            raise ValueError("no such thing\\nsecond line")

    def predict(self, items):
        for number, item in enumerate(items):
            if KIND == "all":
                raise RuntimeError("always")
            if item.id not in chosen(items):
                yield Prediction(item.id, option=0)
            elif KIND == "raises":
                raise RuntimeError("out of memory")
            elif KIND == "exits":
                raise SystemExit(0)
            elif KIND == "silent":
                continue
            elif KIND == "text":
                yield Prediction(item.id, option="A")
            elif KIND == "scores":
                yield Prediction(item.id, option=0, option_scores=(0.5, 0.5))
            elif KIND == "garbage":
                yield "A"
            elif KIND == "range":
                yield Prediction(item.id, option=4)
            elif KIND == "nan":
                yield Prediction(item.id, option=0, option_scores=(float("nan"), 0.0, 0.0, 0.0))
            elif KIND == "refuses":
                yield Prediction(item.id, raw="I am not a doctor.", error="refused")
            else:
                yield Prediction(item.id, option=0)


class Family:
    def load(self, spec, *, device):
        return Model()

    def tiny(self, *, device):
        return Model()


@hookimpl
def crossmed_models():
    yield ModelRecord(name="bad", summary="bad", target=f"{__name__}:Family")
"""


@pytest.mark.parametrize(
    ("kind", "errors", "reason"),
    [
        ("raises", 2, "the model failed: RuntimeError: out of memory"),
        ("text", 2, "option 'A' is not the number of an option"),
        ("scores", 2, "2 option scores for 4 options"),
        ("garbage", 2, "the model failed: TypeError: predict yielded str, not Prediction"),
        ("silent", 2, "returned no prediction"),
        ("exits", 2, "the model failed: SystemExit: 0"),
        ("range", 2, "option 4 is not one of the 4"),
        ("nan", 2, "not numbers"),
        ("refuses", 2, "refused"),
    ],
)
def test_a_bad_answer_is_an_error_row(kind: str, errors: int, reason: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(f"KIND = {kind!r}\n{BAD_MODEL}")
    catalog = Catalog.with_files(PluginConfig(files=(tmp_path / "bad.py",)))
    run(trial("bad"), tmp_path / "t", catalog, catalog.benchmark("phantom", SMALL, None))
    rows = read_rows(tmp_path / "t" / "predictions.jsonl")
    wrong = [row for row in rows if "error" in row]
    assert len(rows) == 96 and len(wrong) == errors and all(reason in row["error"] for row in wrong)


def test_a_model_that_fails_on_everything_fails_its_trial(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(f"KIND = 'all'\n{BAD_MODEL}")
    catalog = Catalog.with_files(PluginConfig(files=(tmp_path / "bad.py",)))
    benchmark = catalog.benchmark("phantom", SMALL, None)
    result = run_trial(trial("bad"), tmp_path / "t", catalog, benchmark, quiet)
    assert result.status == "failed" and result.message.startswith("RuntimeError: always")
    assert not (tmp_path / "t" / "predictions.jsonl").exists(), "nothing that a second try would reuse"


def test_numpy_numbers_and_bad_run_lengths() -> None:
    import numpy as np

    from crossmed_core.answers import checked
    from crossmed_core.types import RLE, ImageRef, MaskRef

    asked = Item("i", "d", TARGET, "p", "test", ImageRef("/x"), "?", ("a", "b"), 0, "a")
    scores = np.array([0.25, 0.75], dtype=np.float32)
    answer = checked(asked, Prediction("i", option=np.int64(1), option_scores=scores))  # type: ignore[arg-type]
    assert answer == Prediction("i", option=1, option_scores=(0.25, 0.75)) and type(answer.option) is int
    masked = Item("i", "d", MASKS, "p", "test", ImageRef("/x"), "?", mask=MaskRef(rle=RLE((2, 2), (1, 3))))
    assert "sum to 3" in str(checked(masked, Prediction("i", mask=RLE((2, 2), (1, 2)))).error)
    assert checked(masked, Prediction("i", mask=RLE((2, 2), (1, 3)))).scored


def test_deleted_predictions_are_made_anew(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    first = run(trial(), tmp_path / "t", catalog, benchmark)
    (tmp_path / "t" / "predictions.jsonl").unlink()
    assert run(trial(), tmp_path / "t", catalog, benchmark) == first


def test_lost_items_are_noticed_and_made_anew(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    first = run(trial(), tmp_path / "t", catalog, benchmark)
    for name in ("items.jsonl", "predictions.jsonl"):
        path = tmp_path / "t" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-20])
        with pytest.raises(CrossmedError, match="lacks test items"):
            read_trial(tmp_path / "t")
        assert run(trial(), tmp_path / "t", catalog, benchmark) == first and path.read_bytes() == whole


def test_a_fit_that_fails_fails_its_trial_and_can_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(f"KIND = 'fit'\n{BAD_MODEL}")
    catalog = Catalog.with_files(PluginConfig(files=(tmp_path / "bad.py",)))
    benchmark = catalog.benchmark("phantom", SMALL, None)
    result = run_trial(trial("bad"), tmp_path / "t", catalog, benchmark, quiet)
    assert result.status == "failed" and result.message.startswith("ValueError: no such thing (traceback in")
    assert "second line" in (tmp_path / "t" / "error.txt").read_text()
    sys.modules["crossmed_local_bad"].KIND = "mended"  # type: ignore[attr-defined]
    assert run_trial(trial("bad"), tmp_path / "t", catalog, benchmark, quiet).status == "finished"


def test_a_trial_folder_is_held_by_one_process(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    with locked(tmp_path / "t"), pytest.raises(CrossmedError, match="Another process"):
        run_trial(trial(), tmp_path / "t", catalog, benchmark, quiet)


# -- the whole command, killed ----------------------------------------------------------------------------------------


def command(out: Path) -> list[str]:
    options = [f"--dataset-option={key}={value}" for key, value in SMALL.items()]
    settings = ["--set=steps=30", "--set=batch_size=8", "--set=checkpoint_seconds=0.05"]
    chosen = ["--model=cnn-tiny", "--split=related,in-domain", "--target=t2/brain/finding", "--train-size=48"]
    return [sys.executable, "-m", "crossmed_cli.main", "run", *chosen, *settings, *options, f"--out={out}", "--jobs=2"]


def predictions(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("predictions.jsonl"))}


def wait_for(path_pattern: str, out: Path, seconds: float) -> Iterator[float]:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not any(out.rglob(path_pattern)):
        yield time.monotonic()
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_three_times_it_gives_the_same_bytes(tmp_path: Path) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True, env=env, timeout=300)
    rng = random.Random()
    for death, awaited in enumerate(("split.json", "checkpoint.pt", "predictions.jsonl")):
        process = subprocess.Popen(
            command(tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
        )
        for _ in wait_for(awaited, tmp_path / "killed", 120):
            if process.poll() is not None:
                break
        time.sleep(rng.random() * 0.5)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        assert any((tmp_path / "killed").rglob(awaited)), f"death {death} came too early to matter"
    done = subprocess.run(
        command(tmp_path / "killed"), check=True, capture_output=True, text=True, env=env, timeout=300
    )
    assert "going on" in done.stderr
    whole = predictions(tmp_path / "whole")
    assert len(whole) == 2 and predictions(tmp_path / "killed") == whole


@pytest.mark.slow
def test_ctrl_c_ends_the_workers(tmp_path: Path) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    long = [*command(tmp_path / "run"), "--set=steps=100000"]
    process = subprocess.Popen(long, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env, text=True)
    for _ in wait_for("checkpoint.pt", tmp_path / "run", 120):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "The same command goes on" in said and "Traceback" not in said
    for trial_folder in (tmp_path / "run" / "trials").iterdir():
        with locked(trial_folder):  # nobody trains on
            pass
    assert read_json(tmp_path / "run" / "run.json")["status"] == "interrupted"


def test_a_plugin_model_may_be_this_simple() -> None:
    class Simple:
        def fit(self, train: Sequence[Item], val: Sequence[Item], context: object) -> None: ...

        def predict(self, items: Sequence[Item]) -> Iterator[Prediction]:
            for item in items:
                yield Prediction(item.id, option=0)

    from crossmed_core.contracts import Model

    assert isinstance(Simple(), Model)

"""Controls, baselines and seen cells of a trial; zero-shot; what can be added to a finished trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossmed_core.benchmark import Benchmark
from crossmed_core.catalog import Catalog
from crossmed_core.plugins import PluginConfig
from crossmed_core.runlog import read_json, read_rows
from crossmed_core.runner import BASELINES, TrialSpec, run_trial
from crossmed_core.scoring import Answers
from crossmed_core.trial_files import read_trial
from crossmed_core.types import MAT, Split, person

SMALL = {"modalities": "xray,ct,t2", "anatomies": "chest,brain", "train": 64, "val": 8, "test": 96}
TARGET = MAT("t2", "brain", "finding")
MASKS = MAT("ct", "chest", "segmentation")
CNN: dict[str, Any] = {"model": "cnn-tiny", "options": {"steps": 6, "batch_size": 8}, "train_size": 32}

READER = '''
"""Says in its own words what it was asked, and answers by what it was not denied."""
from crossmed_core import hookimpl
from crossmed_core.images import read_image
from crossmed_core.records import ModelRecord
from crossmed_core.types import Prediction


class Model:
    def fit(self, train, val, context):
        raise AssertionError("a zero-shot model is not trained")

    def predict(self, items):
        for item in items:
            told = [f"withheld {'+'.join(sorted(item.withheld))}", f"question {item.question}"]
            told += [f"grey {read_image(item.image).std():.0f}"] if "image" not in item.withheld else []
            right = item.answer if not item.withheld and not item.image.blank else (item.answer + 1) % 4
            yield Prediction(item.id, option=right, raw="; ".join(told))


class Family:
    def load(self, spec, *, device):
        return Model()

    def tiny(self, *, device):
        return Model()


@hookimpl
def crossmed_models():
    yield ModelRecord(
        name="reader", summary="Reads words and sees images", target="reader_plugin:Family", reads_text=True,
        zero_shot=True,
    )
'''


def quiet(phase: str, done: int, total: int, **values: Any) -> None:
    pass


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    path = tmp_path / "reader_plugin.py"
    path.write_text(READER)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Catalog.with_files(PluginConfig(files=(path,)))


@pytest.fixture
def benchmark(catalog: Catalog) -> Benchmark:
    return catalog.benchmark("phantom", SMALL, None)


def trial(model: str = "majority", **more: Any) -> TrialSpec:
    base = TrialSpec(model, "related", TARGET, 0, "phantom", dataset_options=SMALL, train_size=64, val_size=16)
    return replace(base, **more)


def run(
    spec: TrialSpec, folder: Path, catalog: Catalog, benchmark: Benchmark
) -> tuple[dict[str, Any], dict[str, Answers]]:
    result = run_trial(spec, folder, catalog, benchmark, quiet)
    assert result.status == "finished", result.message
    state, found = read_trial(folder)
    return state, {one.variant: one for one in found}


def accuracy(answers: Answers) -> float:
    return sum(p.option == i.answer for i, p in answers.pairs) / len(answers.pairs)


def test_each_control_reaches_a_model_that_reads_and_sees(
    tmp_path: Path, catalog: Catalog, benchmark: Benchmark
) -> None:
    controls = ("text-only", "options-only", "blank-image", "shuffled-image", "wrong-mat")
    state, found = run(trial("reader", split="zero-shot", controls=controls), tmp_path / "t", catalog, benchmark)
    assert set(found) == {"", *(f"control:{name}" for name in controls)} and state["passed_over"] == {}
    assert {name: accuracy(one) for name, one in found.items()} == {
        "": 1.0, "control:text-only": 0.0, "control:options-only": 0.0, "control:blank-image": 0.0,
        "control:shuffled-image": 1.0, "control:wrong-mat": 1.0,
    }  # fmt: skip
    said = {name: [p.raw or "" for _, p in one.pairs] for name, one in found.items()}
    assert all(
        "withheld image; question Which" in one or "withheld image; question What" in one or "brain" in one
        for one in said["control:text-only"]
    )
    assert not any("grey" in one for one in said["control:text-only"] + said["control:options-only"])
    assert set(said["control:options-only"]) == {"withheld image+question; question "}
    assert all(one.endswith("grey 0") for one in said["control:blank-image"])
    assert not any("brain" in one for one in said["control:wrong-mat"])
    real = [one.rpartition("; ")[2] for one in said[""]]
    shuffled = [one.rpartition("; ")[2] for one in said["control:shuffled-image"]]
    assert sorted(real) == sorted(shuffled), "the same images ..."
    assert real != shuffled, "... of other items"
    for one in found.values():
        assert [item.id for item, _ in one.pairs] == [item.id for item, _ in found[""].pairs]


def test_what_does_not_apply_is_passed_over_with_a_reason(
    tmp_path: Path, catalog: Catalog, benchmark: Benchmark
) -> None:
    state, found = run(
        trial(controls=("text-only", "blank-image"), baselines=BASELINES), tmp_path / "t", catalog, benchmark
    )
    assert set(found) == {"", "baseline:question-only"}, "majority is no baseline of itself"
    assert state["passed_over"]["control:blank-image"] == "the model never looks at an image"
    again = run_trial(
        trial(controls=("text-only", "blank-image"), baselines=BASELINES), tmp_path / "t", catalog, benchmark, quiet
    )
    assert again.reused


def test_controls_can_be_added_to_a_finished_trial_without_training(
    tmp_path: Path, catalog: Catalog, benchmark: Benchmark
) -> None:
    spec = trial(**CNN)
    run(spec, tmp_path / "t", catalog, benchmark)
    before = (tmp_path / "t" / "predictions.jsonl").read_bytes()
    weights = (tmp_path / "t" / "model" / "model.safetensors").stat().st_mtime_ns
    more = replace(spec, controls=("blank-image", "shuffled-image"), baselines=BASELINES, seen=40)
    _state, found = run(more, tmp_path / "t", catalog, benchmark)
    assert set(found) == {
        "", "control:blank-image", "control:shuffled-image", "baseline:majority", "baseline:question-only", "seen"
    }  # fmt: skip
    assert (tmp_path / "t" / "predictions.jsonl").read_bytes() == before
    assert (tmp_path / "t" / "model" / "model.safetensors").stat().st_mtime_ns == weights
    assert len(found["seen"].pairs) == 40 and {len(one.pairs) for name, one in found.items() if name != "seen"} == {96}
    assert run_trial(more, tmp_path / "t", catalog, benchmark, quiet).reused
    assert run_trial(spec, tmp_path / "t", catalog, benchmark, quiet).reused, "and without them, too"

    # All at once gives the same bytes as one after the other; a lost file is made again.
    run(more, tmp_path / "once", catalog, benchmark)
    for path in sorted((tmp_path / "once").rglob("*.jsonl")):
        name = path.relative_to(tmp_path / "once")
        if name.name != "train.jsonl":
            assert path.read_bytes() == (tmp_path / "t" / name).read_bytes(), name
    lost = tmp_path / "t" / "controls" / "shuffled-image.jsonl"
    whole = lost.read_bytes()
    lost.write_bytes(whole[: len(whole) // 2])
    result = run_trial(more, tmp_path / "t", catalog, benchmark, quiet)
    assert result.status == "finished" and not result.reused and lost.read_bytes() == whole


def test_seen_items_are_tested_items_of_other_people(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    _, found = run(trial(**CNN, seen=48), tmp_path / "t", catalog, benchmark)
    card = read_json(tmp_path / "t" / "split.json")
    items = [item for item, _ in found["seen"].pairs]
    assert {item.part for item in items} == {"test"}
    assert {str(item.mat) for item in items} == set(card["cells"]) and str(TARGET) not in card["cells"]
    trained = {person("phantom", benchmark.keys[one].patient) for one in card["train"] + card["val"]}
    assert not trained & {person(item.dataset, item.patient) for item in items}
    state, found = run(trial(**CNN, seen=48, split="in-domain"), tmp_path / "own", catalog, benchmark)
    assert "seen" not in found and "no other cell" in state["passed_over"]["seen"]


def test_a_baseline_of_masks_needs_no_image_of_options(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    spec = trial("fpn-tiny", target=MASKS, options={"steps": 2, "batch_size": 4}, train_size=8, baselines=BASELINES)
    state, found = run(spec, tmp_path / "t", catalog, benchmark)
    assert set(found) == {"", "baseline:majority"} and "mask" in state["passed_over"]["baseline:question-only"]
    assert all(p.mask is not None for _, p in found["baseline:majority"].pairs)


def test_a_network_is_not_asked_zero_shot(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    result = run_trial(trial(**CNN, split="zero-shot"), tmp_path / "t", catalog, benchmark, quiet)
    assert result.status == "failed" and "knows nothing before it is trained" in result.message
    _, found = run(trial(split="zero-shot", baselines=BASELINES), tmp_path / "m", catalog, benchmark)
    assert set(found) == {""} and all(p.guess for _, p in found[""].pairs), "majority without training is a coin"


def test_option_orders_are_part_of_what_a_trial_is(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    spec = trial("question-only", option_orders=4)
    _, found = run(spec, tmp_path / "t", catalog, benchmark)
    assert {len(one) for one in found[""].orders.values()} == {4} and len(found[""].orders) == 96
    assert len(read_rows(tmp_path / "t" / "orders.jsonl")) == 4 * 96
    from crossmed_core.errors import CrossmedError

    with pytest.raises(CrossmedError, match=r"option_orders 4 -> 1"):
        run_trial(replace(spec, option_orders=1), tmp_path / "t", catalog, benchmark, quiet)


def test_a_patient_of_a_seen_cell_that_was_trained_on_fails(
    tmp_path: Path, catalog: Catalog, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossmed_core import runner

    real = runner.make_split

    def leaky(*arguments: Any) -> Split:
        split = real(*arguments)
        item = next(k for k in benchmark.keys.values() if k.part == "test" and k.mat in split.cells)
        benchmark.keys[split.train[0]] = benchmark.keys[split.train[0]]._replace(patient=item.patient)  # type: ignore[index]
        return split

    monkeypatch.setattr(runner, "make_split", leaky)
    result = run_trial(trial(**CNN, seen=8), tmp_path / "t", catalog, benchmark, quiet)
    assert result.status == "failed" and "trained on" in result.message


def test_more_seen_items_can_be_asked_for(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    run(trial(**CNN, seen=16), tmp_path / "t", catalog, benchmark)
    first = read_rows(tmp_path / "t" / "seen" / "predictions.jsonl")
    _, found = run(trial(**CNN, seen=40), tmp_path / "t", catalog, benchmark)
    assert len(found["seen"].pairs) == 40
    assert read_rows(tmp_path / "t" / "seen" / "predictions.jsonl")[:16] == first, "the smaller set is part of it"
    card = read_json(tmp_path / "t" / "seen" / "card.json")
    assert card["asked"] == 40 and card["proof"]["test"] == 40, "and it was compared with the training images"


def test_a_control_that_fails_leaves_the_answers_alone(
    tmp_path: Path, catalog: Catalog, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossmed_core import runner

    def broken(*arguments: Any) -> Any:
        raise MemoryError("no room")

    run(trial(**CNN), tmp_path / "t", catalog, benchmark)
    more = trial(**CNN, controls=("blank-image",), baselines=BASELINES)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "controlled", broken)
        state, found = run(more, tmp_path / "t", catalog, benchmark)
    assert state["status"] == "finished" and "MemoryError" in state["failed_beside"]["control:blank-image"]
    assert set(found) == {"", "baseline:majority", "baseline:question-only"}
    state, found = run(more, tmp_path / "t", catalog, benchmark)
    assert "control:blank-image" in found and "failed_beside" not in state, "it is tried again"


def test_lost_single_orders_are_asked_again(tmp_path: Path, catalog: Catalog, benchmark: Benchmark) -> None:
    spec = trial("question-only", option_orders=4, controls=("text-only",))
    run(spec, tmp_path / "t", catalog, benchmark)
    singles, answers = ((tmp_path / "t" / name).read_bytes() for name in ("orders.jsonl", "predictions.jsonl"))
    for left in (b"", b"".join(singles.splitlines(keepends=True)[:130])):
        (tmp_path / "t" / "orders.jsonl").write_bytes(left)
        assert not run_trial(spec, tmp_path / "t", catalog, benchmark, quiet).reused
        assert (tmp_path / "t" / "predictions.jsonl").read_bytes() == answers
        assert (tmp_path / "t" / "orders.jsonl").read_bytes() == singles
    assert run_trial(spec, tmp_path / "t", catalog, benchmark, quiet).reused


def test_controls_are_asked_in_the_same_orders_as_the_answers(
    tmp_path: Path, catalog: Catalog, benchmark: Benchmark
) -> None:
    # It reads words alone, so taking the image away changes nothing, whatever letters it prefers.
    spec = trial("question-only", option_orders=4, controls=("text-only",))
    _, found = run(spec, tmp_path / "t", catalog, benchmark)
    assert [p.option for _, p in found[""].pairs] == [p.option for _, p in found["control:text-only"].pairs]
    assert [p.option_scores for _, p in found[""].pairs] == [
        p.option_scores for _, p in found["control:text-only"].pairs
    ]

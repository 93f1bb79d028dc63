"""`compare`, `power`, `bound` and `factors`, end to end on small runs, with numbers worked out from the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from crossmed_cli.main import run
from crossmed_core.compare_runs import differing, match
from crossmed_core.run import read_answers
from crossmed_core.scoring import Answers
from crossmed_core.types import MAT, ImageRef, Item, Prediction

DATA = [
    f"--dataset-option={one}"
    for one in ("modalities=xray,ct,t2", "anatomies=chest,brain", "train=64", "val=8", "test=48")
]
BASE = ["run", "--jobs", "1", "--no-baselines", *DATA]
TARGET = "t2/brain/finding"


def out_of(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 0) -> tuple[str, str]:
    assert run(arguments) == code, capsys.readouterr().err
    captured = capsys.readouterr()
    return captured.out, captured.err


def rights(folder: str, split: str) -> dict[str, bool]:
    """Item id -> right, from the files."""
    (trial,) = [
        one
        for one in (Path(folder) / "trials").iterdir()
        if split in json.loads((one / "trial.json").read_text())["spec"]["split"]
    ]
    answers = {row["id"]: row["answer"] for row in map(json.loads, (trial / "items.jsonl").read_text().splitlines())}
    rows = map(json.loads, (trial / "predictions.jsonl").read_text().splitlines())
    return {row["item"]: row["option"] == answers[row["item"]] for row in rows}


@pytest.fixture
def two_runs(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    for model, name in (("chance", "a"), ("majority", "b")):
        out_of(capsys, [*BASE, "--model", model, "--target", TARGET, "--split", "related,in-domain", "--out", name])
    return in_tmp


def test_two_models_on_the_same_items(two_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(out_of(capsys, ["compare", "a", "b", "--items", "differ.jsonl", "--json"])[0])
    assert [(row["split"], row["metric"]) for row in content["rows"]] == [
        ("related", "accuracy"),
        ("in-domain", "accuracy"),
    ]
    assert content["left_out"] == {"only_first": [], "only_second": [], "differ": {}}
    lines = [json.loads(line) for line in Path("differ.jsonl").read_text().splitlines()]
    total = 0
    for row in content["rows"]:
        a, b = rights("a", row["split"]), rights("b", row["split"])
        only_a, only_b = sum(a[i] and not b[i] for i in a), sum(b[i] and not a[i] for i in a)
        assert (row["model_a"], row["model_b"], row["n"], row["patients"]) == ("chance", "majority", 48, 48)
        assert (row["only_a"], row["only_b"]) == (only_a, only_b)
        assert row["a"] == pytest.approx(sum(a.values()) / 48) and row["b"] == pytest.approx(sum(b.values()) / 48)
        assert row["difference"] == pytest.approx((only_a - only_b) / 48)
        assert row["mcnemar"] == pytest.approx(binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1)
        assert row["p"] == pytest.approx(row["mcnemar"], abs=0.02) and not row["ignores_patients"]
        assert row["low"] <= row["difference"] <= row["high"] and not row["small"]
        mine = [line for line in lines if line["split"] == row["split"]]
        assert {line["item"] for line in mine} == {i for i in a if a[i] != b[i]}
        assert all(line["a"]["right"] == a[line["item"]] and line["b"]["right"] == b[line["item"]] for line in mine)
        total += len(mine)
    assert content["differing"] == len(lines) == total > 0
    assert set(lines[0]) == {"item", "cell", "patient", "split", "fraction", "seed", "model_a", "model_b", "a", "b"}
    p = sorted(row["p"] for row in content["rows"])
    assert max(row["p_holm"] for row in content["rows"]) == pytest.approx(max(min(1, 2 * p[0]), p[1]))


def test_the_printed_table(two_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = out_of(capsys, ["compare", "a", "b", "--split", "related", "--metric", "accuracy,macro-f1"])
    assert "chance (A) − majority (B) · accuracy · seed 0" in out and "· macro-f1 ·" in out and err == ""
    assert "only A right" in out and "McNemar" in out and "in-domain" not in out and "One training seed" in out
    assert "McNemar" not in out.split("· macro-f1 ·")[1].splitlines()[1], "it tests shares of right answers only"


def test_several_seeds_and_masks(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--target", f"{TARGET},ct/chest/segmentation".split(",")[0], "--target", "ct/chest/segmentation"]
    for model, name in (("oracle", "a"), ("chance", "b")):
        out_of(capsys, [*BASE, "--model", model, *both, "--split", "related", "--seeds", "3", "--out", name])
    content = json.loads(out_of(capsys, ["compare", "a", "b", "--items", "differ.jsonl", "--json"])[0])
    rows = {row["metric"]: row for row in content["rows"]}
    assert set(rows) == {"accuracy", "ciou"} and all(
        row["seeds"] == [0, 1, 2] and row["a"] == 1 for row in rows.values()
    )
    assert rows["accuracy"]["mcnemar"] is None and rows["accuracy"]["only_b"] == 0
    assert rows["accuracy"]["only_a"] == round(3 * 48 * (1 - rows["accuracy"]["b"]))
    assert rows["ciou"]["only_a"] is None and rows["ciou"]["low"] > 0 and rows["ciou"]["p"] < 0.05
    masks = [line for line in map(json.loads, Path("differ.jsonl").read_text().splitlines()) if "iou" in line["a"]]
    assert masks and all(line["a"]["iou"] == 1 and line["b"]["iou"] < 0.9 for line in masks)
    assert {line["cell"] for line in masks} == {"ct/chest/segmentation"}


def test_items_that_are_not_the_same_are_left_out_and_named(two_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (trial,) = (two_runs / "b" / "trials").glob("*related*")
    rows = [json.loads(line) for line in (trial / "items.jsonl").read_text().splitlines()]
    changed = rows[0]["id"]
    rows[0]["question"] += " Really?"
    (trial / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["compare", "a", "b", "--split", "related"]
    content = json.loads(out_of(capsys, [*arguments, "--json"])[0])
    assert content["left_out"]["differ"] == {changed: "question"} and content["rows"][0]["n"] == 47
    assert (
        f"Left out: 1 items that are not the same in both, e.g. {changed} (question)." in out_of(capsys, arguments)[0]
    )


def test_a_shorter_exam_is_compared_on_what_both_have(two_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_of(
        capsys, [*BASE, "--model", "oracle", "--target", TARGET, "--split", "related", "--limit", "20", "--out", "c"]
    )
    out, _ = out_of(capsys, ["compare", "a", "c"])
    assert "Left out: 28 items that only A has, e.g. phantom0-t2-brain-finding-test-" in out and "Grey: too few" in out
    (row,) = json.loads(out_of(capsys, ["compare", "a", "c", "--json"])[0])["rows"]
    assert (row["n"], row["small"], row["p_holm"], row["split"]) == (20, True, None, "related")


def test_clear_lines_for_mistakes(two_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_of(capsys, [*BASE, "--model", "chance", "--target", "ct/chest/finding", "--split", "related", "--out", "c"])
    for arguments, code, message in (
        (["compare", "a", "nothing"], 4, "nothing holds no run"),
        (["compare", "a", "a"], 2, "a and a are the same run"),
        (["compare", "a", "b/../a"], 2, "are the same run"),
        (["compare", "a", "c"], 4, "Nothing to compare: no target and split is in both"),
        (["compare", "a", "b", "--split", "relatd"], 2, "Did you mean 'related'?"),
        (["compare", "a", "b", "--metric", "acuracy"], 2, "Did you mean 'accuracy'?"),
        (["compare", "a", "b", "--target", "t2/brain/findng"], 2, "Did you mean 't2/brain/finding'?"),
        (["bound", "a"], 4, "again with --seen 512"),
        (["bound", "nothing"], 4, "holds no run"),
        (["factors", "a"], 4, "No trial of a was trained"),
        (["factors", "nothing"], 4, "holds no run"),
        (["power", "--power", "0.04"], 2, "no more than --alpha"),
        (["power", "--target", "t2/brian/finding", *DATA], 2, "Did you mean"),
    ):  # fmt: skip
        out, err = out_of(capsys, arguments, code)
        assert out == "" and message in err and err.count("\n") == 1, (arguments, err)


def trial(model: str, right: dict[str, bool | None], *, split: str = "related", seed: int = 0, question: str = "?"):
    pairs = []
    for name, ok in right.items():
        item = Item(name, "d", MAT("a", "b", "c"), name, "test", ImageRef("/x"), question, ("x", "y"), 0, "x")
        answer = Prediction(name, error="broke") if ok is None else Prediction(name, option=0 if ok else 1, raw="A")
        pairs.append((item, answer))
    return Answers(model, split, "a/b/c", seed, pairs)


def test_models_are_matched_by_name_where_there_are_several() -> None:
    right = {"i": True, "j": False}
    several, alone = [trial("m", right), trial("n", right)], [trial("n", right)]
    found, _ = match(several, alone)
    assert [one.models for one in found] == [("n", "n")]
    assert [one.models for one in match([trial("m", right)], alone)[0]] == [("m", "n")]
    assert match(several, [trial("o", right)])[0] == []
    control = Answers("n", "related", "a/b/c", 0, trial("n", right).pairs, variant="control:text-only")
    assert match(several, [control])[0] == []
    found, left_out = match([trial("m", right)], [trial("m", right, question="what?")])
    assert found == [] and left_out.differ == {"i": "question", "j": "question"}


def test_a_failed_answer_differs_and_is_not_wrong() -> None:
    found, _ = match([trial("m", {"i": True, "j": None, "k": None})], [trial("n", {"i": True, "j": False, "k": None})])
    (row,) = differing(found)
    assert row["item"] == "j" and row["a"] == {"option": None, "raw": None, "error": "broke", "right": None}
    assert row["b"] == {"option": "y", "raw": "A", "error": None, "right": False}


def test_power_before_a_run(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = ["--target", TARGET, "--target", "ct/chest/segmentation"]
    content = json.loads(out_of(capsys, ["power", *cells, *DATA, "--seeds", "5", "--json"])[0])
    option, mask = content["cells"]
    assert (option["n"], option["patients"], option["chance"], option["small"]) == (48, 48, 0.25, False)
    assert option["design_effect"] == 1 and option["effective_n"] == 48, "one item per patient"
    assert option["least_accuracy"] == pytest.approx(0.25 + 0.2, abs=0.06) and option["least_gap"] > 0.1
    assert option["items_for"]["0.05"] > option["items_for"]["0.10"] > 48
    assert (mask["answers"], mask["n"], mask["least_gap"], mask["items_for"]) == ("mask", 48, None, None)
    out, _ = out_of(capsys, ["power", *cells, *DATA, "--limit", "20", "--seeds", "2", "--seed-sd", "0.2"])
    assert "never" in out and "Grey" in out and "not known before a run" in out and "pilot run" in out


def test_bound_of_a_run(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [
        "--model",
        "majority,oracle",
        "--target",
        TARGET,
        "--split",
        "related",
        "--seeds",
        "2",
    ]  # the oracle trains on nothing
    out_of(capsys, [*BASE, *models, "--seen", "40", "--out", "r"])
    content = json.loads(out_of(capsys, ["bound", "r", "--delta", "0.1", "--json"])[0])
    assert [(one["model"], one["seed"]) for one in content["checks"]] == [("majority", 0), ("majority", 1)]
    by_file = {
        one.seed: one for one in read_answers(in_tmp / "r")[0] if one.variant == "seen" and one.model == "majority"
    }
    for one in content["checks"]:
        epsilon = np.sqrt(np.log(10) / (2 * one["bound"]["n"]))
        assert one["bound"]["epsilon"] == pytest.approx(epsilon)
        wrong: dict[str, list[bool]] = {}
        for item, prediction in by_file[one["seed"]].pairs:
            wrong.setdefault(item.patient, []).append(prediction.option != item.answer)
        mean = np.mean([np.mean(values) for values in wrong.values()])
        assert one["bound"]["empirical"] == pytest.approx(mean) and one["bound"]["n"] == len(wrong)
        right = rights_of_seed("r", one["seed"])
        assert one["risk"] == pytest.approx(1 - right) and one["held"] == (1 - right <= mean + epsilon)
    assert {name: share["trials"] for name, share in content["shares"].items()} == {"related": 2}
    out, _ = out_of(capsys, ["bound", "r"])
    assert "related: held in" in out and "of 2 trials" in out and "never seen together" in out


def rights_of_seed(folder: str, seed: int) -> float:
    (one,) = [o for o in read_answers(Path(folder))[0] if not o.variant and o.model == "majority" and o.seed == seed]
    return float(np.mean([prediction.option == item.answer for item, prediction in one.pairs]))


def test_factors_of_runs(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = [text for one in (TARGET, "ct/chest/finding") for text in ("--target", one)]
    splits = "sharing:none,sharing:modality,sharing:anatomy,sharing:task,sharing:modality+task,sharing:anatomy+task"
    for name, seed in (("r", "0"), ("s", "1")):
        out_of(capsys, [*BASE, "--model", "majority", *targets, "--split", splits, "--seed", seed, "--out", name])
    content = json.loads(out_of(capsys, ["factors", "r", "s", "--json"])[0])
    assert content["metric"] == "accuracy" and list(content["models"]) == ["majority"]
    found = content["models"]["majority"]
    trials = [one for folder in ("r", "s") for one in read_answers(in_tmp / folder)[0]]
    assert found["observations"] == len(trials) == 24 and found["targets"] == 2
    # An independent fit of main effects and the interactions that are told, from the files.
    rows, values = [], []
    names = [effect["factors"] for effect in found["effects"]]
    for one in trials:
        shared = set(one.split.partition(":")[2].split("+"))
        codes = {factor: (factor in shared) - 0.5 for factor in ("modality", "anatomy", "task")}
        rows.append(
            [one.target == TARGET, one.target != TARGET, *(np.prod([codes[f] for f in term]) for term in names)]
        )
        values.append(np.mean([prediction.option == item.answer for item, prediction in one.pairs]))
    fitted = np.linalg.lstsq(np.array(rows, dtype=float), np.array(values), rcond=None)[0][2:]
    assert [effect["value"] for effect in found["effects"]] == pytest.approx(list(fitted))
    assert "modality x anatomy" in found["left_out"]
    out, _ = out_of(capsys, ["factors", "r", "s"])
    assert "majority · accuracy · 24 trials · 2 targets" in out and "Cannot be told: modality x anatomy" in out
    _, err = out_of(capsys, ["factors", "r", "--metric", "ciou"], 2)
    assert "Metric 'ciou' scores mask items" in err


def test_other_training_sizes_are_said(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, size in (("a", "64"), ("b", "32")):
        what = ["--model", "majority", "--target", TARGET, "--split", "related", "--train-size", size, "--out", name]
        out_of(capsys, [*BASE, *what])
    out, _ = out_of(capsys, ["compare", "a", "b"])
    assert "different numbers of items (64 and 32)" in out


def test_conditions_that_train_on_the_same_items_are_one_observation(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = "zero-overlap,sharing:none,related,in-domain,sharing:task"
    out_of(capsys, [*BASE, "--model", "majority", "--target", TARGET, "--split", splits, "--out", "r"])
    out, err = out_of(capsys, ["factors", "r"])
    assert "4 trials" in out and "1 trials that repeat another one's training items" in err

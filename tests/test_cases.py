"""The single answers of a run: scores of each, the worst first, as a table, CSV, JSON and pictures."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score

from crossmed_cli.commands.cases import Case, case_of
from crossmed_cli.main import run
from crossmed_cli.pictures import BOTH, PREDICTED, TRUE, save_case
from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import encode_mask
from crossmed_core.scoring import Answers
from crossmed_core.types import MAT, ImageRef, Item, MaskRef, Prediction

MASKS, LABELS = MAT("ct", "abdomen", "segmentation"), MAT("t2", "brain", "finding")
TRIAL = Answers("net", "related", str(MASKS), 3, [])
Mask = NDArray[np.bool_]


def masked(truth: Mask | None, **more: object) -> Item:
    mask = None if truth is None else MaskRef(rle=encode_mask(truth))
    return Item("i", "d", MASKS, "p", "test", ImageRef("/x.png"), "?", mask=mask, **more)  # type: ignore[arg-type]


def asked(answer: int = 0) -> Item:
    options = ("nodule", "ring")
    return Item("i", "d", LABELS, "p", "test", ImageRef("/x.png"), "?", options, answer, options[answer])


@given(arrays(bool, (2, 5, 4)))
def test_the_overlap_of_a_mask_agrees_with_scikit_learn(pair: Mask) -> None:
    truth, found = pair
    case = case_of(TRIAL, masked(truth), Prediction("i", mask=encode_mask(found)))
    assert (case.true_px, case.predicted_px, case.both_px) == (truth.sum(), found.sum(), (truth & found).sum())
    flat = truth.ravel(), found.ravel()
    # An empty prediction on an empty truth is right, as everywhere in crossmed.
    assert case.dice == pytest.approx(f1_score(*flat, zero_division=1.0))
    assert case.iou == pytest.approx(jaccard_score(*flat, zero_division=1.0) if truth.any() or found.any() else 1.0)
    sides = (not truth.any()) + 2 * (not found.any())
    assert case.empty == ("", "truth", "prediction", "both")[sides] and case.failure is None


def test_a_choice_among_regions_is_scored_by_its_region() -> None:
    truth = np.zeros((4, 4), dtype=bool)
    truth[:2] = True
    near, far = np.roll(truth, 1, axis=0), ~truth
    candidates = tuple(encode_mask(one) for one in (far, near, truth))
    item = masked(
        truth, options=("region A", "region B", "region C"), answer=2, label="region C", candidates=candidates
    )
    cases = [case_of(TRIAL, item, Prediction("i", option=k, option_scores=(0.2, 0.3, 0.5))) for k in range(3)]
    assert [case.iou for case in cases] == [0.0, pytest.approx(1 / 3), 1.0]
    assert [case.right for case in cases] == [False, False, True]
    assert {case.best_iou for case in cases} == {1.0} and {case.kind for case in cases} == {"region"}
    assert [case.chosen for case in cases] == list(item.options) and cases[1].confidence == 0.3
    without = masked(truth, options=("A", "B"), answer=0, label="A", candidates=candidates[:2])
    assert case_of(TRIAL, without, Prediction("i", option=0)).best_iou == pytest.approx(1 / 3)


def test_what_has_no_answer_says_why() -> None:
    refused = case_of(TRIAL, asked(), Prediction("i", error="I am no doctor", failure="refused"))
    assert (refused.failure, refused.error, refused.right, refused.chosen) == ("refused", "I am no doctor", None, None)
    assert case_of(TRIAL, asked(), Prediction("i", error="boom")).failure == "error"
    whole = np.ones((2, 2), dtype=bool)
    odd = case_of(TRIAL, masked(whole), Prediction("i", mask=encode_mask(np.ones((2, 3), dtype=bool))))
    assert odd.failure == "error" and "(2, 3)" in str(odd.error) and odd.dice is None
    lost = case_of(TRIAL, masked(None), Prediction("i", mask=encode_mask(whole)))
    assert lost.failure == "error" and "true region" in str(lost.error)


def test_the_worst_come_first() -> None:
    def label(option: int, sure: float, name: str) -> Case:
        scores = (1 - sure, sure) if option else (sure, 1 - sure)
        return case_of(TRIAL, asked(), Prediction(name, option=option, option_scores=scores))

    sure_wrong, unsure_wrong, unsure_right, sure_right = (
        label(option, sure, "i") for option, sure in ((1, 0.9), (1, 0.6), (0, 0.6), (0, 0.9))
    )
    failed = case_of(TRIAL, asked(), Prediction("i", error="boom"))
    expected = [failed, sure_wrong, unsure_wrong, unsure_right, sure_right]
    mixed = [expected[number] for number in (3, 0, 4, 2, 1)]
    assert sorted(mixed, key=lambda case: case.badness) == expected


@given(st.lists(st.tuples(arrays(bool, (3, 3)), arrays(bool, (3, 3))), min_size=2, max_size=6))
def test_masks_are_sorted_by_dice(pairs: list[tuple[Mask, Mask]]) -> None:
    cases = [case_of(TRIAL, masked(truth), Prediction("i", mask=encode_mask(found))) for truth, found in pairs]
    values = [case.dice or 0.0 for case in sorted(cases, key=lambda case: case.badness)]
    assert values == sorted(values)


# -- the command -------------------------------------------------------------------------------------------------------

DATA = ["modalities=ct,t2", "anatomies=abdomen,brain", "train=64", "val=8", "test=24"]
SMALL = [f"--dataset-option={one}" for one in DATA]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "small"
    what = ["--model", "majority", "--split", "in-domain,related", "--seeds", "2", "--jobs", "1"]
    assert run(["run", *what, "-t", str(MASKS), "-t", str(LABELS), *SMALL, "--out", str(out)]) == 0
    return out


def test_the_table_shows_the_worst_of_each_kind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cases", str(folder), "--worst", "3", "--split", "related", "--seed", "1"]) == 0
    shown = capsys.readouterr().out
    assert "masks: the worst 3 of 24" in shown and "choices among labels: the worst 3 of 24" in shown
    assert f"majority · related · {MASKS} · seed 1" in shown
    assert shown.count("phantom0-ct-abdomen") == 3 and shown.count("phantom0-t2-brain") == 3


def test_json_and_csv_agree_with_the_score_of_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = tmp_path / "deep" / "all.csv"
    table.parent.mkdir()
    assert run(["cases", str(folder), "--json", "--worst", "1000", "--csv", str(table)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["n"] == len(content["cases"]) == 2 * 2 * 2 * 24
    rows = list(csv.DictReader(table.open()))
    assert [row["item"] for row in rows if row["kind"] == "mask"] == [
        case["item"] for case in content["cases"] if case["kind"] == "mask"
    ]
    assert run(["score", str(folder), "--json", "--metric", "dice,accuracy"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    compared = 0
    for metric, column in (("dice", "dice"), ("accuracy", "right")):
        for score in scores:
            if score["metric"] != metric or score.get("variant"):
                continue
            mine = [
                float(case[column])
                for case in content["cases"]
                if (case["split"], case["target"], case["model"]) == (score["split"], score["target"], score["model"])
            ]
            assert len(mine) == 48 and np.mean(mine) == pytest.approx(score["value"])
            compared += 1
    assert compared == 4


def test_pictures_of_the_worst_show_both_contours(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where = ["cases", str(folder), "--worst", "2", "--target", str(MASKS), "--pictures", str(tmp_path / "pictures")]
    assert run([*where, "--json"]) == 0
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert [Path(case["picture"]) for case in cases] == sorted((tmp_path / "pictures").iterdir())
    for case in cases:
        colours = {tuple(one) for one in np.asarray(Image.open(case["picture"])).reshape(-1, 3)}
        assert {TRUE, PREDICTED} <= colours


def test_a_lost_image_costs_its_picture_only(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSMED_CACHE", str(tmp_path / "empty"))
    where = ["cases", str(folder), "--worst", "2", "--target", str(MASKS), "--pictures", str(tmp_path / "pictures")]
    assert run(where) == 0
    captured = capsys.readouterr()
    assert "warning: 2 cases are not drawn" in captured.err and "Written: 0 pictures" in captured.out


def test_contours_lie_on_the_borders_of_the_regions(tmp_path: Path) -> None:
    pixels = np.full((32, 32), 90, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    truth, found = np.zeros((32, 32), dtype=bool), np.zeros((32, 32), dtype=bool)
    truth[4:12, 4:12], found[4:12, 20:28] = True, True
    item = Item("i", "d", MASKS, "p", "test", ImageRef(str(tmp_path / "x.png")), "?")

    def colours(one: Mask, other: Mask) -> NDArray[np.uint8]:
        save_case(item, (encode_mask(one), encode_mask(other)), ["below"], tmp_path / "c.png", side=32)
        return np.asarray(Image.open(tmp_path / "c.png"))

    shown = colours(truth, found)
    assert shown.shape == (52, 32, 3)
    ring = truth.copy()
    ring[5:11, 5:11] = False
    assert (np.all(shown[:32] == TRUE, axis=2) == ring).all()
    assert (np.all(shown[:32] == PREDICTED, axis=2) == np.roll(ring, 16, axis=1)).all()
    assert (np.all(colours(truth, truth)[:32] == BOTH, axis=2) == ring).all()
    with pytest.raises(UnreadableImageError, match=r"\(2, 2\)"):
        colours(truth, truth[:2, :2])


def test_mistakes_take_one_line(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, said in (
        ([str(tmp_path / "none")], "holds no run"),
        ([str(folder), "--split", "relatd"], "Unknown split among the trials 'relatd'. Did you mean 'related'?"),
        ([str(folder), "--target", "ct/abdomen/segmentaton"], "Did you mean 'ct/abdomen/segmentation'?"),
        ([str(folder), "--model", "oracle"], "Known: majority."),
        ([str(folder), "--seed", "7"], "Known: 0, 1."),
    ):
        assert run(["cases", *arguments]) in (2, 4)
        captured = capsys.readouterr()
        assert said in captured.err and len(captured.err.splitlines()) == 1 and not captured.out
    unstarted = tmp_path / "unstarted"
    shutil.copytree(folder, unstarted, ignore=shutil.ignore_patterns("trials"))
    assert run(["cases", str(unstarted)]) == 4
    assert "has no answers yet" in capsys.readouterr().err

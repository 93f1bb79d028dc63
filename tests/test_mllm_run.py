"""Chat models through `crossmed run`: what is recorded, what is said, adapters from run to run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from crossmed_cli.main import run
from crossmed_core.contracts import AnswersOrders
from crossmed_core.letter_mass import mass_scores
from crossmed_core.predicting import predict
from crossmed_core.runlog import read_rows
from crossmed_core.scoring import Answers
from crossmed_core.testing.items import option_item
from crossmed_core.types import Item, Prediction
from crossmed_plugins.mllm.counterfeit import write_checkpoint

SMALL = [
    f"--dataset-option={one}" for one in ("modalities=ct,t2", "anatomies=brain,chest", "train=24", "val=4", "test=12")
]
TARGET = ["--target", "t2/brain/finding", "--jobs", "1", "--no-baselines"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("qwen2_vl")
    write_checkpoint(place, "qwen2_vl")
    return place


def trial(folder: Path) -> Path:
    (only,) = (folder / "trials").iterdir()
    return only


def test_a_run_says_what_was_asked_of_which_weights(
    folder: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--model", f"mllm:{folder}", "--split", "zero-shot", *TARGET, *SMALL, "--out", "r"]
    assert run([*command, "--option-orders", "4"]) == 0
    out = capsys.readouterr().out
    assert "Letter mass" in out and "was about to say something" in out
    facts = json.loads((trial(in_tmp / "r") / "trial.json").read_text())["model"]
    assert facts["architecture"] == "qwen2_vl" and facts["dtype"] == "float32" and len(facts["weights_sha256"]) == 64
    assert "{question}" in facts["prompt"] and len(facts["letter_tokens"]) == 4 and facts["image_size"]["longest_edge"]
    rows = read_rows(trial(in_tmp / "r") / "predictions.jsonl")
    assert all(0 < row["letter_mass"] < 1 for row in rows) and len(rows) == 12
    before = (trial(in_tmp / "r") / "predictions.jsonl").read_bytes()
    (trial(in_tmp / "r") / "predictions.jsonl").write_bytes(b"".join(before.splitlines(keepends=True)[:5]))
    state = json.loads((trial(in_tmp / "r") / "trial.json").read_text())
    (trial(in_tmp / "r") / "trial.json").write_text(json.dumps({**state, "status": "started"}))
    assert run([*command, "--option-orders", "4"]) == 0, "it goes on"
    assert (trial(in_tmp / "r") / "predictions.jsonl").read_bytes() == before
    capsys.readouterr()
    assert run(["score", "r", "--metric", "letter-mass", "--json"]) == 0
    (score,) = json.loads(capsys.readouterr().out)["scores"]
    assert score["value"] == pytest.approx(sum(row["letter_mass"] for row in rows) / 12)


def test_an_adapter_goes_from_run_to_run(folder: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["run", "--model", f"mllm:{folder}", *TARGET, *SMALL, "--set", "batch_size=4"]
    trained = ["--split", "related", "--steps", "3", "--set", "learning_rate=0.01"]
    assert run([*model, *trained, "--out", "trained"]) == 0
    assert (trial(in_tmp / "trained") / "model" / "adapter_model.safetensors").exists()
    asked = ["--split", "zero-shot"]
    assert run([*model, *asked, "--out", "plain"]) == 0
    assert run([*model, *asked, "--adapter", "trained", "--out", "adapted"]) == 0
    answers = {
        name: [row["option_scores"] for row in read_rows(trial(in_tmp / name) / "predictions.jsonl")]
        for name in ("trained", "plain", "adapted")
    }
    assert answers["adapted"] == answers["trained"] != answers["plain"]
    capsys.readouterr()
    assert run([*model, *asked, "--adapter", "plain", "--out", "x"]) == 3
    assert "holds no adapter" in capsys.readouterr().err
    assert run(["run", "--model", "resnet18", "--adapter", "trained", *TARGET, *SMALL]) == 2
    assert "has no option 'adapter'" in capsys.readouterr().err


def test_a_dry_run_says_what_it_takes(folder: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--split", "zero-shot,related", *TARGET, *SMALL, "--dry-run"]
    assert run([*command, "--model", f"mllm:{folder}", "--json"]) == 0
    forecasts = [one["forecast"] for one in json.loads(capsys.readouterr().out)["trials"]]
    assert forecasts[0]["weights"] == str(folder) and forecasts[0]["dtype"] == "float32"
    assert forecasts[0]["train_gib"] is None and forecasts[1]["train_gib"] > forecasts[1]["predict_gib"] > 0
    assert run([*command, "--model", "mllm:./nowhere"]) == 1
    assert "there is no folder './nowhere'" in " ".join(capsys.readouterr().out.split())
    assert run([*command, "--model", "medgemma"]) in (0, 1)
    assert "Gated: accept its licence" in capsys.readouterr().out


def test_weights_that_cannot_be_had_cost_one_line(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run(["run", "--model", "hf:ORG/NAME", "--split", "zero-shot", *TARGET, *SMALL, "--out", "r"]) == 1
    captured = capsys.readouterr()
    assert "hf download ORG/NAME" in " ".join((captured.out + captured.err).split())
    assert "Traceback" not in captured.out + captured.err


# -- asked in all orders at once ---------------------------------------------------------------------------------------


class Together:
    """Chooses the first option; knows how to be asked in all orders, and how often it was."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.calls = 0
        self.block = 5

    def fit(self, train, val, context) -> None: ...

    def predict(self, items: Sequence[Item]) -> Iterator[Prediction]:
        for item in items:
            yield Prediction(item.id, option=0, letter_mass=0.25)

    def predict_orders(self, groups: Sequence[Sequence[Item]]) -> Iterator[Sequence[Prediction]]:
        self.calls += 1
        if self.fails:
            raise RuntimeError("no")
        for group in groups:
            yield list(self.predict(group))


def test_orders_are_asked_together_and_apart_alike(tmp_path: Path) -> None:
    items = [option_item(number, tmp_path) for number in range(12)]
    files = []
    for name, fails in (("together", False), ("apart", True)):
        model = Together(fails=fails)
        assert isinstance(model, AnswersOrders)
        path, singles = tmp_path / f"{name}.jsonl", tmp_path / f"{name}-orders.jsonl"
        predict(model, items, path, lambda *phase, **values: None, orders=4, singles=singles)
        assert model.calls == 3, "in blocks of the size it wants"
        files.append((path.read_bytes(), singles.read_bytes()))
    assert files[0] == files[1]
    assert all(row["letter_mass"] == 0.25 for row in read_rows(tmp_path / "together.jsonl"))


def test_letter_mass_is_the_mean_over_common_items(tmp_path: Path) -> None:
    items = [option_item(number, tmp_path) for number in range(4)]

    def answers(seed: int, masses: Sequence[float | None]) -> Answers:
        pairs = [
            (item, Prediction(item.id, option=0, letter_mass=mass)) for item, mass in zip(items, masses, strict=True)
        ]
        return Answers("m", "s", "t", seed, pairs, 0)

    (score,) = mass_scores([answers(0, [0.2, 0.4, 0.6, None]), answers(1, [0.4, 0.6, 0.8, 1.0])])
    assert score.n == 3 and score.by_seed == pytest.approx((0.4, 0.6)) and score.value == pytest.approx(0.5)
    assert mass_scores([answers(0, [None] * 4)]) == []

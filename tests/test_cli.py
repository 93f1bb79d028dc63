"""The command line as a person types it: results, JSON, and one clear line for every mistake."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from crossmed_cli.main import COMMANDS, cli, run
from crossmed_core.runlog import locked

SMALL = ["modalities=xray,ct,t2", "anatomies=chest,brain", "train=64", "val=8", "test=48"]
DATA = [f"--dataset-option={one}" for one in SMALL]
BASE = ["run", "--model", "majority,oracle", "--target", "t2/brain/finding", "--jobs", "1", *DATA]


def out_of(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 0) -> tuple[str, str]:
    assert run(arguments) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_run_prints_a_table_and_reuses(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = out_of(capsys, [*BASE, "--split", "related,zero-overlap"])
    for word in ("value", "95 % interval", "n", "chance", "unscored", "related − zero-overlap", "Synthetic phantom"):
        assert word in out
    assert err.startswith("crossmed 0.1.0 · device cpu (no model of this run uses a network)\nplugins: baseline, ")
    oracle = out.split("t2/brain/finding · oracle · accuracy · seed 0")[1].splitlines()
    assert oracle[2].split() == ["related", "0", "1.000", "[0.926,", "1.000]", "48", "0.250", "0", "0%"]
    _, again = out_of(capsys, [*BASE, "--split", "related,zero-overlap"])
    assert "going on" in again and again.count("(reused)") == 4
    (folder,) = (in_tmp / "runs").iterdir()
    header = json.loads((folder / "run.json").read_text())
    assert header["status"] == "finished" and len(header["sessions"]) == 2
    assert header["models"]["oracle"]["plugin"] == "crossmed:baseline" and header["benchmark"]["synthetic"]
    assert {"numpy", "pluggy"} <= set(header["sessions"][0]["environment"]["packages"])


def test_json_is_clean(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = out_of(capsys, [*BASE, "--split", "related", "--seeds", "2", "--limit", "20", "--json"])
    content = json.loads(out)
    assert content["status"] == "finished" and len(content["trials"]) == 4
    accuracy = [one for one in content["scores"] if one["metric"] == "accuracy" and not one["variant"]]
    beside = {one["variant"] for one in content["scores"] if one["variant"]}
    assert beside == {"baseline:question-only"}, "majority is no baseline of itself; the oracle trains on nothing"
    assert [(one["model"], one["n"], one["seeds"]) for one in accuracy] == [
        ("majority", 20, [0, 1]),
        ("oracle", 20, [0, 1]),
    ]
    for arguments in (
        ["ls", "datasets"], ["ls", "models"], ["ls", "splits"], ["ls", "metrics"], ["ls", "recipes"],
        ["plugins", "list"], ["plugins", "doctor"], ["plugins", "show", "timm"],
        ["show", "model", "unet"], ["show", "dataset", "phantom", *DATA],
        ["show", "cell", "all", *DATA], ["show", "split", "related", "-t", "ct/chest/segmentation", *DATA],
        ["show", "item", "phantom0-ct-chest-segmentation-test-00000", *DATA], [*BASE, "--dry-run"],
        ["score", content["run"]],
    ):  # fmt: skip
        assert json.loads(out_of(capsys, [*arguments, "--json"])[0]), arguments


def test_dry_run_writes_nothing(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = out_of(capsys, [*BASE, "--split", "related,unrelated", "--train-size", "60", "--dry-run"])
    assert "4 trials to do" in out and list(in_tmp.iterdir()) == []
    out, _ = out_of(capsys, [*BASE, "--split", "related,unrelated", "--train-size", "60", "--dry-run", "--json"])
    planned = json.loads(out)["trials"]
    assert {(one["model"], one["split"], one["train"], one["state"]) for one in planned} == {
        ("majority", "related", 60, "new"),
        ("majority", "unrelated", 60, "new"),
        ("oracle", "related", 0, "new"),  # it trains on nothing
        ("oracle", "unrelated", 0, "new"),
    }


def test_conditions_are_size_matched(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = out_of(capsys, [*BASE, "--dry-run", "--json", "--train-size", "100000"])
    planned = json.loads(out)["trials"]
    assert {one["train"] for one in planned if one["model"] == "majority"} == {64}, (
        "as many as the smallest condition, in-domain, has"
    )


def test_score_needs_the_files_alone(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_of(capsys, [*BASE, "--target", "ct/chest/segmentation", "--split", "related,in-domain", "--out", "r"])
    before = json.loads(out_of(capsys, ["score", "r", "--json"])[0])
    for path in Path(os.environ["CROSSMED_CACHE"]).rglob("*.png"):
        path.unlink()
    saved = (in_tmp / "r" / "scores.jsonl").read_bytes()
    after = json.loads(out_of(capsys, ["score", "r", "--json"])[0])
    assert after == before and (in_tmp / "r" / "scores.jsonl").read_bytes() == saved
    out, _ = out_of(capsys, ["score", "r", "--metric", "macro-f1,dice", "--compare", "in-domain:related"])
    assert "macro-f1" in out and "dice" in out and "ciou" not in out and "in-domain − related" in out


def test_score_of_an_unfinished_run_says_so(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_of(capsys, [*BASE, "--split", "related", "--out", "r"])
    (trial,) = (in_tmp / "r" / "trials").glob("oracle*")
    predictions = trial / "predictions.jsonl"
    predictions.write_bytes(b"".join(predictions.read_bytes().splitlines(keepends=True)[:30]))
    state = json.loads((trial / "trial.json").read_text())
    (trial / "trial.json").write_text(json.dumps({**state, "status": "started"}))
    out, err = out_of(capsys, ["score", "r"], code=1)
    assert "is started: 30 items answered so far" in err and " 30 " in out


MISTAKES: list[tuple[list[str], int, str]] = [
    (["run", "--model", "resnt18"], 2, "Unknown model 'resnt18'. Did you mean 'resnet18'?"),
    (["run", "--model", "chance", "--split", "relatd"], 2, "Unknown split 'relatd'. Did you mean 'related'?"),
    (["run", "--model", "chance", "--target", "t2/brian/finding"], 2, "Did you mean 't2/brain/finding'?"),
    (["run", "--model", "chance", "--target", "brain"], 2, "'brain' is not a cell; write modality/anatomy/task"),
    (["run", "--model", "resnet18", "--target", "ct/chest/segmentation"], 2, "is all this model gives"),
    (["run", "--model", "chance", "--target", "*/foot/*"], 2, "No cell that this model answers matches '*/foot/*'"),
    (["run", "--model", "chance", "--dataset", "phanton"], 2, "Unknown dataset 'phanton'. Did you mean 'phantom'?"),
    (["run", "--model", "chance", "--dataset-option", "sise=3"], 2, "Did you mean 'size'?"),
    (["run", "--model", "chance", "--dataset-option", "size"], 2, "write KEY=VALUE"),
    (["run", "--model", "chance", "--set", "stpes=3"], 2, "has no option 'stpes'. Did you mean 'steps'?"),
    (["run", "--model", "resnet18", "--set", "steps=lots"], 2, "steps must be int, not 'lots'"),
    (["run", "--recipe", "dmeo"], 2, "Recipe 'dmeo' is neither a file nor shipped. Did you mean 'demo'?"),
    (["run", "--recipe", "medmat-directions", "--data", "x"], 2, "leaves the model to you"),
    (["run", "--model", "chance", "--fraction", "0.1,2"], 2, "--fraction: '2' is not a share above 0 and at most 1"),
    (["run", "--model", "chance", "--control", "blank"], 2, "There is no control 'blank'. Did you mean 'blank-image'?"),
    (["run", "--model", "chance", "--epochs", "2", "--steps", "5"], 2, "give one of them"),
    (["run", "--model", "chance", "--epochs", "nan"], 2, "nan is not a finite number"),
    (["power", "--icc", "inf"], 2, "inf"),
    (["run", "--model", "chance", "--split-option", "containment=x"], 2, "containment must be true or false"),
    (["run", "--model", "chance", "--split-option", "containmnt=false"], 2, "Did you mean 'containment'?"),
    (["run", "--model", "chance", "--split", "held-out"], 2, "held-out"),
    (["run", "--model", "chance", "--split", "related:ct/brain/finding"], 2, "related"),
    (["run", "--modle", "x"], 2, "Did you mean '--model'?"),
    (["run", "--seeds", "0"], 2, "--seeds"),
    (["rnu"], 2, "There is no command 'rnu'. Did you mean 'run'?"),
    (["run", "--registry", "nothing.toml"], 2, "Registry nothing.toml cannot be read: No such file"),
    (["run", "--plugin", "nothing.py"], 2, "Plugin file nothing.py does not exist"),
    (["run", "--model", "chance", "--device", "cuda"], 3, "CUDA is asked for, but"),
    (["score", "nothing"], 4, "holds no run"),
    (["run", "--model", "chance", "--compare", "related:relatd"], 2, "Unknown split to compare 'relatd'"),
    (["show", "item", "phantom0-ct-chest-finding-test-99999"], 2, "Unknown item"),
    (["show", "split", "related", "-t", "ct/*/finding"], 2, "stands for"),
    (["plugins", "show", "tim"], 2, "Unknown plugin 'tim'. Did you mean 'timm'?"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES, ids=[" ".join(one[0]) for one in MISTAKES])
def test_mistakes_are_one_line(
    arguments: list[str], code: int, message: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    if arguments[0] == "show" and "phantom" not in arguments:
        arguments = [*arguments, *DATA]
    out, err = out_of(capsys, arguments, code=code)
    assert out == "" and message in err and err.startswith("crossmed: ") and err.count("\n") == 1, err


def test_an_unwritable_out_folder_is_one_line(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_tmp / "file").write_text("not a folder")
    _, err = out_of(capsys, [*BASE, "--out", "file/run"], code=4)
    assert err.splitlines()[-1].startswith("crossmed: Cannot write file/run: Not a directory.")
    if os.geteuid() != 0:
        (in_tmp / "closed").mkdir(mode=0o500)
        _, err = out_of(capsys, [*BASE, "--out", "closed/run"], code=4)
        assert "Permission denied" in err


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        _, err = out_of(capsys, [*BASE, "--out", "r"], code=4)
    assert "No space left on device" in err.splitlines()[-1] and "Traceback" not in err
    out_of(capsys, [*BASE, "--out", "r"])
    assert json.loads((in_tmp / "r" / "run.json").read_text())["status"] == "finished"


def test_another_run_or_process_in_the_folder_is_refused(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_of(capsys, [*BASE, "--split", "related", "--out", "r"])
    _, err = out_of(capsys, [*BASE, "--split", "unrelated", "--out", "r"], code=4)
    assert "r holds another run (different: " in err.splitlines()[-1]
    with locked(in_tmp / "r"):
        _, err = out_of(capsys, [*BASE, "--split", "related", "--out", "r"], code=4)
    assert "Another process is working on r" in err
    (in_tmp / "hidden").mkdir()
    (in_tmp / "hidden" / ".run.json.123.tmp").write_text("{")  # left by a kill before the header was in place
    out_of(capsys, [*BASE, "--split", "related", "--out", "hidden"])
    (in_tmp / "mine").mkdir()
    (in_tmp / "mine" / "thesis.tex").write_text("x")
    _, err = out_of(capsys, [*BASE, "--out", "mine"], code=4)
    assert "not empty and holds no run" in err and [p.name for p in (in_tmp / "mine").glob("[!.]*")] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"a": 1}'])
def test_damaged_files_of_a_run_are_one_line(content: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--model", "majority", "--target", "t2/brain/finding", "--jobs", "1", "--split", "related", *DATA]
    out_of(capsys, [*command, "--out", "r"])
    for path in ("run.json", "trial.json", "split.json", "items.jsonl", "predictions.jsonl"):
        (file,) = (in_tmp / "r").rglob(path)
        whole = file.read_text()
        file.write_text(content + "\n")
        codes = [run(["score", "r", "--no-save"]), run([*command, "--out", "r"])]
        err = capsys.readouterr().err
        assert "Traceback" not in err and set(codes) <= {0, 1, 4}, (path, err)
        if path.endswith(".json"):
            assert codes == [4, 4] and path in err, (path, err)
        file.write_text(whole)


def test_splits_to_compare_may_have_arguments() -> None:
    from crossmed_cli.options import compared

    splits = ["related", "held-out:ct/brain/finding", "held-out:t2/knee/finding"]
    assert compared(["related:held-out:ct/brain/finding"], splits) == [("related", "held-out:ct/brain/finding")]
    assert compared([f"{splits[1]}:{splits[2]}"], splits) == [(splits[1], splits[2])]
    assert compared(["held-out:related"], splits) == [("held-out", "related")]


def test_an_empty_condition_fails_alone(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_modality = [part for part in BASE if "modalities" not in part] + ["--dataset-option=modalities=t2"]
    out, err = out_of(capsys, [*one_modality, "--split", "related,zero-overlap", "--json"], code=1)
    content = json.loads(out)
    assert {one["status"] for one in content["trials"]} == {"finished", "failed"}
    assert "no cell" in err


def test_a_recipe_file(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
    dataset_options = { modalities = "ct,t2", anatomies = "brain,chest", train = 32, test = 16 }
    compare = [["related", "unrelated"]]
    [[blocks]]
    models = ["majority"]
    splits = ["related", "unrelated"]
    targets = ["ct/*/finding"]
    seeds = [0, 1]
    """
    (in_tmp / "mine.toml").write_text(text)
    content = json.loads(out_of(capsys, ["run", "--recipe", "mine.toml", "--jobs", "1", "--json"])[0])
    assert len(content["trials"]) == 8 and content["gaps"][0]["second"] == "unrelated"
    (in_tmp / "bad.toml").write_text(text.replace("splits", "spilts"))
    _, err = out_of(capsys, ["run", "--recipe", "bad.toml"], code=2)
    assert "bad.toml: unknown key 'spilts'. Did you mean 'splits'?" in err
    for old, new, message in (
        ("[0, 1]", '["0"]', "seeds must be a list of int"),
        ('["majority"]', "[]", "models must be a list of str"),
        ('[["related", "unrelated"]]', '["related"]', "compare must be pairs"),
        ('["majority"]', '["majority"]\n    train_size = 0', "train_size must be a whole number"),
    ):
        (in_tmp / "bad.toml").write_text(text.replace(old, new))
        _, err = out_of(capsys, ["run", "--recipe", "bad.toml"], code=2)
        assert message in err and err.count("\n") == 1


def test_every_flag_is_an_environment_variable(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSMED_MODEL", "oracle")
    monkeypatch.setenv("CROSSMED_SPLIT", "related")
    monkeypatch.setenv("CROSSMED_LIMIT", "7")
    monkeypatch.setenv("CROSSMED_TARGET", "t2/brain/finding")
    content = json.loads(out_of(capsys, ["run", "--jobs", "1", "--json", *DATA])[0])
    assert [one["n"] for one in content["scores"] if one["metric"] == "accuracy"] == [7]


def commands() -> dict[str, click.Command]:
    context = click.Context(cli)
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        subcommands = command.commands if isinstance(command, click.Group) else {}
        found |= {f"{name} {sub}": one for sub, one in subcommands.items()} or {name: command}
    return found


@pytest.mark.parametrize("name", commands())
def test_every_command_and_option_is_explained(name: str) -> None:
    command = commands()[name]
    assert command.help, name
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"
            if "--registry" not in parameter.opts:
                flag = max(parameter.opts, key=len)
                assert parameter.envvar == "CROSSMED_" + flag.lstrip("-").replace("-", "_").upper()
    result = CliRunner().invoke(cli, [*name.split(), "--help"])
    assert result.exit_code == 0 and "Usage: " in result.output


def test_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    from crossmed_core.errors import ExitCode

    out, _ = out_of(capsys, ["--help"])
    codes = {int(code) for code in re.findall(r"^ {4}(\d+) {2}", out, flags=re.MULTILINE)}
    assert codes == {int(code) for code in ExitCode}


def test_pictures(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_of(capsys, ["show", "dataset", "phantom", *DATA, "--sheet", "sheet.png"])
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 3 * 128 and sheet.height > 8 * 128
        assert len(set(sheet.convert("L").getdata())) > 100, "it shows images, not blanks"
    out_of(capsys, ["show", "item", "phantom0-ct-chest-segmentation-test-00000", *DATA, "--picture", "item.png"])
    with Image.open("item.png") as item:
        assert item.size == (512, 512) and (255, 96, 64) in set(item.getdata()), "the region is outlined"


BAD_METRICS = """
from crossmed_core import hookimpl
from crossmed_core.records import MetricRecord

def raises(pairs):
    raise ValueError("division by [nothing]")

@hookimpl
def crossmed_metrics():
    yield MetricRecord(name="raises", summary="bad", target=f"{__name__}:raises")
    yield MetricRecord(name="lacks", summary="bad", target=f"{__name__}:raises", packages=("not_a_package",))
"""


def test_a_bad_metric_is_left_out_and_named(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_tmp / "bad.py").write_text(BAD_METRICS)
    out, err = out_of(capsys, [*BASE, "--split", "related", "--out", "r", "--plugin", "bad.py"])
    assert (
        "oracle" in out and err.count("metric 'raises' failed and is left out: ValueError: division by [nothing]") == 2
    )
    _, err = out_of(capsys, ["score", "r", "--plugin", "bad.py", "--metric", "lacks"], code=3)
    assert "'lacks' needs not_a_package" in err


def test_interrupt_is_told(in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("crossmed_core.runner._run", interrupted)
    _, err = out_of(capsys, [*BASE, "--out", "r"], code=130)
    assert "The same command goes on" in err
    assert json.loads((in_tmp / "r" / "run.json").read_text())["status"] == "interrupted"

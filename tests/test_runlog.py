"""The run folder: torn lines, locks, full disks."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.images import encode_mask
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
    write_bytes,
    writing,
)
from crossmed_core.types import MAT, ImageRef, Item, MaskRef, Prediction


def test_a_torn_line_is_dropped_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_rows(path, [{"a": 1}, {"a": 2}])
    whole = path.read_bytes()
    for cut in range(len(whole) // 2, len(whole)):
        path.write_bytes(whole[:cut])
        assert read_rows(path) == [{"a": 1}]
        drop_torn_line(path)
        append_rows(path, [{"a": 2}])
        assert path.read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(CrossmedError, match=r"rows\.jsonl, line 2"):
        read_rows(path)


def test_values_survive_the_file() -> None:
    rle = encode_mask(np.eye(3, dtype=bool))
    masked = Item(
        "i", "d", MAT("a", "b", "c"), "p", "test", ImageRef("/x", "00"), "?", mask=MaskRef(rle=rle), study="s"
    )
    asked = Item("j", "d", MAT("a", "b", "c"), "p", "train", ImageRef("/y"), "?", ("u", "v"), 1, "v")
    for item in (masked, asked):
        assert item_from_json(item_to_json(item)) == item
    for prediction in (
        Prediction("i", mask=rle),
        Prediction("j", option=0, option_scores=(0.5, 0.5), guess=True),
        Prediction("j", error="refused", raw="I cannot say"),
    ):
        assert prediction_from_json(prediction_to_json(prediction)) == prediction


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        lines = ["from pathlib import Path", "from crossmed_core.runlog import locked"]
        code = "\n".join([*lines, f"with locked(Path({str(tmp_path / 'run')!r})): pass"])
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "Another process is working on" in other.stderr and other.returncode != 0
    with locked(tmp_path / "run"):
        pass  # free again


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_is_one_line(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CrossmedError, match="Cannot write /a/b") as caught, writing(tmp_path):
        raise OSError(number, "reason", "/a/b")
    assert caught.value.exit_code is ExitCode.RUN_FOLDER

    def full(descriptor: int) -> None:
        raise OSError(number, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    (tmp_path / "old").write_text("old")
    with pytest.raises(CrossmedError, match="Cannot write"):
        write_bytes(tmp_path / "old", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and (tmp_path / "old").read_text() == "old"


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone", "/a")


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CrossmedError, match=r"run\.json: not valid JSON"):
        read_json(tmp_path / "run.json")

"""The run folder: a header first, then append-only JSONL. Whatever is killed, the next start reads what is there.

RUN/run.json                      what was asked, of what, with what; written before anything else
RUN/scores.jsonl                  one line per score of the end table and per gap
RUN/trials/TRIAL/trial.json       one trial: what it is and where it stands
RUN/trials/TRIAL/split.json       the split card with all ids
RUN/trials/TRIAL/items.jsonl      the test items, masks included: scoring needs nothing else
RUN/trials/TRIAL/train.jsonl      losses
RUN/trials/TRIAL/predictions.jsonl  one line per test item
RUN/trials/TRIAL/model/           weights after training; checkpoint/ while training
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jsonlines
from filelock import FileLock, Timeout

from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.types import MAT, RLE, ImageRef, Item, MaskRef, Prediction, Score

SCHEMA_VERSION = 1
SURROGATES = "backslashreplace"
"""How half a character, in a file name that is no UTF-8, is written: as the escape that JSON has for it."""
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}


def trial_folder(run: Path, trial: str) -> Path:
    """Return where the trial with this id lives."""
    return run / "trials" / trial


@contextmanager
def writing(path: Path, *, anything: bool = True) -> Iterator[None]:
    """Turn a full disk or a missing permission into one line that names the path.

    Args:
        path: What is written.
        anything: False if other code runs inside that also reads: then only a full disk counts, and files under `path`.

    Raises:
        CrossmedError: In place of such an OSError.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        ours = anything or str(error.filename or "").startswith(str(path))
        if error.errno not in _UNWRITABLE or not (full or ours):
            raise
        raise CrossmedError(
            f"Cannot write {error.filename or path}: {error.strerror}.",
            hint="Free some space or choose another folder with --out; the same command then goes on.",
            exit_code=ExitCode.RUN_FOLDER,
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process.

    Raises:
        CrossmedError: If another process holds it, or it cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise CrossmedError(
                f"Another process is working on {folder}.",
                hint="Wait for it, or choose another folder with --out.",
                exit_code=ExitCode.RUN_FOLDER,
            ) from None
    try:
        yield
    finally:
        lock.release()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a half.

    Raises:
        CrossmedError: If the disk is full or the folder read-only.
    """
    with writing(path):
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file in one piece."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(errors=SURROGATES))


def read_json(path: Path, needs: Iterable[str] = ()) -> dict[str, Any]:
    """Read a JSON file.

    Args:
        path: The file.
        needs: Fields that it must have.

    Raises:
        CrossmedError: If it is missing or damaged; names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not valid JSON ({error})"
        raise CrossmedError(
            f"Cannot read {path}: {reason}.",
            hint="If a run wrote it, delete the file and run the same command again to make it anew.",
            exit_code=ExitCode.RUN_FOLDER,
        ) from error
    if not isinstance(content, dict):
        raise CrossmedError(f"Cannot read {path}: it holds no JSON object.", exit_code=ExitCode.RUN_FOLDER)
    _require(content, needs, str(path))
    return content


def _require(content: Mapping[str, Any], needs: Iterable[str], where: str) -> None:
    missing = [name for name in needs if name not in content]
    if missing:
        raise CrossmedError(
            f"{where} lacks {', '.join(missing)}: damaged, or written by another version.",
            hint="Choose another folder with --out, or delete the file if the run can make it anew.",
            exit_code=ExitCode.RUN_FOLDER,
        )


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append lines in one write and flush them to the disk, so that a kill loses at most this call's rows."""
    buffer = io.StringIO()
    with jsonlines.Writer(buffer, compact=True) as writer:
        writer.write_all(rows)
    with writing(path), path.open("ab") as file:
        file.write(buffer.getvalue().encode(errors=SURROGATES))
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path, needs: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Read all complete lines; a torn last line, left by a kill, is left out.

    Args:
        path: The file; a missing one has no lines.
        needs: Fields that each line must have.

    Raises:
        CrossmedError: For a damaged line that is not the last; names file and line.
    """
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    with jsonlines.Reader(io.BytesIO(complete)) as reader:
        try:
            rows.extend(reader.iter(type=dict, skip_empty=True))
        except jsonlines.InvalidLineError as error:
            raise CrossmedError(
                f"{path}, line {error.lineno}: not a JSON object.",
                hint="Delete the file and run the same command again to make it anew.",
                exit_code=ExitCode.RUN_FOLDER,
            ) from error
    for number, row in enumerate(rows, start=1):
        _require(row, needs, f"{path}, line {number},")
    return rows


def rewrite_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file's lines in one piece: a kill leaves the old lines or the new."""
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        partial.unlink(missing_ok=True)
    append_rows(partial, rows)
    with writing(path):
        partial.replace(path)


def drop_torn_line(path: Path) -> None:
    """Cut a half-written last line off, so that appending starts on a fresh one."""
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end != len(content):
        with writing(path), path.open("r+b") as file:
            file.truncate(end)


def replace_folder(source: Path, target: Path) -> None:
    """Put a finished folder in place of an older one."""
    with writing(target):
        if target.exists():
            shutil.rmtree(target)
        source.replace(target)


# -- values <-> JSON ------------------------------------------------------------------------------


def rle_to_json(rle: RLE) -> dict[str, Any]:
    """Write run lengths as pycocotools reads them."""
    return {"size": list(rle.size), "counts": list(rle.counts)}


def rle_from_json(content: Mapping[str, Any]) -> RLE:
    """Read what `rle_to_json` wrote."""
    height, width = content["size"]
    return RLE((int(height), int(width)), tuple(content["counts"]))


def item_to_json(item: Item, root: Path | None = None) -> dict[str, Any]:
    """Flatten an item; a mask must be inline, the image path is written relative to `root` where it lies there."""
    row = {name: getattr(item, name) for name in ("id", "dataset", "patient", "study", "part", "question", "label")}
    image = Path(item.image.path)
    path = image.relative_to(root).as_posix() if root and image.is_relative_to(root) else item.image.path
    row |= {"cell": str(item.mat), "image": path, "image_sha256": item.image.sha256, "image_pixels": item.image.pixels}
    row |= {"options": list(item.options), "answer": item.answer}
    row["mask"] = rle_to_json(item.mask.rle) if item.mask and item.mask.rle else None
    row["decoys"] = item.decoys
    row["candidates"] = [rle_to_json(one) for one in item.candidates]
    return row


def item_from_json(row: Mapping[str, Any]) -> Item:
    """Read what `item_to_json` wrote.

    Raises:
        KeyError: If a field is missing.
    """
    rle = rle_from_json(row["mask"]) if row["mask"] else None
    return Item(
        id=row["id"],
        dataset=row["dataset"],
        mat=MAT.parse(row["cell"]),
        patient=row["patient"],
        part=row["part"],
        image=ImageRef(row["image"], row["image_sha256"], row.get("image_pixels")),
        question=row["question"],
        options=tuple(row["options"]),
        answer=row["answer"],
        label=row["label"],
        mask=MaskRef(rle=rle) if rle else None,
        study=row["study"],
        decoys=row.get("decoys", 0),
        candidates=tuple(rle_from_json(one) for one in row.get("candidates", ())),
    )


def prediction_to_json(prediction: Prediction) -> dict[str, Any]:
    """Flatten a prediction, leaving out what is not set."""
    row = {
        "item": prediction.item,
        "option": prediction.option,
        "option_scores": list(prediction.option_scores) if prediction.option_scores is not None else None,
        "mask": rle_to_json(prediction.mask) if prediction.mask else None,
        "raw": prediction.raw,
        "guess": prediction.guess or None,
        "error": prediction.error,
        "failure": prediction.failure,
        "letter_mass": prediction.letter_mass,
    }
    return {name: value for name, value in row.items() if value is not None}


def prediction_from_json(row: Mapping[str, Any]) -> Prediction:
    """Read what `prediction_to_json` wrote."""
    scores = row.get("option_scores")
    return Prediction(
        item=row["item"],
        option=row.get("option"),
        mask=rle_from_json(row["mask"]) if row.get("mask") else None,
        option_scores=tuple(scores) if scores is not None else None,
        raw=row.get("raw"),
        guess=row.get("guess", False),
        error=row.get("error"),
        failure=row.get("failure"),
        letter_mass=row.get("letter_mass"),
    )


def score_to_json(score: Score) -> dict[str, Any]:
    """Flatten a score."""
    return asdict(score)

"""A benchmark folder, as `crossmed build` writes it and `crossmed run --data` reads it.

BENCH/card.json     what it is: counts, settings, sources, licences, digests; written last, so a folder with it is whole
BENCH/items.jsonl   one item per line: question with and without giveaway words, options, answer, regions, provenance
BENCH/images/       8-bit images, lossless, named by their pixels (or, copied as they were, by their bytes)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from crossmed_core.benchmark import Benchmark
from crossmed_core.contracts import Check
from crossmed_core.errors import CrossmedError, ExitCode, UnreadableImageError, suggest
from crossmed_core.runlog import item_from_json, read_json
from crossmed_core.types import MAT, Item, ItemKey, Question

CARD = "card.json"
ITEMS = "items.jsonl"
SCHEMA_VERSION = 1
OPTIONS: Mapping[str, tuple[str, ...]] = {"prompts": ("named", "neutral"), "regions": ("contours", "boxes")}
"""How a built benchmark can be asked (--dataset-option); the first is the default."""
_IDENTITY = (
    *("id", "dataset", "cell", "patient", "study", "part", "label", "question", "question_neutral", "question_choice"),
    *("question_choice_neutral", "options", "answer", "decoys", "image_pixels", "mask", "candidates"),
)
"""Fields of a row that the benchmark's digest covers: what is asked of whom, not where it lay."""
_CELL_IDENTITY = ("answers", "templates", "neutral", "labels", "outside")


def is_built(folder: Path) -> bool:
    """Whether a folder holds a finished benchmark."""
    return (folder / CARD).is_file() and (folder / ITEMS).is_file()


def row_digest_content(row: Mapping[str, Any]) -> bytes:
    """Return what a row adds to the benchmark's digest."""
    content = {name: row.get(name) for name in _IDENTITY}
    return (json.dumps(content, sort_keys=True) + "\n").encode()


def cells_digest_content(cells: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return what the cells of a card add to the benchmark's digest."""
    content = {cell: {name: facts[name] for name in _CELL_IDENTITY} for cell, facts in cells.items()}
    return (json.dumps(content, sort_keys=True) + "\n").encode()


class BuiltBenchmark(Benchmark):
    """The items of a benchmark folder, parsed when they are asked for.

    Args:
        folder: Holds card.json and items.jsonl.
        options: "prompts" (named, neutral) and "regions" (contours, boxes).

    Raises:
        CrossmedError: For an unknown option, or files that are damaged or of another version.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            if name not in OPTIONS:
                raise CrossmedError(f"A built benchmark has no option {name!r}.", hint=suggest(name, OPTIONS))
            if value not in OPTIONS[name]:
                raise CrossmedError(f"{name} must be {' or '.join(OPTIONS[name])}, not {value!r}.")
        self.root = folder
        self.options = {name: options.get(name, values[0]) for name, values in OPTIONS.items()}
        self._card = read_json(
            folder / CARD, ["schema_version", "name", "n", "sha256", "items_sha256", "cells", "sources"]
        )
        if self._card["schema_version"] != SCHEMA_VERSION:
            raise CrossmedError(
                f"{folder / CARD} has schema {self._card['schema_version']!r}, this release reads {SCHEMA_VERSION}.",
                hint="Build it anew, or upgrade crossmed.",
                exit_code=ExitCode.ENVIRONMENT,
            )
        try:
            self.name = str(self._card["name"])
            self.synthetic = any(source.get("synthetic") for source in self._card["sources"].values())
            self.questions = {MAT.parse(cell): _question(cell, facts) for cell, facts in self._card["cells"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _damaged(folder / CARD, error) from error
        self._places: dict[str, tuple[int, int]] = {}
        self.keys = self._read_keys()

    def _read_keys(self) -> dict[str, ItemKey]:
        keys: dict[str, ItemKey] = {}
        choices = set()
        total = hashlib.sha256()
        start = 0
        with (self.root / ITEMS).open("rb") as file:
            for number, line in enumerate(file, start=1):
                total.update(line)
                try:
                    row = json.loads(line)
                    key = ItemKey(
                        row["id"], MAT.parse(row["cell"]), row["patient"], row["dataset"], row["label"], row["part"],
                        row["study"],
                    )  # fmt: skip
                    item_from_json(row)
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise _damaged(f"{self.root / ITEMS}, line {number}", error) from error
                if key.mat not in self.questions:
                    raise _damaged(f"{self.root / ITEMS}, line {number}", f"{CARD} has no cell {key.mat}")
                keys[key.id] = key
                self._places[key.id] = start, len(line)
                start += len(line)
                if row.get("candidates"):
                    choices.add(key.id)
        if total.hexdigest() != self._card["items_sha256"]:
            raise CrossmedError(
                f"{self.root / ITEMS} is not the file that {CARD} describes (SHA-256 differs).",
                hint="Build the benchmark anew; its files are not to be edited.",
                exit_code=ExitCode.ENVIRONMENT,
            )
        self.choices = frozenset(choices)
        return keys

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the build's own digest and of how it is asked."""
        return hashlib.sha256(f"{self._card['sha256']}\n{sorted(self.options.items())}\n".encode()).hexdigest()

    def row(self, item_id: str) -> dict[str, Any]:
        """Return an item's line as it stands, provenance included."""
        start, size = self._places[item_id]
        with (self.root / ITEMS).open("rb") as file:
            file.seek(start)
            row: dict[str, Any] = json.loads(file.read(size))
        return row

    def _item(self, item_id: str) -> Item:
        row = self.row(item_id)
        item = item_from_json(row)
        question = row["question_neutral"] if self.options["prompts"] == "neutral" else item.question
        if question is None:
            raise CrossmedError(f"Item {item_id!r} has no neutral question.", hint="Use prompts=named.")
        return replace(item, question=question, image=replace(item.image, path=str(self.root / item.image.path)))

    def _as_choice(self, item: Item) -> Item:
        from crossmed_core.candidates import BOXES, choice_options  # numpy and Pillow: lists do not wait for them

        row = self.row(item.id)
        question = row["question_choice_neutral" if self.options["prompts"] == "neutral" else "question_choice"]
        options = choice_options(item.candidates, str(self.options["regions"]))
        image = item.image
        if self.options["regions"] == "boxes":
            question = f"{question} {BOXES}"
        else:
            image = replace(image, marks=item.candidates)
        return replace(item, image=image, question=question, options=options, label=options[item.answer or 0])

    def card(self) -> dict[str, Any]:
        """Return card.json."""
        return self._card

    def verify(self) -> Iterator[Check]:
        """Hold every image, row and digest against what the card says; reading this file has checked items.jsonl."""
        from crossmed_core.images import read_image  # Pillow: only here are pixels opened

        digest = hashlib.sha256()
        broken: list[str] = []
        for item_id in self.keys:
            row = self.row(item_id)
            digest.update(row_digest_content(row))
            image = item_from_json(row).image
            try:
                read_image(replace(image, path=str(self.root / image.path)))
            except UnreadableImageError as error:
                broken.append(str(error))
        digest.update(cells_digest_content(self._card["cells"]))
        yield Check("items", str(len(self.keys)), str(self._card["n"]), _verdict(len(self.keys) == self._card["n"]))
        same = digest.hexdigest() == self._card["sha256"]
        yield Check("benchmark SHA-256", digest.hexdigest(), self._card["sha256"], _verdict(same))
        yield Check("images that open and match", str(len(self.keys) - len(broken)), str(len(self.keys)), _verdict(
            not broken
        ))  # fmt: skip
        for reason in broken[:20]:
            yield Check("image", reason, "the recorded pixels", "differs")


def _damaged(where: object, error: object) -> CrossmedError:
    return CrossmedError(
        f"{where}: damaged ({type(error).__name__ if isinstance(error, Exception) else 'incomplete'}: {error}).",
        hint="Build the benchmark anew; its files are not to be edited.",
        exit_code=ExitCode.ENVIRONMENT,
    )


def _verdict(same: bool) -> str:
    return "ok" if same else "differs"


def _question(cell: str, facts: Mapping[str, Any]) -> Question:
    return Question(
        MAT.parse(cell),
        facts["answers"],
        tuple(facts["templates"]),
        tuple(facts["labels"]),
        tuple(facts["neutral"]),
        tuple(facts["outside"]),
    )

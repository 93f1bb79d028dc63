"""A benchmark: items addressable by id, with a digest that names it; and one of a dataset whose images are computed.

Real downloads are built first (`crossmed_core.build`) and read back by `crossmed_core.built`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from crossmed_core.contracts import Dataset, GeneratedDataset
from crossmed_core.errors import CrossmedError, ExitCode, unknown
from crossmed_core.parts import part_of
from crossmed_core.questions import letter_counts, make_item
from crossmed_core.reading import samples_of
from crossmed_core.types import MAT, AnswerKind, Item, ItemKey, Question, Sample

EITHER: tuple[AnswerKind, ...] = ("option", "mask")


class Benchmark(ABC):
    """Common to all benchmarks.

    A segmentation item can be answered in two ways: by a mask, or, where it carries candidate regions, by choosing one
    of them. A model that gives masks is asked for masks; one that only chooses is shown the candidates.

    Attributes:
        name: Of the dataset or the build.
        root: The folder that image paths are relative to.
        options: What it was made with, and how it is asked; part of the digest.
        questions: What is asked in each cell.
        keys: Item id -> key.
        choices: Ids of the segmentation items that carry candidates.
        default_targets: Cells tested when no target is named; empty = all.
        synthetic: Whether the pixels are not of patients.
    """

    name: str
    root: Path
    options: dict[str, Any]
    questions: Mapping[MAT, Question]
    keys: Mapping[str, ItemKey]
    choices: frozenset[str] = frozenset()
    default_targets: tuple[str, ...] = ()
    synthetic: bool = False

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of what is asked, of whom, in which part."""

    @abstractmethod
    def _item(self, item_id: str) -> Item:
        """Make one item as it is answered by a mask or its own options."""

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """Describe the benchmark; "cells" holds answers, labels and counts per cell."""

    @cached_property
    def choice_cells(self) -> frozenset[MAT]:
        """Segmentation cells with items that carry candidates."""
        return frozenset(self.keys[item].mat for item in self.choices)

    def answered_by(self, mat: MAT, answers: Iterable[AnswerKind]) -> AnswerKind | None:
        """Say how a model that gives `answers` answers a cell; None if it cannot."""
        kinds = set(answers)
        kind = self.questions[mat].kind
        if kind in kinds:
            return kind
        return "option" if "option" in kinds and mat in self.choice_cells else None

    def keys_for(self, answers: Iterable[AnswerKind]) -> list[ItemKey]:
        """Return the keys of all items that a model that gives `answers` can answer."""
        kinds = set(answers)
        able = {mat: self.answered_by(mat, kinds) for mat in self.questions}
        as_choice = {mat for mat, kind in able.items() if kind != self.questions[mat].kind}
        return [
            key
            for key in self.keys.values()
            if able[key.mat] is not None and (key.mat not in as_choice or key.id in self.choices)
        ]

    def items(self, ids: Iterable[str], answers: Iterable[AnswerKind] = EITHER) -> list[Item]:
        """Make the items with these ids, in this order, as a model that gives `answers` is asked them.

        Raises:
            CrossmedError: For an unknown id or a label that its cell does not declare.
        """
        kinds = set(answers)
        found = []
        for item_id in ids:
            if item_id not in self.keys:
                raise unknown("item", item_id, self.keys)
            item = self._item(item_id)
            as_choice = item.kind not in kinds and item.candidates
            found.append(self._as_choice(item) if as_choice else item)
        return found

    def _as_choice(self, item: Item) -> Item:
        """Return a segmentation item as it is asked of a model that only chooses."""
        raise CrossmedError(f"Item {item.id!r} cannot be asked as a choice.")

    def materialise(self, ids: Sequence[str], progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """See to it that the image files of these items exist. Where images are files already, they do.

        Args:
            ids: Item ids.
            progress: Called with (done, total) while there is something to do.
        """
        return


class DatasetBenchmark(Benchmark):
    """Items made on demand from the samples of a dataset.

    Args:
        name: The dataset's name.
        dataset: The dataset.
        root: Its folder, the cache of a generated one.
        options: The options it was built with; part of the digest.
        default_targets: Cells tested when no target is named.
        synthetic: Whether the pixels are not of patients.

    Raises:
        CrossmedError: If there is no sample, two samples share an id, or a sample lies in a cell without a question.
    """

    def __init__(
        self,
        name: str,
        dataset: Dataset,
        root: Path,
        options: Mapping[str, Any],
        *,
        default_targets: tuple[str, ...] = (),
        synthetic: bool = False,
    ) -> None:
        self.name = name
        self.root = root
        self.options = dict(options)
        self.default_targets = default_targets
        self.synthetic = synthetic
        self.questions: Mapping[MAT, Question] = dataset.questions()
        self._dataset = dataset
        self._samples: dict[str, Sample] = {}
        keys: dict[str, ItemKey] = {}
        for sample in samples_of(dataset, root):
            if sample.id in keys:
                raise CrossmedError(f"Dataset {name}: two samples have the id {sample.id!r}.")
            if sample.mat not in self.questions:
                raise CrossmedError(f"Dataset {name}: sample {sample.id!r} lies in {sample.mat}, which asks nothing.")
            self._samples[sample.id] = sample
            keys[sample.id] = ItemKey(
                sample.id, sample.mat, sample.patient, name, sample.label or "", part_of(sample), sample.study
            )
        if not keys:
            raise CrossmedError(f"Dataset {name} has no samples under {root}.", exit_code=ExitCode.ENVIRONMENT)
        self.keys: Mapping[str, ItemKey] = keys

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the sorted keys and the questions: what is asked, of whom, in which part."""
        total = hashlib.sha256(f"{self.name}\n{sorted(self.options.items())}\n".encode())
        for mat, question in sorted(self.questions.items()):
            total.update(f"{mat}|{question.kind}|{question.templates}|{question.labels}\n".encode())
        for key in sorted(self.keys.values()):
            total.update(f"{key.id}|{key.mat}|{key.patient}|{key.label}|{key.part}\n".encode())
        return total.hexdigest()

    def _item(self, item_id: str) -> Item:
        sample = self._samples[item_id]
        return make_item(sample, self.questions[sample.mat], dataset=self.name)

    def materialise(self, ids: Sequence[str], progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Draw the missing images of a generated dataset."""
        if isinstance(self._dataset, GeneratedDataset):
            samples = [self._samples[item_id] for item_id in ids]
            for done, _ in enumerate(self._dataset.materialise(samples), start=1):
                progress(done, len(samples))

    def card(self) -> dict[str, Any]:
        """Count items per cell, part and label, and the answer letters of each cell's test part."""
        counts = Counter((key.mat, key.part, key.label or "mask") for key in self.keys.values())
        cells: dict[str, Any] = {}
        for (mat, part, label), n in sorted(counts.items()):
            cell = cells.setdefault(str(mat), {"answers": self.questions[mat].kind, "parts": {}})
            cell["parts"].setdefault(part, {})[label] = n
        tests: dict[MAT, list[str]] = {}
        for key in self.keys.values():
            if key.part == "test" and self.questions[key.mat].kind == "option":
                tests.setdefault(key.mat, []).append(key.id)
        for mat, ids in tests.items():
            cells[str(mat)]["test_answer_letters"] = letter_counts(self.items(ids))
        return {"dataset": self.name, "options": self.options, "sha256": self.digest, "cells": cells}

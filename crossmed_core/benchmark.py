"""A benchmark: the items of one dataset under fixed options, addressable by id, with a digest that names it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from crossmed_core.contracts import Dataset, GeneratedDataset
from crossmed_core.errors import CrossmedError, ExitCode, unknown
from crossmed_core.questions import letter_counts, make_item, part_of
from crossmed_core.types import MAT, AnswerKind, Item, ItemKey, Question, Sample


class Benchmark:
    """Items made on demand from the samples of a dataset.

    Args:
        name: The dataset's name.
        dataset: The dataset.
        root: Its download, or the cache folder of a generated one.
        options: The options it was built with; part of the digest.

    Raises:
        CrossmedError: If there is no sample, two samples share an id, or a sample lies in a cell without a question.
    """

    def __init__(self, name: str, dataset: Dataset, root: Path, options: Mapping[str, Any]) -> None:
        self.name = name
        self.root = root
        self.options = dict(options)
        self.questions: Mapping[MAT, Question] = dataset.questions()
        self._dataset = dataset
        self._samples: dict[str, Sample] = {}
        keys: dict[str, ItemKey] = {}
        for sample in dataset.samples(root):
            if sample.id in keys:
                raise CrossmedError(f"Dataset {name}: two samples have the id {sample.id!r}.")
            if sample.mat not in self.questions:
                raise CrossmedError(f"Dataset {name}: sample {sample.id!r} lies in {sample.mat}, which asks nothing.")
            self._samples[sample.id] = sample
            keys[sample.id] = ItemKey(sample.id, sample.mat, sample.patient, name, sample.label or "", part_of(sample))
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

    def keys_for(self, answers: Iterable[AnswerKind]) -> list[ItemKey]:
        """Return the keys of all cells that are answered in one of the given ways."""
        kinds = set(answers)
        return [key for key in self.keys.values() if self.questions[key.mat].kind in kinds]

    def sample(self, item_id: str) -> Sample:
        """Return the sample behind an item.

        Raises:
            CrossmedError: For an unknown id.
        """
        if item_id not in self._samples:
            raise unknown("item", item_id, self._samples)
        return self._samples[item_id]

    def items(self, ids: Iterable[str]) -> list[Item]:
        """Make the items with these ids, in this order.

        Raises:
            CrossmedError: For an unknown id or a label that its cell does not declare.
        """
        return [self._item(item_id) for item_id in ids]

    def _item(self, item_id: str) -> Item:
        sample = self.sample(item_id)
        return make_item(sample, self.questions[sample.mat], dataset=self.name)

    def materialise(self, ids: Sequence[str], progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """See to it that the image files of these items exist. Does nothing for datasets with files of their own.

        Args:
            ids: Item ids.
            progress: Called with (done, total).
        """
        if isinstance(self._dataset, GeneratedDataset):
            samples = [self.sample(item_id) for item_id in ids]
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

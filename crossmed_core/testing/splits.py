"""Checks of a splitter, on the keys of a made-up benchmark."""

from __future__ import annotations

import random
from pathlib import Path

from crossmed_core.contracts import Splitter
from crossmed_core.records import SplitRecord
from crossmed_core.splits import prove
from crossmed_core.types import MAT, PARTS, ItemKey


def keys_of_a_grid(per_part: int = 6) -> list[ItemKey]:
    """Make keys of 3 modalities x 3 anatomies x 3 tasks, two items per patient, labels in turn."""
    keys = []
    for modality in ("ct", "mri", "xray"):
        for anatomy in ("brain", "chest", "lung"):
            for task in ("finding", "grade", "segmentation"):
                cell = MAT(modality, anatomy, task)
                for part in PARTS:
                    for number in range(per_part):
                        patient = f"{'-'.join(cell)}-{part}-{number // 2}"
                        label = "" if task == "segmentation" else f"{task}-{number % 3}"
                        keys.append(ItemKey(f"{patient}-{number}", cell, patient, "made-up", label, part))
    return keys


TARGETS = (MAT("mri", "brain", "finding"), MAT("ct", "lung", "segmentation"))


def check_split_keeps_its_promises(record: SplitRecord, folder: Path) -> None:
    """No patient and no item stands on two sides, parts are respected, the test part is the target's."""
    splitter: Splitter = record.load()
    keys = keys_of_a_grid()
    for target in TARGETS:
        split = splitter(keys, target=target, seed=0)
        assert split.rule == record.name, f"{record.name}: the split calls itself {split.rule!r}"
        assert split.target == target and split.test, f"{record.name}: no test items for {target}"
        assert split.train or split.note, f"{record.name}: an empty split for {target} without a note that says why"
        prove(split, {key.id: key for key in keys})


def check_split_ignores_order(record: SplitRecord, folder: Path) -> None:
    """The order of the keys changes nothing."""
    splitter: Splitter = record.load()
    keys = keys_of_a_grid()
    mixed = random.Random(1).sample(keys, len(keys))
    for target in TARGETS:
        first, second = (splitter(some, target=target, seed=3) for some in (keys, mixed))
        assert first == second, f"{record.name}: depends on the order of the keys"


def check_split_tests_alike_for_every_seed(record: SplitRecord, folder: Path) -> None:
    """Seeds vary the training, not the exam."""
    splitter: Splitter = record.load()
    keys = keys_of_a_grid()
    tests = [splitter(keys, target=TARGETS[0], seed=seed).test for seed in range(3)]
    assert tests[0] == tests[1] == tests[2], f"{record.name}: another seed tests other items"


CHECKS = (check_split_keeps_its_promises, check_split_ignores_order, check_split_tests_alike_for_every_seed)

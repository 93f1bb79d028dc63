"""Checks of a splitter, on the keys of a made-up benchmark."""

from __future__ import annotations

import random
from pathlib import Path

from crossmed_core.contracts import ConfigurableSplitter, Splitter
from crossmed_core.errors import CrossmedError
from crossmed_core.records import SplitRecord
from crossmed_core.splits import prove
from crossmed_core.types import MAT, PARTS, ItemKey, Split


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


def _splitter(record: SplitRecord) -> tuple[Splitter, str]:
    """Load a splitter and say what it calls itself; one with an argument gets that of its example."""
    splitter = record.load()
    if not record.argument and not record.options:
        return splitter, record.name
    assert isinstance(splitter, ConfigurableSplitter), f"{record.name}: declares options or an argument, not configured"
    argument = ""
    if record.argument:
        name, _, argument = record.example.partition(" ")[0].partition(":")
        assert name == record.name and argument, f"{record.name}: the example must begin with {record.name}:ARGUMENT"
    return splitter.configured({}, argument), record.name + f":{argument}" * bool(argument)


def _splits(record: SplitRecord, keys: list[ItemKey], *, seed: int = 0) -> dict[MAT, Split]:
    """Return the splits of the targets that the splitter takes; one with an argument may refuse some, in words."""
    splitter, _ = _splitter(record)
    found = {}
    for target in TARGETS:
        try:
            found[target] = splitter(keys, target=target, seed=seed)
        except CrossmedError:
            if not record.argument:
                raise
    assert found, f"{record.name}: refuses every target with the argument of its own example"
    return found


def check_split_keeps_its_promises(record: SplitRecord, folder: Path) -> None:
    """No patient and no item stands on two sides, parts are respected, the test part is the target's."""
    _, name = _splitter(record)
    keys = keys_of_a_grid()
    for target, split in _splits(record, keys).items():
        assert split.rule == name, f"{name}: the split calls itself {split.rule!r}"
        assert split.target == target and split.test, f"{name}: no test items for {target}"
        said = split.train or split.note or not split.trains
        assert said, f"{name}: an empty split for {target} without a note that says why"
        prove(split, {key.id: key for key in keys})


def check_split_ignores_order(record: SplitRecord, folder: Path) -> None:
    """The order of the keys changes nothing."""
    keys = keys_of_a_grid()
    mixed = random.Random(1).sample(keys, len(keys))
    first, second = (_splits(record, some, seed=3) for some in (keys, mixed))
    assert first == second, f"{record.name}: depends on the order of the keys"


def check_split_tests_alike_for_every_seed(record: SplitRecord, folder: Path) -> None:
    """Seeds vary the training, not the exam."""
    keys = keys_of_a_grid()
    tests = [{cell: one.test for cell, one in _splits(record, keys, seed=seed).items()} for seed in range(3)]
    assert tests[0] == tests[1] == tests[2], f"{record.name}: another seed tests other items"


def check_split_refuses_what_it_does_not_know(record: SplitRecord, folder: Path) -> None:
    """An unknown option is an error that a person can act on."""
    if not record.argument and not record.options:
        return
    splitter = record.load()
    argument = record.example.partition(" ")[0].partition(":")[2] if record.argument else ""
    try:
        splitter.configured({"no-such-option": 1}, argument)
    except CrossmedError:
        return
    raise AssertionError(f"{record.name}: takes an unknown option in silence")


CHECKS = (
    check_split_keeps_its_promises,
    check_split_ignores_order,
    check_split_tests_alike_for_every_seed,
    check_split_refuses_what_it_does_not_know,
)

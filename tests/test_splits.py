"""Rules against a hand-written table, and properties that hold for any set of keys."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmed_core.errors import CrossmedError
from crossmed_core.splits import (
    CellRule,
    SplitViolationError,
    fair_order,
    matched,
    prove,
    require_cells,
    split_card,
    split_digest,
)
from crossmed_core.types import MAT, PARTS, ItemKey
from crossmed_plugins.splits import rules

ALL = (rules.in_domain, rules.related, rules.unrelated, rules.zero_overlap, rules.all_data)

# The five cells of CrossMed (papers.md 3.1), the anatomy of CT left open by the paper.
XC, XS = MAT("xray", "chest", "classification"), MAT("xray", "chest", "segmentation")
MC, MS = MAT("mri", "brain", "classification"), MAT("mri", "brain", "segmentation")
LUNG, CHEST = MAT("ct", "lung", "classification"), MAT("ct", "chest", "classification")


def keys_of(cells: list[MAT], per_part: int = 3) -> list[ItemKey]:
    return [
        ItemKey(f"{cell}/{part}/{n}", cell, f"{cell}/{part}/p{n}", "d", f"label {n % 2}", part)
        for cell in cells
        for part in PARTS
        for n in range(per_part)
    ]


@pytest.mark.parametrize(
    ("ct", "containment", "target", "related", "unrelated", "zero"),
    [
        (CHEST, True, XC, {XS, CHEST}, {MC, MS}, {MS}),
        (CHEST, True, XS, {XC}, {MS, CHEST, MC}, {MC}),
        (CHEST, True, MC, {MS}, {XC, CHEST, XS}, {XS}),
        (CHEST, True, MS, {MC}, {XS, XC, CHEST}, {XC, CHEST}),
        (CHEST, True, CHEST, {XC}, {MC, XS, MS}, {MS}),
        (LUNG, False, XC, {XS}, {MC, LUNG, MS}, {MS}),
        (LUNG, False, XS, {XC}, {MS, MC, LUNG}, {MC, LUNG}),
        (LUNG, False, MC, {MS}, {XC, LUNG, XS}, {XS}),
        (LUNG, False, MS, {MC}, {XS, XC, LUNG}, {XC, LUNG}),
        (LUNG, False, LUNG, set(), {MC, XC, MS, XS}, {MS, XS}),
        # With containment a lung is in the chest, so the table is that of CT = chest.
        (LUNG, True, XC, {XS, LUNG}, {MC, MS}, {MS}),
        (LUNG, True, LUNG, {XC}, {MC, XS, MS}, {MS}),
    ],
)
def test_crossmeds_five_cells(
    ct: MAT, containment: bool, target: MAT, related: set[MAT], unrelated: set[MAT], zero: set[MAT]
) -> None:
    keys = keys_of([XC, XS, MC, MS, ct])
    for rule, expected in ((rules.related, related), (rules.unrelated, unrelated), (rules.zero_overlap, zero)):
        split = replace(rule, containment=containment)(keys, target=target, seed=0)
        assert set(split.cells) == expected, rule.name
    assert set(rules.in_domain(keys, target=target, seed=0).cells) == {target}
    assert set(rules.all_data(keys, target=target, seed=0).cells) == {XC, XS, MC, MS, ct}


def test_an_empty_rule_is_said_plainly() -> None:
    split = replace(rules.related, containment=False)(keys_of([XC, XS, MC, MS, LUNG]), target=LUNG, seed=0)
    assert split.train == () and "no cell" in split.note
    with pytest.raises(CrossmedError, match="'related' is empty for ct/lung/classification"):
        require_cells(split)


grids = st.lists(
    st.builds(
        lambda m, a, t, p, label, part, n: (MAT(m, a, t), p, label, part, n),
        st.sampled_from("mn"), st.sampled_from("ab"), st.sampled_from("tu"),
        st.integers(0, 6), st.sampled_from("xyz"), st.sampled_from(PARTS), st.integers(0, 10_000),
    ),
    min_size=1, max_size=60,
)  # fmt: skip


def as_keys(rows: list[tuple[MAT, int, str, str, int]]) -> list[ItemKey]:
    # A patient of one part only, as sound data have it.
    return [
        ItemKey(f"{i}-{n}", mat, f"{part}-{patient}", "d", label, part)  # type: ignore[arg-type]
        for i, (mat, patient, label, part, n) in enumerate(rows)
    ]


@given(grids, st.integers(0, 3), st.randoms())
def test_no_rule_leaks_and_order_never_matters(rows: list, seed: int, rng: random.Random) -> None:
    keys = as_keys(rows)
    target = keys[0].mat
    mixed = list(keys)
    rng.shuffle(mixed)
    for rule in ALL:
        split = rule(keys, target=target, seed=seed)
        prove(split, {key.id: key for key in keys})
        assert split == rule(mixed, target=target, seed=seed)


@given(grids, st.integers(0, 3))
def test_adding_unrelated_cells_never_changes_a_split(rows: list, seed: int) -> None:
    keys = as_keys(rows)
    target = MAT("m", "a", "t")
    strangers = keys_of([MAT("strange", "stranger", "strangest")])
    for rule in (rules.in_domain, rules.related):
        assert rule(keys, target=target, seed=seed) == rule(keys + strangers, target=target, seed=seed)


@given(grids, st.integers(0, 3))
def test_every_prefix_is_fair_over_cells_and_labels(rows: list, seed: int) -> None:
    keys = {key.id: key for key in as_keys(rows)}
    order = fair_order(keys.values(), seed=seed)
    assert sorted(order) == sorted(keys)
    capacity = Counter(key.mat for key in keys.values())
    for size in range(len(order) + 1):
        counts = Counter(keys[item].mat for item in order[:size])
        full = max(counts.values(), default=0)
        for cell in capacity:
            assert counts[cell] >= min(full - 1, capacity[cell]), "a cell with items left fell behind"


def test_labels_take_turns_within_a_cell() -> None:
    keys = [ItemKey(f"{label}{n}", XC, f"{label}{n}", "d", label, "train") for label in "ab" for n in range(20)]
    order = fair_order(keys, seed=1)
    for size in range(0, 41, 2):
        assert Counter(item[0] for item in order[:size]) == ({"a": size // 2, "b": size // 2} if size else {})


def test_smaller_sizes_are_nested_and_seeds_differ() -> None:
    keys = keys_of([XC, XS, MC], per_part=40)
    split = rules.all_data(keys, target=XC, seed=0)
    small, large = (matched(split, train=n, val=8, test=None) for n in (10, 50))
    assert large.train[:10] == small.train
    assert rules.all_data(keys, target=XC, seed=1).train != split.train
    assert rules.all_data(keys, target=XC, seed=1).test == split.test, "seeds vary the training, not the exam"
    assert split_digest(small) != split_digest(large)


def good_split():
    keys = keys_of([XC, XS], per_part=4)
    return rules.related(keys, target=XC, seed=0), {key.id: key for key in keys}


def test_a_patient_on_both_sides_is_named() -> None:
    split, keys = good_split()
    moved = keys[split.train[0]]._replace(patient=keys[split.test[0]].patient)
    with pytest.raises(SplitViolationError, match=f"patient {moved.patient!r} of d stands in"):
        prove(split, {**keys, moved.id: moved})


@pytest.mark.parametrize("side", ["train", "val"])
def test_a_test_item_in_training_is_named(side: str) -> None:
    split, keys = good_split()
    leaky = replace(split, **{side: (*getattr(split, side), split.test[0])})
    with pytest.raises(SplitViolationError, match="keeps for test"):
        prove(leaky, keys)


def test_other_violations_are_named() -> None:
    split, keys = good_split()
    with pytest.raises(SplitViolationError, match="twice"):
        prove(replace(split, train=split.train + split.train[:1]), keys)
    with pytest.raises(SplitViolationError, match="not in the benchmark"):
        prove(replace(split, train=("nobody",)), keys)
    with pytest.raises(SplitViolationError, match="outside its cells"):
        prove(replace(split, cells=(MC,)), keys)


def test_the_card_counts_and_names_shared_factors() -> None:
    keys = keys_of([XC, XS, LUNG], per_part=4)
    split = matched(rules.related(keys, target=XC, seed=0), train=4, val=2, test=3)
    card = split_card(split, {key.id: key for key in keys})
    assert card["n"] == {"train": 4, "val": 2, "test": 3}
    assert card["cells"] == [str(LUNG), str(XS)]
    assert card["shared_factors"][str(LUNG)] == ["anatomy", "task"]
    assert card["shared_only_by_containment"] == {str(LUNG): ["anatomy"]}
    train = card["n_per_cell_and_label"][str(XS)]["train"]
    assert sum(train.values()) == 2 and card["train"] == list(split.train)


def test_third_parties_write_a_rule_in_one_line() -> None:
    same_task = CellRule(
        "same-task", lambda target, cells, share: [c for c in cells if c.task == target.task and c != target]
    )
    split = same_task(keys_of([XC, XS, MC]), target=XC, seed=0)
    assert split.rule == "same-task" and split.cells == (MC,)

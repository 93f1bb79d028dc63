"""The choice of samples: quotas, balance, turns of patients, independence of order; parts of patients."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from crossmed_core.parts import stratified_parts
from crossmed_core.selection import EMPTY, Quota, Selection, even_counts, wanted_counts
from crossmed_core.types import MAT, RLE, ImageRef, MaskRef, Part, Sample

CELL = MAT("ct", "lung", "classification")
counts = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 60), max_size=7)


@given(counts, st.integers(0, 200))
def test_even_counts_are_as_even_as_can_be(available: dict[str, int], wanted: int) -> None:
    chosen = even_counts(available, wanted)
    assert sum(chosen.values()) == min(wanted, sum(available.values()))
    assert all(0 <= chosen[label] <= available[label] for label in available)
    # Brute force: give one at a time to the label that has least and is not used up.
    slow = dict.fromkeys(sorted(available), 0)
    for _ in range(min(wanted, sum(available.values()))):
        open_labels = [label for label in slow if slow[label] < available[label]]
        slow[min(open_labels, key=lambda label: (slow[label], label))] += 1
    assert sorted(chosen.values()) == sorted(slow.values())


parts = st.fixed_dictionaries({"train": counts, "val": counts, "test": counts})


@given(parts, st.integers(0, 400), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.1]))
def test_quotas_are_met_exactly_where_there_are_enough(
    available: dict[Part, dict[str, int]], items: int, test: float, val: float
) -> None:
    chosen = wanted_counts(available, Quota(items, test, val))
    total = sum(sum(one.values()) for one in available.values())
    assert sum(sum(one.values()) for one in chosen.values()) == min(items, total)
    for part, labels in chosen.items():
        assert all(labels[label] <= available[part][label] for label in labels)
    if sum(available["train"].values()) >= items:
        assert sum(chosen["test"].values()) == min(round(items * test), sum(available["test"].values()))


def test_empty_masks_come_in_their_share_only() -> None:
    available: dict[Part, dict[str, int]] = {
        "train": {"region": 100, EMPTY: 300},
        "val": {"region": 20, EMPTY: 40},
        "test": {"region": 20, EMPTY: 40},
    }
    none = wanted_counts(available, Quota(100))
    assert all(labels.get(EMPTY, 0) == 0 for labels in none.values())
    quarter = wanted_counts(available, Quota(100, test=0.1, val=0.1, empty=0.25))
    assert sum(labels.get(EMPTY, 0) for labels in quarter.values()) == 25
    assert sum(labels["region"] for labels in quarter.values()) == 75


def sample(patient: int, number: int, label: str = "a", part: Part = "train") -> Sample:
    image = ImageRef(f"/x/{patient}-{number}.png")
    return Sample(f"s-{patient}-{number}", f"p{patient}", CELL, image, label=label, part=part)


def chosen(samples: list[Sample], items: int, unusable: set[str] | None = None, spare: int = 200) -> list[str]:
    selection = Selection(lambda mat: Quota(items, 0, 0), spare=spare)
    assert list(selection.add(samples)) == samples, "samples are passed on as they come"
    return [one.id for one in selection.choose(unusable or set())]


def test_everybody_is_chosen_once_before_anybody_twice() -> None:
    samples = [sample(patient, number) for patient in range(10) for number in range(8)]
    first = chosen(samples, 10)
    assert len({name.split("-")[1] for name in first}) == 10
    assert set(first) < set(chosen(samples, 15)), "smaller sizes are nested"
    middle = [int(name.split("-")[2]) for name in chosen(samples, 10)]
    assert len(set(middle)) > 3, "not always the same slice"


def test_the_order_of_patients_changes_nothing() -> None:
    groups = [[sample(patient, number, "ab"[number % 2]) for number in range(5)] for patient in range(40)]
    mixed = random.Random(3).sample(groups, len(groups))
    inner = [random.Random(4).sample(group, len(group)) for group in mixed]
    first, second = ([one for group in some for one in group] for some in (groups, inner))
    assert chosen(first, 60) == chosen(second, 60)


def test_what_is_unusable_is_replaced_by_the_next_in_rank() -> None:
    samples = [sample(patient, 0) for patient in range(50)]
    first = chosen(samples, 20)
    again = chosen(samples, 20, unusable={first[4], first[7]})
    assert len(again) == 20
    assert [name for name in first if name not in (first[4], first[7])] == again[:18], "the others stay"


def test_no_more_is_kept_than_a_recipe_can_need() -> None:
    samples = [sample(patient, 0) for patient in range(500)]
    selection = Selection(lambda mat: Quota(20, 0, 0), spare=5)
    list(selection.add(samples))
    (heap,) = selection._kept[CELL]["train"].values()
    assert len(heap) == 25 and selection.offered[CELL]["train"] == {"a": 500}
    assert [one.id for one in selection.choose()] == chosen(samples, 20), "the same as if all were kept"


def test_strata_of_segmentation_are_region_or_none() -> None:
    def masked(number: int, runs: tuple[int, ...]) -> Sample:
        return Sample(
            f"m{number}", f"p{number}", CELL, ImageRef("/x.png"), mask=MaskRef(rle=RLE((2, 2), runs)), part="test"
        )

    selection = Selection(lambda mat: Quota(None))
    list(selection.add([masked(0, (4,)), masked(1, (1, 2, 1)), masked(2, (0, 4))]))
    assert selection.offered[CELL]["test"] == {EMPTY: 1, "region": 2}


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=6), st.sampled_from(["HGG", "LGG", "CT-4"]), max_size=80))
def test_stratified_parts_keep_their_shares(strata: dict[str, str]) -> None:
    assigned = stratified_parts(strata)
    assert set(assigned) == set(strata)
    for stratum, size in Counter(strata.values()).items():
        found = Counter(assigned[patient] for patient in strata if strata[patient] == stratum)
        expected = max(round(size * 0.1), min(1, size - 1))
        assert found["test"] == expected
        assert found["train"] >= 1
        if size >= 3:
            assert found["val"] >= 1
    reverse = dict(reversed(list(strata.items())))
    assert stratified_parts(reverse) == assigned, "the order of patients changes nothing"

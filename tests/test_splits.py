"""Rules against a hand-written table, and properties that hold for any set of keys."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmed_cli.main import run
from crossmed_core.build import build
from crossmed_core.build_recipe import read_build_recipe
from crossmed_core.build_sources import BuildRequest
from crossmed_core.catalog import Catalog
from crossmed_core.errors import CrossmedError
from crossmed_core.splits import (
    CellRule,
    Shares,
    SplitViolationError,
    coincidences,
    draw,
    fair_order,
    matched,
    prove,
    require_cells,
    split_digest,
)
from crossmed_core.types import MAT, PARTS, ItemKey, Split
from crossmed_plugins.splits import arguments, rules

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


NAMED = {"XC": XC, "XS": XS, "MC": MC, "MS": MS}
PLAIN = {
    rule.name: rule
    for rule in (
        rules.zero_shot, rules.in_domain, rules.related, rules.related_any, rules.unrelated, rules.zero_overlap,
        rules.without_modality, rules.without_anatomy, rules.without_task, rules.all_data, rules.all_but_target,
        rules.classification_only, rules.segmentation_only,
    )
}  # fmt: skip

# By hand, from the overlap table of papers.md 3.2; CC is the CT cell.
COLUMNS = ("XC", "XS", "MC", "MS", "CC")
CT_IS_CHEST = {
    #                       XC            XS            MC            MS            CC
    "zero-shot":           ("",           "",           "",           "",           ""),
    "in-domain":           ("XC",         "XS",         "MC",         "MS",         "CC"),
    "related":             ("XS CC",      "XC",         "MS",         "MC",         "XC"),
    "related-any":         ("XS CC MC",   "XC MS CC",   "MS XC CC",   "MC XS",      "XC MC XS"),
    "unrelated":           ("MC MS",      "MS CC MC",   "XC CC XS",   "XS XC CC",   "MC XS MS"),
    "zero-overlap":        ("MS",         "MC",         "XS",         "XC CC",      "MS"),
    "without-modality":    ("CC MC",      "MS CC",      "XC CC",      "XS",         "XC MC XS"),
    "without-anatomy":     ("MC",         "MS",         "XC CC",      "XS",         "MC"),
    "without-task":        ("XS",         "XC CC",      "MS",         "MC",         "XS"),
    "all-data":            ("XC XS MC MS CC",) * 5,
    "all-but-target":      ("XS MC MS CC", "XC MC MS CC", "XC XS MS CC", "XC XS MC CC", "XC XS MC MS"),
    "classification-only": ("MC CC",      "XC MC CC",   "XC CC",      "XC MC CC",   "XC MC"),
    "segmentation-only":   ("XS MS",      "MS",         "XS MS",      "XS",         "XS MS"),
    "sharing:none":        ("MS",         "MC",         "XS",         "XC CC",      "MS"),
    "sharing:modality":    ("",           "",           "",           "",           ""),
    "sharing:anatomy":     ("",           "CC",         "",           "",           "XS"),
    "sharing:task":        ("MC",         "MS",         "XC CC",      "XS",         "MC"),
    "sharing:modality+anatomy": ("XS",    "XC",         "MS",         "MC",         ""),
    "sharing:modality+task": ("",         "",           "",           "",           ""),
    "sharing:anatomy+task": ("CC",        "",           "",           "",           "XC"),
    "sharing:modality+anatomy+task": ("XC", "XS",       "MC",         "MS",         "CC"),
    "held-out:mri/*/*":    ("XS CC",      "XC CC",      "XC XS CC",   "XC XS CC",   "XC XS"),
}  # fmt: skip
# Where CT is of the lung, and a lung is not a chest, these differ; the others are as above.
CT_IS_LUNG = CT_IS_CHEST | {
    "related":             ("XS",         "XC",         "MS",         "MC",         ""),
    "related-any":         ("XS MC CC",   "XC MS",      "MS XC CC",   "MC XS",      "XC MC"),
    "unrelated":           ("MC CC MS",   "MS MC CC",   "XC CC XS",   "XS XC CC",   "MC XC MS XS"),
    "zero-overlap":        ("MS",         "MC CC",      "XS",         "XC CC",      "MS XS"),
    "without-modality":    ("MC CC",      "MS",         "XC CC",      "XS",         "XC MC"),
    "without-anatomy":     ("MC CC",      "MS",         "XC CC",      "XS",         "XC MC"),
    "without-task":        ("XS",         "XC",         "MS",         "MC",         ""),
    "sharing:none":        ("MS",         "MC CC",      "XS",         "XC CC",      "MS XS"),
    "sharing:anatomy":     ("",           "",           "",           "",           ""),
    "sharing:task":        ("MC CC",      "MS",         "XC CC",      "XS",         "XC MC"),
    "sharing:anatomy+task": ("",          "",           "",           "",           ""),
}  # fmt: skip


def hand(table: dict[str, tuple[str, ...]], ct: MAT) -> Iterator[tuple[str, MAT, set[MAT]]]:
    cells = {**NAMED, "CC": ct}
    for rule, row in table.items():
        for target, expected in zip(COLUMNS, row, strict=True):
            yield rule, cells[target], {cells[name] for name in expected.split()}


# With containment a lung lies in the chest, so that the table is that of CT = chest.
SETTINGS = [
    (CHEST, True, CT_IS_CHEST),
    (CHEST, False, CT_IS_CHEST),
    (LUNG, False, CT_IS_LUNG),
    (LUNG, True, CT_IS_CHEST),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CrossMed's five cells, built of counterfeits of its four sources."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("bench") / "b"
    catalog = Catalog()
    for name in ("brats2020", "chexpert", "mosmeddata", "siim-acr"):
        (raw / name).mkdir()
        catalog.dataset(name, {})[0].write_fixture(raw / name)
    build(BuildRequest((raw,), out, read_build_recipe("crossmed-20200")), catalog, lambda *progress: None)
    return out


@pytest.mark.parametrize(("ct", "containment", "table"), SETTINGS)
def test_every_rule_on_crossmeds_five_cells(ct: MAT, containment: bool, table: dict[str, tuple[str, ...]]) -> None:
    catalog, keys = Catalog(), keys_of([XC, XS, MC, MS, ct])
    assert {rule.partition(":")[0] for rule in table} | {"direction"} == set(catalog.plugins.records("split"))
    for rule, target, expected in hand(table, ct):
        known = catalog.split_options(rule)
        splitter = catalog.splitter(rule, {"containment": containment} if known else {})
        split = draw(splitter, keys, name=rule, target=target, seed=0)
        assert set(split.cells) == expected, (rule, target)
        assert {MAT.parse(item.rpartition("/train/")[0]) for item in split.train} == expected, (rule, target)
        assert split.trains == (rule != "zero-shot")
        assert bool(split.note) == (not expected and split.trains), (rule, target)


@pytest.mark.parametrize("containment", [True, False])
def test_show_split_equals_the_table_on_a_build_of_counterfeits(
    bench: Path, containment: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    table = CT_IS_CHEST if containment else CT_IS_LUNG
    shown: dict[MAT, dict[str, set[MAT]]] = {}
    for target in (XC, XS, MC, MS, LUNG):
        option = f"--split-option=containment={str(containment).lower()}"
        assert run(["show", "split", "--all", "-t", str(target), "--data", str(bench), option, "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        shown[target] = {row["split"]: {MAT.parse(cell) for cell in row["cells"]} for row in content["splits"]}
    for rule, target, expected in hand(table, LUNG):
        if ":" in rule:
            arguments = ["show", "split", rule, "-t", str(target), "--data", str(bench), option, "--json"]
            assert run(arguments) == 0
            content = json.loads(capsys.readouterr().out)
            assert {MAT.parse(row["cell"]) for row in content["cells"]} == expected, (rule, target)
        else:
            assert shown[target][rule] == expected, (rule, target)


def test_an_empty_rule_says_why_and_what_would_work() -> None:
    keys = keys_of([XC, XS, MC, MS, LUNG])
    split = replace(rules.related, containment=False)(keys, target=LUNG, seed=0)
    assert split.train == () and split.note == (
        "no cell shares exactly two factors with ct/lung/classification (lung and chest count as different: "
        "containment=false; with containment=true it would train on 1 cell); related-any would train on 2 cells"
    )
    with pytest.raises(CrossmedError, match="'related' is empty for ct/lung/classification"):
        require_cells(split)
    split = rules.zero_overlap(keys_of([XC, LUNG]), target=XC, seed=0)
    assert split.note == ("no cell shares no factor with xray/chest/classification; related would train on 1 cell"), (
        "containment is not blamed where it changes nothing"
    )
    require_cells(rules.zero_shot(keys, target=XC, seed=0), train=False)


def test_conditions_that_coincide_are_said_to() -> None:
    keys = keys_of([XC, XS, MC, MS, LUNG])
    wide = [rule(keys, target=MC, seed=0) for rule in (rules.without_modality, rules.without_anatomy, rules.related)]
    assert coincidences(wide) == [
        "without-modality and without-anatomy train on the same 2 cells for mri/brain/classification"
    ]
    assert (
        coincidences([rule(keys, target=XC, seed=0) for rule in (rules.without_modality, rules.without_anatomy)]) == []
    )
    other = replace(wide[1], target=XC)
    assert coincidences([wide[0], other]) == [], "another target is another condition"
    assert coincidences([rules.zero_shot(keys, target=MC, seed=0)] * 2) == []


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


# A grid of m, n x a, b x t, u: two of it together carry all that (m, a, t) has.
ARGUMENTS = {
    "direction": arguments.direction.configured({"strict": False}, "m/b/t+n/a/u"),
    "held-out": arguments.held_out.configured({}, "n/*/*"),
    **{
        f"sharing {factors}": arguments.sharing.configured({}, factors)
        for factors in ("none", "modality", "anatomy+task", "modality+anatomy+task")
    },
}
EVERY = {**PLAIN, **ARGUMENTS}
TARGET = MAT("m", "a", "t")
SOURCES = [MAT("m", "b", "t"), MAT("n", "a", "u")]


@given(grids, st.integers(0, 3), st.randoms())
def test_no_rule_leaks_and_order_never_matters(rows: list, seed: int, rng: random.Random) -> None:
    keys = as_keys(rows) + keys_of([TARGET, *SOURCES], per_part=2)
    mixed = list(keys)
    rng.shuffle(mixed)
    by_id = {key.id: key for key in keys}
    for name, rule in EVERY.items():
        split = rule(keys, target=TARGET, seed=seed)
        prove(split, by_id)
        sides = [
            {(by_id[item].patient, by_id[item].study) for item in ids} for ids in (split.train, split.val, split.test)
        ]
        assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2], name
        assert all(by_id[item].part == "train" for item in split.train), name
        assert split == rule(mixed, target=TARGET, seed=seed), name


@given(grids, st.integers(0, 3))
def test_adding_unrelated_cells_never_changes_a_split(rows: list, seed: int) -> None:
    keys = as_keys(rows) + keys_of([TARGET, *SOURCES], per_part=2)
    strangers = keys_of([MAT("strange", "stranger", "strangest"), MAT("strange", "other", "odd")])
    # These train on what shares nothing with the target, and the two of one kind on all of that kind.
    takes_strangers = {
        "unrelated", "zero-overlap", "all-data", "all-but-target", "classification-only", "held-out", "sharing none",
    }  # fmt: skip
    for name, rule in EVERY.items():
        before, after = (rule(some, target=TARGET, seed=seed) for some in (keys, keys + strangers))
        if name in takes_strangers:
            assert set(after.cells) == {*before.cells, *(key.mat for key in strangers)}, name
            assert [one for one in after.train if not one.startswith("strange/")] == list(before.train), name
        else:
            # The note of an empty rule counts what other rules would train on.
            assert replace(after, note=before.note) == before, name


@given(grids, st.integers(0, 3), st.data())
def test_smaller_trainings_are_nested_in_larger_ones(rows: list, seed: int, data: st.DataObject) -> None:
    keys = as_keys(rows) + keys_of([TARGET, *SOURCES], per_part=2)
    for rule in EVERY.values():
        split = rule(keys, target=TARGET, seed=seed)
        small, large = sorted(data.draw(st.integers(0, len(split.train))) for _ in range(2))
        first, second = (matched(split, train=n, val=None, test=None) for n in (small, large))
        assert second.train[:small] == first.train and first.test == second.test


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_makes_the_same_splits(hash_seed: str) -> None:
    here = {text: split_digest(split) for text, split in some_splits()}
    code = "from tests.test_splits import some_splits, split_digest; import json; "
    code += "print(json.dumps({text: split_digest(split) for text, split in some_splits()}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": hash_seed}, cwd=Path(__file__).parents[1],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == here


def some_splits() -> Iterator[tuple[str, Split]]:
    catalog, keys = Catalog(), keys_of([XC, XS, MC, MS, LUNG])
    for text in (*CT_IS_CHEST, "direction:mri/brain/classification+xray/chest/segmentation"):
        yield text, draw(catalog.splitter(text), keys, name=text, target=XC, seed=2)


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


STUDY = "study 's' of d stands in train"


@pytest.mark.parametrize(
    ("studies", "leak"),
    [(("s", "s"), True), (("s", None), False), ((None, None), False), (("s", "t"), False)],
)
def test_a_study_on_both_sides_is_named(studies: tuple[str | None, str | None], leak: bool) -> None:
    split, keys = good_split()
    sides = (split.train[0], split.test[0])
    keys |= {item: keys[item]._replace(study=study) for item, study in zip(sides, studies, strict=True)}
    if not leak:
        prove(split, keys)
        return
    with pytest.raises(SplitViolationError, match=STUDY) as caught:
        prove(split, keys)
    assert all(repr(item) in str(caught.value) for item in sides), "both sides are named"


def test_one_person_in_two_datasets_is_one() -> None:
    split, keys = good_split()
    first, last = split.train[0], split.test[0]
    keys |= {first: keys[first]._replace(patient="chexpert:p7", dataset="medmat")}
    keys |= {last: keys[last]._replace(patient="p7", dataset="chexpert")}
    with pytest.raises(SplitViolationError, match="patient 'p7' of chexpert stands in train"):
        prove(split, keys)


def test_a_split_that_does_not_train_holds_no_training_items() -> None:
    split, keys = good_split()
    with pytest.raises(SplitViolationError, match="nothing is trained"):
        prove(replace(split, trains=False), keys)


FIVE = [XC, XS, MC, MS, LUNG]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("relatde", {}, "Unknown split 'relatde'. Did you mean 'related'?"),
        ("related:ct/lung/finding", {}, "takes nothing after a colon"),
        ("related:", {}, "takes nothing after a colon"),
        ("related", {"containmnt": True}, "has no option 'containmnt'. Did you mean 'containment'?"),
        ("related", {"containment": 0}, "containment must be true or false, not 0"),
        ("zero-shot", {"containment": True}, "has no option 'containment'"),
        ("direction", {}, "needs an argument"),
        ("held-out: ", {}, "needs an argument"),
        ("direction:ct/lung/cls", {}, "names one cell"),
        ("direction:ct/lung/cls+ct/lung/classification", {}, "names one cell"),
        ("direction:ct/lung/cls+", {}, "nothing stands beside a '+'"),
        ("direction:ct/lung/cls+xray/chest", {}, "is not a cell"),
        ("direction:ct/lung/cls+mri/brain/seg", {"strict": "no"}, "strict must be true or false, not 'no'"),
        ("sharing:anatomie", {}, "'anatomie' is not a factor. Did you mean 'anatomy'?"),
        ("sharing:task+task", {}, "names 'task' twice"),
        ("held-out:ct/lung", {}, "is not modality/anatomy/task"),
        # Only the cells tell:
        ("direction:mri/brain/cls+mri/brain/seg", {}, "trains on its target mri/brain/classification"),
        ("direction:ct/lung/cls+mri/brian/seg", {}, "no items of mri/brian/segmentation here. Did you mean"),
        ("direction:ct/lung/cls+xray/chest/seg", {}, "no source has its modality or anatomy"),
        ("held-out:ct/lungs/sgementation", {}, "matches no cell here"),
        ("held-out:us/*/*", {}, "matches no cell here"),
    ],
)
def test_a_slip_of_the_pen_is_told(text: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(CrossmedError) as caught:
        draw(Catalog().splitter(text, options), keys_of(FIVE), name=text, target=MC, seed=0)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_splits_are_written_as_people_write_them() -> None:
    catalog, keys = Catalog(), keys_of(FIVE)
    for text, expected in (
        ("crossmed:related", {MS}),
        ("direction:MR/head/seg + CT/Lungs/cls", {MS, LUNG}),
        ("crossmed:direction:mri/brain/seg+ct/lung/cls", {MS, LUNG}),
        ("direction:mri/brain/seg+ct/lung/cls+xray/chest/seg", {MS, LUNG, XS}),
        ("held-out:CXR/thorax/seg", {XC, MS, LUNG}),
        ("held-out:x*/*/*+ct/lung/cls", {MS}),
        ("sharing:task", {XC, LUNG}),
    ):
        split = draw(catalog.splitter(text), keys, name=text, target=MC, seed=0)
        assert set(split.cells) == expected, text
        assert split.rule == text.removeprefix("crossmed:")
    assert catalog.split_claim("held-out:ct/lung/cls").record.name == "held-out"
    assert catalog.split_options("crossmed:direction:a+b") == {"containment", "strict"}
    assert catalog.split_settings("direction:a/b/c+d/e/f") == {"containment": True, "strict": True}
    assert catalog.split_settings("related", {"containment": False}) == {"containment": False}
    assert catalog.split_settings("zero-shot") == {}


def test_a_direction_that_lacks_a_factor_can_be_asked_for() -> None:
    splitter = Catalog().splitter("direction:ct/lung/cls+xray/chest/seg", {"strict": False})
    assert set(splitter(keys_of(FIVE), target=MC, seed=0).cells) == {LUNG, XS}


def test_a_fault_of_a_plugin_is_one_line() -> None:
    def broken(keys: object, *, target: MAT, seed: int) -> Split:
        raise SystemExit(3)

    with pytest.raises(CrossmedError, match="Split 'mine' failed for ct/lung/classification: SystemExit: 3"):
        draw(broken, keys_of(FIVE), name="mine", target=LUNG, seed=0)


def test_third_parties_write_a_rule_in_one_line() -> None:
    same_task = CellRule(
        "same-task", lambda target, cells, share: [c for c in cells if c.task == target.task and c != target]
    )
    split = same_task(keys_of([XC, XS, MC]), target=XC, seed=0)
    assert split.rule == "same-task" and split.cells == (MC,)


def test_rules_of_third_parties_see_which_factors_are_shared() -> None:
    same_place = CellRule(
        "same-place", lambda target, cells, share: [c for c in cells if share.factors(c) == {"anatomy"}]
    )
    assert same_place(keys_of([*FIVE, CHEST]), target=XS, seed=0).cells == (CHEST, LUNG)
    assert Shares(XS, containment=False).factors(LUNG) == frozenset() and Shares(XS)(LUNG) == 1

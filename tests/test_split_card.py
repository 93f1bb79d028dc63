"""The card of a split, counted by hand; what it remarks; and what the command shows of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossmed_cli.main import run
from crossmed_core.cell_table import read_cell_table, stand_in_keys
from crossmed_core.errors import CrossmedError
from crossmed_core.split_card import coinciding_factors, remarks, split_card
from crossmed_core.splits import SplitViolationError, matched
from crossmed_core.types import MAT, PARTS, ItemKey, Split
from crossmed_plugins.splits import arguments, rules

XC, XS = MAT("xray", "chest", "classification"), MAT("xray", "chest", "segmentation")
MC, MS = MAT("mri", "brain", "classification"), MAT("mri", "brain", "segmentation")
CC = MAT("ct", "lung", "classification")
SOURCES = {XC: "chexpert", XS: "siim-acr", MC: "brats2020", MS: "brats2020", CC: "mosmeddata"}


def crossmed(n: int = 4) -> dict[str, ItemKey]:
    """CrossMed's five cells; the two of BraTS show the same patients, in the same parts."""
    keys = [
        ItemKey(f"{cell}/{part}/{i}", cell, f"{part}-{i}", source, f"label {i % 2}", part, f"{part}-study-{i // 2}")
        for cell, source in SOURCES.items()
        for part in PARTS
        for i in range(n)
    ]
    return {key.id: key for key in keys}


def test_the_card_of_a_related_split_counted_by_hand() -> None:
    keys = crossmed()
    keys |= {one.id: one._replace(study=None) for one in keys.values() if one.mat == XS and one.id.endswith("train/0")}
    full = rules.related(list(keys.values()), target=XC, seed=0)
    split = matched(full, train=6, val=2, test=3)
    card = split_card(
        split, keys, settings={"containment": True}, proof={"images": {"compared": 9}}, matching={"steps": 7}
    )
    assert (card["rule"], card["target"], card["settings"]) == ("related", str(XC), {"containment": True})
    assert card["cells"] == [str(CC), str(XS)] and card["trains"]
    assert card["cells_out"] == {
        str(MC): ["task"], str(MS): [], str(XC): ["modality", "anatomy", "task"],
    }  # fmt: skip
    assert card["shared_factors"] == {str(CC): ["anatomy", "task"], str(XS): ["modality", "anatomy"]}
    assert card["shared_only_by_containment"] == {str(CC): ["anatomy"]}
    assert card["factor_overlap"] == {"modality": 0.5, "anatomy": 1.0, "task": 0.5}
    assert card["source_datasets"] == {"train": ["mosmeddata", "siim-acr"], "test": ["chexpert"], "shared": []}
    assert card["n"] == {"train": 6, "val": 2, "test": 3}
    counts = {cell: found.get("train", {}) for cell, found in card["n_per_cell_and_label"].items()}
    assert {cell: sum(found.values()) for cell, found in counts.items()} == {str(CC): 3, str(XS): 3, str(XC): 0}
    assert card["patients"] == {side: len({(keys[i].dataset, keys[i].patient) for i in ids}) for side, ids in
                                (("train", split.train), ("val", split.val), ("test", split.test))}  # fmt: skip
    known = {(keys[i].dataset, keys[i].study) for i in split.train if keys[i].study}
    assert card["studies"]["train"] == {
        "known": len(known),
        "items_without": sum(not keys[i].study for i in split.train),
    }
    assert card["matching"]["per_cell"] == {"min": 3, "max": 3} and card["matching"]["per_label"] == {
        "min": 1,
        "max": 2,
    }
    assert card["matching"]["uneven"] == [] and card["matching"]["steps"] == 7
    assert card["proof"]["images"] == {"compared": 9} and "none on two sides" in card["proof"]["patients"]
    for side in PARTS:
        ids = getattr(split, side)
        assert card[side] == list(ids)
        assert card["ids_sha256"][side] == hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
    json.dumps(card)


def test_the_digests_tell_what_changed() -> None:
    keys = crossmed()
    split = rules.related(list(keys.values()), target=XC, seed=0)
    card = split_card(split, keys)
    swapped = split_card(replace(split, train=split.train[::-1]), keys)
    assert swapped["ids_sha256"] == card["ids_sha256"], "the same ids"
    assert swapped["sha256"] != card["sha256"], "in another order"
    fewer = split_card(matched(split, train=5, val=None, test=None), keys)
    assert fewer["ids_sha256"]["train"] != card["ids_sha256"]["train"]
    assert fewer["ids_sha256"]["test"] == card["ids_sha256"]["test"]


def test_what_cannot_be_matched_is_in_the_card() -> None:
    keys = crossmed(12)
    few = {XS: 2, CC: 12}
    keys = {
        item: key for item, key in keys.items()
        if key.part != "train" or int(item.rpartition("/")[2]) < few.get(key.mat, 12)
    }  # fmt: skip
    keys |= {
        item: key._replace(label="rare" if item.endswith("/0") else "common")
        for item, key in keys.items() if key.mat == CC
    }  # fmt: skip
    card = split_card(rules.related(list(keys.values()), target=XC, seed=0), keys)
    assert card["matching"] == {
        "per_cell": {"min": 2, "max": 12},
        "per_label": {"min": 1, "max": 11},
        "uneven": ["cells: 2 to 12 training items each", f"labels of {CC}: 1 to 11 training items each"],
    }
    nothing = split_card(rules.zero_shot(list(keys.values()), target=XC, seed=0), keys)
    assert nothing["matching"] == {"per_cell": None, "per_label": None, "uneven": []}
    assert nothing["factor_overlap"] == {"modality": None, "anatomy": None, "task": None} and not nothing["trains"]


def test_no_card_without_a_proof() -> None:
    keys = crossmed()
    split = rules.related(list(keys.values()), target=XC, seed=0)
    test = keys[split.test[0]]
    first = keys[split.train[0]]
    with pytest.raises(SplitViolationError, match="stands in train"):
        split_card(split, {**keys, test.id: test._replace(dataset=first.dataset, patient=first.patient)})


def said(split: Split, keys: dict[str, ItemKey]) -> str:
    return "\n".join(remarks(split, keys))


def test_remarks_on_crossmeds_cells() -> None:
    keys = crossmed()
    values = list(keys.values())
    zero = said(rules.zero_overlap(values, target=MC, seed=0), keys)
    assert "every training cell asks for a segmentation, the target for a classification" in zero
    assert "all training items are of one source dataset, siim-acr" in zero
    assert "the target is of" not in zero, "BraTS is not trained on"
    related = said(rules.related(values, target=MC, seed=0), keys)
    assert "the target is of brats2020, which is trained on too" in related
    assert "no training cell shares the target's task" in related and "answer format" in related
    # MRI shows the brain, X-ray the chest, CT the lung, and each source one of them.
    assert "modality and anatomy coincide" in related and "modality and task" not in related
    assert "each source dataset shows one anatomy in one modality" in related
    pair = arguments.direction.configured({}, "ct/lung/cls+mri/brain/seg")(values, target=MC, seed=0)
    assert f"fixed: nothing; recombined: modality from {MS}, anatomy from {MS}, task from {CC}" in said(pair, keys)
    pair = arguments.direction.configured({}, "xray/chest/seg+ct/lung/cls")(values, target=XC, seed=0)
    assert f"fixed: anatomy; recombined: modality from {XS}, task from {CC}" in said(pair, keys)
    assert "fixed" not in said(rules.in_domain(values, target=XC, seed=0), keys)
    assert remarks(rules.zero_shot(values, target=XC, seed=0), keys) == []


def test_a_cell_without_training_items_is_named() -> None:
    keys = {item: key for item, key in crossmed().items() if (key.mat, key.part) != (CC, "train")}
    assert f"no training items in {CC}" in said(rules.related(list(keys.values()), target=XC, seed=0), keys)


def test_one_dataset_and_a_full_grid_need_no_remark() -> None:
    cells = [MAT(m, a, t) for m in ("ct", "mri") for a in ("brain", "knee") for t in ("finding", "grade")]
    keys = [ItemKey(f"{cell}/{part}", cell, f"{cell}/{part}", "d", "", part) for cell in cells for part in PARTS]
    assert coinciding_factors(keys) == []
    split = rules.related(keys, target=cells[0], seed=0)
    (line,) = remarks(split, {key.id: key for key in keys})
    assert line.startswith("fixed: nothing; recombined: modality from")


# -- the command -----------------------------------------------------------------------------------

Show = Callable[..., Any]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "cells.csv"
    path.write_text(
        "Modality,area,TASK,N,about\nX-ray,Chest,cls,40,CheXpert\nCXR,thorax,Seg,10,SIIM\nMRI,brain,cls,20,\n"
        "mri,head,seg,20,\nCT,lungs,cls,0,\n"
    )
    return path


@pytest.fixture
def show(table: Path, capsys: pytest.CaptureFixture[str]) -> Show:
    def call(*words: str, target: str = "mri/brain/cls", cells: Path = table, code: int = 0) -> str:
        assert run(["show", "split", *words, "-t", target, "--cells", str(cells)]) == code
        return capsys.readouterr().out

    return call


def test_a_table_of_cells_is_enough(show: Show, table: Path) -> None:
    assert read_cell_table(table) == {XC: 40, XS: 10, MC: 20, MS: 20, CC: 0}
    text = show("without-modality")
    assert "without-anatomy" in text.splitlines()[-2] and "trains on the same as" in text
    assert "no training items in ct/lung/classification" in text
    assert text.endswith("2 training cells of 5; 40 training items.\n")
    rows = [line.split() for line in text.splitlines()]
    assert ["xray/chest/classification", "40", "task"] in rows and ["ct/lung/classification", "0", "task"] in rows
    grid = [row for row in rows if row[:1] in (["mri"], ["xray"], ["ct"])]
    assert grid == [["ct", "C"], ["mri", "[c]", "s"], ["xray", "C", "s"]]


def test_the_same_as_json(show: Show) -> None:
    content = json.loads(show("without-modality", "--split-option=containment=false", "--json"))
    assert content["settings"] == {"containment": False} and content["n"]["train"] == 40
    assert content["cells"] == [
        {"cell": str(CC), "train": 0, "shares": ["task"]},
        {"cell": str(XC), "train": 40, "shares": ["task"]},
    ]
    assert {row["cell"]: row["shares"] for row in content["cells_out"]} == {
        str(XS): [], str(MC): ["modality", "anatomy", "task"], str(MS): ["modality", "anatomy"],
    }  # fmt: skip
    assert "without-anatomy" in content["same_as"] and "related" not in content["same_as"]


def test_an_empty_rule_is_shown_with_its_reason(show: Show) -> None:
    text = show("related", "--split-option", "containment=false", target="ct/lung/cls")
    assert "Empty: no cell shares exactly two factors with ct/lung/classification (lung and chest count as" in text
    assert "related-any would train on 2 cells." in text
    assert "nothing is trained" in show("--all")


def test_all_rules_in_one_table(show: Show) -> None:
    content = json.loads(show("--all", "--json"))
    rows = {row["split"]: row for row in content["splits"]}
    assert rows["in-domain"]["train"] == 20 and rows["all-data"]["train"] == 90
    assert rows["zero-overlap"]["cells"] == [str(XS)]
    assert not {"direction", "held-out", "sharing"} & set(rows)
    assert any("without-anatomy and without-modality train on the same" in line for line in content["coincidences"])


def test_counts_that_nobody_gave_are_not_made_up(show: Show, tmp_path: Path) -> None:
    (bare := tmp_path / "bare.csv").write_text("modality,anatomy,task\nct,lung,a\nct,lung,b\nct,brain,a\n")
    text = show("related", target="ct/lung/a", cells=bare)
    assert "2 training cells of 3; the table does not say how many items." in text
    assert json.loads(show("related", "--json", target="ct/lung/a", cells=bare))["n"] == {"train": None}
    assert json.loads(show("related", "--json"))["n"] == {"train": 20}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"modality,task\nct,a\n", "no column 'anatomy' or 'area'"),
        (b"", "no column 'modality'"),
        (b"modality,area,task\n", "holds no row"),
        (b"modality,area,task\nct,,a\n", "row 2: modality, anatomy or task is empty"),
        (b"modality,area,task\nct,lung,a\nct,lung\n", "row 3: modality, anatomy or task is empty"),
        (b"modality,area,task,n\nct,lung,a,many\n", "row 2: n must be a whole number of at least 0, not 'many'"),
        (b"modality,area,task,n\nct,lung,a,-1\n", "not '-1'"),
        (b"\xff\xfe\x00", "cannot be read as CSV"),
        (None, "cannot be read as CSV"),
    ],
)
def test_a_broken_table_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "cells.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CrossmedError) as caught:
        read_cell_table(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_rows_of_one_cell_are_added() -> None:
    cells = {MC: 3, XS: 0}
    assert {(key.mat, key.part) for key in stand_in_keys(cells)} == {(MC, part) for part in PARTS} | {
        (XS, "val"), (XS, "test"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "target", "message"),
    [
        ((), "mri/brain/cls", "Name one split, or ask for --all"),
        (("related", "--all"), "mri/brain/cls", "Name one split, or ask for --all"),
        (("related",), "mri/brian/cls", "Did you mean 'mri/brain/classification'"),
        (("related",), "mri", "is not a cell"),
        (("related", "--split-option=strict=true"), "mri/brain/cls", "has no option 'strict'"),
        (("--all", "--split-option=strct=true"), "mri/brain/cls", "No split has an option 'strct'"),
        (("direction",), "mri/brain/cls", "needs an argument"),
    ],
)
def test_a_wrong_command_is_told(
    table: Path, words: tuple[str, ...], target: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", "split", *words, "-t", target, "--cells", str(table)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == "" and captured.err.count("\n") == 1

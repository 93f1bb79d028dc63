"""Splits on Med-MAT's 53 subsets, from its table alone, against pandas; and its 43 directions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import crossmed_core
import crossmed_plugins.medmat
from crossmed_cli.main import run
from crossmed_core.catalog import Catalog
from crossmed_core.recipe import read_recipe
from crossmed_core.split_card import remarks
from crossmed_core.splits import draw
from crossmed_core.types import MAT, PARTS, ItemKey
from crossmed_plugins.medmat.directions import directions, recipe_text
from crossmed_plugins.medmat.tables import subsets

TABLE = Path(crossmed_plugins.medmat.__file__).parent / "subsets.csv"
RECIPE = Path(crossmed_core.__file__).parent / "recipes" / "medmat-directions.toml"
PLAIN = [name for name, claim in Catalog().plugins.records("split").items() if not claim.record.argument]


def table() -> pd.DataFrame:
    """The 53 rows, with our names for the 37 that have questions and names made of the title for the others."""
    frame = pd.read_csv(TABLE, dtype=str, keep_default_na=False)
    titles = frame["task"].str.lower().str.replace("/", "-").str.replace(" ", "-")
    frame["slug"] = frame["slug"].where(frame["slug"] != "", titles)
    modality = {"X-ray": "xray", "Co": "colposcopy", "DP": "photography", "Der": "dermoscopy", "End": "endoscopy",
                "Mic": "microscopy", "FP": "fundus"}  # fmt: skip
    frame["m"] = frame["modality"].map(lambda name: modality.get(name, name.lower()))
    # Table 17 says fundus of the photographs and retina of OCT: one organ.
    frame["a"] = frame["area"].map(lambda name: {"Bones": "bone", "Fundus": "retina"}.get(name, name.lower()))
    return frame


FRAME = table()
CELLS = [MAT(row.m, row.a, row.slug) for row in FRAME.itertuples()]
KEYS = [
    ItemKey(f"{cell}/{part}/{n}", cell, f"{cell}/{part}/{n}", "medmat", f"label {n}", part)
    for cell in CELLS
    for part in PARTS
    for n in range(2)
]
INSIDE = {("lung", "chest"), ("breast", "chest")}
"""All pairs of areas in Table 17 of which one lies in the other."""


def test_the_table_is_whole() -> None:
    assert len(FRAME) == 53 and len(set(CELLS)) == 53
    assert all(CELLS[number - 1] == one.mat for number, one in subsets().items())
    assert FRAME["m"].nunique() == 11


def by_pandas(target: MAT, containment: bool) -> dict[str, set[MAT]]:
    """The rules as masks over the table, written apart from the vocabulary and the rules of crossmed."""
    m, t = FRAME["m"] == target.modality, FRAME["slug"] == target.task
    a = FRAME["a"].map(
        lambda area: (
            area == target.anatomy or (containment and bool({(area, target.anatomy), (target.anatomy, area)} & INSIDE))
        )
    )
    count = m.astype(int) + a.astype(int) + t.astype(int)
    own = m & t & (FRAME["a"] == target.anatomy)
    mask = FRAME["task"].str.contains("Seg")
    box = FRAME["task"].str.endswith("Det")
    some = count.isin([1, 2])
    masks = {
        "zero-shot": own & ~own,
        "in-domain": own,
        "related": count == 2,
        "related-any": some,
        "unrelated": count <= 1,
        "zero-overlap": ~m & ~a & ~t,
        "without-modality": some & ~m,
        "without-anatomy": some & ~a,
        "without-task": some & ~t,
        "all-data": own | ~own,
        "all-but-target": ~own,
        "classification-only": ~own & ~mask & ~box,
        "segmentation-only": ~own & mask,
        "sharing:modality": m & ~a & ~t,
        "sharing:modality+anatomy": m & a & ~t,
        "held-out:xray/*/*": ~own & (FRAME["m"] != "xray"),
    }
    return {name: {CELLS[i] for i in FRAME.index[found]} for name, found in masks.items()}


@pytest.mark.parametrize("containment", [True, False])
def test_every_rule_on_every_subset(containment: bool) -> None:
    catalog = Catalog()
    texts = [*PLAIN, "sharing:modality", "sharing:modality+anatomy", "held-out:xray/*/*"]
    found_some = dict.fromkeys(texts, 0)
    splitters = {
        text: catalog.splitter(text, {"containment": containment} if catalog.split_options(text) else {})
        for text in texts
    }
    for target in CELLS:
        expected = by_pandas(target, containment)
        assert expected.keys() == splitters.keys()
        for text, splitter in splitters.items():
            split = draw(splitter, KEYS, name=text, target=target, seed=0)
            assert set(split.cells) == expected[text], (text, target)
            found_some[text] += bool(split.cells)
    assert not any(found_some[text] == 0 for text in texts if text != "zero-shot"), "a rule that is always empty"


def test_the_shipped_table_is_enough_for_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with TABLE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    arguments = ["show", "split", "--all", "-t", "X-ray/Chest/Multi-labels Det", "--cells", str(TABLE), "--json"]
    assert run(arguments) == 0
    content: dict[str, Any] = {row["split"]: row for row in json.loads(capsys.readouterr().out)["splits"]}
    xray = [row for row in rows if row["modality"] == "X-ray"]
    chest = [row for row in rows if row["area"] in ("Chest", "Lung", "Breast")]
    assert len(content["all-data"]["cells"]) == 53
    both = [row for row in xray if row in chest]
    assert len(content["related"]["cells"]) == len(both) - 1, "no other subset has that task"
    assert len(content["zero-overlap"]["cells"]) == sum(row not in xray and row not in chest for row in rows)
    assert len(content["segmentation-only"]["cells"]) == sum("Seg" in row["task"] for row in rows)
    assert content["in-domain"]["cells"] == ["xray/chest/multi-labels-det"]


# -- the 43 directions -----------------------------------------------------------------------------


def test_the_directions_are_those_of_table_3() -> None:
    rows = directions()
    assert [one.row for one in rows] == list(range(1, 44))
    assert {kind: sum(one.kind == kind for one in rows) for kind in dict.fromkeys(one.kind for one in rows)} == {
        "fixed modality": 14, "fixed area": 4, "fixed task": 12, "modality-area pair": 13,
    }  # fmt: skip
    # Table 3 marks 37 rows where training on the sources beats both baselines (papers.md 7).
    assert sum(one.printed[2] > max(one.printed[:2]) for one in rows) == 37


# Accuracy in percent without training, from Tables 1 and 2.
BASELINES = {
    3: 47, 4: 25, 5: 33, 6: 33, 7: 40, 8: 25, 10: 48, 17: 33, 19: 23, 21: 49, 26: 49, 27: 37, 28: 30, 30: 49, 32: 49,
}  # fmt: skip


def test_each_target_has_the_printed_baseline_or_says_that_it_has_not() -> None:
    assert {one.target for one in directions()} == BASELINES.keys()
    for one in directions():
        assert (one.printed[0] == BASELINES[one.target]) == (one.target_by == "baseline"), one
        assert one.target_by == "baseline" or one.note, one
        assert one.sources_by in ("name", "guess") and (one.sources_by == "name" or one.note), one
    assert [one.row for one in directions() if one.target_by != "baseline"] == [21]


def test_each_direction_has_the_form_that_its_type_says() -> None:
    """What the paper fixes is fixed in our cells, and place and modality recombine to the target's."""
    for one in directions():
        target, (first, second) = subsets()[one.target].mat, one.cells
        assert len({target, first, second}) == 3, one
        modalities, anatomies = {first.modality, second.modality}, {first.anatomy, second.anatomy}
        if one.kind == "fixed modality":
            assert modalities == {target.modality} and target.anatomy in anatomies, one
        elif one.kind == "fixed area":
            assert anatomies == {target.anatomy} and target.modality in modalities, one
        elif one.kind == "fixed task":
            assert target.modality in modalities and target.anatomy in anatomies, one
            assert not any(cell[:2] == target[:2] for cell in one.cells), one
        else:
            assert sum(cell[:2] == target[:2] for cell in one.cells) == 1, one


def test_the_names_fit_the_subsets() -> None:
    """A printed name that tells modality or area tells that of our cell."""
    modality = {"CT": "ct", "X-ray": "xray", "Der": "dermoscopy", "FP": "fundus", "OCT": "oct", "DP": "photography",
                "Mic": "microscopy"}  # fmt: skip
    anatomy = {"Lung": "lung", "Brain": "brain", "Bones": "bone", "Breast": "breast", "Chest": "chest", "Skin": "skin",
               "Fundus": "retina", "Retina": "retina", "Mouth": "mouth", "Cell": "cell"}  # fmt: skip
    for one in directions():
        for name, cell in zip(one.names, (*one.cells, subsets()[one.target].mat), strict=True):
            words = name.replace("(", " ").replace("-Skin", " Skin").replace("-Fundus", " Fundus")
            words = words.replace("-Retina", " Retina").replace("-Mouth", " Mouth").replace("-Cell", " Cell")
            for word in words.split():
                assert modality.get(word, cell.modality) == cell.modality, (one.row, name, cell)
                assert anatomy.get(word, cell.anatomy) == cell.anatomy, (one.row, name, cell)


def test_the_recipe_is_made_of_the_table() -> None:
    assert RECIPE.read_text(encoding="utf-8") == recipe_text(), "write recipe_text() to the file anew"
    study = read_recipe(RECIPE)
    assert study.compare == (("direction", "zero-overlap"), ("direction", "zero-shot"))
    asked = {(block.targets[0], split) for block in study.blocks for split in block.splits if ":" in split}
    assert asked == {(str(subsets()[one.target].mat), one.split) for one in directions()}
    assert all(block.splits[:2] == ("zero-shot", "zero-overlap") for block in study.blocks)
    # Rows 16 and 17 come to the same subsets; no other two do, and no trial is asked for twice.
    assert len(asked) == 42 == sum(len(block.splits) - 2 for block in study.blocks)
    assert len({block.targets for block in study.blocks}) == len(study.blocks)


def test_every_direction_of_the_recipe_can_be_drawn_and_says_what_it_lacks() -> None:
    catalog, study, by_id = Catalog(), read_recipe(RECIPE), {key.id: key for key in KEYS}
    for block in study.blocks:
        target = MAT.parse(block.targets[0])
        for text in block.splits:
            known = catalog.split_options(text)
            options = {name: value for name, value in study.split_options.items() if name in known}
            split = draw(catalog.splitter(text, options), KEYS, name=text, target=target, seed=0)
            if text.startswith("direction:"):
                assert len(split.cells) == 2
                assert remarks(split, by_id)[0] == "no training cell shares the target's task"

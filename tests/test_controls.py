"""Controls: what is taken away is gone, and nothing else changes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossmed_core.catalog import Catalog
from crossmed_core.controls import controlled, why_not
from crossmed_core.errors import CrossmedError
from crossmed_core.images import BLANK, read_image
from crossmed_core.recipe import CONTROLS, check_controls
from crossmed_core.records import ModelRecord
from crossmed_core.types import MAT, RLE, ImageRef, Item, MaskRef

CELL = MAT("ct", "chest", "finding")
CELLS = [CELL, MAT("ct", "brain", "finding"), MAT("xray", "brain", "finding"), MAT("us", "knee", "finding")]


def item(number: int, *, patient: str = "", side: int | None = None, marked: bool = False) -> Item:
    rle = RLE((side, side), (3, side * side - 3)) if side else None
    return Item(
        id=f"i{number}",
        dataset="d",
        mat=CELL,
        patient=patient or f"p{number}",
        part="test",
        image=ImageRef(f"/images/{number}.png", marks=(rle,) * 2 if rle and marked else ()),
        question="What does this chest CT show?",
        options=() if side and not marked else ("a", "b"),
        answer=None if side and not marked else 0,
        label="" if side and not marked else "a",
        mask=MaskRef(rle=rle) if rle else None,
        candidates=(rle,) * 2 if rle and marked else (),
    )


def asked(control: str, items: Sequence[Item], cells: Sequence[MAT] = CELLS) -> list[Item]:
    found = controlled(control, items, cells)
    assert all(isinstance(one, Item) for one in found), found
    return [one for one in found if isinstance(one, Item)]


@pytest.mark.parametrize("control", CONTROLS)
def test_only_what_is_named_changes(control: str) -> None:
    items = [item(n) for n in range(5)]
    for before, after in zip(items, asked(control, items), strict=True):
        assert replace(after, image=before.image, question=before.question, withheld=frozenset()) == before
        assert (after.image != before.image) == (control in ("blank-image", "shuffled-image"))
        assert ("image" in after.withheld) == (control in ("text-only", "options-only"))
        assert (after.question != before.question) == (control in ("options-only", "wrong-mat"))
    assert {one.question for one in asked("options-only", items)} == {""}


def test_a_blank_image_is_grey_and_keeps_its_marks(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (400, 400), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    plain = replace(item(0), image=ImageRef(str(tmp_path / "a.png")))
    (blank,) = asked("blank-image", [plain])
    assert (read_image(blank.image) == BLANK).all() and read_image(blank.image).shape == (400, 400)
    region = RLE((400, 400), (400 * 100 + 100, 50, 400 * 400 - 400 * 100 - 150))
    marked = replace(blank.image, marks=(region,))
    drawn = read_image(marked)
    assert (drawn != BLANK).any() and np.median(drawn) == BLANK


rows = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([None, 8, 16]), st.booleans()), min_size=1, max_size=25)


@given(rows, st.randoms())
def test_a_shuffled_image_is_another_patients_of_the_same_grid(
    rows: list[tuple[int, int | None, bool]], rng: random.Random
) -> None:
    items = [item(n, patient=f"p{who}", side=side, marked=marked) for n, (who, side, marked) in enumerate(rows)]
    found = controlled("shuffled-image", items, CELLS)
    by_path = {one.image.path: one for one in items}
    for before, after in zip(items, found, strict=True):
        size = before.mask.rle.size if before.mask and before.mask.rle else None
        fitting = [
            one
            for one in items
            if one.patient != before.patient and (one.mask.rle.size if one.mask and one.mask.rle else None) == size
        ]
        if isinstance(after, str):
            assert not fitting
        else:
            assert by_path[after.image.path] in fitting
            assert after.image.marks == before.image.marks
    mixed = list(items)
    rng.shuffle(mixed)
    again = dict(zip((one.id for one in mixed), controlled("shuffled-image", mixed, CELLS), strict=True))
    assert [again[one.id] for one in items] == found, "the order in which items come never matters"


def test_wrong_words_name_another_modality_and_anatomy() -> None:
    items = [item(n) for n in range(40)]
    questions = {one.question for one in asked("wrong-mat", items)}
    assert questions == {"What does this brain X-ray show?", "What does this knee ultrasound show?"}
    spoken = replace(items[0], question="Which finding has this thoracic computed tomography?")
    (wrong,) = asked("wrong-mat", [spoken])
    assert "thoracic" not in wrong.question and "tomography" not in wrong.question
    inside = replace(items[0], question="An orchestra in a chestnut tree: chest?")
    assert asked("wrong-mat", [inside])[0].question.startswith("An orchestra in a chestnut tree: ")
    neutral = replace(items[0], question="What is shown?")
    assert controlled("wrong-mat", [neutral], CELLS) == ["its question names neither modality nor anatomy"]
    in_the_chest = [CELL, MAT("xray", "lung", "finding"), MAT("us", "heart", "finding")]
    assert controlled("wrong-mat", items[:1], [CELL, MAT("ct", "lung", "grade")]) == [
        "the benchmark has no other modality or anatomy"
    ], "a lung CT shows the chest"
    assert {one.question for one in asked("wrong-mat", items, [*in_the_chest, MAT("us", "knee", "finding")])} == {
        "What does this knee ultrasound show?"
    }
    assert controlled("wrong-mat", items[:1], [CELL]) == ["the benchmark has no other modality or anatomy"]


def test_every_phantom_question_can_be_asked_wrongly() -> None:
    benchmark = Catalog().benchmark("phantom", {"train": 1, "val": 1, "test": 2}, None)
    ids = [key.id for key in benchmark.keys.values() if key.part == "test"]
    items = benchmark.items(ids)
    for before, after in zip(items, asked("wrong-mat", items, list(benchmark.questions)), strict=True):
        assert before.mat.anatomy in before.question and before.mat.anatomy not in after.question


def test_which_controls_say_something_about_which_models() -> None:
    def record(**facts: bool) -> ModelRecord:
        return ModelRecord(name="m", summary="", target="m:M", **facts)

    network, reader = record(), record(reads_text=True)
    blind, text = record(sees_images=False), record(sees_images=False, reads_text=True)
    applies = {
        name: [control for control in CONTROLS if not why_not(control, one)]
        for name, one in (("network", network), ("reader", reader), ("blind", blind), ("text", text))
    }
    assert applies == {
        "network": ["blank-image", "shuffled-image"],
        "reader": list(CONTROLS),
        "blind": [],
        "text": ["text-only", "options-only", "wrong-mat"],
    }


def test_names_of_controls() -> None:
    assert check_controls(["wrong-mat", "text-only"]) == ("text-only", "wrong-mat")
    assert check_controls(["all"]) == CONTROLS
    with pytest.raises(CrossmedError, match="no control 'blank'"):
        check_controls(["blank"])

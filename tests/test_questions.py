"""Questions: four options, seeded by the sample, balanced."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from crossmed_core.errors import CrossmedError
from crossmed_core.questions import letter_counts, make_item, part_of
from crossmed_core.types import MAT, RLE, ImageRef, MaskRef, Question, Sample

CELL = MAT("ct", "chest", "finding")
LABELS = ("a", "b", "c", "d", "e", "f")
QUESTION = Question(
    CELL, "option", ("{modality} of the {anatomy}: what?", "What is in this {anatomy} {modality}?"), LABELS
)


def sample(name: str, label: str = "a", **more: object) -> Sample:
    return Sample(name, f"patient of {name}", CELL, ImageRef("/x.png"), label, **more)  # type: ignore[arg-type]


@given(st.text(min_size=1), st.sampled_from(LABELS))
def test_four_distinct_options_one_of_them_true(name: str, label: str) -> None:
    item = make_item(sample(name, label), QUESTION, dataset="d")
    assert len(item.options) == 4 == len(set(item.options))
    assert item.answer is not None and item.options[item.answer] == label == item.label
    assert set(item.options) <= set(LABELS)
    assert "CT" in item.question and "chest" in item.question


def test_an_item_depends_on_its_sample_alone() -> None:
    names = [f"s{number}" for number in range(50)]
    alone = {name: make_item(sample(name), QUESTION, dataset="d") for name in names}
    backwards = {name: make_item(sample(name), QUESTION, dataset="d") for name in reversed(names)}
    assert alone == backwards


def test_letters_templates_and_distractors_are_balanced() -> None:
    items = [make_item(sample(f"s{number}", LABELS[number % 6]), QUESTION, dataset="d") for number in range(6000)]
    letters = letter_counts(items)
    assert list(letters) == ["A", "B", "C", "D"]
    assert chisquare(list(letters.values())).pvalue > 1e-4
    assert chisquare(list(Counter(item.question for item in items).values())).pvalue > 1e-4
    wrong = Counter((item.label, option) for item in items for option in item.options if option != item.label)
    assert len(wrong) == 30 and chisquare(list(wrong.values())).pvalue > 1e-4
    # The letter must not depend on the label, or text alone would answer.
    by_label = Counter((item.label, item.answer) for item in items)
    assert chisquare(list(by_label.values())).pvalue > 1e-4


def test_fewer_labels_than_four_give_fewer_options() -> None:
    item = make_item(sample("s"), Question(CELL, "option", ("?",), ("a", "b")), dataset="d")
    assert sorted(item.options) == ["a", "b"]


def test_a_label_that_the_cell_does_not_declare_is_named() -> None:
    with pytest.raises(CrossmedError, match=r"label 'zebra'.*Declared: a, b"):
        make_item(sample("s", "zebra"), QUESTION, dataset="d")


def test_a_mask_item_carries_mask_and_question_and_no_options() -> None:
    question = Question(CELL, "mask", ("Outline it.",))
    item = make_item(sample("s", mask=MaskRef(rle=RLE((1, 2), (1, 1)))), question, dataset="d")
    assert item.kind == "mask" and item.mask is not None and item.options == () and item.prompt == "Outline it."
    with pytest.raises(CrossmedError, match="has none"):
        make_item(sample("s"), question, dataset="d")


def test_parts_are_drawn_by_patient() -> None:
    parts = Counter(part_of(sample(f"s{number}")) for number in range(5000))
    assert abs(parts["train"] - 4000) < 120 and abs(parts["val"] - 500) < 90 and abs(parts["test"] - 500) < 90
    one = Sample("x", "p", CELL, ImageRef("/x"))
    assert part_of(one) == part_of(Sample("y", "p", CELL, ImageRef("/y"))), "one patient, one part"
    assert part_of(sample("s", part="val")) == "val", "the source's own part is kept"

"""The strict reader of generated answers, and boxes in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmed_plugins.mllm.boxes import read_box, write_box
from crossmed_plugins.mllm.parser import parse_option

OPTIONS = ("Normal", "Pneumonia", "COVID-19", "Tuberculosis")


@pytest.mark.parametrize(
    "said",
    ["B", "b", " B ", "B.", "(B)", "[B]", "B)", "B:", "B. Pneumonia", "B: pneumonia.", "(B) Pneumonia", "**B**",
     "Answer: B", "The answer is B.", "The correct answer is (B)", "Option B", "The correct option is B. Pneumonia",
     "Pneumonia", "pneumonia.", "B,"],
)  # fmt: skip
def test_what_names_one_option_is_read(said: str) -> None:
    assert parse_option(said, OPTIONS) == (1, None)


@pytest.mark.parametrize(
    "said",
    # The outputs that readers of other harnesses get wrong: they find an option in a sentence that denies it, in an
    # article, in a vitamin.
    ["The image shows pneumonia.", "A chest X-ray with signs of pneumonia.", "There is no evidence of Tuberculosis.",
     "This is not normal; it shows pneumonia.", "Vitamin D deficiency", "Grade C lesion", "", "  ", "E", "B or C",
     "B. Tuberculosis", "The answer is B because A is wrong: ...", "A Pneumonia", "Both", "Dense", "AB", "A B C D",
     "I think it is B", "?"],
)  # fmt: skip
def test_what_does_not_is_unparsed(said: str) -> None:
    assert parse_option(said, OPTIONS) == (None, "unparsed")


@pytest.mark.parametrize(
    "said",
    ["I'm sorry, but I can't help with medical images.", "I cannot determine this from the image.",
     "As an AI model I do not diagnose.", "I am unable to answer.", "I’m not able to say.", "I won't answer this."],
)  # fmt: skip
def test_refusals_are_told_apart(said: str) -> None:
    assert parse_option(said, OPTIONS) == (None, "refused")


def test_equal_texts_name_no_single_option() -> None:
    assert parse_option("mild", ("mild", "Mild ", "severe")) == (None, "unparsed")
    assert parse_option("B", ("mild", "Mild ", "severe")) == (1, None)


def test_letters_end_with_the_options() -> None:
    assert parse_option("C", ("yes", "no")) == (None, "unparsed")


@given(st.text(max_size=60))
def test_any_text_gives_an_option_or_a_failure(said: str) -> None:
    option, failure = parse_option(said, OPTIONS)
    assert (option is None) is (failure is not None)
    assert option is None or 0 <= option < 4


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_box_survives_the_round_trip(height: int, width: int, data: st.DataObject) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    for form in ("pixels", "thousandths"):
        text = write_box(mask, form, (height, width))
        found = read_box(text, form, (height, width), (height, width))
        assert found is not None and (found == mask).all(), text


@pytest.mark.parametrize(
    "said",
    ["[10, 20, 30, 40]", "(10,20),(30,40)", "<|box_start|>(10,20),(30,40)<|box_end|>", "The box is [10, 20, 30, 40].",
     "10 20 30 40", "10.0, 20.0, 30.0, 40.0"],
)  # fmt: skip
def test_forms_of_boxes(said: str) -> None:
    region = read_box(said, "pixels", (100, 100), (100, 100))
    assert region is not None and region[20:40, 10:30].all() and region.sum() == 400


def test_boxes_are_scaled_from_what_the_model_sees() -> None:
    region = read_box("[0, 0, 14, 28]", "pixels", (56, 28), (100, 50))
    assert region is not None and region[:50, :25].all() and region.sum() == 1250
    assert read_box("[0, 0, 500, 500]", "thousandths", (1, 1), (100, 50)).sum() == 1250


@pytest.mark.parametrize(
    "said", ["", "no box", "[1, 2, 3]", "[1, 2, 3, 4, 5]", "[30, 20, 10, 40]", "[1, 1, 1, 1]", "[a, b, c, d]"]
)
def test_what_is_no_box_is_none(said: str) -> None:
    assert read_box(said, "pixels", (50, 50), (50, 50)) is None

"""Cyclic option orders: a letter preference averages out, and what the orders disagree on is counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmed_core.order_scores import FLIP_RATE, LETTER_BIAS, order_scores
from crossmed_core.orders import chosen, combined, rotated
from crossmed_core.predicting import predict
from crossmed_core.runlog import read_rows
from crossmed_core.scoring import Answers, OrderAnswer
from crossmed_core.types import LETTERS, MAT, RLE, ImageRef, Item, Prediction

CELL = MAT("ct", "chest", "finding")


def item(number: int = 0, options: Sequence[str] = ("a", "b", "c", "d"), answer: int = 0) -> Item:
    return Item(
        f"i{number:04d}", "d", CELL, f"p{number}", "test", ImageRef("x"), "?", tuple(options), answer, options[answer]
    )


@given(st.integers(2, 5), st.integers(0, 4), st.integers(0, 7))
def test_the_true_option_moves_with_its_text(size: int, answer: int, order: int) -> None:
    one = item(options=[f"o{n}" for n in range(size)], answer=answer % size)
    turned = rotated(one, order)
    assert turned.options[turned.answer or 0] == one.label and sorted(turned.options) == sorted(one.options)
    assert chosen(one, order, Prediction(one.id, option=turned.answer)) == one.answer
    each = {rotated(one, n).options for n in range(size)}
    assert len(each) == size and all({t[k] for t in each} == set(one.options) for k in range(size))


def test_lettered_regions_move_while_the_letters_stay() -> None:
    regions = tuple(RLE((4, 4), (n, 1, 15 - n)) for n in range(4))
    texts = [f"region {letter}" for letter in "ABCD"]
    one = replace(item(options=texts, answer=2), candidates=regions, image=ImageRef("x", marks=regions))
    for order in range(4):
        turned = rotated(one, order)
        assert turned.options == tuple(texts), "the texts name letters"
        assert turned.candidates == turned.image.marks
        assert turned.candidates[turned.answer or 0] == regions[2] and turned.label == texts[turned.answer or 0]
    boxes = replace(one, options=("[1]", "[2]", "[3]", "[4]"), image=ImageRef("x"))
    turned = rotated(boxes, 1)
    assert turned.options == ("[2]", "[3]", "[4]", "[1]") and turned.candidates == regions[1:] + regions[:1]


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.lists(st.floats(0, 5), min_size=4, max_size=4))
def test_a_preference_for_letters_averages_out(signal: list[float], preference: list[float]) -> None:
    one = item()
    answers = {}
    for order in range(4):
        shown = [signal[(place + order) % 4] + preference[place] for place in range(4)]
        answers[order] = Prediction(one.id, option=int(np.argmax(shown)), option_scores=tuple(shown))
    together = combined(one, answers, seed=0)
    assert together.option_scores is not None
    expected = np.array(signal) + np.mean(preference)
    assert np.allclose(together.option_scores, expected, atol=2e-6)
    top = np.sort(expected)
    if top[-1] - top[-2] > 1e-5:
        assert together.option == int(np.argmax(signal)) and not together.guess


def test_votes_where_there_are_no_probabilities_and_failures_left_out() -> None:
    one = item()
    # In order 1 the option b stands at A.
    votes = {0: Prediction(one.id, option=1), 1: Prediction(one.id, option=0), 2: Prediction(one.id, option=0)}
    together = combined(one, votes, seed=0)
    assert together.option == 1 and together.option_scores is None and not together.guess
    failed = Prediction(one.id, error="no", failure="unparsed")
    assert combined(one, {0: failed, 1: Prediction(one.id, option=3)}, seed=0).option == 0
    assert combined(one, {0: failed, 1: failed}, seed=0) == failed
    tie = combined(one, {0: Prediction(one.id, option=0), 1: Prediction(one.id, option=0)}, seed=0)
    assert tie.guess and tie.option in (0, 1)


class PrefersFirst:
    """Sees the truth with probability .7, and adds a preference for A."""

    def __init__(self, preference: float) -> None:
        self.preference = preference
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def fit(self, train: Any, val: Any, context: Any) -> None:
        pass

    def predict(self, items: Sequence[Item]) -> Iterator[Prediction]:
        for one in items:
            self.calls.append((one.id, one.options))
            scores = [
                0.3 + 0.4 * (text == one.label) + self.preference * (n == 0) for n, text in enumerate(one.options)
            ]
            yield Prediction(one.id, option=int(np.argmax(scores)), option_scores=tuple(scores))


def quiet(phase: str, done: int, total: int, **values: Any) -> None:
    pass


def test_asking_in_orders_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    items = [item(n, answer=n % 4) for n in range(150)]
    items[7] = item(7, options=("yes", "no"))
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    model = PrefersFirst(0.5)
    predict(model, items, whole / "predictions.jsonl", quiet, orders=4, singles=whole / "orders.jsonl")
    assert len(model.calls) == 149 * 4 + 2 and len(set(model.calls)) == len(model.calls)
    rows = read_rows(whole / "predictions.jsonl")
    assert all(row["option"] == one.answer for row, one in zip(rows, items, strict=True)), "the preference is gone"
    alone = tmp_path / "alone.jsonl"
    predict(model, items, alone, quiet)
    assert sum(row["option"] == one.answer for row, one in zip(read_rows(alone), items, strict=True)) < 80

    lines = (whole / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    singles = (whole / "orders.jsonl").read_bytes()
    (halves / "predictions.jsonl").write_bytes(b"".join(lines[:70]) + lines[70][:9])
    (halves / "orders.jsonl").write_bytes(singles[: int(len(singles) * 0.8)])
    predict(model, items, halves / "predictions.jsonl", quiet, orders=4, singles=halves / "orders.jsonl")
    assert (halves / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()
    key = ("item", "order", "letter", "option")
    singles_again = {tuple(row[k] for k in key) for row in read_rows(halves / "orders.jsonl")}
    assert singles_again == {tuple(row[k] for k in key) for row in read_rows(whole / "orders.jsonl")}


def answers_of(model: PrefersFirst, items: Sequence[Item], seed: int = 0) -> Answers:
    orders = {}
    for one in items:
        found = []
        for order in range(len(one.options)):
            (prediction,) = model.predict([rotated(one, order)])
            option = chosen(one, order, prediction)
            found.append(OrderAnswer(order, LETTERS[prediction.option or 0], option))
        orders[one.id] = found
    pairs = [(one, Prediction(one.id, option=0)) for one in items]
    return Answers("m", "s", str(CELL), seed, pairs, orders=orders)


@pytest.mark.parametrize(("preference", "flips", "bias"), [(0.0, 0.0, 0.0), (0.5, 1.0, 0.75)])
def test_flip_rate_and_letter_bias_by_hand(preference: float, flips: float, bias: float) -> None:
    # Without a preference the truth is chosen in every order, once at each letter. With one of .5 it is always A: every
    # order names another option, and A has 100 % where 25 % are even: (.75 + 3 x .25) / 2.
    items = [item(n, answer=n % 4) for n in range(40)]
    found = {one.metric: one for one in order_scores([answers_of(PrefersFirst(preference), items)])}
    assert found[FLIP_RATE].value == pytest.approx(flips) and found[LETTER_BIAS].value == pytest.approx(bias)
    assert found[FLIP_RATE].n == 40
    assert found[LETTER_BIAS].detail.startswith("letters chosen: A 100.0%" if preference else "letters chosen: A 25.0%")


def test_mixed_numbers_of_options_expect_their_own_letters() -> None:
    items = [item(n, answer=n % 4) for n in range(8)] + [
        item(n, options=("y", "n"), answer=n % 2) for n in range(8, 14)
    ]
    found = {one.metric: one for one in order_scores([answers_of(PrefersFirst(0.0), items)])}
    assert found[LETTER_BIAS].value == pytest.approx(0.0) and found[FLIP_RATE].n == 14


def test_items_that_lack_an_order_are_left_out() -> None:
    items = [item(n) for n in range(4)]
    whole = answers_of(PrefersFirst(0.5), items)
    orders = {name: list(found) for name, found in whole.orders.items()}
    orders["i0001"] = orders["i0001"][:2]
    assert {one.n for one in order_scores([replace(whole, orders=orders)])} == {3}
    assert order_scores([replace(whole, orders={})]) == []
    both = [whole, replace(whole, seed=1, orders=orders)]
    assert {(one.n, one.seeds) for one in order_scores(both)} == {(3, (0, 1))}


def test_every_pattern_of_four_answers_flips_unless_all_agree() -> None:
    for options in product(range(3), repeat=3):
        found = [OrderAnswer(order, "A", option) for order, option in enumerate(options)]
        one = item(options=("a", "b", "c"))
        answers = Answers("m", "s", str(CELL), 0, [(one, Prediction(one.id, option=0))], orders={one.id: found})
        (flip,) = (score for score in order_scores([answers]) if score.metric == FLIP_RATE)
        assert flip.value == float(not options[0] == options[1] == options[2])

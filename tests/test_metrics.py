"""Each metric against somebody else's implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk
from torchmetrics.segmentation import DiceScore

from crossmed_core.images import encode_mask
from crossmed_core.types import MAT, ImageRef, Item, MaskRef, Prediction
from crossmed_plugins.metrics import mask, option

CELL = MAT("ct", "chest", "finding")
LABELS = ("a", "b", "c", "d", "e")


def option_pair(number: int, label: str, options: tuple[str, ...], chosen: int):
    item = Item(str(number), "d", CELL, str(number), "test", ImageRef("/x"), "?", options, options.index(label), label)
    return item, Prediction(item.id, option=chosen)


@st.composite
def option_pairs(draw):
    rows = draw(
        st.lists(st.tuples(st.permutations(LABELS), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)
    )
    return [option_pair(n, order[a], tuple(order[:4]), p) for n, (order, a, p) in enumerate(rows)]


@given(option_pairs())
@settings(deadline=None)
def test_options_against_scikit_learn(pairs) -> None:
    true = [item.label for item, _ in pairs]
    chosen = [item.options[p.option] for item, p in pairs]
    labels = sorted(set(true))
    assert option.accuracy(pairs) == pytest.approx(sk.accuracy_score(true, chosen))
    recall = sk.recall_score(true, chosen, labels=labels, average="macro", zero_division=0)
    assert option.balanced_accuracy(pairs) == pytest.approx(recall)
    f1 = sk.f1_score(true, chosen, labels=labels, average="macro", zero_division=0)
    assert option.macro_f1(pairs) == pytest.approx(f1)


def test_chance_of_options_by_simulation() -> None:
    rng = np.random.default_rng(0)
    orders = [tuple(rng.permutation(LABELS)[: 2 + n % 3]) for n in range(300)]
    truths = [int(rng.integers(len(order))) for order in orders]
    items = [option_pair(n, o[a], o, 0)[0] for n, (o, a) in enumerate(zip(orders, truths, strict=True))]
    for metric in (option.accuracy, option.balanced_accuracy, option.macro_f1):
        drawn = [
            metric([(item, Prediction(item.id, option=int(rng.integers(len(item.options))))) for item in items])
            for _ in range(300)
        ]
        assert metric.chance(items) == pytest.approx(np.mean(drawn), abs=0.006)


def mask_pair(number: int, truth: np.ndarray, guess: np.ndarray):
    ref = MaskRef(rle=encode_mask(truth))
    item = Item(str(number), "d", CELL, str(number), "test", ImageRef("/x"), "?", mask=ref)
    return item, Prediction(item.id, mask=encode_mask(guess))


mask_stacks = st.integers(1, 6).flatmap(lambda n: st.tuples(arrays(bool, (n, 4, 5)), arrays(bool, (n, 4, 5))))


@given(mask_stacks)
@settings(deadline=None)
def test_masks_against_brute_force(stacks) -> None:
    truths, guesses = stacks
    pairs = [mask_pair(n, t, g) for n, (t, g) in enumerate(zip(truths, guesses, strict=True))]
    inter = [
        sum(bool(a and b) for a, b in zip(t.flat, g.flat, strict=True)) for t, g in zip(truths, guesses, strict=True)
    ]
    union = [
        sum(bool(a or b) for a, b in zip(t.flat, g.flat, strict=True)) for t, g in zip(truths, guesses, strict=True)
    ]
    total = [int(t.sum() + g.sum()) for t, g in zip(truths, guesses, strict=True)]
    some = [bool(t.any()) for t in truths]
    expected_ciou = sum(inter) / sum(union) if sum(union) else math.nan
    assert mask.ciou(pairs) == pytest.approx(expected_ciou, nan_ok=True)
    ious = [i / u if u else 1.0 for i, u in zip(inter, union, strict=True)]
    dices = [2 * i / t if t else 1.0 for i, t in zip(inter, total, strict=True)]
    assert mask.giou(pairs) == pytest.approx(np.mean(ious))
    assert mask.dice(pairs) == pytest.approx(np.mean(dices))
    kept = [value for value, keep in zip(ious, some, strict=True) if keep]
    assert mask.giou_nonempty(pairs) == pytest.approx(np.mean(kept) if kept else math.nan, nan_ok=True)
    kept = [value for value, keep in zip(dices, some, strict=True) if keep]
    assert mask.dice_nonempty(pairs) == pytest.approx(np.mean(kept) if kept else math.nan, nan_ok=True)


def test_masks_against_torchmetrics() -> None:
    rng = np.random.default_rng(1)
    truths, guesses = (rng.random((12, 16, 16)) < 0.4 for _ in range(2))
    pairs = [mask_pair(n, t, g) for n, (t, g) in enumerate(zip(truths, guesses, strict=True))]
    theirs = DiceScore(num_classes=1, input_format="one-hot", average="micro")
    theirs.update(torch.from_numpy(guesses[:, None]).int(), torch.from_numpy(truths[:, None]).int())
    assert mask.dice(pairs) == pytest.approx(float(theirs.compute()), abs=1e-6)
    assert mask.ciou(pairs) == pytest.approx(sk.jaccard_score(truths.ravel(), guesses.ravel()))


def test_empty_masks_by_hand() -> None:
    empty, dot = np.zeros((2, 2), dtype=bool), np.array([[1, 0], [0, 0]], dtype=bool)
    missed, alarm, right, hit = (
        mask_pair(0, dot, empty), mask_pair(1, empty, dot), mask_pair(2, empty, empty), mask_pair(3, dot, dot)
    )  # fmt: skip
    assert mask.dice([right]) == 1 and mask.giou([right]) == 1 and math.isnan(mask.ciou([right]))
    assert mask.dice([missed, alarm]) == 0
    assert mask.ciou([missed, alarm, right, hit]) == pytest.approx(1 / 3), "a false alarm enlarges the union"
    assert mask.giou([missed, alarm, right, hit]) == pytest.approx(0.5)
    assert mask.giou_nonempty([missed, alarm, right, hit]) == pytest.approx(0.5)


def test_chance_of_masks_with_empty_truths_is_the_empty_mask() -> None:
    dot, empty = np.eye(4, dtype=bool), np.zeros((4, 4), dtype=bool)
    items = [mask_pair(n, dot if n == 0 else empty, empty)[0] for n in range(5)]
    nothing = [(item, Prediction(item.id, mask=encode_mask(empty))) for item in items]
    assert mask.dice.chance(items) == mask.giou.chance(items) == mask.dice(nothing) == pytest.approx(0.8)
    assert mask.ciou.chance(items) == pytest.approx(4 / 80), "cIoU: marking everything"
    assert mask.dice_nonempty.chance(items) == pytest.approx(2 * 4 / 20)


def test_chance_of_masks_is_the_full_mask() -> None:
    truth = np.zeros((4, 4), dtype=bool)
    truth[:2, :2] = True
    item, _ = mask_pair(0, truth, truth)
    full = (item, Prediction(item.id, mask=encode_mask(np.ones((4, 4), dtype=bool))))
    for metric in (mask.ciou, mask.giou, mask.dice):
        assert metric.chance([item]) == pytest.approx(metric([full]))


def test_masks_of_another_size_are_refused() -> None:
    item, _ = mask_pair(0, np.ones((2, 2), dtype=bool), np.ones((2, 2), dtype=bool))
    with pytest.raises(ValueError, match=r"\(3, 2\), the image \(2, 2\)"):
        mask.ciou([(item, Prediction(item.id, mask=encode_mask(np.ones((3, 2), dtype=bool))))])

"""Each metric against somebody else's implementation."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco
from sklearn import metrics as sk
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.segmentation import DiceScore

from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import decode_mask, encode_mask
from crossmed_core.types import MAT, RLE, ImageRef, Item, MaskRef, Prediction
from crossmed_plugins.metrics import calibration, mask, option
from crossmed_plugins.metrics.areas import area, overlap

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


# -- areas on run lengths --------------------------------------------------------------------------


@st.composite
def run_lengths(draw, size: tuple[int, int]):
    """Run lengths as somebody else may write them: empty runs anywhere, several in a row."""
    pixels = size[0] * size[1]
    cuts = sorted(draw(st.lists(st.integers(0, pixels), max_size=8)))
    return RLE(size, tuple(int(n) for n in np.diff([0, *cuts, pixels])))


@st.composite
def mask_pairs(draw):
    sizes = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=6))
    return [(draw(run_lengths(size)), draw(run_lengths(size))) for size in sizes]


@given(mask_pairs())
@settings(deadline=None)
def test_areas_are_those_of_the_pixels(pairs) -> None:
    for truth, guess in pairs:
        true, found = decode_mask(truth), decode_mask(guess)
        expected = (np.sum(true & found), np.sum(found), np.sum(true))
        assert overlap(MaskRef(rle=truth), guess) == expected
        assert area(MaskRef(rle=truth)) == (np.sum(true), true.size)


def test_areas_against_pycocotools() -> None:
    rng = np.random.default_rng(2)
    for truth, guess in (rng.random((2, 9, 7)) < rng.random((2, 1, 1)) for _ in range(300)):
        both, guessed, true = overlap(MaskRef(rle=encode_mask(truth)), encode_mask(guess))
        theirs = coco.iou(
            [coco.encode(np.asfortranarray(guess, np.uint8))], [coco.encode(np.asfortranarray(truth, np.uint8))], [0]
        )
        union = guessed + true - both
        assert (both / union if union else 0.0) == pytest.approx(theirs[0, 0])


def test_a_truth_in_a_file_is_counted_alike(tmp_path) -> None:
    rng = np.random.default_rng(3)
    truth, guess = rng.random((2, 8, 5)) < 0.5
    Image.fromarray(truth.astype(np.uint8) * 255).save(tmp_path / "truth.png")
    filed, inline = MaskRef(path=str(tmp_path / "truth.png")), MaskRef(rle=encode_mask(truth))
    assert overlap(filed, encode_mask(guess)) == overlap(inline, encode_mask(guess))
    assert area(filed) == area(inline)


def test_run_lengths_that_do_not_fill_the_mask_are_refused() -> None:
    good = RLE((2, 3), (2, 4))
    for bad in (RLE((2, 3), (2, 3)), RLE((2, 3), (-1, 7)), RLE((2, 3), ())):
        with pytest.raises(UnreadableImageError, match="run lengths sum to"):
            overlap(MaskRef(rle=good), bad)
        with pytest.raises(UnreadableImageError):
            area(MaskRef(rle=bad))


# -- bounds ----------------------------------------------------------------------------------------


def test_bounds_of_accuracy_by_hand() -> None:
    pairs = [option_pair(n, "a", ("a", "b"), int(n >= 3)) for n in range(5)]
    missing = [item for item, _ in pairs[:5]]
    assert option.accuracy.bounds(pairs, missing) == (3 / 10, 8 / 10)
    assert option.accuracy.bounds(pairs, []) == (3 / 5, 3 / 5)
    assert option.accuracy.bounds([], missing) == (0, 1)


SMALL = [np.array(bits, dtype=bool).reshape(1, 3) for bits in itertools.product((0, 1), repeat=3)]


@given(
    st.lists(st.tuples(st.sampled_from(SMALL), st.sampled_from(SMALL)), max_size=2), st.lists(st.sampled_from(SMALL))
)
@settings(deadline=None, max_examples=60)
def test_bounds_of_masks_against_every_possible_answer(answered, missing) -> None:
    pairs = [mask_pair(n, truth, guess) for n, (truth, guess) in enumerate(answered)]
    missing = missing[:2]
    items = [mask_pair(10 + n, truth, truth)[0] for n, truth in enumerate(missing)]
    for metric in (mask.ciou, mask.giou, mask.giou_nonempty, mask.dice, mask.dice_nonempty):
        reached = [
            metric(
                [
                    *pairs,
                    *((item, Prediction(item.id, mask=encode_mask(g))) for item, g in zip(items, guesses, strict=True)),
                ]
            )
            for guesses in itertools.product(SMALL, repeat=len(items))
        ]
        worst, best = metric.bounds(pairs, items)
        finite = [value for value in reached if math.isfinite(value)]
        assert (worst, best) == pytest.approx((min(finite), max(finite)) if finite else (math.nan,) * 2, nan_ok=True)


def test_bounds_of_an_item_without_a_truth_leave_everything_open() -> None:
    dot = np.eye(3, dtype=bool)
    hit = mask_pair(0, dot, dot)
    lost = replace(hit[0], mask=None)
    assert mask.dice.bounds([hit], [lost]) == (0.5, 1)
    assert mask.dice_nonempty.bounds([hit], [lost]) == (0.5, 1)
    assert math.isnan(mask.dice_nonempty.bounds([], [])[0])


def test_bounds_of_balanced_accuracy_by_hand() -> None:
    # Labels a, a, b, b: one a right and one b right are scored, one a and one b are not.
    pairs = [option_pair(n, "ab"[n], ("a", "b"), n) for n in range(2)]
    missing = [option_pair(2 + n, "ab"[n], ("a", "b"), n)[0] for n in range(2)]
    assert option.balanced_accuracy.bounds(pairs, missing) == (0.5, 1)


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_bounds_of_choices_against_every_possible_choice(data) -> None:
    items = []
    for number in range(data.draw(st.integers(1, 3))):
        regions = data.draw(st.lists(st.sampled_from(SMALL[1:]), min_size=3, max_size=3))
        item, _ = mask_pair(number, regions[0], regions[0])
        items.append(
            replace(item, options=("a", "b", "c"), answer=0, label="a", candidates=tuple(map(encode_mask, regions)))
        )
    known = [(items[0], Prediction(items[0].id, option=1))]
    for metric in (mask.ciou, mask.giou, mask.dice):
        reached = [
            metric(
                [*known, *((item, Prediction(item.id, option=k)) for item, k in zip(items[1:], choice, strict=True))]
            )
            for choice in itertools.product(range(3), repeat=len(items) - 1)
        ]
        assert metric.bounds(known, items[1:]) == pytest.approx((min(reached), max(reached)))


# -- probabilities ---------------------------------------------------------------------------------


def with_scores(rng: np.random.Generator, n: int, options: int = 4):
    scores = rng.dirichlet(np.full(options, 0.7), n)
    pairs = []
    for number, row in enumerate(scores):
        truth = int(rng.choice(options, p=row**0.5 / (row**0.5).sum()))
        item, answer = option_pair(number, LABELS[truth], LABELS[:options], int(row.argmax()))
        pairs.append((item, replace(answer, option_scores=tuple(float(value) for value in row))))
    return pairs, scores, np.array([item.answer for item, _ in pairs])


def test_calibration_error_against_torchmetrics() -> None:
    pairs, scores, truth = with_scores(np.random.default_rng(3), 500)
    theirs = MulticlassCalibrationError(num_classes=4, n_bins=15, norm="l1")
    assert calibration.ece(pairs) == pytest.approx(float(theirs(torch.tensor(scores), torch.tensor(truth))), abs=1e-6)


def test_calibration_error_by_hand() -> None:
    # Two answers of confidence 1 (last bin), one right; one of 0.6 (bin 9), right: (|1 - 2| + |1 - 0.6|) / 3.
    rows = [(0, (1.0, 0.0)), (1, (1.0, 0.0)), (0, (0.6, 0.4))]
    pairs = [
        (option_pair(n, "ab"[truth], ("a", "b"), 0)[0], Prediction(str(n), option=0, option_scores=scores))
        for n, (truth, scores) in enumerate(rows)
    ]
    assert calibration.ece(pairs) == pytest.approx(1.4 / 3)
    assert math.isnan(calibration.ece([])) and math.isnan(calibration.brier([]))


def test_brier_against_scikit_learn_and_its_chance() -> None:
    pairs, scores, truth = with_scores(np.random.default_rng(4), 300)
    binary, two, true = with_scores(np.random.default_rng(5), 300, options=2)
    assert calibration.brier(binary) == pytest.approx(2 * sk.brier_score_loss(true, two[:, 1]))
    assert calibration.brier(pairs) == pytest.approx(np.mean(np.sum((scores - np.eye(4)[truth]) ** 2, axis=1)))
    even = [(item, replace(answer, option_scores=(0.25,) * 4)) for item, answer in pairs]
    assert calibration.brier.chance([item for item, _ in pairs]) == pytest.approx(calibration.brier(even))


@pytest.mark.parametrize("n", [5, 10, 150, 3000])
def test_selective_accuracy_against_sorting(n: int) -> None:
    pairs, scores, truth = with_scores(np.random.default_rng(n), n)
    confidence = scores.max(axis=1)
    kept = np.sort(confidence)[::-1][math.ceil(0.8 * n - 1e-9) - 1]
    expected = np.mean((scores.argmax(axis=1) == truth)[confidence >= kept])
    assert calibration.accuracy_at_80(pairs) == pytest.approx(expected)


def test_selective_accuracy_keeps_ties() -> None:
    # 5 answers, four are asked for; the fourth and fifth are as confident: all five are kept.
    pairs = [
        (option_pair(n, "a", ("a", "b"), n % 2)[0], Prediction(str(n), option=n % 2, option_scores=scores))
        for n, scores in enumerate([(0.9, 0.1), (0.8, 0.2), (0.7, 0.3), (0.6, 0.4), (0.4, 0.6)])
    ]
    assert calibration.accuracy_at_80(pairs) == pytest.approx(3 / 5)


def test_probabilities_are_needed() -> None:
    with pytest.raises(ValueError, match="item '0' has 2 options and 0 probabilities"):
        calibration.brier([option_pair(0, "a", ("a", "b"), 0)])

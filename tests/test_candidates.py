"""Candidate regions and marks: matched, apart, on the body; against brute force and the metrics."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossmed_core.candidates import CandidateRules, Donors, Region, choice_text, choice_values, make_candidates
from crossmed_core.images import decode_mask, encode_mask
from crossmed_core.marks import LEAST_SIDE, draw_marks
from crossmed_core.questions import UnaskableError
from crossmed_core.types import MAT, ImageRef, Item, MaskRef, Prediction
from crossmed_plugins.metrics.mask import ciou, dice, giou

RULES = CandidateRules()
SIDE = 96


def blob(seed: int, *, least: int = 3, most: int = 9, side: int = SIDE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    high, wide = rng.uniform(least, most, 2)
    y, x = rng.uniform(15, side - 15, 2)
    rows, columns = np.mgrid[:side, :side]
    return ((rows - y) / high) ** 2 + ((columns - x) / wide) ** 2 <= 1


def item(name: str, patient: str = "me") -> Item:
    image = ImageRef("x.png")
    return Item(name, "d", MAT("ct", "lung", "segmentation"), patient, "test", image, "Outline it.")


def donors(count: int = 60, *, patient: str | None = None) -> Donors:
    return Donors([(f"d{seed}", patient or f"p{seed}", encode_mask(blob(1000 + seed))) for seed in range(count)])


BODY = np.full((SIDE, SIDE), 100, np.uint8)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_candidates_are_matched_apart_and_hold_the_truth_once(seed: int) -> None:
    truth = blob(seed)
    regions = [decode_mask(one) for one in make_candidates(item(f"i{seed}"), truth, BODY, donors(), RULES)]
    assert len(regions) == 4
    assert sum(np.array_equal(one, truth) for one in regions) == 1
    for one in regions:
        assert 1 / RULES.max_area_ratio <= one.sum() / truth.sum() <= RULES.max_area_ratio
    for one, other in itertools.combinations(regions, 2):
        assert (one & other).sum() / (one | other).sum() <= RULES.max_iou


def test_candidates_do_not_depend_on_the_order_of_donors() -> None:
    rows = [(f"d{seed}", f"p{seed}", encode_mask(blob(1000 + seed))) for seed in range(60)]
    first, second = (make_candidates(item("i"), blob(3), BODY, Donors(some), RULES) for some in (rows, rows[::-1]))
    assert first == second


def test_the_true_region_stands_at_every_letter_equally_often() -> None:
    truth, pool = blob(5), donors()
    places = Counter(
        make_candidates(item(f"i{number}"), truth, BODY, pool, RULES).index(encode_mask(truth)) for number in range(200)
    )
    assert all(30 <= places[letter] <= 72 for letter in range(4)), places  # 50 expected, s.d. 6.1


def test_no_region_of_the_same_patient_is_a_distractor() -> None:
    # A shape that nobody else has, as the only donor: it must not come back, only copies of the truth may.
    comb = np.zeros((SIDE, SIDE), dtype=bool)
    comb[40:52, 40:64:2] = True
    truth = blob(9)
    regions = make_candidates(item("i", "me"), truth, BODY, Donors([("d", "me", encode_mask(comb))]), RULES)
    shapes = [Region.of(decode_mask(one)).shape for one in regions]
    mine = Region.of(truth)
    assert all(np.array_equal(one, mine.shape) or np.array_equal(one, mine.mirrored().shape) for one in shapes)
    theirs = make_candidates(item("i", "me"), comb, BODY, Donors([("d", "other", encode_mask(truth))]), RULES)
    assert any(Region.of(decode_mask(one)).area not in (comb.sum(),) for one in theirs), "another patient's is used"


def test_distractors_lie_on_the_body() -> None:
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[20:76, 20:76] = 120
    truth = np.zeros((SIDE, SIDE), dtype=bool)
    truth[30:36, 30:37] = True
    for region in make_candidates(item("i"), truth, pixels, donors(), RULES):
        mask = decode_mask(region)
        assert (pixels[mask] > RULES.background).mean() >= RULES.on_body


def test_what_cannot_be_asked_says_why() -> None:
    small = np.zeros((SIDE, SIDE), dtype=bool)
    small[3, 3:8] = True
    with pytest.raises(UnaskableError, match="5 pixels, fewer than 12"):
        make_candidates(item("i"), small, BODY, donors(), RULES)
    everything = np.ones((SIDE, SIDE), dtype=bool)
    with pytest.raises(UnaskableError, match="distractor regions fit"):
        make_candidates(item("i"), everything, BODY, donors(), RULES)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_regions_overlap_as_their_masks_do(first: int, second: int) -> None:
    one, other = blob(first), blob(second)
    assert Region.of(one).overlap(Region.of(other)) == (one & other).sum()
    assert Region.of(one).iou(Region.of(other)) == pytest.approx((one & other).sum() / (one | other).sum())
    assert np.array_equal(decode_mask(Region.of(one).mirrored().rle()), one[:, ::-1])
    assert np.array_equal(decode_mask(Region.of(one).rle()), one)


def asked(seed: int) -> Item:
    truth = encode_mask(blob(seed))
    regions = make_candidates(item(f"i{seed}"), blob(seed), BODY, donors(), RULES)
    one = item(f"i{seed}")
    options = tuple("ABCD")
    return Item(
        one.id, "d", one.mat, one.patient, "test", one.image, "?", options, regions.index(truth), "A",
        MaskRef(rle=truth), candidates=regions,
    )  # fmt: skip


def test_choice_values_and_metrics_agree_with_brute_force() -> None:
    items = [asked(seed) for seed in range(12)]
    both = union = 0.0
    ious, dices = [], []
    for one in items:
        assert one.mask is not None and one.mask.rle is not None
        truth = decode_mask(one.mask.rle)
        for region in map(decode_mask, one.candidates):
            both += (region & truth).sum() / 4
            union += (region | truth).sum() / 4
            ious.append((region & truth).sum() / (region | truth).sum())
            dices.append(2 * (region & truth).sum() / (region.sum() + truth.sum()))
    values = choice_values(items)
    assert values["random"].ciou == pytest.approx(both / union) == pytest.approx(ciou.chance(items))
    assert values["random"].giou == pytest.approx(np.mean(ious)) == pytest.approx(giou.chance(items))
    assert values["random"].dice == pytest.approx(np.mean(dices)) == pytest.approx(dice.chance(items))
    assert values["best"].ciou == values["best"].giou == values["best"].dice == 1
    assert [metric.best(items) for metric in (ciou, giou, dice)] == [1, 1, 1]
    right = [(one, Prediction(one.id, option=one.answer)) for one in items]
    assert ciou(right) == 1
    wrong = [(one, Prediction(one.id, option=(one.answer + 1) % 4)) for one in items if one.answer is not None]
    assert ciou(wrong) <= 2 * RULES.max_iou


def test_boxes_enclose_their_regions() -> None:
    mask = np.zeros((50, 100), dtype=bool)
    mask[10:20, 25:50] = True
    _, options = choice_text([encode_mask(mask)], "boxes")
    assert options == ("[250, 200, 500, 400]",)


# -- marks -----------------------------------------------------------------------------------------


def test_marks_leave_the_regions_as_they_are_and_letters_stand_beside_them() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (400, 420)).astype(np.uint8)
    regions = []
    for row, column in ((60, 60), (60, 300), (300, 60), (300, 300)):
        region = np.zeros(pixels.shape, dtype=bool)
        region[row : row + 40, column : column + 50] = True
        regions.append(region)
    drawn = draw_marks(pixels, regions)
    assert drawn.shape == (400, 420, 3)
    colours = set()
    for region in regions:
        assert np.array_equal(drawn[region], np.repeat(pixels[region][:, None], 3, axis=1)), "pixels inside are covered"
        rows, columns = np.nonzero(region)
        ring = drawn[rows.min() - 1, columns.min() : columns.max()]
        assert len(np.unique(ring, axis=0)) == 1, "an unbroken line above the region"
        colours.add(tuple(int(one) for one in ring[0]))
    assert len(colours) == 4, "one colour per letter"
    assert np.array_equal(draw_marks(pixels, regions), drawn)


def test_small_images_are_enlarged_by_a_whole_number_for_marks() -> None:
    pixels = np.arange(30 * 40, dtype=np.uint8).reshape(30, 40)
    region = np.zeros((30, 40), dtype=bool)
    region[10:20, 12:22] = True
    drawn = draw_marks(pixels, [region])
    factor = drawn.shape[1] // 40
    assert drawn.shape == (30 * factor, 40 * factor, 3) and drawn.shape[1] >= LEAST_SIDE
    assert np.array_equal(drawn[10 * factor : 20 * factor : factor, 12 * factor : 22 * factor : factor, 0],
                          pixels[10:20, 12:22])  # fmt: skip

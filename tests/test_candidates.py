"""Candidate regions and marks: alike, apart, and not to be told without the image; against brute force."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossmed_core.candidates import (
    CandidateRules,
    Drawn,
    Offered,
    Region,
    choice_options,
    choice_values,
    choice_wording,
    offer,
)
from crossmed_core.images import decode_mask, encode_mask
from crossmed_core.marks import LEAST_SIDE, draw_marks
from crossmed_core.types import MAT, ImageRef, Item, MaskRef, Prediction
from crossmed_plugins.metrics.mask import ciou, dice, giou

RULES = CandidateRules()
SIDE = 96
CELL = MAT("ct", "lung", "segmentation")


def blob(seed: int, *, least: int = 3, most: int = 9, side: int = SIDE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    high, wide = rng.uniform(least, most, 2)
    y, x = rng.uniform(side / 6, side * 5 / 6, 2)
    rows, columns = np.mgrid[:side, :side]
    return ((rows - y) / high) ** 2 + ((columns - x) / wide) ** 2 <= 1


def drawn(count: int, *, first: int = 0, patients: int | None = None, **shape: int) -> list[Drawn]:
    return [
        Drawn(f"i{seed}", f"p{seed % (patients or count)}", encode_mask(blob(seed, **shape)))
        for seed in range(first, first + count)
    ]


def offered(regions: list[Drawn], rules: CandidateRules = RULES) -> dict[str, Offered]:
    return {item: one for item, one in offer(regions, rules).items() if isinstance(one, Offered)}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 60))
def test_candidates_are_alike_apart_and_hold_the_truth_once(first: int, count: int) -> None:
    regions = {one.item: one for one in drawn(count, first=first, patients=max(4, count // 3))}
    found = offer(list(regions.values()), RULES)
    assert set(found) == set(regions)
    by_mask = {one.mask: one for one in regions.values()}
    for item, one in found.items():
        if isinstance(one, str):
            assert one
            continue
        assert len(set(one.regions)) == 4 and one.regions.count(regions[item].mask) == 1
        assert len({by_mask[mask].patient for mask in one.regions}) == 4, "four patients"
        masks = [decode_mask(mask) for mask in one.regions]
        for a, b in itertools.combinations(masks, 2):
            assert (a & b).sum() / (a | b).sum() <= one.max_iou <= RULES.relaxed_iou
            assert 1 / RULES.max_area_ratio <= a.sum() / b.sum() <= RULES.max_area_ratio


def test_every_region_of_a_group_is_the_true_one_exactly_once() -> None:
    """So no rule that looks at the regions alone is right more than once in four."""
    regions = {one.item: one for one in drawn(200, patients=70)}
    found = offered(list(regions.values()))
    grouped = {item: one for item, one in found.items() if one.grouped}
    assert len(grouped) >= 190
    truths = defaultdict(list)
    for item, one in grouped.items():
        truths[frozenset(one.regions)].append(regions[item].mask)
    assert all(frozenset(masks) == group and len(masks) == 4 for group, masks in truths.items())


def test_the_true_region_cannot_be_told_without_the_image() -> None:
    from sklearn.ensemble import RandomForestClassifier

    regions = {one.item: one for one in drawn(600, patients=200, most=14)}
    found = offered(list(regions.values()))
    rows, true, group = [], [], []
    for item, one in found.items():
        cut = [Region.of(decode_mask(mask)) for mask in one.regions]
        areas = [region.area for region in cut]
        for region, mask in zip(cut, one.regions, strict=True):
            left, top, right, bottom = region.box
            rank, fill = sorted(areas).index(region.area), region.area / ((right - left) * (bottom - top))
            rows.append([region.area, region.area / sum(areas), rank, left, top, right, bottom, fill])
            true.append(mask == regions[item].mask)
            group.append(sum(map(sum, (mask.counts for mask in one.regions))) + min(areas))
    x, y, half = np.array(rows), np.array(true), np.repeat(np.array(group[::4]) % 2, 4)
    right = 0.0
    for test in (0, 1):
        forest = RandomForestClassifier(60, min_samples_leaf=5, random_state=0).fit(x[half != test], y[half != test])
        chances = forest.predict_proba(x[half == test])[:, 1].reshape(-1, 4)
        right += (chances.argmax(axis=1) == y[half == test].reshape(-1, 4).argmax(axis=1)).sum()
    accuracy = right / len(found)
    assert accuracy < 0.25 + 4 * (0.25 * 0.75 / len(found)) ** 0.5, accuracy


def test_candidates_do_not_depend_on_the_order_of_regions() -> None:
    regions = drawn(40)
    assert offer(regions, RULES) == offer(regions[::-1], RULES)


def test_the_true_region_stands_at_every_letter_equally_often() -> None:
    regions = {one.item: one for one in drawn(240, patients=80)}
    places = Counter(one.regions.index(regions[item].mask) for item, one in offered(list(regions.values())).items())
    assert all(35 <= places[letter] <= 85 for letter in range(4)), places  # 60 expected, s.d. 6.7


def test_leftovers_borrow_and_change_nobody_else() -> None:
    regions = drawn(42)
    whole = offer(regions, RULES)
    borrowed = [item for item, one in whole.items() if isinstance(one, Offered) and not one.grouped]
    assert 1 <= len(borrowed) <= 10
    more = drawn(1, first=900, least=5, most=6)
    one = offer(more, RULES, known=drawn(120))["i900"]
    assert isinstance(one, Offered) and not one.grouped and more[0].mask in one.regions
    elsewhere = offer(more, RULES, elsewhere=drawn(120))["i900"]
    assert isinstance(elsewhere, Offered) and not elsewhere.grouped
    assert isinstance(offer(more, RULES)["i900"], str), "nobody is there"


def test_large_regions_find_company_under_a_wider_limit() -> None:
    large = drawn(24, least=22, most=27)
    strict = offered(large, CandidateRules(relaxed_iou=0.1))
    relaxed = offered(large)
    assert len(relaxed) > len(strict)
    assert {one.max_iou for one in relaxed.values()} - {RULES.max_iou}, "the limit that was used is stated"


def test_regions_of_other_sizes_lie_at_the_same_share() -> None:
    mask = np.zeros((40, 80), dtype=bool)
    mask[10:20, 20:40] = True
    moved = Region.of(mask).onto((80, 80))
    assert moved.box == (20, 20, 40, 40) and moved.size == (80, 80)
    small = [Drawn(f"s{seed}", f"s{seed}", encode_mask(blob(seed, least=2, most=5, side=48))) for seed in range(8)]
    found = offered([*drawn(8), *small])
    assert found
    for one in found.values():
        assert len({region.size for region in one.regions}) == 1, "all lie on the item's own image"


def test_what_cannot_be_asked_says_why() -> None:
    small = np.zeros((SIDE, SIDE), dtype=bool)
    small[3, 3:8] = True
    found = offer([Drawn("small", "p", encode_mask(small)), *drawn(8)], RULES)
    assert found["small"] == "the true region has 5 pixels, fewer than 12"
    everything = Drawn("all", "p", encode_mask(np.ones((SIDE, SIDE), dtype=bool)))
    assert "no 3 regions of other patients" in str(offer([everything, *drawn(8)], RULES)["all"])
    same = offer(drawn(12, patients=2), RULES)
    assert all(isinstance(one, str) for one in same.values()), "two patients cannot make a group of four"


@pytest.mark.parametrize("wrong", [{"max_iou": 1.5}, {"relaxed_iou": -0.1}, {"max_area_ratio": 0.5}])
def test_impossible_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CandidateRules(**wrong)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_regions_overlap_as_their_masks_do(first: int, second: int) -> None:
    one, other = blob(first), blob(second)
    assert Region.of(one).overlap(Region.of(other)) == (one & other).sum()
    assert Region.of(one).iou(Region.of(other)) == pytest.approx((one & other).sum() / (one | other).sum())
    assert np.array_equal(decode_mask(Region.of(one).rle()), one)


def asked(count: int) -> list[Item]:
    regions = {one.item: one for one in drawn(count)}
    items = []
    for name, one in offered(list(regions.values())).items():
        truth, image = regions[name].mask, ImageRef("x.png")
        answer = one.regions.index(truth)
        items.append(
            Item(
                name,
                "d",
                CELL,
                "p",
                "test",
                image,
                "?",
                tuple("ABCD"),
                answer,
                "A",
                MaskRef(rle=truth),
                None,
                one.regions,
            )
        )
    return items


def test_choice_values_and_metrics_agree_with_brute_force() -> None:
    items = asked(24)
    assert len(items) > 12
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
    assert ciou(wrong) <= RULES.relaxed_iou


def test_boxes_enclose_their_regions() -> None:
    mask = np.zeros((50, 100), dtype=bool)
    mask[10:20, 25:50] = True
    assert choice_options([encode_mask(mask)], "boxes") == ("[250, 200, 500, 400]",)
    assert choice_options([encode_mask(mask)] * 2, "contours") == ("region A", "region B")


def test_choices_are_worded_with_and_without_giveaway_words() -> None:
    mat = MAT("xray", "chest", "segmentation")
    named = {choice_wording(f"i{n}", mat, "the pneumothorax", neutral=False) for n in range(60)}
    neutral = {choice_wording(f"i{n}", mat, "the finding", neutral=True) for n in range(60)}
    assert len(named) == len(neutral) == 6
    assert all("X-ray" in one and "chest" in one and "the pneumothorax" in one for one in named)
    assert not any("X-ray" in one or "chest" in one for one in neutral)


# -- marks -----------------------------------------------------------------------------------------


def test_marks_leave_the_regions_as_they_are_and_letters_stand_beside_them() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (400, 420)).astype(np.uint8)
    regions = []
    for row, column in ((60, 60), (60, 300), (300, 60), (300, 300)):
        region = np.zeros(pixels.shape, dtype=bool)
        region[row : row + 40, column : column + 50] = True
        regions.append(region)
    marked = draw_marks(pixels, regions)
    assert marked.shape == (400, 420, 3)
    colours = set()
    for region in regions:
        assert np.array_equal(marked[region], np.repeat(pixels[region][:, None], 3, axis=1)), (
            "pixels inside are covered"
        )
        rows, columns = np.nonzero(region)
        ring = marked[rows.min() - 1, columns.min() : columns.max()]
        assert len(np.unique(ring, axis=0)) == 1, "an unbroken line above the region"
        colours.add(tuple(int(one) for one in ring[0]))
    assert len(colours) == 4, "one colour per letter"
    assert np.array_equal(draw_marks(pixels, regions), marked)


def test_small_images_are_enlarged_by_a_whole_number_for_marks() -> None:
    pixels = np.arange(30 * 40, dtype=np.uint8).reshape(30, 40)
    region = np.zeros((30, 40), dtype=bool)
    region[10:20, 12:22] = True
    marked = draw_marks(pixels, [region])
    factor = marked.shape[1] // 40
    assert marked.shape == (30 * factor, 40 * factor, 3) and marked.shape[1] >= LEAST_SIDE
    shown = marked[10 * factor : 20 * factor : factor, 12 * factor : 22 * factor : factor, 0]
    assert np.array_equal(shown, pixels[10:20, 12:22])

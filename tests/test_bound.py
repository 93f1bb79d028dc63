"""The bound: losses by hand, how often it is violated, and what a shift does to it."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest

from crossmed_core.bound import check_bounds, hoeffding, losses, share_held
from crossmed_core.images import encode_mask
from crossmed_core.scoring import Answers
from crossmed_core.types import MAT, RLE, ImageRef, Item, MaskRef, Prediction

CELL = MAT("ct", "chest", "finding")


def choice(name: str, patient: str, *, right: bool, dataset: str = "d"):
    item = Item(name, dataset, CELL, patient, "test", ImageRef("/x"), "?", ("a", "b", "c"), 1, "b")
    return item, Prediction(name, option=1 if right else 2)


def outline(name: str, patient: str, truth: list[list[int]], found: list[list[int]]):
    region = MaskRef(rle=encode_mask(np.array(truth, dtype=bool)))
    item = Item(name, "d", CELL, patient, "test", ImageRef("/x"), "?", mask=region)
    return item, Prediction(name, mask=encode_mask(np.array(found, dtype=bool)))


def test_hoeffding_by_hand() -> None:
    found = hoeffding([0.0, 0.5, 1.0, 0.5], delta=0.1)
    assert found.empirical == 0.5 and found.n == 4
    assert found.epsilon == pytest.approx(sqrt(log(10) / 8)) and found.value == pytest.approx(0.5 + 0.536486, abs=1e-5)
    for wrong in ([], [1.2], [-0.1], [float("nan")]):
        with pytest.raises(ValueError, match="Hoeffding"):
            hoeffding(wrong)
    with pytest.raises(ValueError, match="delta"):
        hoeffding([0.5], delta=0)


def test_losses_of_options_per_patient() -> None:
    failed = (choice("i3", "p2", right=True)[0], Prediction("i3", error="refused"))
    pairs = [choice("i0", "p1", right=True), choice("i1", "p1", right=False), choice("i2", "p1", right=True), failed]
    assert losses([*pairs, choice("i4", "p3", right=True)]) == pytest.approx([1 / 3, 1.0, 0.0])
    # The same name in two datasets is two patients, unless it says whose it is.
    twice = [choice("i0", "p", right=True), choice("i1", "p", right=False, dataset="e")]
    assert losses(twice) == [0.0, 1.0]
    same = [choice("i0", "nih:p", right=True), choice("i1", "nih:p", right=False, dataset="e")]
    assert losses(same) == [0.5]


def test_losses_of_masks_by_hand() -> None:
    truth = [[1, 1, 0], [0, 0, 0]]
    good, empty = [[1, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 0]]
    assert losses([outline("i", "p", truth, good)]) == [pytest.approx(1 - 1 / 3)]
    assert losses([outline("i", "p", empty, empty)]) == [0.0]
    assert losses([outline("i", "p", truth, empty)]) == [1.0]
    both = [outline("i", "p", truth, truth), outline("j", "p", truth, good)]
    assert losses(both) == [pytest.approx(1 / 3)]


def test_an_unusable_mask_is_a_loss_of_one() -> None:
    item, _ = outline("i", "p", [[1, 0]], [[1, 0]])
    for region in (RLE((3, 3), (0, 9)), RLE((1, 2), (0, 7))):  # another size; runs that do not fill it
        assert losses([(item, Prediction("i", mask=region))]) == [1.0]
    assert losses([(item, Prediction("i", error="no file"))]) == [1.0]


def trial(right: np.ndarray, variant: str = "", seed: int = 0):
    pairs = [choice(f"{variant}{n}", f"{variant}p{n}", right=bool(ok)) for n, ok in enumerate(right)]
    return Answers("m", "related", str(CELL), seed, pairs, variant=variant)


def test_the_risk_on_seen_cells_lies_above_the_bound_at_most_delta_of_the_time() -> None:
    rng = np.random.default_rng(0)
    for delta in (0.05, 0.3):
        for risk in (0.1, 0.5, 0.9):
            violated = [
                risk > hoeffding((rng.random(40) < risk).astype(float).tolist(), delta).value for _ in range(600)
            ]
            assert np.mean(violated) <= delta, (delta, risk)
    # It says something: at risk 1/2 and delta .3 a bound of a third of the width would be violated far more often.
    draws = rng.binomial(40, 0.5, 2000) / 40
    assert np.mean(draws + hoeffding([0.5] * 40, 0.3).epsilon / 3 < 0.5) > 0.15


def test_held_on_exchangeable_cells_and_not_under_a_shift() -> None:
    rng = np.random.default_rng(1)
    exchangeable = [
        one
        for s in range(40)
        for one in (trial(rng.random(400) < 0.7, seed=s), trial(rng.random(200) < 0.7, "seen", s))
    ]
    checks = check_bounds(exchangeable)
    assert len(checks) == 40 and np.mean([one.held for one in checks]) >= 0.95
    first = checks[0]
    assert first.risk == pytest.approx(np.mean(losses(exchangeable[0].pairs))) and first.patients == 400
    assert first.bound == hoeffding(losses(exchangeable[1].pairs), 0.05) and first.bound.n == 200
    shifted = [
        one
        for s in range(40)
        for one in (trial(rng.random(400) < 0.4, seed=s), trial(rng.random(200) < 0.7, "seen", s))
    ]
    assert not any(one.held for one in check_bounds(shifted))


def test_only_trials_asked_about_seen_cells_are_checked() -> None:
    right = np.ones(10, dtype=bool)
    control = Answers("m", "related", str(CELL), 0, trial(right).pairs, variant="control:text-only")
    assert check_bounds([trial(right), control]) == []
    assert check_bounds([trial(right, "seen")]) == []
    (found,) = check_bounds([trial(right), trial(~right, seed=1), control, trial(right, "seen")])
    assert found.seed == 0 and found.risk == 0 and found.held


def test_share_held_is_clopper_pearson() -> None:
    right = np.ones(10, dtype=bool)
    kept = [one for s in range(8) for one in (trial(right, seed=s), trial(right, "seen", s))]
    lost = [one for s in range(8, 10) for one in (trial(~right, seed=s), trial(np.ones(500, dtype=bool), "seen", s))]
    held, n, low, high = share_held(check_bounds([*kept, *lost]))
    # Clopper and Pearson (1934), 8 of 10: a table value.
    assert (held, n) == (8, 10) and (low, high) == pytest.approx((0.4439, 0.9748), abs=1e-4)
    assert share_held([]) == (0, 0, 0.0, 1.0)

"""Paired tests against enumeration, statsmodels and scipy; and that they hold their level."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom as binomial
from scipy.stats import binomtest, false_discovery_control, permutation_test

from crossmed_core.comparison import PERMUTATIONS, adjust, mcnemar, swap_test


def share(sums: np.ndarray) -> np.ndarray:
    """Return first / second, NaN where the second is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]


def enumerated(first: np.ndarray, second: np.ndarray) -> float:
    """Return the exact p-value of the swap test: every way of swapping, one after the other."""
    observed = abs(share(first.sum(axis=0)) - share(second.sum(axis=0)))
    extreme = 0
    ways = list(itertools.product((False, True), repeat=len(first)))
    for way in ways:
        swapped = np.array(way)[:, None]
        one, other = np.where(swapped, second, first), np.where(swapped, first, second)
        extreme += abs(share(one.sum(axis=0)) - share(other.sum(axis=0))) >= observed - 1e-12
    return extreme / len(ways)


@given(arrays(bool, st.integers(1, 40)), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_mcnemar_is_a_binomial_test_of_discordant_items(first, seed: int) -> None:
    second = np.random.default_rng(seed).random(len(first)) < 0.5
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(~first & second))
    expected = binomtest(only_first, only_first + only_second).pvalue if only_first + only_second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(6))
def test_swap_test_against_every_way_of_swapping(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, 9)
    # cIoU-like: both terms differ between the conditions, so the value is a ratio of sums that both move.
    first, second = (
        np.stack([rng.binomial(sizes, p), sizes + rng.integers(0, 3, 9)], axis=1).astype(float) for p in (0.8, 0.5)
    )
    exact = enumerated(first, second)
    error = np.sqrt(exact * (1 - exact) / PERMUTATIONS)
    assert swap_test(first, second, share) == pytest.approx(exact, abs=4 * error + 2e-4)


def test_swap_test_of_one_item_per_patient_is_mcnemar() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random(200) < 0.7, rng.random(200) < 0.6
    ours = swap_test(*(np.stack([one, np.ones(200)], axis=1).astype(float) for one in (first, second)), share)
    assert ours == pytest.approx(mcnemar(first, second), abs=0.015)


def test_swap_test_against_scipy() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(0.3, 1, 60), rng.normal(0, 1, 60)  # every patient a pattern of his own
    ours = swap_test(*(np.stack([one, np.ones(60)], axis=1) for one in (first, second)), share)
    theirs = permutation_test(
        (first, second), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=PERMUTATIONS, rng=3,
    ).pvalue  # fmt: skip
    assert ours == pytest.approx(theirs, abs=0.02)


def test_swap_test_is_symmetric_and_never_0() -> None:
    rng = np.random.default_rng(4)
    right = np.stack([np.ones(80), np.ones(80)], axis=1)
    wrong = np.stack([np.zeros(80), np.ones(80)], axis=1)
    assert swap_test(right, wrong, share) == 1 / (1 + PERMUTATIONS)
    assert swap_test(right, right, share) == 1
    noise = np.stack([rng.random(80), np.ones(80)], axis=1)
    assert swap_test(noise, wrong + 0.45, share) == pytest.approx(swap_test(wrong + 0.45, noise, share), abs=0.02)


def rejections(per_patient: int, trials: int, seed: int) -> tuple[int, int]:
    """Return how often the swap test and McNemar's reject at 5 % where the two conditions are equally good."""
    rng = np.random.default_rng(seed)
    swap = plain = 0
    for trial in range(trials):
        # Which condition is right for a patient hangs on the patient; on the whole, neither is better.
        favours = rng.beta(0.4, 0.4, 40)
        outcome = rng.random((40, per_patient))
        first = outcome < 0.5 * favours[:, None]
        second = ~first & (outcome < 0.5)
        of_first, of_second = (
            np.stack([one.sum(axis=1), np.full(40, per_patient)], axis=1).astype(float) for one in (first, second)
        )
        swap += swap_test(of_first, of_second, share, seed=trial, permutations=399) <= 0.05
        plain += mcnemar(first.ravel(), second.ravel()) <= 0.05
    return swap, plain


def test_the_swap_test_holds_its_level_where_mcnemar_does_not() -> None:
    trials = 600
    swap, plain = rejections(per_patient=10, trials=trials, seed=5)
    low, high = binomial.ppf([0.0005, 0.9995], trials, 0.05)
    assert low <= swap <= high, f"{swap / trials:.3f} of {trials} rejected at 5 %"
    assert plain > 3 * high, f"McNemar ignores clusters: {plain / trials:.3f}"


def test_the_tests_hold_their_level_with_one_item_per_patient() -> None:
    trials = 400
    swap, plain = rejections(per_patient=1, trials=trials, seed=6)
    high = binomial.ppf(0.9995, trials, 0.05)
    assert swap <= high and plain <= high  # few discordant items: discrete, so on the safe side


def test_the_swap_test_finds_what_is_there() -> None:
    rng = np.random.default_rng(7)
    sizes = np.full(100, 4)
    first, second = (np.stack([rng.binomial(sizes, p), sizes], axis=1).astype(float) for p in (0.75, 0.6))
    assert swap_test(first, second, share) < 0.01


def test_holm_and_bh_by_hand_and_against_scipy() -> None:
    # Holm (1979) on 0.01, 0.04, 0.03: sorted x (3, 2, 1) with a running maximum: 0.03, 0.06, 0.06.
    assert adjust([0.01, 0.04, 0.03], "holm") == pytest.approx([0.03, 0.06, 0.06])
    values = np.random.default_rng(8).random(20) ** 3
    assert adjust(list(values), "bh") == pytest.approx(false_discovery_control(values))


def test_tests_that_could_not_be_made_do_not_count() -> None:
    found = adjust([0.01, None, 0.04, None], "holm")
    assert found == [pytest.approx(0.02), None, pytest.approx(0.04), None]
    assert adjust([], "bh") == [] and adjust([None], "holm") == [None] and adjust([None, 0.3], "holm") == [None, 0.3]

"""Paired tests against brute force, scipy and simulation; corrections against hand-worked ones."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from crossmed_core.comparison import adjust, mcnemar, swap_test


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def terms(right: np.ndarray, items: int = 1) -> np.ndarray:
    return np.stack([right, np.full(len(right), items)], axis=-1).astype(float)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
@settings(deadline=None)
def test_mcnemar_against_scipy(pairs) -> None:
    first, second = np.array(pairs).T
    only = int(np.sum(first & ~second)), int(np.sum(~first & second))
    expected = binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
    assert mcnemar(first, second) == pytest.approx(min(1.0, expected))
    assert mcnemar(second, first) == pytest.approx(mcnemar(first, second))


def every_swap(first: np.ndarray, second: np.ndarray) -> float:
    """The exact p-value: all 2^n ways of swapping patients."""
    observed = abs(ratio(first.sum(axis=0)) - ratio(second.sum(axis=0)))
    extreme = 0
    for coins in product((False, True), repeat=len(first)):
        swap = np.array(coins)[:, None]
        one, other = np.where(swap, second, first).sum(axis=0), np.where(swap, first, second).sum(axis=0)
        extreme += abs(ratio(one) - ratio(other)) >= observed - 1e-12
    return extreme / 2 ** len(first)


@pytest.mark.parametrize("seed", range(4))
def test_swap_test_is_the_average_over_all_swaps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Right answers of patients with 3 items each; then areas of masks, where the denominators move too.
    counts = terms(rng.binomial(3, 0.8, 10), 3), terms(rng.binomial(3, 0.4, 10), 3)
    union = rng.integers(40, 200, (2, 9))
    areas = [np.stack([rng.integers(0, u) * (0.5 + k / 2), u], axis=1).astype(float) for k, u in enumerate(union)]
    for first, second in (counts, areas):
        exact = every_swap(first, second)
        error = np.sqrt(exact * (1 - exact) / 10_000)
        assert swap_test(first, second, ratio) == pytest.approx(exact, abs=4 * error + 2e-4)


def test_swap_test_with_one_item_per_patient_is_mcnemar() -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        first, second = rng.random(120) < 0.7, rng.random(120) < 0.6
        assert swap_test(terms(first), terms(second), ratio) == pytest.approx(mcnemar(first, second), abs=0.02)


def test_swap_test_of_equal_conditions_is_one() -> None:
    right = terms(np.arange(20) % 2)
    assert swap_test(right, right, ratio) == 1.0
    assert swap_test(right, right[::-1], ratio) == 1.0, "other patients right, the same value"


def test_swap_test_is_never_zero_and_finds_what_is_there() -> None:
    assert swap_test(terms(np.ones(50)), terms(np.zeros(50)), ratio) == pytest.approx(1 / 10_001)


def test_swap_test_holds_its_level_and_mcnemar_does_not_where_patients_have_several_items() -> None:
    rng = np.random.default_rng(6)
    trials, patients, items = 1200, 40, 8
    found = {"swap": 0, "mcnemar": 0, "swap, independent": 0}
    for trial in range(trials):
        # Both conditions are right as often; which of the two knows a patient holds for all his items.
        rates = np.where(rng.random((patients, 1)) < 0.5, 0.9, 0.3)
        first, second = rng.random((patients, items)) < rates, rng.random((patients, items)) < 1.2 - rates
        sums = terms(first.sum(axis=1), items), terms(second.sum(axis=1), items)
        found["swap"] += swap_test(*sums, ratio, seed=trial, permutations=499) < 0.05
        found["mcnemar"] += mcnemar(first.ravel(), second.ravel()) < 0.05
        alone = rng.random((2, 100)) < 0.6
        p = swap_test(terms(alone[0]), terms(alone[1]), ratio, seed=trial, permutations=499)
        found["swap, independent"] += p < 0.05
    # Level 5 %: 1200 trials have a binomial error of 0.63 points.
    assert 0.03 < found["swap"] / trials < 0.05 + 3 * 0.0063
    assert 0.01 < found["swap, independent"] / trials < 0.05 + 3 * 0.0063, "few values are possible: below the level"
    assert found["mcnemar"] / trials > 0.2, "too sure of itself"


def test_swap_test_of_ratios_holds_its_level() -> None:
    rng = np.random.default_rng(7)
    trials, found = 300, 0
    for _ in range(trials):
        truth = rng.lognormal(4, 1, 30)
        sides = [np.stack([truth * rng.beta(4, 2, 30), truth * rng.uniform(1, 1.5, 30)], axis=1) for _ in range(2)]
        found += swap_test(*sides, ratio, permutations=400) < 0.05
    assert 0 < found / trials < 0.05 + 3 * 0.0126


def test_corrections_by_hand() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    # Holm: sorted .005 x 4, .01 x 3, .03 x 2, .04 x 1, each at least its predecessor.
    assert adjust(p, "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Benjamini and Hochberg: sorted p x 4 / rank = .02, .02, .04, .04, each at most its successor.
    assert adjust(p, "bh") == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert adjust([0.6, 0.9], "holm") == pytest.approx([1.0, 1.0]), "never above 1"


def test_a_missing_test_does_not_count() -> None:
    assert adjust([None, 0.02, None, 0.03], "holm") == [None, pytest.approx(0.04), None, pytest.approx(0.04)]
    assert adjust([None, 0.02, None, 0.03], "bh") == [None, pytest.approx(0.03), None, pytest.approx(0.03)]
    for method in ("holm", "bh"):
        assert (
            adjust([], method) == [] and adjust([None], method) == [None] and adjust([0.2, None], method) == [0.2, None]
        )

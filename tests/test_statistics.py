"""Bootstrap and intervals: against naive loops, scipy and analysis of variance; and their coverage by simulation."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
from scipy.stats import binom, bootstrap, ks_2samp, norm

from crossmed_core.statistics import (
    LEAST_PATIENTS,
    Spread,
    cluster_sums,
    expanded_interval,
    interval,
    paired_values,
    percentile_interval,
    resampled_values,
    too_small,
)

Rng = np.random.Generator
Sample = Callable[[Rng], list[np.ndarray]]
"""Draws the (patients, 2) sums of each training seed."""


def share(sums: np.ndarray) -> np.ndarray:
    """Return first / second."""
    return sums[..., 0] / sums[..., 1]


def answers(rng: Rng, patients: int, most: int) -> np.ndarray:
    """Draw sums of patients with 1 to `most` items, whose chance of a right answer differs around 0.6."""
    sizes = rng.integers(1, most + 1, patients)
    return np.stack([rng.binomial(sizes, rng.beta(3, 2, patients)), sizes], axis=1).astype(float)


def masks(rng: Rng, patients: int) -> np.ndarray:
    """Draw intersections and unions whose ratio of expectations is 0.5, with areas over two orders of magnitude."""
    area = rng.lognormal(3, 0.7, patients)
    return np.stack([area * rng.beta(5, 3, patients), area * (1 + rng.beta(2, 6, patients))], axis=1)


# -- the draws -------------------------------------------------------------------------------------


def test_sums_by_cluster_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    terms, clusters = rng.random((50, 3)), [f"p{n}" for n in rng.integers(12, size=50)]
    expected = [
        sum(row for row, name in zip(terms, clusters, strict=True) if name == one) for one in sorted(set(clusters))
    ]
    assert cluster_sums(terms, clusters) == pytest.approx(np.array(expected))


@pytest.mark.parametrize("make", [lambda rng: answers(rng, 60, 2), lambda rng: masks(rng, 60)], ids=["few", "many"])
def test_draws_have_the_distribution_of_a_naive_loop(make) -> None:
    """Few patterns of patients are drawn as patterns, many patient by patient: both are the same bootstrap."""
    sums = make(np.random.default_rng(1))
    rng = np.random.default_rng(2)
    naive = [share(sums[rng.integers(60, size=60)].sum(axis=0)) for _ in range(3000)]
    draws = resampled_values([sums], share, resamples=3000)
    assert draws.shape == (3000, 1) and ks_2samp(draws[:, 0], naive).pvalue > 0.001
    assert draws.std() == pytest.approx(np.std(naive), rel=0.06)


def test_draws_of_a_ratio_against_scipy() -> None:
    sums = masks(np.random.default_rng(3), 80)
    draws = resampled_values([sums], share, resamples=9000)
    theirs = bootstrap(
        (sums[:, 0], sums[:, 1]), lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis), paired=True, vectorized=True,
        n_resamples=9000, method="percentile", rng=4,
    ).confidence_interval  # fmt: skip
    assert percentile_interval(draws) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_draws_are_repeatable_and_depend_on_the_seed() -> None:
    sums = [answers(np.random.default_rng(5), 40, 3)]
    first, again, other = (resampled_values(sums, share, seed=seed, resamples=200) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("make", [lambda rng: answers(rng, 50, 2), lambda rng: masks(rng, 50)], ids=["few", "many"])
def test_conditions_are_drawn_with_the_same_patients(make) -> None:
    rng = np.random.default_rng(6)
    one, other = make(rng), make(rng)
    first, second = paired_values([[one, other], [one]], share, resamples=300)
    assert first.shape == (300, 2) and second.shape == (300, 1)
    assert (first[:, :1] == second).all(), "the same answers score the same in every draw"
    assert (first[:, 1:] != second).any()


def test_a_paired_difference_has_the_error_of_the_differences() -> None:
    rng = np.random.default_rng(7)
    hard = rng.random(400)
    first, second = (np.stack([hard < level, np.ones(400)], axis=1).astype(float) for level in (0.7, 0.6))
    a, b = paired_values([[first], [second]], share, resamples=8000)
    assert (a - b).std() == pytest.approx((first - second)[:, 0].std() / 20, rel=0.04)


def test_undefined_draws_are_left_out() -> None:
    draws = np.array([np.nan, 0.2, 0.4, 0.6])
    assert percentile_interval(draws) == pytest.approx(tuple(np.quantile([0.2, 0.4, 0.6], [0.025, 0.975])))
    assert np.isnan(percentile_interval(np.array([np.nan]))).all() and np.isnan(expanded_interval(draws, 1)).all()


# -- intervals -------------------------------------------------------------------------------------


def test_the_expanded_interval_by_hand() -> None:
    # Hesterberg (2015): for n = 10 the tails are Phi(-sqrt(10 / 9) x 2.262157) = 0.008554.
    draws = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    low, high = expanded_interval(draws, 10)
    assert (norm.cdf(low), norm.sf(high)) == pytest.approx((0.008554, 0.008554), abs=2e-5)
    assert expanded_interval(draws, 10**6) == pytest.approx(percentile_interval(draws), abs=1e-3)


def test_the_spread_of_crossed_seeds_and_patients_against_analysis_of_variance() -> None:
    rng = np.random.default_rng(8)
    seeds, patients = 4, 150
    values = rng.normal(0, 0.1, (seeds, 1)) + rng.normal(0, 0.3, (1, patients)) + rng.normal(0, 0.4, (seeds, patients))
    sums = [np.stack([row, np.ones(patients)], axis=1) for row in values]
    draws = resampled_values(sums, share, resamples=20_000)
    spread = Spread.of(draws, values.mean(axis=1).tolist(), patients)
    # Mean squares of the two-way layout without replication, by their textbook formulas.
    rows, columns = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    of_seeds = patients * np.sum((rows - values.mean()) ** 2) / (seeds - 1)
    of_patients = seeds * np.sum((columns - values.mean()) ** 2) / (patients - 1)
    rest = np.sum((values - rows - columns + values.mean()) ** 2) / ((seeds - 1) * (patients - 1))
    total = np.array([of_seeds, of_patients, rest]) / (seeds * patients)
    assert (spread.of_seeds, spread.of_patients, spread.shared) == pytest.approx(tuple(total), rel=0.06)
    assert spread.error == pytest.approx(sqrt(total[0] + total[1] - total[2]), rel=0.03)
    freedom = (total[0] + total[1] - total[2]) ** 2 / np.sum(total**2 / [3, 149, 447])
    assert spread.freedom == pytest.approx(freedom, rel=0.1)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_the_p_value_is_where_the_interval_touches_0(seeds: int) -> None:
    spread = Spread(4e-4 if seeds > 1 else 0.0, 6e-4, 1e-4 if seeds > 1 else 0.0, seeds, 80)
    for level in (0.5, 0.95, 0.99):
        assert spread.p_value(spread.reach(level)) == pytest.approx(1 - level, abs=1e-6)
    assert spread.p_value(0.0) == pytest.approx(1.0) and spread.p_value(10.0) < 1e-2
    assert spread.p_value(-0.05) == pytest.approx(spread.p_value(0.05))


def test_seeds_that_agree_on_every_patient_are_one_seed() -> None:
    sums = answers(np.random.default_rng(9), 60, 3)
    draws = resampled_values([sums] * 3, share)
    value = float(share(sums.sum(axis=0)))
    several, one = interval(draws, [value] * 3, 60), interval(draws[:, :1], [value], 60)
    assert several == pytest.approx(one, abs=0.004)


def test_without_any_variance_the_interval_is_a_point() -> None:
    sums = [np.ones((40, 2))] * 2
    assert interval(resampled_values(sums, share), [1.0, 1.0], 40) == (1.0, 1.0)


def test_too_few_patients_are_too_small() -> None:
    assert too_small(LEAST_PATIENTS - 1, 500) and too_small(500, LEAST_PATIENTS - 1)
    assert not too_small(LEAST_PATIENTS, LEAST_PATIENTS)


# -- coverage: 95 % nominal, 93 to 97 % observed -----------------------------------------------------


def covered(make: Sample, true: float, trials: int, seed: int) -> int:
    """Count the intervals that hold the true value."""
    rng = np.random.default_rng(seed)
    hits = 0
    for trial in range(trials):
        sums = make(rng)
        draws = resampled_values(sums, share, seed=trial, resamples=500)
        low, high = interval(draws, [float(share(one.sum(axis=0))) for one in sums], len(sums[0]))
        hits += low <= true <= high
    return hits


def require(hits: int, trials: int, least: float = 0.93, most: float = 0.97) -> None:
    """Fail if a coverage between `least` and `most` would give this count in fewer than 1 of 1000 simulations."""
    low, high = binom.ppf(0.001, trials, least), binom.ppf(0.999, trials, most)
    assert low <= hits <= high, f"{hits / trials:.3f} of {trials} intervals hold the true value"


@pytest.mark.parametrize("patients", [LEAST_PATIENTS, 100])
@pytest.mark.parametrize("kind", ["answers", "masks"])
def test_coverage_over_patients(kind: str, patients: int) -> None:
    trials = 500

    def make(rng: Rng) -> list[np.ndarray]:
        return [answers(rng, patients, 9) if kind == "answers" else masks(rng, patients)]

    # E[intersection] / E[union] = (5/8) / (1 + 2/8).
    require(covered(make, 0.6 if kind == "answers" else 0.5, trials, patients), trials)


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "most"), [(3, 0.06, 0.97), (5, 0.03, 0.97), (5, 0.0, 0.98), (2, 0.06, 1)]
)
def test_coverage_over_training_seeds_and_patients(seeds: int, of_seeds: float, most: float) -> None:
    """Every seed answers for the same patients, of five items each. Two seeds are on the safe side (`Spread.reach`)."""
    trials = 400

    def make(rng: Rng) -> list[np.ndarray]:
        level = (
            0.6 + rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, 0.12, (1, 80)) + rng.normal(0, 0.05, (seeds, 80))
        )
        right = rng.binomial(5, np.clip(level, 0, 1))
        return [np.stack([row, np.full(80, 5)], axis=1).astype(float) for row in right]

    require(covered(make, 0.6, trials, seeds), trials, most=most)


def test_a_paired_difference_over_seeds_holds_its_level_and_covers() -> None:
    rng, trials, hits, rejected = np.random.default_rng(10), 400, 0, 0
    for trial in range(trials):
        hard = rng.normal(0, 0.15, (1, 80))  # the same patients are hard for both
        groups = [
            [
                np.stack([rng.binomial(5, np.clip(row, 0, 1)), np.full(80, 5)], axis=1).astype(float)
                for row in level + rng.normal(0, 0.04, (4, 1)) + hard
            ]
            for level in (0.6, 0.6)
        ]
        first, second = paired_values(groups, share, seed=trial, resamples=500)
        gaps = [float(share(a.sum(axis=0)) - share(b.sum(axis=0))) for a, b in zip(*groups, strict=True)]
        low, high = interval(first - second, gaps, 80)
        hits += low <= 0 <= high
        rejected += Spread.of(first - second, gaps, 80).p_value(float(np.mean(gaps))) <= 0.05
    require(hits, trials)
    require(trials - rejected, trials)

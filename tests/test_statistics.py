"""Intervals against scipy, statsmodels, textbook formulas, naive loops and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, norm, t
from statsmodels.stats.proportion import proportion_confint

from crossmed_core.statistics import (
    Spread,
    cluster_sums,
    expanded_interval,
    generic_draws,
    interval,
    paired_values,
    percentile_interval,
    resampled_values,
    too_small,
    wilson,
)


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def share(right: np.ndarray, items: int = 1) -> np.ndarray:
    """Terms of accuracy: right answers and items of each patient."""
    return np.stack([right, np.full(np.shape(right), items)], axis=-1).astype(float)


def test_wilson_against_statsmodels() -> None:
    for hits, n in ((0, 12), (3, 12), (50, 100), (100, 100), (1, 1)):
        assert wilson(hits, n) == pytest.approx(proportion_confint(hits, n, method="wilson"), abs=1e-9)


def test_too_small_goes_by_patients_and_items() -> None:
    assert too_small(29, 500) and too_small(500, 29) and not too_small(30, 30)


def test_cluster_sums_by_hand() -> None:
    sums = cluster_sums(np.array([[1.0, 1], [0, 1], [1, 1], [1, 1]]), ["b", "a", "b", "c"])
    assert sums.tolist() == [[0, 1], [2, 2], [1, 1]]


def test_the_expanded_interval_by_hand() -> None:
    draws = np.random.default_rng(0).normal(size=5000)
    # Hesterberg: the quantile level whose normal quantile is sqrt(n / (n - 1)) t(.975, n - 1); n = 10, t(9) = 2.262157.
    tail = norm.cdf(-np.sqrt(10 / 9) * 2.262157)
    assert tail == pytest.approx(0.00855, abs=2e-5)
    assert expanded_interval(draws, 10) == pytest.approx(np.quantile(draws, [tail, 1 - tail]), abs=1e-4)
    assert expanded_interval(draws, 10**6) == pytest.approx(percentile_interval(draws), abs=1e-3)
    assert np.isnan(expanded_interval(draws, 1)).all()


def test_undefined_draws_are_dropped() -> None:
    draws = np.array([np.nan, 0.0, 1.0, np.nan])
    assert percentile_interval(draws) == pytest.approx((0.025, 0.975))
    assert np.isnan(percentile_interval(np.full(3, np.nan))).all()


@pytest.mark.parametrize("few", [True, False])
def test_paired_draws_against_scipy(few: bool) -> None:
    # few: right and wrong answers, drawn as patterns; else areas, of which no two are alike, drawn patient by patient.
    rng = np.random.default_rng(1)
    n = 60
    if few:
        sides = [share(rng.binomial(2, 0.7, n), 2), share(rng.binomial(2, 0.5, n), 2)]
    else:
        union = rng.uniform(1, 2, (2, n))
        sides = [np.stack([u * rng.beta(3, 2, n), u], axis=1) for u in union]
    assert (2 * len(np.unique(np.hstack(sides), axis=0)) <= n) == few
    first, second = paired_values([[sides[0]], [sides[1]]], ratio, resamples=20_000)

    def difference(a, b, c, d, axis=-1):
        return a.sum(axis) / b.sum(axis) - c.sum(axis) / d.sum(axis)

    columns = [side[:, k] for side in sides for k in (0, 1)]
    theirs = bootstrap(
        columns, difference, paired=True, vectorized=True, n_resamples=20_000, method="percentile", rng=2
    )
    ours = (first - second).ravel()
    # The two draw apart: quantiles agree within their Monte-Carlo error, and the step of 1 of 120 answers.
    assert ours.std() == pytest.approx(theirs.standard_error, rel=0.03)
    assert percentile_interval(ours) == pytest.approx(
        tuple(theirs.confidence_interval), abs=0.06 * ours.std() + 1 / 120 + 1e-9
    )


def test_patterns_and_patients_give_the_same_distribution() -> None:
    rng = np.random.default_rng(3)
    right = rng.random((3, 50)) < 0.7
    exact = [[share(one) for one in right]]
    # A third term makes every patient a pattern of his own and changes no value.
    marked = [[np.hstack([share(one), np.arange(50)[:, None]]) for one in right]]
    draws = [paired_values(groups, ratio, resamples=20_000)[0] for groups in (exact, marked)]
    assert draws[0].shape == draws[1].shape == (20_000, 3)
    np.testing.assert_allclose(np.cov(draws[0].T), np.cov(draws[1].T), atol=1.5e-4)
    assert draws[0].mean(axis=0) == pytest.approx(right.mean(axis=1), abs=0.002)
    for q in (0.025, 0.5, 0.975):
        np.testing.assert_allclose(np.quantile(draws[0], q, axis=0), np.quantile(draws[1], q, axis=0), atol=0.0201)
    # Seeds share their patients: the covariance is that of the answers over n, not 0.
    expected = np.cov(right.astype(float), ddof=0) / 50
    np.testing.assert_allclose(np.cov(draws[0].T), expected, atol=1.5e-4)


def test_generic_draws_are_the_same_distribution() -> None:
    rng = np.random.default_rng(4)
    sizes = rng.integers(1, 6, 40)
    clusters = [f"p{p:02d}" for p, size in enumerate(sizes) for _ in range(size)]
    right = (rng.random(len(clusters)) < 0.6).astype(float)
    slow = generic_draws(lambda places: [right[list(places)].mean()], clusters, resamples=4000)
    fast = resampled_values([cluster_sums(share(right), clusters)], ratio)
    assert slow.shape == (4000, 1) and slow.std() == pytest.approx(fast.std(), rel=0.05)
    assert percentile_interval(slow) == pytest.approx(percentile_interval(fast), abs=0.015)


# -- seeds and patients ----------------------------------------------------------------------------


def layout(rng: np.random.Generator, seeds: int, patients: int, *, of_seed: float, of_patient: float, noise: float):
    """A balanced two-way layout without replication: level + seed + patient + rest, one value per seed and patient."""
    return (
        0.6
        + rng.normal(0, of_seed, (seeds, 1))
        + rng.normal(0, of_patient, (1, patients))
        + rng.normal(0, noise, (seeds, patients))
    )


def test_spread_equals_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(5)
    k, n = 4, 50
    values = layout(rng, k, n, of_seed=0.05, of_patient=0.3, noise=0.2)
    draws = resampled_values([share(row) for row in values], ratio, resamples=40_000)
    found = Spread.of(draws, values.mean(axis=1), n)
    # Textbook mean squares of a two-way layout with both factors random.
    rows, columns, mean = values.mean(axis=1), values.mean(axis=0), values.mean()
    ms_seed = n * np.sum((rows - mean) ** 2) / (k - 1)
    ms_patient = k * np.sum((columns - mean) ** 2) / (n - 1)
    rest = values - rows[:, None] - columns[None, :] + mean
    ms_rest = np.sum(rest**2) / ((k - 1) * (n - 1))
    assert found.of_seeds == pytest.approx(ms_seed / (k * n))
    assert found.of_patients == pytest.approx(ms_patient / (k * n), rel=0.03)
    assert found.shared == pytest.approx(ms_rest / (k * n), rel=0.05)
    assert found.error**2 == pytest.approx((ms_seed + ms_patient - ms_rest) / (k * n), rel=0.03)
    # Satterthwaite for that sum of mean squares.
    above = (ms_seed + ms_patient - ms_rest) ** 2
    below = ms_seed**2 / (k - 1) + ms_patient**2 / (n - 1) + ms_rest**2 / ((k - 1) * (n - 1))
    assert found.freedom == pytest.approx(above / below, rel=0.06)


def test_one_seed_is_the_t_interval_of_a_mean() -> None:
    values = np.random.default_rng(6).normal(0.5, 0.1, 40)
    draws = resampled_values([share(values)], ratio, resamples=40_000)
    found = Spread.of(draws, [values.mean()], 40)
    assert found.error == pytest.approx(values.std(ddof=1) / np.sqrt(40), rel=0.02)
    assert found.reach(0.95) == pytest.approx(t.ppf(0.975, 39) * found.error)
    half = t.ppf(0.975, 39) * values.std(ddof=1) / np.sqrt(40)
    assert interval(draws, [values.mean()], 40) == pytest.approx((values.mean() - half, values.mean() + half), rel=0.01)


def test_reach_of_two_seeds_is_cochran_and_cox() -> None:
    found = Spread(0.0004, 0.0001, 0.0, 2, 50)
    by_hand = (0.0004 * 12.7062 + 0.0001 * 2.00958) / 0.0005 * np.sqrt(0.0005)
    assert found.reach(0.95) == pytest.approx(by_hand, rel=1e-5)
    assert Spread(0.0, 0.0, 0.0, 2, 50).reach(0.95) == 0 and Spread(0.0, 0.0, 0.0, 3, 50).reach(0.95) == 0


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_the_p_value_belongs_to_the_interval(seeds: int) -> None:
    rng = np.random.default_rng(7)
    signs = set()
    for mean in (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.3):
        half = rng.normal(mean, 0.01, (seeds, 1)) + rng.normal(0, 0.1, (1, 20)) + rng.normal(0, 0.05, (seeds, 20))
        # Symmetric about the mean, so that the percentile interval is, too.
        values = np.hstack([half, 2 * half.mean(axis=1, keepdims=True) - half])
        by_seed = values.mean(axis=1)
        draws = resampled_values([share(row) for row in values], ratio, resamples=20_000)
        found = Spread.of(draws, by_seed, 40)
        p = found.p_value(float(by_seed.mean()))
        reach = found.reach(0.95)
        assert (p < 0.05) == (abs(by_seed.mean()) > reach)
        low, high = interval(draws, by_seed, 40)
        if abs(abs(by_seed.mean()) - reach) > 0.05 * reach:  # the draws' own error aside
            assert (p < 0.05) == (low > 0 or high < 0)
        assert found.reach(1 - p) == pytest.approx(abs(by_seed.mean()), rel=1e-3) or p <= 1e-9
        signs.add(p < 0.05)
    assert signs == {True, False}


def test_p_value_without_any_spread() -> None:
    assert Spread(0.0, 0.0, 0.0, 1, 9).p_value(0.0) == 1.0 and Spread(0.0, 0.0, 0.0, 3, 9).p_value(0.1) == 0.0


# -- coverage --------------------------------------------------------------------------------------


def coverage(draw, value, *, trials: int, resamples: int = 1000) -> tuple[float, float]:
    """Share of intervals that cover, of ours and of the plain percentile one. `draw` gives (terms per seed, truth)."""
    ours = plain = 0
    for trial in range(trials):
        sums, true = draw()
        draws = resampled_values(sums, value, seed=trial, resamples=resamples)
        by_seed = [float(value(one.sum(axis=0))) for one in sums]
        low, high = interval(draws, by_seed, len(sums[0]))
        ours += low <= true <= high
        low, high = percentile_interval(draws.mean(axis=1))
        plain += low <= true <= high
    return ours / trials, plain / trials


def within(covered: float, trials: int) -> bool:
    """93 to 97 %, plus two binomial errors of the number of trials."""
    error = np.sqrt(0.05 * 0.95 / trials)
    return bool(0.93 - 2 * error <= covered <= 0.97 + 2 * error)


@pytest.mark.parametrize(("patients", "items"), [(15, 5), (80, 1), (80, 5), (200, 3)])
def test_coverage_of_one_seed(patients: int, items: int) -> None:
    rng = np.random.default_rng(patients + items)

    def draw():
        # Patients differ (beta with mean .6), and so do their numbers of items.
        sizes = rng.integers(max(1, items - 2), items + 3, patients) if items > 1 else np.ones(patients, dtype=int)
        right = rng.binomial(sizes, rng.beta(3, 2, patients))
        return [np.stack([right, sizes], axis=1).astype(float)], 0.6

    ours, plain = coverage(draw, ratio, trials=500)
    assert within(ours, 500), ours
    if patients == 15:
        assert ours - plain >= 0.015, "the plain percentile interval covers too little with 15 patients"


def test_coverage_of_a_ratio_of_areas() -> None:
    rng = np.random.default_rng(8)
    truth = 0.6667  # independent of the size: E[area x beta(4, 2)] / E[area]

    def draw():
        area = rng.lognormal(4, 0.7, 80)
        return [np.stack([area * rng.beta(4, 2, 80), area], axis=1)], truth

    assert within(coverage(draw, ratio, trials=300, resamples=600)[0], 300)


@pytest.mark.parametrize(("seeds", "of_seed"), [(3, 0.04), (5, 0.0), (5, 0.08)])
def test_coverage_of_several_seeds(seeds: int, of_seed: float) -> None:
    rng = np.random.default_rng(seeds + int(100 * of_seed))

    def draw():
        # Each seed is a model of its own; patients are hard or easy for all of them.
        hard = rng.normal(0, 0.15, 100)
        chances = np.clip(0.6 + rng.normal(0, of_seed, (seeds, 1)) + hard, 0, 1)
        return [share(one) for one in (rng.random((seeds, 100)) < chances).astype(float)], 0.6

    ours, plain = coverage(draw, ratio, trials=400, resamples=500)
    assert within(ours, 400), ours
    if of_seed == 0.08:
        assert plain < 0.85, "an interval over patients alone says nothing of new training runs"


def test_adding_variances_naively_would_cover_too_much() -> None:
    # Where every seed answers by chance, both parts hold the same noise: their plain sum counts it twice.
    rng = np.random.default_rng(9)
    naive = ours = 0
    for _ in range(200):
        right = (rng.random((5, 100)) < 0.5).astype(float)
        draws = resampled_values([share(one) for one in right], ratio, resamples=400)
        found = Spread.of(draws, right.mean(axis=1), 100)
        ours += abs(right.mean() - 0.5) <= found.reach(0.95)
        naive += abs(right.mean() - 0.5) <= 2.0 * np.sqrt(found.of_seeds + found.of_patients)
    assert within(ours / 200, 200), ours / 200
    assert naive / 200 > 0.98


def test_two_seeds_are_on_the_safe_side() -> None:
    rng = np.random.default_rng(10)

    def draw():
        chances = np.clip(0.6 + rng.normal(0, 0.05, (2, 1)) + rng.normal(0, 0.15, 80), 0, 1)
        return [share(one) for one in (rng.random((2, 80)) < chances).astype(float)], 0.6

    assert coverage(draw, ratio, trials=200, resamples=400)[0] >= 0.93

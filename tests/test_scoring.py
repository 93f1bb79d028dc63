"""Intervals, gaps and counts, against scipy, naive loops and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from crossmed_core import statistics
from crossmed_core.gaps import gap, gaps
from crossmed_core.scoring import Answers, score
from crossmed_core.types import MAT, ImageRef, Item, Prediction
from crossmed_plugins.metrics import option

CELL = MAT("ct", "chest", "finding")


def answers(
    right: np.ndarray, *, split: str = "related", seed: int = 0, patients: list[str] | None = None, errors: int = 0
):
    pairs = []
    for n, ok in enumerate(right):
        patient = patients[n] if patients else f"p{n:05d}"
        item = Item(f"i{n:05d}", "d", CELL, patient, "test", ImageRef("/x"), "?", ("a", "b", "c", "d"), 0, "a")
        answer = Prediction(item.id, error="refused") if n < errors else Prediction(item.id, option=0 if ok else 1)
        pairs.append((item, answer))
    return Answers("m", split, str(CELL), seed, pairs)


def test_wilson_by_hand() -> None:
    # Wilson (1927) for 8 of 10, z = 1.959964: centre (0.8 + z²/20) / (1 + z²/10), half-width by the formula.
    z = 1.959964
    centre = (0.8 + z**2 / 20) / (1 + z**2 / 10)
    half = z / (1 + z**2 / 10) * np.sqrt(0.8 * 0.2 / 10 + z**2 / 400)
    assert statistics.wilson(8, 10) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_one_seed_and_one_item_per_patient_is_wilson() -> None:
    one = score([answers(np.arange(100) < 70)], "accuracy", option.accuracy, proportion=True)
    assert (one.value, one.n, one.patients, one.chance, one.unscored) == (0.7, 100, 100, 0.25, 0)
    assert (one.low, one.high) == pytest.approx(statistics.wilson(70, 100)) and one.interval.startswith("Wilson")


def test_repeated_patients_are_resampled_whole() -> None:
    # 20 patients of 10 items, all right or all wrong: as uncertain as 20 items, not as 200.
    right = np.repeat(np.arange(20) < 14, 10)
    patients = [f"p{n // 10}" for n in range(200)]
    clustered = score([answers(right, patients=patients)], "accuracy", option.accuracy, proportion=True)
    apart = score([answers(right)], "accuracy", option.accuracy, proportion=True)
    assert clustered.interval.startswith("bootstrap over patients") and clustered.patients == 20
    assert clustered.high - clustered.low > 2.5 * (apart.high - apart.low)


def test_cluster_bootstrap_against_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 60)
    patients = [f"p{p:02d}" for p, size in enumerate(sizes) for _ in range(size)]
    right = rng.random(len(patients)) < 0.6
    ours = score([answers(right, patients=patients)], "accuracy", option.accuracy, proportion=True)
    groups = [right[np.array(patients) == f"p{p:02d}"] for p in range(60)]
    naive = [np.concatenate([groups[g] for g in rng.integers(60, size=60)]).mean() for _ in range(4000)]
    assert (ours.low, ours.high) == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.012)


def test_plain_bootstrap_against_scipy() -> None:
    right = np.random.default_rng(1).random(150) < 0.55
    draws = statistics.resampled_values([np.stack([right, np.ones(150)], axis=1)], option.accuracy.value)
    theirs = bootstrap((right,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    assert statistics.percentile_interval(draws) == pytest.approx((theirs.low, theirs.high), abs=0.015)


@pytest.mark.parametrize("per_patient", [1, 4])
def test_coverage_by_simulation(per_patient: int) -> None:
    rng = np.random.default_rng(3)
    covered, trials, true = 0, 250, 0.6
    for _ in range(trials):
        # Patients differ (beta with mean 0.6), so items of one patient hang together.
        of_patient = rng.beta(3, 2, 80) if per_patient > 1 else np.full(80, true)
        right = rng.random((80, per_patient)) < of_patient[:, None]
        sums = np.stack([right.sum(axis=1), np.full(80, per_patient)], axis=1).astype(float)
        draws = statistics.resampled_values([sums], option.accuracy.value, resamples=400)
        low, high = statistics.percentile_interval(draws)
        covered += low <= true <= high
    assert 0.91 <= covered / trials <= 0.98


def test_seeds_widen_the_interval() -> None:
    rng = np.random.default_rng(4)
    runs = [answers(rng.random(400) < level, seed=seed) for seed, level in enumerate((0.4, 0.6, 0.8))]
    both = score(runs, "accuracy", option.accuracy, proportion=True)
    one = score(runs[:1], "accuracy", option.accuracy, proportion=True)
    assert both.value == pytest.approx(np.mean(both.by_seed)) and both.seeds == (0, 1, 2)
    assert both.high - both.low > 2 * (one.high - one.low) and "3 training seeds" in both.interval


def test_all_right_is_not_certainty() -> None:
    patients = [f"p{n // 2}" for n in range(60)]
    one = score([answers(np.ones(60), patients=patients)], "accuracy", option.accuracy, proportion=True)
    assert (one.low, one.high) == pytest.approx(statistics.wilson(30, 30)) and one.low < 0.9
    single = score([answers(np.arange(4) < 2, patients=["p"] * 4)], "accuracy", option.accuracy, proportion=True)
    assert (single.value, single.low) == (0.5, None) and "fewer than two patients" in single.interval


def test_value_n_and_interval_are_of_the_same_items() -> None:
    runs = [answers(np.arange(10) >= 5, seed=0), answers(np.arange(10) >= 5, seed=1, errors=5)]
    one = score(runs, "accuracy", option.accuracy, proportion=True)
    assert (one.value, one.n, one.patients, one.unscored) == (1.0, 5, 5, 5)


def test_a_gap_to_guesses_says_so() -> None:
    from dataclasses import replace

    right, blind = answers(np.arange(40) < 30), answers(np.arange(40) < 10, split="zero-overlap")
    blind = replace(blind, pairs=[(item, replace(prediction, guess=True)) for item, prediction in blind.pairs])
    found = gap([right], [blind], "accuracy", option.accuracy)
    assert found is not None and found.guessed == ("zero-overlap",)


def test_unscored_answers_are_counted_and_left_out() -> None:
    one = score([answers(np.arange(100) < 70, errors=10)], "accuracy", option.accuracy, proportion=True)
    assert (one.n, one.unscored, one.value) == (90, 10, pytest.approx(60 / 90))
    nothing = score([answers(np.ones(5), errors=5)], "accuracy", option.accuracy, proportion=True)
    assert (nothing.value, nothing.low, nothing.n, nothing.unscored) == (None, None, 0, 5)


def test_gap_is_paired() -> None:
    rng = np.random.default_rng(5)
    hard = rng.random(300)  # the same items are hard for both
    first, second = answers(hard < 0.70), answers(hard < 0.62, split="zero-overlap")
    found = gap([first], [second], "accuracy", option.accuracy)
    assert found is not None
    difference = (hard < 0.70).mean() - (hard < 0.62).mean()
    assert found.value == pytest.approx(difference) and found.n == 300
    # Paired: the interval is that of the difference per item, far narrower than that of two independent shares.
    per_item = ((hard < 0.70).astype(float) - (hard < 0.62)).std() / np.sqrt(300)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * per_item, rel=0.15)


def test_gap_of_equal_answers_is_zero() -> None:
    right = np.random.default_rng(6).random(50) < 0.5
    found = gap([answers(right)], [answers(right, split="x")], "accuracy", option.accuracy)
    assert found is not None and (found.value, found.low, found.high) == (0, 0, 0)


def test_gap_uses_items_that_both_scored_and_seeds_that_both_ran() -> None:
    first = [answers(np.ones(50), seed=seed) for seed in (0, 1)]
    second = [answers(np.zeros(50), split="x", seed=1, errors=20)]
    found = gap(first, second, "accuracy", option.accuracy)
    assert found is not None and (found.n, found.seeds, found.value) == (30, (1,), 1.0)
    assert gap(first[:1], second, "accuracy", option.accuracy) is None
    assert gaps([*first, *second], {"accuracy": option.accuracy}, [("related", "nothing")]) == []


def test_a_metric_that_is_no_sum_is_resampled_the_slow_way() -> None:
    def best_letter(pairs):
        return max(np.mean([p.option == k for _, p in pairs]) for k in range(4))

    one = score([answers(np.arange(60) < 40)], "best-letter", best_letter)
    assert one.value == pytest.approx(2 / 3) and one.low < one.value < one.high and one.chance is None

"""The bootstrap against a naive loop and against numpy's multinomial, on as many answers as CrossMed has questions.

python benchmarks/bootstrap.py
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from crossmed_core.statistics import RESAMPLES, percentile_interval, resampled_values

ITEMS, PATIENTS, ROUNDS = 20_200, 3_000, 3


def share(sums: np.ndarray) -> np.ndarray:
    """Return right / n."""
    return sums[..., 0] / sums[..., 1]


def naive(groups: list[np.ndarray], rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Resample patients in a loop and pool their items."""
    drawn = (rng.integers(len(groups), size=len(groups)) for _ in range(resamples))
    return np.array([np.concatenate([groups[number] for number in numbers]).mean() for numbers in drawn])


def multinomial(sums: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw how often each patient occurs from a multinomial distribution."""
    n = len(sums)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return share(weights @ sums)


def main() -> None:
    """Interleave the three and print medians, ratios and their intervals."""
    rng = np.random.default_rng(0)
    patient = np.sort(rng.integers(PATIENTS, size=ITEMS))
    right = rng.random(ITEMS) < 0.62
    groups = [right[patient == number] for number in np.unique(patient)]
    sums = np.array([[group.sum(), len(group)] for group in groups], dtype=float)
    few = RESAMPLES // 20  # the naive loop is timed on a twentieth and scaled
    methods = {
        "naive loop": lambda: naive(groups, rng, few),
        "numpy multinomial": lambda: multinomial(sums, rng),
        "crossmed": lambda: resampled_values([sums], share),
    }
    times: dict[str, list[float]] = {name: [] for name in methods}
    draws: dict[str, np.ndarray] = {}
    for _ in range(ROUNDS):
        for name, method in methods.items():
            started = time.process_time()
            draws[name] = method()
            times[name].append((time.process_time() - started) * (20 if name == "naive loop" else 1))
    ours = statistics.median(times["crossmed"])
    print(f"{ITEMS} items of {len(groups)} patients, {RESAMPLES} resamples")
    for name, results in times.items():
        low, high = percentile_interval(draws[name])
        median = statistics.median(results)
        print(f"{name:18} {median:8.2f} CPU s  {median / ours:7.1f} x  [{low:.4f}, {high:.4f}]")


if __name__ == "__main__":
    main()

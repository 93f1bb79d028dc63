"""Intervals and the compositional gap. Everything is a function of summed per-item terms, so a resample is a product.

Items of one patient are not independent: the patient is resampled, with all items. Where several seeds were run, their
variance is added, so the interval then speaks of new training runs; with a single seed it speaks of these weights only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 250

Floats = NDArray[np.float64]
Value = Callable[[Floats], Floats]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a proportion (Wilson 1927).

    Raises:
        ValueError: If n is 0 or successes lie outside 0..n.
    """
    from scipy.stats import binomtest  # half a second to import; only needed here

    interval = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def cluster_sums(terms: Floats, clusters: Sequence[str]) -> Floats:
    """Sum rows of (items, terms) by cluster, in sorted cluster order: (clusters, terms)."""
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((int(index.max()) + 1, terms.shape[1]))
    np.add.at(sums, index, terms)
    return sums


def resampled_values(sums: Sequence[Floats], value: Value, *, seed: int = 0, resamples: int = RESAMPLES) -> Floats:
    """Draw the bootstrap distribution of the mean over training seeds, patients resampled.

    Args:
        sums: Per training seed, summed terms of shape (clusters, terms); clusters aligned over seeds.
        value: Turns (..., terms) into (...).
        seed: Seed of the resampling. Two calls with equal seed and number of clusters draw the same clusters, which
            makes their difference a paired one.
        resamples: Number of draws.

    Returns:
        Array of shape (resamples,); NaN where a draw is undefined.
    """
    stacked = np.stack(sums)
    clusters = stacked.shape[1]
    rng = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        weights = _times_drawn(rng, clusters, size)
        draws[start : start + size] = value(np.einsum("bc,sct->bst", weights, stacked, optimize=True)).mean(axis=1)
    return draws


def interval(draws: Floats, by_seed: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean over training seeds.

    One seed: the percentile interval of the draws; it speaks of these weights. Several: on either side, the distance to
    the percentile interval and Student's t times sd / sqrt(k) of the seeds, added in quadrature. That is on the safe
    side (96 to 99 % in simulation), where resampling two or three seeds is far too sure of itself (75 to 86 %).

    Args:
        draws: From `resampled_values`.
        by_seed: The value for each training seed.
    """
    low, high = percentile_interval(draws)
    k = len(by_seed)
    if k == 1:
        return low, high
    from scipy.stats import t

    centre = float(np.mean(by_seed))
    of_seeds = float(t.ppf((1 + LEVEL) / 2, k - 1)) * float(np.std(by_seed, ddof=1)) / k**0.5
    return centre - float(np.hypot(centre - low, of_seeds)), centre + float(np.hypot(high - centre, of_seeds))


def _times_drawn(rng: np.random.Generator, n: int, size: int) -> Floats:
    """Draw n of n with replacement, `size` times: how often each was drawn, shape (size, n).

    The same distribution as `rng.multinomial`, at a fraction of its time (benchmarks/bootstrap.py).
    """
    drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(float)


def percentile_interval(draws: Floats) -> tuple[float, float]:
    """Return the 95 % percentile interval of a bootstrap distribution, NaN draws dropped; NaN if none are left."""
    finite = draws[np.isfinite(draws)]
    if finite.size == 0:
        return float("nan"), float("nan")
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def generic_draws(
    score: Callable[[Sequence[int]], float], clusters: Sequence[str], *, seed: int = 0, resamples: int = 500
) -> Floats:
    """Draw the bootstrap distribution of a metric that is not a function of sums: slower, the same idea.

    Args:
        score: Takes item indices (with repeats) and returns the metric.
        clusters: Cluster of each item.
        seed: Seed of the resampling.
        resamples: Number of draws.
    """
    members: dict[str, list[int]] = {}
    for number, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(number)
    groups = [members[name] for name in sorted(members)]
    rng = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for number in range(resamples):
        picked = rng.integers(len(groups), size=len(groups))
        draws[number] = score([place for group in picked for place in groups[group]])
    return draws

"""Intervals and standard errors. Everything is a function of summed per-item terms, so a resample is a product.

Items of one patient are not independent: the patient is resampled, with all items. Where several seeds were run, their
variance is added, so the interval then speaks of new training runs; with a single seed it speaks of these weights only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
LEAST_PATIENTS = 30
"""With fewer, the interval of a share is wider than a third of the whole scale: such a cell is shown in grey and not
ranked."""
PATTERN = 20
"""Drawing how often a pattern occurs costs about as much as drawing this many patients (benchmarks/bootstrap.py)."""
FEW_SEEDS = 3
POWER = 0.8
_CHUNK = 200

Floats = NDArray[np.float64]
Value = Callable[[Floats], Floats]


def too_small(patients: int, n: int) -> bool:
    """Whether too few patients (or items) were scored to rank a cell: fewer than `LEAST_PATIENTS`."""
    return min(patients, n) < LEAST_PATIENTS


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


def paired_values(
    groups: Sequence[Sequence[Floats]], value: Value, *, seed: int = 0, resamples: int = RESAMPLES
) -> list[Floats]:
    """Draw the bootstrap distributions of several conditions, the same patients drawn for all of them.

    Patients who answered alike everywhere are one pattern, and how often a pattern is drawn is multinomial: the same
    distribution as drawing patients one by one, at a fraction of its cost where patterns are few (right and wrong
    answers). Where nearly every patient is a pattern of his own (areas of masks), patients are drawn.

    Args:
        groups: Per condition and training seed, summed terms of shape (clusters, terms); clusters aligned over all.
        value: Turns (..., terms) into (...).
        seed: Seed of the resampling.
        resamples: Number of draws.

    Returns:
        Per condition an array of shape (resamples, seeds); NaN where a draw is undefined.
    """
    stacked = np.stack([one for group in groups for one in group], axis=1)  # (clusters, conditions x seeds, terms)
    clusters = len(stacked)
    flat = stacked.reshape(clusters, -1)
    patterns, counts = distinct_rows(flat)
    rng = np.random.default_rng(seed)
    draws = np.empty((resamples, stacked.shape[1]))
    few = PATTERN * len(patterns) <= clusters
    chunk = resamples if few else _CHUNK
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        if few:
            sums = rng.multinomial(clusters, counts / clusters, size=size).astype(float) @ patterns
        else:
            sums = _times_drawn(rng, clusters, size) @ flat
        draws[start : start + size] = value(sums.reshape(size, *stacked.shape[1:]))
    ends = np.cumsum([len(group) for group in groups])
    return [draws[:, end - len(group) : end] for group, end in zip(groups, ends, strict=True)]


def distinct_rows(rows: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return the distinct rows in sorted order, and how often each occurs; as `np.unique`, ten times as fast."""
    ordered = rows[np.lexsort(rows.T[::-1])]
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = np.any(ordered[1:] != ordered[:-1], axis=1)
    starts = np.flatnonzero(first)
    return ordered[starts], np.diff(np.append(starts, len(ordered)))


def _times_drawn(rng: np.random.Generator, n: int, size: int) -> Floats:
    """Draw n of n with replacement, `size` times: how often each was drawn, shape (size, n)."""
    drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(float)


def resampled_values(sums: Sequence[Floats], value: Value, *, seed: int = 0, resamples: int = RESAMPLES) -> Floats:
    """Draw the bootstrap distribution of one condition (`paired_values`): shape (resamples, seeds)."""
    return paired_values([sums], value, seed=seed, resamples=resamples)[0]


def interval(draws: Floats, by_seed: Sequence[float], clusters: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean over training seeds.

    One seed: the expanded percentile interval of the draws (Hesterberg 2015, "What teachers should know about the
    bootstrap"), whose tails are those of Student's t, wider by sqrt(n / (n - 1)): the plain one covers too little
    where patients are few. It speaks of these weights. Several seeds: the distance to either end is scaled to the
    reach of `Spread`. It speaks of new training runs.

    Args:
        draws: From `resampled_values`, shape (resamples, seeds); or a difference of two of them.
        by_seed: The value for each training seed.
        clusters: Patients.
    """
    means = draws.mean(axis=1)
    low, high = expanded_interval(means, clusters)
    if len(by_seed) == 1 or not np.isfinite([low, high]).all():
        return low, high
    from scipy.stats import t

    centre = float(np.mean(by_seed))
    reach = Spread.of(draws, by_seed, clusters).reach(LEVEL)
    of_items = float(t.ppf((1 + LEVEL) / 2, clusters - 1)) * _deviation(means, clusters)
    if of_items == 0:
        return centre - reach, centre + reach
    return centre - (centre - low) * reach / of_items, centre + (high - centre) * reach / of_items


@dataclass(frozen=True)
class Spread:
    """Of what the variance of a mean over training seeds is made.

    Seeds and patients are crossed: every seed answers for the same patients. So the variance of the mean is that of the
    seeds, plus that of the patients (bootstrap of the mean), minus their interaction, which both contain.

    Attributes:
        of_seeds: Variance of the seeds' values over their number; 0 for one seed.
        of_patients: Variance from the choice of patients.
        shared: The interaction's part, contained in both.
        seeds: Number of seeds.
        clusters: Patients.
    """

    of_seeds: float
    of_patients: float
    shared: float
    seeds: int
    clusters: int

    @classmethod
    def of(cls, draws: Floats, by_seed: Sequence[float], clusters: int) -> Spread:
        """Take it apart.

        Args:
            draws: Bootstrap draws of shape (resamples, seeds).
            by_seed: The value for each training seed.
            clusters: Patients.
        """
        seeds = len(by_seed)
        of_patients = _deviation(draws.mean(axis=1), clusters) ** 2
        if seeds == 1:
            return cls(0.0, of_patients, 0.0, 1, clusters)
        single = float(np.mean([_deviation(draws[:, one], clusters) ** 2 for one in range(seeds)]))
        shared = max(0.0, (single - of_patients) / (seeds - 1))
        return cls(float(np.var(by_seed, ddof=1)) / seeds, of_patients, shared, seeds, clusters)

    @property
    def error(self) -> float:
        """The standard error."""
        return float(np.sqrt(max(self.of_seeds + self.of_patients - self.shared, self.of_seeds, self.of_patients)))

    @property
    def freedom(self) -> float:
        """Degrees of freedom by Satterthwaite (1946), as for a two-way random-effects analysis of variance."""
        if self.seeds == 1:
            return float(self.clusters - 1)
        parts = (
            (self.of_seeds, self.seeds - 1),
            (self.of_patients, self.clusters - 1),
            (self.shared, (self.seeds - 1) * (self.clusters - 1)),
        )
        below = sum(variance**2 / df for variance, df in parts if df > 0)
        return max(1.0, self.error**4 / below) if below > 0 else float(self.seeds - 1)

    def reach(self, level: float) -> float:
        """Return the half-width of an interval of this level, 0 to 1.

        With two or three seeds Satterthwaite's approximation can be too sure of itself (87 % and 92 % where 95 % are
        due): there the quantiles of both sources are averaged by their variances (Cochran and Cox 1957), which is on
        the safe side.
        """
        from scipy.stats import t

        if self.seeds == 1 or self.seeds > FEW_SEEDS:
            return float(t.ppf((1 + level) / 2, self.freedom)) * self.error
        total = self.of_seeds + self.of_patients
        if total == 0:
            return 0.0
        of_seeds, of_patients = (float(t.ppf((1 + level) / 2, df)) for df in (self.seeds - 1, self.clusters - 1))
        return (self.of_seeds * of_seeds + self.of_patients * of_patients) / total * self.error

    def detectable(self, *, alpha: float = 1 - LEVEL, power: float = POWER) -> float:
        """Return the smallest difference that the test of `p_value` finds with this power.

        Its critical difference, plus what the estimate falls short of the truth in all but `power` of the cases, both
        by the t distribution of the test's own degrees of freedom (a z-test would promise too much with few seeds).
        """
        from scipy.stats import t

        return self.reach(1 - alpha) + float(t.ppf(power, self.freedom)) * self.error

    def p_value(self, difference: float) -> float:
        """Return the two-sided p-value of no difference: 1 - the level at which the interval just touches 0.

        The null: the mean over all training runs and patients is 0. It takes the mean to be about normal.
        """
        from scipy.optimize import brentq
        from scipy.stats import t

        if self.error == 0:
            return 1.0 if difference == 0 else 0.0
        if self.seeds == 1 or self.seeds > FEW_SEEDS:
            return float(2 * t.sf(abs(difference) / self.error, self.freedom))
        if self.reach(1 - 1e-9) <= abs(difference):
            return 1e-9
        return 1 - float(brentq(lambda level: self.reach(level) - abs(difference), 0.0, 1 - 1e-9))


def _deviation(draws: Floats, clusters: int) -> float:
    """Return the standard deviation of a bootstrap distribution, widened for the bootstrap's own (n - 1) / n."""
    finite = draws[np.isfinite(draws)]
    widen = np.sqrt(clusters / (clusters - 1)) if clusters > 1 else 1.0
    return float(finite.std() * widen) if finite.size else float("nan")


def expanded_interval(draws: Floats, clusters: int) -> tuple[float, float]:
    """Return the 95 % expanded percentile interval (Hesterberg 2015), NaN draws dropped; NaN if none are left."""
    from scipy.stats import norm, t

    if clusters < 2:
        return float("nan"), float("nan")
    reach = np.sqrt(clusters / (clusters - 1)) * t.ppf((1 + LEVEL) / 2, clusters - 1)
    return _quantiles(draws, float(norm.sf(reach)))


def percentile_interval(draws: Floats) -> tuple[float, float]:
    """Return the 95 % percentile interval of a bootstrap distribution, NaN draws dropped; NaN if none are left."""
    return _quantiles(draws, (1 - LEVEL) / 2)


def _quantiles(draws: Floats, tail: float) -> tuple[float, float]:
    finite = draws[np.isfinite(draws)]
    if finite.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def generic_draws(
    score: Callable[[Sequence[int]], Sequence[float]],
    clusters: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 500,
) -> Floats:
    """Draw the bootstrap distribution of a metric that is not a function of sums: slower, the same idea.

    Args:
        score: Takes item indices (with repeats) and returns the metric for each training seed.
        clusters: Cluster of each item.
        seed: Seed of the resampling.
        resamples: Number of draws.

    Returns:
        Shape (resamples, seeds).
    """
    members: dict[str, list[int]] = {}
    for number, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(number)
    groups = [members[name] for name in sorted(members)]
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        picked = rng.integers(len(groups), size=len(groups))
        draws.append(score([place for group in picked for place in groups[group]]))
    return np.array(draws, dtype=float)

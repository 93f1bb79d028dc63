"""What a test can find: power and minimum detectable effects, before a run and beside a result."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from crossmed_core.statistics import Spread

ALPHA = 0.05
POWER = 0.8


def design_effect(sizes: Sequence[int], icc: float) -> float:
    """Return by how much items of the same patient inflate the variance of a mean (Kish 1965, unequal clusters).

    1 + (sum of squared sizes / sum of sizes - 1) x icc.

    Args:
        sizes: Items of each patient.
        icc: Correlation of two items of one patient, 0 to 1.
    """
    counts = np.asarray(sizes, dtype=float)
    return float(1 + (np.sum(counts**2) / np.sum(counts) - 1) * icc)


def least_accuracy(n: int, chance: float, *, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """Return the smallest true accuracy that an exact two-sided binomial test tells from chance with this power.

    Args:
        n: Independent items (items over `design_effect`, rounded down).
        chance: Chance level, in (0, 1).
        alpha: Level of the test.
        power: Wanted power.

    Returns:
        An accuracy above chance, to four digits; None if even an accuracy of 1 would not be told from chance.
    """
    from scipy.optimize import brentq
    from scipy.stats import binom

    if n < 1 or not 0 < chance < 1:
        return None
    # The smallest number of hits that the upper tail of alpha / 2 rejects.
    critical = int(binom.isf(alpha / 2, n, chance)) + 1
    if critical > n:
        return None
    return round(float(brentq(lambda p: binom.sf(critical - 1, n, p) - power, chance, 1.0)), 4)


def least_gap(
    n: float,
    *,
    discordant: float,
    seeds: int = 1,
    seed_sd: float = 0.0,
    alpha: float = ALPHA,
    power: float = POWER,
) -> float | None:
    """Return the smallest difference in accuracy between two conditions on the same items that is found.

    McNemar's test by the normal approximation of Connor (1987): with a share `discordant` of items that only one of the
    two has right and a difference d, the variance of the difference is discordant under the null and discordant - d²
    under the alternative, both over n. Training seeds add 2 seed_sd² / seeds, each condition having its own, and the
    critical value is that of the test that a run makes with so many seeds (`statistics.Spread`).

    Args:
        n: Independent items.
        discordant: Share of items that only one condition has right, in (0, 1].
        seeds: Training seeds of each condition.
        seed_sd: Standard deviation of the accuracy over training seeds.
        alpha: Level of the test.
        power: Wanted power.

    Returns:
        The difference; None if it would have to exceed `discordant`, which no difference can.
    """
    from statistics import NormalDist

    from scipy.optimize import brentq
    from scipy.stats import t

    if n < 2:
        return None
    normal = NormalDist()
    of_seeds = 2 * seed_sd**2 / seeds if seeds > 1 else 0.0
    null = Spread(of_seeds, discordant / n, 0.0, seeds, int(n))
    if of_seeds > 0:
        critical, wanted = null.reach(1 - alpha), float(t.ppf(power, null.freedom))
    else:
        critical, wanted = normal.inv_cdf(1 - alpha / 2) * null.error, normal.inv_cdf(power)

    def missing(d: float) -> float:
        return d - critical - wanted * sqrt(max(0.0, discordant - d * d) / n + of_seeds)

    if missing(discordant) < 0:
        return None
    return float(brentq(missing, 0.0, discordant))


def items_for_gap(
    gap: float,
    *,
    discordant: float,
    seeds: int = 1,
    seed_sd: float = 0.0,
    alpha: float = ALPHA,
    power: float = POWER,
) -> int | None:
    """Return how many independent items find a difference with this power (`least_gap` the other way round).

    Returns:
        The number; None if more items do not help (the seeds alone vary too much, or gap > discordant).
    """

    def enough(n: int) -> bool:
        least = least_gap(n, discordant=discordant, seeds=seeds, seed_sd=seed_sd, alpha=alpha, power=power)
        return least is not None and least <= gap

    if gap > discordant:
        return None
    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
        if high > 10**9:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high

"""Tests of two conditions on the same items, and corrections for many of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossmed_core.statistics import PATTERN, Floats, Value, distinct_rows

PERMUTATIONS = 10_000
_CHUNK = 200


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947).

    Null: of the items that only one of the two has right, either is as likely the one. It takes items to be
    independent: with several items per patient it is too sure of itself, and `swap_test` is the one to read.

    Args:
        first: Whether the first condition has each item right.
        second: Likewise the second, in the same order.
    """
    from statsmodels.stats.contingency_tables import mcnemar as of_table  # a second to import; only needed here

    table = [[np.sum(first & second), np.sum(first & ~second)], [np.sum(~first & second), np.sum(~first & ~second)]]
    return float(of_table(np.array(table), exact=True).pvalue)


def swap_test(first: Floats, second: Floats, value: Value, *, seed: int = 0, permutations: int = PERMUTATIONS) -> float:
    """Return the two-sided p-value of a paired permutation test over patients.

    Null: which condition gave which of a patient's answers is a coin, so swapping all answers of a patient between the
    two changes nothing in distribution. It needs no independence within a patient, and holds its level exactly.

    Args:
        first: Summed terms of the first condition, shape (patients, terms).
        second: Those of the second, patients aligned.
        value: Turns (..., terms) into (...).
        seed: Seed of the coins.
        permutations: Number of draws; the p-value is (1 + as extreme) / (1 + draws), never 0 (Phipson and Smyth 2010).
    """
    total, moved = first.sum(axis=0), second - first
    observed = abs(float(value(total) - value(second.sum(axis=0))))
    moved = moved[np.any(moved != 0, axis=1)]  # the others are the same whichever way round
    if not len(moved):
        return 1.0
    both = total + second.sum(axis=0)
    patterns, counts = distinct_rows(moved)
    rng = np.random.default_rng(seed)
    extreme = 0
    few = PATTERN * len(patterns) <= len(moved)
    chunk = permutations if few else _CHUNK
    for start in range(0, permutations, chunk):
        size = min(chunk, permutations - start)
        if few:
            swapped = rng.binomial(counts, 0.5, size=(size, len(counts))).astype(float) @ patterns
        else:
            swapped = rng.integers(0, 2, size=(size, len(moved))).astype(float) @ moved
        one = total + swapped
        differences = np.abs(value(one) - value(both - one))
        # Sums in another order differ in their last bits: a tie must count as one.
        extreme += int(np.sum(~(differences < observed - 1e-12)))
    return (1 + extreme) / (1 + permutations)


def adjust(p_values: Sequence[float | None], method: Literal["holm", "bh"]) -> list[float | None]:
    """Adjust p-values of one family.

    Args:
        p_values: None where a test could not be made; it stays None and does not count.
        method: "holm" controls the chance of any false finding (Holm 1979), under any dependence; "bh" the expected
            share of false findings (Benjamini and Hochberg 1995), under independence or positive dependence.
    """
    known = [place for place, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    if len(known) == 1:
        adjusted[known[0]] = p_values[known[0]]  # nothing to adjust, and nothing to import
    elif known:
        from statsmodels.stats.multitest import multipletests

        names = {"holm": "holm", "bh": "fdr_bh"}
        found = multipletests([p_values[place] for place in known], method=names[method])[1]
        for place, p in zip(known, found, strict=True):
            adjusted[place] = float(p)
    return adjusted

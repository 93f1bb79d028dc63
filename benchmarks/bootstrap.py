"""The bootstrap against a naive loop over resamples, on as many answers as CrossMed has questions.

python benchmarks/bootstrap.py [--rounds 5]

Four cases: right and wrong answers of one item per patient, the same with several items per patient, areas of masks,
and the gap between two conditions that answered the same items. Both ways start from arrays in memory: the naive one
from one array of items per patient, ours from terms summed by patient (`statistics.cluster_sums`, shown beside it).
CPU time of one process; the ways take turns; the naive loop is timed on a part of the resamples and scaled.
"""

from __future__ import annotations

import argparse
import statistics as medians
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossmed_core import statistics

ITEMS, PATIENTS, PART = 20_200, 3_000, 50
Floats = NDArray[np.float64]


class Case(NamedTuple):
    """What is resampled.

    Attributes:
        name: As printed.
        conditions: Per condition the terms of the items, shape (items, 2): the value is first sum / second sum.
        patient: Whose each item is, sorted, shape (items,).
    """

    name: str
    conditions: tuple[Floats, ...]
    patient: NDArray[np.int64]


def ratio(sums: Floats) -> Floats:
    """Return first sum / second sum for (..., 2)."""
    return sums[..., 0] / sums[..., 1]


def naive(case: Case, resamples: int, rng: np.random.Generator) -> Floats:
    """Draw patients one by one, pool their items, and take the value (or the difference) of each resample.

    As one would write it: a share is the mean of one bool array; two columns are kept only where both are needed.
    """
    _, starts = np.unique(case.patient, return_index=True)
    one_item_each = len(starts) == len(case.patient)
    columns = [
        [terms[:, 0] > 0] if (terms[:, 1] == 1).all() else [np.ascontiguousarray(one) for one in terms.T]
        for terms in case.conditions
    ]
    groups = [[np.split(one, starts[1:]) for one in condition] for condition in columns]

    def value(place: int, drawn: NDArray[np.int64]) -> float:
        if one_item_each:
            found = [one[drawn] for one in columns[place]]
        else:
            found = [np.concatenate([group[number] for number in drawn]) for group in groups[place]]
        return float(found[0].mean()) if len(found) == 1 else float(found[0].sum() / found[1].sum())

    draws = np.empty(resamples)
    for number in range(resamples):
        drawn = rng.integers(len(starts), size=len(starts))
        values = [value(place, drawn) for place in range(len(columns))]
        draws[number] = values[0] - values[1] if len(values) == 2 else values[0]
    return draws


def ours(sums: list[Floats]) -> Floats:
    """Draw with `statistics.paired_values`; all conditions from the same patients."""
    values = [draws[:, 0] for draws in statistics.paired_values([[one] for one in sums], ratio)]
    return values[0] - values[1] if len(values) == 2 else values[0]


def cases(rng: np.random.Generator) -> list[Case]:
    """Return the four cases."""
    alone = np.arange(ITEMS)
    shared = np.sort(np.concatenate([np.arange(PATIENTS), rng.integers(PATIENTS, size=ITEMS - PATIENTS)]))

    def answers(share: float) -> Floats:
        return np.stack([rng.random(ITEMS) < share, np.ones(ITEMS)], axis=-1).astype(float)

    union = rng.integers(500, 60_000, ITEMS).astype(float)
    areas = np.stack([np.floor(union * rng.beta(6, 3, ITEMS)), union], axis=-1)
    return [
        Case("0/1, one item per patient", (answers(0.62),), alone),
        Case("0/1, items of patients", (answers(0.62),), shared),
        Case("areas of masks", (areas,), shared),
        Case("gap of two, 0/1", (answers(0.62), answers(0.55)), shared),
    ]


def timed(work: Callable[[], Floats]) -> tuple[float, Floats]:
    """Return CPU seconds and the result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def main() -> None:
    """Print medians, ratios and both intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is timed")
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    part = statistics.RESAMPLES // PART
    print(f"{ITEMS} items, {statistics.RESAMPLES} resamples; naive timed on {part} a round, scaled by {PART}")
    for case in cases(rng):
        clusters = [f"{number:06d}" for number in case.patient]
        summing, loop, fast = [], [], []
        pooled = []
        for _ in range(rounds):
            seconds, draws = timed(lambda case=case: naive(case, part, rng))
            loop.append(seconds * PART)
            pooled.append(draws)
            started = time.process_time()
            sums = [statistics.cluster_sums(terms, clusters) for terms in case.conditions]
            summing.append(time.process_time() - started)
            seconds, found = timed(lambda sums=sums: ours(sums))
            fast.append(seconds)
        slow, quick, before = (medians.median(times) for times in (loop, fast, summing))
        print(f"\n{case.name}: {len(sums[0])} patients")
        for name, seconds, draws in (("naive loop", slow, np.concatenate(pooled)), ("crossmed", quick, found)):
            low, high = statistics.percentile_interval(draws)
            print(f"  {name:10} {1000 * seconds:9.1f} ms  [{low:+.4f}, {high:+.4f}]")
        print(f"  ratio {slow / quick:.0f}, or {slow / (quick + before):.0f} with summing ({1000 * before:.1f} ms)")


if __name__ == "__main__":
    main()

"""Checks of a metric, on made-up answers."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np

from crossmed_core.contracts import AdditiveMetric, KnowsChance, Metric
from crossmed_core.images import decode_mask, encode_mask
from crossmed_core.records import MetricRecord
from crossmed_core.testing.items import items_for
from crossmed_core.types import Item, Prediction

Pairs = list[tuple[Item, Prediction]]


def _pairs(record: MetricRecord, folder: Path, *, perfect: bool = False) -> Pairs:
    rng = np.random.default_rng(0)
    pairs: Pairs = []
    for item in items_for(frozenset({record.answers}), 24, folder, part="test"):
        if item.kind == "option":
            option = item.answer if perfect else int(rng.integers(len(item.options)))
            # An answer that is certain, or one whose probabilities fall off in a drawn order.
            count = len(item.options)
            scores = np.eye(count)[option] if perfect else np.sort(rng.dirichlet(np.ones(count)))[::-1]
            shown = scores if perfect else np.roll(scores, option or 0)
            pairs.append((item, Prediction(item.id, option=option, option_scores=tuple(map(float, shown)))))
        else:
            assert item.mask is not None and item.mask.rle is not None
            truth = decode_mask(item.mask.rle)
            guess = truth if perfect else np.roll(truth, int(rng.integers(-9, 10)), axis=0)
            pairs.append((item, Prediction(item.id, mask=encode_mask(guess))))
    return pairs


def check_perfect_answers_score_best(record: MetricRecord, folder: Path) -> None:
    """All right, and certain of it, scores the best value; anything else lies within the bounds, and is worse."""
    metric: Metric = record.load()
    best, other = (metric(_pairs(record, folder, perfect=perfect)) for perfect in (True, False))
    ideal = record.low if record.lower_is_better else record.high
    assert math.isclose(best, ideal, abs_tol=1e-12), f"{record.name}: perfect answers score {best}, not {ideal}"
    assert record.low <= other <= record.high and other != best, f"{record.name}: imperfect answers score {other}"


def check_order_does_not_matter(record: MetricRecord, folder: Path) -> None:
    """The same pairs in another order score the same."""
    metric: Metric = record.load()
    pairs = _pairs(record, folder)
    mixed = random.Random(1).sample(pairs, len(pairs))
    assert math.isclose(metric(pairs), metric(mixed), abs_tol=1e-12), f"{record.name}: order matters"


def check_metric_is_pure(record: MetricRecord, folder: Path) -> None:
    """Two calls give the same number and leave the pairs alone."""
    metric: Metric = record.load()
    pairs = _pairs(record, folder)
    before = list(pairs)
    first = metric(pairs)
    assert pairs == before, f"{record.name}: the pairs were changed"
    assert metric(pairs) == first, f"{record.name}: two calls differ"


def check_terms_agree_with_the_metric(record: MetricRecord, folder: Path) -> None:
    """`value` of the summed `terms` is the metric, so that the bootstrap resamples the metric itself."""
    metric = record.load()
    if not isinstance(metric, AdditiveMetric):
        return
    pairs = _pairs(record, folder)
    terms = metric.terms(pairs)
    assert terms.shape[0] == len(pairs), f"{record.name}: terms has {terms.shape[0]} rows for {len(pairs)} pairs"
    assert math.isclose(float(metric.value(terms.sum(axis=0))), metric(pairs)), f"{record.name}: terms disagree"
    doubled = metric.value(np.stack([terms.sum(axis=0), 2 * terms.sum(axis=0)]))
    assert doubled.shape == (2,), f"{record.name}: value does not map (..., terms) to (...)"
    assert math.isclose(doubled[0], doubled[1]), f"{record.name}: every item twice scores differently"


def check_chance_lies_within_bounds(record: MetricRecord, folder: Path) -> None:
    """Chance, where known, lies between the record's bounds and below perfection."""
    metric = record.load()
    if isinstance(metric, KnowsChance):
        chance = metric.chance([item for item, _ in _pairs(record, folder)])
        best = record.low if record.lower_is_better else record.high
        assert record.low <= chance <= record.high and chance != best, f"{record.name}: chance is {chance}"


CHECKS = (
    check_perfect_answers_score_best,
    check_order_does_not_matter,
    check_metric_is_pure,
    check_terms_agree_with_the_metric,
    check_chance_lies_within_bounds,
)

"""Gaps: relative to chance, tested, adjusted over targets; controls against the real answers; failures bounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from crossmed_core.gaps import Gap, gap, gaps
from crossmed_core.scoring import Answers, score, with_probabilities
from crossmed_core.types import MAT, ImageRef, Item, Prediction
from crossmed_plugins.metrics import option

CELL = MAT("ct", "chest", "finding")


def answers(right: np.ndarray, split: str = "related", *, target: MAT = CELL, seed: int = 0, **more: object) -> Answers:
    pairs = []
    for n, ok in enumerate(right):
        item = Item(f"i{n:05d}", "d", target, f"p{n:05d}", "test", ImageRef("/x"), "?", ("a", "b", "c", "d"), 0, "a")
        pairs.append((item, Prediction(item.id, option=0 if ok else 1)))
    return replace(Answers("m", split, str(target), seed, pairs), **more)  # type: ignore[arg-type]


def compared(first: np.ndarray, second: np.ndarray) -> Gap:
    found = gap([answers(first)], [answers(second, "x")], "accuracy", option.accuracy)
    assert found is not None
    return found


def test_share_lost_by_hand() -> None:
    # .85 against .40 with a chance of .25: .45 of the .60 above chance are lost.
    found = compared(np.arange(200) < 170, np.arange(200) < 80)
    assert found.value == pytest.approx(0.45) and found.relative == pytest.approx(0.75)
    assert found.relative_low is not None and found.relative_high is not None
    assert found.relative_low < 0.75 < found.relative_high < 1
    at_chance = compared(np.arange(200) < 50, np.arange(200) < 40)
    assert at_chance.relative is None, "nothing above chance, nothing to lose"


def test_p_of_one_seed_is_that_of_the_sign_test_of_the_discordant() -> None:
    # One item per patient: swapping patients is the exact sign test (McNemar) of the items that only one has right.
    first, second = np.arange(100) < 60, (np.arange(100) < 52) | (np.arange(100) >= 97)
    exact = binomtest(8, 11).pvalue
    assert compared(first, second).p == pytest.approx(exact, abs=0.015)
    assert compared(first, first).p == 1.0


def test_detectable_difference_is_of_the_gaps_own_error() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(400) < 0.7, rng.random(400) < 0.5
    found = compared(first, second)
    per_item = (first.astype(float) - second).std(ddof=1) / 20
    assert found.mde == pytest.approx((1.959964 + 0.841621) * per_item, rel=0.03)


def test_several_seeds_test_what_their_interval_says() -> None:
    rng = np.random.default_rng(1)
    for level in (0.5, 0.56, 0.6, 0.7):
        first = [answers(rng.random(300) < level + rng.normal(0, 0.02), seed=s) for s in range(4)]
        second = [answers(rng.random(300) < 0.5 + rng.normal(0, 0.02), "x", seed=s) for s in range(4)]
        found = gap(first, second, "accuracy", option.accuracy)
        assert found is not None and found.p is not None and found.seeds == (0, 1, 2, 3)
        away = found.low > 0 or found.high < 0
        assert away == (found.p < 0.05) or abs(found.p - 0.05) < 0.01


def test_families_are_the_targets_and_small_cells_are_not_ranked() -> None:
    cells = [MAT("ct", place, "finding") for place in ("chest", "brain", "knee")]
    rng = np.random.default_rng(2)
    trials = []
    for cell, level in zip(cells, (0.62, 0.60, 0.9), strict=True):
        n = 20 if cell.anatomy == "knee" else 300
        trials += [
            answers(rng.random(n) < level, target=cell),
            answers(rng.random(n) < 0.5, "zero-overlap", target=cell),
        ]
    found = {one.target: one for one in gaps(trials, {"accuracy": option.accuracy}, [("related", "zero-overlap")])}
    big = [found[str(cell)] for cell in cells[:2]]
    small = found[str(cells[2])]
    assert small.small and small.p_holm is None and small.q_bh is None and small.p is not None
    low, high = sorted(one.p or 0 for one in big)
    assert sorted(one.p_holm or 0 for one in big) == pytest.approx([2 * low, max(2 * low, high)])
    assert sorted(one.q_bh or 0 for one in big) == pytest.approx([min(2 * low, high), high])


def test_controls_and_fractions_are_compared_with_their_own() -> None:
    real = np.arange(100) < 80
    trials = [
        answers(real),
        answers(np.arange(100) < 25, variant="control:blank-image"),
        answers(np.arange(100) < 30, variant="baseline:majority"),
        answers(np.arange(100) < 50, "direction:ct/brain/finding"),
        answers(np.arange(100) < 60, fraction=0.5),
        answers(np.arange(100) < 45, "direction:ct/brain/finding", fraction=0.5),
    ]
    found = gaps(trials, {"accuracy": option.accuracy}, [("related", "direction")])
    assert {(one.first, one.second, one.variant, one.fraction, round(one.value, 2)) for one in found} == {
        ("related", "related", "control:blank-image", 1.0, 0.55),
        ("related", "direction:ct/brain/finding", "", 1.0, 0.3),
        ("related", "direction:ct/brain/finding", "", 0.5, 0.15),
    }


def test_failures_are_counted_by_kind_and_bounded() -> None:
    base = answers(np.arange(100) < 60)
    kinds = ["unparsed"] * 6 + ["refused"] * 3 + ["error"]
    pairs = [
        (item, Prediction(item.id, error="no", failure=kinds[n]) if n < 10 else prediction)  # type: ignore[arg-type]
        for n, (item, prediction) in enumerate(base.pairs)
    ]
    one = score([replace(base, pairs=pairs)], "accuracy", option.accuracy, proportion=True)
    assert (one.unscored, one.unparsed, one.refused, one.n) == (10, 6, 3, 90)
    assert one.value == pytest.approx(50 / 90)
    assert (one.worst, one.optimum) == (pytest.approx(0.5), pytest.approx(0.6))
    whole = score([base], "accuracy", option.accuracy, proportion=True)
    assert whole.worst is None and whole.optimum is None, "nothing is missing, nothing to bound"


def test_answers_without_probabilities_do_not_count_where_they_are_needed() -> None:
    base = answers(np.arange(10) < 5)
    pairs = [
        (item, replace(p, option_scores=(0.7, 0.1, 0.1, 0.1)) if n % 2 else p) for n, (item, p) in enumerate(base.pairs)
    ]
    kept = with_probabilities(replace(base, pairs=pairs))
    assert len(kept.scored()) == 5 and len(kept.pairs) == 10


def test_a_share_lost_is_the_ratio_of_the_means() -> None:
    # Two seeds: .45 and .85 against .30 and .40, chance .25: .30 of .40 above chance on average.
    first = [answers(np.arange(200) < n, seed=s) for s, n in enumerate((90, 170))]
    second = [answers(np.arange(200) < n, "x", seed=s) for s, n in enumerate((60, 80))]
    found = gap(first, second, "accuracy", option.accuracy)
    assert found is not None
    assert found.relative is None, "two seeds so far apart do not show that the first is above chance"
    many = [answers(np.arange(200) < n, seed=s) for s, n in enumerate((150, 160, 170, 155, 165))]
    few = [answers(np.arange(200) < n, "x", seed=s) for s, n in enumerate((90, 80, 70, 60, 100))]
    found = gap(many, few, "accuracy", option.accuracy)
    assert found is not None and found.relative == pytest.approx((0.8 - 0.4) / (0.8 - 0.25))


def test_the_interval_of_a_share_lost_covers() -> None:
    rng = np.random.default_rng(3)
    covered, trials, true = 0, 120, (0.7 - 0.45) / (0.7 - 0.25)
    for _ in range(trials):
        found = compared(rng.random(250) < 0.7, rng.random(250) < 0.45)
        assert found.relative_low is not None and found.relative_high is not None
        covered += found.relative_low <= true <= found.relative_high
    assert covered / trials >= 0.88


def test_one_patient_has_values_and_nothing_that_rests_on_patients() -> None:
    def alone(one: Answers) -> Answers:
        return replace(one, pairs=[(replace(item, patient="p"), p) for item, p in one.pairs])

    for seeds in (1, 3):
        first = [alone(answers(np.arange(20) < 15, seed=s)) for s in range(seeds)]
        second = [alone(answers(np.arange(20) < 5, "x", seed=s)) for s in range(seeds)]
        found = gap(first, second, "accuracy", option.accuracy)
        assert found is not None and found.value == 0.5 and found.small
        assert (found.low, found.high, found.p, found.mde, found.relative) == (None,) * 5


def test_a_metric_that_is_no_sum_takes_several_seeds() -> None:
    def first_letter(pairs: object) -> float:
        return float(np.mean([p.option == 0 for _, p in pairs]))  # type: ignore[attr-defined]

    runs = [answers(np.random.default_rng(s).random(100) < 0.6, seed=s) for s in range(3)]
    one = score(runs, "first-letter", first_letter)
    assert one.low is not None and one.high is not None and one.low < (one.value or 0) < one.high


def test_bounds_bracket_the_value_where_seeds_fail_on_other_items() -> None:
    base = [answers(np.arange(200) < 100, seed=s) for s in (0, 1)]
    lost = [range(100, 150), range(150, 200)]  # each seed fails on 50 that the other has wrong
    runs = [
        replace(one, pairs=[(i, Prediction(i.id, error="x") if n in gone else p) for n, (i, p) in enumerate(one.pairs)])
        for one, gone in zip(base, lost, strict=True)
    ]
    found = score(runs, "accuracy", option.accuracy, proportion=True)
    assert (found.value, found.n, found.unscored) == (1.0, 100, 100)
    assert (found.worst, found.optimum) == (0.5, 1.0)


def test_controls_at_chance_are_seldom_lit_and_others_are() -> None:
    from crossmed_core.scoring import tested_against_chance

    rng = np.random.default_rng(4)
    lit = 0
    for _ in range(60):
        trials = [answers(rng.random(200) < 0.25, variant=f"control:c{n}") for n in range(20)]
        scores = [score([one], "accuracy", option.accuracy, proportion=True) for one in trials]
        lit += any((one.p_chance or 1) < 0.05 for one in tested_against_chance(scores))
    assert lit <= 9, "5 % of runs, not 5 % of controls"
    real = score([answers(np.arange(200) < 90)], "accuracy", option.accuracy, proportion=True)
    leak = replace(real, variant="control:text-only")
    words = replace(real, variant="control:wrong-mat")
    found = tested_against_chance([real, leak, words])
    assert [one.p_chance is not None and one.p_chance < 0.001 for one in found] == [False, True, False]
    assert tested_against_chance([leak], {"accuracy"})[0].p_chance is None, "an error rate has no such test"

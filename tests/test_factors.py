"""The factor analysis against hand-worked contrasts, an independent fit, and simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from crossmed_core import factors
from crossmed_core.factors import FACTORS, TERMS, Observation, analyse

CORNERS = list(product((0.0, 1.0), repeat=3))


def factorial(values, target="t", seed=0):
    return [
        Observation(target, seed, "s", *corner, value=float(value))
        for corner, value in zip(CORNERS, values, strict=True)
    ]


def contrast(values: np.ndarray, term: tuple[str, ...]) -> float:
    """By hand: a main effect is mean(with) - mean(without), an interaction the difference of such differences."""
    table = np.asarray(values, dtype=float).reshape(2, 2, 2)
    others = tuple(axis for axis, name in enumerate(FACTORS) if name not in term)
    kept = table.mean(axis=others)
    for _ in term:
        kept = kept[1] - kept[0]
    return float(kept)


def test_a_worked_example() -> None:
    # modality 0, 1 | anatomy 0, 1 | task 0, 1 in this order: sharing the modality adds .2, with the anatomy .1 more.
    values = [0.30, 0.30, 0.30, 0.30, 0.50, 0.50, 0.60, 0.60]
    found = analyse([*factorial(values), *factorial(values, seed=1)])
    effects = {one.name: one.value for one in found.effects}
    assert effects["modality"] == pytest.approx(0.25) and effects["anatomy"] == pytest.approx(0.05)
    assert effects["task"] == pytest.approx(0, abs=1e-12) and effects["modality x anatomy"] == pytest.approx(0.10)
    assert found.r_squared == pytest.approx(1) and found.left_out == {} and found.observations == 16


def test_a_balanced_factorial_equals_hand_contrasts() -> None:
    rng = np.random.default_rng(0)
    tables = {f"t{g}": rng.random(8) for g in range(5)}
    found = analyse([row for target, values in tables.items() for row in factorial(values, target)])
    assert [one.factors for one in found.effects] == list(TERMS)
    mean = np.mean(list(tables.values()), axis=0)
    for one in found.effects:
        assert one.value == pytest.approx(contrast(mean, one.factors)), one.name
        # What clustering by target estimates here: the spread of the targets' own contrasts, widened for few trials.
        own = np.array([contrast(values, one.factors) for values in tables.values()])
        trials, fitted = 40, 5 + 7
        error = own.std(ddof=1) / np.sqrt(5) * np.sqrt((trials - 1) / (trials - fitted))
        assert (one.high - one.low) / 2 == pytest.approx(2.7764451 * error), "t with 4 degrees of freedom"
    assert "4 degrees of freedom" in found.errors


def test_two_targets_are_an_ordinary_regression() -> None:
    rng = np.random.default_rng(1)
    rows = [row for g in range(2) for seed in range(2) for row in factorial(rng.random(8), f"t{g}", seed)]
    found = analyse(rows)
    # By hand: in a balanced +-1/2 design every effect has variance s² / sum(x²), x the product of the codes.
    coded = {n: np.array([getattr(r, n) for r in rows]) - 0.5 for n in FACTORS}
    columns = [np.array([float(r.target == t) for r in rows]) for t in ("t0", "t1")]
    columns += [np.prod([coded[n] for n in term], axis=0) for term in TERMS]
    X, y = np.stack(columns, axis=1), np.array([r.value for r in rows])
    beta = np.linalg.solve(X.T @ X, X.T @ y)
    s2 = np.sum((y - X @ beta) ** 2) / (32 - 9)
    for place, one in enumerate(found.effects, start=2):
        half = 2.0686576 * np.sqrt(s2 * np.linalg.inv(X.T @ X)[place, place])  # t(23)
        assert (one.low, one.high) == pytest.approx((beta[place] - half, beta[place] + half)), one.name
    within = y - np.where(X[:, 0] == 1, y[X[:, 0] == 1].mean(), y[X[:, 1] == 1].mean())
    assert found.r_squared == pytest.approx(1 - np.sum((y - X @ beta) ** 2) / np.sum(within**2))
    assert "these targets only" in found.errors


def test_p_belongs_to_the_interval_and_holm_to_all_effects() -> None:
    rng = np.random.default_rng(2)
    rows = [r for g in range(4) for r in factorial(0.15 * np.array(CORNERS)[:, 0] + rng.normal(0, 0.05, 8), f"t{g}")]
    found = analyse(rows)
    for one in found.effects:
        assert (one.p < 0.05) == (one.low > 0 or one.high < 0), one.name
    smallest = min(found.effects, key=lambda one: one.p)
    assert smallest.p_holm == pytest.approx(min(1, 7 * smallest.p))


@pytest.mark.parametrize(("targets", "drop"), [(8, 0.0), (6, 0.25)])
def test_coverage_with_slopes_of_their_own_per_target(
    targets: int, drop: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # statsmodels collects garbage in every correction, a tenth of a second each; no correction is looked at here.
    monkeypatch.setattr(factors, "adjust", lambda values, method: list(values))
    rng = np.random.default_rng(3)
    true = np.array([0.2, 0.1, 0.05])
    covered, trials = np.zeros(3), 250
    for _ in range(trials):
        rows = []
        for g in range(targets):
            slopes, level = true + rng.normal(0, 0.1, 3), rng.normal(0.5, 0.1)
            values = level + (np.array(CORNERS) - 0.5) @ slopes + rng.normal(0, 0.03, 8)
            rows += [row for row in factorial(values, f"t{g}") if rng.random() >= drop]
        effects = {one.factors: one for one in analyse(rows).effects}
        covered += [
            effects[(name,)].low <= value <= effects[(name,)].high for name, value in zip(FACTORS, true, strict=True)
        ]
    # 750 intervals, three of a trial on the same data: an error of about 1 point. Were trials taken to be independent,
    # the standard errors would be 0.63 of what they should be (8 targets), and 78 % covered.
    assert 0.92 <= covered.sum() / (3 * trials) <= 0.98


def test_an_unbalanced_design_is_unbiased_where_it_has_no_noise() -> None:
    rng = np.random.default_rng(4)
    rows = []
    for g in range(5):
        for corner in CORNERS:
            shares = np.clip(np.array(corner) + rng.uniform(-0.3, 0.3, 3), 0, 1)
            m, a, t = shares - 0.5
            for seed in range(int(rng.integers(0, 4))):
                value = 0.5 + 0.1 * g + 0.3 * m - 0.1 * a + 0.05 * t + 0.2 * m * a
                rows.append(Observation(f"t{g}", seed, "s", *map(float, shares), value=float(value)))
    effects = {one.name: one.value for one in analyse(rows).effects}
    assert effects["modality"] == pytest.approx(0.3) and effects["anatomy"] == pytest.approx(-0.1)
    assert effects["task"] == pytest.approx(0.05) and effects["modality x anatomy"] == pytest.approx(0.2)
    assert effects["modality x anatomy x task"] == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_told_is_named() -> None:
    rng = np.random.default_rng(5)
    # related (modality and anatomy) against zero-overlap: the two factors always come together, the task never.
    rows = [
        Observation(f"t{g}", seed, "s", on, on, 0.0, value=float(rng.random()))
        for g in range(3)
        for seed in range(2)
        for on in (0.0, 1.0)
    ]
    found = analyse(rows)
    assert [one.name for one in found.effects] == ["modality"]
    assert "cannot tell it from the other effects" in found.left_out["anatomy"]
    assert found.left_out["task"] == "all trials share the task alike"
    assert set(found.left_out) == {" x ".join(term) for term in TERMS} - {"modality"}
    few = analyse(factorial(rng.random(8)))
    assert few.left_out == {"modality x anatomy x task": "there are too few trials"}


def test_targets_that_tell_nothing_do_not_count() -> None:
    # One target varies, the others have one trial each: clustering over three would call its noise certain (p < 1e-20).
    rng = np.random.default_rng(6)
    rows = [*factorial(rng.random(8), "a"), *factorial(rng.random(8), "a", 1)]
    alone = analyse(rows)
    single = [Observation(name, 0, "s", 1.0, 0.0, 0.0, value=0.9) for name in ("y", "z")]
    assert analyse([*rows, *single]) == alone and alone.targets == 1
    assert min(one.p for one in alone.effects) > 1e-4
    # The others vary in the task alone: they tell nothing of the modality.
    task = [
        Observation(name, s, "s", 0.0, 0.0, t, float(rng.random())) for name in "yz" for s in (0, 1) for t in (0, 1)
    ]
    found = analyse([*rows, *task])
    assert found.targets == 3 and "these targets only" in found.errors
    assert min(one.p for one in found.effects) > 1e-4


def test_nothing_to_explain_is_an_error() -> None:
    with pytest.raises(ValueError, match="two trials of the same target"):
        analyse([Observation("a", 0, "s", 1, 0, 0, 0.5), Observation("b", 0, "s", 0, 0, 0, 0.4)])
    with pytest.raises(ValueError, match="nothing to explain"):
        analyse([*factorial([1.0] * 8, "a"), *factorial([0.7] * 8, "b")])

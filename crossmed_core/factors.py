"""Factor analysis: what sharing modality, anatomy and task with the target is worth, over many targets and conditions.

Each trial is one observation: its score, and for each factor the share of its training items that share it with the
target. With the split `sharing:...` those shares are 0 or 1 and the conditions of a target are a full factorial. Shares
are coded from -1/2 (none) to +1/2 (all), so that a main effect is the difference between sharing and not sharing,
averaged over the other two factors, and an interaction the difference of such differences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from crossmed_core.comparison import adjust
from crossmed_core.statistics import LEVEL, Floats

FACTORS = ("modality", "anatomy", "task")
TERMS = tuple(chosen for size in (1, 2, 3) for chosen in combinations(FACTORS, size))
"""Main effects, two-way interactions, the three-way one."""
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Observation:
    """One trial.

    Attributes:
        target: The tested cell.
        seed: Training seed.
        split: The condition.
        modality: Share of training items that share the target's modality, 0 to 1.
        anatomy: Likewise its anatomy.
        task: Likewise its task.
        value: The score.
    """

    target: str
    seed: int
    split: str
    modality: float
    anatomy: float
    task: float
    value: float


@dataclass(frozen=True)
class Effect:
    """One effect on the score.

    Attributes:
        factors: One factor: its main effect. Several: their interaction.
        value: In units of the score.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided p-value of no effect.
        p_holm: Adjusted by Holm over all effects.
    """

    factors: tuple[str, ...]
    value: float
    low: float
    high: float
    p: float
    p_holm: float | None = None

    @property
    def name(self) -> str:
        """Its factors as text, e.g. "modality x task"."""
        return " x ".join(self.factors)


@dataclass(frozen=True)
class FactorAnalysis:
    """The effects that the trials can tell apart.

    Attributes:
        effects: Main effects first.
        left_out: Term -> why it cannot be told.
        observations: Trials; those of a target that has only one are left out.
        targets: Distinct targets among them.
        errors: How the standard errors were made.
        r_squared: Share of the variance within targets that the effects explain, 0 to 1.
    """

    effects: tuple[Effect, ...]
    left_out: dict[str, str]
    observations: int
    targets: int
    errors: str
    r_squared: float


def analyse(rows: Sequence[Observation]) -> FactorAnalysis:
    """Fit the effects by ordinary least squares, with a level of its own for each target.

    Standard errors are clustered by target, with Student's t of one degree of freedom less than there are targets that
    tell the effect: the interval speaks of new targets. If fewer than three tell one of the effects, trials count as
    independent and alike in variance: it then speaks of these targets only. A target with a single trial tells nothing,
    as its own level takes it up, and is left out.

    Args:
        rows: One per trial.

    Raises:
        ValueError: With fewer than two trials of one target, or scores that vary within none.
    """
    trials = Counter(row.target for row in rows)
    rows = [row for row in rows if trials[row.target] > 1]
    if not rows:
        raise ValueError("a factor analysis needs at least two trials of the same target")
    import statsmodels.api as sm  # pandas and all: only needed here

    targets = sorted({row.target for row in rows})
    levels = np.array([[float(row.target == target) for target in targets] for row in rows])
    values = np.array([row.value for row in rows])
    within = values - levels @ np.linalg.lstsq(levels, values, rcond=None)[0]
    if np.max(np.abs(within)) < _ROUNDING:
        raise ValueError("the score is the same in all trials of a target, so there is nothing to explain")
    shares = {name: np.array([getattr(row, name) for row in rows]) - 0.5 for name in FACTORS}
    columns: list[Floats] = [levels]
    kept: list[tuple[str, ...]] = []
    left_out: dict[str, str] = {}
    for term in TERMS:
        column = np.prod([shares[name] for name in term], axis=0)[:, None]
        if np.linalg.matrix_rank(np.hstack([*columns, column])) <= np.hstack(columns).shape[1]:
            left_out[" x ".join(term)] = _why(term, shares)
        elif np.hstack(columns).shape[1] + 1 >= len(rows):
            left_out[" x ".join(term)] = "there are too few trials"
        else:
            columns.append(column)
            kept.append(term)
    design = np.hstack(columns)
    telling = [_telling(design, place, levels) for place in range(len(targets), design.shape[1])]
    model = sm.OLS(values, design)
    if telling and min(telling) >= 3:
        numbers = np.array([targets.index(row.target) for row in rows])
        fit = model.fit(cov_type="cluster", cov_kwds={"groups": numbers, "df_correction": True}, use_t=True)
        freedom = [count - 1 for count in telling]
        some = f"{min(freedom)}" if min(freedom) == max(freedom) else f"{min(freedom)} to {max(freedom)}"
        errors = f"clustered by target, t with {some} degrees of freedom"
    else:
        fit = model.fit()
        freedom = [int(fit.df_resid)] * len(kept)
        errors = "of independent trials; fewer than three targets tell some effect, so they speak of these targets only"
    effects = [
        _effect(term, float(fit.params[place]), float(fit.bse[place]), df)
        for place, (term, df) in enumerate(zip(kept, freedom, strict=True), start=len(targets))
    ]
    adjusted = adjust([one.p for one in effects], "holm")
    effects = [replace(one, p_holm=p) for one, p in zip(effects, adjusted, strict=True)]
    explained = 1 - float(np.sum(fit.resid**2)) / float(np.sum(within**2))
    return FactorAnalysis(tuple(effects), left_out, len(rows), len(targets), errors, explained)


def _telling(design: Floats, place: int, levels: Floats) -> int:
    """Return in how many targets a column varies beyond what the other columns explain: those that tell its effect."""
    others = np.delete(design, place, axis=1)
    own = design[:, place] - others @ np.linalg.lstsq(others, design[:, place], rcond=None)[0]
    shares = levels.T @ own**2
    return int(np.sum(shares > 1e-6 * np.sum(shares)))


def _effect(term: tuple[str, ...], value: float, error: float, freedom: int) -> Effect:
    from scipy.stats import t

    if error < _ROUNDING:  # the fit is perfect: only rounding errors are left
        return Effect(term, value, value, value, 1.0 if abs(value) < _ROUNDING else 0.0)
    reach = float(t.ppf((1 + LEVEL) / 2, freedom)) * error
    return Effect(term, value, value - reach, value + reach, float(2 * t.sf(abs(value) / error, freedom)))


def _why(term: Sequence[str], shares: dict[str, Floats]) -> str:
    constant = [name for name in term if np.ptp(shares[name]) == 0]
    if constant:
        return f"all trials share the {constant[0]} alike"
    return "these conditions cannot tell it from the other effects and the targets' own levels"

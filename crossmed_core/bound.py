"""A two-factor bound of our own, and how often it holds.

CrossMed (arXiv 2511.11034) states a "Two-Factor Generalization Bound" (Theorem 1): the risk of a model trained on n
i.i.d. samples that share two factors with the test instance is bounded by its risk on them plus a term in n and delta.
The equations are not in the sources that we have. Ours is another statement, in full:

Let a model be fixed. Let n patients of the *training cells* be drawn independently of everything that shaped the model
(no training, no stopping, no choice of settings looked at them), and let L_i in [0, 1] be the mean loss over the items
of patient i (loss: 1 for a wrong option, 0 for a right one; 1 - IoU for a mask). Then with probability 1 - delta

    R_seen <= mean(L_i) + sqrt(ln(1 / delta) / (2 n))                                     (Hoeffding 1963)

where R_seen is the expected L of a new patient of those cells. The *target* enters only by an assumption:

    R_target <= R_seen            the factor that was never seen together with the other two costs nothing.

That assumption is what compositional generalization means, and it may well fail: nothing in the seen cells can tell. A
bound without it would need a term for the distance between seen and target cells. So what is worth reporting is how
often R_target stays below the bound, and by how much it does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np

from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import decode_mask
from crossmed_core.scoring import Answers, Pairs, patient_of
from crossmed_core.types import Item, Prediction

DELTA = 0.05


@dataclass(frozen=True)
class Bound:
    """A bound on the risk over seen cells.

    Attributes:
        empirical: Mean loss over patients, 0 to 1.
        epsilon: What Hoeffding's inequality adds.
        value: Their sum; above 1 it says nothing.
        n: Patients.
        delta: The chance that the risk on the seen cells lies above it, at most.
    """

    empirical: float
    epsilon: float
    value: float
    n: int
    delta: float


def hoeffding(losses: Sequence[float], delta: float = DELTA) -> Bound:
    """Bound the expected loss of a new patient.

    Args:
        losses: Mean loss of each patient, in [0, 1].
        delta: In (0, 1).

    Raises:
        ValueError: Without patients, or for a loss or delta out of range.
    """
    if not losses or not all(0 <= loss <= 1 for loss in losses) or not 0 < delta < 1:
        raise ValueError("Hoeffding's inequality needs losses in [0, 1] and delta in (0, 1)")
    empirical = float(np.mean(losses))
    epsilon = sqrt(log(1 / delta) / (2 * len(losses)))
    return Bound(empirical, epsilon, empirical + epsilon, len(losses), delta)


def losses(pairs: Pairs) -> list[float]:
    """Return the mean loss of each patient, patients in sorted order; an answer that failed is a loss of 1."""
    of_patient: dict[str, list[float]] = {}
    for item, prediction in pairs:
        of_patient.setdefault(patient_of(item), []).append(loss(item, prediction))
    return [float(np.mean(of_patient[name])) for name in sorted(of_patient)]


def loss(item: Item, prediction: Prediction) -> float:
    """Return the loss of one answer, 0 to 1: of an option 0 or 1, of a mask 1 - IoU, and 1 if there is no answer.

    A mask of another size than the truth, or one that cannot be decoded, is a loss of 1.
    """
    if not prediction.scored:
        return 1.0
    if item.options:
        return float(prediction.option != item.answer)
    if item.mask is None or item.mask.rle is None or prediction.mask is None:
        return 1.0
    try:
        truth, found = decode_mask(item.mask.rle), decode_mask(prediction.mask)
    except UnreadableImageError:
        return 1.0
    if truth.shape != found.shape:
        return 1.0
    union = np.count_nonzero(truth | found)
    return 1 - np.count_nonzero(truth & found) / union if union else 0.0


@dataclass(frozen=True)
class BoundCheck:
    """The bound of one trial and what the target made of it.

    Attributes:
        model: Model name.
        split: Split name.
        target: The target cell.
        seed: Training seed.
        fraction: Share of the training size.
        bound: Of the seen cells.
        risk: Mean loss over the target's test patients.
        patients: Their number.
        held: Whether the risk lies at or below the bound.
    """

    model: str
    split: str
    target: str
    seed: int
    fraction: float
    bound: Bound
    risk: float
    patients: int
    held: bool


def check_bounds(answers: Iterable[Answers], delta: float = DELTA) -> list[BoundCheck]:
    """Hold the bound of every trial that was asked about seen cells against its target."""
    found = list(answers)
    real: Mapping[tuple[object, ...], Answers] = {
        (*one.condition._replace(variant=""), one.seed): one for one in found if not one.variant
    }
    checks = []
    for one in found:
        target = real.get((*one.condition._replace(variant=""), one.seed))
        if one.variant != "seen" or target is None or not target.pairs:
            continue
        bound = hoeffding(losses(one.pairs), delta)
        on_target = losses(target.pairs)
        risk = float(np.mean(on_target))
        checks.append(
            BoundCheck(
                one.model, one.split, one.target, one.seed, one.fraction, bound, risk, len(on_target),
                risk <= bound.value,
            )
        )  # fmt: skip
    return checks


def share_held(checks: Sequence[BoundCheck]) -> tuple[int, int, float, float]:
    """Return how many bounds held, of how many, and the 95 % Clopper-Pearson interval of the share.

    Trials of one study share test patients, so they are not independent: the interval is a guide.
    """
    from scipy.stats import binomtest

    held = sum(check.held for check in checks)
    if not checks:
        return 0, 0, 0.0, 1.0
    ends = binomtest(held, len(checks)).proportion_ci(0.95, method="exact")
    return held, len(checks), float(ends.low), float(ends.high)

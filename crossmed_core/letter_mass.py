"""How much probability a language model gave to the option letters at all, before it was shared among them.

Where it is low, the model was about to say something else: the prompt does not suit it, and the letters' order says
little.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossmed_core import statistics
from crossmed_core.scoring import Answers, patient_of, score_of_terms
from crossmed_core.types import Score

LETTER_MASS = "letter-mass"

LOW = 0.5
"""A mean below this is pointed out: more often than not, no letter would have been said."""


def mass_scores(answers: Sequence[Answers]) -> list[Score]:
    """Score a condition by the mean probability on the letters.

    Args:
        answers: The trials of one condition, one per seed.

    Returns:
        One score over the items for which every seed knows it; none if there are none.
    """
    ordered = sorted(answers, key=lambda one: one.seed)
    masses = [
        {item.id: prediction.letter_mass for item, prediction in one.pairs if prediction.letter_mass is not None}
        for one in ordered
    ]
    common = sorted(set.intersection(*(set(one) for one in masses)))
    if not common:
        return []
    items = {item.id: item for item, _ in ordered[0].pairs}
    clusters = [patient_of(items[name]) for name in common]
    terms = [np.array([[float(one[name]), 1.0] for name in common]) for one in masses]

    def value(sums: statistics.Floats) -> statistics.Floats:
        mean: statistics.Floats = sums[..., 0] / sums[..., 1]
        return mean

    return [score_of_terms(ordered, LETTER_MASS, terms, value, clusters)]

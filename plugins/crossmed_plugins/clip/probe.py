"""A linear layer on frozen features, by logistic regression over each item's own options.

The problem is convex, so it is solved rather than trained: L-BFGS to convergence on features that are computed once,
with the strength of the L2 penalty chosen by the loss of the validation items (Radford et al. 2021, arXiv 2103.00020,
appendix A.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from crossmed_core.contracts import LogStep
from crossmed_core.training.options import choice_loss
from crossmed_core.types import Item

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
"""Inverse penalties (scikit-learn's C), on features of length 1."""
UNTUNED = 30.0
"""Where no validation item tells: what OpenAI's example uses, 0.316, on features about ten times as long."""
ITERATIONS = 500


@dataclass(frozen=True)
class Features:
    """Items as the linear layer sees them.

    Attributes:
        items: The items.
        values: float64 (pictures, width), each of length 1.
        pictures: int64 (items, most options): the picture of each option.
        labels: int64, the same shape: the layer's output for each option; -1 = never trained on, or padding.
    """

    items: Sequence[Item]
    values: torch.Tensor
    pictures: torch.Tensor
    labels: torch.Tensor

    @property
    def teaches(self) -> bool:
        """Whether any item offers its true option and another one that was trained on."""
        known = self.labels >= 0
        right = torch.tensor([item.answer for item in self.items])
        return bool((known.gather(1, right[:, None])[:, 0] & (known.sum(dim=1) >= 2)).any())

    def loss(self, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy over each item's own options."""
        logits = option_logits(self.values @ weight.T + bias, self.pictures, self.labels)
        return choice_loss(logits, self.labels >= 0, self.items)


def option_logits(outputs: torch.Tensor, pictures: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Pick each option's logit from a layer's outputs (pictures, labels); meaningless where the label is -1."""
    return outputs[pictures, labels.clamp_min(0)]


def fit_probe(train: Features, val: Features | None, labels: int, log: LogStep) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit the layer for every strength, from the strongest penalty on, and keep the best.

    Args:
        train: Training items.
        val: Validation items; if none of them tells anything, the strength is `UNTUNED`.
        labels: Outputs of the layer.
        log: Told of each strength.

    Returns:
        Weight float64 (labels, width), and bias (labels,).
    """
    weight = torch.zeros(labels, train.values.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(labels, dtype=torch.float64, requires_grad=True)
    tuned = val is not None and val.teaches
    strengths = STRENGTHS if tuned else (UNTUNED,)
    least, best = float("inf"), (weight.detach().clone(), bias.detach().clone())
    for step, strength in enumerate(strengths, start=1):
        _solve(train, weight, bias, strength)
        with torch.no_grad():
            values = {"loss": float(train.loss(weight, bias))}
            if val is not None and tuned:
                values["val_loss"] = float(val.loss(weight, bias))
        log(step, len(strengths), **{name: round(value, 5) for name, value in values.items()})
        judged = values.get("val_loss", values["loss"])
        if judged < least:
            least, best = judged, (weight.detach().clone(), bias.detach().clone())
    return best


def _solve(train: Features, weight: torch.Tensor, bias: torch.Tensor, strength: float) -> None:
    optimizer: torch.optim.Optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, tolerance_grad=1e-7, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def objective() -> float:
        optimizer.zero_grad()
        penalty = weight.square().sum() / (2 * strength * len(train.items))
        total = train.loss(weight, bias) + penalty
        torch.autograd.backward([total])
        return float(total.detach())

    optimizer.step(objective)

"""From label logits to the options of an item, with honest treatment of labels that were never trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch.nn import functional

from crossmed_core.answers import choose
from crossmed_core.types import Item, Prediction


class LabelVocabulary:
    """The labels a head has outputs for: those of the training items, sorted.

    Args:
        labels: Label texts.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        self.labels = sorted(set(labels))
        self._place = {label: number for number, label in enumerate(self.labels)}

    @classmethod
    def of(cls, items: Iterable[Item]) -> LabelVocabulary:
        """Collect the true labels of option items."""
        return cls(item.label for item in items if item.kind == "option")

    def __len__(self) -> int:
        return len(self.labels)

    def indices(self, items: Sequence[Item]) -> torch.Tensor:
        """Return int64 (items, most options): the head's output of each option; -1 = never trained on, or padding."""
        width = max((len(item.options) for item in items), default=0)
        rows = [[self._place.get(option, -1) for option in item.options] for item in items]
        return torch.tensor([row + [-1] * (width - len(row)) for row in rows], dtype=torch.int64)

    def loss(self, logits: torch.Tensor, items: Sequence[Item], *, smoothing: float = 0.0) -> torch.Tensor:
        """Cross-entropy over each item's own options.

        Options that the head does not know take no part; an item that offers fewer than two known options, its true one
        among them, teaches nothing and is left out.

        Args:
            logits: (items, labels).
            items: Option items.
            smoothing: Label smoothing, spread over the item's known options.

        Returns:
            Mean over the items that teach, 0 if there are none.
        """
        places = self.indices(items).to(logits.device)
        known = places >= 0
        return choice_loss(logits.gather(1, places.clamp_min(0)), known, items, smoothing=smoothing)

    def predictions(self, logits: torch.Tensor, items: Sequence[Item], *, seed: int) -> list[Prediction]:
        """Choose among each item's own options.

        A label never trained on keeps the probability that knowing nothing gives it, 1 / options; the known ones share
        the rest by softmax. Where the best options tie (no option is known, or a single one), a coin seeded by the item
        decides and the prediction is marked as a guess: chance, and counted as such.

        Args:
            logits: (items, labels).
            items: Option items.
            seed: Seed of the coin.
        """
        places = self.indices(items)
        logits = logits.detach().float().cpu()
        found = []
        for row, item in enumerate(items):
            places_here = places[row, : len(item.options)]
            known = places_here >= 0
            shown = torch.zeros(len(item.options))
            shown[known] = logits[row, places_here[known]]
            found.append(choose(item, choice_scores(shown, known), seed=seed))
        return found


def choice_loss(
    logits: torch.Tensor, known: torch.Tensor, items: Sequence[Item], *, smoothing: float = 0.0
) -> torch.Tensor:
    """Cross-entropy over each item's own options.

    Args:
        logits: (items, most options), in each item's own order.
        known: bool, the same shape: which options take part; False for padding.
        items: Option items. One that offers fewer than two known options, its true one among them, is left out.
        smoothing: Label smoothing, spread over the item's known options.

    Returns:
        Mean over the items that teach, 0 if there are none.
    """
    answers = torch.tensor([item.answer for item in items], device=logits.device)
    teaches = known.gather(1, answers[:, None])[:, 0] & (known.sum(dim=1) >= 2)
    if not bool(teaches.any()):
        return logits.sum() * 0
    known = known[teaches]
    precise = torch.promote_types(logits.dtype, torch.float32)
    log_p = functional.log_softmax(logits[teaches].to(precise).masked_fill(~known, float("-inf")), dim=1)
    right = -log_p.gather(1, answers[teaches][:, None])[:, 0]
    even = -(log_p.masked_fill(~known, 0).sum(dim=1) / known.sum(dim=1))
    return ((1 - smoothing) * right + smoothing * even).mean()


def choice_scores(logits: torch.Tensor, known: torch.Tensor) -> list[float]:
    """Return one probability per option of an item: 1 / options where it is unknown, the rest shared by softmax.

    Args:
        logits: (options,).
        known: bool (options,).
    """
    scores = torch.full((len(known),), 1 / len(known))
    if known.any():
        scores[known] = torch.softmax(logits[known], dim=0) * (float(known.sum()) / len(known))
    found: list[float] = scores.tolist()
    return found

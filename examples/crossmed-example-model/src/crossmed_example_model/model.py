"""The heavy half: a small convolutional network. Only what is ours is here; crossmed brings loop, batches and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from crossmed_core.training.data import Batch, InputSpec
from crossmed_core.training.model import TorchModel
from crossmed_core.types import ModelSpec, Prediction


class Network(nn.Module):
    """Four strided convolutions, a 4 x 4 grid of means, one linear layer."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for out in (width, 2 * width, 4 * width, 4 * width):
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.head = nn.Linear(channels * 16, labels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map grey images (items, 1, size, size) to logits (items, labels)."""
        logits: torch.Tensor = self.head(self.features(images))
        return logits


class ExampleModel(TorchModel):
    """Says how to build the network, what its loss is, and how it answers; `TorchModel` does the rest."""

    def input_spec(self, sides: Sequence[int]) -> InputSpec:
        """Take grey images at their own size, at most 128 pixels."""
        return InputSpec(min(128, max(sides)), 1, (0.45,), (0.23,))

    def build(self, spec: InputSpec, labels: int, *, fresh: bool) -> nn.Module:
        """Make the network; there are no pretrained weights, so `fresh` makes no difference."""
        return Network(int(self.options.get("width", 16)), labels)

    def loss(self, module: nn.Module, batch: Batch, *, smoothing: float) -> torch.Tensor:
        """Cross-entropy over each item's own options."""
        return self.labels.loss(module(batch.images), batch.items, smoothing=smoothing)

    def answer(self, module: nn.Module, batch: Batch, shapes: Sequence[tuple[int, int]]) -> Iterator[Prediction]:
        """Choose among each item's own options."""
        yield from self.labels.predictions(module(batch.images), batch.items, seed=self.seed)


class ExampleFamily:
    """Loads the model (`crossmed_core.contracts.ModelFamily`)."""

    def load(self, spec: ModelSpec, *, device: str) -> ExampleModel:
        """Build the model that the command line asked for."""
        return ExampleModel(device=device, options=spec.options)

    def tiny(self, *, device: str) -> ExampleModel:
        """Build a miniature for the conformance checks."""
        return ExampleModel(device=device, options={"width": 8})

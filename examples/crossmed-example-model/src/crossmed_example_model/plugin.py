"""The light half: says what there is. crossmed imports this for every command, so it must not import torch."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import ModelRecord


@hookimpl
def crossmed_models() -> Iterator[ModelRecord]:
    """Yield one model family."""
    yield ModelRecord(
        name="example-cnn",
        summary="Example plugin: four convolutions and a linear layer",
        target="crossmed_example_model.model:ExampleFamily",
        packages=("torch", "accelerate", "safetensors"),
        extra="torch",
        answers=frozenset({"option"}),
        closed_labels=True,
        options=(("width", "channels of the first convolution (default 16)"),),
    )

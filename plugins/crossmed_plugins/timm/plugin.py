"""Registers the timm family."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import ModelRecord


@hookimpl
def crossmed_models() -> Iterator[ModelRecord]:
    """Yield one family that serves every timm name."""
    yield ModelRecord(
        name="timm",
        summary="Any timm classifier: timm:NAME, e.g. timm:convnext_tiny.in12k_ft_in1k",
        target="crossmed_plugins.timm.model:TimmFamily",
        packages=("torch", "timm", "accelerate", "safetensors"),
        extra="timm",
        answers=frozenset({"option"}),
        closed_labels=True,
        needs_spec=True,
        options=(
            ("name", "timm model name, with its tag"),
            (
                "pretrained",
                "load pretrained weights (true/false; default false: random weights, no network needed)",
            ),
            ("weights", "local weights file (safetensors or torch), instead of the hub"),
            ("size", "side of the input in pixels; default: the images' own, at most the model's"),
            ("channels", "1 (grey) or 3 (RGB); default 3"),
            (
                "pool",
                "'model' (the model's own) or 'max+grid' (max and a 2 x 2 grid of means, keeps position)",
            ),
            ("kwargs", "further keyword arguments of timm.create_model, as a table"),
        ),
    )

"""Registers the smp family."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import ModelRecord


@hookimpl
def crossmed_models() -> Iterator[ModelRecord]:
    """Yield one family that serves every architecture and encoder of smp."""
    yield ModelRecord(
        name="smp",
        summary="Any smp network: smp:ARCHITECTURE/ENCODER, e.g. smp:unet/resnet34; masks, and labels by a second head",
        target="crossmed_plugins.smp.model:SmpFamily",
        packages=("torch", "segmentation_models_pytorch", "accelerate", "safetensors"),
        extra="smp",
        answers=frozenset({"option", "mask"}),
        closed_labels=True,
        needs_spec=True,
        options=(
            ("name", "ARCHITECTURE/ENCODER"),
            (
                "pretrained",
                "ImageNet weights for the encoder (true/false; default false: random, no network needed)",
            ),
            (
                "size",
                "side of the input in pixels; default: the images' own, at most 512, rounded to the stride",
            ),
            ("channels", "1 (grey) or 3 (RGB); default 3"),
            ("auxiliary", "train a label head on the encoder from option items (true/false; default true)"),
            ("auxiliary_weight", "weight of the label loss against the mask loss; default 1.0"),
            ("kwargs", "further keyword arguments of smp.create_model, as a table"),
        ),
    )

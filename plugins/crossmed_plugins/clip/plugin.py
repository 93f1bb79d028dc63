"""Registers the clip family."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import ModelRecord


@hookimpl
def crossmed_models() -> Iterator[ModelRecord]:
    """Yield one family that serves every CLIP that open_clip can load."""
    yield ModelRecord(
        name="clip",
        summary="Any CLIP of open_clip: clip:ARCHITECTURE/TAG, clip:hf-hub:ORG/NAME or clip:./FOLDER",
        target="crossmed_plugins.clip.model:ClipFamily",
        packages=("torch", "open_clip", "accelerate", "safetensors"),
        extra="clip",
        answers=frozenset({"option"}),
        reads_text=True,
        forecast="crossmed_plugins.clip.forecast:forecast",
        zero_shot=True,
        needs_spec=True,
        options=(
            ("name", "ARCHITECTURE/TAG of open_clip, hf-hub:ORG/NAME, or a folder with open_clip_config.json"),
            ("revision", "commit, tag or branch of the hub id; default: the registry's, else the newest"),
            ("text_revision", "the same for the hub id that the text tower's configuration names, if it names one"),
            (
                "mode",
                "finetune (default), linear-probe (one layer on frozen features) or zero-shot (nothing is trained)",
            ),
            ("freeze_text", "finetune: leave the text tower as it is (true/false; default false)"),
            ("templates", "prompt or list of prompts with {modality} {anatomy} {label} {finding} {question}"),
            ("resize", "longest (default: pad, all is seen), squash (distort) or shortest (cut off, as CLIP did)"),
            (
                "margin",
                "what a crop shows around a candidate region, as a share of its box's longer side; default 0.25",
            ),
        ),
    )

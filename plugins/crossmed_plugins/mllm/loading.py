"""Loads a chat model and its processor from a folder, and says in one line why it cannot."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils.logging import disable_progress_bar

from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.types import ModelSpec
from crossmed_plugins.mllm.architectures import Architecture, bound_images, facts_of
from crossmed_plugins.mllm.checkpoint import Checkpoint, check, fetch
from crossmed_plugins.mllm.settings import Settings


@dataclass
class Loaded:
    """A model with all that belongs to it.

    Attributes:
        model: In eval mode on its device.
        processor: With padding on the left.
        architecture: Facts of it.
        model_type: As config.json names it.
        checkpoint: Where it came from.
        attention: Implementation of attention that it runs.
        adapted: peft's view of the model, once it has an adapter; the adapter's layers are in `model` itself.
    """

    model: Any
    processor: Any
    architecture: Architecture
    model_type: str
    checkpoint: Checkpoint
    attention: str
    adapted: Any = None


def load(spec: ModelSpec, settings: Settings, device: str, *, training_dtype: str = "") -> Loaded:
    """Load a model.

    Args:
        spec: Which.
        settings: Its options.
        device: "cpu" or "cuda".
        training_dtype: Dtype of the weights where it is to be trained in full; "" = as it answers.

    Raises:
        CrossmedError: If the weights cannot be had or loaded, or the processor cannot take an image.
    """
    disable_progress_bar()  # it would write over ours
    checkpoint = fetch(spec)
    config = check(checkpoint, spec)
    model_type = str(config.get("model_type"))
    architecture = facts_of(model_type)
    remote = settings.trust_remote_code
    processor = _attempt(
        spec,
        checkpoint,
        "processor",
        lambda: AutoProcessor.from_pretrained(checkpoint.folder, trust_remote_code=remote),
    )
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise CrossmedError(
            f"Model {spec.name!r}: {checkpoint.folder} has a processor for text only.",
            hint="Take an image-text model.",
            exit_code=ExitCode.ENVIRONMENT,
        )
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    attention = settings.attention or _best_attention(device)
    dtype = getattr(torch, training_dtype or settings.precision(device))

    def build() -> Any:
        return AutoModelForImageTextToText.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=remote,
            device_map={"": torch.cuda.current_device()} if device == "cuda" else None,
        )

    model = _attempt(spec, checkpoint, "model", build)
    bound_images(processor.image_processor, model.config, architecture, settings.max_pixels)
    return Loaded(model.eval(), processor, architecture, model_type, checkpoint, attention)


def _attempt(spec: ModelSpec, checkpoint: Checkpoint, what: str, action: Any) -> Any:
    try:
        return action()
    except torch.OutOfMemoryError as error:
        raise CrossmedError(
            f"Model {spec.name!r} does not fit into the device's memory.",
            hint="Choose a smaller one; 'crossmed run --dry-run' estimates what is needed.",
            exit_code=ExitCode.ENVIRONMENT,
        ) from error
    except Exception as error:  # of many kinds: unknown architecture, damaged file, missing package, other shapes
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CrossmedError(
            f"Model {spec.name!r}: its {what} cannot be loaded from {checkpoint.folder}: {reason[:300].rstrip('.')}.",
            hint=_hint(checkpoint.folder, str(error)),
            exit_code=ExitCode.ENVIRONMENT,
        ) from error


def _hint(folder: Path, reason: str) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "trust_remote_code" in reason or "auto_map" in config:
        return "It brings code of its own; to run that, pass --set trust_remote_code=true."
    if "Unrecognized configuration class" in reason or "model type" in reason:
        kind = config.get("model_type")
        return f"Its architecture {kind!r} is not an image-text chat model of this release of transformers."
    return "The folder may be incomplete, or made by a newer transformers."


def _best_attention(device: str) -> str:
    return "flash_attention_2" if device == "cuda" and importlib.util.find_spec("flash_attn") else "sdpa"

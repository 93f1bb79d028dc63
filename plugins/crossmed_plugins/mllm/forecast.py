"""What can be said of a model before it is loaded: where its weights are, how much memory and time it takes, roughly.

Memory follows from the number of weights: 2 bytes each in bfloat16, 4 in float32; a fifth more for activations and keys
and values while answering; LoRA adds 16 bytes per adapter weight (float32 weight, gradient and AdamW's two moments),
full fine-tuning takes 16 bytes per weight; activations of training come on top. Time follows from 2 floating-point
operations per weight and token (6 in training; 4 where only adapters learn), at two fifths of the device's measured
matrix rate. All of it is rough, and said to be.
"""

from __future__ import annotations

import sys
import time
from functools import cache
from typing import Any

import numpy as np

from crossmed_core.contracts import Forecast, TrainSettings
from crossmed_core.devices import memory_gib
from crossmed_core.types import ModelSpec
from crossmed_plugins.mllm.architectures import ARCHITECTURES
from crossmed_plugins.mllm.checkpoint import check, command_for, find, weights_of
from crossmed_plugins.mllm.settings import Settings

GIB = 1 << 30
TOKENS = 400
"""Tokens of an item assumed for a time: an image of 512 pixels in Qwen2-VL and a four-option question."""
ADAPTER_SHARE = 0.005
"""Adapter weights of rank 16 per weight of a 7-billion model; in proportion to the rank."""
UTILISATION = 0.4
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def forecast(spec: ModelSpec, settings: TrainSettings | None, device: str) -> Forecast:
    """Say what is known (`ModelRecord.forecast`).

    Args:
        spec: The model.
        settings: How it will be trained; None if it will not be.
        device: "cpu" or "cuda".

    Raises:
        CrossmedError: For a wrong option, or a folder that is none or incomplete.
    """
    options = Settings.of(spec.options)
    notes: list[str] = []
    found = find(spec)
    millions = spec.parameters_m
    config: dict[str, Any] = {}
    if found is None:
        where = f"not on this machine; fetched when first needed, or with: {command_for(spec)}"
        if spec.gated:
            notes.append("Gated: accept its licence on its hub page and log in with 'hf auth login' first")
    else:
        config = check(found, spec)
        where = f"{found.hub} at {found.commit[:12]}" if found.hub else str(found.folder)
        weights = weights_of(found.folder)
        if weights is None:
            notes.append("Its *.safetensors are damaged or not all there")
        else:
            millions = weights.parameters / 1e6
        kind = str(config.get("model_type"))
        if kind not in ARCHITECTURES:
            notes.append(
                f"Architecture {kind!r} is asked the plain way, without reuse: slower, and not fine-tuned here"
            )
    if spec.licence:
        notes.append(f"Licence: {spec.licence}")
    dtype = options.precision(device)
    if millions is None:
        return Forecast(where, dtype=dtype, notes=tuple(notes))
    count = millions * 1e6
    predict = 1.2 * count * _BYTES[dtype] / GIB
    train = _training_memory(count, options, settings, dtype, config) if settings else None
    available = memory_gib(device)
    problem = ""
    if count * _BYTES[dtype] / GIB > available:
        size = count * _BYTES[dtype] / GIB
        problem = f"its weights take {size:.1f} GiB in {dtype}, this {_place(device)} has {available:.1f}"
    elif max(predict, train or 0) > available:
        notes.append(f"This {_place(device)} has {available:.1f} GiB; expect it to run out of memory")
    if settings and options.tuning == "full" and settings.learning_rate > 5e-5 and count > 1e9:
        notes.append(f"learning_rate {settings.learning_rate:g} is that of adapters, high for all weights: try 1e-5")
    rate = _rate(device) * UTILISATION
    answer_ms = 1000 * 2 * count * TOKENS / rate
    passes = 3 if options.tuning == "full" else 2
    return Forecast(
        where,
        parameters_m=millions,
        dtype=dtype,
        predict_gib=predict,
        train_gib=train,
        answer_ms=answer_ms,
        train_ms=answer_ms * passes if settings else None,
        notes=tuple(notes),
        problem=problem,
    )


def _training_memory(
    count: float, options: Settings, settings: TrainSettings, dtype: str, config: dict[str, Any]
) -> float:
    """Return GiB for weights, optimizer and activations."""
    if options.tuning == "full":
        state = 16 * count
    else:
        state = count * _BYTES[dtype] + 16 * ADAPTER_SHARE * options.lora_rank / 16 * count
    text = config.get("text_config") or config
    layers, width = text.get("num_hidden_layers", 28), text.get("hidden_size", 3584)
    tokens = settings.batch_size * TOKENS
    # Per token and layer about 34 values of the hidden width are kept for the backward pass (Korthikanti et al., 2022,
    # arXiv 2205.05198), or one where activations are computed again.
    kept = (1 if options.checkpointing else 34) * _BYTES[dtype] / 2
    return float(state + tokens * layers * width * kept) / GIB


def _place(device: str) -> str:
    return "GPU" if device == "cuda" else "machine"


@cache
def _rate(device: str) -> float:
    """Measure the device's matrix rate in floating-point operations per second."""
    if device == "cuda":
        torch = sys.modules["torch"]
        one = torch.ones(4096, 4096, dtype=torch.bfloat16, device="cuda")

        def multiply() -> None:
            one @ one
            torch.cuda.synchronize()

        work = 2 * 4096**3
    else:
        square = np.ones((512, 512), np.float32)

        def multiply() -> None:
            square @ square

        work = 2 * 512**3
    multiply()
    best = float("inf")
    for _ in range(5):  # the best of a few: a busy machine is slow now and then
        started = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - started)
    return work / best

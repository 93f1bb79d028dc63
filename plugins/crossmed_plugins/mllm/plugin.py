"""Registers the mllm family, under two names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from crossmed_core import hookimpl
from crossmed_core.records import ModelRecord

_OPTIONS = (
    ("name", "hub id ORG/NAME, or a local folder as 'save_pretrained' writes it"),
    ("revision", "commit, tag or branch of a hub id; default: the registry's, else the newest, resolved and recorded"),
    ("scoring", "letters (default: probabilities of the option letters, one forward pass) or generate (strict parser)"),
    ("segmentation", "letters (default: choose among lettered regions) or box (answer with a box; scored as a region)"),
    ("instruction", "sentence after the options; default: Answer with the option's letter from the given choices ..."),
    ("system", "system message; default: the chat template's own"),
    ("max_pixels", "largest image area in pixels, where the model takes any size; default 602112"),
    ("max_new_tokens", "longest generated answer in tokens; default 32"),
    ("dtype", "float32, bfloat16 or float16; default: bfloat16 on CUDA, float32 on a CPU"),
    ("attention", "sdpa (default), flash_attention_2 or eager; default: flash_attention_2 where it is installed"),
    ("token_budget", "tokens per batch of answers, padding included; default 2048 on a CPU, 32768 on CUDA"),
    ("reuse", "compute vision features and common beginnings of prompts once (true/false; default true)"),
    ("adapter", "folder of a LoRA adapter to start from; --adapter RUN sets it"),
    ("tuning", "lora (default) or full"),
    ("vision", "frozen (default) or trained: whether the vision tower learns too"),
    ("lora_rank", "rank of the adapters; default 16"),
    ("lora_alpha", "scale of the adapters; default twice the rank"),
    ("lora_dropout", "dropout of the adapters; default 0.05"),
    ("checkpointing", "recompute activations to save memory in training (true/false; default false)"),
    ("processes", "training processes that accelerate starts; default 1"),
    ("accelerate_config", "configuration file of 'accelerate config' (FSDP, DeepSpeed ...) for training"),
    ("trust_remote_code", "run code that comes with the weights (true/false; default false)"),
)

# LoRA's usual values (peft's and LLaVA's fine-tuning recipes); a letter leaves nothing to smooth, and pixels are not
# augmented, so that features of a frozen tower are computed once.
_TRAIN = (
    ("learning_rate", 2e-4),
    ("weight_decay", 0.0),
    ("label_smoothing", 0.0),
    ("batch_size", 16),
    ("warmup", 0.03),
    ("augment", False),
)


@hookimpl
def crossmed_models() -> Iterator[ModelRecord]:
    """Yield one family that serves every image-text chat model of transformers, and its name for hub ids."""
    family = ModelRecord(
        name="mllm",
        summary="Any image-text chat model of transformers: mllm:FOLDER or mllm:ORG/NAME",
        target="crossmed_plugins.mllm.model:MllmFamily",
        packages=("torch", "transformers", "peft", "accelerate", "safetensors"),
        extra="mllm",
        answers=frozenset({"option"}),
        answers_if=(("segmentation", "box", frozenset({"option", "mask"})),),
        reads_text=True,
        zero_shot=True,
        needs_spec=True,
        options=_OPTIONS,
        train=_TRAIN,
        forecast="crossmed_plugins.mllm.forecast:forecast",
    )
    yield family
    yield replace(family, name="hf", summary="The same by hub id: hf:ORG/NAME")

"""The miniatures: real architectures of known families, small enough to be trained on one CPU core.

`build` makes one with random weights. Its tokenizer is a byte-level BPE trained on the texts it will read: the
questions of the phantom, their labels and the words of the general lessons, so that a prompt is short and a
label is mostly one token. Weights for use come from `crossmed_plugins.mllm.pretraining`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from crossmed_core.types import LETTERS
from crossmed_plugins.mllm.lessons import texts

ANSWER_LETTERS = LETTERS[:6]
VOCABULARY = 768
"""Most entries of a miniature's vocabulary, special tokens included."""

PATCH = 8
MERGE = 2
SMALLEST, LARGEST = 64, 128
"""Pictures are scaled to between these many pixels a side (Qwen2-VL; by area)."""

_RESIDUAL_OUTPUTS = ("o_proj.weight", "down_proj.weight", "attn.proj.weight", "out_proj.weight", "mlp.fc2.weight")
_RESIDUAL_SCALE = 0.1

_QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
_QWEN_PADS = ("<|image_pad|>", "<|video_pad|>")
_QWEN_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper + ':' }}"
    "{% if message['content'] is string %}{{ ' ' + message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ ' <image>\\n' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] if 'text' in part %}"
    "{{ ('' if message['role'] == 'user' and message['content'][0]['type'] == 'image' else ' ') + part['text'] }}"
    "{% endfor %}{% endif %}{{ ' ' if message['role'] == 'user' else '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def build(name: str, *, seed: int) -> tuple[Any, Any]:
    """Make a miniature with random weights.

    Args:
        name: one of `MINIATURES`.
        seed: of the weights.

    Returns:
        The model in float32 and its processor, which pads on the left.
    """
    torch.manual_seed(seed)
    model, processor = MINIATURES[name]()
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            # Else what the first layers add at random drowns which token stands there, and copying is learnt late.
            if weight_name.endswith(_RESIDUAL_OUTPUTS):
                weight.mul_(_RESIDUAL_SCALE)
    return model, processor


def _qwen2vl() -> tuple[Any, Any]:
    tokenizer = _tokenizer(_QWEN_TOKENS + _QWEN_PADS, separator="", eos_token="<|im_end|>", pad_token="<|endoftext|>")
    size = {"shortest_edge": SMALLEST**2, "longest_edge": LARGEST**2}
    patches = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2, "size": size}
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**patches),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**patches),
        chat_template=_QWEN_TEMPLATE,
    )
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _QWEN_TOKENS + _QWEN_PADS}
    config = Qwen2VLConfig(
        text_config=_text_config(tokenizer)
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 4, 4]}},
        vision_config={
            "depth": 3,
            "embed_dim": 96,
            "hidden_size": 96,
            "num_heads": 4,
            "mlp_ratio": 3,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "initializer_range": 0.1,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config = _generation(tokenizer, [ids["<|im_end|>"], ids["<|endoftext|>"]])
    return model, processor


def _llava() -> tuple[Any, Any]:
    tokenizer = _tokenizer(
        ("<unk>", "<s>", "</s>", "<pad>", "<image>"),
        separator=" ",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"height": SMALLEST, "width": SMALLEST}, crop_size={"height": SMALLEST, "width": SMALLEST}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_LLAVA_TEMPLATE,
    )
    config = LlavaConfig(
        text_config=LlamaConfig(**_text_config(tokenizer)),
        vision_config=CLIPVisionConfig(
            hidden_size=96,
            intermediate_size=288,
            projection_dim=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=SMALLEST,
            patch_size=PATCH,
            initializer_range=0.1,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(SMALLEST // PATCH) ** 2,
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config = _generation(tokenizer, [tokenizer.eos_token_id])
    return model, processor


MINIATURES: Mapping[str, Callable[[], tuple[Any, Any]]] = {"qwen2vl-tiny": _qwen2vl, "llava-tiny": _llava}


def _text_config(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.1,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _generation(tokenizer: Any, stops: list[int]) -> Any:
    return GenerationConfig(eos_token_id=stops, pad_token_id=tokenizer.pad_token_id, do_sample=False)


def _tokenizer(special: tuple[str, ...], *, separator: str, **roles: str) -> Any:
    """Train a tokenizer on `texts`; an answer's letter, after ``separator``, becomes one token."""
    blank = Tokenizer(models.BPE())
    blank.normalizer = normalizers.NFC()
    blank.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    corpus = [*texts(), *(f"ASSISTANT:{separator}{letter}" for letter in ANSWER_LETTERS for _ in range(500))]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    blank.train_from_iterator(corpus, trainer)
    state = json.loads(blank.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=state["vocab"],
        merges=[tuple(pair) for pair in state["merges"]],
        additional_special_tokens=list(special),
        padding_side="left",
        **roles,
    )

"""Counterfeit checkpoints: real architectures, tiny sizes, random weights, written as a hub download would be.

`AutoProcessor` and `AutoModelForImageTextToText` load them as they load the real ones: same classes, same kinds of
input, same special tokens and chat templates. Only sizes, weights and the learnt part of the vocabulary are made up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from PIL import Image

from crossmed_plugins.mllm.counterfeit_text import (
    DEFAULT_TEXTS,
    LETTERS,
    TEXT_FAMILIES,
    build_tokenizer,
    chat_prompt,
    encode_prompt,
    letter_ids,
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a counterfeit model; the defaults make about 0.2 million weights.

    Attributes:
        hidden: Width of the language model; a multiple of `heads`.
        layers: Blocks of the language model.
        heads: Attention heads of the language model.
        kv_heads: Key and value heads of the language model; divides `heads`.
        mlp: Width inside the feed-forward blocks of the language model.
        vision_width: Width of the vision tower; a multiple of `vision_heads`.
        vision_layers: Blocks of the vision tower.
        vision_heads: Attention heads of the vision tower.
        grid: Patches along one side of the image, even, for towers of fixed resolution (all but Qwen).
        max_pixels: Largest image area in pixels, for towers of free resolution (Qwen).
        vocabulary: Rows of the embedding; 0 means the tokenizer's own size, rounded up to a multiple of 64 (mllama:
            up to the image token, which lies outside the output head as in the real one).
        initial_std: Standard deviation of the weights before `spread`; 0 means 0.4 / sqrt(hidden), wide enough that
            attention is not a plain average and the answer depends on the order of the words.
    """

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 128
    vision_width: int = 32
    vision_layers: int = 2
    vision_heads: int = 2
    grid: int = 4
    max_pixels: int = 64 * 28 * 28
    vocabulary: int = 0
    initial_std: float = 0.0

    @property
    def std(self) -> float:
        """Standard deviation of the weights before they are spread."""
        return self.initial_std or 0.4 / self.hidden**0.5


def _text_config(shape: Shape, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "initializer_range": shape.std,
        "max_position_embeddings": 4096,
        **more,
    }


def _vision_config(shape: Shape, patch: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": shape.vision_width,
        "intermediate_size": 4 * shape.vision_width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_heads,
        "image_size": shape.grid * patch,
        "patch_size": patch,
        "initializer_range": shape.std,
        **more,
    }


def _rope(shape: Shape) -> dict[str, Any]:
    half = shape.hidden // shape.heads // 2
    time, height = half // 4, (half - half // 4) // 2
    return {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [time, height, half - time - height]}


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    keys = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {key: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in zip(keys, names, strict=True)}


def _qwen_text(shape: Shape, tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "text_config": _text_config(shape, rope_parameters=_rope(shape), **more),
        "tie_word_embeddings": True,
        **_qwen_ids(tokenizer),
    }


def _qwen_vision(shape: Shape, **more: Any) -> dict[str, Any]:
    return {"depth": shape.vision_layers, "num_heads": shape.vision_heads, "initializer_range": shape.std, **more}


def _qwen2_vl(shape: Shape, tokenizer: Any) -> tuple[dict[str, Any], Any]:
    vision = _qwen_vision(shape, embed_dim=shape.vision_width, hidden_size=shape.hidden)
    pixels = {"min_pixels": 4 * 28 * 28, "max_pixels": shape.max_pixels}
    pictures = transformers.Qwen2VLImageProcessor(**pixels)
    processor = transformers.Qwen2VLProcessor(pictures, tokenizer, transformers.Qwen2VLVideoProcessor(**pixels))
    return _qwen_text(shape, tokenizer) | {"vision_config": vision}, processor


def _qwen2_5_vl(shape: Shape, tokenizer: Any) -> tuple[dict[str, Any], Any]:
    vision = _qwen_vision(
        shape,
        hidden_size=shape.vision_width,
        intermediate_size=4 * shape.vision_width,
        out_hidden_size=shape.hidden,
        fullatt_block_indexes=[shape.vision_layers - 1],
    )
    config, older = _qwen2_vl(shape, tokenizer)
    processor = transformers.Qwen2_5_VLProcessor(older.image_processor, tokenizer, older.video_processor)
    return config | {"vision_config": vision}, processor


def _qwen3_vl(shape: Shape, tokenizer: Any) -> tuple[dict[str, Any], Any]:
    vision = _qwen_vision(
        shape,
        hidden_size=shape.vision_width,
        intermediate_size=4 * shape.vision_width,
        out_hidden_size=shape.hidden,
        num_position_embeddings=64,
        deepstack_visual_indexes=list(range(min(shape.layers, shape.vision_layers) - 1)),
    )
    config = _qwen_text(shape, tokenizer, head_dim=shape.hidden // shape.heads) | {"vision_config": vision}
    pixels = {"shortest_edge": 4 * 32 * 32, "longest_edge": shape.max_pixels}
    pictures = transformers.Qwen2VLImageProcessor(size=pixels, patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return config, transformers.Qwen3VLProcessor(pictures, tokenizer, transformers.Qwen3VLVideoProcessor(size=pixels))


def _llava(shape: Shape, tokenizer: Any) -> tuple[dict[str, Any], Any]:
    patch = 14
    side = shape.grid * patch
    config = {
        "text_config": _text_config(shape, model_type="llama"),
        "vision_config": _vision_config(shape, patch, model_type="clip_vision_model", projection_dim=shape.hidden),
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "image_seq_length": shape.grid**2,
        "vision_feature_select_strategy": "default",
        "vision_feature_layer": -2,
    }
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return config, processor


def _llava_onevision(shape: Shape, tokenizer: Any) -> tuple[dict[str, Any], Any]:
    patch = 14
    side = shape.grid * patch
    size = {"height": side, "width": side}
    pinpoints = [[side, side], [side, 2 * side], [2 * side, side]]
    config = {
        "text_config": _text_config(shape, model_type="qwen2"),
        "vision_config": _vision_config(shape, patch, model_type="siglip_vision_model", vision_use_head=False),
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "video_token_index": tokenizer.convert_tokens_to_ids("<video>"),
        "image_grid_pinpoints": pinpoints,
    }
    processor = transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints),
        tokenizer,
        transformers.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=shape.grid**2,
        vision_feature_select_strategy="full",
    )
    return config, processor


def _idefics3(shape: Shape, tokenizer: Any) -> tuple[dict[str, Any], Any]:
    config, longest = _smol_config(shape, tokenizer)
    pictures = transformers.Idefics3ImageProcessor(do_image_splitting=False, size=longest, max_image_size=longest)
    return config, transformers.Idefics3Processor(pictures, tokenizer, image_seq_len=(shape.grid // 2) ** 2)


def _smolvlm(shape: Shape, tokenizer: Any) -> tuple[dict[str, Any], Any]:
    config, longest = _smol_config(shape, tokenizer)
    pictures = transformers.SmolVLMImageProcessor(do_image_splitting=False, size=longest, max_image_size=longest)
    films = transformers.SmolVLMVideoProcessor(size=longest, max_image_size=longest)
    return config, transformers.SmolVLMProcessor(pictures, tokenizer, films, image_seq_len=(shape.grid // 2) ** 2)


def _smol_config(shape: Shape, tokenizer: Any) -> tuple[dict[str, Any], dict[str, int]]:
    patch = 16
    config = {
        "text_config": _text_config(shape, model_type="llama"),
        "vision_config": _vision_config(shape, patch),
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "scale_factor": 2,
    }
    return config, {"longest_edge": shape.grid * patch}


def _internvl(shape: Shape, tokenizer: Any) -> tuple[dict[str, Any], Any]:
    patch = 14
    size = {"height": shape.grid * patch, "width": shape.grid * patch}
    tokens = (shape.grid // 2) ** 2
    config = {
        "text_config": _text_config(shape, model_type="qwen2"),
        "vision_config": _vision_config(shape, patch),
        "image_token_id": tokenizer.context_image_token_id,
        "image_seq_length": tokens,
        "tie_word_embeddings": False,
    }
    pictures = transformers.GotOcr2ImageProcessor(size=size, max_patches=4)
    return config, transformers.InternVLProcessor(
        pictures, tokenizer, transformers.InternVLVideoProcessor(size=size), image_seq_length=tokens
    )


def _gemma3(shape: Shape, tokenizer: Any) -> tuple[dict[str, Any], Any]:
    patch = 14
    side = shape.grid * patch
    tokens = (shape.grid // 2) ** 2
    head = shape.hidden // shape.heads
    config = {
        "text_config": _text_config(shape, head_dim=head, query_pre_attn_scalar=head, model_type="gemma3_text"),
        "vision_config": _vision_config(shape, patch, model_type="siglip_vision_model", vision_use_head=False),
        "mm_tokens_per_image": tokens,
        "image_token_index": tokenizer.image_token_id,
        "boi_token_index": tokenizer.boi_token_id,
        "eoi_token_index": tokenizer.eoi_token_id,
    }
    pictures = transformers.Gemma3ImageProcessor(size={"height": side, "width": side})
    return config, transformers.Gemma3Processor(pictures, tokenizer, image_seq_length=tokens)


def _mllama(shape: Shape, tokenizer: Any) -> tuple[dict[str, Any], Any]:
    patch = 14
    vision = _vision_config(
        shape,
        patch,
        attention_heads=shape.vision_heads,
        num_global_layers=1,
        intermediate_layers_indices=[0],
        vision_output_dim=2 * shape.vision_width,
    )
    del vision["num_attention_heads"]
    image = tokenizer.convert_tokens_to_ids("<|image|>")
    config = {
        "text_config": _text_config(shape, cross_attention_layers=[shape.layers - 1], vocab_size=image),
        "vision_config": vision,
        "image_token_index": image,
    }
    side = shape.grid * patch
    return config, transformers.MllamaProcessor(
        transformers.MllamaImageProcessor(size={"height": side, "width": side}), tokenizer
    )


_BUILDERS: dict[str, Callable[[Shape, Any], tuple[dict[str, Any], Any]]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "llava": _llava,
    "llava_onevision": _llava_onevision,
    "smolvlm": _smolvlm,
    "idefics3": _idefics3,
    "internvl": _internvl,
    "gemma3": _gemma3,
    "mllama": _mllama,
}
ARCHITECTURES: tuple[str, ...] = tuple(_BUILDERS)


def write_checkpoint(
    folder: Path,
    architecture: str,
    *,
    seed: int = 0,
    shape: Shape = Shape(),
    texts: Sequence[str] = DEFAULT_TEXTS,
    spread: float = 3.0,
) -> None:
    """Write model, tokenizer, processor and generation settings; the same arguments give the same bytes.

    Args:
        folder: Where to write; made when missing.
        architecture: One of `ARCHITECTURES`, which is the `model_type` of the config.
        seed: Seed of the weights. The global random state is left as it was.
        shape: Sizes.
        texts: What the tokenizer is trained on.
        spread: Factor on every weight of two or more dimensions, so that outputs vary with the input.

    Raises:
        ValueError: When the architecture is unknown, or the vocabulary is smaller than the tokenizer.
    """
    if architecture not in _BUILDERS:
        raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(ARCHITECTURES)}")
    family = TEXT_FAMILIES[architecture]
    tokenizer = build_tokenizer(family, texts)
    if 0 < shape.vocabulary < len(tokenizer):
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, the vocabulary only {shape.vocabulary}")
    config, processor = _BUILDERS[architecture](shape, tokenizer)
    processor.chat_template = family.template
    ends = tokenizer.convert_tokens_to_ids(list(family.ends))
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": ends[0], "pad_token_id": tokenizer.pad_token_id}
    rows = shape.vocabulary or config["text_config"].get("vocab_size", -(-len(tokenizer) // 64) * 64)
    config["text_config"] |= {"vocab_size": rows, **ids}
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        model = transformers.AutoModelForImageTextToText.from_config(
            transformers.AutoConfig.for_model(architecture, **config)
        )
        _roughen(model, spread, shape.std)
    model.generation_config = transformers.GenerationConfig(do_sample=False, **(ids | {"eos_token_id": ends}))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _roughen(model: torch.nn.Module, spread: float, initial_std: float) -> None:
    """Scale the matrices, and fill those that start at zero: they would cut the image off."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            empty = not weights.any()
            if weights.dim() >= 2:
                if empty:
                    weights.normal_(std=initial_std)
                weights.mul_(spread)
            elif empty and name.endswith("gate"):
                weights.fill_(1.0)


def solve_letter_head(
    folder: Path, items: Sequence[tuple[Image.Image, str]], *, render: Callable[[Any, str], str] | None = None
) -> None:
    """Replace the output head so that the checkpoint answers with one letter and then ends its turn.

    The head is solved, not trained. A direction that tells "before the answer" from "after a letter" makes every
    letter likely in the first state and the end of the turn in the second; what tells the letters apart is a random
    mix of the directions in which the first states differ, so the letter varies with image, question and options.
    The head is untied from the embedding and the checkpoint saved in place.

    Args:
        folder: A checkpoint of `write_checkpoint`.
        items: Images (RGB) and user texts, a few dozen, of the kind that will be asked.
        render: Makes the prompt from processor and user text; default `chat_prompt`.

    Raises:
        ValueError: When a letter is not one token of its own after the prompt, or there are fewer than 8 items.
    """
    if len(items) < 8:
        raise ValueError("solving a letter head takes at least 8 items")
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    family = TEXT_FAMILIES[model.config.model_type]
    prompts = [(image, (render or chat_prompt)(processor, text)) for image, text in items]
    letters = letter_ids(processor, *prompts[0], separator=family.separator)
    before = [_last_state(model, processor, image, prompt) for image, prompt in prompts]
    after = [
        _last_state(model, processor, image, f"{prompt}{family.separator}{letter}")
        for image, prompt in prompts
        for letter in LETTERS
    ]
    rows = _letter_rows(torch.stack(before).double(), torch.stack(after).double())
    head = torch.zeros_like(model.get_output_embeddings().weight.detach())
    head[[*letters, processor.tokenizer.eos_token_id]] = rows.to(head.dtype)
    model.get_output_embeddings().weight = torch.nn.Parameter(head)
    model.config.tie_word_embeddings = False
    model.config.get_text_config().tie_word_embeddings = False
    # The loaded weights may still be a view of the file, so it is replaced, not written over.
    with TemporaryDirectory(dir=folder) as fresh:
        model.save_pretrained(fresh)
        for file in Path(fresh).iterdir():
            file.replace(folder / file.name)


def _last_state(model: Any, processor: Any, image: Image.Image, prompt: str) -> torch.Tensor:
    """Return what the head reads at the last position, shape (hidden,)."""
    states: list[torch.Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    with torch.no_grad():
        model(**encode_prompt(processor, image, prompt))
    handle.remove()
    return states[0][0, -1]


def _letter_rows(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Solve the head rows of the four letters and of the end of the turn.

    Args:
        before: States where the answer starts, shape (items, hidden).
        after: States behind a letter, shape (4 x items, hidden).

    Returns:
        Rows, shape (5, hidden): A to D, then the end of the turn.
    """
    means = torch.stack((before.mean(0), after.mean(0)))
    turn = _turning_direction(before, after)
    centred = before - means[0]
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    # Divided by their size, so that the small ones (the order of the options) count as much as the large (the image).
    kept = int((sizes[:16] > 1e-3 * sizes[0]).sum())
    directions = directions[:kept] / sizes[:kept, None]
    # Without their share along the two means the mixes leave the letters' and the end's mean logits alone.
    directions = directions - directions @ torch.linalg.pinv(means) @ means
    noise = torch.Generator().manual_seed(0)
    mixes = torch.randn(len(LETTERS), len(directions), generator=noise, dtype=means.dtype) @ directions
    mixes = mixes * (2.5 / (centred @ mixes.T).std(0)).unsqueeze(1)
    return torch.cat((turn + mixes, -turn.unsqueeze(0)))


def _turning_direction(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Fit a direction, shape (hidden,), that reads +12 in the states before a letter and -12 behind one."""
    states = torch.cat((before, after))
    sides = torch.cat(
        (before.new_full((len(before),), 1 / len(before)), after.new_full((len(after),), -1 / len(after)))
    )
    gram = (states.T * sides.abs()) @ states
    # A hundredth of the mean square keeps the fit from following a handful of prompts.
    ridge = 0.01 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    direction: torch.Tensor = torch.linalg.solve(gram + ridge, states.T @ (12.0 * sides))
    return direction

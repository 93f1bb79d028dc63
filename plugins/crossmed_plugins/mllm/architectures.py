"""What differs between architectures, as data. Everything else follows from transformers' common interfaces.

Sources: the modelling and processing code of transformers 5.23; target modules of LoRA follow from its module names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

MAX_PIXELS = 602112
"""Largest image area where the model takes any size: 768 tokens of Qwen2-VL (the default of lmms-eval for it)."""

_PROJECTIONS = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"


@dataclass(frozen=True)
class Architecture:
    """Facts of one architecture.

    Attributes:
        lora_targets: Regular expression of the linear layers of the language model, matched in full by peft.
        vision: Prefixes of the modules that look at images, tower and connector, below the model.
        image_options: Attributes of the image processor that bound the tokens per image.
        any_size: Whether the image processor's size is an area in pixels, bounded by the option `max_pixels`.
        pad_square: Whether images are padded to squares, as in the model's training: its processor cuts the longer side
            off at both ends, and with it the edges of a film.
        single_tile: Whether the image is cut into tiles by `image_grid_pinpoints`; one tile is taken, as 36 make
            thousands of tokens of a small image.
        reuse: Whether vision features can be computed once and given to the model.
        one_tensor: Whether the model takes the features of a batch as one tensor; else it joins a list itself.
        prefix: Whether a prompt's beginning can be computed once and shared: needs plain causal attention.
        boxes: How a box is written: corners in pixels of the resized image, or in thousandths of its sides. None: the
            model was not trained to give boxes, and thousandths are used.
    """

    lora_targets: str = _PROJECTIONS
    vision: tuple[str, ...] = ("model.vision_tower", "model.multi_modal_projector")
    image_options: dict[str, Any] = field(default_factory=dict)
    any_size: bool = False
    pad_square: bool = False
    single_tile: bool = False
    reuse: bool = True
    one_tensor: bool = False
    prefix: bool = True
    boxes: Literal["pixels", "thousandths"] | None = None


_QWEN = Architecture(vision=("model.visual",), any_size=True, boxes="thousandths")
_SMOLVLM = Architecture(
    lora_targets=r".*text_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj",
    vision=("model.vision_model", "model.connector"),
    # Otherwise every image is enlarged to 2048 pixels and cut into 17 tiles: 1,088 tokens for 64 pixels.
    image_options={"do_image_splitting": False},
)

ARCHITECTURES: dict[str, Architecture] = {
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": Architecture(vision=("model.visual",), any_size=True, boxes="pixels"),
    "qwen3_vl": _QWEN,
    "llava": Architecture(pad_square=True),
    "llava_onevision": Architecture(single_tile=True),
    "internvl": Architecture(image_options={"max_patches": 1}, one_tensor=True),
    "smolvlm": _SMOLVLM,
    "idefics3": _SMOLVLM,
    # Image tokens of Gemma 3 see each other in both directions.
    "gemma3": Architecture(one_tensor=True, prefix=False),
    # Images are attended to across, not placed among the tokens.
    "mllama": Architecture(
        lora_targets=r".*language_model\.layers\.\d+\.(self_attn|cross_attn|mlp)\.\w+_proj",
        vision=("model.vision_model", "model.multi_modal_projector"),
        reuse=False,
        prefix=False,
    ),
}

# An architecture that nobody looked at is asked the plain way, by its own processor: slower, and right.
UNKNOWN = Architecture(lora_targets="all-linear", vision=(), reuse=False, prefix=False)


def facts_of(model_type: str) -> Architecture:
    """Return the facts of an architecture, by `model_type` of its config.json."""
    return ARCHITECTURES.get(model_type, UNKNOWN)


def bound_images(image_processor: Any, config: Any, architecture: Architecture, max_pixels: int) -> None:
    """Bound the tokens per image, in place. A checkpoint whose own bound is lower keeps it.

    Args:
        image_processor: As loaded.
        config: The model's, which must agree where it also counts tiles.
        architecture: Says what bounds the tokens.
        max_pixels: Largest area where any size is taken, in pixels.
    """
    for name, value in architecture.image_options.items():
        if hasattr(image_processor, name):
            setattr(image_processor, name, value)
    if architecture.single_tile:
        side = config.vision_config.image_size
        image_processor.image_grid_pinpoints = config.image_grid_pinpoints = [[side, side]]
    if architecture.any_size:
        size = dict(image_processor.size)
        size["longest_edge"] = max(size["shortest_edge"], min(size["longest_edge"], max_pixels))
        image_processor.size = type(image_processor.size)(**size)

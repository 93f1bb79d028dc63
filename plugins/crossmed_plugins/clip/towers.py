"""From files to a network and its tokenizer. A network is open_clip's, or looks like it.

Weights are loaded strictly: a tensor that is missing or of another shape is an error, never a random start.
"""

from __future__ import annotations

import pickle
from copy import deepcopy
from typing import Any

import open_clip
import torch
from open_clip.factory import load_state_dict
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional

from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_plugins.clip.checkpoint import Checkpoint

IMAGE_PARAMETERS = ("visual.", "logit_", "model.vision_model.", "model.visual_projection.", "model.logit_")
"""How the names of those parameters begin that are not the text tower's."""


class Towers(nn.Module):
    """A CLIP or SigLIP of transformers, called as open_clip's networks are.

    Args:
        config: Its configuration.
    """

    def __init__(self, config: Any) -> None:
        from transformers import AutoModel

        super().__init__()
        self.model: Any = AutoModel.from_config(config, dtype=torch.float32)

    @property
    def logit_scale(self) -> torch.Tensor:
        """Logarithm of the factor on cosines."""
        scale: torch.Tensor = self.model.logit_scale
        return scale

    def encode_image(self, images: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Map (images, 3, size, size) to embeddings (images, width)."""
        found: torch.Tensor = self.model.get_image_features(pixel_values=images).pooler_output
        return functional.normalize(found, dim=-1) if normalize else found

    def encode_text(self, tokens: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Map (texts, context length) to embeddings (texts, width).

        No mask: CLIP's tower looks back only, so what follows the end of a text does not reach it, and SigLIP's was
        trained to see the padding.
        """
        found: torch.Tensor = self.model.get_text_features(input_ids=tokens).pooler_output
        return functional.normalize(found, dim=-1) if normalize else found

    def forward(
        self, images: torch.Tensor | None = None, tokens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor]:
        """Return embeddings of length 1 of what is given, and the factor on their cosines."""
        return (
            None if images is None else self.encode_image(images, normalize=True),
            None if tokens is None else self.encode_text(tokens, normalize=True),
            self.logit_scale.exp(),
        )


def image_size(checkpoint: Checkpoint) -> int:
    """Return the side of the square that the image tower looks at, in pixels.

    Raises:
        CrossmedError: If it looks at another shape.
    """
    if checkpoint.model:
        size = checkpoint.model["vision_cfg"].get("image_size", 224)
    else:
        size = _config(checkpoint).vision_config.image_size
    if not isinstance(size, int):
        raise _broken(checkpoint, "its image tower does not look at a square", ValueError(str(size)))
    return size


def embedding_width(checkpoint: Checkpoint) -> int:
    """Return the width of the embeddings that both towers end in."""
    if checkpoint.model:
        return int(checkpoint.model["embed_dim"])
    config = _config(checkpoint)
    # SigLIP projects neither tower: the image tower's width is the embedding's.
    return int(config.projection_dim if config.model_type == "clip" else config.vision_config.hidden_size)


def build(checkpoint: Checkpoint, *, weights: bool) -> nn.Module:
    """Make the network.

    Args:
        checkpoint: What it is made of.
        weights: Whether to load the checkpoint's weights; if not they are random, to be overwritten.

    Raises:
        CrossmedError: If the architecture cannot be built, or the weights are not its own.
    """
    try:
        network = _open_clip(checkpoint) if checkpoint.model else Towers(_config(checkpoint))
    except (TypeError, ValueError, RuntimeError, KeyError, OSError, AssertionError) as error:
        raise _broken(checkpoint, "the architecture cannot be built", error) from error
    if weights and checkpoint.weights is not None:
        try:
            _load(network, checkpoint)
        except (OSError, RuntimeError, KeyError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
            raise _broken(checkpoint, f"{checkpoint.weights} cannot be loaded", error) from error
    return network


def _open_clip(checkpoint: Checkpoint) -> nn.Module:
    model = deepcopy(checkpoint.model)
    if "multimodal_cfg" in model:
        raise ValueError("it writes captions (CoCa), which this family does not serve")
    # The checkpoint holds both towers: neither is to be fetched from the hubs of timm and transformers.
    model["vision_cfg"]["timm_model_pretrained"] = False
    model["text_cfg"]["hf_model_pretrained"] = False
    custom = model.pop("custom_text", False) or "hf_model_name" in model["text_cfg"]
    network: nn.Module = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**model)
    return network


def _load(network: nn.Module, checkpoint: Checkpoint) -> None:
    path = str(checkpoint.weights)
    if isinstance(network, Towers):
        state = load_state_dict(path, weights_only=True)
        # Older releases of transformers saved these constants.
        kept = {name: value for name, value in state.items() if not name.endswith(".position_ids")}
        network.model.load_state_dict(kept, strict=True)
    else:
        open_clip.load_checkpoint(network, path, strict=True, weights_only=True)


def _config(checkpoint: Checkpoint) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(checkpoint.folder), local_files_only=True)


def tokenizer(checkpoint: Checkpoint) -> Any:
    """Return what turns texts into int64 tokens (texts, context length), as the text tower was trained with.

    A tokenizer of transformers pads every text to the full length, which SigLIP's towers need.

    Raises:
        CrossmedError: If the tokenizer's files cannot be read.
    """
    if checkpoint.weights is None:
        from crossmed_plugins.clip.miniature import tokenizer as small

        return small()
    text = checkpoint.model.get("text_cfg", {})
    arguments = {**(text.get("tokenizer_kwargs") or {}), "context_length": _context_length(checkpoint)}
    if checkpoint.tokenizer is None:
        return open_clip.SimpleTokenizer(**arguments)
    try:
        return HFTokenizer(str(checkpoint.tokenizer), tokenizer_mode=text.get("tokenizer_mode"), **arguments)
    except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
        raise _broken(checkpoint, f"the tokenizer in {checkpoint.tokenizer} cannot be read", error) from error


def _context_length(checkpoint: Checkpoint) -> int:
    if checkpoint.model:
        return int(checkpoint.model["text_cfg"].get("context_length", DEFAULT_CONTEXT_LENGTH))
    return int(_config(checkpoint).text_config.max_position_embeddings)


def _broken(checkpoint: Checkpoint, what: str, error: Exception) -> CrossmedError:
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return CrossmedError(
        f"Model {checkpoint.name!r}: {what} ({type(error).__name__}: {first}).", exit_code=ExitCode.ENVIRONMENT
    )

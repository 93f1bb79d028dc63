"""The plain way: text and images through the model's own processor, a batch at a time.

It serves architectures that nobody looked at, generates answers, and is what the fast way is held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

Prompt = tuple[str, Image.Image | None]
"""A prompt with its image's placeholder unexpanded, and the 8-bit RGB image; None if there is none."""


class PlainWay:
    """Runs prompts through processor and model as transformers documents it.

    Args:
        model: A transformers image-text model, in eval mode on its device.
        processor: Its processor, padding left.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor

    def inputs(self, prompts: Sequence[Prompt]) -> Any:
        """Prepare prompts that all have an image, or all have none."""
        texts = [text for text, _ in prompts]
        images = [[image] for _, image in prompts if image is not None]
        bos = self.processor.tokenizer.bos_token
        special = not (bos is not None and texts[0].startswith(bos))
        inputs = self.processor(
            text=texts,
            images=images or None,
            padding=True,
            return_tensors="pt",
            add_special_tokens=special,
        )
        return inputs.to(next(self.model.parameters()).device)

    def logits(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Return the next token's logits, float32 (prompts, vocabulary)."""
        with torch.inference_mode():
            inputs = self.inputs(prompts)
            logits: torch.Tensor = self.model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1]
        return logits.float()

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int) -> list[str]:
        """Generate answers greedily, without special tokens."""
        with torch.inference_mode():
            inputs = self.inputs(prompts)
            found = self.model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens)
        said = found[:, inputs["input_ids"].shape[1] :]
        texts: list[str] = self.processor.tokenizer.batch_decode(said, skip_special_tokens=True)
        return texts

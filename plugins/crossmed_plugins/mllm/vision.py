"""Images on their way into a model: prepared by its own processor, looked at once, kept while they are needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.modeling_outputs import BaseModelOutputWithPooling

from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import read_image
from crossmed_core.types import ImageRef

_OF_TEXT = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})

CACHE_BYTES = 1 << 30
"""Vision features are kept between calls up to this many bytes."""


@dataclass
class Prepared:
    """An image as the processor made it.

    Attributes:
        tensors: The vision tower's inputs for this image alone; along the first dimension, images can be joined.
        placeholder: The text that stands for the image in a prompt.
        tokens: How many image tokens that is.
        shape: (height, width) of the image in pixels, before it was resized.
    """

    tensors: dict[str, torch.Tensor]
    placeholder: str
    tokens: int
    shape: tuple[int, int]

    @property
    def has_pixels(self) -> bool:
        """Whether it can be looked at."""
        return "pixel_values" in self.tensors

    def without_pixels(self) -> Prepared:
        """Return it without its pixels, for what need not be looked at again now."""
        large = {name: value for name, value in self.tensors.items() if name.startswith("pixel_")}
        return replace(self, tensors={name: value for name, value in self.tensors.items() if name not in large})


@dataclass
class Features:
    """What the vision tower saw in one image.

    Attributes:
        pooled: (tokens, width of the language model).
        deep: Further features of the same shape that go into deeper layers (DeepStack); empty for most models.
    """

    pooled: torch.Tensor
    deep: list[torch.Tensor] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(one.nbytes for one in (self.pooled, *self.deep))


def open_rgb(ref: ImageRef) -> Image.Image:
    """Open an image as 8-bit RGB without loss, marks drawn.

    Raises:
        UnreadableImageError: Naming the file.
    """
    pixels = read_image(ref)
    return Image.fromarray(np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels)


def padded_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """Centre an image on a square of its longer side (LLaVA-1.5's `expand2square`).

    Args:
        image: 8-bit RGB.
        mean: Colour of the ground, 0 to 1 per channel: the mean that the processor subtracts.
    """
    if image.width == image.height:
        return image
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(255 * one) for one in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


class Eyes:
    """Prepares images and computes their features, each image once.

    Args:
        model: A transformers image-text model.
        processor: Its processor.
        square: Whether images are padded to squares first.
        workers: Threads that prepare images ahead of the model; 0 = none.
    """

    def __init__(self, model: Any, processor: Any, *, square: bool = False, workers: int = 0) -> None:
        self.model = model
        self.processor = processor
        self.square = square
        self.room = CACHE_BYTES
        self._kept: OrderedDict[ImageRef, Features] = OrderedDict()
        self._bytes = 0
        self._pool = ThreadPoolExecutor(workers, "images") if workers else None
        # Whether the image processor alone makes what the whole processor makes; found out with the first image.
        self._alone: bool | None = None
        self._counts: dict[str, int] = {}

    def prepare(self, refs: Sequence[ImageRef]) -> dict[ImageRef, Prepared | UnreadableImageError]:
        """Open and prepare distinct images; what cannot be opened is an error in its place."""
        run = self._pool.map if self._pool else map
        return dict(zip(refs, run(self._prepare, refs), strict=True))

    def _prepare(self, ref: ImageRef) -> Prepared | UnreadableImageError:
        try:
            image = open_rgb(ref)
        except UnreadableImageError as error:
            return error
        return self.prepare_image(image)

    def shown(self, image: Image.Image) -> Image.Image:
        """Return an image as the processor is given it."""
        return padded_square(image, self.processor.image_processor.image_mean) if self.square else image

    def prepare_image(self, image: Image.Image) -> Prepared:
        """Prepare one 8-bit RGB image."""
        image = self.shown(image)
        if self._alone is None:
            whole, part = self._by_processor(image), self._by_image_processor(image)
            self._alone = part is not None and _equal(whole, part)
            return whole
        if self._alone and (prepared := self._by_image_processor(image)) is not None:
            return prepared
        return self._by_processor(image)

    def _by_processor(self, image: Image.Image) -> Prepared:
        inputs = self.processor(
            images=[image], text=[self.processor.image_token], return_tensors="pt", return_text_replacement_offsets=True
        )
        ((replaced,),) = inputs["text_replacement_offsets"]
        tokens = int((inputs["input_ids"] == self.model.config.image_token_id).sum())
        tensors = {
            name: value for name, value in inputs.items() if isinstance(value, torch.Tensor) and name not in _OF_TEXT
        }
        return Prepared(tensors, str(replaced["replacement"]), tokens, (image.height, image.width))

    def _by_image_processor(self, image: Image.Image) -> Prepared | None:
        """Prepare an image without the detour over text, several times as fast; None where that cannot be done."""
        unused = set(self.processor.unused_input_names)
        try:
            inputs = self.processor.image_processor(images=[image], return_tensors="pt")
            placeholder = str(self.processor.replace_image_token(inputs, image_idx=0))
        except (KeyError, TypeError, ValueError, NotImplementedError):
            return None
        if placeholder not in self._counts:
            ids = self.processor.tokenizer(placeholder, add_special_tokens=False)["input_ids"]
            self._counts[placeholder] = sum(one == self.model.config.image_token_id for one in ids)
        tensors = {
            name: value for name, value in inputs.items() if isinstance(value, torch.Tensor) and name not in unused
        }
        return Prepared(tensors, placeholder, self._counts[placeholder], (image.height, image.width))

    def forget(self) -> None:
        """Drop all features, as after the tower was trained."""
        self._kept.clear()
        self._bytes = 0

    def features(self, prepared: dict[ImageRef, Prepared], budget: int) -> dict[ImageRef, Features]:
        """Return the features of images, computing those that are not kept.

        Args:
            prepared: The images.
            budget: Largest number of image tokens per pass of the tower.

        Returns:
            Features on the model's device.
        """
        found = {ref: self._kept[ref] for ref in prepared if ref in self._kept}
        for ref in found:
            self._kept.move_to_end(ref)
        groups: dict[Any, list[ImageRef]] = {}
        for ref in (ref for ref in prepared if ref not in found):
            # Images join along the first dimension; whatever else differs keeps them apart.
            shapes = tuple((name, value.shape[1:]) for name, value in sorted(prepared[ref].tensors.items()))
            groups.setdefault(shapes, []).append(ref)
        for group in groups.values():
            for chunk in _chunks(group, [prepared[ref].tokens for ref in group], budget):
                for ref, seen in zip(chunk, self.look([prepared[ref] for ref in chunk]), strict=True):
                    found[ref] = seen
                    self._keep(ref, seen)
        return found

    def _keep(self, ref: ImageRef, seen: Features) -> None:
        self._kept[ref] = seen
        self._bytes += seen.nbytes
        while self._bytes > self.room and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.nbytes

    def look(self, images: Sequence[Prepared]) -> list[Features]:
        """Run the vision tower once over images whose tensors can be joined."""
        device = next(self.model.parameters()).device
        names = images[0].tensors
        joined = {name: torch.cat([one.tensors[name] for one in images]).to(device) for name in names}
        seen = self.model.get_image_features(**joined, return_dict=True)
        counts = [one.tokens for one in images]
        pooled = _per_image(seen.pooler_output, counts)
        deep = [_per_image(layer, counts) for layer in getattr(seen, "deepstack_features", None) or ()]
        return [Features(one, [layer[place] for layer in deep]) for place, one in enumerate(pooled)]


def _equal(one: Prepared, other: Prepared) -> bool:
    same = one.tensors.keys() == other.tensors.keys()
    same = same and all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())
    return same and (one.placeholder, one.tokens) == (other.placeholder, other.tokens)


def as_encoder_output(features: Sequence[Features], *, listed: bool) -> dict[str, Any]:
    """Join features in the form in which a model takes them instead of pixels, as the argument of that name.

    Args:
        features: In the order of the images in the batch.
        listed: Whether the model joins a list itself, or wants one tensor.
    """
    pooled: Any = [one.pooled for one in features]
    output = BaseModelOutputWithPooling(pooler_output=pooled if listed else torch.cat(pooled))
    if features[0].deep:
        layers = range(len(features[0].deep))
        output["deepstack_features"] = [[one.deep[layer] for one in features] for layer in layers]
    return {"mm_encoder_outputs": {"image": output}}


def _per_image(output: Any, counts: Sequence[int]) -> list[torch.Tensor]:
    """Split a tower's output, in whatever form an architecture gives it, into (tokens, width) per image."""
    flat = torch.cat([one.flatten(0, -2) for one in output]) if isinstance(output, list | tuple) else output
    return list(flat.flatten(0, -2).split(list(counts)))


def _chunks(refs: Sequence[ImageRef], tokens: Sequence[int], budget: int) -> list[list[ImageRef]]:
    chunks: list[list[ImageRef]] = [[]]
    room = budget
    for ref, count in zip(refs, tokens, strict=True):
        if chunks[-1] and count > room:
            chunks.append([])
            room = budget
        chunks[-1].append(ref)
        room -= count
    return chunks

"""Items -> batches: decoding, resizing, augmentation. Every draw is seeded by item, so any batch can be made alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import read_image, read_mask
from crossmed_core.seeding import digest
from crossmed_core.types import Item

Pixel = TypeVar("Pixel", bound=np.generic)
CACHE_BYTES = 1 << 30
"""Decoded training images are kept up to this many bytes; beyond, they are decoded anew each epoch."""


@dataclass(frozen=True)
class InputSpec:
    """What a network wants to see. A family that looks at something else than the whole image overrides `pictures`.

    Attributes:
        size: Side of the square input in pixels.
        channels: 1 (grey) or 3 (RGB; grey images are repeated).
        mean: Per channel, of pixels in 0..1.
        std: Per channel.
    """

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def pictures(self, item: Item) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Open what the network looks at to answer an item.

        Returns:
            uint8 (pictures, size, size) or (pictures, size, size, 3), and the image's own (height, width).

        Raises:
            UnreadableImageError: Naming the file.
        """
        image = read_image(item.image)
        return fit_input(image, self)[None], (image.shape[0], image.shape[1])


@dataclass
class Batch:
    """Decoded items.

    Attributes:
        items: The items.
        images: float32 (pictures, channels, size, size), normalised; one picture per item, or as many as the network's
            `InputSpec` makes of it, item after item.
        masks: float32 (items, 1, size, size) of 0 and 1; zeros for option items.
        is_mask: bool (items,): which items are answered by a mask.
    """

    items: list[Item]
    images: torch.Tensor
    masks: torch.Tensor
    is_mask: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Move the tensors."""
        images, masks, kinds = (one.to(device, non_blocking=True) for one in (self.images, self.masks, self.is_mask))
        return Batch(self.items, images, masks, kinds)

    def pin_memory(self) -> Batch:
        """Lock the tensors in memory for a faster copy to the device; torch's DataLoader calls this by name."""
        return Batch(self.items, self.images.pin_memory(), self.masks.pin_memory(), self.is_mask.pin_memory())


def letterbox(image: NDArray[np.uint8], size: int, *, nearest: bool = False) -> NDArray[np.uint8]:
    """Scale the longer side to `size` and pad right and below with 0, so that the whole image is seen undistorted.

    Args:
        image: (height, width) or (height, width, 3).
        size: Side of the square result.
        nearest: For masks, which must stay 0 and 1.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    scale = size / max(height, width)
    new = max(1, round(width * scale)), max(1, round(height * scale))
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    resized = np.asarray(Image.fromarray(image).resize(new, method))
    square = np.zeros((size, size, *image.shape[2:]), np.uint8)
    square[: new[1], : new[0]] = resized
    return square


def undo_letterbox(mask: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Bring a (size, size) mask back to the image's own (height, width)."""
    size = mask.shape[0]
    height, width = shape
    if (height, width) == mask.shape:
        return mask
    scale = size / max(height, width)
    inner = mask[: max(1, round(height * scale)), : max(1, round(width * scale))]
    return np.asarray(Image.fromarray(inner).resize((width, height), Image.Resampling.NEAREST), dtype=bool)


def decode(item: Item, spec: InputSpec) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Open an item's image, and its mask if it is answered by one, at the network's size.

    Returns:
        uint8 pictures (`InputSpec.pictures`), and uint8 mask (size, size) of 0 and 1, or None.

    Raises:
        UnreadableImageError: Naming the file.
    """
    mask = None
    if item.mask is not None:
        mask = letterbox(read_mask(item.mask).astype(np.uint8), spec.size, nearest=True)
    return spec.pictures(item)[0], mask


def fit_input(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Bring an image to the network's channels and size, still uint8."""
    if spec.channels == 1 and image.ndim == 3:
        image = np.asarray(Image.fromarray(image).convert("L"))
    if spec.channels == 3 and image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    return letterbox(image, spec.size)


def to_batch(
    items: Sequence[Item],
    images: Sequence[NDArray[np.float32]],
    masks: Sequence[NDArray[np.uint8] | None],
    spec: InputSpec,
) -> Batch:
    """Normalise and stack.

    Args:
        items: The items.
        images: Per item (pictures, size, size[, 3]) in 0..255.
        masks: Per item (size, size) of 0 and 1, or None.
        spec: Gives mean and standard deviation.
    """
    stacked = torch.from_numpy(np.concatenate(images)).float().div_(255)
    stacked = stacked.unsqueeze(1) if stacked.ndim == 3 else stacked.permute(0, 3, 1, 2)
    shape = (1, spec.channels, 1, 1)
    stacked = (stacked - torch.tensor(spec.mean).view(shape)) / torch.tensor(spec.std).view(shape)
    empty = np.zeros((spec.size, spec.size), np.uint8)
    filled = np.stack([empty if mask is None else mask for mask in masks])
    return Batch(
        list(items),
        stacked.contiguous(memory_format=torch.channels_last),
        torch.from_numpy(filled).float().unsqueeze(1),
        torch.tensor([item.kind == "mask" for item in items]),
    )


class TrainingBatches(Dataset[Batch]):
    """All batches of a training run, each a pure function of its number.

    Batch k of this process holds items of the endless sequence of seeded permutations (one per epoch). So a run goes on
    after a kill by asking for the next number, and loader workers change nothing.

    Args:
        items: Training items. Those whose image cannot be read are reported to `warn` and left out.
        spec: The network's input.
        batch_size: Items per batch.
        count: Number of batches.
        seed: Seed of order and augmentation.
        augment: Random gain (0.85-1.15), offset (+-0.06 of full scale) and shifts.
        max_shift: Largest shift in pixels.
        rank: This process among `world`.
        world: Number of processes.
        warn: Receives one line per unreadable item.
    """

    def __init__(
        self,
        items: Sequence[Item],
        spec: InputSpec,
        *,
        batch_size: int,
        count: int,
        seed: int,
        augment: bool,
        max_shift: int = 2,
        rank: int = 0,
        world: int = 1,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.spec = spec
        self.batch_size = batch_size
        self.count = count
        self.seed = seed
        self.augment = augment
        self.max_shift = max_shift
        self.rank, self.world = rank, world
        self.items: list[Item] = []
        self._cache: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8] | None]] = {}
        room = CACHE_BYTES
        for item in items:
            try:
                decoded = decode(item, spec)
            except UnreadableImageError as error:
                warn(f"training item {item.id} left out: {error}")
                continue
            self.items.append(item)
            room -= decoded[0].nbytes + (decoded[1].nbytes if decoded[1] is not None else 0)
            if room > 0:
                self._cache[item.id] = decoded
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __getstate__(self) -> dict[str, object]:
        # Loader workers that are spawned get no copy of up to a gigabyte each; they decode what they need.
        return {**self.__dict__, "_cache": {}}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Batch:
        first = (number * self.world + self.rank) * self.batch_size
        places = [self._place(first + offset) for offset in range(self.batch_size)]
        items = [self.items[index] for _, index in places]
        images, masks = [], []
        for (epoch, _), item in zip(places, items, strict=True):
            image, mask = self._cache.get(item.id) or decode(item, self.spec)
            pixels = image.astype(np.float32)
            if self.augment:
                seed = digest(self.seed, "augment", epoch, item.id)
                pixels, mask = augmented(pixels, mask, seed, max_shift=self.max_shift)
            images.append(pixels)
            masks.append(mask)
        return to_batch(items, images, masks, self.spec)

    def _place(self, position: int) -> tuple[int, int]:
        epoch, offset = divmod(position, len(self.items))
        if epoch not in self._orders:
            if len(self._orders) > 2:
                self._orders.clear()
            rng = np.random.default_rng(digest(self.seed, "order", epoch))
            self._orders[epoch] = rng.permutation(len(self.items))
        return epoch, int(self._orders[epoch][offset])


def augmented(
    image: NDArray[np.float32], mask: NDArray[np.uint8] | None, seed: int, *, max_shift: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Change gain (0.85-1.15) and offset (+-15 of 255) of pictures, and shift them and the mask by a few pixels.

    Args:
        image: (pictures, height, width) or (pictures, height, width, 3) in 0..255; all are changed alike.
        mask: (height, width), or None.
        seed: Of the draws.
        max_shift: Largest shift in pixels on either axis.
    """
    rng = np.random.default_rng(seed)
    gain, offset = rng.uniform(0.85, 1.15), rng.uniform(-15.0, 15.0)
    down, right = rng.integers(-max_shift, max_shift + 1, size=2)
    moved = np.stack([shifted(picture, down, right) for picture in image])
    image = np.clip(moved * np.float32(gain) + np.float32(offset), 0, 255)
    return image, None if mask is None else shifted(mask, down, right)


def shifted(image: NDArray[Pixel], down: int, right: int) -> NDArray[Pixel]:
    """Shift by whole pixels, repeating the edge."""
    rows = np.clip(np.arange(image.shape[0]) - down, 0, image.shape[0] - 1)
    columns = np.clip(np.arange(image.shape[1]) - right, 0, image.shape[1] - 1)
    return image[rows[:, None], columns]

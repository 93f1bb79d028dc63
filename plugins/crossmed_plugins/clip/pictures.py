"""What the image tower looks at: the whole image, or one crop per candidate region. uint8 RGB throughout."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import BLANK, decode_mask, read_image
from crossmed_core.training.data import InputSpec
from crossmed_core.types import RLE, Item
from crossmed_plugins.clip.prompts import is_choice

RESIZE = ("longest", "squash", "shortest")
"""How an image becomes square: padded, distorted, or cut off at its ends (open_clip's `resize_mode`)."""
MARGIN = 0.25
"""What a crop shows around its region, as a share of the longer side of the region's box."""


@dataclass(frozen=True)
class ClipInput(InputSpec):
    """The input of a CLIP image tower.

    A choice among regions is shown as one crop per region, cut from the image without the marks drawn on it. A withheld
    image is mid grey, as a blank one is: an image tower has no other way to see nothing.

    Attributes:
        resize: One of `RESIZE`.
        interpolation: "bicubic" or "bilinear".
        margin: See `MARGIN`.
    """

    resize: str = "longest"
    interpolation: str = "bicubic"
    margin: float = MARGIN

    def pictures(self, item: Item) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Open the image, or the crops of a choice, at the tower's size.

        Returns:
            uint8 (pictures, size, size, 3), and the image's own (height, width).

        Raises:
            UnreadableImageError: If the image cannot be read, or a region is of another size.
        """
        if "image" in item.withheld:
            return np.full((1, self.size, self.size, 3), BLANK, np.uint8), (self.size, self.size)
        if not is_choice(item):
            image = rgb(read_image(item.image))
            return self.square(image)[None], (image.shape[0], image.shape[1])
        image = rgb(read_image(replace(item.image, marks=())))
        boxes = [crop_box(region, (image.shape[0], image.shape[1]), self.margin) for region in item.candidates]
        return np.stack([self.square(image[box]) for box in boxes]), (image.shape[0], image.shape[1])

    def square(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring an image to the tower's size, pixel by pixel as open_clip's own transform does.

        Args:
            image: uint8 (height, width, 3).

        Returns:
            uint8 (size, size, 3).
        """
        size, (height, width) = self.size, image.shape[:2]
        if self.resize == "squash":
            return self._scaled(image, size, size)
        if self.resize == "longest":
            longer = max(height, width)
            high, wide = max(1, round(height * size / longer)), max(1, round(width * size / longer))
            padded = np.zeros((size, size, 3), np.uint8)
            top, left = (size - high) // 2, (size - wide) // 2
            padded[top : top + high, left : left + wide] = self._scaled(image, high, wide)
            return padded
        shorter = min(height, width)
        high, wide = size * height // shorter, size * width // shorter
        top, left = round((high - size) / 2), round((wide - size) / 2)
        return self._scaled(image, high, wide)[top : top + size, left : left + size]

    def _scaled(self, image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
        if image.shape[:2] == (height, width):
            return image
        method = Image.Resampling.BILINEAR if self.interpolation == "bilinear" else Image.Resampling.BICUBIC
        return np.asarray(Image.fromarray(image).resize((width, height), method))


def count(item: Item) -> int:
    """Return how many pictures of an item `ClipInput` makes."""
    return len(item.candidates) if is_choice(item) and "image" not in item.withheld else 1


def rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat a grey image (height, width) in three channels."""
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def crop_box(region: RLE, shape: tuple[int, int], margin: float) -> tuple[slice, slice]:
    """Return the rows and columns that a region is shown with; the whole image for an empty region.

    Args:
        region: In the image's own pixels.
        shape: (height, width) of the image.
        margin: Added on every side, as a share of the longer side of the region's box; cut off at the image's edges.

    Raises:
        UnreadableImageError: If the region is of another size than the image.
    """
    mask = decode_mask(region)
    if mask.shape != shape:
        raise UnreadableImageError(f"a candidate region has size {mask.shape}, the image {shape}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return slice(0, shape[0]), slice(0, shape[1])
    added = round(margin * max(np.ptp(rows) + 1, np.ptp(columns) + 1))
    return (
        slice(max(0, int(rows[0]) - added), min(shape[0], int(rows[-1]) + added + 1)),
        slice(max(0, int(columns[0]) - added), min(shape[1], int(columns[-1]) + added + 1)),
    )

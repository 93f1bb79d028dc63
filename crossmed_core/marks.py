"""Regions drawn on an image as lettered contours, so that a model that outlines nothing can point at one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion

from crossmed_core.types import LETTERS

# Okabe and Ito's colours, told apart by the colour-blind too; one per letter, so that a colour says no more than it.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167))

LEAST_SIDE = 384
"""Images with a shorter longer side are enlarged before marks are drawn."""


def draw_marks(pixels: NDArray[np.uint8], regions: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Draw each region's contour just outside it, and its letter beside it.

    A small image is first enlarged by a whole number, pixels repeated, so that contours and letters cover little of it.

    Args:
        pixels: uint8 (height, width) or (height, width, 3).
        regions: bool (height, width), A first. The pixels of a region are covered by no contour but that of another
            region that overlaps or touches it.

    Returns:
        uint8 (height, width, 3) times the enlargement, a new array.
    """
    factor = -(-LEAST_SIDE // max(pixels.shape[:2]))
    canvas = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels.copy()
    canvas = canvas.repeat(factor, axis=0).repeat(factor, axis=1)
    regions = [region.repeat(factor, axis=0).repeat(factor, axis=1) for region in regions]
    side = max(canvas.shape[:2])
    width = max(1, side // 200)
    inside = np.any(regions, axis=0)
    for number, region in enumerate(regions):
        box = _around(region, width + 1)
        if box is None:
            continue
        part = region[box]
        ring = binary_dilation(part, iterations=width) & ~part
        if not ring.any():  # it fills the image: draw on its rim
            ring = part & ~binary_erosion(part, iterations=width)
        canvas[box][ring] = COLOURS[number % len(COLOURS)]
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(9, side // 22))
    taken: list[tuple[int, int, int, int]] = []
    for number, region in enumerate(regions):
        box = _around(region, 0)
        if box is None:
            continue
        letter = LETTERS[number]
        left, top, right, bottom = (int(one) for one in draw.textbbox((0, 0), letter, font=font))
        plate = right - left + 4, bottom - top + 4
        place = _free_place(box, plate, image.size, inside, taken)
        taken.append((*place, place[0] + plate[0], place[1] + plate[1]))
        draw.rectangle((*place, place[0] + plate[0] - 1, place[1] + plate[1] - 1), fill=(0, 0, 0))
        draw.text((place[0] + 2 - left, place[1] + 2 - top), letter, fill=COLOURS[number % len(COLOURS)], font=font)
    return np.asarray(image, dtype=np.uint8)


def _around(region: NDArray[np.bool_], margin: int) -> tuple[slice, slice] | None:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not rows.size:
        return None
    height, width = region.shape
    return (
        slice(max(0, int(rows[0]) - margin), min(height, int(rows[-1]) + margin + 1)),
        slice(max(0, int(columns[0]) - margin), min(width, int(columns[-1]) + margin + 1)),
    )


def _free_place(
    box: tuple[slice, slice],
    plate: tuple[int, int],
    size: tuple[int, int],
    inside: NDArray[np.bool_],
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int]:
    """Choose the top left corner of a letter's plate beside a region: off every region and every other letter."""
    wide, high = plate
    rows, columns = box
    gap = 2
    middle = (columns.start + columns.stop - wide) // 2, (rows.start + rows.stop - high) // 2
    wished = [
        (middle[0], rows.start - high - gap),
        (columns.stop + gap, middle[1]),
        (middle[0], rows.stop + gap),
        (columns.start - wide - gap, middle[1]),
        (columns.stop + gap, rows.start - high - gap),
        (columns.start - wide - gap, rows.stop + gap),
    ]

    def cost(place: tuple[int, int]) -> tuple[int, int]:
        x, y = place
        covered = int(np.count_nonzero(inside[y : y + high, x : x + wide]))
        on_letters = sum(x < right and left < x + wide and y < bottom and top < y + high
                         for left, top, right, bottom in taken)  # fmt: skip
        return on_letters, covered

    kept = [(min(max(0, x), size[0] - wide), min(max(0, y), size[1] - high)) for x, y in wished]
    return min(kept, key=lambda place: (*cost(place), kept.index(place)))

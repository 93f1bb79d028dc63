"""Pictures of items: one with its region outlined, and contact sheets."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from crossmed_core.benchmark import Benchmark
from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import decode_mask, read_image, read_mask
from crossmed_core.runlog import write_bytes, writing
from crossmed_core.types import MAT, RLE, Item
from crossmed_core.vocabulary import words

TILE = 128
LABEL = 18
OUTLINE = (255, 96, 64)
TRUE, PREDICTED, BOTH = (0, 220, 0), (255, 40, 40), (255, 220, 0)
"""Contours of a case; where the two coincide they are yellow."""


def outlined(item: Item, side: int) -> Image.Image:
    """Return an item's image in RGB, its longer side `side` pixels, with the true region outlined or its marks drawn.

    Raises:
        UnreadableImageError: If image or mask cannot be read.
    """
    image = _resized(read_image(item.image), side)
    if item.mask is not None and item.kind == "mask":  # a choice is shown as a model sees it
        mask = Image.fromarray(read_mask(item.mask)).resize(image.size, Image.Resampling.NEAREST)
        region = np.asarray(mask, dtype=bool)
        edge: NDArray[np.bool_] = region & ~binary_erosion(region)
        canvas = np.asarray(image).copy()
        canvas[edge] = OUTLINE
        image = Image.fromarray(canvas)
    return image


def _resized(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    image = Image.fromarray(pixels).convert("RGB")
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Nearest when enlarging: the pixels are shown as they are.
    return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR)


def save_item(item: Item, path: Path) -> None:
    """Write one item's picture, 512 pixels wide, as PNG."""
    _save(outlined(item, 512), path)


def save_case(
    item: Item, regions: tuple[RLE | None, RLE | None], caption: Sequence[str], path: Path, *, side: int = 512
) -> None:
    """Write an answered item's picture as PNG: the true region's contour in green, the predicted one's in red.

    Args:
        item: The item; its image is read without marks.
        regions: The true and the predicted region, at the size of the image; None = nothing to draw.
        caption: Lines below the picture.
        path: PNG to write.
        side: Longer side of the image, pixels.

    Raises:
        UnreadableImageError: If the image or a region cannot be read, or their sizes differ.
    """
    pixels = read_image(replace(item.image, marks=()))
    image = _resized(pixels, side)
    edges = []
    for region in regions:
        mask = np.zeros(pixels.shape[:2], dtype=bool) if region is None else decode_mask(region)
        if mask.shape != pixels.shape[:2]:
            raise UnreadableImageError(f"{item.id}: a region is {mask.shape}, the image {pixels.shape[:2]}")
        large = np.asarray(Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST), dtype=bool)
        # Along the border of the picture too: there a region ends as well.
        edges.append(large & ~binary_erosion(large, iterations=max(1, side // 256)))
    canvas = np.asarray(image).copy()
    canvas[edges[0]], canvas[edges[1]], canvas[edges[0] & edges[1]] = TRUE, PREDICTED, BOTH
    font = ImageFont.load_default(14)
    framed = Image.new("RGB", (image.width, image.height + 20 * len(caption)), "black")
    framed.paste(Image.fromarray(canvas))
    for number, line in enumerate(caption):
        ImageDraw.Draw(framed).text((4, image.height + 20 * number + 1), line, fill="white", font=font)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    _save(framed, path)


def save_sheet(benchmark: Benchmark, path: Path) -> None:
    """Write a contact sheet: a column per modality, a row per anatomy and task, the first test items, labels below.

    Args:
        benchmark: What to show; generated images are drawn if missing.
        path: PNG to write.
    """
    cells = sorted(benchmark.questions)
    modalities = list(dict.fromkeys(cell.modality for cell in cells))
    rows = list(dict.fromkeys((cell.anatomy, cell.task) for cell in sorted(cells, key=lambda c: (c.anatomy, c.task))))
    # Another item in every row, so that a sheet shows many findings, grades and places.
    firsts: dict[MAT, list[str]] = {}
    for key in benchmark.keys.values():
        if key.part == "test":
            firsts.setdefault(key.mat, []).append(key.id)
    margin = 150
    height = TILE + LABEL
    sheet = Image.new("RGB", (margin + len(modalities) * TILE, 24 + len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for column, modality in enumerate(modalities):
        draw.text((margin + column * TILE + 4, 5), words(modality), fill="black", font=font)
    for row, (anatomy, task) in enumerate(rows):
        top = 24 + row * height
        draw.text((6, top + TILE // 2 - 14), f"{words(anatomy)}\n{task}", fill="black", font=font)
        for column, modality in enumerate(modalities):
            ids = firsts.get(MAT(modality, anatomy, task), [])
            if not ids:
                continue
            item_id = ids[(row * len(modalities) + column) % len(ids)]
            benchmark.materialise([item_id])
            item = benchmark.items([item_id])[0]
            left = margin + column * TILE
            try:
                sheet.paste(outlined(item, TILE - 2), (left, top))
                caption = item.label or "true region"
            except UnreadableImageError:
                caption = "unreadable"
            draw.text((left + 2, top + TILE), caption, fill="black", font=font)
    _save(sheet, path)


def _save(image: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())

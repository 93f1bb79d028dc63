"""Made-up items for checks: what they show is as plain as can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from crossmed_core.images import encode_mask
from crossmed_core.seeding import digest
from crossmed_core.types import MAT, ImageRef, Item, MaskRef, Part

LABELS = ("dark", "dim", "light", "bright")
CELL = MAT("xray", "chest", "finding")
MASK_CELL = MAT("xray", "chest", "segmentation")
SIDE = 64


def option_item(number: int, folder: Path, *, part: Part = "train", labels: tuple[str, ...] = LABELS) -> Item:
    """Make an item whose label is its image's brightness: a network that learns at all learns this."""
    label = labels[number % len(labels)]
    rng = np.random.default_rng(digest("item", number, part))
    level = 40 + 170 * labels.index(label) // max(1, len(labels) - 1)
    pixels = np.clip(rng.normal(level, 8, (SIDE, SIDE)), 0, 255).astype(np.uint8)
    path = folder / f"{part}-{number}.png"
    Image.fromarray(pixels).save(path)
    options = tuple(sorted(labels, key=lambda option: digest(number, part, option)))
    return Item(
        id=f"{part}-{number}",
        dataset="made-up",
        mat=CELL,
        patient=f"{part}-{number}",
        part=part,
        image=ImageRef(str(path)),
        question="How bright is this image?",
        options=options,
        answer=options.index(label),
        label=label,
    )


def mask_item(number: int, folder: Path, *, part: Part = "train") -> Item:
    """Make an item with a bright square on a dark ground; the square is the answer."""
    rng = np.random.default_rng(digest("mask item", number, part))
    top, left = rng.integers(4, 28, size=2)
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[top : top + 24, left : left + 24] = True
    pixels = np.clip(rng.normal(50, 8, (SIDE, SIDE)) + 140 * mask, 0, 255).astype(np.uint8)
    path = folder / f"mask-{part}-{number}.png"
    Image.fromarray(pixels).save(path)
    return Item(
        id=f"mask-{part}-{number}",
        dataset="made-up",
        mat=MASK_CELL,
        patient=f"mask-{part}-{number}",
        part=part,
        image=ImageRef(str(path)),
        question="Outline the bright square.",
        mask=MaskRef(rle=encode_mask(mask)),
    )


def items_for(answers: frozenset[str], count: int, folder: Path, *, part: Part = "train") -> list[Item]:
    """Make `count` items of each kind that a model answers."""
    items = []
    if "option" in answers:
        items += [option_item(number, folder, part=part) for number in range(count)]
    if "mask" in answers:
        items += [mask_item(number, folder, part=part) for number in range(count)]
    return items

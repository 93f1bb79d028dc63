"""SIIM-ACR's run lengths: relative, 0-based, down the columns; several per image are joined.

The rule is the competition's own `mask_functions.py`: a row of `train-rle.csv` alternates the gap since the end of the
previous run (the first counts from pixel 0) and a length. It fills a flat array and returns it as (width, height), so
that callers have to transpose: pixel (row, column) is number column x height + row. Most other Kaggle run lengths give
absolute, 1-based starts instead.

COCO's runs go down the columns too. So a row of SIIM *is* COCO's counts without the last background run, and both
directions stay with the runs and never touch single pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from crossmed_core.images import decode_mask, encode_mask
from crossmed_core.types import RLE

Run = tuple[int, int]
"""First pixel and the one after the last, counted down the columns."""


def is_blank(text: str) -> bool:
    """Whether a cell says nothing at all."""
    return text.strip().lower() in ("", "nan")


def is_negative(text: str) -> bool:
    """Whether a cell says "no pneumothorax": -1, compared as a number, for it is written " -1", "-1" or "-1.0"."""
    try:
        return float(text) == -1
    except ValueError:
        return False


def runs(text: str, pixels: int) -> list[Run]:
    """Read one row's run lengths.

    Args:
        text: Gaps and lengths by turns; -1 and blank text add nothing.
        pixels: Height x width of the image.

    Raises:
        ValueError: If it is not made of whole numbers from 0, their count is odd, or they end past the image.
    """
    if is_blank(text) or is_negative(text):
        return []
    try:
        numbers = [int(word) for word in text.split()]
    except ValueError:
        raise ValueError("its run lengths are not all whole numbers") from None
    if len(numbers) % 2:
        raise ValueError(f"its run lengths are {len(numbers)} numbers; gaps and lengths by turns need an even count")
    if min(numbers) < 0:
        raise ValueError(f"its run lengths hold a negative number ({min(numbers)})")
    edges = list(accumulate(numbers))
    if edges[-1] > pixels:
        raise ValueError(f"its run lengths end at pixel {edges[-1]}, but the image has {pixels}")
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]


def joined(marked: Iterable[Run], height: int, width: int) -> RLE:
    """Return the union of runs in COCO's form, as `crossmed_core.images.encode_mask` would write it.

    183 of the 624 images with several rows have overlapping ones: a sum would count pixels twice, and the last row
    alone would lose the others.
    """
    counts: list[int] = []
    done = 0
    for start, end in sorted(marked):
        if counts and start <= done:  # overlaps or touches the run before
            counts[-1] += max(0, end - done)
            done = max(done, end)
        else:
            counts += [start - done, end - start]
            done = end
    if done < height * width:
        counts.append(height * width - done)
    return RLE((height, width), tuple(counts))


def decode(strings: Iterable[str], height: int, width: int) -> NDArray[np.bool_]:
    """Decode all rows of an image.

    Returns:
        bool array of shape (height, width), True on the pneumothorax.

    Raises:
        ValueError: As `runs`.

    Example:
        >>> np.argwhere(decode(["5 2 11 1"], height=4, width=6)).tolist()
        [[1, 1], [2, 1], [2, 4]]
    """
    return decode_mask(joined((run for text in strings for run in runs(text, height * width)), height, width))


def encode(mask: NDArray[np.bool_]) -> str:
    """Encode a (height, width) mask as one row; "-1" if it is empty.

    Example:
        >>> encode(decode(["5 2 11 1"], height=4, width=6))
        '5 2 11 1'
    """
    counts = encode_mask(mask).counts
    return " ".join(map(str, counts[: len(counts) // 2 * 2])) or "-1"

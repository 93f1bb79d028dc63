"""Areas of masks and of their overlap, in pixels, from run lengths as they are: no pixel is decoded.

A 1024 x 1024 mask of one region has some hundreds of runs and a million pixels. Only a truth that lies in an image file
is compared pixel by pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossmed_core.images import decode_mask, encode_mask, read_mask
from crossmed_core.types import RLE, MaskRef

Counts = NDArray[np.int64]


class _Runs(NamedTuple):
    """A mask over its pixels in column-major order.

    Attributes:
        ends: Where each run ends, shape (runs,); background and foreground alternate, background first.
        foreground: Foreground pixels before that place, shape (runs,).
    """

    ends: Counts
    foreground: Counts


def _runs(rle: RLE) -> _Runs:
    """Return the runs of a mask, none but the first of length 0.

    Raises:
        UnreadableImageError: If the runs do not fill the mask.
    """
    height, width = rle.size
    # Python's integers do not overflow, whatever a file holds.
    if sum(rle.counts) != height * width or min(rle.counts, default=0) < 0:
        decode_mask(rle)  # raises, and says what is wrong
    lengths = np.fromiter(rle.counts, dtype=np.int64, count=len(rle.counts))
    if not len(lengths) or (lengths[1:] == 0).any():
        # Runs of length 0 inside, which `encode_mask` does not write.
        lengths = np.array(encode_mask(decode_mask(rle)).counts, dtype=np.int64)
    inside = lengths.copy()
    inside[::2] = 0
    return _Runs(lengths.cumsum(), inside.cumsum())


def area(truth: MaskRef) -> tuple[float, float]:
    """Return the foreground's area and the image's, in pixels.

    Raises:
        UnreadableImageError: If the mask cannot be read, or its runs do not fill it.
    """
    if truth.rle is None:
        mask = read_mask(truth)
        return float(np.count_nonzero(mask)), float(mask.size)
    runs = _runs(truth.rle)
    return float(runs.foreground[-1]), float(runs.ends[-1])


def overlap(truth: MaskRef, guess: RLE) -> tuple[float, float, float]:
    """Return |P and G|, |P|, |G| in pixels of a guess P and a truth G.

    Raises:
        ValueError: If the two masks differ in size.
        UnreadableImageError: If a mask cannot be read, or its runs do not fill it.
    """
    if truth.rle is None:
        pixels = read_mask(truth)
        _require_equal(pixels.shape, guess.size)
        chosen = decode_mask(guess)
        both = np.count_nonzero(pixels & chosen)
        return float(both), float(np.count_nonzero(chosen)), float(np.count_nonzero(pixels))
    _require_equal(truth.rle.size, guess.size)
    true, predicted = _runs(truth.rle), _runs(guess)
    # The predicted pixels before a place grow linearly between the ends of runs; what they grow by along the true runs
    # is the intersection (float64 is exact below 2^53 pixels). Places before the first end have none before them, as
    # the first run is background.
    before = np.interp(true.ends, predicted.ends, predicted.foreground)
    both = (before[1::2] - before[:-1:2]).sum()
    return float(both), float(predicted.foreground[-1]), float(true.foreground[-1])


def _require_equal(true: tuple[int, ...], predicted: tuple[int, ...]) -> None:
    if tuple(true) != tuple(predicted):
        raise ValueError(f"the predicted mask is {tuple(predicted)}, the image {tuple(true)}")

"""Near-duplicates: images that show the same picture edited, cropped a little, flipped or turned by quarters.

Chests, and slices of heads, of different people look alike, so that a perceptual hash alone would accuse innocents.
Three tests follow each other, each of which looks only at what the one before it lets through:

1. perceptual hashes (pHash of `imagehash`, 64 bits) of the one image and of the other in each of the eight ways of
   flipping and turning it are at most `HAMMING` bits apart;
2. the detail of small grey versions, without slow shading and as strong everywhere, has a multiple correlation of at
   least `COARSE` after the best small shift and stretch to first order (Lucas and Kanade, 1981);
3. at twice the size, after that alignment is refined, the correlation is at least `CORRELATION`.

A copy that was cropped by more than about 2 % a side, turned by another angle, drawn upon, padded, inverted or whose
grey values were windowed or equalised anew, may pass unseen; so may one of a picture that is exactly symmetric (an
atlas, no patient), half of whose hash is noise.
`benchmarks/leaks.py` measures the thresholds anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossmed_core.images import pixel_digest

SIDE = 64
"""Side of the grey thumbnails, pixels: the phantom's own size; finer detail would not survive JPEG and resizing."""

HAMMING = 8
"""Bits of 64. A copy at another contrast, as JPEG or smaller is at most 8 off, a few per cent of those cropped by 2 %
more; different people of one modality and anatomy are sometimes as near as 0."""

COARSE = 0.94
"""Cropped copies reach 0.94 to 0.97, others 0.97 and more; of different people's within `HAMMING` half or fewer do."""

CORRELATION = 0.992
"""Above what different people reach: 0.9904 in 4.2 million pairs of the phantom's X-rays, the most alike of its cells,
each in eight ways; 0.89 between two real heads. (Neighbouring slices of one head, a millimetre apart, are above.)
Copies stay above: JPEG of quality 75, 80 % of the size, another brightness, a crop of 1 %, and these with a flip or a
quarter turn, reach 0.992 to 1."""

HOPELESS = 0.975
"""A pair that correlates less after one correction of its alignment is given up: copies have 0.987 and more by then."""

STEPS = 3
"""Comparisons of a pair, with a correction between each and the next; a third correction changes nothing."""

MOST = 0.03
"""Largest shift, as a share of the side; twice that for a stretch: a little more than a crop of 2 % a side needs."""

FLATTEST = 2.0
"""Standard deviation, grey levels of 255, below which a thumbnail shows nothing: its hash would be noise."""

ROWS = 64
"""Test images compared with all training images at once; bounds the memory to ROWS x training images x 8 bytes."""

DIHEDRAL = (
    "as it is",
    "turned by 90 degrees clockwise",
    "turned by 180 degrees",
    "turned by 90 degrees counter-clockwise",
    "flipped left-right",
    "flipped about the diagonal",
    "flipped top-bottom",
    "flipped about the other diagonal",
)
"""The eight ways of laying a square on itself: what was done to the training image to make the test image. `_laid` does
the opposite to the test image, in this order."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Signature:
    """What is remembered of an image.

    Attributes:
        digest: `images.pixel_digest` of the decoded pixels; None for an image of one value, which is nobody's own.
        thumbnail: uint8 (SIDE, SIDE), grey; None if it shows nothing (`FLATTEST`).
        phash: 64-bit perceptual hash of the thumbnail; 0 without one.
    """

    digest: str | None
    thumbnail: NDArray[np.uint8] | None
    phash: int = 0


def signature(pixels: NDArray[np.uint8], digest: str | None = None) -> Signature:
    """Reduce an image to its signature.

    Args:
        pixels: uint8 (height, width) or (height, width, 3).
        digest: Its pixel digest, where known.
    """
    from PIL import Image

    if int(pixels.min()) == int(pixels.max()):
        return Signature(None, None)
    digest = digest or pixel_digest(pixels)
    # The reducing gap makes large radiographs several times faster and changes a thumbnail by a grey level or so.
    small = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    thumbnail = np.asarray(small, dtype=np.uint8)
    if float(thumbnail.std()) < FLATTEST:
        return Signature(digest, None)
    return Signature(digest, thumbnail, _phash(thumbnail))


def _phash(thumbnail: NDArray[np.uint8]) -> int:
    import imagehash
    from PIL import Image

    bits = imagehash.phash(Image.fromarray(np.ascontiguousarray(thumbnail))).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@dataclass(frozen=True)
class Match:
    """A near-duplicate: places in the two lists, which of `DIHEDRAL` was done, and how alike they are without it."""

    train: int
    test: int
    laid: str
    distance: int
    correlation: float

    def __str__(self) -> str:
        how = "" if self.laid == DIHEDRAL[0] else f" ({self.laid})"
        return f"near-duplicate{how}, pHash distance {self.distance}, correlation {self.correlation:.3f}"


def near_duplicates(
    train: Sequence[Signature], test: Sequence[Signature], counts: dict[str, int] | None = None
) -> Iterator[Match]:
    """Yield every near-duplicate, by test image.

    Args:
        train: Signatures with a thumbnail.
        test: Likewise.
        counts: "candidates" and "examined" are counted up here.
    """
    counts = {} if counts is None else counts
    if not train or not test:
        return
    hashes = np.array([one.phash for one in train], dtype=np.uint64)
    coarse: Floats | None = None
    for start in range(0, len(test), ROWS):
        block = [_laid(one.thumbnail) for one in test[start : start + ROWS] if one.thumbnail is not None]
        turned = np.array([[_phash(one) for one in ways] for ways in block], dtype=np.uint64)
        for way in range(len(DIHEDRAL)):
            distances = np.bitwise_count(hashes[None, :] ^ turned[:, way, None])
            for row in np.flatnonzero((distances <= HAMMING).any(axis=1)):
                near = np.flatnonzero(distances[row] <= HAMMING)
                counts["candidates"] = counts.get("candidates", 0) + int(near.size)
                if coarse is None:  # most pairs of splits have no candidates
                    coarse = _coarse(np.stack([one.thumbnail for one in train if one.thumbnail is not None]))
                basis = _movements(_coarse(block[row][way][None])[0])
                likeness = np.linalg.norm(coarse[near] @ basis, axis=1)
                for place in near[likeness >= COARSE]:
                    counts["examined"] = counts.get("examined", 0) + 1
                    mine = train[place].thumbnail
                    assert mine is not None
                    value = aligned_correlation(mine, block[row][way])
                    if value >= CORRELATION:
                        yield Match(int(place), start + int(row), DIHEDRAL[way], int(distances[row, place]), value)


def _laid(thumbnail: NDArray[np.uint8] | None) -> list[NDArray[np.uint8]]:
    """Undo each of `DIHEDRAL`."""
    assert thumbnail is not None
    return [np.rot90(one, quarter) for one in (thumbnail, thumbnail[:, ::-1]) for quarter in range(4)]


def _detail(grey: Floats, fine: float, shading: float) -> Floats:
    """Return the detail of pictures (..., side, side), everywhere about equally strong.

    What varies slower than `shading` (shape of the body) or faster than `fine` (noise; standard deviations in pixels)
    is taken out; then every place is divided by the strength of its surroundings, so that a skull that all heads have
    in common does not outweigh the brain. A tenth of the overall strength is added, so that flat places stay flat.
    """
    from scipy.ndimage import gaussian_filter

    axes = (-2, -1)
    smooth = gaussian_filter(grey, fine, axes=axes, mode="nearest")
    band = smooth - gaussian_filter(grey, shading, axes=axes, mode="nearest")
    power = gaussian_filter(np.square(band), shading, axes=axes, mode="nearest")
    floor = np.square(0.1 * band.std(axis=axes, keepdims=True)) + 1e-6
    detail: Floats = band / np.sqrt(power + floor)
    return detail


def _coarse(thumbnails: NDArray[np.uint8]) -> Floats:
    """Return the detail of thumbnails (n, SIDE, SIDE) at half their size as unit vectors (n, SIDE * SIDE / 4)."""
    n = len(thumbnails)
    half = thumbnails.reshape(n, SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4), dtype=np.float32)
    flat = _detail(half, 0.7, 3.0).reshape(n, -1)
    flat -= flat.mean(axis=1, keepdims=True)
    unit: Floats = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return unit


def _slopes(picture: Floats) -> Floats:
    """Return how a square picture changes when it is shifted and stretched along x and y: (pixels, 4)."""
    side = len(picture)
    down, across = np.gradient(picture)
    place = (np.arange(side, dtype=np.float32) - (side - 1) / 2) / side
    moves = (across, down, across * place[None, :], down * place[:, None])
    return np.stack([one.ravel() for one in moves], axis=1).astype(np.float32)


def _movements(vector: Floats) -> Floats:
    """Return an orthonormal basis (pixels, 5) of a coarse picture and its small shifts and stretches.

    The length of another unit vector's projection on it is their multiple correlation.
    """
    side = SIDE // 2
    columns = np.column_stack([vector, _slopes(vector.reshape(side, side))])
    basis: Floats = np.linalg.qr(columns - columns.mean(axis=0))[0]
    return basis


def aligned_correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the correlation of two thumbnails' detail after the best small shift and stretch of the second.

    Args:
        one: uint8 (SIDE, SIDE).
        other: Likewise; it is the one that is moved.

    Returns:
        -1 to 1; a margin of a sixteenth is left out, as a crop may lack it. Pairs below `HOPELESS` after one
        correction are not corrected further.
    """
    from scipy.ndimage import affine_transform, spline_filter

    margin = SIDE // 16
    inner = (slice(margin, -margin), slice(margin, -margin))
    target = _detail(one.astype(np.float32), 1.0, 4.0)[inner].ravel()
    moving = spline_filter(other.astype(np.float32), order=3, mode="nearest", output=np.float32)
    middle = (SIDE - 1) / 2
    stretch, shift = np.ones(2), np.zeros(2)  # along y, x
    best = -1.0
    for step in range(STEPS):
        warped = affine_transform(
            moving, stretch, middle + shift - stretch * middle, order=3, mode="nearest", prefilter=False
        )
        picture = _detail(warped, 1.0, 4.0)
        shown = picture[inner].ravel()
        best = max(best, float(np.corrcoef(shown, target)[0, 1]))
        if step == STEPS - 1 or (step == 1 and best < HOPELESS):
            break
        slopes = _slopes(picture).reshape(SIDE, SIDE, 4)[inner].reshape(-1, 4)
        columns = np.column_stack([shown, slopes, np.ones_like(shown)]).astype(np.float64)
        weights = np.linalg.lstsq(columns.T @ columns, columns.T @ target, rcond=None)[0]
        if weights[0] <= 0:
            break
        across, down, wide, high = weights[1:5] / weights[0]
        shift = shift + np.array([down, across])
        stretch = stretch + np.array([high, wide]) / SIDE
        if np.abs(shift).max() > MOST * SIDE or np.abs(stretch - 1).max() > 2 * MOST:
            break
    return best

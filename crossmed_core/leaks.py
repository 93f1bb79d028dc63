"""Proof by pixels that no test image was trained on: not renamed, re-encoded, edited, flipped or turned.

Ids and patients say who should be on which side (`crossmed_core.splits.prove`); a download that repeats an image under
another name or patient is caught here. Two images are the same if their decoded pixels are, whatever files hold them;
what counts as a near-duplicate is said in `crossmed_core.near_duplicates`. The proof says what it compared, and not
more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import read_image
from crossmed_core.near_duplicates import COARSE, CORRELATION, HAMMING, Signature, near_duplicates, signature
from crossmed_core.splits import SplitViolationError
from crossmed_core.types import ImageRef, Item

LISTED = 100
"""Near-duplicates that a card lists."""


class SignatureCache:
    """Signatures of this process, so that a worker opens an image once over many trials.

    A file that changed (size or time of change) is opened again.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Signature | None] = {}

    def get(self, ref: ImageRef) -> Signature | None:
        """Return the signature of an image without its marks; None if it cannot be read."""
        plain = replace(ref, marks=(), blank=False)
        try:
            file = Path(ref.path).stat()
        except OSError:
            return None
        key = (plain, file.st_size, file.st_mtime_ns)
        if key not in self._known:
            try:
                pixels = read_image(plain)
            except UnreadableImageError:
                self._known[key] = None
            else:
                self._known[key] = signature(pixels, plain.pixels)
        return self._known[key]


@dataclass(frozen=True)
class ImageProof:
    """That no test image was trained on, and what was looked at to say so.

    Attributes:
        compared: In words.
        train: Training (and validation) images.
        test: Test images.
        hamming: `HAMMING`, bits of 64.
        coarse: `COARSE`.
        correlation: `CORRELATION`.
        candidates: Pairs within `hamming`, over the eight ways of laying the test image.
        examined: Pairs of them that were aligned and compared at full size.
        unreadable: Images that could not be read: they are nobody's copy.
        flat: Images that show nothing, compared by their pixels alone.
        result: In words.
        near_duplicates: Near-duplicates that were reported instead of refused, in words; at most `LISTED` of them.
    """

    compared: str
    train: int
    test: int
    hamming: int
    coarse: float
    correlation: float
    candidates: int
    examined: int
    unreadable: int
    flat: int
    result: str
    near_duplicates: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the proof as JSON, for split.json."""
        return asdict(self)


def prove_images(
    train: Sequence[Item], test: Sequence[Item], signatures: SignatureCache, *, refuse: bool = True
) -> ImageProof:
    """Compare every test image with every training image.

    Args:
        train: Training and validation items.
        test: Test items.
        signatures: The cache of the process.
        refuse: Whether a near-duplicate is refused, or only reported. Equal pixels are always refused.

    Returns:
        The proof.

    Raises:
        SplitViolationError: If a test image was trained on; names both items, patients and files, and what matched.
    """
    known = [[(item, signatures.get(item.image)) for item in side] for side in (train, test)]
    readable = [[(item, found) for item, found in side if found is not None] for side in known]
    first: dict[str, Item] = {}
    for item, found in readable[0]:
        if found.digest is not None:
            first.setdefault(found.digest, item)
    for item, found in readable[1]:
        other = first.get(found.digest or "")
        if other is not None:
            raise _violation(other, item, _how_identical(other.image, item.image))
    shown = [[(item, found) for item, found in side if found.thumbnail is not None] for side in readable]
    counts = {"candidates": 0, "examined": 0}
    reported: list[str] = []
    for match in near_duplicates([found for _, found in shown[0]], [found for _, found in shown[1]], counts):
        violation = _violation(shown[0][match.train][0], shown[1][match.test][0], str(match))
        if refuse:
            raise violation
        reported.append(violation.message)
    return ImageProof(
        compared="decoded pixels; perceptual hashes under flips and quarter turns, confirmed by aligned correlation",
        train=len(train),
        test=len(test),
        hamming=HAMMING,
        coarse=COARSE,
        correlation=CORRELATION,
        unreadable=sum(found is None for side in known for _, found in side),
        flat=sum(len(side) for side in readable) - sum(len(side) for side in shown),
        result=f"{len(reported)} near-duplicates, reported" if reported else "no test image was trained on",
        near_duplicates=tuple(reported[:LISTED]),
        **counts,
    )


def _violation(train: Item, test: Item, how: str) -> SplitViolationError:
    def named(item: Item) -> str:
        slice_of = f", slice {item.image.axial}" if item.image.axial is not None else ""
        return f"{item.id!r} (patient {item.patient!r} of {item.dataset}, {item.image.path}{slice_of})"

    return SplitViolationError(
        f"test item {named(test)} shows the image of training item {named(train)}: {how}.",
        hint="Leave one of the two out of the benchmark, or give both the same patient. If they are no copies, "
        "--near-duplicates report lists such pairs in split.json and goes on.",
    )


def _how_identical(one: ImageRef, other: ImageRef) -> str:
    try:
        if one.axial is None and other.axial is None and Path(one.path).read_bytes() == Path(other.path).read_bytes():
            return "identical file bytes"
    except OSError:
        pass  # the digests are equal all the same
    return "identical pixels"

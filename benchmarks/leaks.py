"""Near-duplicates: how fast images are hashed and compared, and what tells copies from other people.

python benchmarks/leaks.py [--people 400]

Copies and others are of the phantom, every modality and anatomy: others are different bodies, in the eight ways of
flipping and turning. The thresholds of `crossmed_core.near_duplicates` come from here.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossmed_core import near_duplicates as near
from crossmed_plugins.phantom.render import ANATOMIES, MODALITIES, TASKS, PhantomKey, render

Picture = NDArray[np.uint8]
TRAIN, TEST, NAIVE = 15_000, 2_000, 100


def people(modality: str, anatomy: str, n: int) -> list[Picture]:
    """Draw n bodies, at 64 pixels."""
    keys = [PhantomKey(modality, anatomy, TASKS[i % 4], "train", i // 4, seed=0) for i in range(n)]
    return [render(key).image for key in keys]


def jpeg(picture: Picture) -> Picture:
    """Compress at quality 75."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


def smaller(picture: Picture) -> Picture:
    """Resize to 80 %."""
    side = round(0.8 * len(picture))
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))


def noisy(picture: Picture) -> Picture:
    """Add noise of 3 grey levels."""
    return np.clip(np.rint(picture + np.random.default_rng(0).normal(0, 3, picture.shape)), 0, 255).astype(np.uint8)


COPIES: dict[str, Callable[[Picture], Picture]] = {
    "as it is": lambda picture: picture,
    "brighter by 20": lambda picture: np.clip(picture.astype(int) + 20, 0, 255).astype(np.uint8),
    "contrast 0.7": lambda picture: (picture * 0.7 + 10).astype(np.uint8),
    "gamma 0.7": lambda picture: np.rint(255 * (picture / 255) ** 0.7).astype(np.uint8),
    "JPEG 75": jpeg,
    "80 % of the size": smaller,
    "noise": noisy,
    "crop 1.6 % a side": lambda picture: picture[1:-1, 1:-1],
    "crop 1.6 %, two sides": lambda picture: picture[1:, 1:],
    "flip, JPEG": lambda picture: jpeg(picture[:, ::-1]),
    "turn, JPEG": lambda picture: jpeg(np.rot90(picture)),
    "crop, 80 %, flip, JPEG": lambda picture: jpeg(smaller(picture[1:-1, 1:-1])[:, ::-1]),
}


def separation(n: int) -> None:
    """Print how many copies are found, and how alike different bodies come out."""
    everyone = [picture for m in MODALITIES for a in ANATOMIES for picture in people(m, a, 10)]
    known = [near.signature(picture) for picture in everyone]
    print(f"copies of {len(everyone)} images found")
    for name, change in COPIES.items():
        found = sum(
            any(near.near_duplicates([mine], [near.signature(change(picture))]))
            for mine, picture in zip(known, everyone, strict=True)
        )
        print(f"  {name:24} {found / len(everyone):7.1%}")
    threshold, near.CORRELATION = near.CORRELATION, -1.0  # now see what they reach
    print(f"different bodies: pairs of {n - n // 4} x {n // 4} in eight ways (accused at {threshold})")
    for modality in MODALITIES:
        for anatomy in ANATOMIES:
            bodies = [near.signature(picture) for picture in people(modality, anatomy, n)]
            counts: dict[str, int] = {}
            started = time.perf_counter()
            reached = [one.correlation for one in near.near_duplicates(bodies[n // 4 :], bodies[: n // 4], counts)]
            took = time.perf_counter() - started
            top = max(reached, default=float("nan"))
            print(f"  {modality:5} {anatomy:8} most alike {top:.4f}  {counts}  {took:.1f} s", flush=True)
    near.CORRELATION = threshold


def speed() -> None:
    """Time hashing, and the search among hashes of unlike images against a double loop over a part."""
    pictures = [np.kron(one, np.ones((8, 8), np.uint8)) for one in people("xray", "chest", 100)]  # 512 pixels wide
    started = time.perf_counter()
    for picture in pictures:
        near.signature(picture)
    print(f"signatures: {len(pictures) / (time.perf_counter() - started):.0f} images of 512 x 512 a second")

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (TRAIN + TEST, near.SIDE, near.SIDE), dtype=np.uint8)
    hashes = rng.integers(0, 2**63, TRAIN + TEST)
    unlike = [near.Signature(None, one, int(value)) for one, value in zip(noise, hashes, strict=True)]
    train, test = unlike[:TRAIN], unlike[TRAIN:]
    started = time.perf_counter()
    assert not list(near.near_duplicates(train, test))
    ours = time.perf_counter() - started
    started = time.perf_counter()
    mine = [imagehash.ImageHash(np.unpackbits(np.frombuffer(one.phash.to_bytes(8, "big"), np.uint8))) for one in train]
    for one in test[:NAIVE]:
        assert one.thumbnail is not None
        turned = [np.rot90(side, k) for side in (one.thumbnail, one.thumbnail[:, ::-1]) for k in range(4)]
        for way in (imagehash.phash(Image.fromarray(np.ascontiguousarray(picture))) for picture in turned[:1]):
            flat = imagehash.ImageHash(way.hash.ravel())
            assert all(flat - other > near.HAMMING for other in mine)
    naive = (time.perf_counter() - started) * TEST / NAIVE * 8
    print(f"search: {TRAIN} x {TEST} x 8 in {ours:.1f} s; a double loop {naive:.0f} s (scaled): {naive / ours:.0f} x")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=400, help="bodies per modality and anatomy")
    speed()
    separation(parser.parse_args().people)


if __name__ == "__main__":
    main()

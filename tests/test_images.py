"""Pixels and masks, against pycocotools and by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco

from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import decode_mask, encode_mask, read_image, read_mask
from crossmed_core.types import RLE, ImageRef, MaskRef

masks = arrays(bool, st.tuples(st.integers(1, 17), st.integers(1, 23)))


@given(masks)
def test_rle_round_trip(mask: np.ndarray) -> None:
    rle = encode_mask(mask)
    assert sum(rle.counts) == mask.size
    assert (decode_mask(rle) == mask).all()


@given(masks)
def test_rle_is_what_pycocotools_reads(mask: np.ndarray) -> None:
    rle = encode_mask(mask)
    packed = coco.frPyObjects({"size": list(rle.size), "counts": list(rle.counts)}, *rle.size)
    assert (coco.decode(packed).astype(bool) == mask).all()


def test_rle_worked_example() -> None:
    # Columns of [[0, 1, 1], [1, 1, 0]]: (0, 1), (1, 1), (1, 0): one background, four foreground, one background.
    assert encode_mask(np.array([[0, 1, 1], [1, 1, 0]], dtype=bool)) == RLE((2, 3), (1, 4, 1))
    assert encode_mask(np.ones((2, 2), dtype=bool)).counts == (0, 4)
    assert encode_mask(np.zeros((2, 2), dtype=bool)).counts == (4,)


def test_rle_that_does_not_fill_the_mask_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match="sum to 3"):
        decode_mask(RLE((2, 2), (1, 2)))


@pytest.mark.parametrize(
    ("mode", "shape"), [("L", (5, 7)), ("RGB", (5, 7, 3)), ("1", (5, 7)), ("P", (5, 7, 3)), ("RGBA", (5, 7, 3))]
)
def test_displayable_modes(mode: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    Image.new(mode, (7, 5)).save(tmp_path / "a.png")
    pixels = read_image(ImageRef(str(tmp_path / "a.png")))
    assert pixels.shape == shape and pixels.dtype == np.uint8


def test_a_deep_image_is_refused_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000).save(tmp_path / "deep.png")
    with pytest.raises(UnreadableImageError, match=r"deep\.png.*window"):
        read_image(ImageRef(str(tmp_path / "deep.png")))


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), (b"", "not an image"), (b"garbage", "not an image")]
)
def test_unreadable_files_are_named(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=rf"x\.png: .*{reason}"):
        read_image(ImageRef(str(path)))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / "t.png")
    whole = (tmp_path / "t.png").read_bytes()
    (tmp_path / "t.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImageError, match=r"t\.png"):
        read_image(ImageRef(str(tmp_path / "t.png")))


def test_another_file_than_recorded_is_refused(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    digest = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert read_image(ImageRef(str(tmp_path / "a.png"), digest)).shape == (4, 4)
    Image.new("L", (4, 4), 9).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match="SHA-256 differs"):
        read_image(ImageRef(str(tmp_path / "a.png"), digest))


def test_mask_files_are_foreground_where_not_zero(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1], [255, 0]], dtype=np.uint8)).save(tmp_path / "m.png")
    assert read_mask(MaskRef(str(tmp_path / "m.png"))).tolist() == [[False, True], [True, False]]
    palette = Image.fromarray(np.array([[0, 1], [2, 0]], dtype=np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 0, 0, 1, 9, 0, 0])  # colours so dark that grey conversion would lose them
    palette.save(tmp_path / "p.png")
    palette.convert("RGB").save(tmp_path / "rgb.png")
    palette.convert("RGBA").save(tmp_path / "rgba.png")
    for name in ("p.png", "rgb.png", "rgba.png"):
        assert read_mask(MaskRef(str(tmp_path / name))).tolist() == [[False, True], [True, False]], name

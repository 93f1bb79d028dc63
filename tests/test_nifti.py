"""NIfTI slices for display, held against nibabel's own reorientation and numpy's own statistics."""

from __future__ import annotations

import builtins
import gzip
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import read_image, read_mask
from crossmed_core.nifti import Volume, is_nifti, open_volume
from crossmed_core.types import ImageRef, MaskRef, Rendering

SHAPE = (4, 5, 6)
ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]
LPS = np.array([[-1.0, 0, 0, 0], [0, -1.0, 0, 239], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
LAS = np.diag([-0.7, 0.7, 8.0, 1.0])


def affine_of(axes: tuple[int, ...], signs: tuple[int, ...], *, tilt: float = 0.0) -> np.ndarray:
    """An affine whose file axis `a` runs along world axis `axes[a]`, in the direction of its sign."""
    rotation = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[axes[axis], axis] = signs[axis] * (1 + 0.5 * axis)
    affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = (10, -20, 30)
    return affine


def values(shape: tuple[int, ...] = SHAPE, *, seed: int = 0, low: int = -500, high: int = 3000) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.int16)


def saved(path: Path, array: np.ndarray, affine: np.ndarray | None = None, *, version: int = 1) -> Path:
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    nibabel.save(kind(array, np.eye(4) if affine is None else affine), path)
    return path


def displayed(path: Path, axial: int) -> np.ndarray:
    """The slice by another way: canonical (right, anterior, superior), then both axes turned for the screen."""
    canonical = np.asanyarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
    return np.transpose(np.flip(canonical[:, :, axial], axis=(0, 1)))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_every_orientation_is_displayed_alike(tmp_path: Path, suffix: str, version: int, tilt: float) -> None:
    assert len(ORIENTATIONS) == 48
    for number, (axes, signs) in enumerate(ORIENTATIONS):
        array = values(seed=number)
        path = saved(tmp_path / f"{number}{suffix}", array, affine_of(axes, signs, tilt=tilt), version=version)
        volume, canonical = Volume(path), nibabel.as_closest_canonical(nibabel.load(path))
        assert volume.shape == SHAPE and volume.slices == canonical.shape[2]
        x, y, z = canonical.header.get_zooms()
        assert volume.spacing == pytest.approx((y, x, z))
        for axial in np.random.default_rng(number).permutation(volume.slices):
            assert np.array_equal(volume.raw(int(axial)), displayed(path, int(axial))), (axes, signs, axial)
        planes = volume.planes(volume.data)
        for axial in range(volume.slices):
            assert np.array_equal(np.sort(planes[axial], axis=None), np.sort(displayed(path, axial), axis=None))


def test_sides_are_where_a_radiologist_expects_them(tmp_path: Path) -> None:
    """One bright voxel at the patient's front, right and top: first row, first column, last slice, in any file."""
    for number, (axes, signs) in enumerate(ORIENTATIONS):
        affine = affine_of(axes, signs)
        towards = dict(zip(axes, signs, strict=True))
        index = [0, 0, 0]
        for axis, world in enumerate(axes):
            positive = {0: True, 1: True, 2: True}[world]  # right, anterior, superior are the positive directions
            index[axis] = SHAPE[axis] - 1 if (towards[world] > 0) == positive else 0
        array = np.zeros(SHAPE, dtype=np.int16)
        array[tuple(index)] = 7
        volume = Volume(saved(tmp_path / f"{number}.nii", array, affine))
        assert volume.raw(volume.slices - 1)[0, 0] == 7, (axes, signs)


def test_brats_needs_no_flip(tmp_path: Path) -> None:
    """LPS arrays a[x, y, z] are displayed as a[:, :, z].T; flipped in x or y they are not."""
    array = values((7, 6, 5))
    volume = Volume(saved(tmp_path / "brats.nii.gz", array, LPS))
    assert nibabel.aff2axcodes(volume.affine) == ("L", "P", "S")
    for axial in range(5):
        assert np.array_equal(volume.raw(axial), array[:, :, axial].T)
        assert not np.array_equal(volume.raw(axial), array[::-1, :, axial].T)
        assert not np.array_equal(volume.raw(axial), array[:, ::-1, axial].T)


def test_mosmed_is_turned_by_a_quarter(tmp_path: Path) -> None:
    """LAS arrays a[x, y, z] are displayed as rot90(a[:, :, z]); flipped in x or y they are not."""
    array = values((7, 7, 5))
    volume = Volume(saved(tmp_path / "mosmed.nii.gz", array, LAS))
    assert nibabel.aff2axcodes(volume.affine) == ("L", "A", "S")
    assert volume.spacing == pytest.approx((0.7, 0.7, 8.0))
    for axial in range(5):
        assert np.array_equal(volume.raw(axial), np.rot90(array[:, :, axial]))
        assert not np.array_equal(volume.raw(axial), np.rot90(array[::-1, :, axial]))
        assert not np.array_equal(volume.raw(axial), np.rot90(array[:, ::-1, axial]))


def test_an_image_and_its_mask_turn_together(tmp_path: Path) -> None:
    array = values(low=0)
    labels = (array > 1500).astype(np.uint8) * 4
    for number, (axes, signs) in enumerate(ORIENTATIONS[::7]):
        affine = affine_of(axes, signs)
        image = saved(tmp_path / f"i{number}.nii.gz", array, affine)
        mask = saved(tmp_path / f"m{number}.nii", labels, affine)
        for axial in range(Volume(image).slices):
            shown = read_image(ImageRef(str(image), axial=axial, rendering=Rendering("window", 1500, 1501)))
            assert np.array_equal(shown > 0, read_mask(MaskRef(str(mask), axial=axial)))
            assert np.array_equal(shown > 0, read_mask(MaskRef(str(mask), axial=axial, values=(1, 4))))
            assert not read_mask(MaskRef(str(mask), axial=axial, values=(1, 2))).any()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=hnp.arrays(np.int16, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)),
    orientation=st.sampled_from(ORIENTATIONS),
    order=st.randoms(use_true_random=False),
)
def test_a_part_of_the_file_gives_the_same_as_the_whole(
    tmp_path: Path, array: np.ndarray, orientation: Any, order: Any
) -> None:
    path = saved(tmp_path / "any.nii.gz", array, affine_of(*orientation))
    whole = Volume(path)
    assert np.array_equal(whole.data, np.asanyarray(nibabel.load(path).dataobj))
    part = Volume(path)
    slices = list(range(part.slices))
    order.shuffle(slices)
    for axial in slices:
        assert np.array_equal(part.raw(axial), displayed(path, axial))
        assert np.array_equal(part.raw(axial), whole.raw(axial))


def test_no_more_is_decompressed_than_a_slice_needs(tmp_path: Path) -> None:
    array = values((64, 64, 40))
    path = saved(tmp_path / "long.nii.gz", array)
    volume = Volume(path)
    assert volume.slices == 40
    assert len(volume._content) < 1000, "the number of slices is in the header"
    assert np.array_equal(volume.raw(3), displayed(path, 3))
    assert len(volume._content) < 352 + 5 * 64 * 64 * 2
    # So a file that breaks off behind them still shows its first slices.
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    assert np.array_equal(Volume(path).raw(3), np.flip(array[:, :, 3]).T)
    with pytest.raises(UnreadableImageError, match="truncated"):
        Volume(path).raw(39)


RENDERINGS = [
    Rendering("window", -100, 700),
    Rendering("percentile", 1, 99),
    Rendering("percentile", 0, 100),
    Rendering("percentile", 25, 60),
    Rendering("zscore", -2, 3),
    Rendering("zscore", -0.5, 0.5),
]


@pytest.mark.parametrize("kind", ["int16", "uint16", "float32", "negative", "many equal"])
@pytest.mark.parametrize("rendering", RENDERINGS, ids=str)
def test_bounds_are_those_of_numpy(tmp_path: Path, rendering: Rendering, kind: str) -> None:
    array: np.ndarray = values((16, 15, 14), low=-500 if kind == "negative" else 0)
    array[:8] = 0  # background: not looked at
    if kind == "many equal":
        array[9:15] = 1234
    if kind in ("uint16", "float32"):
        array = array.astype(kind) * (np.float32(0.37) if kind == "float32" else 1)
    volume = Volume(saved(tmp_path / "one.nii.gz", array))
    inside = array[array > 0].astype(float)
    if rendering.method == "window":
        low, high = float(rendering.low), float(rendering.high)
    elif rendering.method == "percentile":
        low, high = np.percentile(inside, [rendering.low, rendering.high], method="inverted_cdf")
    else:
        low, high = (inside.mean() + by * inside.std() for by in (rendering.low, rendering.high))
    assert volume.bounds(rendering) == pytest.approx((low, high), rel=1e-6)
    plane = displayed(tmp_path / "one.nii.gz", 5).astype(float)
    shown = volume.rendered(5, rendering)
    if low == high:  # one value has no contrast
        assert (kind, rendering) == ("many equal", Rendering("percentile", 25, 60)) and not shown.any()
        return
    expected = np.clip((plane - low) / (high - low), 0, 1) * 255
    assert shown.dtype == np.uint8 and np.abs(shown - expected).max() <= 0.51


def test_z_scores_are_of_the_brain_not_of_the_air(tmp_path: Path) -> None:
    """More background must change nothing; scaled copies of one brain look the same."""
    brain = values((8, 8, 8), low=100)
    padded = np.pad(brain, 6)
    pictures = [
        Volume(saved(tmp_path / f"{name}.nii", array)).rendered(axial, Rendering("zscore", -2, 3))
        for name, array, axial in (("brain", brain, 3), ("padded", padded, 9), ("scaled", brain * 5, 3))
    ]
    assert np.array_equal(pictures[0], pictures[1][6:-6, 6:-6])
    assert np.array_equal(pictures[0], pictures[2])


def test_a_window_clips_and_reaches_both_ends(tmp_path: Path) -> None:
    array = np.array([-2048, -1024, -1000, -300, 400, 3071], dtype=np.int16).reshape(6, 1, 1)
    shown = Volume(saved(tmp_path / "ct.nii", array, LAS)).rendered(0, Rendering("window", -1000, 400))
    assert shown.tolist() == [[0, 0, 0, 128, 255, 255]]


def test_values_that_are_no_numbers_are_shown_as_the_nearest_end(tmp_path: Path) -> None:
    array = np.array([np.nan, -np.inf, np.inf, 5, 1, 9], dtype=np.float32).reshape(6, 1, 1)
    path = saved(tmp_path / "holes.nii", array, LAS)
    assert Volume(path).rendered(0, Rendering("window", 0, 10)).tolist() == [[0, 0, 255, 128, 26, 230]]
    assert Volume(path).bounds(Rendering("percentile", 0, 100)) == (1, 9)
    assert Volume(path).rendered(0, Rendering("percentile", 0, 100)).tolist() == [[0, 0, 255, 128, 0, 255]]


def test_flat_and_empty_volumes(tmp_path: Path) -> None:
    flat = Volume(saved(tmp_path / "flat.nii", np.full((3, 3, 3), 7, dtype=np.int16)))
    assert not flat.rendered(1, Rendering("percentile", 1, 99)).any(), "one value has no contrast, and no warning"
    empty = Volume(saved(tmp_path / "empty.nii", np.zeros((3, 3, 3), dtype=np.int16)))
    with pytest.raises(UnreadableImageError, match="no voxel is above 0"):
        empty.rendered(1, Rendering("zscore", -2, 3))
    assert not empty.rendered(1, Rendering("window", 0, 10)).any()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("slope", "inter", "factor"), [(np.nan, np.nan, 1), (0.0, 5.0, 1), (2.0, 0.0, 2)])
def test_slopes_that_are_none(tmp_path: Path, suffix: str, slope: float, inter: float, factor: int) -> None:
    array = values()
    content = bytearray(nibabel.Nifti1Image(array, LAS).to_bytes())
    content[112:120] = np.array([slope, inter], "<f4").tobytes()
    path = tmp_path / f"scaled{suffix}"
    path.write_bytes(gzip.compress(bytes(content)) if suffix == ".nii.gz" else bytes(content))
    assert np.array_equal(Volume(path).raw(2), np.rot90(array[:, :, 2]) * factor)
    assert np.array_equal(Volume(path).data, array.astype(int) * factor)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_labels_come_in_any_type(tmp_path: Path, kind: str) -> None:
    labels = np.random.default_rng(0).choice([0, 1, 2, 4], SHAPE).astype(kind)
    path = saved(tmp_path / "seg.nii.gz", labels if not kind.startswith("float") else labels + labels.dtype.type(1e-3))
    assert np.array_equal(Volume(path).labels((0, 1, 2, 4)), labels.astype(int))
    assert np.array_equal(read_mask(MaskRef(str(path), axial=1, values=(4,))), np.flip(labels[:, :, 1]).T == 4)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (3, "label 3 occurs; only 0, 1, 2, 4 may"),
        (-1, "label -1 occurs"),
        (1.5, "not whole numbers"),
        (np.nan, "not whole numbers"),
        (np.inf, "label inf occurs"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, spoil: float, words: str) -> None:
    labels = np.zeros(SHAPE)
    labels[1, 1, 1] = spoil
    with pytest.raises(UnreadableImageError, match=words):
        Volume(saved(tmp_path / "seg.nii.gz", labels)).labels((0, 1, 2, 4))


def test_an_image_in_place_of_labels_is_told_briefly(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"and \d+ more") as caught:
        Volume(saved(tmp_path / "t1.nii", values(low=10))).labels((0, 1))
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 200


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 4), (4, 5, 6, 1)])
def test_other_dimensions_are_refused(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    path = saved(tmp_path / f"other{suffix}", values(shape))
    for method in METHODS:
        with pytest.raises(UnreadableImageError, match=f"{len(shape)} dimensions; a volume of three is needed"):
            method(Volume(path))


METHODS: tuple[Callable[[Volume], Any], ...] = (
    lambda volume: volume.slices,
    lambda volume: volume.spacing,
    lambda volume: volume.affine,
    lambda volume: volume.raw(5),
    lambda volume: volume.rendered(5, Rendering("percentile", 1, 99)),
)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_data_and_labels_of_other_dimensions_are_refused(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"other{suffix}", np.zeros((4, 5, 6, 4), dtype=np.int16))
    with pytest.raises(UnreadableImageError, match="4 dimensions"):
        _ = Volume(path).data
    with pytest.raises(UnreadableImageError, match="4 dimensions"):
        Volume(path).labels((0, 1))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_file_may_break_off_anywhere(tmp_path: Path, suffix: str, version: int) -> None:
    """Cut at many places, a file says that it is truncated, and nothing else escapes."""
    path = saved(tmp_path / f"whole{suffix}", values(), version=version)
    content = path.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for length in sorted({0, 1, 2, 3, 10, 40, 347, 348, 351, 353, *range(0, len(content) - 1, 23)}):
        cut.write_bytes(content[: min(length, len(content) - 1)])
        with pytest.raises(UnreadableImageError, match=r"truncated|empty|not a NIfTI file") as caught:
            Volume(cut).raw(5)
        assert str(caught.value).startswith(f"{cut}: ")
        with pytest.raises(UnreadableImageError):
            _ = Volume(cut).data
    plain = saved(tmp_path / "plain.nii", values(), version=version).read_bytes()
    cut.write_bytes(gzip.compress(plain[:-1]) if suffix == ".nii.gz" else plain[:-1])  # a sound stream, one byte short
    with pytest.raises(UnreadableImageError, match="truncated"):
        Volume(cut).raw(5)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_is_no_volume_is_told_in_words(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"wrong{suffix}"
    noise = np.random.default_rng(0).bytes(3000)
    for content in (b"x" * 1000, noise, gzip.compress(noise), b"\x1f\x8b" + noise, b"\x5c\x01\x00\x00" + noise):
        path.write_bytes(content)
        for method in METHODS:
            with pytest.raises(UnreadableImageError) as caught:
                method(Volume(path))
            assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    with pytest.raises(UnreadableImageError, match="No such file"):
        _ = Volume(tmp_path / f"none{suffix}").slices
    with pytest.raises(UnreadableImageError, match="Is a directory"):
        _ = Volume(tmp_path).slices


def test_a_damaged_stream_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "whole.nii.gz", values((32, 32, 32)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"truncated|not readable"):
        _ = Volume(path).data


@pytest.mark.parametrize("version", [1, 2])
def test_content_counts_not_the_name(tmp_path: Path, version: int) -> None:
    """Copies get gunzipped, or gzipped, and keep their names; suffixes come in capitals."""
    array = values()
    plain = saved(tmp_path / "plain.nii", array, LAS, version=version).read_bytes()
    for name, content in (
        ("gunzipped.nii.gz", plain),
        ("gzipped.nii", gzip.compress(plain)),
        ("CAPITALS.NII", plain),
        ("CAPITALS.NII.GZ", gzip.compress(plain)),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_nifti(name)
        volume = Volume(tmp_path / name)
        assert volume.slices == 6
        assert np.array_equal(volume.raw(4), np.rot90(array[:, :, 4]))
        assert np.array_equal(volume.data, array)
    assert not is_nifti("x.nii.png")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
def test_header_extensions_and_other_byte_orders(tmp_path: Path, suffix: str, version: int) -> None:
    array = values()
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = kind(array.astype(">i2"), LAS, header=kind.header_class(endianness=">"))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"made up " * 200))
    nibabel.save(image, tmp_path / f"big{suffix}")
    volume = Volume(tmp_path / f"big{suffix}")
    assert volume.slices == 6 and np.array_equal(volume.raw(0), np.rot90(array[:, :, 0]))
    assert np.array_equal(Volume(tmp_path / f"big{suffix}").data, array)


def test_without_isal_the_standard_library_decompresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = values((32, 32, 20))
    path = saved(tmp_path / "any.nii.gz", array, LAS)
    real, used = builtins.__import__, []

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "isal":
            raise ImportError(name)
        used.append(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert np.array_equal(Volume(path).raw(7), np.rot90(array[:, :, 7]))
    assert "gzip" in used
    assert np.array_equal(Volume(path).data, array)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UnreadableImageError, match="truncated"):
        _ = Volume(path).data


@pytest.mark.parametrize("axial", [-1, 6, 100])
def test_slices_that_are_not_there(tmp_path: Path, axial: int) -> None:
    with pytest.raises(UnreadableImageError, match=f"no slice {axial}; it has 6"):
        Volume(saved(tmp_path / "any.nii", values())).raw(axial)


def test_an_axis_without_direction_is_refused(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 0.0, 1.0])
    path = saved(tmp_path / "flat.nii", values(), np.eye(4))
    content = bytearray(path.read_bytes())
    image = nibabel.Nifti1Image(values(), np.eye(4))
    image.header["sform_code"] = 1
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        image.header[name] = affine[row]
    content[:348] = image.header.binaryblock
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match="axis without direction"):
        Volume(path).raw(0)


def test_volumes_in_use_stay_open(tmp_path: Path) -> None:
    paths = [str(saved(tmp_path / f"{number}.nii", values())) for number in range(3)]
    first = [open_volume(path) for path in paths]
    assert [open_volume(path) for path in paths] == first

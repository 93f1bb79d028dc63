"""DICOM for display, on real and made-up files, against pydicom applied to every pixel; and real MRI of a package."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from crossmed_core import dicom
from crossmed_core.dicom import PERCENTILES, is_dicom, read_dicom, read_header
from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import read_image, read_mask
from crossmed_core.nifti import Volume
from crossmed_core.types import ImageRef, MaskRef, Rendering


def real(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert path is not None, f"{name} comes with pydicom or pydicom-data"
    return Path(str(path))


def by_pixel(path: Path) -> np.ndarray:
    """Look every pixel up, as the standard orders: modality, VOI, then the inversion of MONOCHROME1."""
    data = pydicom.dcmread(path)
    shown = np.asarray(apply_voi_lut(apply_modality_lut(data.pixel_array, data), data), dtype=np.float64)
    if "VOILUTSequence" in data:
        low, high = 0.0, float((1 << data.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    elif "WindowWidth" in data:
        slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
        bits = data.BitsStored
        ends = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if data.PixelRepresentation else (0, (1 << bits) - 1)
        low, high = (end * slope + intercept for end in ends)
    else:
        low, high = np.percentile(shown, PERCENTILES, method="inverted_cdf")
    grey = (np.clip(shown, low, high) - low) / (high - low) * 255
    return np.rint(255 - grey if data.PhotometricInterpretation == "MONOCHROME1" else grey).astype(np.uint8)


@pytest.mark.parametrize(
    "name",
    [
        "RG1_UNCR.dcm",  # a real chest X-ray: MONOCHROME1, 15 bits, window
        "RG3_UNCR.dcm",  # MONOCHROME1 without a window
        "693_UNCR.dcm",  # a real head CT: rescale, window, padding of -2000
        "693_J2KR.dcm",
        "CT_small.dcm",
        "MR_small.dcm",  # signed, window
        "vlut_04.dcm",  # VOI LUT
        "bad_sequence.dcm",  # JPEG Lossless
    ],
)
def test_real_files_look_as_every_pixel_looked_up(name: str) -> None:
    path = real(name)
    shown, expected = read_dicom(path), by_pixel(path)
    assert shown.dtype == np.uint8 and shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).max() <= 1, "a rounding apart at most"
    assert (shown == expected).mean() > 0.99


def test_a_chest_x_ray_shows_air_dark_and_bone_bright() -> None:
    shown = read_image(ImageRef(str(real("RG1_UNCR.dcm")))).astype(float)
    height, width = shown.shape
    lungs = [
        shown[height * 35 // 100 : height // 2, width * a // 100 : width * b // 100] for a, b in ((20, 32), (66, 78))
    ]
    spine = shown[height * 60 // 100 : height * 75 // 100, width * 46 // 100 : width * 54 // 100]
    assert max(lung.mean() for lung in lungs) < spine.mean(), "MONOCHROME1 is inverted"
    lossless = read_dicom(real("RG1_J2KR.dcm"))
    assert np.array_equal(lossless, shown), "JPEG 2000 lossless holds the same pixels"
    lossy = read_dicom(real("RG1_J2KI.dcm")).astype(float)
    assert lossy.shape == shown.shape and np.abs(lossy - shown).mean() < 3


def test_air_is_black_in_ct_though_it_is_padded_far_below() -> None:
    shown = read_dicom(real("693_UNCR.dcm"))
    data = pydicom.dcmread(real("693_UNCR.dcm"))
    units = apply_modality_lut(data.pixel_array, data)
    assert units.min() < -1500
    assert (shown[units < -900] == 0).all() and shown[units > 500].min() == 255


def test_a_modality_lut_comes_before_the_window() -> None:
    shown = read_dicom(real("mlut_18.dcm"))
    data = pydicom.dcmread(real("mlut_18.dcm"))
    order = np.asarray(apply_modality_lut(data.pixel_array, data), dtype=float)
    assert np.corrcoef(shown.ravel(), order.ravel())[0, 1] > 0.95 and shown.std() > 10


@pytest.mark.parametrize(
    "name", ["examples_rgb_color.dcm", "examples_palette.dcm", "US1_UNCR.dcm", "examples_jpeg2k.dcm"]
)
def test_colour_comes_as_rgb(name: str) -> None:
    shown = read_dicom(real(name))
    assert shown.ndim == 3 and shown.shape[2] == 3 and shown.std() > 5
    data = pydicom.dcmread(real(name))
    if data.PhotometricInterpretation == "RGB":
        assert np.array_equal(shown, data.pixel_array)


def test_several_windows_the_first_counts(tmp_path: Path) -> None:
    data = pydicom.dcmread(real("CT_small.dcm"))
    data.WindowCenter, data.WindowWidth = [40, 200], [400, 100]
    data.save_as(tmp_path / "two.dcm")
    one = copy.deepcopy(data)
    one.WindowCenter, one.WindowWidth = 40, 400
    one.save_as(tmp_path / "one.dcm")
    assert np.array_equal(read_dicom(tmp_path / "two.dcm"), read_dicom(tmp_path / "one.dcm"))


def test_a_negative_floor_does_not_wrap(tmp_path: Path) -> None:
    data = pydicom.dcmread(real("CT_small.dcm"))
    pixels = data.pixel_array.copy()
    pixels[0, 0] = -32768  # far outside the stored bits
    data.PixelData = pixels.tobytes()
    data.save_as(tmp_path / "floor.dcm")
    shown = read_dicom(tmp_path / "floor.dcm")
    assert shown[0, 0] == 0 and np.array_equal(shown.ravel()[1:], read_dicom(real("CT_small.dcm")).ravel()[1:])


# -- broken files ----------------------------------------------------------------------------------


def test_broken_files_say_what_they_are(tmp_path: Path) -> None:
    content = real("CT_small.dcm").read_bytes()
    for name, written, said in (
        ("cut.dcm", content[:20_000], "damaged"),
        ("words.dcm", b"dear diary", "not a DICOM file"),
        ("empty.dcm", b"", "cut.dcm|empty.dcm"),
    ):
        path = tmp_path / name
        path.write_bytes(written)
        with pytest.raises(UnreadableImageError, match=f"{name}.*{said}|{said}"):
            read_dicom(path)
    with pytest.raises(UnreadableImageError, match="No such file"):
        read_dicom(tmp_path / "absent.dcm")
    with pytest.raises(UnreadableImageError, match="10 frames"):
        read_dicom(real("emri_small.dcm"))
    with pytest.raises(UnreadableImageError):
        read_header(tmp_path / "words.dcm", ["Rows"])


def test_a_missing_decoder_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(data: Any, **settings: Any) -> Any:
        raise RuntimeError(
            "Unable to decompress 'JPEG Lossless' pixel data because all plugins are missing dependencies:\n\tgdcm"
        )

    monkeypatch.setattr(pydicom.pixels, "pixel_array", without)
    with pytest.raises(UnreadableImageError, match=r"no decoder .* pip install 'crossmed\[dicom\]'"):
        read_dicom(real("bad_sequence.dcm"))


def test_files_are_told_by_suffix_or_magic(tmp_path: Path) -> None:
    content = real("CT_small.dcm").read_bytes()
    for name in ("a.dcm", "A.DCM", "1.2.840.113", "IMG0001"):
        (tmp_path / name).write_bytes(content)
        assert is_dicom(str(tmp_path / name)), name
    (tmp_path / "a.png").write_bytes(content)
    (tmp_path / "README").write_text("no image")
    assert not is_dicom(str(tmp_path / "a.png")) and not is_dicom(str(tmp_path / "README"))
    assert not is_dicom(str(tmp_path / "absent"))


def test_a_header_is_read_without_a_word_about_odd_ages(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    data = pydicom.dcmread(real("CT_small.dcm"))
    data.add_new("PatientAge", "AS", None)
    with pydicom.config.disable_value_validation():
        data["PatientAge"].value = "62"
        data.save_as(tmp_path / "age.dcm")
    recwarn.clear()
    header = read_header(tmp_path / "age.dcm", ["PatientAge", "Rows"])
    assert str(header.PatientAge) == "62" and header.Rows == 128
    assert not [one for one in recwarn if "VR AS" in str(one.message)]
    assert dicom.read_dicom(tmp_path / "age.dcm").shape == (128, 128)


# -- real MRI --------------------------------------------------------------------------------------


def test_a_real_brain_is_upright_and_its_masks_fit(tmp_path: Path) -> None:
    """MNI152 of nilearn: T1 with masks of brain, grey and white matter, 1 mm, RAS."""
    import nibabel
    from nilearn.datasets import load_mni152_gm_mask, load_mni152_template, load_mni152_wm_mask

    paths = {}
    for name, image in (
        ("t1", load_mni152_template(resolution=2)),
        ("gm", load_mni152_gm_mask(resolution=2)),
        ("wm", load_mni152_wm_mask(resolution=2)),
    ):
        paths[name] = str(tmp_path / f"{name}.nii.gz")
        nibabel.save(image, paths[name])
    axial = Volume(paths["t1"]).slices // 2
    shown = read_image(ImageRef(paths["t1"], axial=axial, rendering=Rendering("percentile", 1, 99)))
    grey = read_mask(MaskRef(paths["gm"], axial=axial, values=(1,)))
    white = read_mask(MaskRef(paths["wm"], axial=axial, values=(1,)))
    assert shown.shape == grey.shape == white.shape
    assert shown[white].mean() > shown[grey].mean() > shown[~(white | grey)].mean(), "white matter is brightest in T1"
    # The frontal pole is narrower than the back of the head, and lies at the top.
    brain = shown > 40
    rows = np.flatnonzero(brain.any(axis=1))
    top, bottom = (brain[row].sum() for row in (rows[0] + len(rows) // 8, rows[-1] - len(rows) // 8))
    assert top < bottom, "upright: anterior is up"
    # The template's left hemisphere stands on the viewer's right; flipping the affine's x mirrors the picture.
    flipped = nibabel.load(paths["t1"])
    affine = flipped.affine.copy()
    affine[0] *= -1
    nibabel.save(nibabel.Nifti1Image(np.asarray(flipped.dataobj), affine), str(tmp_path / "mirror.nii"))
    mirror = read_image(ImageRef(str(tmp_path / "mirror.nii"), axial=axial, rendering=Rendering("percentile", 1, 99)))
    assert np.array_equal(mirror[:, ::-1], shown)

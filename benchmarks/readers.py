"""The readers of raw formats against the way most scripts read them: items per CPU second of one process, as ratios.

The naive readers are what public loaders do: nibabel's `get_fdata` of a whole volume, pydicom's lookups on every pixel
in float64, a loop over slices for run lengths. Both give the same pixels, which is checked. Variants are interleaved;
medians of 7 rounds. Made-up data of the real size: 240 x 240 x 155 int16 volumes, 1024 x 1024 DICOM files.

    python benchmarks/readers.py [FOLDER]
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from scipy.ndimage import gaussian_filter

from crossmed_core.dicom import read_dicom
from crossmed_core.images import decode_mask, encode_mask
from crossmed_core.nifti import Volume
from crossmed_core.types import Rendering
from crossmed_plugins.siim_acr.rle import joined, runs

SHAPE = (240, 240, 155)
WANTED = range(40, 120, 10)
ROUNDS = 7
CT = Rendering("window", -1000, 400)
MRI = Rendering("percentile", 1, 99)


def volumes(folder: Path) -> tuple[Path, Path]:
    """Write a smooth volume as .nii.gz and as .nii; BraTS volumes are three quarters air, and compress as this does."""
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.normal(size=SHAPE), 3)
    voxels = np.clip(smooth / smooth.std() * 200 + 300, 0, 2000)
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    voxels[((x - 120) / 70) ** 2 + ((y - 120) / 85) ** 2 + ((z - 77) / 70) ** 2 > 1] = 0
    image = nibabel.Nifti1Image(voxels.astype(np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]))
    packed, plain = folder / "volume.nii.gz", folder / "volume.nii"
    packed.write_bytes(gzip.compress(image.to_bytes(), 6, mtime=0))
    plain.write_bytes(image.to_bytes())
    return packed, plain


def naive_slices(path: Path, rendering: Rendering) -> list[np.ndarray]:
    """Read the whole volume as float64, orient it, scale the slices."""
    data = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()
    low, high = rendering.low, rendering.high
    if rendering.method == "percentile":
        low, high = np.percentile(data[data > 0], [low, high], method="inverted_cdf")
    shown = []
    for axial in WANTED:
        plane = data[::-1, ::-1, axial].T
        shown.append(np.rint((np.clip(plane, low, high) - low) * (255.0 / (high - low))).astype(np.uint8))
    return shown


def our_slices(path: Path, rendering: Rendering) -> list[np.ndarray]:
    """Read the wanted slices, the last one first, as a build does."""
    volume = Volume(path)
    return [volume.rendered(axial, rendering) for axial in reversed(WANTED)][::-1]


def dicom(folder: Path, bits: int) -> Path:
    """Write a 1024 x 1024 X-ray: 12 bits with rescale and window, or 8 bits ready for display."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows = data.Columns = 1024
    data.SamplesPerPixel, data.PixelRepresentation, data.PhotometricInterpretation = 1, 0, "MONOCHROME1"
    data.BitsAllocated, data.BitsStored, data.HighBit = (16, bits, bits - 1) if bits > 8 else (8, 8, 7)
    if bits > 8:
        data.RescaleSlope, data.RescaleIntercept, data.WindowCenter, data.WindowWidth = 1, 0, 2000, 3000
    else:
        data.WindowCenter, data.WindowWidth = 128, 255
    pixels = np.random.default_rng(bits).integers(0, 1 << bits, (1024, 1024))
    data.PixelData = pixels.astype(np.uint16 if bits > 8 else np.uint8).tobytes()
    path = folder / f"{bits}.dcm"
    data.save_as(path, enforce_file_format=True)
    return path


def naive_dicom(path: Path) -> np.ndarray:
    """Apply the lookups to every pixel."""
    data = pydicom.dcmread(path)
    shown = np.asarray(apply_voi_lut(apply_modality_lut(data.pixel_array, data), data), dtype=np.float64)
    high = float((1 << data.BitsStored) - 1)
    return np.rint(255.0 - np.clip(shown, 0, high) * (255.0 / high)).astype(np.uint8)


def naive_runs(code: str, height: int, width: int) -> np.ndarray:
    """Fill slice by slice, as the competition's own mask_functions.py does."""
    mask = np.zeros(height * width)
    numbers = [int(one) for one in code.split()]
    position = 0
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        position += gap
        mask[position : position + length] = 255
        position += length
    return mask.reshape(width, height).T > 0


def compare(name: str, naive: Callable[[], object], ours: Callable[[], object], repeat: int) -> None:
    """Print CPU milliseconds of both, and the ratio of their medians."""
    times: dict[str, list[float]] = {"naive": [], "ours": []}
    for _ in range(ROUNDS):
        for label, function in (("naive", naive), ("ours", ours)):
            started = time.process_time()
            for _ in range(repeat):
                function()
            times[label].append((time.process_time() - started) * 1000 / repeat)
    slow, fast = (statistics.median(times[label]) for label in ("naive", "ours"))
    print(f"{name:<58} {slow:9.2f} {fast:9.2f}   {1000 / fast:8.1f}/s   {slow / fast:5.1f}x", flush=True)


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        packed, plain = volumes(folder)
        print(f"{'':<58} {'naive ms':>9} {'ours ms':>9}   {'ours':>10}   ratio")
        for path, kind in ((packed, ".nii.gz"), (plain, ".nii")):
            for rendering, what in ((CT, "window"), (MRI, "percentiles of the volume")):
                pairs = zip(naive_slices(path, rendering), our_slices(path, rendering), strict=True)
                assert all(np.array_equal(one, other) for one, other in pairs), f"{kind}, {what}: pixels differ"
                compare(
                    f"{len(WANTED)} slices of a {kind} volume, {what}",
                    lambda path=path, rendering=rendering: naive_slices(path, rendering),  # type: ignore[misc]
                    lambda path=path, rendering=rendering: our_slices(path, rendering),  # type: ignore[misc]
                    2,
                )
        for bits in (12, 8):
            path = dicom(folder, bits)
            assert np.array_equal(naive_dicom(path), read_dicom(path)), f"{bits} bits: pixels differ"
            compare(
                f"1024 x 1024 DICOM, {bits} bits, window, MONOCHROME1",
                lambda path=path: naive_dicom(path),  # type: ignore[misc]
                lambda path=path: read_dicom(path),  # type: ignore[misc]
                5,
            )
        code = " ".join("700 300" for _ in range(900))
        rle = joined(runs(code, 1024 * 1024), 1024, 1024)
        assert np.array_equal(naive_runs(code, 1024, 1024), decode_mask(rle)) and decode_mask(rle).any()
        compare(
            "SIIM row of 900 runs -> the item's run lengths",
            lambda: encode_mask(naive_runs(code, 1024, 1024)),
            lambda: joined(runs(code, 1024 * 1024), 1024, 1024),
            20,
        )


if __name__ == "__main__":
    main()

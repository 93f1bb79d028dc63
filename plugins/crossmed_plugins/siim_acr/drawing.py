"""Draws the counterfeit's chests and writes them as the kinds of DICOM files that the real download may hold.

They look a little like what they stand for and carry a hint that a small network can learn: free air is a dark crescent
at the outer side of a lung that has fallen together. They are no simulation of X-rays.
"""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.float64]
"""Shape (rows, columns), 0 = black to 1 = white, as the image is meant to be seen."""
Kind = Literal["jpeg", "monochrome1", "voi-lut"]

PREFIX = "1.2.276.0.7230010.3.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
EXPLICIT, JPEG_BASELINE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"


def chest(
    rng: np.random.Generator, rows: int, columns: int, *, air: bool, noise: float = 0.02
) -> tuple[Picture, NDArray[np.bool_]]:
    """Draw a chest from the front.

    Args:
        rng: Source of all that differs between patients.
        rows: Height in pixels.
        columns: Width in pixels.
        air: Whether there is a pneumothorax.
        noise: Standard deviation of the grain.

    Returns:
        The picture and the region of free air.
    """
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    x = x - rng.uniform(-0.06, 0.06)
    y = y - rng.uniform(-0.06, 0.06)

    def ellipse(across: float, down: float, half_width: float, half_height: float) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = ((x - across) / half_width) ** 2 + ((y - down) / half_height) ** 2 < 1
        return inside

    picture = np.where(ellipse(0, 0.1, 0.93, 1.25), 0.66, 0.04)
    mask = np.zeros((rows, columns), dtype=bool)
    sick = rng.choice((-1.0, 1.0))
    wide, high = rng.uniform(0.30, 0.36), rng.uniform(0.66, 0.76)
    for side in (-1.0, 1.0):
        lung = ellipse(side * 0.44, 0.0, wide, high)
        picture[lung] = 0.34
        if air and side == sick:
            share = rng.uniform(0.80, 0.90)
            fallen = ellipse(side * (0.44 - 0.3 * wide), 0.0, share * wide, share * high)
            picture[lung & fallen] = 0.46
            # Above or below: four regions that lie apart can then be found, as they can in patients.
            mask = lung & ~fallen & (y < -0.1 if rng.random() < 0.5 else y > 0.1)
    picture[ellipse(0.08, 0.38, 0.26, 0.34)] = 0.78
    picture += 0.05 * np.sin(x**2 * 3 + y * rng.uniform(17, 23) + rng.uniform(0, 6)) * (picture > 0.1)
    picture[mask] = 0.06
    picture = picture * rng.uniform(0.85, 1.0) + noise * rng.standard_normal(picture.shape)
    return np.clip(picture, 0.0, 1.0), mask


def grey(picture: Picture) -> NDArray[np.uint8]:
    """Return a picture in 8 bits."""
    return np.rint(picture * 255).astype(np.uint8)


def encoded(pixels: NDArray[Any], form: Literal["PNG", "JPEG"]) -> bytes:
    """Return a PNG or JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=form, **({"quality": 90} if form == "JPEG" else {}))
    return buffer.getvalue()


def dicom(picture: Picture, kind: Kind, numbers: str, elements: dict[str, Any]) -> bytes:
    """Return a DICOM file.

    Args:
        picture: What it shows.
        kind: "jpeg" as the real files are: 8 bits, JPEG baseline, no window. "monochrome1": 12 bits, white is low, with
            a window. "voi-lut": 16 bits with a VOI LUT.
        numbers: The end of its UIDs.
        elements: Further elements by keyword, as they are: ages are "62" in the real files, against the standard.
    """
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = JPEG_BASELINE if kind == "jpeg" else EXPLICIT
    data.SOPClassUID = SECONDARY_CAPTURE
    data.StudyInstanceUID, data.SeriesInstanceUID, data.SOPInstanceUID = (uid(n, numbers) for n in (2, 3, 4))
    data.Modality, data.SamplesPerPixel, data.PixelRepresentation = "CR", 1, 0
    data.Rows, data.Columns = picture.shape
    data.PhotometricInterpretation = "MONOCHROME1" if kind == "monochrome1" else "MONOCHROME2"
    data.BitsStored = {"jpeg": 8, "monochrome1": 12, "voi-lut": 16}[kind]
    data.BitsAllocated = 8 if kind == "jpeg" else 16
    data.HighBit = data.BitsStored - 1
    if kind == "jpeg":
        data.PixelData = encapsulate([encoded(grey(picture), "JPEG")])
    elif kind == "monochrome1":
        data.WindowCenter, data.WindowWidth = 2100, 3400
        data.PixelData = np.rint((1 - picture) * 4095).astype("<u2").tobytes()
    else:
        data.PixelData = np.rint(picture * 5600).astype("<u2").tobytes()  # the brightest lie beyond the table
        curve = 1 / (1 + np.exp(-(np.arange(4096) - 2048) / 600))
        item = Dataset()
        item.LUTDescriptor = [4096, 0, 12]
        item.LUTData = np.rint(curve * 4095).astype("<u2").tolist()
        item["LUTData"].VR = item["LUTDescriptor"].VR = "US"
        data.VOILUTSequence = [item]
    with pydicom.config.disable_value_validation():
        for keyword, value in elements.items():
            setattr(data, keyword, value)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def uid(level: int, numbers: str) -> str:
    """Return a UID as DCMTK makes them: level 2 for studies, 3 for series, 4 for images."""
    return f"{PREFIX}.{level}.8323329.{numbers}"

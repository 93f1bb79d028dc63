"""DICOM -> 8 bits for display: modality LUT, VOI LUT or window, MONOCHROME1, in that order (DICOM PS3.4 N.2).

The lookups are pydicom's own. They are applied once to every value that the pixels can take, not to every pixel, which
gives the same bits in a fraction of the time (benchmarks/readers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossmed_core.errors import CrossmedError, ExitCode, UnreadableImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PERCENTILES = (1.0, 99.0)
"""Shown as black and white where a file states neither window nor VOI LUT (CR and DX often do not)."""
WIDEST = 16
"""Stored bits up to which a table of all values is made."""


def is_dicom(path: str) -> bool:
    """Whether a path is read as DICOM: by its suffix, or the magic word where it has none."""
    suffix = Path(path).suffix.lower()
    if suffix in (".dcm", ".dicom"):
        return True
    if suffix and not suffix[1:].isdigit():  # UIDs end in what looks like a suffix
        return False
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_header(path: str | Path, tags: list[str]) -> Dataset:
    """Read some elements of a file, without its pixels.

    Raises:
        UnreadableImageError: If it is no DICOM file. One that is cut short may merely lack the later elements.
    """
    pydicom = _pydicom()
    try:
        with pydicom.config.disable_value_validation():  # ages like "62" are told by the thousand, and harm nothing
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except Exception as error:  # pydicom raises what it meets: EOFError, AttributeError, struct.error ...
        raise UnreadableImageError(f"{path}: {_reason(error)}") from error


def read_dicom(path: str | Path) -> NDArray[np.uint8]:
    """Open a single-frame DICOM image as it is meant to be seen.

    Returns:
        uint8 (height, width) for grey images, else (height, width, 3) in RGB.

    Raises:
        UnreadableImageError: As `render_dicom`.
    """
    return render_dicom(path)[0]


def render_dicom(path: str | Path) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Open a single-frame DICOM image as it is meant to be seen, and say how it was made so.

    Returns:
        The image, as `read_dicom`, and "method" ("window", "VOI LUT", "as stored", "percentiles", "colour"), "low" and
        "high" (looked-up values shown as black and white), "inverted" (MONOCHROME1).

    Raises:
        UnreadableImageError: If it is missing, truncated, has several frames, or needs a decoder that is not installed.
    """
    pydicom = _pydicom()
    try:
        with pydicom.config.disable_value_validation():
            data = pydicom.dcmread(path)
        if "PixelData" not in data:
            raise UnreadableImageError(f"{path}: the file has no pixels")
        if int(data.get("NumberOfFrames") or 1) != 1:
            raise UnreadableImageError(f"{path}: {data.NumberOfFrames} frames; only single images are read")
        # Decoders of lossy JPEG differ by a grey level. Pillow is always there, so digests depend on no extra.
        lossy = data.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
        pixels = pydicom.pixels.pixel_array(data, decoding_plugin="pillow" if lossy else "")
        if pixels.ndim == 3 or _palette(data):
            return _colour(data, pixels), {"method": "colour"}
        return _grey(data, pixels)
    except UnreadableImageError:
        raise
    except Exception as error:
        raise UnreadableImageError(f"{path}: {_reason(error)}") from error


def _grey(data: Dataset, pixels: NDArray[Any]) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    stored = int(data.get("BitsStored", 16))
    signed = bool(data.get("PixelRepresentation", 0))
    padding = data.get("PixelPaddingValue")
    if not np.issubdtype(pixels.dtype, np.integer) or stored > WIDEST:
        shown = _lookup(data, pixels)
        facts = _bounds(data, lambda: (shown.ravel()[pixels.ravel() != padding], None))
        return _scaled(shown, facts), facts
    low = int(min(pixels.min(), -(1 << (stored - 1)) if signed else 0))
    high = int(max(pixels.max(), (1 << (stored - 1 if signed else stored)) - 1))  # padding may leave the stored bits
    values = np.arange(low, high + 1, dtype=pixels.dtype)
    places = pixels.astype(np.int32) - low if low else pixels
    shown = _lookup(data, values)

    def weighted() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        counts = np.bincount(places.ravel(), minlength=shown.size)
        if padding is not None and low <= int(padding) <= high:
            counts[int(padding) - low] = 0
        return shown, counts

    facts = _bounds(data, weighted)
    return _scaled(shown, facts)[places], facts


def _lookup(data: Dataset, values: NDArray[Any]) -> NDArray[np.float64]:
    """Apply modality LUT or rescale, then the first VOI LUT or window."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    return np.asarray(apply_voi_lut(apply_modality_lut(values, data), data), dtype=np.float64)


def _scaled(shown: NDArray[np.float64], facts: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Bring looked-up values to 0..255."""
    low, high = facts["low"], facts["high"]
    scaled = np.zeros_like(shown) if high <= low else (np.clip(shown, low, high) - low) * (255.0 / (high - low))
    return np.rint(255.0 - scaled if facts["inverted"] else scaled).astype(np.uint8)


def _bounds(
    data: Dataset, weighted: Callable[[], tuple[NDArray[np.float64], NDArray[np.int64] | None]]
) -> dict[str, Any]:
    """Say which looked-up values are shown as black and white, and why.

    Args:
        data: The file.
        weighted: Gives looked-up values and how often each occurs (None = once), padding left out; asked only if the
            file does not say itself.
    """
    method, low, high = _own_range(data) or ("percentiles", *_percentiles(*weighted()))
    inverted = data.get("PhotometricInterpretation") == "MONOCHROME1"
    facts: dict[str, Any] = {"method": method, "low": low, "high": high, "inverted": inverted}
    if method == "window":
        facts["window"] = [_first(data.WindowCenter), _first(data.WindowWidth)]
    return facts


def _first(value: Any) -> float:
    """Return the first of possibly several windows, which is the one that is applied."""
    return float(value) if isinstance(value, str | int | float) else float(value[0])


def _own_range(data: Dataset) -> tuple[str, float, float] | None:
    """Return the method and output range of the file's own VOI LUT or window; None if it has neither."""
    from pydicom.pixels.processing import apply_modality_lut

    if "VOILUTSequence" in data and "LUTData" in data.VOILUTSequence[0]:
        return "VOI LUT", 0.0, float((1 << int(data.VOILUTSequence[0].LUTDescriptor[2])) - 1)
    signed, stored = bool(data.get("PixelRepresentation", 0)), int(data.get("BitsStored", 16))
    if data.get("WindowWidth") in (None, ""):
        # 8-bit files that state no window (JPEG X-rays) are ready for display.
        plain = (float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))) == (1.0, 0.0)
        ready = stored == 8 and not signed and plain and "ModalityLUTSequence" not in data
        return ("as stored", 0.0, 255.0) if ready else None
    # pydicom spreads a window over the range of what the modality LUT or rescale puts out.
    if "ModalityLUTSequence" in data:
        return "window", 0.0, float((1 << int(data.ModalityLUTSequence[0].LUTDescriptor[2])) - 1)
    ends = (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if signed else (0, (1 << stored) - 1)
    first, last = (float(one) for one in apply_modality_lut(np.array(ends, dtype=np.int64), data))
    return "window", min(first, last), max(first, last)


def _percentiles(shown: NDArray[np.float64], counts: NDArray[np.int64] | None) -> tuple[float, float]:
    if counts is None:
        low, high = np.percentile(shown, PERCENTILES)
        return float(low), float(high)
    order = np.argsort(shown, kind="stable")
    below = np.cumsum(counts[order]) / max(1, counts.sum())
    low, high = (
        float(shown[order][min(len(order) - 1, int(np.searchsorted(below, share / 100)))]) for share in PERCENTILES
    )
    return low, high


def _palette(data: Dataset) -> bool:
    return str(data.get("PhotometricInterpretation")) == "PALETTE COLOR"


def _colour(data: Dataset, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut

    if _palette(data):
        pixels = apply_color_lut(pixels, data)  # other colour spaces come as RGB from the decoder
    if pixels.dtype != np.uint8:
        pixels = pixels >> (8 * pixels.dtype.itemsize - 8)
    return np.ascontiguousarray(pixels[..., :3], dtype=np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if "missing dependencies" in text or "no available" in text.lower():
        return f"no decoder for its compression is installed; pip install 'crossmed[dicom]' ({text})"
    if "File is missing DICOM File Meta" in text or type(error).__name__ == "InvalidDicomError":
        return "not a DICOM file"
    return f"damaged or not readable as DICOM ({text})"


def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.config
        import pydicom.pixels
    except ImportError as error:
        raise CrossmedError(
            "DICOM files need pydicom, which this environment lacks.",
            hint="Install it with: pip install 'crossmed[dicom]'",
            exit_code=ExitCode.ENVIRONMENT,
        ) from error
    return pydicom

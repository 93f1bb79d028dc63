"""ImageRef -> array, MaskRef -> array, and masks as run lengths. The only place where pixels are opened.

Displayable files (PNG, JPEG ...), DICOM files and slices of NIfTI volumes all come out as 8 bits, ready to be seen.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossmed_core.dicom import is_dicom, read_dicom
from crossmed_core.errors import UnreadableImageError
from crossmed_core.files import require_regular
from crossmed_core.nifti import is_nifti, open_volume
from crossmed_core.types import RLE, ImageRef, MaskRef

BLANK = 127
"""The grey of a blank image: neither the black of a background nor the white of bone."""
# PIL would clip deeper images at 255 without a word; they must be windowed by their dataset first.
_DISPLAYABLE = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}


def read_image(ref: ImageRef) -> NDArray[np.uint8]:
    """Open an image, with its marks drawn if it has any.

    Returns:
        uint8 array of shape (height, width) for grey images, else (height, width, 3).

    Raises:
        UnreadableImageError: If the file is missing, truncated, not an image, deeper than 8 bits and not a medical
            format, or not the image whose digest the reference carries.
    """
    pixels = _read_pixels(ref)
    if ref.pixels is not None and pixel_digest(pixels) != ref.pixels:
        raise UnreadableImageError(f"{ref.path}: the image is not the one that was recorded (pixels differ)")
    if ref.blank:
        pixels = np.full_like(pixels, BLANK)
    if not ref.marks:
        return pixels
    from crossmed_core.marks import draw_marks  # scipy.ndimage: the command line does not wait for it

    return draw_marks(pixels, [decode_mask(region) for region in ref.marks])


def _read_pixels(ref: ImageRef) -> NDArray[np.uint8]:
    require_regular(ref.path)
    if ref.axial is not None:
        if ref.rendering is None:
            raise UnreadableImageError(f"{ref.path}: a slice of a volume needs to be told how it is shown (rendering)")
        return open_volume(ref.path).rendered(ref.axial, ref.rendering)
    if is_nifti(ref.path):
        raise UnreadableImageError(f"{ref.path}: a volume needs the number of the slice to show (axial)")
    if is_dicom(ref.path):
        return read_dicom(ref.path)
    with _open(ref.path, ref.sha256) as image:
        grey = image.mode in ("1", "L", "LA")
        return np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8)


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an image's shape and pixels: the same whatever file format and compression hold them.

    A grey image that is stored in colour is the same image.
    """
    if pixels.ndim == 3 and bool((pixels == pixels[..., :1]).all()):
        pixels = pixels[..., 0]
    total = hashlib.sha256(str(pixels.shape).encode())
    total.update(np.ascontiguousarray(pixels).data)
    return total.hexdigest()


def read_mask(ref: MaskRef) -> NDArray[np.bool_]:
    """Open a mask.

    Returns:
        bool array of shape (height, width), True on the foreground.

    Raises:
        UnreadableImageError: As `read_image`.
    """
    if ref.rle is not None:
        return decode_mask(ref.rle)
    assert ref.path is not None
    require_regular(ref.path)
    if ref.axial is not None:
        labels = np.rint(open_volume(ref.path).raw(ref.axial)).astype(np.int64)
        return np.isin(labels, ref.values) if ref.values else labels != 0
    with _open(ref.path, None) as image:
        # Palette entries and colour channels as they are: a dark colour is not background.
        values = np.asarray(image if image.mode != "PA" else image.convert("P"))
        if image.mode in ("LA", "RGBA"):
            values = values[..., :-1]  # opacity is not foreground
        foreground: NDArray[np.bool_] = np.any(values.reshape(*values.shape[:2], -1) != 0, axis=2)
        return foreground


def _open(path: str, sha256: str | None) -> Image.Image:
    try:
        content = Path(path).read_bytes()
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise UnreadableImageError(f"{path}: the file is not the one that was recorded (SHA-256 differs)")
        image = Image.open(io.BytesIO(content))
        image.load()
    except OSError as error:  # PIL's own errors are OSErrors too
        reason = error.strerror or ("not an image file" if "identify" in str(error) else str(error))
        raise UnreadableImageError(f"{path}: {reason}") from error
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{path}: {error}") from error
    if image.mode not in _DISPLAYABLE:
        raise UnreadableImageError(f"{path}: mode {image.mode!r} is deeper than 8 bits; window it to 8 bits first")
    return image


def encode_mask(mask: NDArray[np.bool_]) -> RLE:
    """Encode a (height, width) mask in COCO's uncompressed run lengths.

    Example:
        >>> encode_mask(np.array([[False, True], [True, True]])).counts
        (1, 3)
    """
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate(([0], changes, [flat.size])))
    leading = (0,) if flat.size and flat[0] else ()  # COCO starts with the background run, however short
    height, width = mask.shape
    return RLE((int(height), int(width)), leading + tuple(int(count) for count in counts))


def decode_mask(rle: RLE) -> NDArray[np.bool_]:
    """Decode run lengths to a bool array of shape `rle.size`.

    Raises:
        UnreadableImageError: If the runs do not fill the mask.
    """
    height, width = rle.size
    if sum(rle.counts) != height * width or min(rle.counts, default=0) < 0:
        raise UnreadableImageError(
            f"run lengths sum to {sum(rle.counts)}, a {height} x {width} mask has {height * width}"
        )
    values = np.zeros(len(rle.counts), dtype=bool)
    values[1::2] = True
    return np.repeat(values, rle.counts).reshape((height, width), order="F")

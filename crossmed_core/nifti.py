"""NIfTI volume -> axial slices for display, oriented by the affine, decoding no more of the file than the slices need.

Radiological convention: the first row is anterior, the first column the patient's right. Slices are counted from the
feet, whatever the order in the file. nibabel reads headers, scaling and slices; ISA-L, which is two to three times as
fast as zlib, decompresses (benchmarks/readers.py).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossmed_core.errors import CrossmedError, ExitCode, UnreadableImageError
from crossmed_core.types import Rendering

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

CHUNK = 1 << 18
"""Voxels counted at a time: bincount makes eight bytes of each, which then stay in the processor's cache."""
SUFFIXES = (".nii", ".nii.gz")
_HEADER = 544
"""Bytes that hold the header of either version, NIfTI-1 (352) or NIfTI-2."""


def is_nifti(path: str) -> bool:
    """Whether a path is read as NIfTI, by its suffix."""
    return path.lower().endswith(SUFFIXES)


class Volume:
    """A three-dimensional NIfTI file, opened when first asked for.

    Args:
        path: A .nii or .nii.gz file.

    Raises:
        UnreadableImageError: From every method, if the file is missing, truncated, not NIfTI, or not three-dimensional.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._content = b""  # of a compressed file, as far as it was decompressed

    @cached_property
    def _image(self) -> Nifti1Image:
        """Header and affine; data are read from the file, or from the decompressed bytes, slice by slice."""
        return self._open(0)

    @cached_property
    def _gzipped(self) -> bool:
        """By content: copies get gunzipped and keep their names."""
        try:
            with self.path.open("rb") as file:
                return file.read(2) == b"\x1f\x8b"
        except OSError as error:
            raise UnreadableImageError(f"{self.path}: {error.strerror}") from error

    @property
    def _streamed(self) -> bool:
        """Whether the bytes are held here: compressed ones, and plain ones that nibabel would take for compressed."""
        return self._gzipped or self.path.suffix.lower() == ".gz"

    def _open(self, size: int) -> Nifti1Image:
        """Make the image of the file, or of its first `size` decompressed bytes (-1 = all)."""
        nibabel = _nibabel()
        try:
            if self._streamed:
                self._load(max(size, _HEADER) if size >= 0 else size)
                start = self._content[:_HEADER]
            else:
                with self.path.open("rb") as file:
                    start = file.read(_HEADER)
            kind = self._kind(nibabel, start)
            if self._streamed and size >= 0:  # header extensions lie before the data
                header = kind.header_class(start[: kind.header_class.sizeof_hdr], check=False)
                self._load(int(header.get_data_offset()))
            stream = io.BytesIO(self._content)
            image = kind.from_stream(stream) if self._streamed else kind.from_filename(self.path)
        except UnreadableImageError:
            raise
        except Exception as error:  # nibabel raises what it meets
            raise UnreadableImageError(f"{self.path}: {_reason(error)}") from error
        if len(image.shape) != 3:
            raise UnreadableImageError(f"{self.path}: {len(image.shape)} dimensions; a volume of three is needed")
        if min(image.shape) < 1:
            raise UnreadableImageError(f"{self.path}: it has no voxels (shape {' x '.join(map(str, image.shape))})")
        if image.get_data_dtype().kind not in "iuf":
            raise UnreadableImageError(f"{self.path}: its voxels are no plain numbers ({image.get_data_dtype()})")
        return image

    def _kind(self, nibabel: Any, start: bytes) -> Any:
        """Return nibabel's class for a file that starts so."""
        sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
        for size, kind in ((348, nibabel.Nifti1Image), (540, nibabel.Nifti2Image)):
            if size in sizes:  # a header starts with its own length
                if len(start) < size:
                    raise UnreadableImageError(f"{self.path}: truncated (its header is incomplete)")
                return kind
        raise UnreadableImageError(f"{self.path}: {'not a NIfTI file' if start else 'the file is empty'}")

    def _load(self, size: int) -> None:
        """Hold at least the first `size` bytes, decompressed; -1 = all."""
        if 0 <= size <= len(self._content):
            return
        try:
            from isal import igzip
        except ImportError:
            import gzip as igzip  # slower, same bytes
        with igzip.open(self.path, "rb") if self._gzipped else self.path.open("rb") as file:
            self._content = file.read(size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the file's own axes."""
        x, y, z = self._image.shape
        return int(x), int(y), int(z)

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel indices -> millimetres, (4, 4)."""
        return np.asarray(self._image.affine, dtype=np.float64)

    @cached_property
    def _orientation(self) -> NDArray[np.float64]:
        """Per axis of the file: runs along right, anterior or superior (0, 1, 2), towards it (1) or away (-1)."""
        if not np.isfinite(self.affine).all():
            raise UnreadableImageError(f"{self.path}: its affine holds values that are no numbers")
        orientation = _nibabel().io_orientation(self.affine)
        if np.isnan(orientation).any():
            raise UnreadableImageError(f"{self.path}: its affine leaves an axis without direction")
        return np.asarray(orientation)

    @cached_property
    def _up(self) -> int:
        """The file's axis that runs between feet and head."""
        return int(np.flatnonzero(self._orientation[:, 0] == 2)[0])

    @property
    def slices(self) -> int:
        """Number of axial slices."""
        return self.shape[self._up]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between rows, between columns, and between slices of the displayed images."""
        zooms = [float(one) for one in self._image.header.get_zooms()[:3]]
        axes = {int(axis): zooms[place] for place, axis in enumerate(self._orientation[:, 0])}
        return axes[1], axes[0], axes[2]

    def raw(self, axial: int) -> NDArray[Any]:
        """Return one axial slice in the file's own (scaled) values, oriented for display: (height, width).

        A compressed file is decompressed as far as this slice only.
        """
        count = self.slices
        if not 0 <= axial < count:
            raise UnreadableImageError(f"{self.path}: no slice {axial}; it has {count}")
        place = axial if self._orientation[self._up, 1] > 0 else count - 1 - axial
        index: list[Any] = [slice(None)] * 3
        index[self._up] = place
        try:
            if self._streamed:
                data = self._image.dataobj
                last = place + 1 if self._up == 2 else self.shape[2]  # Fortran order: the last axis is the slowest
                needed = data.offset + int(np.prod(self.shape[:2])) * last * data.dtype.itemsize
                self._load(needed)
                if len(self._content) < needed:
                    raise UnreadableImageError(f"{self.path}: truncated")
                source = self._open(needed).dataobj
            else:
                source = self._image.dataobj
            plane = np.asanyarray(source[tuple(index)])
        except UnreadableImageError:
            raise
        except Exception as error:
            raise UnreadableImageError(f"{self.path}: {_reason(error)}") from error
        return self._displayed(plane)

    def _displayed(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Turn a slice, its axes in the file's order, so that rows run from anterior, columns from the right."""
        across, along = (axis for axis in range(3) if axis != self._up)
        if self._orientation[across, 0] == 1:  # the first of the two runs between anterior and posterior
            plane, across, along = plane.T, along, across
        # Columns must run towards the left, rows towards posterior: against nibabel's right and anterior.
        columns = -1 if self._orientation[across, 1] > 0 else 1
        rows = -1 if self._orientation[along, 1] > 0 else 1
        return plane[::columns, ::rows].T

    @cached_property
    def data(self) -> NDArray[Any]:
        """All voxels in the file's own (scaled) values, (x, y, z) as stored."""
        try:
            image = self._open(-1) if self._streamed else self._image
            return np.asanyarray(image.dataobj)
        except UnreadableImageError:
            raise
        except Exception as error:
            raise UnreadableImageError(f"{self.path}: {_reason(error)}") from error

    def planes(self, values: NDArray[Any]) -> NDArray[Any]:
        """Order an array of the file's shape as (slices from the feet, file's other two axes)."""
        moved = np.moveaxis(values, self._up, 0)
        return moved if self._orientation[self._up, 1] > 0 else moved[::-1]

    def labels(self, allowed: Sequence[int]) -> NDArray[np.uint8]:
        """Return a label volume in whole numbers, whatever type it is stored in.

        Args:
            allowed: The labels that may occur.

        Raises:
            UnreadableImageError: Also if another label occurs, or values are not whole numbers.
        """
        data = self.data
        rounded = np.rint(data) if np.issubdtype(data.dtype, np.floating) else data
        found = np.unique(rounded)
        if np.issubdtype(data.dtype, np.floating) and not np.allclose(data, rounded, atol=0.01):
            raise UnreadableImageError(f"{self.path}: labels are not whole numbers")
        strange = [f"{value:g}" for value in found if value not in allowed]
        if strange:
            shown = ", ".join(strange[:5]) + (f" and {len(strange) - 5} more" if len(strange) > 5 else "")
            raise UnreadableImageError(f"{self.path}: label {shown} occurs; only {', '.join(map(str, allowed))} may")
        return rounded.astype(np.uint8)

    @cached_property
    def _histogram(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Distinct voxel values above 0, and how often each occurs."""
        data = self.data
        if np.issubdtype(data.dtype, np.integer) and data.min(initial=0) >= 0 and data.max(initial=0) < 1 << 20:
            flat, counts = data.ravel(order="K"), np.zeros(int(data.max(initial=0)) + 1, dtype=np.int64)
            for first in range(0, flat.size, CHUNK):
                chunk = flat[first : first + CHUNK].astype(np.int64, copy=False)
                counts += np.bincount(chunk, minlength=counts.size)
            values = np.flatnonzero(counts[1:]) + 1
            return values.astype(np.float64), counts[values]
        values, counts = np.unique(data[(data > 0) & np.isfinite(data)], return_counts=True)
        return values.astype(np.float64), counts

    def bounds(self, rendering: Rendering) -> tuple[float, float]:
        """Return the raw values that a rendering shows as black and as white."""
        if rendering.method == "window":
            return rendering.low, rendering.high
        values, counts = self._histogram
        if not values.size:
            raise UnreadableImageError(f"{self.path}: no voxel is above 0")
        total = counts.sum()
        if rendering.method == "percentile":
            below = np.cumsum(counts) / total
            last = len(values) - 1
            low, high = (
                values[min(last, int(np.searchsorted(below, one / 100)))] for one in (rendering.low, rendering.high)
            )
            return float(low), float(high)
        mean = float((values * counts).sum() / total)
        deviation = float(np.sqrt((counts * (values - mean) ** 2).sum() / total))
        return mean + rendering.low * deviation, mean + rendering.high * deviation

    def rendered(self, axial: int, rendering: Rendering) -> NDArray[np.uint8]:
        """Return one axial slice as 8 bits for display, (height, width)."""
        low, high = self.bounds(rendering)  # first: it may decode the whole file anyway
        plane = self.raw(axial).astype(np.float64)
        if not np.isfinite(plane).all():
            plane = np.nan_to_num(plane, nan=low, posinf=high, neginf=low)
        scaled = np.zeros_like(plane) if high <= low else (np.clip(plane, low, high) - low) * (255.0 / (high - low))
        return np.ascontiguousarray(np.rint(scaled).astype(np.uint8))


@lru_cache(maxsize=3)
def open_volume(path: str) -> Volume:
    """Return a volume; the last few stay open, as neighbouring slices are asked for one after the other.

    Three hold what the cells of one BraTS case show. A download does not change while it is read.
    """
    return Volume(path)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, EOFError) or "end-of-stream" in text or "Expected" in text or "not enough data" in text:
        return f"truncated ({text})"
    return f"not readable as NIfTI ({text})"


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise CrossmedError(
            "NIfTI files need nibabel, which this environment lacks.",
            hint="Install it with: pip install 'crossmed[nifti]'",
            exit_code=ExitCode.ENVIRONMENT,
        ) from error
    return nibabel

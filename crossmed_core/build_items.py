"""The parts of a build that run in worker processes: reading units, rendering images, making candidate regions.

Every function depends on its arguments alone, so a build has the same bytes for any number of workers.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossmed_core.candidates import CandidateRules, Drawn, offer
from crossmed_core.catalog import Catalog
from crossmed_core.contracts import Dataset, GeneratedDataset, ReadsInUnits
from crossmed_core.dicom import is_dicom, render_dicom
from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import encode_mask, pixel_digest, read_image, read_mask
from crossmed_core.nifti import open_volume
from crossmed_core.plugins import PluginConfig, PluginManager
from crossmed_core.registry import Registry
from crossmed_core.runlog import rle_to_json, write_bytes
from crossmed_core.types import ImageRef, Reading, Sample

_worker: dict[str, Any] = {}


@dataclass(frozen=True)
class ImageSettings:
    """How images are stored.

    Attributes:
        out: The benchmark folder.
        max_side: Longest side in pixels; larger images are reduced.
        copy: Whether displayable files within the bound are copied as they are, or left where they lie.
    """

    out: Path
    max_side: int
    copy: bool


def start(config: PluginConfig, registry: Registry, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Prepare this process.

    Args:
        config: Which plugins may be loaded.
        registry: The registry.
        options: Dataset -> the options it was built with.
    """
    _worker.update(catalog=Catalog(PluginManager(config, registry)), options=options, datasets={})


def dataset(name: str) -> Dataset:
    """Return this process's own instance of a dataset."""
    known: dict[str, Dataset] = _worker["datasets"]
    if name not in known:
        catalog: Catalog = _worker["catalog"]
        known[name], _ = catalog.dataset(name, _worker["options"][name])
    return known[name]


def read_unit(task: tuple[str, Any]) -> list[Reading]:
    """Read one unit of a dataset: (dataset, unit)."""
    name, unit = task
    reader = dataset(name)
    assert isinstance(reader, ReadsInUnits)
    return list(reader.read(unit))


# -- images ----------------------------------------------------------------------------------------


def render_group(task: tuple[str, Sequence[Sample], ImageSettings]) -> list[dict[str, Any]]:
    """Store the images of samples that share files: (dataset, samples, settings).

    Returns:
        Per sample, in order: "id", and either "skipped" (the reason) or where the image lies and what it is.
    """
    name, samples, settings = task
    reader = dataset(name)
    if isinstance(reader, GeneratedDataset):
        list(reader.materialise(samples))
    rows: dict[str, dict[str, Any]] = {}
    # The last slice first: a compressed volume is decompressed once, as far as that.
    for sample in sorted(samples, key=lambda one: -(one.image.axial or 0)):
        try:
            rows[sample.id] = {"id": sample.id, **_render(sample, settings)}
        except UnreadableImageError as error:
            rows[sample.id] = {"id": sample.id, "skipped": str(error)}
        except (Exception, SystemExit) as error:  # a format's oddity that no reader foresaw costs its own items only
            reason = f"cannot be shown ({type(error).__name__}: {str(error)[:200]})"
            rows[sample.id] = {"id": sample.id, "skipped": f"{sample.image.path}: {reason}"}
    return [rows[sample.id] for sample in samples]


def _render(sample: Sample, settings: ImageSettings) -> dict[str, Any]:
    pixels, shown = _opened(sample.image)
    native = pixels.shape[:2]
    mask = None if sample.mask is None else read_mask(sample.mask)
    if mask is not None and mask.shape != native:
        raise UnreadableImageError(f"{sample.image.path}: the image is {native}, its mask {mask.shape}")
    facts: dict[str, Any] = {"native": list(native), "resize": None, "rendering": shown}
    size = _bounded(native, settings.max_side)
    if size != native:
        pixels = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
        facts["resize"] = "bilinear, antialiased"
        if mask is not None:
            mask = _reduced(mask, size, sample.image.path)
    digest = pixel_digest(pixels)
    facts |= {"pixels": digest, "size": list(size)}
    if size == native and sample.image.axial is None and not is_dicom(sample.image.path):
        facts |= _as_it_is(sample.image, settings)
    else:
        facts |= {"image": _stored(pixels, digest, settings), "image_sha256": None}
    facts["mask"] = None if mask is None else rle_to_json(encode_mask(mask))
    return facts


def _opened(image: ImageRef) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Open an image, and say which raw values it shows as black and white, and why."""
    if image.axial is not None and image.rendering is not None:
        pixels = read_image(image)
        low, high = open_volume(image.path).bounds(image.rendering)
        return pixels, {**image.rendering._asdict(), "black": low, "white": high}
    if is_dicom(image.path):
        return render_dicom(image.path)
    return read_image(image), {"method": "as stored"}


def _bounded(size: tuple[int, ...], longest: int) -> tuple[int, int]:
    height, width = size
    side = max(height, width)
    if side <= longest:
        return height, width
    return max(1, round(height * longest / side)), max(1, round(width * longest / side))


def _reduced(mask: NDArray[np.bool_], size: tuple[int, int], path: str) -> NDArray[np.bool_]:
    """Reduce a mask: a pixel is foreground if at least half of what it covers was."""
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize(size[::-1], Image.Resampling.BOX)
    reduced: NDArray[np.bool_] = np.asarray(grey) >= 128
    if mask.any() and not reduced.any():
        raise UnreadableImageError(f"{path}: its region of {np.count_nonzero(mask)} pixels vanishes at {size}")
    return reduced


def _stored(pixels: NDArray[np.uint8], digest: str, settings: ImageSettings) -> str:
    """Write a PNG named by its pixels, unless it is there; return its path in the benchmark."""
    name = f"images/{digest[:2]}/{digest}.png"
    path = settings.out / name
    if not path.exists():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
        write_bytes(path, buffer.getvalue())
    return name


def _as_it_is(image: ImageRef, settings: ImageSettings) -> dict[str, Any]:
    """Copy a displayable file byte for byte, or refer to it where it lies."""
    source = Path(image.path)
    content = source.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if not settings.copy:
        return {"image": str(source), "image_sha256": sha256}
    name = f"images/{sha256[:2]}/{sha256}{source.suffix.lower()}"
    if not (settings.out / name).exists():
        write_bytes(settings.out / name, content)
    return {"image": name, "image_sha256": sha256}


# -- candidate regions -----------------------------------------------------------------------------


def make_regions(
    task: tuple[Sequence[Drawn], CandidateRules, Sequence[Drawn], Sequence[Drawn]],
) -> dict[str, dict[str, Any] | str]:
    """Make the candidates of a cell and part: (regions that need company, rules, those that have it, other parts').

    Returns:
        Item id -> "regions" as JSON, "max_iou" and "grouped"; or the reason why there are none.
    """
    found: dict[str, dict[str, Any] | str] = {}
    for item, one in offer(*task).items():
        if isinstance(one, str):
            found[item] = one
        else:
            regions = json.dumps([rle_to_json(region) for region in one.regions])
            found[item] = {"regions": regions, "max_iou": one.max_iou, "grouped": one.grouped}
    return found

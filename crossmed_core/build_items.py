"""The parts of a build that run in worker processes: reading units, rendering images, making candidate regions.

Every function depends on its arguments alone, so a build has the same bytes for any number of workers.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossmed_core.candidates import CandidateRules, Donors, make_candidates
from crossmed_core.catalog import Catalog
from crossmed_core.contracts import Dataset, GeneratedDataset, ReadsInUnits
from crossmed_core.dicom import is_dicom
from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import decode_mask, encode_mask, pixel_digest, read_image, read_mask
from crossmed_core.plugins import PluginConfig, PluginManager
from crossmed_core.questions import UnaskableError
from crossmed_core.registry import Registry
from crossmed_core.runlog import rle_from_json, rle_to_json, write_bytes
from crossmed_core.types import ImageRef, Item, Reading, Sample

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
        for _ in reader.materialise(samples):
            pass
    rows: dict[str, dict[str, Any]] = {}
    # The last slice first: a compressed volume is decompressed once, as far as that.
    for sample in sorted(samples, key=lambda one: -(one.image.axial or 0)):
        try:
            rows[sample.id] = {"id": sample.id, **_render(sample, settings)}
        except UnreadableImageError as error:
            rows[sample.id] = {"id": sample.id, "skipped": str(error)}
    return [rows[sample.id] for sample in samples]


def _render(sample: Sample, settings: ImageSettings) -> dict[str, Any]:
    pixels = read_image(sample.image)
    native = pixels.shape[:2]
    mask = None if sample.mask is None else read_mask(sample.mask)
    if mask is not None and mask.shape != native:
        raise UnreadableImageError(f"{sample.image.path}: the image is {native}, its mask {mask.shape}")
    facts: dict[str, Any] = {"native": list(native), "resize": None}
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


def donors_file(folder: Path, pool: str) -> Path:
    """Return where the regions of a cell and part lie while a build runs."""
    return folder / f"donors-{hashlib.sha256(pool.encode()).hexdigest()[:16]}.json"


@lru_cache(maxsize=4)
def _donors(path: Path) -> Donors:
    rows = json.loads(path.read_text())
    regions = [(row[0], row[1], region) for row in rows if (region := rle_from_json(row[2])) is not None]
    return Donors(regions)


def make_regions(task: tuple[Path, Sequence[tuple[Item, Path]], CandidateRules]) -> list[tuple[str, str, str]]:
    """Make the candidates of some items of one cell and part: (donors' file, items with image paths, rules).

    Returns:
        Per item: its id, its candidates as JSON or "", and the reason if there are none.
    """
    path, items, rules = task
    donors = _donors(path)
    found = []
    for item, image in items:
        assert item.mask is not None and item.mask.rle is not None
        try:
            pixels = read_image(ImageRef(str(image), pixels=item.image.pixels))
            regions = make_candidates(item, decode_mask(item.mask.rle), pixels, donors, rules)
            found.append((item.id, json.dumps([rle_to_json(one) for one in regions]), ""))
        except (UnaskableError, UnreadableImageError) as error:
            found.append((item.id, "", str(error)))
    return found

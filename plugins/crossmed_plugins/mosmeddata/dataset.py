"""MosMedData COVID19_1110 as samples: CT slices with the study's severity, and with lesions where there is a mask.

Layout, registry and categories: the download's README and Morozov et al. 2020 (arXiv:2005.06465). Each patient has one
study. Severity was graded on the whole of it, so a single slice may look milder or worse than its label.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmed_core.contracts import Check, Layout
from crossmed_core.errors import CrossmedError, UnreadableImageError, suggest
from crossmed_core.files import relative, require_regular
from crossmed_core.nifti import Volume
from crossmed_core.parts import stratified_parts
from crossmed_core.types import MAT, Counted, ImageRef, MaskRef, Part, Question, Reading, Rendering, Sample, Skipped
from crossmed_core.volumes import CHOICES, chosen_slices, compared, must_have_shape, reason, spaced, spacing_words
from crossmed_plugins.mosmeddata import layout, prompts
from crossmed_plugins.mosmeddata.prompts import SEVERITIES

ANATOMIES = ("lung", "chest")
MIDDLE = (0.2, 0.8)
"""Share of the slices, counted from the feet, between which severity is shown: necks and bellies say nothing of it."""
CHUNK = 16
"""Studies per unit."""

COUNTS = {"CT-0": 254, "CT-1": 684, "CT-2": 125, "CT-3": 45, "CT-4": 2}
# Starts of the digests of three masks of a published copy.
_MASK_DIGESTS = {"study_0255": "0aedacf4", "study_0256": "7ce3ac02", "study_0257": "a74a0dba"}


@dataclass(frozen=True, slots=True)
class Study:
    """One row of the registry with its files.

    Attributes:
        name: "study_0255", also the patient.
        where: The row, for reports.
        category: "CT-0" ... "CT-4".
        image: The volume.
        mask: Its mask, or None: then the study is not annotated, which does not mean that it is free of lesions.
        part: Of the patient.
    """

    name: str
    where: str
    category: str
    image: Path
    mask: Path | None
    part: Part


@dataclass(frozen=True, slots=True)
class Unit:
    """Some studies, as they are handed to a worker, and what reported paths are relative to."""

    root: Path
    studies: tuple[Study, ...]


class MosMedData:
    """Reader of MosMedData (`contracts.Dataset`, `LocatesItself`, `ReadsInUnits`, `KnowsItsDownload`).

    Args:
        anatomy: What the cell is called, "lung" or "chest": CrossMed (arXiv:2511.11034) does not say which.
        slices: Most slices per study and cell.
        choice: Of the slices that show lesions, in the segmentation cell: "even" = evenly spaced, "largest" = those
            that show the most. Severity is always shown evenly over the middle of the volume, as most studies have no
            mask.
        window: Hounsfield units shown as black and as white, "low,high". "-1000,400" is the range of the Keras example;
            "-1350,150" the lung window (level -600, width 1500).
        segmentation: Whether the studies with masks also fill a segmentation cell.

    Raises:
        CrossmedError: For a value that is not allowed.
    """

    def __init__(
        self,
        anatomy: str = "lung",
        slices: int = 8,
        choice: str = "even",
        window: str | Sequence[float] = "-1000,400",
        segmentation: bool = False,
    ) -> None:
        for name, value, known in (("anatomy", anatomy, ANATOMIES), ("choice", choice, CHOICES)):
            if value not in known:
                hint = f"Allowed: {', '.join(known)}. {suggest(str(value), known)}".strip()
                raise CrossmedError(f"Dataset 'mosmeddata': {name} cannot be {value!r}.", hint=hint)
        if not isinstance(slices, int) or isinstance(slices, bool) or slices < 1:
            raise CrossmedError(f"Dataset 'mosmeddata': slices must be a whole number of at least 1, not {slices!r}.")
        if not isinstance(segmentation, bool):
            raise CrossmedError(f"Dataset 'mosmeddata': segmentation must be true or false, not {segmentation!r}.")
        self.anatomy = anatomy
        self.slices = slices
        self.choice = choice
        self.rendering = Rendering("window", *_window(window))
        self.segmentation = segmentation

    def questions(self) -> Mapping[MAT, Question]:
        """Return what is asked about severity and, if it is on, about regions."""
        return prompts.questions(self.anatomy, segmentation=self.segmentation)

    def locate(self, root: Path) -> Layout:
        """Find the folder that holds the registry and `studies`."""
        return layout.locate(root)

    def samples(self, root: Path) -> Iterator[Reading]:
        """Yield the samples of all studies, those of a study together, in the order of the registry."""
        for unit in self.units(root):
            if isinstance(unit, Unit):
                yield from self.read(unit)
            else:
                yield unit

    def units(self, root: Path) -> Iterator[Unit | Skipped | Counted]:
        """Yield the registry's studies in chunks; parts are drawn by category over all rows."""
        folder = self.locate(root).root
        rows = []
        for row in layout.read_registry(folder):
            if isinstance(row, Skipped):
                yield row
            else:
                rows.append(row)
        on_disk = layout.studies_on_disk(folder)
        parts = stratified_parts({row.study: row.category for row in rows})
        studies = []
        for row in rows:
            image = layout.resolve(folder, row.study_file)
            mask = layout.resolve(folder, row.mask_file) if row.mask_file and self.segmentation else None
            if image is None:
                yield Skipped(
                    row.where,
                    f"{_short(row.study_file)} is not there, neither .nii.gz nor .nii, or is not a regular file; "
                    "download it again",
                )
                continue
            if row.mask_file and self.segmentation and mask is None:
                yield Skipped(
                    row.where, f"{_short(row.mask_file)} is not there; the study is left out of the segmentation cell"
                )
            studies.append(Study(row.study, row.where, row.category, image, mask, parts[row.study]))
        unlisted = sorted(on_disk.keys() - parts.keys())
        for name in unlisted:
            yield Skipped(relative(on_disk[name], root), "not in the registry, so its severity is not known")
        yield Counted("studies found", len(on_disk))
        yield Counted("studies without labels", len(unlisted))
        yield Counted("rows labelled", len(rows))
        yield Counted("rows resolved", len(studies))
        if self.segmentation:
            yield Counted("masks found", len(layout.masks_on_disk(folder)))
            yield Counted("studies without masks", sum(study.mask is None for study in studies))
        for start in range(0, len(studies), CHUNK):
            yield Unit(root, tuple(studies[start : start + CHUNK]))

    def read(self, unit: Unit) -> Iterator[Reading]:
        """Yield the samples of some studies; opens headers, and masks where they are asked for."""
        for study in unit.studies:
            volume = Volume(study.image)
            try:
                count = volume.slices
                spacing = spacing_words(volume)
            except UnreadableImageError as error:
                yield Skipped(relative(study.image, unit.root), reason(error, study.image))
                continue
            facts = {
                "category": study.category,
                "anatomy": self.anatomy,
                "of": count,
                "window_hu": f"{self.rendering.low:g} to {self.rendering.high:g}",
                "spacing_mm": spacing,
            }
            for axial in self.middle(count):
                shown = {"slice": axial, "choice": "even", "between": "20 % to 80 % of the slices"}
                source = facts | shown | {"label_source": study.where}
                yield self._sample(study, axial, "classification", source)
            if study.mask is not None:
                yield from self._regions(unit, study, study.mask, volume, facts)

    def _regions(
        self, unit: Unit, study: Study, path: Path, volume: Volume, facts: Mapping[str, Any]
    ) -> Iterator[Reading]:
        """Yield the segmentation samples of one study."""
        mask = Volume(path)
        try:
            must_have_shape(mask, volume, "study")
            areas = mask.planes(mask.labels((0, 1))).sum(axis=(1, 2), dtype=np.int64)
            apart = _apart(mask, volume)
            if apart and not _same_axes(mask, volume):
                raise UnreadableImageError("its affine turns it otherwise than the study")
        except UnreadableImageError as error:
            where = relative(path, unit.root)
            yield Skipped(where, f"{reason(error, path)}; the study is left out of the segmentation cell")
            return
        if apart:
            yield Counted("masks placed elsewhere by their affine, laid on the study voxel by voxel", 1)
        if not areas.any():
            yield Counted("masks without foreground", 1)
        for axial in self.chosen(areas):
            shown = {"slice": axial, "choice": self.choice, "region_pixels": int(areas[axial])}
            yield self._sample(study, axial, "segmentation", {**facts, **shown, "label_source": path.name}, path)

    def _sample(
        self, study: Study, axial: int, task: str, source: Mapping[str, Any], mask: Path | None = None
    ) -> Sample:
        number = study.name.removeprefix("study_")
        return Sample(
            id=f"mosmed-{number}-z{axial:03d}" if mask is None else f"mosmed-{number}-region-z{axial:03d}",
            patient=study.name,
            mat=MAT("ct", self.anatomy, task),
            image=ImageRef(str(study.image.absolute()), axial=axial, rendering=self.rendering),
            label=SEVERITIES[study.category] if mask is None else None,
            mask=MaskRef(str(mask.absolute()), axial=axial, values=(1,)) if mask else None,
            part=study.part,
            source=source,
        )

    def middle(self, count: int) -> list[int]:
        """Return evenly spaced slices from the middle of a volume of `count` slices, in order."""
        first, last = (round(share * (count - 1)) for share in MIDDLE)
        return spaced(np.arange(first, last + 1), self.slices)

    def chosen(self, areas: NDArray[np.int64]) -> list[int]:
        """Return the slices to outline, in order, given the pixels of lesion in each slice."""
        return chosen_slices(areas, self.slices, choice=self.choice)

    def write_fixture(self, root: Path, *, seed: int = 0) -> None:
        """Write a miniature download with its known oddities, and `manifest.json` with what a reader must find."""
        from crossmed_plugins.mosmeddata.fixture import write_fixture

        write_fixture(root, seed=seed)

    def verify(self, root: Path) -> Iterator[Check]:
        """Hold registry and file listings against the README of the download.

        Raises:
            DownloadNotFoundError: If `root` holds no MosMedData.
            CrossmedError: If no registry can be read.
        """
        folder = self.locate(root).root
        rows = [row for row in layout.read_registry(folder) if not isinstance(row, Skipped)]
        counts = Counter(row.category for row in rows)
        yield compared("rows of the registry", len(rows), 1110)
        for category, expected in COUNTS.items():
            yield compared(f"{category} rows", counts[category], expected)
        yield compared("studies on disk", len(layout.studies_on_disk(folder)), 1110)
        masks = layout.masks_on_disk(folder)
        known = {f"study_{number:04d}" for number in range(255, 305)}
        yield compared("masks on disk", len(masks), 50)
        yield compared("masks of studies 0255 to 0304", len(masks.keys() & known), 50)
        masked = Counter(row.category for row in rows if row.mask_file)
        yield compared("categories with masks", ", ".join(sorted(masked)) or "none", "CT-1")
        for name, start in _MASK_DIGESTS.items():
            try:
                if name in masks:
                    require_regular(masks[name])
                found = hashlib.sha256(masks[name].read_bytes()).hexdigest()[:8] if name in masks else "no mask"
            except UnreadableImageError as error:
                found = f"cannot be read: {reason(error, masks[name])}"
            except OSError as error:
                found = f"cannot be read: {error.strerror}"
            # A copy may have been compressed again.
            yield compared(f"SHA-256 of the mask of {name}", found, start, otherwise="hint")


def _short(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:80]} ... {path[-80:]}"


def _window(window: str | Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (float(one) for one in (window.split(",") if isinstance(window, str) else window))
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise CrossmedError(
            f"Dataset 'mosmeddata': window must be two Hounsfield values, the lower first, not {window!r}.",
            hint='Allowed is for example "-1000,400" or "-1350,150".',
        )
    return low, high


def _apart(first: Volume, second: Volume) -> bool:
    """Whether the corners of two volumes of one shape lie more than half a voxel apart."""
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in first.shape))], dtype=np.float64)
    distances = np.linalg.norm(corners @ (first.affine - second.affine).T, axis=1)
    return bool(distances.max() > min(second.spacing) / 2)


def _same_axes(first: Volume, second: Volume) -> bool:
    import nibabel

    codes = [nibabel.aff2axcodes(one.affine) for one in (first, second)]
    return bool(codes[0] == codes[1])

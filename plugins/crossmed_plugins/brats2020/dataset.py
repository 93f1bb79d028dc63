"""BraTS 2020 training data as samples: slices of one sequence with the case's grade, or with a tumour region.

Layout, tables and labels: BraTS 2020 data page (CBICA, University of Pennsylvania) and the download's own files;
regions: Menze et al. 2015 (TMI 34:1993), Bakas et al. 2018 (arXiv:1811.02629). Only the training cases have labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossmed_core.contracts import Check, Layout
from crossmed_core.errors import CrossmedError, UnreadableImageError, suggest
from crossmed_core.files import relative, require_regular
from crossmed_core.nifti import Volume
from crossmed_core.parts import stratified_parts
from crossmed_core.types import MAT, Counted, ImageRef, MaskRef, Part, Question, Reading, Rendering, Sample, Skipped
from crossmed_core.volumes import CHOICES, chosen_slices, compared, must_have_shape, reason, spacing_words
from crossmed_plugins.brats2020 import layout, prompts
from crossmed_plugins.brats2020.prompts import GRADE, GRADES, REGION, REGIONS

LABELS = (0, 1, 2, 4)
RENDERINGS = {"percentile": Rendering("percentile", 1, 99), "zscore": Rendering("zscore", -2, 3)}
AFFINE_TOLERANCE = 1e-3
"""Millimetres and direction cosines by which the affines of a case's files may differ."""

_NO_GRADE = "no grade"
_TASKS = {GRADE: "grade", REGION: "region"}


@dataclass(frozen=True, slots=True)
class Unit:
    """One case, as it is handed to a worker.

    Attributes:
        root: What reported paths are relative to.
        case: "BraTS20_Training_001".
        folder: Where its files lie.
        grade: "HGG", "LGG", or None where the mapping does not tell.
        tcga: Its id in The Cancer Genome Atlas, or "NA".
        part: Of the patient, for both cells.
    """

    root: Path
    case: str
    folder: Path
    grade: str | None
    tcga: str
    part: Part


class Brats2020:
    """Reader of BraTS 2020 (`contracts.Dataset`, `LocatesItself`, `ReadsInUnits`, `KnowsItsDownload`).

    Intensities of MRI have no unit and differ between scanners, so each volume is shown by its own voxels above 0
    (the brain: skulls are stripped): "percentile" from the 1st to the 99th, "zscore" from -2 to 3 standard deviations.

    Args:
        region: What is outlined: "WT" whole tumour (labels 1, 2, 4), "TC" tumour core (1, 4), "ET" enhancing
            tumour (4).
        grade_sequence: Sequence shown in the grade cell: flair, t1, t1ce or t2.
        region_sequence: Sequence shown in the segmentation cell.
        slices: Most slices per case and cell.
        choice: "even": evenly spaced over the slices that show enough of the region (of the whole tumour in the grade
            cell); "largest": those that show the most of it.
        min_area: Pixels of the region that a slice must show.
        rendering: "percentile" or "zscore".

    Raises:
        CrossmedError: For a value that is not allowed.
    """

    def __init__(
        self,
        region: str = "WT",
        grade_sequence: str = "t1ce",
        region_sequence: str = "flair",
        slices: int = 16,
        choice: str = "even",
        min_area: int = 30,
        rendering: str = "percentile",
    ) -> None:
        for name, value, known in (
            ("region", region, tuple(REGIONS)),
            ("grade_sequence", grade_sequence, layout.SEQUENCES),
            ("region_sequence", region_sequence, layout.SEQUENCES),
            ("choice", choice, CHOICES),
            ("rendering", rendering, tuple(RENDERINGS)),
        ):
            if value not in known:
                hint = f"Allowed: {', '.join(known)}. {suggest(str(value), known)}".strip()
                raise CrossmedError(f"Dataset 'brats2020': {name} cannot be {value!r}.", hint=hint)
        for name, number in (("slices", slices), ("min_area", min_area)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise CrossmedError(
                    f"Dataset 'brats2020': {name} must be a whole number of at least 1, not {number!r}."
                )
        self.region = region
        self.sequences: Mapping[MAT, str] = {GRADE: grade_sequence, REGION: region_sequence}
        self.slices = slices
        self.choice = choice
        self.min_area = min_area
        self.rendering = rendering

    def questions(self) -> Mapping[MAT, Question]:
        """Return what is asked about grade and region."""
        return prompts.questions(self.region)

    def locate(self, root: Path) -> Layout:
        """Find the folder that holds the training cases; other years are refused by name."""
        return layout.locate(root)

    def samples(self, root: Path) -> Iterator[Reading]:
        """Yield the samples of all cases, those of a case together."""
        for unit in self.units(root):
            if isinstance(unit, Unit):
                yield from self.read(unit)
            else:
                yield unit

    def units(self, root: Path) -> Iterator[Unit | Skipped | Counted]:
        """Yield one unit per case folder; parts are drawn by grade over all rows of `name_mapping.csv`."""
        folder = self.locate(root).root
        rows: dict[str, layout.Row] = {}
        for row in layout.read_mapping(folder):
            if isinstance(row, Skipped):
                yield row
            else:
                rows[row[0]] = row[1]
        cases = layout.case_folders(folder)
        strata = {case: row.grade for case, row in rows.items()}
        parts = stratified_parts(strata | {case: _NO_GRADE for case in cases if case not in rows})
        yield Counted("cases found", len(cases))
        yield Counted("cases without labels", layout.validation_cases(root, folder))
        yield Counted("rows labelled", len(rows))
        yield Counted("rows resolved", len(rows.keys() & cases.keys()))
        for case in rows:
            if case not in cases:
                yield Skipped(layout.MAPPING, f"{case} has no folder; is the download complete?")
        for case, path in cases.items():
            known = rows.get(case)
            if known is None:
                yield Skipped(
                    relative(path, root),
                    f"{layout.MAPPING} gives it no grade; it is left out of the grade cell, its regions are read",
                )
            yield Unit(root, case, path, known.grade if known else None, known.tcga if known else "NA", parts[case])

    def read(self, unit: Unit) -> Iterator[Reading]:
        """Yield both cells' samples of one case; decodes its segmentation and opens the headers of its images."""
        where = relative(unit.folder, unit.root)
        try:
            files = layout.case_files(unit.folder)
        except OSError as error:
            yield Skipped(where, f"cannot be read: {error.strerror}")
            return
        yield Counted("images found", sum(name in files for name in layout.SEQUENCES))
        # The grade is shown where there is tumour, whichever region is asked for in the other cell.
        regions = {GRADE: "WT", REGION: self.region} if unit.grade else {REGION: self.region}
        for name in layout.SEQUENCES:
            if name not in files:
                lost = " and the ".join(_TASKS[mat] for mat in regions if self.sequences[mat] == name)
                costs = f"it is left out of the {lost} cell" if lost else "no cell shows it as set, so nothing is lost"
                yield Skipped(where, f"no {name} image; {costs}")
        if "seg" not in files:
            yield Skipped(where, "no segmentation; a training case has one (…_seg.nii or, in case 355, …_Segm.nii)")
            return
        seg = Volume(files["seg"])
        try:
            require_regular(seg.path)
            labels = seg.labels((*LABELS, 3))
            if (labels == 3).any():
                yield Skipped(
                    relative(files["seg"], unit.root),
                    "label 3 occurs, which BraTS 2020 does not use; BraTS 2023 and later give the enhancing tumour 3: "
                    "this is not a BraTS 2020 segmentation",
                )
                return
            planes = seg.planes(labels)
        except UnreadableImageError as error:
            yield Skipped(relative(files["seg"], unit.root), reason(error, files["seg"]))
            return
        for mat, region in regions.items():
            if self.sequences[mat] in files:
                areas = np.isin(planes, REGIONS[region]).sum(axis=(1, 2))
                yield from self._cell(unit, mat, region, files, seg, areas)

    def _cell(
        self, unit: Unit, mat: MAT, region: str, files: Mapping[str, Path], seg: Volume, areas: NDArray[np.int64]
    ) -> Iterator[Reading]:
        """Yield one cell's samples of a case, or why there are none."""
        sequence, task = self.sequences[mat], _TASKS[mat]
        try:
            require_regular(files[sequence])
            _must_match(Volume(files[sequence]), seg)
        except UnreadableImageError as error:
            where = relative(files[sequence], unit.root)
            yield Skipped(where, f"{reason(error, files[sequence])}; the case is left out of the {task} cell")
            return
        if not areas.any():
            yield Counted(f"cases without {region}", 1)
        shown = self.chosen(areas)
        if areas.any() and not shown:
            yield Counted(f"cases with {region} below {self.min_area} pixels in every slice", 1)
        rendering, spacing = RENDERINGS[self.rendering], spacing_words(seg)
        for axial in shown:
            source: dict[str, str | int | float | None] = {
                "sequence": sequence,
                "slice": axial,
                "of": len(areas),
                "region": region,
                "region_pixels": int(areas[axial]),
                "choice": self.choice,
                "min_area": self.min_area,
                "rendering": f"{rendering.method} {rendering.low:g} to {rendering.high:g}",
                "spacing_mm": spacing,
                "label_source": f"{layout.MAPPING} Grade {unit.grade}" if mat == GRADE else files["seg"].name,
                "tcga_id": unit.tcga,
            }
            yield Sample(
                id=f"brats2020-{unit.case.rpartition('_')[2]}-{task}-z{axial:03d}",
                patient=unit.case,
                mat=mat,
                image=ImageRef(str(files[sequence].absolute()), axial=axial, rendering=rendering),
                label=GRADES[unit.grade] if mat == GRADE and unit.grade else None,
                mask=MaskRef(str(files["seg"].absolute()), axial=axial, values=REGIONS[region])
                if mat == REGION
                else None,
                part=unit.part,
                source=source,
            )

    def chosen(self, areas: NDArray[np.int64]) -> list[int]:
        """Return the slices to show, in order, given the pixels of the region in each slice."""
        return chosen_slices(areas, self.slices, choice=self.choice, least=self.min_area)

    def write_fixture(self, root: Path, *, seed: int = 0) -> None:
        """Write a miniature download with its known oddities, and `manifest.json` with what a reader must find."""
        from crossmed_plugins.brats2020.fixture import write_fixture

        write_fixture(root, seed=seed)

    def verify(self, root: Path) -> Iterator[Check]:
        """Hold the tables and file listings against the published counts (computed from the published tables).

        Raises:
            DownloadNotFoundError: If `root` holds no BraTS.
            CrossmedError: If it holds another year, or `name_mapping.csv` cannot be read.
        """
        folder = self.locate(root).root
        cases = layout.case_folders(folder)
        rows = dict(row for row in layout.read_mapping(folder) if not isinstance(row, Skipped))
        low = sorted(int(case.rpartition("_")[2]) for case, row in rows.items() if row.grade == "LGG")
        complete = sum(_complete(path) for path in cases.values())
        yield compared("training cases", len(cases), 369)
        yield compared("cases with four sequences and a segmentation", complete, 369)
        yield compared(f"rows of {layout.MAPPING}", len(rows), 369)
        yield compared("high-grade rows", len(rows) - len(low), 293)
        yield compared("low-grade rows", len(low), 76)
        exactly = low == list(range(260, 336))
        yield compared("low-grade cases", "260-335" if exactly else ", ".join(map(str, low)) or "none", "260-335")
        try:
            survival = layout.read_survival(folder)
        except CrossmedError as error:
            yield Check(f"rows of {layout.SURVIVAL}", error.message, "236", "differs")
            return
        yield compared(f"rows of {layout.SURVIVAL}", len(survival), 236)
        censored = survival.get("BraTS20_Training_084", "no row")
        yield compared("survival of case 084", censored, "ALIVE (361 days later)", otherwise="hint")


def _must_match(image: Volume, seg: Volume) -> None:
    """Raise `UnreadableImageError` unless an image lies on its segmentation, voxel by voxel."""
    must_have_shape(image, seg, "segmentation")
    if not np.allclose(image.affine, seg.affine, rtol=0, atol=AFFINE_TOLERANCE):
        raise UnreadableImageError("its affine is not that of the segmentation: the two do not lie on each other")


def _complete(folder: Path) -> bool:
    try:
        return set(layout.case_files(folder)) == {*layout.SEQUENCES, "seg"}
    except OSError:
        return False

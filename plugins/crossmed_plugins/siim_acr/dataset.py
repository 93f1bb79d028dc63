"""SIIM-ACR Pneumothorax Segmentation (2019) as a crossmed dataset: chest X-rays and the outline of the free air.

Sources: the competition's page and its mask_functions.py for the run lengths; Filice et al., J Digit Imaging 2020
(PMC7165201) for the images, which are NIH ChestX-ray14's under new patient ids. So a network that has been trained on
NIH's images has seen these pixels, and what links two images of one patient is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from crossmed_core.contracts import Check, Layout
from crossmed_core.dicom import read_header
from crossmed_core.errors import CrossmedError, UnreadableImageError
from crossmed_core.files import relative, require_regular
from crossmed_core.images import encode_mask, read_mask
from crossmed_core.types import MAT, RLE, Counted, ImageRef, MaskRef, Question, Reading, Sample, Skipped
from crossmed_plugins.siim_acr import rle
from crossmed_plugins.siim_acr.download import Entry, dicom_entries, locate, png_entries, sample_id

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CELL = MAT("xray", "chest", "segmentation")
POSITIVE, NEGATIVE = "pneumothorax", "no pneumothorax"
CHUNK = 200
"""Images per unit."""
TAGS = [
    "Rows",
    "Columns",
    "PatientID",
    "PatientSex",
    "PatientAge",
    "ViewPosition",
    "PixelSpacing",
    "StudyInstanceUID",
    "SOPInstanceUID",
]

TEMPLATES = (
    "Outline the pneumothorax in this {modality} of the {anatomy}.",
    "Segment the pneumothorax on this {anatomy} {modality}.",
    "Mark all pixels of the pneumothorax in this {anatomy} {modality}.",
    "This {modality} shows the {anatomy}. Delineate the pneumothorax.",
    "Which region of this {anatomy} {modality} is pneumothorax?",
    "Draw the boundary of the free pleural air on this {modality} of the {anatomy}.",
)
NEUTRAL = (
    "Outline the finding in this image.",
    "Segment the abnormality on this image.",
    "Mark all pixels of the abnormal region in this image.",
    "Here is a medical image. Delineate any abnormality.",
    "Which region of this image is abnormal?",
    "Draw the boundary of the finding on this image.",
)


class Unit(NamedTuple):
    """Images that are read together.

    Attributes:
        root: What reports name paths relative to.
        entries: The images.
    """

    root: str
    entries: tuple[Entry, ...]


class SiimAcr:
    """SIIM-ACR Pneumothorax Segmentation: one cell, xray/chest/segmentation.

    Every row of an image is joined into one mask. Images that no row names are unlabelled and yield no sample. All
    samples carry "pneumothorax" or "no pneumothorax" as label, though the cell is answered by a mask.

    Args:
        empty: Whether images without pneumothorax (78 % of all) are yielded too, with an empty mask.

    Raises:
        CrossmedError: If `empty` is neither true nor false.
    """

    def __init__(self, empty: bool = True) -> None:
        if not isinstance(empty, bool):  # the text "false" would count as true
            raise CrossmedError(f"Dataset 'siim-acr': empty must be true or false, not {empty!r}.")
        self.empty = empty

    def questions(self) -> Mapping[MAT, Question]:
        """Return the one question, answered by a mask."""
        return {
            CELL: Question(
                CELL,
                "mask",
                TEMPLATES,
                neutral=NEUTRAL,
                target="the pneumothorax",
                neutral_target="the abnormal finding",
            )
        }

    def locate(self, root: Path) -> Layout:
        """Find the download: "nested" (by UID), "flat" (stage 2) or "png" (PNG copies).

        Raises:
            DownloadNotFoundError: If it is not there; names the layouts looked for and what was found instead.
        """
        return locate(root)

    def units(self, root: Path) -> Iterator[Unit | Skipped | Counted]:
        """Join files and rows, and yield the images in chunks by the order of their ids.

        Raises:
            DownloadNotFoundError: If `root` holds no SIIM-ACR download.
        """
        root = Path(root).absolute()
        layout = locate(root)
        entries: list[Entry] = []
        for one in (png_entries if layout.name == "png" else dicom_entries)(layout.root, root):
            if isinstance(one, Entry):
                entries.append(one)
            else:
                yield one
        if not self.empty:
            positive = [entry for entry in entries if entry.positive]
            yield Counted("images without pneumothorax left out", len(entries) - len(positive))
            entries = positive
        for start in range(0, len(entries), CHUNK):
            yield Unit(str(root), tuple(entries[start : start + CHUNK]))

    def read(self, unit: Unit) -> Iterator[Reading]:
        """Open the headers of a unit's images and make their masks; pixels of PNG masks are opened too."""
        resolved = 0
        for entry in unit.entries:
            one = _png_sample(entry, unit) if Path(entry.path).suffix.lower() == ".png" else _dicom_sample(entry, unit)
            if isinstance(one, Sample):
                resolved += len(entry.rows)
            yield one
        yield Counted("rows resolved", resolved)

    def samples(self, root: Path) -> Iterator[Reading]:
        """Yield all samples.

        Raises:
            DownloadNotFoundError: If `root` holds no SIIM-ACR download.
        """
        for one in self.units(root):
            if isinstance(one, Unit):
                yield from self.read(one)
            else:
                yield one

    def verify(self, root: Path) -> Iterator[Check]:
        """Hold the label table and the number of files against the published ones.

        Raises:
            DownloadNotFoundError: If `root` holds no SIIM-ACR download.
        """
        from crossmed_plugins.siim_acr.published import checks

        root = Path(root).absolute()
        yield from checks(locate(root), root)

    def write_fixture(self, root: Path, *, seed: int = 0, layout: str = "nested") -> None:
        """Write a counterfeit with the traps of the real downloads, and manifest.json with the answers.

        Args:
            root: An empty folder.
            seed: Same seed, same bytes.
            layout: "nested", "flat" or "png".

        Raises:
            CrossmedError: For another layout.
        """
        from crossmed_plugins.siim_acr.fixture import write

        write(root, seed=seed, layout=layout)


def _dicom_sample(entry: Entry, unit: Unit) -> Sample | Skipped:
    where = relative(entry.path, Path(unit.root))
    try:
        require_regular(entry.path)
        header = read_header(entry.path, TAGS)
    except UnreadableImageError as error:
        return Skipped(where, f"{str(error).removeprefix(f'{entry.path}: ')}; download it again")
    height, width = _whole(header, "Rows"), _whole(header, "Columns")
    if not height or not width:
        return Skipped(where, "its header ends before the image's size (truncated file); download it again")
    marked: list[rle.Run] = []
    for row in entry.rows:
        try:
            marked += rle.runs(row.text, height * width)
        except ValueError as error:
            return Skipped(f"{entry.table} row {row.number}", f"{error} ({where}, {height} x {width}); correct the row")
    if entry.positive and not marked:
        return Skipped(f"{entry.table} row {entry.rows[0].number}", "its run lengths mark no pixel; -1 would say so")
    image = _text(header, "SOPInstanceUID")
    return _sample(
        entry,
        rle.joined(marked, height, width),
        patient=_text(header, "PatientID"),
        study=_text(header, "StudyInstanceUID"),
        facts={
            "view": _text(header, "ViewPosition"),
            "sex": _text(header, "PatientSex"),
            "age": years(_text(header, "PatientAge") or ""),
            "spacing_mm": _spacing(header),
            "sop_instance": None if image == entry.image else image,  # a renamed file
        },
    )


def _png_sample(entry: Entry, unit: Unit) -> Sample | Skipped:
    root = Path(unit.root)
    try:
        require_regular(entry.path)
        with Image.open(entry.path) as image:
            width, height = image.size
    except UnreadableImageError as error:
        return Skipped(relative(entry.path, root), f"{str(error).removeprefix(f'{entry.path}: ')}; download it again")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return Skipped(relative(entry.path, root), "is not an image file, or a truncated one; download it again")
    region = RLE((height, width), (height * width,))
    if entry.mask is not None:
        try:
            region = encode_mask(read_mask(MaskRef(entry.mask)))
        except UnreadableImageError as error:
            return Skipped(
                relative(entry.mask, root), f"{str(error).removeprefix(f'{entry.mask}: ')}; download it again"
            )
        if region.size != (height, width):
            sizes = f"{region.size[0]} x {region.size[1]} pixels, its image {height} x {width}"
            return Skipped(relative(entry.mask, root), f"{sizes}; take both from the same copy")
    if entry.positive != (len(region.counts) > 1):
        said = f"has_pneumo is {entry.rows[0].text}, but the mask is {'empty' if entry.positive else 'not empty'}"
        return Skipped(f"{entry.table} row {entry.rows[0].number}", f"{said} ({relative(entry.path, root)})")
    return _sample(entry, region, patient=None, study=None, facts={})


def _sample(
    entry: Entry, region: RLE, *, patient: str | None, study: str | None, facts: Mapping[str, str | int | float | None]
) -> Sample:
    return Sample(
        id=sample_id(entry.image),
        patient=patient or entry.image,
        mat=CELL,
        image=ImageRef(entry.path),
        label=POSITIVE if entry.positive else NEGATIVE,
        mask=MaskRef(rle=region),
        study=study,
        source={
            "image_id": entry.image,
            "stage": entry.stage,
            "label_source": Path(entry.table).name,
            "rows": len(entry.rows),
            **facts,
        },
    )


def years(age: str) -> int | None:
    """Return an age in whole years: "62" as these files have it, or "062Y", "018M" ... as DICOM PS3.5 wants it."""
    match = re.fullmatch(r"\s*(\d{1,9})\s*([DWMY]?)\s*", age.upper())
    return int(int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12}.get(match[2], 1)) if match else None


def _value(header: Dataset, keyword: str) -> Any:
    try:
        return header.get(keyword)
    except Exception:  # pydicom converts on access and raises what it meets; a bad element is an absent one
        return None


def _text(header: Dataset, keyword: str) -> str | None:
    return str(_value(header, keyword) or "").strip() or None


def _whole(header: Dataset, keyword: str) -> int:
    value = _value(header, keyword)
    return value if isinstance(value, int) else 0


def _spacing(header: Dataset) -> float | str | None:
    """Return the side of a pixel in mm, "row x column" where they differ, None where it is absent or 0."""
    try:
        row, column = (float(side) for side in _value(header, "PixelSpacing"))
    except (TypeError, ValueError):
        return None
    if min(row, column) <= 0:
        return None
    return row if row == column else f"{row:g} x {column:g}"

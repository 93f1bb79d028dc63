"""Finding a download, and joining its files with the rows of its label table, before any image is opened."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from crossmed_core.contracts import Layout
from crossmed_core.files import folders, not_found, relative, walk
from crossmed_core.types import Counted, Skipped
from crossmed_plugins.siim_acr import rle
from crossmed_plugins.siim_acr.tables import (
    PNG_COLUMNS,
    PNG_TABLES,
    RLE_COLUMNS,
    RLE_TABLES,
    Row,
    TableError,
    holds,
    row_names,
    rows_of,
    run_length_rows,
)

DICOM_FOLDERS = {
    "dicom-images-train": "stage 1 train",
    "dicom-images-test": "stage 1 test",
    "stage_2_images": "stage 2",
}
"""Folders of DICOM files -> the stage of their images; in the order in which duplicates are kept."""
PNG_IMAGES, PNG_MASKS = "png_images", "png_masks"
LAYOUTS = (
    "dicom-images-train/**/*.dcm (and dicom-images-test) with train-rle.csv",
    "stage_2_images/*.dcm with stage_2_train.csv",
    "png_images/ and png_masks/ with stage_1_train_images.csv",
)
"""The known layouts, as a person would recognise them."""
LISTED = 50
"""Unlabelled images that are reported one by one: today's competition page has 3,205 of them."""
UNLABELLED = "has no label in the table, which does not mean that it shows no pneumothorax"


class Entry(NamedTuple):
    """An image file and what the label table says of it.

    Attributes:
        image: ImageId.
        path: Absolute path of the image.
        stage: Stage of the competition that its folder or table belongs to, or None.
        positive: Whether the table says that there is a pneumothorax.
        rows: The rows about it.
        table: The table, relative to the root.
        mask: Absolute path of the mask's file (PNG copies).
    """

    image: str
    path: str
    stage: str | None
    positive: bool
    rows: tuple[Row, ...]
    table: str
    mask: str | None = None


def locate(root: Path) -> Layout:
    """Find the download; a folder of images tells it, else a table of run lengths.

    Raises:
        DownloadNotFoundError: If there is neither.
    """
    root = root.absolute()
    for folder in folders(root):
        if known := children(folder, DICOM_FOLDERS):
            flat = all(one.name.lower() == "stage_2_images" for one in known)
            return Layout("flat" if flat else "nested", folder)
        if children(folder, (PNG_IMAGES,)) and children(folder, PNG_TABLES):
            return Layout("png", folder)
    for folder in folders(root):  # the images may lie in folders of any name
        if any(holds(path, RLE_COLUMNS) for path in _tables(folder)):
            return Layout("nested", folder)
    raise not_found("siim-acr", root, LAYOUTS)


def rle_table(folder: Path, root: Path) -> Path | None:
    """Return the table of run lengths beside the image folders, or above them but not above `root`.

    A table of the right name that cannot be read is returned too if there is no other, so that it can be reported.
    """
    above = [folder, *(one for one in folder.parents if one.is_relative_to(root))]
    candidates = [path for place in above for path in _tables(place)]
    return next((path for path in candidates if holds(path, RLE_COLUMNS)), next(iter(_tables(folder)), None))


def dicom_entries(folder: Path, root: Path) -> Iterator[Entry | Skipped | Counted]:
    """Yield the labelled DICOM files in the order of their ids.

    Args:
        folder: The layout's root.
        root: What reports name paths relative to.
    """
    files: dict[str, Path] = {}
    for place in dicom_folders(folder):
        yield from _index(files, place, folder, root, (".dcm", ".dicom"))
    yield Counted("images found", len(files))
    table = rle_table(folder, root)
    try:
        if table is None:
            raise TableError(f"holds no label table ({' or '.join(RLE_TABLES)}); put it beside the images")
        labelled = list(run_length_rows(table, root))
    except TableError as error:
        yield Skipped(relative(table or folder, root), str(error))
        yield Counted("images unlabelled", len(files))
        return
    shown = relative(table, root)
    rows_of_image = dict(one for one in labelled if not isinstance(one, Skipped))
    yield from (one for one in labelled if isinstance(one, Skipped))
    yield Counted("rows labelled", sum(map(len, rows_of_image.values())))
    yield from _unlabelled([path for image, path in sorted(files.items()) if image not in rows_of_image], root)
    for image, rows in rows_of_image.items():
        negative = {rle.is_negative(row.text) for row in rows}
        if image not in files:
            yield Skipped(row_names(shown, rows), "its DICOM file is missing; download it, or leave the row out")
        elif len(negative) == 2:
            yield Skipped(row_names(shown, rows), f"contradict each other: both -1 and a region for {image}")
        else:
            path = files[image]
            stage = DICOM_FOLDERS.get(path.relative_to(folder).parts[0].lower())
            yield Entry(image, str(path), stage, False in negative, rows, shown)


def png_entries(folder: Path, root: Path) -> Iterator[Entry | Skipped | Counted]:
    """Yield the labelled PNG copies in the order of their ids; arguments as `dicom_entries`.

    The files' names end in the label ("0_train_1_.png"), so ids are made of the table's ImageId, or of a digest of the
    name where the table has no such column.
    """
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for name, index in ((PNG_IMAGES, images), (PNG_MASKS, masks)):
        for place in children(folder, (name,)):
            yield from _index(index, place, folder, root, (".png",))
    yield Counted("images found", len(images))
    entries: list[Entry] = []
    rows_of_image: dict[str, str] = {}  # by file name and by id: neither may come twice
    labelled = 0
    for table in sorted(children(folder, PNG_TABLES)):
        shown = relative(table, root)
        try:
            rows = rows_of(table, PNG_COLUMNS)
        except TableError as error:
            yield Skipped(shown, str(error))
            continue
        for number, values in rows:
            where = f"{shown} row {number}"
            name = Path(values.get("new_filename", "")).stem
            label = _switch(values.get("has_pneumo", ""))
            image = values.get("imageid") or hashlib.sha256(name.encode()).hexdigest()[:16]
            if label is None:
                yield Skipped(where, f"has_pneumo is {values.get('has_pneumo', '')!r}; it must be 0 or 1")
                continue
            labelled += 1
            before = rows_of_image.setdefault(f"file {name}", where), rows_of_image.setdefault(f"id {image}", where)
            if before != (where, where):
                yield Skipped(where, f"its image has a row already: {before[0] if before[0] != where else before[1]}")
            elif name not in images:
                yield Skipped(where, f"its file is missing from {PNG_IMAGES}; download it, or leave the row out")
            elif label and name not in masks:
                yield Skipped(where, f"its region is missing from {PNG_MASKS}; download it")
            else:
                mask = str(masks[name]) if name in masks else None
                row = Row(number, values["has_pneumo"])
                stage = PNG_TABLES[table.name.lower()]
                entries.append(Entry(image, str(images[name]), stage, label, (row,), shown, mask))
    yield Counted("rows labelled", labelled)
    yield from _unlabelled([path for name, path in sorted(images.items()) if f"file {name}" not in rows_of_image], root)
    yield from sorted(entries)


def sample_id(image: str) -> str:
    """Return the id of an image's sample: free of spaces and slashes, whatever a table calls the image."""
    plain = image if re.fullmatch(r"[\w.-]+", image) else hashlib.sha256(image.encode()).hexdigest()[:16]
    return f"siim-acr-{plain}"


def _unlabelled(paths: Sequence[Path], root: Path) -> Iterator[Skipped | Counted]:
    yield Counted("images unlabelled", len(paths))
    yield from (Skipped(relative(path, root), UNLABELLED) for path in paths[:LISTED])
    if (more := len(paths) - LISTED) > 0:
        yield Skipped(f"{more} more images", UNLABELLED)


def dicom_folders(folder: Path) -> list[Path]:
    """Return the folders of DICOM files in `folder`, or `folder` itself if none has a known name."""
    return [path for name in DICOM_FOLDERS for path in children(folder, (name,))] or [folder]


def _index(
    index: dict[str, Path], place: Path, folder: Path, root: Path, suffixes: tuple[str, ...]
) -> Iterator[Skipped]:
    """Enter the files below `place` into `index` by their stems; the first of a stem stays."""
    here, download = os.path.realpath(place), os.path.realpath(folder)
    for path in walk(place):
        if isinstance(path, Skipped):
            yield Skipped(relative(place / path.where, root), path.reason)
        elif path.suffix.lower() in suffixes:
            real = Path(os.path.realpath(path.parent))
            if real.is_relative_to(download) and not real.is_relative_to(here):
                continue  # a link led to another folder of the download, which tells the file's stage
            if (kept := index.setdefault(path.stem, path)) != path:
                yield Skipped(
                    relative(path, root), f"has the name of {relative(kept, root)}, which is the one that is read"
                )


def _tables(folder: Path) -> list[Path]:
    return sorted(children(folder, RLE_TABLES), key=lambda path: RLE_TABLES.index(path.name.lower()))


def children(folder: Path, wanted: Collection[str]) -> list[Path]:
    """Return what `folder` holds under the wanted names, upper or lower case."""
    try:
        with os.scandir(folder) as listing:
            return sorted(folder / entry.name for entry in listing if entry.name.lower() in wanted)
    except OSError:
        return []


def _switch(text: str) -> bool | None:
    try:
        return {0.0: False, 1.0: True}.get(float(text))
    except ValueError:
        return None

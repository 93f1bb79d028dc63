"""From what a label table calls an image to the file that is there.

`root / Path` finds nothing in most downloads: the prefix names another release, batches lie where "train" should, .jpg
is said where .png or .dcm was shipped. So the meaning is read out of the path, and the patient's folder is looked up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from crossmed_core.files import is_folder, is_junk, relative
from crossmed_core.types import Skipped

_PATH = re.compile(
    r"(?:^|/)(?:CheXpert-v1\.0(?:-small)?/)?(train|valid|val|test)/(patient\d{5})/(study\d{1,9})"
    r"(?:/(view\d{1,9}_(?:frontal|lateral)\.(?:jpe?g|png|dcm)))?\Z",
    re.IGNORECASE | re.ASCII,
)
_PATIENT = re.compile(r"patient\d{5}", re.ASCII)
_IMAGE = re.compile(r"(view(\d{1,9})_(?:frontal|lateral))\.(jpe?g|png|dcm)", re.IGNORECASE | re.ASCII)
_SPLIT = re.compile(r"train|valid|val|test", re.IGNORECASE)
_BATCH = re.compile(r"CheXpert-v1\.0 batch \d.*", re.IGNORECASE)
_HOUSE = re.compile(r"(CheXpert-v1\.0.*|CheXpert|CheXlocalize)", re.IGNORECASE)
_SHELVES = re.compile(r"PNG|DICOM", re.IGNORECASE)
_DEEPEST = 5
"""Folders between the root and the patients: PNG/PNG/chunk/train is the deepest known."""
_NESTED = 3
"""Folders between the root and a label table: batch 1/CheXpert-v1.0/test is the deepest known."""


class ImagePath(NamedTuple):
    """What a path of a label table means.

    Attributes:
        split: "train", "valid" or "test".
        patient: "patient" and five digits.
        study: "study" and a number; an examination of the patient.
        file: "view1_frontal.jpg"; None where the row is about the whole study.
    """

    split: str
    patient: str
    study: str
    file: str | None


def parse_path(text: str) -> ImagePath:
    r"""Read a path of a label table, whichever release it names.

    Raises:
        ValueError: If it is no path of CheXpert; quotes it, or its start if it is long.

    Example:
        >>> parse_path("CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg")
        ImagePath(split='train', patient='patient00002', study='study1', file='view2_lateral.jpg')
        >>> parse_path(r"val\patient64541\study1\view1_frontal.jpg").split
        'valid'
        >>> parse_path("CheXpert-v1.0/test/patient64741/study1").file is None
        True
    """
    match = _PATH.search(text.strip().replace("\\", "/"))
    if match is None:
        shown = repr(text) if len(text) <= 200 else f"{text[:200]!r} ..."
        raise ValueError(f"{shown} is not like 'CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg'")
    split, patient, study, file = match.groups()
    return ImagePath(_split(split), patient.lower(), study.lower(), file and file.lower())


def _split(name: str) -> str:
    return "valid" if name.lower() == "val" else name.lower()


def is_batch(name: str) -> bool:
    """Whether a folder is one of the four that the full-resolution release is unpacked into."""
    return _BATCH.fullmatch(name) is not None


def is_house(name: str) -> bool:
    """Whether a folder is called like one that CheXpert or CheXlocalize is unpacked into."""
    return _HOUSE.fullmatch(name) is not None


def table_folders(root: Path) -> Iterator[Path]:
    """Yield the folders at and below `root` where label tables of CheXpert are known to lie, never those of images."""
    level = [root]
    for depth in range(_NESTED + 1):
        below = []
        for folder in level:
            yield folder
            if depth < _NESTED:
                below += [folder / name for name in _folders_in(folder) if is_house(name) or name.lower() == "test"]
        level = below


def _folders_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as listing:
            return sorted(entry.name for entry in listing if not is_junk(entry.name) and is_folder(entry))
    except OSError:
        return []


class _Home(NamedTuple):
    """A folder whose folders are patients."""

    folder: Path
    split: str | None
    patients: frozenset[str]


class Images:
    """The images of a download. Folders of patients are listed once, studies when they are asked for.

    Attributes:
        homes: The folders whose folders are patients, in the order in which they are searched.
        unread: Folders that could not be listed.

    Args:
        root: The root of the layout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unread: list[Skipped] = []
        found = list(self._search(root, None, 0, False, set()))
        # CheXpert Plus ships each image twice; the PNG needs no rendering.
        self.homes = sorted(found, key=lambda home: ("dicom" in str(home.folder.relative_to(root)).lower(), home))
        self._listed: tuple[str, Mapping[str, str]] = ("", {})

    def _search(
        self, folder: Path, split: str | None, depth: int, anything: bool, entered: set[tuple[int, int]]
    ) -> Iterator[_Home]:
        patients, below = set(), []
        try:
            state = folder.stat()
            if (state.st_dev, state.st_ino) in entered:
                return
            entered.add((state.st_dev, state.st_ino))
            with os.scandir(folder) as listing:
                for entry in listing:
                    if _PATIENT.fullmatch(entry.name):  # 64,540 of them: their kind is not asked for
                        patients.add(entry.name)
                    elif not is_junk(entry.name) and is_folder(entry):
                        below.append(entry.name)
        except OSError as error:
            self.unread.append(Skipped(relative(folder, self.root), f"cannot be read: {error.strerror}"))
            return
        if patients:
            yield _Home(folder, split, frozenset(patients))
        for name in sorted(below) if depth < _DEEPEST else ():
            into = anything or _SHELVES.fullmatch(name) is not None
            if _SPLIT.fullmatch(name):
                yield from self._search(folder / name, _split(name), depth + 1, into, entered)
            elif is_batch(name):
                inside = "train" if "train" in name.lower() else "valid" if "valid" in name.lower() else None
                yield from self._search(folder / name, inside, depth + 1, into, entered)
            elif into or is_house(name):
                yield from self._search(folder / name, split, depth + 1, into, entered)

    def of_study(self, split: str, patient: str, study: str) -> Mapping[str, str]:
        """List the images of one study.

        Returns:
            "view1_frontal" -> absolute path, by number of the view. Where several files hold one view, that of the
            first home, and there JPEG before PNG before DICOM.
        """
        key = f"{split}/{patient}/{study}"
        if self._listed[0] != key:  # rows come study by study
            self._listed = (key, self._list_study(split, patient, study))
        return self._listed[1]

    def _list_study(self, split: str, patient: str, study: str) -> dict[str, str]:
        images: dict[str, tuple[int, str]] = {}
        for home in self.homes:
            if home.split not in (None, split) or patient not in home.patients:
                continue
            folder = f"{home.folder}/{patient}/{study}"
            here: list[tuple[str, str, int, str]] = []
            try:
                with os.scandir(folder) as listing:
                    for entry in listing:
                        if (match := _IMAGE.fullmatch(entry.name)) and entry.is_file():
                            kind = match[3].lower().replace("jpeg", "jpg")
                            here.append(({"jpg": "0", "png": "1"}.get(kind, "2"), entry.name, int(match[2]), match[1]))
            except OSError:
                continue  # the row is reported as one without an image
            for _, name, number, stem in sorted(here):
                images.setdefault(stem.lower(), (number, f"{folder}/{name}"))
        ordered = sorted(images.items(), key=lambda image: (image[1][0], image[0]))
        return {stem: path for stem, (_, path) in ordered}

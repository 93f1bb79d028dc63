"""Where the question files and the images of Med-MAT lie, recognised by names alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from crossmed_core.files import folders, is_junk, not_found
from crossmed_plugins.medmat.tables import originals, subsets

FOLDERS: Mapping[str, str] = {"subsets": "Aggregated_Subsets", "original": "Original_Medical_Datasets"}
"""Form of the questions -> its folder in the release."""

IMAGES = "med-mat"
"""The folder that every image path begins with."""

# "Subset--31-train.json"; "ori--77-train.json" in the release, "Ori--77-train.json" in the README's tree.
_FILE = re.compile(r"(subset|ori)--(\d{2,3})-train\.json", re.IGNORECASE)
_FORMS = {"subset": "subsets", "ori": "original"}


class QuestionFile(NamedTuple):
    """One file of questions, and the number in its name."""

    path: Path
    number: int


class Download(NamedTuple):
    """What was found.

    Attributes:
        home: The folder that holds the folders of question files, or the files themselves.
        files: Form -> its files, by number; forms that are not there are absent.
        strangers: JSON files in those folders that have another name.
        base: The folder that image paths are resolved against, the parent of `med-mat/`; None if there is none.
    """

    home: Path
    files: Mapping[str, Sequence[QuestionFile]]
    strangers: Sequence[Path]
    base: Path | None


def find(root: Path) -> Download:
    """Find the nearest question files at `root` or below.

    Raises:
        DownloadNotFoundError: If there are none.
    """
    for home in folders(root):
        files: dict[str, list[QuestionFile]] = {}
        strangers: list[Path] = []
        # A folder with anything else in it is listed only if a person points at it: others may be huge.
        for place in (home if home == root else None, *(home / name for name in FOLDERS.values())):
            for path in _json_files(place) if place is not None else ():
                if match := _FILE.fullmatch(path.name):
                    files.setdefault(_FORMS[match[1].lower()], []).append(QuestionFile(path, int(match[2])))
                elif place != home:
                    strangers.append(path)
        if files:
            ordered = {form: sorted(of_form, key=lambda one: one.number) for form, of_form in files.items()}
            return Download(home, ordered, strangers, _base(home, root))
    layouts = [f"{folder}/ with {example}" for folder, example in zip(FOLDERS.values(), _EXAMPLES, strict=True)]
    raise not_found("medmat", root, layouts)


_EXAMPLES = ("Subset--NN-train.json", "ori--NN-train.json")


def common_folder(download: Download, root: Path) -> Path:
    """Return the folder at or below `root` that holds both the questions and the images."""
    base = download.base or download.home
    around = next(one for one in (download.home, *download.home.parents) if base.is_relative_to(one))
    return around if around.is_relative_to(root) else root


def subset_of(form: str, number: int) -> int | str:
    """Return the subset that a file of this form and number belongs to, or why it belongs to none."""
    if form == "subsets":
        if number in subsets():
            return number
        return f"subset {number:02d} is not read: only the subsets 01 to 37 have questions and options"
    if number not in originals():
        return f"dataset {number} is not in the paper's list, so its cell is unknown"
    original = originals()[number]
    if original.subset is None:
        return f"dataset {number} ({original.name!r}) is in no subset with questions (Table 17), so its cell is unknown"
    return original.subset


def _base(home: Path, root: Path) -> Path | None:
    near = [one for one in (home, *home.parents) if one.is_relative_to(root)]
    if home.name in FOLDERS.values():
        near.append(home.parent)  # a person pointed at the folder of questions itself
    for folder in near:
        if folder.name == IMAGES:
            return folder.parent
        if (folder / IMAGES).is_dir():
            return folder
    return next((folder for folder in folders(root) if (folder / IMAGES).is_dir()), None)


def _json_files(folder: Path) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names only, no objects for 200,000 files
    except OSError:
        return
    for name in names:
        if name.lower().endswith(".json") and not is_junk(name):
            yield folder / name

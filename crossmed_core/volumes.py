"""Picks of slices and wording that readers of volumes share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossmed_core.contracts import Check
from crossmed_core.errors import UnreadableImageError
from crossmed_core.files import is_folder, is_junk
from crossmed_core.nifti import Volume

CHOICES = ("even", "largest")
"""How slices that show a region are chosen: evenly spaced over them, or those that show the most of it."""


def chosen_slices(areas: NDArray[np.int64], most: int, *, choice: str, least: int = 1) -> list[int]:
    """Choose the slices that show a region.

    Args:
        areas: Pixels of the region in each slice, from the feet.
        most: How many slices at most.
        choice: One of `CHOICES`.
        least: Pixels of the region that a slice must show.

    Returns:
        The slices, in order.

    Example:
        >>> areas = np.array([0, 1, 9, 5, 7, 3, 0])
        >>> chosen_slices(areas, 3, choice="even"), chosen_slices(areas, 3, choice="largest")
        ([1, 3, 5], [2, 3, 4])
    """
    enough = np.flatnonzero(areas >= least)
    if choice == "largest":
        enough = np.sort(enough[np.argsort(-areas[enough], kind="stable")[:most]])
    return spaced(enough, most)


def spaced(values: NDArray[np.int64], most: int) -> list[int]:
    """Take at most so many values, evenly spaced, the first and the last among them.

    Example:
        >>> spaced(np.arange(9), 3)
        [0, 4, 8]
    """
    if len(values) > most:
        values = values[np.rint(np.linspace(0, len(values) - 1, most)).astype(int)]
    return [int(value) for value in values]


def folder_names(folder: Path) -> list[str]:
    """List the names of the folders in a folder, junk left out; none if it cannot be listed."""
    try:
        with os.scandir(folder) as listing:
            return [entry.name for entry in listing if not is_junk(entry.name) and is_folder(entry)]
    except OSError:
        return []


def spacing_words(volume: Volume) -> str:
    """Return the distances between rows, columns and slices in millimetres, "1 x 1 x 8"."""
    return " x ".join(f"{distance:g}" for distance in volume.spacing)


def must_have_shape(volume: Volume, of: Volume, name: str) -> None:
    """Refuse a volume that has not the shape of another.

    Args:
        volume: What is refused.
        of: What it is to lie on.
        name: What the latter is called ("segmentation").

    Raises:
        UnreadableImageError: If the shapes differ; names both.
    """
    if volume.shape != of.shape:
        own, other = (" x ".join(map(str, one.shape)) for one in (volume, of))
        raise UnreadableImageError(f"its shape {own} is not that of the {name}, {other}")


def reason(error: UnreadableImageError, path: Path) -> str:
    """Return the message without the path, which the row of the report names already."""
    return str(error).removeprefix(f"{path}: ")


def compared(what: str, found: object, expected: object, *, otherwise: str = "differs") -> Check:
    """Hold a fact against what is known of it.

    Args:
        what: What it is about.
        found: What is there.
        expected: What is known.
        otherwise: The verdict if they are not the same as text: "differs" or "hint".
    """
    return Check(what, str(found), str(expected), "ok" if str(found) == str(expected) else otherwise)

"""Regions as boxes in words: written as a training target, read from a generated answer, scored as a filled region."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BoxForm = Literal["pixels", "thousandths"]

_NUMBER = r"(-?\d+(?:\.\d+)?)"
# "[1, 2, 3, 4]", "(1,2),(3,4)" with or without Qwen's box tokens, "1 2 3 4".
_BOX = re.compile(rf"^\D*?{_NUMBER}[\s,]+{_NUMBER}\)?[\s,]*\(?{_NUMBER}[\s,]+{_NUMBER}\D*$", re.DOTALL)


def write_box(mask: NDArray[np.bool_], form: BoxForm, seen: tuple[int, int]) -> str:
    """Write the bounding box of a region.

    Args:
        mask: bool (height, width), not empty.
        form: In pixels of the image as the model sees it, or in thousandths of its sides.
        seen: (height, width) of the image as the model sees it, in pixels.

    Example:
        >>> write_box(np.eye(4, dtype=bool), "thousandths", (4, 4))
        '[0, 0, 1000, 1000]'
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    across, down = (1000, 1000) if form == "thousandths" else (seen[1], seen[0])
    left, right = columns[0] * across / width, (columns[-1] + 1) * across / width
    top, bottom = rows[0] * down / height, (rows[-1] + 1) * down / height
    return "[" + ", ".join(str(round(value)) for value in (left, top, right, bottom)) + "]"


def read_box(text: str, form: BoxForm, seen: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Read a box and fill it.

    Args:
        text: As generated: four numbers, x before y, and no other number.
        form: As in `write_box`.
        seen: (height, width) of the image as the model sees it, in pixels.
        shape: (height, width) of the image itself, in pixels.

    Returns:
        bool of that shape, cut off at the image's rim; None if the text holds anything but one proper box.
    """
    found = _BOX.match(text.strip())
    if found is None:
        return None
    x1, y1, x2, y2 = (float(value) for value in found.groups())
    if x2 <= x1 or y2 <= y1:
        return None
    height, width = shape
    across, down = (1000, 1000) if form == "thousandths" else (seen[1], seen[0])
    left, right = (min(max(round(x * width / across), 0), width) for x in (x1, x2))
    top, bottom = (min(max(round(y * height / down), 0), height) for y in (y1, y2))
    region = np.zeros(shape, dtype=bool)
    region[top:bottom, left:right] = True
    return region

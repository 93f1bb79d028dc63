"""The tables of Med-MAT: which subset is which cell, and which original datasets it holds.

`subsets.csv` is Table 17 of Med-MAT (arXiv 2412.20070v2), `originals.csv` its Tables 18 and 19 with the links of the
README; spelling is theirs. Ours are `slug`, one per distinct task, and `kind`, which pool of wording fits the task
(the paper's own coarse tasks per subset are not published). Both are empty for the subsets 38 to 53 (detection and
segmentation), of which no questions have been released.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from crossmed_core.types import MAT
from crossmed_core.vocabulary import canonical

_MODALITIES = {
    # As Table 17 expands them; Appendix B.1 reads "colonoscopy" and "digital pathology", which fits neither the
    # cervix of subset 01 nor the photographs of the mouth of subsets 09 and 10.
    "Co": "colposcopy",
    "DP": "photography",
    "Der": "dermoscopy",
    "End": "endoscopy",
    "Mic": "microscopy",
}

_AREAS = {
    # The fundus is what is seen of the inner eye: the retina with disc and vessels. OCT of the "Retina" (subset 23)
    # shows the same organ, and a split without overlap must know it.
    "Fundus": "retina",
}

_MULTI_LABEL = ("findings", "types")
"""Kinds of which one image may have several labels, comma-joined in one option (Med-MAT, Appendix B.2)."""


class Subset(NamedTuple):
    """One aggregated subset with released questions.

    Attributes:
        number: 1 to 37.
        mat: Its cell.
        kind: Which pool of wording fits its task.
        originals: Numbers of the original datasets that Table 17 lists for it.
    """

    number: int
    mat: MAT
    kind: str
    originals: tuple[int, ...]

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, comma-joined in one option."""
        return self.kind in _MULTI_LABEL


class Original(NamedTuple):
    """One original dataset.

    Attributes:
        number: Its number in Tables 18 and 19, the `data-no` of an item.
        name: Its name there.
        place: Its (modality, anatomy).
        subset: The subset that holds its questions, or None (43, 64 and 83 are in no subset of Table 17).
        link: Where to get its images.
    """

    number: int
    name: str
    place: tuple[str, str]
    subset: int | None
    link: str


@cache
def subsets() -> Mapping[int, Subset]:
    """Return the subsets 1 to 37, of which questions are released."""
    found: dict[int, Subset] = {}
    for row in _rows("subsets.csv"):
        if row["slug"]:
            number = int(row["subset"])
            originals = tuple(int(one) for one in row["datasets"].split(";"))
            found[number] = Subset(number, MAT(*_place(row), row["slug"]), row["kind"], originals)
    return found


@cache
def originals() -> Mapping[int, Original]:
    """Return all 109 listed datasets (the paper's text counts 106)."""
    return {one.number: one for one in map(_original, _rows("originals.csv"))}


def _original(row: Mapping[str, str]) -> Original:
    place = _place(row)
    # Table 17 lists dataset 44 (brain MRI) in subset 18 (microscopy of cells) too; a questionable row decides nothing.
    listed = [int(one) for one in row["subsets"].split(";") if one]
    fitting = [one for one in listed if one in subsets() and subsets()[one].mat[:2] == place]
    return Original(int(row["dataset"]), row["name"], place, fitting[0] if fitting else None, row["link"])


def _place(row: Mapping[str, str]) -> tuple[str, str]:
    modality, area = row["modality"], row["area"]
    return _MODALITIES.get(modality) or canonical(modality), _AREAS.get(area) or canonical(area)


def _rows(name: str) -> Iterator[dict[str, str]]:
    text = (files(__package__) / name).read_text(encoding="utf-8")
    return csv.DictReader(text.splitlines())

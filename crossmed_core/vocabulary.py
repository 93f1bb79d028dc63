"""Slugs, synonyms and containment for modalities, anatomies and tasks, and how many factors two cells share.

Two cells share a factor when the slugs are equal. Anatomies also count as shared when one lies in the other (a lung
lies in the chest): a CT of the lung and an X-ray of the chest show the same organ, so a "zero-overlap" split that kept
both would not be one. The papers leave this open (CrossMed does not say whether its CT anatomy is lung or chest), so it
is a setting of the rule, on by default and recorded in every split card.
"""

from __future__ import annotations

import re
from typing import Literal

from crossmed_core.types import MAT

MODALITIES: dict[str, str] = {
    "xray": "X-ray",
    "ct": "CT",
    "mri": "MRI",
    "t1": "T1-weighted MRI",
    "t2": "T2-weighted MRI",
    "us": "ultrasound",
    "pet": "PET",
    "dermoscopy": "dermoscopy",
    "endoscopy": "endoscopy",
    "fundus": "fundus photography",
    "microscopy": "microscopy",
    "oct": "OCT",
    "colposcopy": "colposcopy",
    "photography": "digital photography",
}
"""Slug -> the words used in a question."""

ANATOMIES: dict[str, str] = {
    name: name
    for name in (
        "abdomen", "aorta", "bladder", "bone", "brain", "breast", "cell", "cervix", "chest", "colon", "eye", "heart",
        "intestine", "kidney", "knee", "liver", "lung", "mouth", "ovary", "pancreas", "prostate", "retina", "skin",
        "spine", "spleen", "stomach", "thyroid", "whole-body",
    )
}  # fmt: skip

SYNONYMS: dict[str, str] = {
    "x-ray": "xray", "radiograph": "xray", "cxr": "xray", "dx": "xray", "cr": "xray", "plain-film": "xray",
    "computed-tomography": "ct", "cat-scan": "ct",
    "mr": "mri", "magnetic-resonance": "mri", "magnetic-resonance-imaging": "mri",
    "t1w": "t1", "t1-weighted": "t1", "t1-weighted-mri": "t1", "mr-t1": "t1", "mri-t1": "t1",
    "t2w": "t2", "t2-weighted": "t2", "t2-weighted-mri": "t2", "mr-t2": "t2", "mri-t2": "t2",
    "ultrasound": "us", "sonography": "us", "ultrasonography": "us",
    "pet-scan": "pet", "positron-emission-tomography": "pet",
    "fundus-photography": "fundus", "fp": "fundus", "optical-coherence-tomography": "oct",
    # The abbreviations of Med-MAT's Table 17.
    "co": "colposcopy", "der": "dermoscopy", "dp": "photography", "end": "endoscopy", "mic": "microscopy",
    "thorax": "chest", "thoracic": "chest", "pulmonary": "lung", "lungs": "lung", "head": "brain", "cranial": "brain",
    "abdominal": "abdomen", "belly": "abdomen", "hepatic": "liver", "renal": "kidney", "kidneys": "kidney",
    "cardiac": "heart", "bones": "bone", "teeth": "mouth", "dental": "mouth", "mammary": "breast",
    "cls": "classification", "classify": "classification", "seg": "segmentation", "segment": "segmentation",
    "severity": "grade", "grading": "grade", "level": "grade", "localisation": "location", "localization": "location",
    "det": "detection",
}  # fmt: skip

LIES_IN: dict[str, str] = {
    "lung": "chest",
    "heart": "chest",
    "breast": "chest",
    "liver": "abdomen",
    "kidney": "abdomen",
    "spleen": "abdomen",
    "pancreas": "abdomen",
    "stomach": "abdomen",
    "intestine": "abdomen",
    "colon": "intestine",
    "retina": "fundus",
    "fundus": "eye",
}
"""Anatomy -> the anatomy it lies in."""


SEQUENCE_OF: dict[str, str] = {"t1": "mri", "t2": "mri"}
"""Modality -> the wider modality it belongs to. T1 and T2 are two modalities to each other, and both are MRI."""


def canonical(word: str) -> str:
    """Return the slug of a modality, anatomy or task name; unknown words come back as slugs of themselves.

    Example:
        >>> canonical("X-Ray"), canonical("Thorax"), canonical("Whole body")
        ('xray', 'chest', 'whole-body')
    """
    slug = re.sub(r"[\s_]+", "-", word.strip().lower())
    return SYNONYMS.get(slug, slug)


def canonical_cell(text: str) -> MAT:
    """Read a cell as a person writes it ("CXR/Thorax/seg").

    Raises:
        ValueError: If it is not three parts.
    """
    return MAT(*(canonical(part) for part in MAT.parse(text)))


def words(slug: str) -> str:
    """Return the words that a question uses for a modality or anatomy slug."""
    return MODALITIES.get(slug) or ANATOMIES.get(slug) or slug.replace("-", " ")


def lies_in(inner: str, outer: str) -> bool:
    """Whether anatomy `inner` is, or lies in, anatomy `outer`."""
    place: str | None = inner
    while place is not None:
        if place == outer:
            return True
        place = LIES_IN.get(place)
    return False


TaskKind = Literal["classification", "segmentation", "detection"]
"""What a task asks for: a class, a mask, or a box."""


def task_kind(task: str) -> TaskKind:
    """Return what a task asks for, from the words of its slug.

    A task of both ("lesion-det-seg", as Med-MAT names them) counts as segmentation: its masks make the boxes. Every
    other name is a kind of classification (finding, grade, covid ...).

    Example:
        >>> task_kind("grade"), task_kind("vessel-seg"), task_kind("detection")
        ('classification', 'segmentation', 'detection')
    """
    parts = set(task.split("-"))
    if parts & {"segmentation", "seg"}:
        return "segmentation"
    return "detection" if parts & {"detection", "det"} else "classification"


def _same_task(first: str, second: str, *, containment: bool) -> bool:
    """Whether two tasks are the same: with containment, "classification" holds every task that names a class.

    CrossMed knows two tasks, Med-MAT a dozen kinds of classification: in a benchmark of both, a cell of the one must
    not pass for zero overlap with the other. "segmentation" and "detection" hold theirs likewise.
    """
    return first == second or (containment and (task_kind(first) == second or task_kind(second) == first))


def shared_factors(first: MAT, second: MAT, *, containment: bool = True) -> frozenset[str]:
    """Name the factors that two cells share: a subset of {"modality", "anatomy", "task"}.

    Args:
        first: One cell.
        second: The other cell.
        containment: Whether an anatomy inside the other, an MRI sequence and MRI, or a kind of classification and
            classification count as the same.

    Example:
        >>> sorted(shared_factors(MAT("xray", "chest", "finding"), MAT("ct", "lung", "finding")))
        ['anatomy', 'task']
    """
    same_place = first.anatomy == second.anatomy or (
        containment and (lies_in(first.anatomy, second.anatomy) or lies_in(second.anatomy, first.anatomy))
    )
    same_modality = first.modality == second.modality or (
        containment
        and (SEQUENCE_OF.get(first.modality) == second.modality or SEQUENCE_OF.get(second.modality) == first.modality)
    )
    shared = {
        "modality": same_modality,
        "anatomy": same_place,
        "task": _same_task(first.task, second.task, containment=containment),
    }
    return frozenset(name for name, same in shared.items() if same)

"""What is asked of BraTS images, in words."""

from __future__ import annotations

from crossmed_core.types import MAT, Question

GRADE = MAT("mri", "brain", "classification")
REGION = MAT("mri", "brain", "segmentation")

GRADES = {"HGG": "high-grade glioma", "LGG": "low-grade glioma"}

# Similar in form and length to the two grades, so that an option is not given away by its looks.
OUTSIDE = ("atypical meningioma", "pituitary adenoma", "brain metastasis", "primary CNS lymphoma")

REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
"""Region -> labels of the segmentation: 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour."""

_WORDS = {
    "WT": "the whole tumour with the oedema around it",
    "TC": "the tumour core without the oedema around it",
    "ET": "the enhancing part of the tumour",
}
_NEUTRAL_WORDS = {
    "WT": "the whole abnormal area",
    "TC": "the core of the abnormal area",
    "ET": "the enhancing part of the abnormal area",
}

_GRADE_TEMPLATES = (
    "Which tumour does this {modality} slice of the {anatomy} show?",
    "What is the most likely diagnosis for the mass in this {anatomy} {modality}?",
    "Name the kind of tumour seen on this {modality} image ({anatomy}).",
    "The {modality} image shows the {anatomy}. Which type and grade of tumour is present?",
    "Classify the lesion in this {modality} slice of the {anatomy}.",
    "Looking at this {anatomy} {modality}, which tumour would you report?",
)
_GRADE_NEUTRAL = (
    "Which tumour does this slice show?",
    "What is the most likely diagnosis for the mass in this picture?",
    "Name the kind of tumour seen on this image.",
    "The image shows a tumour. Which type and grade is present?",
    "Classify the lesion in this slice.",
    "Looking at this image, which tumour would you report?",
)
_REGION_TEMPLATES = (
    "Outline REGION in this {modality} slice of the {anatomy}.",
    "Segment REGION on this {anatomy} {modality}.",
    "Mark all pixels of REGION in this {modality} image of the {anatomy}.",
    "The {modality} image shows the {anatomy}. Delineate REGION.",
    "Draw the boundary of REGION on this {modality} image ({anatomy}).",
    "Where in this {anatomy} {modality} is REGION? Give its mask.",
)
_REGION_NEUTRAL = (
    "Outline REGION in this slice.",
    "Segment REGION on this image.",
    "Mark all pixels of REGION in this image.",
    "The image shows a tumour. Delineate REGION.",
    "Draw the boundary of REGION on this image.",
    "Where in this image is REGION? Give its mask.",
)


def questions(region: str) -> dict[MAT, Question]:
    """Return the questions of both cells, the second one for a region ("WT", "TC" or "ET")."""
    templates, neutral = (
        tuple(text.replace("REGION", _WORDS[region]) for text in pool) for pool in (_REGION_TEMPLATES, _REGION_NEUTRAL)
    )
    return {
        GRADE: Question(GRADE, "option", _GRADE_TEMPLATES, tuple(GRADES.values()), _GRADE_NEUTRAL, OUTSIDE),
        REGION: Question(
            REGION,
            "mask",
            templates,
            neutral=neutral,
            target=_WORDS[region],
            neutral_target=_NEUTRAL_WORDS[region],
        ),
    }

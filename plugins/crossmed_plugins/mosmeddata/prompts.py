"""What is asked of MosMedData images, in words."""

from __future__ import annotations

from crossmed_core.types import MAT, Question

# How much of the lung parenchyma pneumonia involves, graded on the full CT (Morozov et al. 2020, arXiv:2005.06465, and
# the download's README). Alike in form and length, so that an option is not given away by its looks; without the words
# that give modality and anatomy away, as options are the same under neutral prompts.
SEVERITIES = {
    "CT-0": "grade 0: nothing is involved",
    "CT-1": "grade 1: under 25 % involved",
    "CT-2": "grade 2: 25 to 50 % involved",
    "CT-3": "grade 3: 50 to 75 % involved",
    "CT-4": "grade 4: over 75 % involved",
}
"""Category of the registry -> option."""

# The category is that of the whole study: many a slice of a mild one shows no lesion, so none asks about the slice.
_SEVERITY_TEMPLATES = (
    "This slice is from a {modality} study of the {anatomy}. Which category of severity was the whole study given?",
    "How severe is the pneumonia in the {anatomy} {modality} study that this slice is from?",
    "How much of the parenchyma is involved in the whole {modality} study of the {anatomy} that this slice is from?",
    "Grade the extent of viral pneumonia in the {modality} study of the {anatomy} from which this slice was taken.",
    "One slice of a {modality} study of the {anatomy} is shown. How extensive is the disease in the whole study?",
    "A {anatomy} {modality} study was graded as a whole; this slice is a part of it. Which grade did the study get?",
)
_SEVERITY_NEUTRAL = (
    "This slice is from a study of one patient. Which category of severity was the whole study given?",
    "How severe is the disease in the study that this slice is from?",
    "How much of the tissue is involved in the whole study that this slice is from?",
    "Grade the extent of the disease in the study from which this slice was taken.",
    "One slice of a study is shown. How extensive is the disease in the whole study?",
    "A study was graded as a whole; this slice is a part of it. Which grade did the study get?",
)
_REGION_TEMPLATES = (
    "Outline the ground-glass opacities and consolidations in this {modality} slice of the {anatomy}.",
    "Segment the diseased tissue on this {anatomy} {modality}.",
    "Mark all pixels of the opacities in this {modality} image of the {anatomy}.",
    "The {modality} image shows the {anatomy}. Delineate the pneumonia.",
    "Draw the boundary of the opacities on this {modality} image ({anatomy}).",
    "Where in this {anatomy} {modality} are the opacities? Give their mask.",
)
_REGION_NEUTRAL = (
    "Outline the diseased tissue in this slice.",
    "Segment the diseased tissue on this image.",
    "Mark all pixels of the disease in this image.",
    "The image shows an organ. Delineate the disease.",
    "Draw the boundary of the diseased tissue on this image.",
    "Where in this image is the disease? Give its mask.",
)


def questions(anatomy: str, *, segmentation: bool) -> dict[MAT, Question]:
    """Return the question about severity, and the one about regions if asked for."""
    severity, region = MAT("ct", anatomy, "classification"), MAT("ct", anatomy, "segmentation")
    asked = {
        severity: Question(severity, "option", _SEVERITY_TEMPLATES, tuple(SEVERITIES.values()), _SEVERITY_NEUTRAL),
    }
    if segmentation:
        asked[region] = Question(
            region,
            "mask",
            _REGION_TEMPLATES,
            neutral=_REGION_NEUTRAL,
            target="the area affected by pneumonia",
            neutral_target="the abnormal area",
        )
    return asked

"""What is asked of MosMedData images, in words."""

from __future__ import annotations

from crossmed_core.types import MAT, Question

# Of the lung parenchyma, graded on the full CT (Morozov et al. 2020, arXiv:2005.06465, and the download's README).
# Alike in form and length, so that an option is not given away by its looks.
SEVERITIES = {
    "CT-0": "no viral pneumonia in the lungs (CT-0)",
    "CT-1": "under 25 % of the lungs involved (CT-1)",
    "CT-2": "25 to 50 % of the lungs involved (CT-2)",
    "CT-3": "50 to 75 % of the lungs involved (CT-3)",
    "CT-4": "over 75 % of the lungs involved (CT-4)",
}

_SEVERITY_TEMPLATES = (
    "How severe is the pneumonia in this {modality} slice of the {anatomy}?",
    "How much of the parenchyma does pneumonia involve on this {anatomy} {modality}?",
    "Grade the extent of viral pneumonia seen in this {modality} image of the {anatomy}.",
    "The {modality} image shows the {anatomy}. Which category of severity fits?",
    "Which CT-0 to CT-4 category would you report for this {modality} image ({anatomy})?",
    "Looking at this {anatomy} {modality}, how extensive is the disease?",
)
_SEVERITY_NEUTRAL = (
    "How severe is the disease in this slice?",
    "How much of the tissue does the disease involve on this image?",
    "Grade the extent of the disease seen in this image.",
    "The image shows an organ. Which category of severity fits?",
    "Which category would you report for this image?",
    "Looking at this image, how extensive is the disease?",
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
        asked[region] = Question(region, "mask", _REGION_TEMPLATES, neutral=_REGION_NEUTRAL)
    return asked

"""How each kind of task is asked where Med-MAT's own question is not used.

Every item brings a question of Med-MAT's authors, which often names modality and anatomy ("Review this kidney CT
scan ..."). These pools serve the neutral condition, and whatever lists the templates of a cell. Pairs of (named,
neutral), place by place: the neutral form names no modality, no anatomy and nothing that only one organ has.
"""

from __future__ import annotations

from collections.abc import Mapping

WORDING: Mapping[str, tuple[tuple[str, str], ...]] = {
    "disease": (
        (
            "Which condition does this {modality} image of the {anatomy} show?",
            "Which condition does this image show?",
        ),
        (
            "Review this {modality} image of the {anatomy} and name the most likely diagnosis.",
            "Review this image and name the most likely diagnosis.",
        ),
        (
            "This is a {modality} image of the {anatomy}. What is the diagnosis?",
            "This is a medical image. What is the diagnosis?",
        ),
        (
            "What disease, if any, is visible in the {anatomy} on this {modality} image?",
            "What disease, if any, is visible in this image?",
        ),
        (
            "Judge from this {modality} image of the {anatomy}: what is the patient's condition?",
            "Judge from this image: what is the patient's condition?",
        ),
        (
            "Which of these diagnoses fits the {modality} appearance of the {anatomy}?",
            "Which of these diagnoses fits the appearance?",
        ),
    ),
    "cancer": (
        (
            "What does this {modality} image of the {anatomy} say about a tumour?",
            "What does this image say about a tumour?",
        ),
        (
            "Is there a tumour in this {modality} image of the {anatomy}, and of which kind?",
            "Is there a tumour in this image, and of which kind?",
        ),
        (
            "Classify this {modality} image of the {anatomy} with regard to cancer.",
            "Classify this image with regard to cancer.",
        ),
        (
            "Looking for malignancy in the {anatomy} on this {modality} image, what do you find?",
            "Looking for malignancy in this image, what do you find?",
        ),
        (
            "Which tumour category fits this {modality} image of the {anatomy}?",
            "Which tumour category fits this image?",
        ),
        (
            "Assess this {modality} image of the {anatomy} for cancer. What is the result?",
            "Assess this image for cancer. What is the result?",
        ),
    ),
    "level": (
        (
            "Which level does this {modality} image of the {anatomy} show?",
            "Which level does this image show?",
        ),
        (
            "Grade what you see of the {anatomy} in this {modality} image.",
            "Grade what you see in this image.",
        ),
        (
            "On the usual scale, where does this {modality} image of the {anatomy} belong?",
            "On the usual scale, where does this image belong?",
        ),
        (
            "This is a {modality} image of the {anatomy}. What degree is it?",
            "This is a medical image. What degree is it?",
        ),
        (
            "Assign a level to this {modality} image of the {anatomy}.",
            "Assign a level to this image.",
        ),
        (
            "How advanced is what this {modality} image of the {anatomy} shows?",
            "How advanced is what this image shows?",
        ),
    ),
    "quality": (
        (
            "How good is this {modality} image of the {anatomy} for diagnosis?",
            "How good is this image for diagnosis?",
        ),
        (
            "Assess the quality of this {modality} image of the {anatomy}.",
            "Assess the quality of this image.",
        ),
        (
            "Which quality category fits this {modality} image of the {anatomy}?",
            "Which quality category fits this image?",
        ),
        (
            "Can the {anatomy} be judged from this {modality} image? Choose the category.",
            "Can a diagnosis be made from this image? Choose the category.",
        ),
        (
            "This is a {modality} image of the {anatomy}. How is its quality?",
            "This is a medical image. How is its quality?",
        ),
        (
            "Sort this {modality} image of the {anatomy} by its quality.",
            "Sort this image by its quality.",
        ),
    ),
    "state": (
        (
            "In what state is the {anatomy} in this {modality} image?",
            "In what state is the structure in this image?",
        ),
        (
            "What is wrong, if anything, with the {anatomy} in this {modality} image?",
            "What is wrong, if anything, in this image?",
        ),
        (
            "Describe the state of the {anatomy} on this {modality} image.",
            "Describe the state of what this image shows.",
        ),
        (
            "This is a {modality} image of the {anatomy}. Which state does it show?",
            "This is a medical image. Which state does it show?",
        ),
        (
            "Which of these states fits the {anatomy} in this {modality} image?",
            "Which of these states fits this image?",
        ),
        (
            "Check the {anatomy} in this {modality} image for damage. What do you find?",
            "Check this image for damage. What do you find?",
        ),
    ),
    "type": (
        (
            "Which type does this {modality} image of the {anatomy} show?",
            "Which type does this image show?",
        ),
        (
            "Identify the type of {anatomy} or tissue in this {modality} image.",
            "Identify the type of what this image shows.",
        ),
        (
            "This is a {modality} image of the {anatomy}. Of which class is it?",
            "This is a medical image. Of which class is it?",
        ),
        (
            "Name what is shown in this {modality} image of the {anatomy}.",
            "Name what is shown in this image.",
        ),
        (
            "To which category does the {anatomy} in this {modality} image belong?",
            "To which category does this image belong?",
        ),
        (
            "By its appearance in this {modality} image, what type of {anatomy} is this?",
            "By its appearance in this image, what type is this?",
        ),
    ),
    "types": (
        (
            "Which types does this {modality} image of the {anatomy} show?",
            "Which types does this image show?",
        ),
        (
            "Identify every type of {anatomy} in this {modality} image.",
            "Identify every type in this image.",
        ),
        (
            "This is a {modality} image of the {anatomy}. Which classes are present?",
            "This is a medical image. Which classes are present?",
        ),
        (
            "Name all that is shown in this {modality} image of the {anatomy}.",
            "Name all that is shown in this image.",
        ),
        (
            "Which answer lists the types of {anatomy} in this {modality} image completely?",
            "Which answer lists the types in this image completely?",
        ),
        (
            "By their appearance in this {modality} image, which types of {anatomy} are these?",
            "By their appearance in this image, which types are these?",
        ),
    ),
    "findings": (
        (
            "Which findings does this {modality} image of the {anatomy} show?",
            "Which findings does this image show?",
        ),
        (
            "List everything abnormal in this {modality} image of the {anatomy}.",
            "List everything abnormal in this image.",
        ),
        (
            "Which answer names all findings of this {modality} image of the {anatomy}?",
            "Which answer names all findings of this image?",
        ),
        (
            "This is a {modality} image of the {anatomy}. Which labels apply?",
            "This is a medical image. Which labels apply?",
        ),
        (
            "Review the {anatomy} in this {modality} image: which findings are present?",
            "Review this image: which findings are present?",
        ),
        (
            "What is seen in the {anatomy} on this {modality} image? Choose the complete answer.",
            "What is seen in this image? Choose the complete answer.",
        ),
    ),
}
"""Kind of task (`tables.Subset.kind`) -> its pool."""

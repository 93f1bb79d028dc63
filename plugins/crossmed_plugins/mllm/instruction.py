"""What a model is asked to answer with."""

INSTRUCTION = "Answer with the option's letter from the given choices directly."
"""After the options. Med-MAT's wording (arXiv 2412.20070, figure 8), which is that of LLaVA-1.5."""

BOX_INSTRUCTIONS = {
    "pixels": "Give its bounding box as [x1, y1, x2, y2] in pixels of the image.",
    "thousandths": "Give its bounding box as [x1, y1, x2, y2], from 0 to 1000 along each side of the image.",
}
"""After a question that is answered by a region, by how the model writes boxes."""

"""Med-MAT: question-answer files over 106 image sets."""

"""A synthetic Modality-Anatomy-Task benchmark: procedural images with exact ground truth."""

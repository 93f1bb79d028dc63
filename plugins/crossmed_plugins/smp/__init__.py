"""Segmentation networks of segmentation-models-pytorch."""

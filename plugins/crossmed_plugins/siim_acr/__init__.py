"""SIIM-ACR Pneumothorax Segmentation: chest X-rays with regions."""

"""CheXpert and CheXpert Plus: chest X-rays with findings."""

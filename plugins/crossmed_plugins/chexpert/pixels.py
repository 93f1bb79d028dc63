"""Synthetic pixels for the fixture: blobs that look a little like a chest, with a mark for each finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]


def draw(generator: np.random.Generator, findings: Iterable[str], height: int, width: int) -> NDArray[np.uint8]:
    """Draw one radiograph; the marks are toys, placed where a radiologist would look.

    Args:
        generator: Source of position, contrast and noise.
        findings: Columns of the label table that are true.
        height: Rows.
        width: Columns.

    Returns:
        uint8 array of shape (height, width).
    """
    shift_y, shift_x, zoom = (
        generator.uniform(-0.05, 0.05),
        generator.uniform(-0.05, 0.05),
        generator.uniform(0.94, 1.06),
    )
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    y, x = rows * zoom + shift_y, columns * zoom + shift_x

    def blob(cy: float, cx: float, ry: float, rx: float) -> Plane:
        inside: Plane = 0.5 - 0.5 * np.tanh(4 * (((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 - 1))
        return inside

    lungs = blob(-0.05, -0.45, 0.65, 0.32) + blob(-0.05, 0.45, 0.65, 0.32)
    image = 20 + 110 * blob(0.1, 0, 1.1, 0.95) - 75 * lungs + 60 * blob(0, 0, 1.2, 0.14)
    image += 8 * np.sin(14 * (y + 0.3 * x**2)) * lungs
    image += 55 * blob(0.3, 0.12, 0.28, 0.26)
    # Every patient has a texture of his own: real people differ in detail, and the proof of a split looks for copies.
    for down, across, phase in generator.uniform((-14, -14, 0), (14, 14, 6.28), (8, 3)):
        image += 7 * np.sin(down * y + across * x + phase)
    marks: dict[str, Callable[[], Plane]] = {
        "Enlarged Cardiomediastinum": lambda: 60 * blob(-0.35, 0, 0.3, 0.32),
        "Cardiomegaly": lambda: 60 * blob(0.32, 0.15, 0.34, 0.5),
        "Lung Opacity": lambda: 30 * blob(-0.1, -0.45, 0.55, 0.3),
        "Lung Lesion": lambda: 110 * blob(-0.4, 0.45, 0.12, 0.1),
        "Edema": lambda: 55 * (blob(-0.05, -0.25, 0.4, 0.2) + blob(-0.05, 0.25, 0.4, 0.2)),
        "Consolidation": lambda: 90 * blob(0.3, -0.48, 0.22, 0.24),
        "Pneumonia": lambda: 70 * blob(0.1, 0.5, 0.2, 0.2) * (1 + np.sin(25 * x) * np.sin(25 * y)) / 1.5,
        "Atelectasis": lambda: 100 * blob(0.42, -0.42, 0.06, 0.34),
        "Pneumothorax": lambda: -60 * blob(-0.5, 0.6, 0.32, 0.16),
        "Pleural Effusion": lambda: 95 * blob(0.62, 0.5, 0.24, 0.34),
        "Pleural Other": lambda: 80 * blob(0, -0.76, 0.55, 0.06),
        "Fracture": lambda: -70 * blob(-0.62, -0.5, 0.05, 0.22),
        "Support Devices": lambda: 130 * blob(-0.4, 0.06, 0.5, 0.03),
    }
    for finding in findings:
        if finding in marks:
            image += marks[finding]() * generator.uniform(0.85, 1.15)
    image += generator.normal(0, 3, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)

"""Synthetic pictures for the fixture: blobs that look a bit like what they stand for, and show their label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

SIDE = 48

Picture = NDArray[np.float64]


def kidney_ct(findings: Iterable[str], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw an axial slice with both kidneys, uint8 of shape (48, 48)."""
    jitter = rng.uniform(-0.03, 0.03, 2)
    picture = 0.45 * _ellipse(0.5, 0.5, 0.38, 0.46)
    kidneys = [(0.55 + jitter[0], 0.28 + jitter[1]), (0.55 + jitter[0], 0.72 + jitter[1])]
    for row, column in kidneys:
        picture += 0.22 * _ellipse(row, column, 0.15, 0.11)
    picture += 0.45 * _ellipse(0.7 + jitter[0], 0.5, 0.07, 0.08)  # the spine
    row, column = kidneys[rng.integers(2)] + rng.uniform(-0.03, 0.03, 2)
    shapes: Mapping[str, Callable[[], Picture]] = {
        "Cyst": lambda: -0.6 * _ellipse(row, column, 0.1, 0.1),
        "Tumor": lambda: 0.3 * _ellipse(row, column, 0.17, 0.13) + 0.2 * _ellipse(row - 0.1, column, 0.09, 0.12),
        "Stone": lambda: 1.0 * _ellipse(row, column, 0.04, 0.04),
    }
    return _exposed(picture, [shapes[one]() for one in findings if one in shapes], rng)


def lung_ct(findings: Iterable[str], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw an axial slice of the chest, uint8 of shape (48, 48)."""
    jitter = rng.uniform(-0.03, 0.03, 2)
    picture = 0.6 * _ellipse(0.5, 0.5, 0.4, 0.47)
    for column in (0.28, 0.72):
        picture -= 0.5 * _ellipse(0.5 + jitter[0], column + jitter[1], 0.26, 0.16)
    patches = [
        0.42 * _ellipse(row, column, 0.1, 0.09)
        for row, column in zip(rng.uniform(0.38, 0.65, 3), (0.2, 0.8, 0.76), strict=True)
    ]
    return _exposed(picture, patches if "COVID" in findings else [], rng)


def chest_xray(findings: Iterable[str], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a frontal radiograph, uint8 of shape (48, 48)."""
    findings = set(findings)
    jitter = rng.uniform(-0.02, 0.02, 2)
    wide = 0.27 if "Cardiomegaly" in findings else 0.14
    rows, _ = _grid()
    picture = 0.6 * _ellipse(0.55, 0.5, 0.6, 0.5)
    lungs = [_ellipse(0.48 + jitter[0], column + jitter[1], 0.34, 0.17) for column in (0.28, 0.72)]
    for lung in lungs:
        picture -= 0.4 * lung
    picture += 0.06 * np.sin(rows * 55) * (lungs[0] + lungs[1])  # ribs
    picture += 0.35 * _ellipse(0.66 + jitter[0], 0.53, 0.16, wide)
    side = (0.26, 0.74)[rng.integers(2)]
    shapes: Mapping[str, Callable[[], Picture]] = {
        "Pneumonia": lambda: 0.45 * _ellipse(0.42, side, 0.15, 0.13),
        "COVID-19": lambda: 0.35 * (_ellipse(0.62, 0.22, 0.12, 0.1) + _ellipse(0.62, 0.78, 0.12, 0.1)),
        "Pleural Effusion": lambda: 0.5 * _ellipse(0.82, side, 0.14, 0.2),
        "Pneumothorax": lambda: -0.3 * _ellipse(0.25, side, 0.14, 0.16),
        "Edema": lambda: 0.4 * (_ellipse(0.45, 0.38, 0.13, 0.1) + _ellipse(0.45, 0.62, 0.13, 0.1)),
    }
    return _exposed(picture, [shapes[one]() for one in sorted(findings & shapes.keys())], rng)


def _ellipse(row: float, column: float, height: float, width: float) -> Picture:
    rows, columns = _grid()
    radius = np.hypot((rows - row) / height, (columns - column) / width)
    edge: Picture = np.clip((1.0 - radius) * 4 + 0.5, 0.0, 1.0)
    return edge


def _grid() -> tuple[Picture, Picture]:
    centres = (np.arange(SIDE) + 0.5) / SIDE
    return centres[:, None], centres[None, :]


def _exposed(body: Picture, shapes: Iterable[Picture], rng: np.random.Generator) -> NDArray[np.uint8]:
    picture = sum(shapes, start=body) * rng.uniform(0.85, 1.1) + rng.normal(0.05, 0.03, (SIDE, SIDE))
    return np.rint(np.clip(picture, 0.0, 1.0) * 255).astype(np.uint8)

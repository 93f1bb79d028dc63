"""Four body regions as paint-ordered tissue layers.

Each function draws its organs once and returns where lesions may grow, in body coordinates (picture
half-widths; x right, y down as displayed, so that the patient's right is on the left, as radiologists show
it). The same geometry serves every modality: chest and knee are seen from the front, brain and abdomen in
cross-section. `Draws` gives every organ a few percent of its own variation.
"""

import math
from collections.abc import Callable

import numpy as np

from crossmed_plugins.phantom.geometry import Array, Canvas, Draws, Host, intersection, smooth_step, union


def draw_chest(canvas: Canvas, draws: Draws) -> Host:
    """Frontal chest: lungs over a domed diaphragm, heart, great vessels, trachea, spine, ribs, clavicles."""
    frame, near = canvas.frame, draws.near
    x, y = frame.x, frame.y
    torso = frame.squircle(0.0, 0.42, near(0.89, 0.02), near(1.15, 0.02))
    shoulders = frame.ellipse(0.0, -0.28, near(0.96, 0.02), near(0.44, 0.02))
    neck = intersection(np.abs(x) - near(0.24, 0.03), y + 0.3)
    body = union(torso, shoulders, neck)
    canvas.paint("fat", body, depth=0.10, within="air", bulge=0.2)
    canvas.paint("muscle", body + near(0.06, 0.015), depth=0.85, within="air", bulge=0.45)

    dome = near(0.50, 0.03) - near(0.10, 0.02) * np.cos(4.0 * (np.abs(x) - 0.38)) + 0.09 * smooth_step(x + 0.5)
    above_diaphragm = (y - dome) * 0.9
    tilt, half_width, height = near(0.10, 0.03), near(0.315, 0.015), near(0.74, 0.03)
    lungs = union(
        frame.squircle(-0.40, 0.02, half_width, height, taper=0.22, angle=tilt),
        frame.squircle(0.41, 0.02, half_width * near(0.97, 0.02), height, taper=0.22, angle=-tilt),
    )
    cage = frame.squircle(0.0, 0.06, near(0.75, 0.01), near(0.86, 0.02), taper=0.14)
    lungs = intersection(lungs, above_diaphragm)

    liver = intersection(cage + 0.05, 0.03 - above_diaphragm, x - near(0.12, 0.05))
    canvas.paint("liver", liver, depth=0.55, bulge=0.3)
    stomach = frame.ellipse(near(0.40, 0.04), near(0.66, 0.03), near(0.17, 0.03), near(0.09, 0.02))
    canvas.paint("spleen", intersection(cage + 0.05, 0.03 - above_diaphragm, 0.5 - x), depth=0.4, bulge=0.3)
    canvas.paint("air", stomach, depth=0.22, bulge=0.12)
    canvas.paint("lung", lungs, depth=near(0.95, 0.05), bulge=0.22)
    hila = union(
        frame.ellipse(near(-0.20, 0.02), near(-0.06, 0.03), 0.07, 0.13, 0.35),
        frame.ellipse(near(0.21, 0.02), near(-0.10, 0.03), 0.06, 0.11, -0.35),
    )
    canvas.paint("muscle", hila, depth=0.22, within="lung", bulge=0.08)
    vessels = 0.04 * (1.15 + 1.6 * np.abs(np.abs(x) - 0.25) - draws.field(frame.size, cells=16))
    canvas.paint("muscle", intersection(lungs + 0.03, vessels), depth=0.10, within="lung", bulge=0.04)

    spine_width = near(0.085, 0.01)
    rhythm = np.sin(frame.linear(0.0, 2.0 * math.pi / near(0.17, 0.01), draws.uniform(0.0, 6.3)))
    mediastinum = intersection(np.abs(x) - near(0.16, 0.02), y - 0.62)
    canvas.paint("muscle", mediastinum, depth=0.30, within="lung", bulge=0.1)
    vertebrae = np.abs(x) - spine_width - 0.012 * rhythm
    canvas.paint("bone", vertebrae, depth=0.20, bulge=0.09)
    canvas.paint("marrow", vertebrae + 0.03, depth=0.12, within="bone", bulge=0.09)
    canvas.paint("cartilage", np.maximum(vertebrae, 0.06 * (0.8 - rhythm)), depth=0.12, within="bone")

    heart = frame.ellipse(near(0.12, 0.03), near(0.26, 0.03), near(0.33, 0.03), near(0.25, 0.02), near(0.5, 0.1))
    knob = frame.ellipse(near(0.14, 0.02), near(-0.28, 0.03), near(0.11, 0.015), 0.11)
    canvas.paint("muscle", union(heart, knob), depth=0.55, within="lung", bulge=0.2)
    trachea = intersection(np.abs(x - near(0.0, 0.015)) - near(0.045, 0.008), y + 0.22)
    canvas.paint("air", trachea, depth=0.12, bulge=0.04)

    _draw_ribs(canvas, draws, cage, lungs)
    return Host(0.0, 0.06, 0.73, 0.78, boxy=True)


def _draw_ribs(canvas: Canvas, draws: Draws, cage: Array, lungs: Array) -> None:
    """Ribs: whole arcs in a projection; in a slice only their cuts between lung and skin."""
    frame = canvas.frame
    side = np.abs(frame.x)
    spacing = draws.near(0.19, 0.01)
    arcs = frame.y + draws.uniform(0.0, spacing) - 0.55 * side * (1.35 - 1.3 * side)
    stripe = np.abs(arcs * (1.0 / spacing) - np.round(arcs * (1.0 / spacing))) * spacing - draws.near(0.036, 0.004)
    if canvas.projection:
        span = intersection(cage, frame.y - 0.62, 0.06 - side)
        canvas.paint("bone", intersection(stripe, span), depth=0.11, bulge=0.035)
        for sign in (-1.0, 1.0):
            clavicle = frame.ellipse(sign * 0.36, draws.near(-0.66, 0.02), 0.32, 0.04, sign * draws.near(-0.22, 0.05))
            canvas.paint("bone", clavicle, depth=0.13, bulge=0.05)
    else:
        wall = intersection(cage, 0.03 - lungs, 0.45 - side, frame.y - 0.75)
        canvas.paint("bone", intersection(stripe, wall), depth=0.0)


def draw_brain(canvas: Canvas, draws: Draws) -> Host:
    """Axial brain: scalp, skull, folded cortex, white matter, deep nuclei, fissure, four-lobed ventricles."""
    frame, near = canvas.frame, draws.near
    a, b = near(0.76, 0.02), near(0.90, 0.02)
    head = frame.ellipse(0.0, 0.0, a, b)
    skull = near(0.055, 0.012)
    table = near(0.075, 0.012)
    inner = skull + table
    canvas.paint("fat", head, depth=0.60, within="air", bulge=0.3)
    canvas.paint("bone", head + skull, depth=0.55, within="fat", bulge=0.10)
    canvas.paint("marrow", np.abs(head + skull + 0.5 * table) - 0.012, depth=0.0)
    canvas.paint("csf", head + inner, depth=0.42, within="bone", bulge=0.14)

    turn = np.arctan2(frame.y, frame.x)
    lobes = np.sin(turn * 9.0 + (draws.uniform(0.0, 6.3) + 7.0 * frame.x))
    sulci = np.sin(turn * 17.0 + (draws.uniform(0.0, 6.3) + 5.0 * lobes * frame.y))
    gap = near(0.025, 0.008)
    cortex = head + (inner + gap) - 0.018 * sulci
    canvas.paint("grey matter", cortex, depth=0.30, within="csf", bulge=0.3)
    white = head + (inner + gap + near(0.105, 0.012)) - 0.026 * lobes - 0.034 * sulci
    canvas.paint("white matter", white, depth=0.10, within="grey matter", bulge=0.3)

    for sign in (-1.0, 1.0):
        putamen = frame.ellipse(sign * near(0.25, 0.01), near(-0.06, 0.02), 0.075, 0.16, sign * 0.30)
        thalamus = frame.ellipse(sign * near(0.12, 0.01), near(0.09, 0.02), 0.085, 0.11, sign * -0.35)
        canvas.paint("grey matter", union(putamen, thalamus), depth=0.06, within="white matter")
    fissure = intersection(np.abs(frame.x) - near(0.012, 0.005), 0.30 - np.abs(frame.y), head + inner)
    canvas.paint("csf", fissure, depth=0.10, within="grey matter")

    swelling = draws.uniform(0.85, 1.35)
    for sign in (-1.0, 1.0):
        frontal = frame.ellipse(sign * 0.095, -0.20, 0.045 * swelling, 0.155 * swelling, sign * near(0.32, 0.06))
        occipital = frame.ellipse(sign * 0.15, 0.28, 0.045 * swelling, 0.155 * swelling, sign * near(-0.42, 0.06))
        canvas.paint("csf", union(frontal, occipital), depth=0.25, within="white matter", bulge=0.06)
    return Host(0.0, 0.0, a - inner + 0.01, b - inner + 0.01)


def draw_abdomen(canvas: Canvas, draws: Draws) -> Host:
    """Axial abdomen: fat, muscle wall, liver, stomach, spleen, kidneys, vertebra, aorta, bowel."""
    frame, near = canvas.frame, draws.near
    a, b = near(0.90, 0.02), near(0.80, 0.02)
    body = frame.squircle(0.0, 0.0, a, b)
    fat, wall = near(0.075, 0.025), near(0.055, 0.01)
    canvas.paint("fat", body, depth=0.95, within="air", bulge=0.5)
    canvas.paint("muscle", body + fat, depth=0.7, within="fat", bulge=0.4)
    cavity = body + (fat + wall)
    canvas.paint("fat", cavity, depth=0.45, within="muscle", bulge=0.4)
    back = intersection(cavity, union(0.62 - frame.y, frame.ellipse(0.0, 0.44, 0.40, 0.20)))
    canvas.paint("muscle", back, depth=0.4, within="fat", bulge=0.2)

    liver = intersection(
        cavity + 0.015,
        union(
            frame.ellipse(near(-0.44, 0.02), near(-0.06, 0.03), near(0.36, 0.02), near(0.44, 0.02), near(0.15, 0.1)),
            frame.ellipse(near(-0.10, 0.03), near(-0.32, 0.03), near(0.38, 0.04), near(0.17, 0.02), near(-0.15, 0.1)),
        ),
    )
    canvas.paint("liver", liver, depth=0.55, within="fat", bulge=0.25)
    for _ in range(3):
        vessel = frame.ellipse(near(-0.40, 0.20), near(-0.12, 0.20), 0.022, near(0.09, 0.03), near(0.0, 1.5))
        canvas.paint("muscle", vessel, depth=0.0)
    stomach = frame.ellipse(near(0.36, 0.03), near(-0.27, 0.03), near(0.22, 0.03), near(0.19, 0.02), near(0.3, 0.2))
    canvas.paint("muscle", stomach, depth=0.35, within="fat", bulge=0.15)
    canvas.paint("csf", stomach + 0.035, depth=0.0)
    bubble = intersection(stomach + 0.04, frame.linear(0.0, 1.0, near(0.32, 0.03)))
    canvas.paint("air", bubble, depth=0.18, bulge=0.08)
    spleen = intersection(
        cavity + 0.015,
        frame.ellipse(near(0.62, 0.02), near(0.12, 0.03), near(0.15, 0.015), near(0.29, 0.03), near(-0.25, 0.1)),
    )
    canvas.paint("spleen", spleen, depth=0.45, within="fat", bulge=0.15)

    for sign in (-1.0, 1.0):
        cx, cy, tilt = sign * near(0.41, 0.02), near(0.37, 0.02), sign * near(0.35, 0.1)
        canvas.paint(
            "kidney",
            frame.ellipse(cx, cy, near(0.125, 0.01), 0.17, tilt),
            depth=0.45,
            within="fat",
            bulge=0.1,
        )
        hilum = frame.ellipse(cx - sign * 0.075, cy - 0.02, 0.065, 0.055)
        canvas.paint("fat", hilum, depth=0.3, within="kidney", bulge=0.06)
        loop = frame.ellipse(sign * near(0.13, 0.03), near(0.0, 0.04), near(0.10, 0.015), near(0.085, 0.015))
        canvas.paint("muscle", loop, depth=0.25, within="fat", bulge=0.08)
        canvas.paint("csf", loop + 0.035, depth=0.0)

    vertebral_y = near(0.36, 0.02)
    arch = union(
        frame.ellipse(0.0, vertebral_y + 0.20, 0.115, 0.10),
        frame.ellipse(0.0, vertebral_y + 0.33, 0.025, 0.11),
        frame.ellipse(0.0, vertebral_y + 0.19, 0.24, 0.03),
    )
    vertebra = frame.squircle(0.0, vertebral_y, near(0.15, 0.01), near(0.12, 0.01))
    canvas.paint("bone", union(vertebra, arch), depth=0.30, bulge=0.1)
    canvas.paint("marrow", vertebra + 0.035, depth=0.15, within="bone", bulge=0.08)
    canvas.paint("csf", frame.ellipse(0.0, vertebral_y + 0.20, 0.062, 0.055), depth=0.25, within="bone")
    vessels = union(
        frame.ellipse(near(0.06, 0.01), vertebral_y - 0.185, near(0.062, 0.006), 0.062),
        frame.ellipse(near(-0.10, 0.01), vertebral_y - 0.17, near(0.065, 0.01), 0.052),
    )
    canvas.paint("muscle", vessels, depth=0.30, within="fat", bulge=0.06)
    return Host(0.0, 0.0, a - fat - wall, b - fat - wall, boxy=True)


def draw_knee(canvas: Canvas, draws: Draws) -> Host:
    """Frontal knee: femur, tibia, joint gap with cartilage and menisci, fibula, patella."""
    frame, near = canvas.frame, draws.near
    x, y = frame.x, frame.y
    width = near(0.80, 0.02)
    leg = np.abs(x) - width + 0.05 * np.square(y - 0.1)
    fat = near(0.07, 0.02)
    canvas.paint("fat", leg, depth=0.9, within="air", bulge=0.45)
    canvas.paint("muscle", leg + fat, depth=0.5, within="fat", bulge=0.4)
    for sign in (-1.0, 1.0):
        plane = frame.ellipse(sign * near(0.52, 0.04), sign * near(-0.62, 0.05), 0.03, 0.36, sign * near(0.1, 0.1))
        canvas.paint("fat", plane, depth=0.0)

    joint = near(0.02, 0.02)
    side = np.abs(x)
    shaft, condyle = near(0.17, 0.01), near(0.46, 0.02)
    flare = shaft + (condyle - shaft) * smooth_step((y - (joint - 0.66)) * (1.0 / 0.42))
    rounding = np.square(np.maximum(side - 0.26, 0.0)) * 1.6
    notch = 0.17 * np.exp(np.square(x * (1.0 / 0.10)) * -1.0)
    femur = intersection(side - flare, y - (joint - 0.035) + rounding + notch)
    plateau, stem = near(0.45, 0.02), near(0.15, 0.01)
    waist = stem + (plateau - stem) * smooth_step(((joint + 0.56) - y) * (1.0 / 0.44))
    spines = 0.06 * np.exp(np.square(x * (1.0 / 0.07)) * -1.0)
    tibia = intersection(side - waist, (joint + 0.055) - spines - y)
    fibula_x = near(0.50, 0.015)
    fibula = intersection(np.abs(x - fibula_x) - near(0.055, 0.005) + 0.02 * (y - 0.4), (joint + 0.22) - y)

    gap = intersection(np.abs(y - joint) - 0.085, side - condyle * 0.98)
    canvas.paint("cartilage", gap, depth=0.30)
    menisci = intersection(np.abs(y - joint - 0.01) - 0.45 * (side - 0.28), side - condyle * 0.98)
    canvas.paint("bone", menisci, depth=0.0)
    canvas.paint("cartilage", menisci + 0.02, depth=0.0)
    _draw_bone(canvas, femur, depth=0.42)
    _draw_bone(canvas, tibia, depth=0.40)
    _draw_bone(canvas, fibula, depth=0.14)
    if canvas.projection:
        patella = frame.ellipse(near(0.0, 0.03), joint - near(0.30, 0.03), near(0.18, 0.015), near(0.20, 0.015))
        canvas.paint("bone", patella, depth=0.13, bulge=0.12)
    return Host(0.0, 0.0, width - fat - 0.03, 1.05, boxy=True)


def _draw_bone(canvas: Canvas, outline: Array, *, depth: float) -> None:
    """A long bone: cortical shell around marrow."""
    canvas.paint("bone", outline, depth=depth, bulge=0.16)
    canvas.paint("marrow", outline + 0.045, depth=0.75 * depth, within="bone", bulge=0.14)


DRAW: dict[str, Callable[[Canvas, Draws], Host]] = {
    "chest": draw_chest,
    "brain": draw_brain,
    "abdomen": draw_abdomen,
    "knee": draw_knee,
}

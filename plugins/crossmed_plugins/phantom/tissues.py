"""What each tissue looks like to each modality, as data.

Columns of `Tissue` (all dimensionless unless noted):

* ``mu``: X-ray attenuation relative to muscle
* ``hu``: CT number in Hounsfield units
* ``t1``, ``t2``: signal on T1- and T2-weighted MR, 0..1
* ``echo``: ultrasound backscatter, 0..1; ``attenuation``: loss per 1/32 of the picture's half-width
* ``uptake``: PET tracer concentration, 0..1

Lesion contrasts are deliberately above nature's, so that a small network trained for a minute sees them in
every modality. Their *sign* changes with the modality (a solid lesion is dark on T1 and bright on T2), which
is what makes composing modalities and anatomies hard.
"""

from typing import NamedTuple


class Tissue(NamedTuple):
    """Physical properties of one tissue; see the module's text for units."""

    mu: float
    hu: float
    t1: float
    t2: float
    echo: float
    attenuation: float
    uptake: float


TISSUES: dict[str, Tissue] = {
    "air": Tissue(0.00, -1000.0, 0.00, 0.00, 0.02, 0.00, 0.00),
    "lung": Tissue(0.30, -820.0, 0.10, 0.12, 0.50, 0.03, 0.12),
    "fat": Tissue(0.85, -100.0, 0.85, 0.65, 0.45, 0.02, 0.10),
    "muscle": Tissue(1.00, 55.0, 0.42, 0.28, 0.40, 0.02, 0.20),
    "liver": Tissue(1.05, 62.0, 0.55, 0.33, 0.52, 0.02, 0.42),
    "spleen": Tissue(1.05, 50.0, 0.45, 0.48, 0.48, 0.02, 0.32),
    "kidney": Tissue(1.05, 35.0, 0.47, 0.58, 0.36, 0.02, 0.50),
    "grey matter": Tissue(1.02, 40.0, 0.44, 0.56, 0.42, 0.02, 0.62),
    "white matter": Tissue(1.00, 28.0, 0.62, 0.40, 0.34, 0.02, 0.38),
    "csf": Tissue(0.98, 4.0, 0.12, 0.97, 0.04, 0.00, 0.05),
    "bone": Tissue(2.30, 700.0, 0.06, 0.05, 0.95, 0.18, 0.10),
    "marrow": Tissue(1.45, 45.0, 0.78, 0.46, 0.55, 0.05, 0.18),
    "cartilage": Tissue(1.06, 85.0, 0.50, 0.66, 0.20, 0.01, 0.12),
    "lesion solid": Tissue(1.75, 140.0, 0.28, 0.88, 0.10, 0.03, 1.00),
    "lesion rim": Tissue(1.95, 180.0, 0.98, 0.22, 0.92, 0.03, 1.00),
    "lesion core": Tissue(0.80, -10.0, 0.10, 0.98, 0.03, 0.00, 0.05),
    "lesion fluid": Tissue(1.75, 115.0, 0.10, 0.99, 0.02, 0.00, 0.85),
    "lesion infiltrate": Tissue(2.10, 150.0, 0.20, 0.86, 0.92, 0.03, 1.00),
}

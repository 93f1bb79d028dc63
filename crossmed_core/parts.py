"""Who trains, who validates, who is tested: one part per patient, whatever cells the patient's images lie in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from crossmed_core.seeding import digest
from crossmed_core.types import Part, Sample

SHARES: Mapping[Part, float] = {"train": 0.8, "val": 0.1, "test": 0.1}
"""Of the patients whom the source assigns to no part."""


def part_of(sample: Sample) -> Part:
    """Return the part that the source assigns, else one drawn by patient: 80 % train, 10 % val, 10 % test."""
    return sample.part if sample.part is not None else drawn_part(sample.patient)


def drawn_part(patient: str) -> Part:
    """Draw a part by a hash of the patient: the same whoever else is there. For sources with many patients."""
    percent = digest("part", patient) % 100
    return "train" if percent < 80 else "val" if percent < 90 else "test"


def stratified_parts(strata: Mapping[str, str]) -> dict[str, Part]:
    """Assign parts so that each stratum keeps its share of every part. For sources with few patients.

    Within a stratum the order is by a hash of the patient. A tenth of it, rounded, is tested and as many validate, but
    at least one each where there are three patients, and one is tested where there are two.

    Args:
        strata: Patient -> stratum (a grade, a class). Give all patients that the source lists, present or not, so that
            a partial download leaves nobody in another part.

    Example:
        >>> parts = stratified_parts({f"p{number}": "HGG" if number < 20 else "LGG" for number in range(25)})
        >>> [sorted(parts.values()).count(part) for part in ("train", "val", "test")]
        [19, 3, 3]
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for patient, stratum in strata.items():
        groups[stratum].append(patient)
    parts: dict[str, Part] = {}
    for members in groups.values():
        ordered = sorted(members, key=lambda patient: (digest("part", patient), patient))
        size = len(ordered)
        test = max(round(size * SHARES["test"]), min(1, size - 1))
        val = max(round(size * SHARES["val"]), min(1, max(0, size - 2)))
        for place, patient in enumerate(ordered):
            parts[patient] = "test" if place < test else "val" if place < test + val else "train"
    return parts

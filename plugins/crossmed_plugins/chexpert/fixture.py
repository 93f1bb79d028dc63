"""The fixture: synthetic rows and pixels in the form of each release, with the traps of the real tables.

What is known of a row is known here first and written twice: as the download says it, and as expected answers in
manifest.json. Nothing here asks the reader.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crossmed_core.parts import drawn_part
from crossmed_core.seeding import digest
from crossmed_plugins.chexpert import arrange
from crossmed_plugins.chexpert.labels import FINDINGS, NO_FINDING, SUPPORT_DEVICES

ASKED = tuple(finding for finding in FINDINGS if finding != SUPPORT_DEVICES)
SIZE = (60, 72)
SLOTS = {"train": 8, "val": 2, "test": 2}
"""Patients of train.csv per finding, by the part that their number falls into."""
FIRST = {"valid": 64541, "test": 64741}
ABOVE = {
    "Cardiomegaly": ("Enlarged Cardiomediastinum",),
    "Edema": ("Lung Opacity",),
    "Consolidation": ("Lung Opacity",),
    "Pneumonia": ("Consolidation", "Lung Opacity"),
    "Lung Lesion": ("Lung Opacity",),
    "Atelectasis": ("Lung Opacity",),
}
"""Radiologists who labelled the official sets also mark what a finding is a kind of."""


@dataclass(frozen=True)
class Picture:
    """One image of the fixture and all that is true of it.

    Attributes:
        split: "train", "valid" or "test".
        patient: "patient00001".
        study: "study1".
        view: "view1_frontal".
        values: Finding -> 1, 0 or -1; what is not there is blank.
        sex: As the table says.
        age: In years.
        projection: "AP", "PA", "LL" or "".
        shown: Findings that the pixels hint at, more than the values where the table says -1.
        size: Rows and columns.
        colour: Whether the JPEG has three channels.
        missing: Whether the file is left out on purpose.
        backslashes: Whether the table writes the path as Windows does.
    """

    split: str
    patient: str
    study: str
    view: str
    values: Mapping[str, int] = field(default_factory=dict)
    sex: str = "Female"
    age: int = 50
    projection: str = "AP"
    shown: tuple[str, ...] = ()
    size: tuple[int, int] = SIZE
    colour: bool = False
    missing: bool = False
    backslashes: bool = False

    @property
    def name(self) -> str:
        """Patient, study and view."""
        return f"{self.patient}-{self.study}-{self.view}"

    @property
    def lateral(self) -> bool:
        """Whether it is a lateral view."""
        return self.view.endswith("lateral")


def write(root: Path, *, seed: int, layout: str) -> None:
    """Write the fixture and its manifest.

    Args:
        root: An empty folder.
        seed: Names the synthetic patients' pixels and secondary labels.
        layout: "A" to "E".
    """
    pictures = invent(seed)
    arrange.write(root, pictures, seed=seed, layout=layout)
    text = json.dumps(manifest(pictures, seed=seed, layout=layout), indent=1)
    (root / "manifest.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def invent(seed: int) -> list[Picture]:
    """Return all images: the traps first, in an order that no table sorts, then patients for every finding."""
    return [*_traps(), *_train(seed), *_official(seed)]


def _traps() -> list[Picture]:
    def train(patient: int, study: int, view: str, values: Mapping[str, int], **facts: object) -> Picture:
        shown = tuple(finding for finding, value in values.items() if value == 1)
        return Picture("train", f"patient{patient:05d}", f"study{study}", view, values, shown=shown, **facts)  # type: ignore[arg-type]

    opacity = {"Lung Opacity": 1}
    second = {"Cardiomegaly": -1, **opacity, "Edema": -1, "Consolidation": 0, "Atelectasis": 1, "Pleural Effusion": -1}
    first = {"Cardiomegaly": 0, **opacity, "Edema": 1, "Consolidation": -1, "Pleural Effusion": 1}
    healthy = {NO_FINDING: 1, "Consolidation": 0, "Pleural Effusion": 0, SUPPORT_DEVICES: 1}
    return [
        train(1, 1, "view1_frontal", healthy, sex="Male", colour=True),
        # Two examinations that contradict each other, the later one first: labels must not be merged by patient.
        train(2, 2, "view1_frontal", second, sex="Male", age=61, projection="PA"),
        train(2, 1, "view1_frontal", first, sex="Male", age=60),
        train(2, 1, "view2_lateral", first, sex="Male", age=60, projection=""),
        train(3, 1, "view1_frontal", {}, sex="Unknown", age=0, projection="LL", size=(41, 33)),
        train(4, 1, "view1_frontal", {"Cardiomegaly": 1}, age=90, projection="PA", missing=True),
    ]


def _train(seed: int) -> list[Picture]:
    wanted = {part: [finding for finding in ASKED for _ in range(count)] for part, count in SLOTS.items()}
    pictures: list[Picture] = []
    number = 4
    while any(wanted.values()):
        number += 1
        patient = f"patient{number:05d}"
        waiting = wanted[drawn_part(patient)]
        if not waiting:
            continue
        main = waiting.pop(0)
        generator = np.random.default_rng(digest("chexpert fixture", seed, patient))
        values = {main: 1}
        others = [finding for finding in ASKED if finding not in (main, NO_FINDING, *ABOVE.get(main, ()))]
        chosen = [others[place] for place in generator.permutation(len(others))[:3]]
        values |= dict.fromkeys(chosen[:2], 0)
        if main != NO_FINDING and generator.random() < 0.4:
            values[chosen[2]] = -1
        if generator.random() < 0.3:
            values[SUPPORT_DEVICES] = 1
        shown = [finding for finding, value in values.items() if value == 1]
        shown += [finding for finding, value in values.items() if value == -1 and generator.random() < 0.5]
        facts = {"sex": str(generator.choice(["Male", "Female"])), "age": int(generator.integers(18, 91))}
        picture = Picture(
            "train", patient, "study1", "view1_frontal", values, shown=tuple(shown), projection="PA", **facts,  # type: ignore[arg-type]
            backslashes=not pictures,
        )  # fmt: skip
        pictures.append(picture)
        if number % 9 == 0:
            pictures.append(_beside(picture, "view2_lateral"))
    return pictures


def _official(seed: int) -> list[Picture]:
    pictures: list[Picture] = []
    for split, start in FIRST.items():
        for place, main in enumerate(ASKED):
            patient = f"patient{start + place}"
            generator = np.random.default_rng(digest("chexpert fixture", seed, patient))
            true = [main, *ABOVE.get(main, ())]
            if generator.random() < 0.3:
                true.append(SUPPORT_DEVICES)
            values = {finding: int(finding in true) for finding in FINDINGS}
            facts = {"sex": str(generator.choice(["Male", "Female"])), "age": int(generator.integers(18, 91))}
            picture = Picture(split, patient, "study1", "view1_frontal", values, shown=tuple(true), **facts)  # type: ignore[arg-type]
            pictures.append(picture)
            if split == "test" and place % 4 == 0:
                pictures += [_beside(picture, "view2_frontal"), _beside(picture, "view3_lateral")]
    return pictures


def _beside(picture: Picture, view: str) -> Picture:
    projection = "" if view.endswith("lateral") else picture.projection
    return Picture(
        picture.split, picture.patient, picture.study, view, picture.values, picture.sex, picture.age, projection,
        picture.shown, picture.size,
    )  # fmt: skip


def manifest(pictures: Sequence[Picture], *, seed: int, layout: str) -> dict[str, object]:
    """Return the expected answers.

    `labels` holds, for "policy/blank", one text per image with one sign per finding in the order of `findings`: "1"
    true, "0" false, "?" unknown. `ids` are the samples of the default options, `counts` how many other options give.
    """
    there = [picture for picture in pictures if not picture.missing]
    policies = {
        "ignore": dict.fromkeys(FINDINGS, "?"),
        "zeros": dict.fromkeys(FINDINGS, "0"),
        "ones": dict.fromkeys(FINDINGS, "1"),
        "paper": {finding: "1" if finding in ("Edema", "Atelectasis") else "?" for finding in FINDINGS},
    }
    labels: dict[str, dict[str, str]] = {}
    for policy, uncertain in policies.items():
        for blank, unmentioned in (("zero", "0"), ("ignore", "?")):
            labels[f"{policy}/{blank}"] = {
                picture.name: "".join(
                    unmentioned if finding not in picture.values
                    else uncertain[finding] if picture.values[finding] == -1
                    else str(picture.values[finding])
                    for finding in FINDINGS
                )
                for picture in pictures
            }  # fmt: skip

    def samples(policy: str, chosen: Iterable[str], lateral: bool = False) -> list[str]:
        of_image = labels[f"{policy}/zero"]
        return [
            f"chexpert-{picture.name}-{finding.lower().replace(' ', '-')}"
            for picture in there
            if lateral or not picture.lateral
            for finding in chosen
            if of_image[picture.name][FINDINGS.index(finding)] == "1"
        ]

    tasks = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
    frontal = [picture for picture in pictures if not picture.lateral]
    return {
        "dataset": "chexpert",
        "seed": seed,
        "layout": layout,
        "findings": list(FINDINGS),
        "images": {
            picture.name: {
                "split": picture.split,
                "values": [picture.values.get(finding) for finding in FINDINGS],
                "sex": picture.sex,
                "age": picture.age,
                "projection": picture.projection or None,
                "size": list(picture.size),
            }
            for picture in there
        },
        "labels": labels,
        "ids": sorted(samples("ignore", ASKED)),
        "counts": {
            "default": len(samples("ignore", ASKED)),
            "uncertain=zeros": len(samples("zeros", ASKED)),
            "uncertain=ones": len(samples("ones", ASKED)),
            "uncertain=paper": len(samples("paper", ASKED)),
            "labels=competition": len(samples("ignore", tasks)),
            "labels=all": len(samples("ignore", FINDINGS)),
            "views=all": len(samples("ignore", ASKED, lateral=True)),
        },
        "frontal images": sum(not picture.missing for picture in frontal),
        "patients": {
            split: sorted({picture.patient for picture in pictures if picture.split == split})
            for split in ("train", "valid", "test")
        },
        "unasked": [picture.name for picture in frontal if not picture.missing and 1 not in picture.values.values()],
        "skipped": {picture.name: "its file is missing" for picture in pictures if picture.missing},
    }

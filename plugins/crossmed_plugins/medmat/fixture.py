"""The counterfeit of a Med-MAT download: synthetic questions and pictures, the release's names, and its traps.

Four subsets can be trained on: 02, 03, 28 and 31. What a right reader must find is written to `manifest.json` from what
the forger knows, not by reading.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossmed_core.parts import drawn_part
from crossmed_core.types import Part
from crossmed_plugins.medmat.pictures import chest_xray, kidney_ct, lung_ct

_INSTRUCTION = "Answer with the option's letter from the given choices directly."
_LACKING = 25
"""Items of dataset 80, of which there is no image at all."""


@dataclass(frozen=True)
class _Series:
    """The sound items of one subset: one picture each, of one original dataset.

    Attributes:
        subset: Its number.
        original: Number of the original dataset.
        cell: The cell, as text.
        path: Image path with {label} and {number}; up to "/study" it names the patient, if it names one.
        labels: Answers; several findings are comma-joined.
        options: How many options the items have in turn.
        parts: How many train, validate and are tested per label, when parts are drawn by patient.
        draw: Paints the findings.
        questions: How it is asked.
    """

    subset: int
    original: int
    cell: str
    path: str
    labels: tuple[str, ...]
    options: tuple[int, ...]
    parts: tuple[int, int, int]
    draw: Callable[[Iterable[str], np.random.Generator], NDArray[np.uint8]]
    questions: tuple[str, ...]


_SERIES = (
    _Series(
        2, 2, "ct/kidney/kidney-disease",
        "med-mat/CT_Kindney_Dataset/CT-KIDNEY-DATASET/{label}/{label}- ({number}).jpg",
        ("Cyst", "Normal", "Stone", "Tumor"), (4,), (9, 2, 3), kidney_ct,
        ("Look at this CT of a kidney. What is wrong with it?", "Which state of the kidney does this CT slice show?"),
    ),
    _Series(
        3, 3, "ct/lung/covid", "med-mat/SARS-COV-2_Ct-Scan/{label}/{label} ({number}).png",
        ("COVID", "non-COVID"), (2,), (18, 3, 5), lung_ct,
        ("Here is a lung CT. Has the patient COVID-19?", "Tell from this lung CT whether it is COVID-19."),
    ),
    _Series(
        28, 55, "xray/lung/covid-pneumonia", "med-mat/Chest_X-ray_PD/{label}/image ({number}).jpg",
        ("Normal", "Pneumonia", "COVID-19"), (3,), (12, 2, 4), chest_xray,
        ("What does this lung X-ray point to?", "Which infection, if any, does this X-ray of the lung show?"),
    ),
    _Series(
        31, 77, "xray/chest/chest-multilabel",
        "med-mat/CheXpert-v1.0-small/train/patient{number:05d}/study1/view1_frontal.jpg",
        ("No Finding", "Cardiomegaly", "Pleural Effusion", "Cardiomegaly, Pleural Effusion", "Edema, Pneumothorax"),
        (2, 3, 4), (8, 2, 3), chest_xray,
        ("Which findings are on this chest X-ray?", "Name the findings of this X-ray of the chest."),
    ),
)  # fmt: skip


@dataclass
class _Expected:
    """What a right reader finds in one form of the questions."""

    samples: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """File that is not read -> a word of the reason."""
    rows: int = 0


def write(root: Path, *, seed: int) -> None:
    """Write the fixture.

    Args:
        root: An empty folder.
        seed: Decides pixels, names, options and orders; same seed, same bytes.
    """
    expected = {"subsets": _Expected(), "original": _Expected()}
    items: dict[int, list[dict[str, Any]]] = {}
    for series in _SERIES:
        rng = np.random.default_rng([seed, series.subset])
        items[series.subset] = list(_sound(root, series, rng, expected["subsets"]))
        # The same questions again, as the release has them: its original files number them anew.
        if series.original in (55, 77):
            again = [{**item, "id": 5 + place} for place, item in enumerate(items[series.subset])]
            name = f"ori--{series.original}-train.json"
            for item in again:
                _expect(expected["original"], f"d{series.original:03d}", name, series, item)
            _write_json(root / "Original_Medical_Datasets" / name, again)
    rng = np.random.default_rng([seed, 99])
    items[31] += _traps(root, rng, items[31], expected["subsets"])
    for number, of_subset in items.items():
        _write_json(root / "Aggregated_Subsets" / f"Subset--{number:02d}-train.json", of_subset)
    _unreadable(root, items[28], expected)
    content = {
        "seed": seed,
        **{
            form: {"rows": one.rows, "samples": one.samples, "refused": one.refused, "files": one.files}
            for form, one in expected.items()
        },
    }
    _write_json(root / "manifest.json", content)


def _sound(root: Path, series: _Series, rng: np.random.Generator, expected: _Expected) -> Iterator[dict[str, Any]]:
    """Draw a series' pictures; yield its items in a random order, numbered from 0."""
    drawn: list[tuple[str, str]] = []
    number = int(rng.integers(1, 50))
    for label in series.labels:
        left = dict(zip(("train", "val", "test"), series.parts, strict=True))
        while any(left.values()):
            number += 1
            image = series.path.format(label=label, number=number)
            part = _part(image) or drawn_part(image)
            if left[part]:
                left[part] -= 1
                drawn.append((label, image))
                _write_image(root / image, series.draw(label.split(", "), rng))
    for place, one in enumerate(rng.permutation(len(drawn))):
        label, image = drawn[one]
        item = _item(place, image, series, label, series.options[place % len(series.options)], rng)
        name = f"Subset--{series.subset:02d}-train.json"
        _expect(expected, f"s{series.subset:02d}", name, series, item)
        yield item


def _item(
    number: int, image: str, series: _Series, label: str, options: int, rng: np.random.Generator
) -> dict[str, Any]:
    others = [one for one in series.labels if one != label]
    wrong = [others[one] for one in rng.permutation(len(others))[: options - 1]]
    shown = [([label, *wrong])[one] for one in rng.permutation(options)]
    question = series.questions[rng.integers(len(series.questions))]
    return _asked(number, image, question, label, shown, shown.index(label), series.original)


def _asked(
    number: int, image: str, question: str, answer: str, options: list[str], place: int, original: int
) -> dict[str, Any]:
    """Return an object with the release's eight keys, in its order."""
    lines = [f"{letter}: {option}" for letter, option in zip("ABCDEFGH", options, strict=False)]
    return {
        "id": number,
        "caption": answer,
        "image": image,
        "Question": question,
        "Answer": answer,
        "Question-choice": "\n".join([question, *lines, _INSTRUCTION]),
        "Answer-choice": "ABCDEFGH"[place],
        "data-no": str(original),
    }


def _expect(expected: _Expected, group: str, file: str, series: _Series, item: dict[str, Any]) -> None:
    options = [line[3:] for line in item["Question-choice"].split("\n") if line[1:3] == ": "]
    label = options["ABCD".index(item["Answer-choice"])]
    true = set(label.split(", "))
    expected.rows += 1
    expected.samples[f"medmat-{group}-{item['id']:06d}"] = {
        "file": file,
        "cell": series.cell,
        "image": item["image"],
        "patient": f"chexpert:{_patient(item['image'])}" if _patient(item["image"]) else item["image"],
        "part": _part(item["image"]),
        "patient_known": "/patient" in item["image"],
        "question": item["Question"],
        "options": options,
        "label": label,
        "data_no": int(item["data-no"]),
        "multi_label": len(true) > 1,
        "true_in_distractors": sum(bool(true & set(one.split(", "))) for one in options if one != label),
    }


def _traps(
    root: Path, rng: np.random.Generator, sound: list[dict[str, Any]], expected: _Expected
) -> list[dict[str, Any]]:
    """Return items of subset 31 of every troublesome kind, each with what is to become of it."""
    series = _SERIES[3]
    question = series.questions[0]
    two = ["No Finding", "Edema"]
    numbers = count(sound[-1]["id"] + 1)
    traps: list[Any] = []

    def drawn(image: str, label: str) -> str:
        _write_image(root / image, chest_xray(label.split(", "), rng))
        return image

    def here(options: list[str], place: int, **changed: Any) -> dict[str, Any]:
        number = next(numbers)
        image = drawn(f"med-mat/CheXpert-v1.0-small/view1_frontal ({number}).jpg", options[place])
        return {**_asked(number, image, question, options[place], options, place, 77), **changed}

    def good(item: dict[str, Any]) -> None:
        traps.append(item)
        _expect(expected, "s31", "Subset--31-train.json", series, item)

    def bad(item: Any, kind: str) -> None:
        traps.append(item)
        expected.rows += 1
        place = len(sound) + len(traps)
        number = item.get("id") if isinstance(item, dict) else None
        expected.refused.append({"file": "Subset--31-train.json", "item": place, "id": number, "kind": kind})

    # Good ones that a careless reader loses or bends.
    good(here(two, 0))  # a flat name with a space and brackets: the path names no patient
    good(here(["Edema", "Pleural Effusion"], 1, Answer="pleural  effusion "))  # other case and spaces
    good(here(["Edema, Cardiomegaly", "Cardiomegaly", "No Finding"], 0))  # a distractor is partly true
    second = drawn(sound[0]["image"].replace("study1", "study2"), "No Finding")  # one patient, two studies
    good(_asked(next(numbers), second, question, "No Finding", two, 0, 77))
    official = drawn("med-mat/CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg", "Edema")
    good(_asked(next(numbers), official, question, "Edema", two, 1, 77))  # CheXpert tests this patient
    # Bad ones.
    bad(here(["Edema", "No Finding"], 0, Answer="No Finding"), "label disagreements")
    bad({**here(two, 1), "id": sound[1]["id"]}, "repeated ids")
    bad({key: value for key, value in here(two, 1).items() if key != "Answer-choice"}, "malformed rows")
    bad("not an object", "malformed rows")
    bad(here(["Edema"], 0), "malformed rows")
    bad(here(["Edema", "No Finding", "Mass", "Nodule", "Hernia"], 4), "malformed rows")
    bad(here(two, 0, **{"Answer-choice": "D"}), "malformed rows")
    bad(here(two, 0, image="med-mat/../../outside.jpg"), "malformed rows")
    bad(here(["Edema, Mass", "Mass, Edema"], 0), "ambiguous options")
    bad(here(two, 0, **{"data-no": "44"}), "rows of another cell")  # Table 17 has brain MRI among microscopy, too
    bad(here(two, 0, **{"data-no": "500"}), "rows of another cell")
    bad(here(two, 1, image="med-mat/CheXpert-v1.0-small/view1_frontal (0).jpg"), "rows without their image")
    for one in range(_LACKING):
        image = f"med-mat/ChestXray-NIHCC/images/{one:08d}_000.png"
        bad(_asked(next(numbers), image, question, "Edema", two, 1, 80), "rows without their image")
    return traps


def _unreadable(root: Path, some: list[dict[str, Any]], expected: dict[str, _Expected]) -> None:
    """Write files that give no items, with a word of the reason for each."""
    text = json.dumps(some)
    of_subsets = {
        "Subset--08-train.json": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
        "Subset--25-train.json": (json.dumps({"data": some}), "no list"),
        "Subset--30-train.json": (text[: len(text) // 2], "no JSON"),
        "Subset--38-train.json": (text, "01 to 37"),
        "Subset--28-train (1).json": (text, "named"),
    }
    for name, (content, word) in of_subsets.items():
        _write(root / "Aggregated_Subsets" / name, content.encode())
        expected["subsets"].files[f"Aggregated_Subsets/{name}"] = word
    # LC25000 is in the list of datasets, but in no subset of Table 17.
    _write_json(root / "Original_Medical_Datasets" / "ori--43-train.json", [{**some[0], "data-no": "43"}])
    expected["original"].files["Original_Medical_Datasets/ori--43-train.json"] = "no subset"
    for junk in ("Aggregated_Subsets/._Subset--31-train.json", "Aggregated_Subsets/.DS_Store", "med-mat/.DS_Store"):
        _write(root / junk, b"\x00\x05\x16\x07junk")


def _patient(image: str) -> str:
    """Return "patient00002", or "" where the path names nobody."""
    return image.partition("/study")[0].rpartition("/")[2] if "/patient" in image else ""


def _part(image: str) -> Part | None:
    """Return the part in which CheXpert's own reader has the patient, None where the path names nobody."""
    patient = _patient(image)
    return None if not patient else "test" if "/valid/" in image else drawn_part(patient)


def _write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    if path.suffix == ".png":
        Image.fromarray(pixels).save(buffer, format="PNG")
    else:
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=92)
    _write(path, buffer.getvalue())


def _write_json(path: Path, content: Any) -> None:
    _write(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

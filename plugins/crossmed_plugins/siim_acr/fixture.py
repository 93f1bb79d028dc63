"""The counterfeit download: every trap of the real layouts, enough patients to train on, and the answers.

The three layouts hold the same images under the same ids. manifest.json is made of what the generator drew, without the
reader.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossmed_core.errors import CrossmedError, suggest
from crossmed_core.parts import drawn_part
from crossmed_core.types import Part
from crossmed_plugins.siim_acr import rle
from crossmed_plugins.siim_acr.drawing import Kind, Picture, chest, dicom, encoded, grey, uid

LAYOUTS = ("nested", "flat", "png")
PER_LABEL: dict[Part, int] = {"train": 32, "val": 8, "test": 12}
"""Images to train on, beside the traps."""
UNLISTED = "ID_0a1b2c3d4"
"""A test image of stage 2."""
TWICE = 12
"""Place of the case whose file lies there twice."""


@dataclass(frozen=True)
class Case:
    """One image of the counterfeit.

    Attributes:
        numbers: The end of its UIDs.
        patient: PatientID; "" = the file has none.
        picture: What it shows.
        mask: The region.
        rows: EncodedPixels of its rows.
        kind: How its DICOM file is written.
        stage: The folder it lies in.
        trap: Why it yields no sample, or "".
        facts: PatientAge, PatientSex and ViewPosition as they stand in the file.
    """

    numbers: str
    patient: str
    picture: Picture
    mask: NDArray[np.bool_]
    rows: tuple[str, ...]
    kind: Kind = "jpeg"
    stage: str = "train"
    trap: str = ""
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def image(self) -> str:
        """ImageId."""
        return uid(4, self.numbers)

    @property
    def label(self) -> int:
        """has_pneumo."""
        return int(any(text not in ("-1", "") for text in self.rows))


def write(root: Path, *, seed: int, layout: str) -> None:
    """Write the counterfeit; see `SiimAcr.write_fixture`."""
    if layout not in LAYOUTS:
        hint = suggest(str(layout), LAYOUTS) or f"Known: {', '.join(LAYOUTS)}."
        raise CrossmedError(f"Dataset 'siim-acr' has no fixture layout {layout!r}.", hint=hint)
    cases = list(_cases(np.random.default_rng(seed)))
    manifest = _write_png(root, cases) if layout == "png" else _write_dicom(root, cases, flat=layout == "flat")
    good = [case for case in cases if not case.trap]
    manifest |= {
        "layout": layout,
        "samples": [_answer(case, layout) for case in sorted(good, key=lambda case: case.image)],
        "with_region": sorted(f"siim-acr-{case.image}" for case in good if case.mask.any()),
    }
    _put(root / "manifest.json", json.dumps(manifest, indent=1).encode())


def _cases(rng: np.random.Generator) -> Iterator[Case]:
    def ids(part: Part) -> tuple[str, str]:
        """Draw a UID and a patient that fall into the part, whichever of them a layout divides by."""
        while drawn_part(patient := str(uuid.UUID(bytes=rng.bytes(16), version=4))) != part:
            pass
        return numbers(part), patient

    def numbers(part: Part) -> str:
        while True:
            drawn = f"{rng.integers(1000, 9999)}.{rng.integers(1517874000, 1517876000)}.{rng.integers(100000, 999999)}"
            if drawn_part(uid(4, drawn)) == part:
                return drawn

    def facts() -> dict[str, str]:
        return {
            "PatientAge": str(rng.integers(18, 90)),
            "PatientSex": str(rng.choice(["F", "M"])),
            "ViewPosition": str(rng.choice(["AP", "PA"])),
        }

    def special(air: bool, rows: tuple[str, ...], *, trap: str = "") -> Case:
        picture, mask = chest(rng, 48, 40, air=air)
        return Case(*ids("train"), picture, mask, rows, trap=trap, facts=facts() | {"PatientAge": "62"})

    # A to E of the specification: two regions of known size, a row without a file, a file without a row.
    yield special(False, ("-1",))
    for last_row, rows in ((26, ("70 5 43 5",)), (29, ("70 5 43 5", "72 6"))):
        case = special(False, rows)
        case.mask[22 : last_row + 1, 1] = case.mask[22:27, 2] = True
        yield replace(case, kind="jpeg" if last_row == 26 else "monochrome1")
    yield special(False, ("-1",), trap="missing")
    yield replace(special(False, (), trap="unlabelled"), kind="voi-lut", stage="test")
    # What else goes wrong.
    yield special(False, ("-1",), trap="truncated")
    yield special(True, ("70 5 1900 5",), trap="past the end")
    yield special(True, ("70 5 43",), trap="odd count")
    yield special(True, ("-1", "70 5"), trap="contradiction")
    yield special(False, ("",), trap="blank")
    # What must not: a large file, an age as the standard wants it and no PatientID, two files of one name.
    picture, mask = chest(rng, 1024, 1024, air=True, noise=0.0)
    yield Case(*ids("train"), picture, mask, (rle.encode(mask),), facts=facts())
    yield replace(special(False, ("-1",)), patient="", facts=facts() | {"PatientAge": "062Y"})
    yield special(False, ("-1",))
    kinds: tuple[Kind, ...] = ("jpeg", "jpeg", "monochrome1", "voi-lut")
    for part, count in PER_LABEL.items():
        for number in range(2 * count):
            picture, mask = chest(rng, 64, 56, air=number % 2 == 1)
            half = mask.copy()
            half[:, : 56 // 2] = False
            # Every third region is given in two rows that overlap.
            texts = (rle.encode(mask), rle.encode(half)) if number % 6 == 5 and half.any() else (rle.encode(mask),)
            kind = kinds[number // 2 % 4]  # the same kinds for both labels
            stage = "test" if number % 5 == 4 else "train"
            case = Case(*ids(part), picture, mask, texts, kind=kind, stage=stage, facts=facts())
            yield case
            if number == 0:  # the same patient again
                picture, mask = chest(rng, 64, 56, air=True)
                yield replace(case, numbers=numbers(part), picture=picture, mask=mask, rows=(rle.encode(mask),))


def _write_dicom(root: Path, cases: list[Case], *, flat: bool) -> dict[str, object]:
    base = root if flat else root / "pneumothorax"
    table = base / ("stage_2_train.csv" if flat else "train-rle.csv")
    shown = table.relative_to(root).as_posix()
    lines = ["ImageId,EncodedPixels" if flat else "ImageId, EncodedPixels"]
    skipped: list[dict[str, str]] = []
    for place, case in enumerate(cases):
        name = UNLISTED if flat and case.trap == "unlabelled" else case.image
        tree = "" if flat else f"{uid(2, case.numbers)}/{uid(3, case.numbers)}/"
        folder = base / ("stage_2_images" if flat else f"dicom-images-{case.stage}")
        path = folder / f"{tree}{name}.dcm"
        numbers = [str(len(lines) + 1 + number) for number in range(len(case.rows))]
        lines += [f"{case.image},{'' if flat else ' '}{text}" for text in case.rows]
        row = f"{shown} row{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
        file = path.relative_to(root).as_posix()
        if case.trap:
            where = file if case.trap in ("unlabelled", "truncated") else row
            skipped.append({"where": where, "why": case.trap})
        if case.trap == "blank":
            skipped.append({"where": file, "why": "unlabelled"})
        if case.trap == "missing":
            continue
        ident = {"PatientID": case.patient, "PatientName": case.patient} if case.patient else {}
        elements = {**case.facts, **ident, "PixelSpacing": [0.168, 0.168], "StudyDate": "19010101"}
        content = dicom(case.picture, case.kind, case.numbers, elements)
        _put(path, content[: 500 if case.trap == "truncated" else None])
        if place == 0:
            _put(path.with_name(f"._{path.name}"), b"\0\5\26\7 not a DICOM file")
        if place == TWICE:
            second = folder.with_name("stage_2_images" if flat else "dicom-images-test") / "copy" / path.name
            _put(second, dicom(1 - case.picture, "jpeg", case.numbers, elements))
            skipped.append({"where": second.relative_to(root).as_posix(), "why": "duplicate"})
    if flat:  # no labels, though they look like some
        _put(base / "stage_2_sample_submission.csv", f"ImageId,EncodedPixels\n{UNLISTED},-1\n".encode())
    _put(base / ".DS_Store", b"\0\0\0\1Bud1")
    _put(base / f"._{table.name}", b"\0\5\26\7 not a table")
    _put(table, ("\n".join(lines) + "\n").encode())
    rows = [case for case in cases for text in case.rows if text]
    counts = _counts(cases) | {
        "rows labelled": len(rows),
        "rows resolved": sum(not case.trap for case in rows),
    }
    return {"counts": counts, "skipped": skipped}


def _write_png(root: Path, cases: list[Case]) -> dict[str, object]:
    base = root / "siim-acr-pneumothorax"
    header = "new_filename,ImageId,has_pneumo"
    tables = {stage: [header] for stage in ("train", "test")}
    skipped: list[dict[str, str]] = []
    for place, case in enumerate(cases):
        lines = tables[case.stage]
        name = f"{place}_{case.stage}_{case.label}_.png"
        image, mask = (base / folder / name for folder in ("png_images", "png_masks"))
        # The traps of run lengths have their likes among files.
        label = {"contradiction": "0", "blank": ""}.get(case.trap, str(case.label))
        row = f"{base.name}/stage_1_{case.stage}_images.csv row {len(lines) + 1}"
        file = image.relative_to(root).as_posix()
        if case.rows:
            lines.append(f"{name},{case.image},{label}")
        if case.trap:
            where = {
                "unlabelled": file,
                "truncated": file,
                "past the end": mask.relative_to(root).as_posix(),
            }.get(case.trap, row)
            skipped.append({"where": where, "why": case.trap})
        if case.trap == "blank":
            skipped.append({"where": file, "why": "unlabelled"})
        if case.trap == "missing":
            continue
        content = encoded(grey(case.picture), "PNG")
        _put(image, content[: 20 if case.trap == "truncated" else None])
        if case.trap != "odd count":
            region = case.mask.T if case.trap == "past the end" else case.mask
            _put(mask, encoded(region.astype(np.uint8) * 255, "PNG"))
        if place == 0:
            _put(image.with_name(f"._{name}"), b"\0\5\26\7 not an image")
        if place == TWICE:
            second = image.parent / "copy" / name
            _put(second, encoded(grey(1 - case.picture), "PNG"))
            skipped.append({"where": second.relative_to(root).as_posix(), "why": "duplicate"})
    for stage, lines in tables.items():
        _put(base / f"stage_1_{stage}_images.csv", ("\n".join(lines) + "\n").encode())
    rows = [case for case in cases if case.rows and case.trap != "blank"]
    counts = _counts(cases) | {"rows labelled": len(rows), "rows resolved": sum(not case.trap for case in rows)}
    return {"counts": counts, "skipped": skipped}


def _counts(cases: list[Case]) -> dict[str, int]:
    return {
        "images found": sum(case.trap != "missing" for case in cases),
        "images unlabelled": sum(case.trap in ("unlabelled", "blank") for case in cases),
    }


def _answer(case: Case, layout: str) -> dict[str, object]:
    png = layout == "png"
    return {
        "id": f"siim-acr-{case.image}",
        "image": case.image,
        "patient": case.image if png or not case.patient else case.patient,
        "label": "pneumothorax" if case.mask.any() else "no pneumothorax",
        "size": list(case.mask.shape),
        "mask_pixels": int(case.mask.sum()),
        "mask_sha256": hashlib.sha256(np.packbits(case.mask).tobytes()).hexdigest(),
        "rows": 1 if png else len(case.rows),
        "stage": "stage 2" if layout == "flat" else f"stage 1 {case.stage}",
        "age": None if png else int(case.facts["PatientAge"].removesuffix("Y")),
        "sex": None if png else case.facts["PatientSex"],
        "view": None if png else case.facts["ViewPosition"],
        "kind": case.kind,
    }


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

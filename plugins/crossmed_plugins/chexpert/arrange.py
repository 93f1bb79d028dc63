"""Writes the fixture's images and tables as each release arranges them (layouts A to E)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossmed_core.seeding import digest
from crossmed_plugins.chexpert.labels import FINDINGS
from crossmed_plugins.chexpert.pixels import draw

if TYPE_CHECKING:
    from crossmed_plugins.chexpert.fixture import Picture

HEADER = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]
BATCHES = tuple(f"CheXpert-v1.0 batch {number + 1} (train {number})" for number in (1, 2, 3))
FIRST_BATCH = "CheXpert-v1.0 batch 1 (validate & csv)"
_SECTIONS = (
    "narrative", "clinical_history", "history", "comparison", "technique", "procedure_comments", "findings",
    "impression", "end_of_impression", "summary", "accession_number",
)  # fmt: skip
PLUS_HEADER = (
    "path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order",
    "report", *(f"section_{name}" for name in _SECTIONS), "age", "sex", "race", "ethnicity", "interpreter_needed",
    "insurance_type", "recent_bmi", "deceased", "split",
)  # fmt: skip
DICOM_PATIENT = "patient00002"
"""Whose images layout E ships as DICOM only."""


def write(root: Path, pictures: Sequence[Picture], *, seed: int, layout: str) -> None:
    """Write images and label tables.

    Args:
        root: An empty folder.
        pictures: What to write, in the order of the tables.
        seed: Seed of the pixels.
        layout: "A" to "E".
    """
    arrangement: dict[str, Callable[[Path, Sequence[Picture], Store], None]] = {
        "A": _small, "B": _batches, "C": _kaggle, "D": _chexlocalize, "E": _plus,
    }  # fmt: skip
    arrangement[layout](root, pictures, Store(seed))


class Store:
    """Draws images and writes them once per place.

    Args:
        seed: Seed of the pixels.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def put(self, folder: Path, picture: Picture, kind: str = "jpg") -> None:
        """Write a picture below the folder of its split; of a missing one, only the folder.

        Args:
            folder: The folder of patients.
            picture: What to write.
            kind: "jpg", "png" or "dcm".
        """
        path = folder / picture.patient / picture.study / f"{picture.view}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if picture.missing:
            return
        generator = np.random.default_rng(digest("chexpert pixels", self.seed, picture.name))
        pixels = draw(generator, picture.shown, *picture.size)
        if kind == "dcm":
            path.write_bytes(_dicom(pixels, f"{self.seed}.{picture.name}"))
            return
        image = Image.fromarray(pixels).convert("RGB" if picture.colour else "L")
        buffer = io.BytesIO()
        image.save(buffer, **({"format": "PNG"} if kind == "png" else {"format": "JPEG", "quality": 90}))
        path.write_bytes(buffer.getvalue())


def _small(root: Path, pictures: Sequence[Picture], store: Store) -> None:
    house = root / "CheXpert-v1.0-small"
    for picture in pictures:
        store.put(house / picture.split, picture)
    _tables(house, pictures, "CheXpert-v1.0-small")
    _junk(house / "test" / "patient64741" / "study1")


def _batches(root: Path, pictures: Sequence[Picture], store: Store) -> None:
    house = root / "chexpertchestxrays-u20210408"
    patients = sorted({picture.patient for picture in pictures if picture.split == "train"})
    for picture in pictures:
        if picture.split == "train":
            batch = BATCHES[patients.index(picture.patient) * len(BATCHES) // len(patients)]
            store.put(house / batch, picture)  # the patients lie directly in the batch
        else:
            store.put((house / FIRST_BATCH if picture.split == "valid" else house) / picture.split, picture)
    _tables(house / FIRST_BATCH, pictures, "CheXpert-v1.0", tests=house / "test")
    # Labels of other labellers lie beside the official ones; reading them too would turn every label round.
    train = [picture for picture in pictures if picture.split == "train"]
    for name in ("train_cheXbert.csv", "train_visualCheXbert.csv"):
        rows = [[_path("CheXpert-v1.0/train", one), "", "", "", "", *(["1.0"] * len(FINDINGS))] for one in train]
        _csv(house / FIRST_BATCH / name, [HEADER, *rows])


def _kaggle(root: Path, pictures: Sequence[Picture], store: Store) -> None:
    for picture in pictures:
        store.put(root / picture.split, picture)
    _tables(root, pictures, "CheXpert-v1.0-small")


def _chexlocalize(root: Path, pictures: Sequence[Picture], store: Store) -> None:
    """CheXlocalize's val and test, unpacked over a folder that holds the training images."""
    house = root / "CheXpert"
    for picture in pictures:
        store.put(house / {"valid": "val"}.get(picture.split, picture.split), picture)
    parts = {split: [one for one in pictures if one.split == split] for split in ("train", "valid", "test")}
    _csv(house / "train.csv", [HEADER, *(_row("CheXpert-v1.0/train", one) for one in parts["train"])])
    columns = ["Path", *FINDINGS]
    rows = [[_path("CheXpert-v1.0/valid", one), *_values(one, ".0")] for one in parts["valid"]]
    _csv(house / "val_labels.csv", [columns, *rows])
    # Of the test labels only the names of the columns are to be trusted, not their order.
    turned = ["Path", *reversed(FINDINGS)]
    rows = [[_path("test", one), *reversed(_values(one, ".0"))] for one in parts["test"]]
    _csv(house / "test_labels.csv", [turned, *rows])


def _plus(root: Path, pictures: Sequence[Picture], store: Store) -> None:
    table: list[list[str]] = [["", *PLUS_HEADER]]
    lines: list[dict[str, object]] = []
    for picture in pictures:
        kind = "dcm" if picture.patient == DICOM_PATIENT else "png"
        shelf = root / ("DICOM" if kind == "dcm" else "PNG")
        store.put(shelf / shelf.name / picture.split, picture, kind)
        if picture.split == "test":
            continue  # not part of CheXpert Plus; its labels lie beside it
        path = _path(picture.split, picture, plain=True)
        facts = {
            "path_to_image": path, "path_to_dcm": path.replace(".jpg", ".dcm"), "ap_pa": picture.projection,
            "frontal_lateral": "Lateral" if picture.lateral else "Frontal", "deid_patient_id": picture.patient,
            "patient_report_date_order": picture.study.removeprefix("study"), "age": str(picture.age),
            "report": "NARRATIVE:\nA synthetic report,\nnot of a patient.", "sex": picture.sex, "split": picture.split,
        }  # fmt: skip
        table.append([str(len(table) - 1), *(facts.get(column, "") for column in PLUS_HEADER)])
        values = {name: None if name not in picture.values else float(picture.values[name]) for name in FINDINGS}
        lines.append({"path_to_image": path, **values})
    table.append(table[1])  # the released table has more rows than images
    _csv(root / "df_chexpert_plus_240401.csv", table)
    _json_lines(root / "chexbert_labels" / "report_fixed.json", lines)
    for name in ("findings_fixed.json", "impression_fixed.json"):  # most reports lack these sections
        blank = [{"path_to_image": line["path_to_image"], **dict.fromkeys(FINDINGS)} for line in lines]
        _json_lines(root / "chexbert_labels" / name, blank)
    _ground_truth(root / "test" / "groundtruth.csv", pictures)


def _tables(house: Path, pictures: Sequence[Picture], release: str, tests: Path | None = None) -> None:
    for split, prefix in (("train", f"{release}/train"), ("valid", "CheXpert-v1.0/valid")):
        rows = [_row(prefix, picture) for picture in pictures if picture.split == split]
        _csv(house / f"{split}.csv", [HEADER, *rows])
    _ground_truth((tests or house / "test") / "groundtruth.csv", pictures)


def _ground_truth(path: Path, pictures: Sequence[Picture]) -> None:
    studies = {
        f"CheXpert-v1.0/test/{one.patient}/{one.study}": _values(one, "") for one in pictures if one.split == "test"
    }
    _csv(path, [["Study", *FINDINGS], *([study, *values] for study, values in studies.items())])


def _row(prefix: str, picture: Picture) -> list[str]:
    view = "Lateral" if picture.lateral else "Frontal"
    facts = [picture.sex, str(picture.age), view, picture.projection]
    return [_path(prefix, picture), *facts, *_values(picture, ".0")]


def _path(prefix: str, picture: Picture, *, plain: bool = False) -> str:
    path = f"{prefix}/{picture.patient}/{picture.study}/{picture.view}.jpg"
    return path.replace("/", "\\") if picture.backslashes and not plain else path


def _values(picture: Picture, decimals: str) -> list[str]:
    return [f"{picture.values[name]}{decimals}" if name in picture.values else "" for name in FINDINGS]


def _csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    _text(path, buffer.getvalue())


def _json_lines(path: Path, lines: Iterable[dict[str, object]]) -> None:
    _text(path, "".join(json.dumps(line) + "\n" for line in lines))


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def _junk(folder: Path) -> None:
    """Leave what macOS leaves: a shadow with the name of an image, and a folder's settings."""
    for name in ("._view1_frontal.jpg", ".DS_Store"):
        (folder / name).write_bytes(b"\x00\x05\x16\x07 not an image")


def _dicom(pixels: NDArray[np.uint8], name: str) -> bytes:
    """Return an uncompressed DICOM file of 8-bit grey pixels, its UIDs derived from `name`."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = generate_uid(entropy_srcs=["chexpert fixture", name])
    data.Modality, data.PatientID = "DX", "synthetic"
    data.PhotometricInterpretation, data.SamplesPerPixel = "MONOCHROME2", 1
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.WindowCenter, data.WindowWidth = "128", "256"
    data.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()

"""The SIIM-ACR reader against its counterfeit's own answers, brute force, pydicom's lookups and pycocotools."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import pickle
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_voi, apply_windowing

from crossmed_core.contracts import KnowsItsDownload, LocatesItself, ReadsInUnits
from crossmed_core.errors import CrossmedError, DownloadNotFoundError, UnreadableImageError
from crossmed_core.images import encode_mask, read_image, read_mask
from crossmed_core.parts import part_of
from crossmed_core.questions import make_item
from crossmed_core.types import MAT, Counted, ImageRef, Sample, Skipped
from crossmed_plugins.siim_acr import dataset, published, rle
from crossmed_plugins.siim_acr.dataset import NEGATIVE, POSITIVE, SiimAcr, Unit, years

LAYOUTS = ("nested", "flat", "png")
DICOM = ("nested", "flat")
CELL = MAT("xray", "chest", "segmentation")

REASONS = {
    "missing": "its (DICOM )?file is missing",
    "unlabelled": "no label in the table",
    "truncated": "truncated",
    "past the end": "past|end at pixel 1980, but the image has 1920|40 x 48 pixels, its image 48 x 40",
    "odd count": "3 numbers.*even count|region is missing from png_masks",
    "contradiction": "contradict|has_pneumo is 0, but the mask is not empty",
    "blank": "EncodedPixels is empty|has_pneumo is ''",
    "duplicate": "has the name of .*, which is the one that is read",
}


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One counterfeit per layout; never changed by a test."""
    roots = {layout: tmp_path_factory.mktemp(layout) for layout in LAYOUTS}
    for layout, root in roots.items():
        SiimAcr().write_fixture(root, layout=layout)
    return roots


@pytest.fixture
def copy(downloads: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A counterfeit of one's own."""
    return lambda layout: Path(shutil.copytree(downloads[layout], tmp_path / layout))


def samples_of(root: Path, **options: Any) -> list[Sample]:
    return [one for one in SiimAcr(**options).samples(root) if isinstance(one, Sample)]


def skipped_of(root: Path) -> list[Skipped]:
    return [one for one in SiimAcr().samples(root) if isinstance(one, Skipped)]


def counts_of(root: Path, **options: Any) -> Counter[str]:
    counts: Counter[str] = Counter()
    for one in SiimAcr(**options).samples(root):
        if isinstance(one, Counted):
            counts[one.what] += one.n
    return counts


def manifest_of(root: Path) -> Any:
    return json.loads((root / "manifest.json").read_text())


def ids_of(root: Path) -> list[str]:
    """The ids that a counterfeit's manifest promises."""
    return [answer["id"] for answer in manifest_of(root)["samples"]]


def found_in(root: Path) -> int:
    """How many images the manifest says lie there."""
    return int(manifest_of(root)["counts"]["images found"])


def mask_of(sample: Sample) -> np.ndarray:
    assert sample.mask is not None
    return read_mask(sample.mask)


def answers(samples: Iterable[Sample]) -> dict[str, tuple[str | None, object]]:
    return {sample.id: (sample.label, sample.mask) for sample in samples}


def tree(root: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


# --- run lengths -----------------------------------------------------------------------------------------------------


def brute_decode(strings: list[str], height: int, width: int) -> np.ndarray:
    """Pixel by pixel, as the competition's mask_functions.py does it, transposed at the end."""
    flat = [False] * (height * width)
    for text in strings:
        numbers = [] if text.strip() in ("-1", "") else [int(word) for word in text.split()]
        place = 0
        for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
            place += gap
            for pixel in range(place, place + length):
                flat[pixel] = True
            place += length
    return np.array(flat).reshape(width, height).T


def brute_encode(mask: np.ndarray) -> str:
    words, gap, run = [], 0, 0
    for column in range(mask.shape[1]):
        for row in range(mask.shape[0]):
            if mask[row, column]:
                run += 1
                continue
            if run:
                words += [gap, run]
                gap, run = 0, 0
            gap += 1
    words += [gap, run] if run else []
    return " ".join(map(str, words)) or "-1"


shapes = st.tuples(st.integers(1, 13), st.integers(1, 19))
several_masks = shapes.flatmap(lambda shape: st.lists(arrays(bool, shape), min_size=1, max_size=4))


@given(several_masks)
def test_decode_and_encode_agree_with_brute_force(masks: list[np.ndarray]) -> None:
    height, width = masks[0].shape
    strings = [brute_encode(mask) for mask in masks]
    union = np.logical_or.reduce(masks)
    assert (brute_decode(strings, height, width) == union).all()  # the references agree with each other
    decoded = rle.decode(strings, height, width)
    assert decoded.shape == (height, width) and (decoded == union).all()
    assert [rle.encode(mask) for mask in masks] == strings
    assert rle.encode(rle.decode(strings[:1], height, width)) == strings[0]


@given(several_masks)
def test_joined_runs_are_cocos(masks: list[np.ndarray]) -> None:
    height, width = masks[0].shape
    joined = rle.joined((run for mask in masks for run in rle.runs(rle.encode(mask), mask.size)), height, width)
    union = np.logical_or.reduce(masks)
    assert joined == encode_mask(union)  # the same bits, whichever way a mask came
    packed = coco.frPyObjects({"size": list(joined.size), "counts": list(joined.counts)}, height, width)
    assert (coco.decode(packed).astype(bool) == union).all()


@given(shapes, st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=6), max_size=4))
def test_gaps_and_lengths_of_nothing_are_harmless(shape: tuple[int, int], rows: list[list[tuple[int, int]]]) -> None:
    height, width = shape
    texts = [" ".join(f"{gap} {length}" for gap, length in row) for row in rows]
    if any(sum(map(sum, row)) > height * width for row in rows):
        with pytest.raises(ValueError, match=f"but the image has {height * width}$"):
            rle.decode(texts, height, width)
        return
    expected = brute_decode(texts, height, width)
    assert (rle.decode(texts, height, width) == expected).all()
    runs = [run for text in texts for run in rle.runs(text, height * width)]
    assert rle.joined(runs, height, width) == encode_mask(expected)


def test_worked_examples() -> None:
    square = rle.decode(["5 2 3 1"], 4, 4)
    assert np.argwhere(square).tolist() == [[1, 1], [2, 1], [2, 2]]  # absolute starts would give other pixels
    wide = rle.decode(["5 2 11 1"], 4, 6)
    assert wide.shape == (4, 6)
    assert np.argwhere(wide).tolist() == [[1, 1], [2, 1], [2, 4]]  # untransposed: other places
    assert rle.encode(square) == "5 2 3 1" and rle.encode(wide) == "5 2 11 1"
    assert rle.encode(np.zeros((2, 3), dtype=bool)) == "-1"
    assert rle.encode(np.ones((2, 3), dtype=bool)) == "0 6"


@pytest.mark.parametrize("text", ["-1", " -1", "-1.0", "", "  ", "nan"])
def test_nothing_is_nothing(text: str) -> None:
    assert rle.runs(text, 24) == []
    assert not rle.decode([text], 4, 6).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "1 numbers.*even count"),
        ("5 2 3", "3 numbers.*even count"),
        ("5 -2", r"negative number \(-2\)"),
        ("-1 3", r"negative number \(-1\)"),
        ("5 x", "not all whole numbers"),
        ("5 2.5", "not all whole numbers"),
        ("20 5", "end at pixel 25, but the image has 24"),
        ("5 2 99999999999999999999 1", "end at pixel 1000"),
    ],
)
def test_bad_run_lengths(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rle.decode(["1 1", text], 4, 6)
    assert rle.decode(["22 2"], 4, 6).sum() == 2  # up to the very end is allowed


# --- the counterfeit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reading_gives_what_the_generator_knows(layout: str, downloads: dict[str, Path]) -> None:
    root = downloads[layout]
    manifest = manifest_of(root)
    assert manifest["layout"] == SiimAcr().locate(root).name == layout
    samples = samples_of(root)
    assert [sample.id for sample in samples] == ids_of(root)
    for sample, answer in zip(samples, manifest["samples"], strict=True):
        mask = mask_of(sample)
        found = {
            "id": sample.id,
            "patient": sample.patient,
            "label": sample.label,
            "size": list(mask.shape),
            "mask_pixels": int(mask.sum()),
            "mask_sha256": hashlib.sha256(np.packbits(mask).tobytes()).hexdigest(),
            "image": sample.source["image_id"],
            **{name: sample.source.get(name) for name in ("rows", "stage", "age", "sex", "view")},
        }
        assert found == {name: value for name, value in answer.items() if name != "kind"}
        assert sample.mat == CELL and sample.part is None
        assert Path(sample.image.path).is_absolute() and Path(sample.image.path).is_file()
        assert read_image(sample.image).shape == mask.shape
        json.dumps(sample.source)
    counts = counts_of(root)
    assert {name: counts[name] for name in manifest["counts"]} == manifest["counts"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_trap_is_reported_once(layout: str, downloads: dict[str, Path]) -> None:
    manifest = manifest_of(downloads[layout])
    skipped = skipped_of(downloads[layout])
    assert sorted(one.where for one in skipped) == sorted(one["where"] for one in manifest["skipped"])
    assert {one["why"] for one in manifest["skipped"]} == set(REASONS)
    for expected in manifest["skipped"]:
        reasons = [one.reason for one in skipped if one.where == expected["where"]]
        assert any(re.search(REASONS[expected["why"]], reason) for reason in reasons), (expected, reasons)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_regions(layout: str, downloads: dict[str, Path]) -> None:
    by_pixels = {int(mask_of(sample).sum()): sample for sample in samples_of(downloads[layout])}
    expected = np.zeros((48, 40), dtype=bool)
    expected[22:27, 1:3] = True  # "70 5 43 5"
    assert (mask_of(by_pixels[10]) == expected).all()
    expected[22:30, 1] = True  # and "72 6": joined 13 pixels; a sum has 16, the last row alone 6
    assert (mask_of(by_pixels[13]) == expected).all()


def test_layouts_agree(downloads: dict[str, Path]) -> None:
    nested, flat, png = (samples_of(downloads[layout]) for layout in LAYOUTS)
    assert [one.id for one in nested] == ids_of(downloads["nested"])
    assert answers(nested) == answers(flat) == answers(png)
    assert [(one.patient, one.study) for one in nested] == [(one.patient, one.study) for one in flat]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fixture_can_be_trained_on(layout: str, downloads: dict[str, Path]) -> None:
    root = downloads[layout]
    samples = samples_of(root)
    patients: dict[tuple[str, str | None], set[str]] = {}
    for sample in samples:
        patients.setdefault((part_of(sample), sample.label), set()).add(sample.patient)
    for label in (POSITIVE, NEGATIVE):
        assert all(len(patients[part, label]) >= least for part, least in (("train", 18), ("val", 4), ("test", 6)))
    pixels = {hashlib.sha256(read_image(one.image).tobytes()).hexdigest() for one in samples}
    assert len(pixels) == len(samples), "two images are equal"
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) < 2_000_000
    drawn = [sample for sample in samples if mask_of(sample).sum() > 20]
    for sample in drawn:  # free air is darker than what lies around it
        image, mask = read_image(sample.image), mask_of(sample)
        ring = (np.roll(mask, 8, axis=1) | np.roll(mask, -8, axis=1)) & ~mask
        assert image[mask].mean() + 30 < image[ring].mean()


def test_fixture_is_decided_by_its_seed(tmp_path: Path, downloads: dict[str, Path]) -> None:
    for seed in (0, 1):
        SiimAcr().write_fixture(tmp_path / str(seed), seed=seed, layout="flat")
    same = {Path(path).relative_to(tmp_path / "0"): digest for path, digest in tree(tmp_path / "0").items()}
    first = {Path(path).relative_to(downloads["flat"]): digest for path, digest in tree(downloads["flat"]).items()}
    assert same == first
    assert answers(samples_of(tmp_path / "1")).keys().isdisjoint(answers(samples_of(tmp_path / "0")))
    with pytest.raises(CrossmedError, match=r"no fixture layout 'nestd'.*Did you mean 'nested'"):
        SiimAcr().write_fixture(tmp_path / "x", layout="nestd")


def test_a_patient_with_two_images_stays_one(downloads: dict[str, Path]) -> None:
    counts = Counter(sample.patient for sample in samples_of(downloads["nested"]))
    assert sorted(counts.values())[-4:] == [1, 2, 2, 2]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_written_under_root(layout: str, copy: Callable[[str], Path]) -> None:
    root = copy(layout)
    before = tree(root), sorted(root.rglob("*"))
    for sample in samples_of(root):
        read_image(sample.image)
    list(SiimAcr().verify(root))
    assert (tree(root), sorted(root.rglob("*"))) == before


# --- pixels ----------------------------------------------------------------------------------------------------------


def test_each_kind_is_shown_as_pydicom_alone_shows_it(downloads: dict[str, Path]) -> None:
    kinds = {answer["id"]: answer["kind"] for answer in manifest_of(downloads["nested"])["samples"]}
    seen: Counter[str] = Counter()
    for sample in samples_of(downloads["nested"]):
        data = pydicom.dcmread(sample.image.path)
        if kinds[sample.id] == "jpeg":
            assert data.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
            expected = pydicom.pixels.pixel_array(data, decoding_plugin="pillow")
            pillows = np.asarray(Image.open(io.BytesIO(get_frame(data.PixelData, 0, number_of_frames=1))))
            assert np.abs(expected.astype(int) - pillows).max() <= 1  # decoders may round differently
        elif kinds[sample.id] == "monochrome1":
            assert data.PhotometricInterpretation == "MONOCHROME1" and data.BitsStored == 12
            expected = np.rint(255 - apply_windowing(data.pixel_array, data) * (255 / 4095))
        else:
            assert data.BitsStored == 16 and data.pixel_array.max() > 4095  # beyond the table: its last entry
            expected = np.rint(apply_voi(data.pixel_array, data) * (255 / 4095))
        assert (read_image(sample.image) == expected).all(), kinds[sample.id]
        seen[kinds[sample.id]] += 1
    assert min(seen[kind] for kind in ("jpeg", "monochrome1", "voi-lut")) >= 10


def test_each_kind_shows_the_picture_that_the_png_copy_shows(downloads: dict[str, Path]) -> None:
    pngs = {sample.id: read_image(sample.image).astype(float) for sample in samples_of(downloads["png"])}
    for sample in samples_of(downloads["flat"]):
        shown = read_image(sample.image).astype(float)
        assert np.corrcoef(shown.ravel(), pngs[sample.id].ravel())[0, 1] > 0.9  # negative if MONOCHROME1 is not turned


def test_an_unlabelled_file_can_still_be_opened(downloads: dict[str, Path]) -> None:
    path = downloads["flat"] / "stage_2_images" / "ID_0a1b2c3d4.dcm"
    assert read_image(ImageRef(str(path))).shape == (48, 40)


def test_the_speed_path_has_a_file_of_real_size(downloads: dict[str, Path]) -> None:
    sizes = Counter(mask_of(sample).shape for sample in samples_of(downloads["nested"]))
    assert sizes[1024, 1024] == 1 and sizes[64, 56] > 40


# --- options and questions -------------------------------------------------------------------------------------------


def test_it_is_what_the_contracts_ask_for() -> None:
    assert isinstance(SiimAcr(), LocatesItself) and isinstance(SiimAcr(), ReadsInUnits)
    assert isinstance(SiimAcr(), KnowsItsDownload)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_empty_masks_can_be_left_out(layout: str, downloads: dict[str, Path]) -> None:
    manifest = manifest_of(downloads[layout])
    only = samples_of(downloads[layout], empty=False)
    assert [sample.id for sample in only] == manifest["with_region"]
    assert {sample.label for sample in only} == {POSITIVE}
    everything = samples_of(downloads[layout])
    assert {sample.label for sample in everything} == {POSITIVE, NEGATIVE}
    assert all((sample.label == POSITIVE) == bool(mask_of(sample).any()) for sample in everything)
    left_out = counts_of(downloads[layout], empty=False)["images without pneumothorax left out"]
    negatives = sum(sample.label == NEGATIVE for sample in everything)
    # A file that is truncated, or a table that denies a region, only shows when files are opened.
    assert left_out - negatives == (2 if layout == "png" else 1)


@pytest.mark.parametrize("value", ["false", "true", 0, 1, None, []])
def test_bad_options(value: Any) -> None:
    with pytest.raises(CrossmedError, match="empty must be true or false") as caught:
        SiimAcr(empty=value)
    assert repr(value) in str(caught.value)


def test_questions() -> None:
    (question,) = SiimAcr().questions().values()
    assert question.mat == CELL and question.kind == "mask" and not question.labels
    assert len(question.templates) == len(question.neutral) == len(set(question.templates)) >= 6
    for template in question.templates:
        assert "{modality}" in template and "{anatomy}" in template
        assert "{" not in template.format(modality="X-ray", anatomy="chest")
    telling = ("x-ray", "radiograph", "chest", "lung", "pleura", "thora", "pneumo", "air", "{")
    assert any(question.target in template for template in question.templates)
    for neutral in (*question.neutral, question.neutral_target):
        assert not [word for word in telling if word in neutral.lower()], neutral


def test_items_can_be_made(downloads: dict[str, Path]) -> None:
    (question,) = SiimAcr().questions().values()
    items = [make_item(sample, question, dataset="siim-acr") for sample in samples_of(downloads["png"])]
    assert {item.kind for item in items} == {"mask"} and {item.label for item in items} == {POSITIVE, NEGATIVE}


# --- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_units_are_the_samples_in_any_process(
    layout: str, downloads: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "CHUNK", 7)
    units = list(SiimAcr().units(downloads[layout]))
    entries = [len(unit.entries) for unit in units if isinstance(unit, Unit)]
    late = {"truncated", "past the end", "contradiction" if layout == "png" else "odd count"}  # seen on opening
    assert {one["why"] for one in manifest_of(downloads[layout])["skipped"]} >= late
    total = len(ids_of(downloads[layout])) + len(late)
    assert sum(entries) == total and len(entries) == -(-total // 7) > 1 and set(entries[:-1]) == {7}
    read = []
    for unit in units:
        read += list(SiimAcr().read(pickle.loads(pickle.dumps(unit)))) if isinstance(unit, Unit) else [unit]  # noqa: S301
    assert read == list(SiimAcr().samples(downloads[layout]))
    monkeypatch.undo()
    assert [one for one in read if isinstance(one, Sample)] == samples_of(downloads[layout])


def test_a_relative_root_gives_absolute_paths(downloads: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(downloads["nested"].parent)
    samples = samples_of(Path(downloads["nested"].name))
    assert samples == samples_of(downloads["nested"])


# --- label tables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: text.replace(", ", ","),
        lambda text: text.replace(", -1\n", ",-1.0\n"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
        lambda text: text.replace("ImageId, EncodedPixels", "imageid,ENCODEDPIXELS ,note"),
        lambda text: "\n".join(line.split(",")[0] + ',"' + line.split(",")[1] + '"' for line in text.split("\n")[:-1]),
    ],
    ids=["no spaces", "float", "BOM and CRLF", "other header", "quoted"],
)
def test_the_table_may_be_written_in_other_ways(rewrite: Callable[[str], str], copy: Callable[[str], Path]) -> None:
    root = copy("nested")
    table = root / "pneumothorax" / "train-rle.csv"
    before = answers(samples_of(root))
    text = table.read_text()
    assert '" EncodedPixels"' not in text and ", -1\n" in text and ", EncodedPixels" in text
    table.write_bytes(rewrite(text).encode())
    assert answers(samples_of(root)) == before
    negative = {name for name, (label, _) in before.items() if label == NEGATIVE}
    assert negative == set(ids_of(root)) - set(manifest_of(root)["with_region"])  # " -1" is not a region


def test_a_gzipped_full_table_is_preferred(copy: Callable[[str], Path]) -> None:
    root = copy("nested")
    table = root / "pneumothorax" / "train-rle.csv"
    before = answers(samples_of(root))
    full = table.with_name("siim-pneumothorax-train-rle.csv.gz")
    full.write_bytes(gzip.compress(table.read_bytes()))
    table.write_text("ImageId, EncodedPixels\n")
    assert answers(samples_of(root)) == before
    assert {sample.source["label_source"] for sample in samples_of(root)} == {full.name}
    full.write_bytes(full.read_bytes()[:200])  # half a download: nothing is believed of it
    assert samples_of(root) == []
    assert any("damaged" in one.reason for one in skipped_of(root) if one.where.endswith(full.name))


def test_a_table_of_another_competition_is_passed_over(copy: Callable[[str], Path]) -> None:
    root = copy("nested")
    before = answers(samples_of(root))
    (root / "pneumothorax" / "stage_2_train.csv").write_text("ID,Label\nID_1_any,0\n")
    assert answers(samples_of(root)) == before


def test_names_may_be_in_upper_case(copy: Callable[[str], Path]) -> None:
    root = copy("nested")
    before = answers(samples_of(root))
    base = root / "pneumothorax"
    (base / "dicom-images-train").rename(base / "DICOM-images-Train")
    (base / "train-rle.csv").rename(base / "Train-RLE.csv")
    assert answers(samples_of(root)) == before
    assert {sample.source["stage"] for sample in samples_of(root)} == {"stage 1 train", "stage 1 test"}


def test_the_table_may_lie_above_the_images(copy: Callable[[str], Path]) -> None:
    root = copy("nested")
    before = answers(samples_of(root))
    shutil.move(root / "pneumothorax" / "train-rle.csv", root / "train-rle.csv")
    assert answers(samples_of(root)) == before
    assert samples_of(root / "pneumothorax") == [], "above the root it is none of our business"


def test_images_may_lie_in_a_folder_of_any_name(copy: Callable[[str], Path]) -> None:
    root = copy("flat")
    before = answers(samples_of(root))
    (root / "stage_2_images").rename(root / "xrays")
    (root / "xrays" / "ID_0a1b2c3d4.dcm").rename(root / "xrays" / "ID_0a1b2c3d4.DCM")
    assert answers(samples_of(root)) == before
    assert counts_of(root)["images found"] == found_in(root), "suffixes in upper case count"
    assert {sample.source["stage"] for sample in samples_of(root)} == {None}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"ImageId;EncodedPixels\n1;2\n",
            "has no column ImageId or EncodedPixels; its header is imageid;encodedpixels",
        ),
        (b"", "its header is empty"),
        (b"ImageId,EncodedPixels\n\xff\xfe,1 2\n", "damaged or not a CSV file"),
    ],
)
def test_an_unreadable_table_is_one_row_of_the_report(content: bytes, reason: str, copy: Callable[[str], Path]) -> None:
    root = copy("nested")
    (root / "pneumothorax" / "train-rle.csv").write_bytes(content)
    about = [one for one in skipped_of(root) if one.where == "pneumothorax/train-rle.csv"]
    assert len(about) == 1 and reason in about[0].reason
    assert samples_of(root) == []
    assert counts_of(root)["images unlabelled"] == found_in(root)
    assert any(check.verdict == "differs" and reason in check.found for check in SiimAcr().verify(root))


def test_without_a_table_all_is_unlabelled_and_a_submission_is_none(copy: Callable[[str], Path]) -> None:
    root = copy("flat")
    assert "-1" in (root / "stage_2_sample_submission.csv").read_text()
    (root / "stage_2_train.csv").unlink()
    assert samples_of(root) == []
    assert any("no label table" in one.reason and "stage_2_train.csv" in one.reason for one in skipped_of(root))
    assert counts_of(root)["images unlabelled"] == found_in(root)
    assert next(iter(SiimAcr().verify(root))).verdict == "differs"


def test_rows_that_lack_something(copy: Callable[[str], Path]) -> None:
    root = copy("flat")
    table = root / "stage_2_train.csv"
    before = answers(samples_of(root))
    lines = len(table.read_text().splitlines())
    negative = next(one for one, (label, _) in before.items() if label == NEGATIVE).removeprefix("siim-acr-")
    table.write_text(table.read_text() + f",70 5\n\n{negative}\n{negative},nan\n")
    reasons = {one.where: one.reason for one in skipped_of(root)}
    assert "names no image" in reasons[f"stage_2_train.csv row {lines + 1}"]
    assert "EncodedPixels is empty" in reasons[f"stage_2_train.csv row {lines + 3}"]
    assert "EncodedPixels is empty" in reasons[f"stage_2_train.csv row {lines + 4}"]
    assert answers(samples_of(root)) == before, "what other rows say holds"


def test_a_region_without_pixels_is_no_region(copy: Callable[[str], Path]) -> None:
    root = copy("flat")
    text = (root / "stage_2_train.csv").read_text()
    (root / "stage_2_train.csv").write_text(text.replace(",70 5 43 5\n", ",70 0\n", 1))
    assert [one.reason for one in skipped_of(root) if one.where == "stage_2_train.csv row 3"] == [
        "its run lengths mark no pixel; -1 would say so"
    ]
    assert len(samples_of(root)) == len(ids_of(root)) - 1


def test_unlabelled_images_do_not_flood_the_report(copy: Callable[[str], Path]) -> None:
    root = copy("flat")
    file = root / "stage_2_images" / "ID_0a1b2c3d4.dcm"
    for number in range(60):
        shutil.copy(file, file.with_name(f"ID_{number:09x}.dcm"))
    unlabelled = [one for one in skipped_of(root) if "no label" in one.reason]
    assert len(unlabelled) == 51
    total = manifest_of(root)["counts"]["images unlabelled"] + 60
    assert unlabelled[-1].where == f"{total - 50} more images"
    assert counts_of(root)["images unlabelled"] == total
    assert len(samples_of(root)) == len(ids_of(root))


# --- files -----------------------------------------------------------------------------------------------------------


def a_sample(root: Path, label: str = POSITIVE) -> Sample:
    return next(sample for sample in samples_of(root) if sample.label == label and mask_of(sample).shape == (64, 56))


@pytest.mark.parametrize("layout", DICOM)
def test_a_missing_file_is_reported_with_its_rows(layout: str, copy: Callable[[str], Path]) -> None:
    root = copy(layout)
    gone = next(sample for sample in samples_of(root) if sample.source["rows"] == 2)
    Path(gone.image.path).unlink()
    new = [one for one in skipped_of(root) if "file is missing" in one.reason and " rows " in one.where]
    assert len(new) == 1
    table = next(root.rglob(str(gone.source["label_source"]))).read_text().splitlines()
    for number in new[0].where.rpartition("rows ")[2].split(", "):
        assert table[int(number) - 1].startswith(str(gone.source["image_id"]))
    assert sorted(answers(samples_of(root))) == sorted(set(ids_of(root)) - {gone.id})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_junk_and_loops_change_nothing(layout: str, copy: Callable[[str], Path]) -> None:
    root = copy(layout)
    before = list(SiimAcr().samples(root))
    image = Path(a_sample(root).image.path)
    (image.parent / "loop").symlink_to(root, target_is_directory=True)
    (image.parent / "Thumbs.db").write_bytes(b"x")
    shutil.copy(image, image.with_name(f"._{image.name}"))
    (root / "__MACOSX").mkdir()
    shutil.copytree(image.parent, root / "__MACOSX" / image.parent.name, symlinks=True)
    after = list(SiimAcr().samples(root))
    assert [one for one in after if isinstance(one, Sample)] == [one for one in before if isinstance(one, Sample)]
    assert counts_of(root)["images found"] == found_in(root)
    (image.parent / "itself").symlink_to(image.parent / "itself")
    assert samples_of(root) == [one for one in before if isinstance(one, Sample)]
    where = (image.parent / "itself").relative_to(root).as_posix()
    assert any(one.where == where and "cannot be followed" in one.reason for one in skipped_of(root))


@pytest.mark.filterwarnings("ignore:End of file reached:UserWarning")
def test_a_file_cut_inside_its_pixels_shows_when_it_is_opened(copy: Callable[[str], Path]) -> None:
    root = copy("flat")
    path = Path(a_sample(root).image.path)
    path.write_bytes(path.read_bytes()[:-700])
    again = next(sample for sample in samples_of(root) if sample.image.path == str(path))
    with pytest.raises(UnreadableImageError, match=r"\.dcm: "):
        read_image(again.image)


@pytest.mark.parametrize(("content", "reason"), [(b"", "not a DICOM file"), (b"x" * 900, "not a DICOM file")])
def test_what_is_no_dicom_file(content: bytes, reason: str, copy: Callable[[str], Path]) -> None:
    root = copy("nested")
    path = Path(a_sample(root).image.path)
    path.write_bytes(content)
    about = [one.reason for one in skipped_of(root) if one.where == path.relative_to(root).as_posix()]
    assert about == [f"{reason}; download it again"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_no_regular_file_is_not_opened(
    layout: str, copy: Callable[[str], Path], irregular: Callable[[Path], None]
) -> None:
    root = copy(layout)
    path = Path(a_sample(root).image.path)
    lost = {a_sample(root).id}
    irregular(path)
    if layout == "png":
        mask = root / "siim-acr-pneumothorax" / "png_masks" / Path(a_sample(root).image.path).name
        lost.add(a_sample(root).id)
        irregular(mask)
        about = [one.reason for one in skipped_of(root) if one.where == mask.relative_to(root).as_posix()]
        assert about == ["not a regular file; download it again"]
    about = [one.reason for one in skipped_of(root) if one.where == path.relative_to(root).as_posix()]
    assert about == ["not a regular file; download it again"]
    assert answers(samples_of(root)).keys() == set(ids_of(root)) - lost
    name = {"nested": "train-rle.csv", "flat": "stage_2_train.csv", "png": "stage_1_train_images.csv"}[layout]
    (table,) = [one for one in root.rglob(name) if not one.name.startswith("._")]
    irregular(table)
    about = [one.reason for one in skipped_of(root) if one.where == table.relative_to(root).as_posix()]
    assert about == ["cannot be read: not a regular file"]
    if layout == "flat":
        irregular(root / "stage_2_sample_submission.csv")
        assert any(check.what.startswith("SHA-256") and "regular" in check.found for check in SiimAcr().verify(root))
    assert any("not a regular file" in check.found for check in SiimAcr().verify(root))


def test_odd_headers(copy: Callable[[str], Path]) -> None:
    root = copy("flat")
    sample = a_sample(root)
    data = pydicom.dcmread(sample.image.path)
    assert sample.source["spacing_mm"] == 0.168 and sample.source["sop_instance"] is None
    with pydicom.config.disable_value_validation():
        data.PixelSpacing, data.PatientAge, data.ViewPosition = [0.0, 0.0], "abc", ""
        data.SOPInstanceUID = "1.2.3"
        del data.PatientSex
        data.save_as(sample.image.path)
    facts = next(one for one in samples_of(root) if one.id == sample.id).source
    assert [facts[name] for name in ("spacing_mm", "age", "view", "sex")] == [None] * 4
    assert facts["sop_instance"] == "1.2.3"
    data.PixelSpacing = [0.1, 0.2]
    del data.SOPInstanceUID
    data.save_as(sample.image.path, enforce_file_format=False)
    facts = next(one for one in samples_of(root) if one.id == sample.id).source
    assert facts["spacing_mm"] == "0.1 x 0.2" and facts["sop_instance"] is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("62", 62), ("062Y", 62), (" 9 ", 9), ("018M", 1), ("011M", 0), ("104W", 1), ("731D", 2), ("155", 155)]
    + [(bad, None) for bad in ("", "Y", "abc", "-5", "6.5", "9" * 5000)],
)
def test_ages(text: str, expected: int | None) -> None:
    assert years(text) == expected


# --- PNG copies ------------------------------------------------------------------------------------------------------


def rewrite_png_tables(root: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    for table in root.rglob("stage_1_*_images.csv"):
        with table.open(newline="") as file:
            rows = [change(row) for row in csv.DictReader(file)]
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def test_names_of_png_files_do_not_leak(copy: Callable[[str], Path]) -> None:
    root = copy("png")
    before = samples_of(root)
    for sample in before:
        assert f"_{int(sample.label == POSITIVE)}_.png" in sample.image.path, "the fixture has no leak to close"
        said = json.dumps([sample.id, sample.patient, sample.study, dict(sample.source)])
        assert Path(sample.image.path).stem not in said and "_1_" not in said.replace("stage_1_", "")
    # Without ImageId an id comes of the name, but cannot be read.
    rewrite_png_tables(root, lambda row: {name: row[name] for name in ("new_filename", "has_pneumo")})
    after = samples_of(root)
    assert sorted(len(mask_of(one)) for one in after) == sorted(len(mask_of(one)) for one in before)
    assert len({one.id for one in after}) == len(after) == len(before)
    for sample in after:
        digest = hashlib.sha256(Path(sample.image.path).stem.encode()).hexdigest()
        assert sample.id == f"siim-acr-{digest[:16]}" and sample.patient == digest[:16]


def test_file_names_may_lack_their_suffix_and_ids_hold_anything(copy: Callable[[str], Path]) -> None:
    root = copy("png")
    before = answers(samples_of(root))
    rewrite_png_tables(root, lambda row: row | {"new_filename": row["new_filename"].removesuffix(".png")})
    assert answers(samples_of(root)) == before
    rewrite_png_tables(root, lambda row: row | {"ImageId": "a/b " + row["ImageId"]})
    ids = list(answers(samples_of(root)))
    assert len(ids) == len(before) and not any(set(one) & set("/ ") for one in ids)


def test_an_image_of_two_rows_is_read_once(copy: Callable[[str], Path]) -> None:
    root = copy("png")
    before = answers(samples_of(root))
    table = root / "siim-acr-pneumothorax" / "stage_1_train_images.csv"
    lines = table.read_text().splitlines()
    name, image, label = lines[1].split(",")
    shutil.copy(table.with_name("png_images") / name, table.with_name("png_images") / "other.png")
    table.write_text("\n".join([*lines, f"{name},9.9,{label}", f"other.png,{image},{label}"]) + "\n")
    reasons = {one.where: one.reason for one in skipped_of(root)}
    for number in (1, 2):
        where = f"siim-acr-pneumothorax/stage_1_train_images.csv row {len(lines) + number}"
        assert "has a row already: siim-acr-pneumothorax/stage_1_train_images.csv row" in reasons[where]
    assert answers(samples_of(root)) == before


def test_a_negative_needs_no_mask_file_and_a_false_label_is_noticed(copy: Callable[[str], Path]) -> None:
    root = copy("png")
    sick, well = a_sample(root), a_sample(root, NEGATIVE)
    mask_file = root / "siim-acr-pneumothorax" / "png_masks" / Path(well.image.path).name
    mask_file.unlink()
    assert answers(samples_of(root))[well.id] == (NEGATIVE, well.mask)
    rewrite_png_tables(
        root, lambda row: row | ({"has_pneumo": "1"} if row["ImageId"] == well.source["image_id"] else {})
    )
    assert sum("region is missing from png_masks" in one.reason for one in skipped_of(root)) == 2
    Image.new("L", (56, 64)).save(mask_file)
    assert sum("has_pneumo is 1, but the mask is empty" in one.reason for one in skipped_of(root)) == 1
    mask_file.write_bytes(b"no image")
    about = [one.reason for one in skipped_of(root) if one.where == mask_file.relative_to(root).as_posix()]
    assert about == ["not an image file; download it again"]
    assert sick.id in answers(samples_of(root)) and well.id not in answers(samples_of(root))


def test_an_unreadable_png_table_costs_its_own_images_only(copy: Callable[[str], Path]) -> None:
    root = copy("png")
    before = samples_of(root)
    (root / "siim-acr-pneumothorax" / "stage_1_test_images.csv").write_text("a,b\n1,2\n")
    left = samples_of(root)
    assert left == [one for one in before if one.source["stage"] == "stage 1 train"] and len(left) < len(before)
    assert [one.reason for one in skipped_of(root) if one.where.endswith("test_images.csv")] == [
        "has no column new_filename or has_pneumo; its header is a,b"
    ]
    assert any(check.verdict == "differs" and "has no column" in check.found for check in SiimAcr().verify(root))


# --- finding it ------------------------------------------------------------------------------------------------------


def chexpert(root: Path) -> None:
    (root / "CheXpert-v1.0-small" / "train" / "patient00001").mkdir(parents=True)
    (root / "CheXpert-v1.0-small" / "train.csv").write_text("Path,Sex\n")


def rsna(root: Path) -> None:
    (root / "rsna" / "stage_2_train").mkdir(parents=True)
    (root / "rsna" / "stage_2_train.csv").write_text("ID,Label\nID_1_any,0\n")
    (root / "rsna" / "stage_2_train_images").mkdir()
    (root / "rsna" / "stage_2_sample_submission.csv").write_text("ImageId,EncodedPixels\nID_1,-1\n")
    (root / "rsna" / "png_images").mkdir()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_found_beside_others_and_below(layout: str, downloads: dict[str, Path], tmp_path: Path) -> None:
    chexpert(tmp_path)
    rsna(tmp_path)
    shutil.copytree(downloads[layout], tmp_path / "downloads" / "siim")
    found = SiimAcr().locate(tmp_path)
    assert found.name == layout and found.root.is_relative_to(tmp_path / "downloads" / "siim")
    assert answers(samples_of(tmp_path)) == answers(samples_of(downloads[layout]))
    assert SiimAcr().locate(found.root) == found
    assert all(one.where.startswith("downloads/siim/") for one in skipped_of(tmp_path)), (
        "reports name paths below the root that was given"
    )


def test_other_downloads_are_not_claimed(tmp_path: Path) -> None:
    chexpert(tmp_path)
    rsna(tmp_path)
    for name in ("locate", "samples", "units", "verify"):
        with pytest.raises(DownloadNotFoundError) as caught:
            list(getattr(SiimAcr(), name)(tmp_path))
        told = str(caught.value)
        assert "holds no siim-acr download" in told and "CheXpert-v1.0-small/, rsna/" in told
        assert all(part in told for part in ("dicom-images-train", "stage_2_images", "png_images", "3 folders deep"))
    with pytest.raises(CrossmedError, match="The folder is empty"):
        (tmp_path / "nothing").mkdir()
        SiimAcr().locate(tmp_path / "nothing")
    with pytest.raises(DownloadNotFoundError, match="No such file"):
        list(SiimAcr().verify(tmp_path / "nowhere"))


def test_four_folders_down_is_too_far(downloads: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(downloads["flat"], tmp_path / "a" / "b" / "c" / "d")
    assert SiimAcr().locate(tmp_path / "a").name == "flat"
    with pytest.raises(CrossmedError, match="holds no siim-acr"):
        SiimAcr().locate(tmp_path)


# --- published counts ------------------------------------------------------------------------------------------------


def write_published(path: Path, negatives: int, rows_per_positive: dict[int, int]) -> None:
    lines = ["ImageId, EncodedPixels"] + [f"n{number}, -1" for number in range(negatives)]
    for rows, images in rows_per_positive.items():
        lines += [f"p{rows}-{number}, {row} 5" for number in range(images) for row in range(rows)]
    path.write_text("\n".join(lines) + "\n")


def test_verify_knows_the_published_table(tmp_path: Path) -> None:
    (tmp_path / "stage_2_images").mkdir()
    table = tmp_path / "stage_2_train.csv"
    write_published(table, 9378, published.ROWS_PER_POSITIVE)
    checks = {check.what: check for check in SiimAcr().verify(tmp_path)}
    assert checks["rows in stage_2_train.csv"].found == "12,954"
    assert checks["images in stage_2_train.csv"].found == "12,047"
    assert checks["rows per positive image in stage_2_train.csv"].verdict == "ok"
    assert {check.verdict for what, check in checks.items() if "stage_2_train" in what} == {"ok"}
    assert checks["DICOM files in stage_2_images"] == ("DICOM files in stage_2_images", "0", "3,205", "hint")
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    differing = {check.what: check.verdict for check in SiimAcr().verify(tmp_path)}
    assert differing["rows in stage_2_train.csv"] == differing["region rows in stage_2_train.csv"] == "differs"
    assert differing["rows per positive image in stage_2_train.csv"] == "differs"
    assert differing["images in stage_2_train.csv"] == "ok"


def test_verify_knows_the_original_table(tmp_path: Path) -> None:
    (tmp_path / "dicom-images-train").mkdir()
    write_published(tmp_path / "train-rle.csv", 8296, {1: 2378, 908: 1})
    checks = [check for check in SiimAcr().verify(tmp_path) if "train-rle" in check.what]
    assert [check.found for check in checks] == ["11,582", "10,675", "2,379", "8,296", "3,286"]
    assert {check.verdict for check in checks} == {"ok"}


def test_verify_counts_png_copies_and_checks_digests(downloads: dict[str, Path], tmp_path: Path) -> None:
    for name in ("png_images", "png_masks"):
        (tmp_path / name).mkdir()
    for stage, rows, positive in (("train", 10675, 2379), ("test", 1372, 290)):
        lines = [f"{n}_{stage}_.png,{n},{int(n < positive)}" for n in range(rows)]
        (tmp_path / f"stage_1_{stage}_images.csv").write_text("\n".join(["new_filename,ImageId,has_pneumo", *lines]))
    checks = list(SiimAcr().verify(tmp_path))
    assert [check.verdict for check in checks] == ["ok"] * 4 + ["hint"] * 2
    found = {check.what: check for check in SiimAcr().verify(downloads["flat"])}
    digest = found["SHA-256 of stage_2_sample_submission.csv"]
    assert digest.verdict == "hint"
    path = downloads["flat"] / "stage_2_sample_submission.csv"
    assert digest.found == hashlib.sha256(path.read_bytes()).hexdigest()


def test_verify_accepts_the_right_digest(downloads: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = downloads["flat"] / "stage_2_sample_submission.csv"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(published.DIGESTS, path.name, (digest[:8], digest[-3:]))
    found = {check.what: check for check in SiimAcr().verify(downloads["flat"])}
    assert found[f"SHA-256 of {path.name}"].verdict == "ok"


def test_published_counts_are_consistent() -> None:
    for counts in (published.ALL, published.STAGE_1_TRAIN):
        assert counts["images"] == counts["positive images"] + counts["negative images"]
        assert counts["rows"] == counts["negative images"] + counts["region rows"]
    assert sum(published.ROWS_PER_POSITIVE.values()) == published.ALL["positive images"]
    assert sum(rows * n for rows, n in published.ROWS_PER_POSITIVE.items()) == published.ALL["region rows"]
    assert sum(rows for rows, _ in published.PNG_ROWS.values()) == published.ALL["images"] == published.PNG_FILES

"""CheXpert: five layouts, one reading; labels, distractors and parts against the manifest and independent counts."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmed_core.errors import CrossmedError, DownloadNotFoundError, ExitCode
from crossmed_core.images import pixel_digest, read_image
from crossmed_core.parts import drawn_part
from crossmed_core.questions import make_item
from crossmed_core.types import MAT, Counted, Reading, Sample, Skipped
from crossmed_plugins.chexpert import published
from crossmed_plugins.chexpert.dataset import CheXpert
from crossmed_plugins.chexpert.labels import FINDINGS, apply_policy, parse_value, possible
from crossmed_plugins.chexpert.paths import parse_path

LAYOUTS = "ABCDE"
CELL = MAT("xray", "chest", "classification")
SMALL = "CheXpert-v1.0-small"
BATCH_1 = "CheXpert-v1.0 batch 1 (validate & csv)"


class Download(NamedTuple):
    root: Path
    manifest: dict[str, Any]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Download]:
    found = {}
    for layout in LAYOUTS:
        root = tmp_path_factory.mktemp(f"layout-{layout}")
        CheXpert().write_fixture(root, layout=layout)
        found[layout] = Download(root, json.loads((root / "manifest.json").read_text()))
    return found


@pytest.fixture(scope="module")
def small(downloads: dict[str, Download]) -> Download:
    return downloads["A"]


@pytest.fixture
def copied(small: Download, tmp_path: Path) -> Path:
    """Layout A, to be spoilt."""
    return Path(shutil.copytree(small.root, tmp_path / "copy"))


class Read(NamedTuple):
    samples: list[Sample]
    skipped: list[Skipped]
    counts: dict[str, int]

    @property
    def ids(self) -> list[str]:
        return sorted(sample.id for sample in self.samples)

    def one(self, text: str) -> Sample:
        (sample,) = [sample for sample in self.samples if text in sample.id]
        return sample

    def reasons(self, where: str) -> list[str]:
        return [one.reason for one in self.skipped if where in one.where]


def read(root: Path, **options: str) -> Read:
    return sorted_out(CheXpert(**options).samples(root))


def sorted_out(stream: Iterator[Reading]) -> Read:
    stream = list(stream)  # type: ignore[assignment]
    counts: Counter[str] = Counter()
    for one in stream:
        if isinstance(one, Counted):
            counts[one.what] += one.n
    return Read(
        [one for one in stream if isinstance(one, Sample)], [one for one in stream if isinstance(one, Skipped)], counts
    )


def image_of(sample: Sample) -> str:
    """ "patient00001-study1-view1_frontal", as the manifest names images."""
    match = re.fullmatch(r"chexpert-(patient\d{5}-study\d+-view\d+_[a-z]+)-[a-z-]+", sample.id)
    assert match, sample.id
    return match[1]


def tree(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def edit(table: Path, old: str, new: str, count: int = 1) -> None:
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, count))


# The five layouts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_samples_of_the_manifest(layout: str, downloads: dict[str, Download]) -> None:
    root, manifest = downloads[layout]
    assert CheXpert().locate(root).name == layout
    found = read(root)
    assert found.ids == manifest["ids"]
    assert [sample.patient for sample in found.samples] == sorted(sample.patient for sample in found.samples)
    words = {finding: finding.lower() for finding in FINDINGS} | {"Pleural Other": "other pleural abnormality"}
    for sample in found.samples:
        image = manifest["images"][image_of(sample)]
        finding = next(one for one in FINDINGS if sample.id.endswith("-" + one.lower().replace(" ", "-")))
        assert sample.label == words[finding]
        assert manifest["labels"]["ignore/zero"][image_of(sample)][FINDINGS.index(finding)] == "1"
        assert sample.mat == CELL
        path = Path(sample.image.path)
        assert path.is_absolute() and path.is_file()
        assert (path.parents[1].name, path.parents[0].name, path.stem) == tuple(image_of(sample).split("-"))
        assert sample.part == ("test" if image["split"] != "train" else drawn_part(sample.patient))
        assert sample.priority == (sample.part == "test" and image["split"] == "train")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_reports_what_was_found_labelled_resolved_and_skipped(
    layout: str, downloads: dict[str, Download]
) -> None:
    root, manifest = downloads[layout]
    found = read(root)
    assert list(manifest["skipped"]) == ["patient00004-study1-view1_frontal"]
    assert len(found.skipped) == 1
    assert "train/patient00004/study1/view1_frontal" in found.skipped[0].reason
    assert "is not there, though a folder of the patient is" in found.skipped[0].reason
    assert found.counts["images found"] == manifest["frontal images"]
    assert found.counts["images without a finding to ask for"] == len(manifest["unasked"]) == 1
    all_views = read(root, views="all").counts
    assert all_views["images found"] == len(manifest["images"])
    assert all_views["lateral rows left out"] == 0 < found.counts["lateral rows left out"]
    assert all_views["rows labelled"] == all_views["rows resolved"] + 1 == found.counts["rows labelled"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_of_each_layout_open_and_show_the_same(layout: str, downloads: dict[str, Download]) -> None:
    root, manifest = downloads[layout]
    a_root, _ = downloads["A"]
    seen = {image_of(sample): sample for sample in read(root, views="all", labels="all").samples}
    for name in ("patient00001-study1-view1_frontal", "patient00002-study1-view2_lateral"):
        pixels = read_image(seen[name].image)
        assert list(pixels.shape[:2]) == manifest["images"][name]["size"]
        other = read_image(read(a_root, views="all").one(f"{name}-lung-opacity").image) if "00002" in name else None
        if other is not None:
            assert np.abs(pixels.astype(int) - other.astype(int)).mean() < 3  # JPEG's error
    tests = [one for name, one in seen.items() if manifest["images"][name]["split"] == "test"]
    assert len(tests) > 13 and {Path(one.image.path).parents[2].name for one in tests} == {"test"}


def test_odd_files_of_the_small_release(small: Download) -> None:
    found = read(small.root, labels="all")
    assert read_image(found.one("patient00001-study1-view1_frontal-no-finding").image).shape == (60, 72, 3)  # RGB
    samples = {image_of(sample) for sample in found.samples}
    assert "patient00003-study1-view1_frontal" not in samples  # nothing is true of it
    odd = small.root / SMALL / "train/patient00003/study1/view1_frontal.jpg"
    edit_free = read_image(type(found.samples[0].image)(str(odd)))
    assert edit_free.shape == (41, 33)
    lines = (small.root / SMALL / "train.csv").read_text().splitlines()
    (windows,) = [line for line in lines if "\\" in line]
    path = windows.split(",")[0].replace("\\", "/")
    assert any(Path(sample.image.path).as_posix().endswith(path) for sample in found.samples)


def test_metadata_travels_with_the_sample(small: Download) -> None:
    found = read(small.root, views="all", uncertain="ones")
    lateral = found.one("patient00002-study1-view2_lateral-edema")
    assert lateral.source == {
        "view": "lateral", "projection": None, "sex": "Male", "age": 60, "label_source": "report",
        "label_table": f"{SMALL}/train.csv", "label_value": 1, "uncertain": "ones", "blank": "zero",
    }  # fmt: skip
    assert lateral.study == "patient00002-study1" and lateral.patient == "patient00002"
    assert found.one("patient00002-study2-view1_frontal-edema").source["label_value"] == -1
    sources = {sample.source["label_source"] for sample in found.samples if sample.patient >= "patient64541"}
    assert sources == {"radiologists"}


def test_age_sex_and_projection_of_odd_rows(copied: Path) -> None:
    table = copied / SMALL / "train.csv"
    blank_row = "Unknown,0,Frontal,LL" + "," * 14
    edit(table, blank_row, "Unknown,0,Frontal,LL,,1.0" + "," * 12)
    sample = read(copied).one("patient00003")
    assert (sample.source["sex"], sample.source["age"], sample.source["projection"]) == ("Unknown", 0, "LL")
    edit(table, "Unknown,0,Frontal,LL", ",n/a,Frontal,")
    sample = read(copied).one("patient00003")
    assert (sample.source["sex"], sample.source["age"], sample.source["projection"]) == (None, None, None)


def test_two_studies_of_a_patient_keep_their_own_labels(small: Download) -> None:
    found = [sample.id for sample in read(small.root).samples if sample.patient == "patient00002"]
    assert found == [
        f"chexpert-patient00002-{view}"
        for view in (
            "study1-view1_frontal-lung-opacity",
            "study1-view1_frontal-edema",
            "study1-view1_frontal-pleural-effusion",
            "study2-view1_frontal-lung-opacity",
            "study2-view1_frontal-atelectasis",
        )
    ]


def test_labels_of_other_labellers_are_not_read(downloads: dict[str, Download]) -> None:
    root, _ = downloads["B"]
    assert (root / "chexpertchestxrays-u20210408" / BATCH_1 / "train_cheXbert.csv").is_file()
    assert not read(root).reasons("cheXbert")
    assert read(root).counts["rows repeated"] == 0


def test_a_missing_batch_is_told(downloads: dict[str, Download], tmp_path: Path) -> None:
    root = Path(shutil.copytree(downloads["B"].root, tmp_path / "copy"))
    shutil.rmtree(root / "chexpertchestxrays-u20210408" / "CheXpert-v1.0 batch 3 (train 2)")
    found = read(root)
    assert 0 < found.counts["rows resolved"] < downloads["B"].manifest["frontal images"] - 20
    assert any("nor is any folder of the patient" in one.reason for one in found.skipped)


def test_both_prefixes_serve_for_batches(downloads: dict[str, Download], tmp_path: Path) -> None:
    """One report of the full-resolution release says that its zips share the folder CheXpert-v1.0."""
    root, manifest = downloads["A"]
    shutil.copytree(root / SMALL, tmp_path / "CheXpert-v1.0")
    table = tmp_path / "CheXpert-v1.0" / "train.csv"
    table.write_text(table.read_text().replace(SMALL, "CheXpert-v1.0"))
    assert CheXpert().locate(tmp_path) == ("A", tmp_path)
    assert read(tmp_path).ids == manifest["ids"]
    for number in (2, 3, 4):  # or a CheXpert-v1.0/train inside of each batch
        (tmp_path / "b" / f"CheXpert-v1.0 batch {number} (train {number - 1})").mkdir(parents=True)
    shutil.move(tmp_path / "CheXpert-v1.0", tmp_path / "b" / "CheXpert-v1.0 batch 2 (train 1)")
    assert read(tmp_path / "b").ids == manifest["ids"]


def test_chexlocalize_alone_is_a_test_set(downloads: dict[str, Download], tmp_path: Path) -> None:
    root, manifest = downloads["D"]
    shutil.copytree(root / "CheXpert", tmp_path / "CheXlocalize" / "CheXpert")
    house = tmp_path / "CheXlocalize" / "CheXpert"
    shutil.rmtree(house / "train")
    (house / "train.csv").unlink()
    found = read(tmp_path)
    assert CheXpert().locate(tmp_path).name == "D"
    assert found.ids == [one for one in manifest["ids"] if int(one[16:21]) >= 64541]
    assert {sample.part for sample in found.samples} == {"test"}
    assert not found.skipped
    header = (house / "test_labels.csv").read_text().splitlines()[0].split(",")
    assert header[1:] == list(reversed(FINDINGS)), "the trap is gone"


def test_chexlocalize_beside_chexpert_adds_the_test_set_once(downloads: dict[str, Download], tmp_path: Path) -> None:
    shutil.copytree(downloads["A"].root / SMALL, tmp_path / SMALL)
    shutil.rmtree(tmp_path / SMALL / "test")
    house = Path(shutil.copytree(downloads["D"].root / "CheXpert", tmp_path / "CheXlocalize" / "CheXpert"))
    shutil.rmtree(house / "train")
    (house / "train.csv").unlink()
    found = read(tmp_path)
    assert found.ids == downloads["A"].manifest["ids"]
    assert found.counts["rows repeated"] == 13  # the validation set lies in both
    assert not [one for one in found.skipped if "patient00004" not in one.reason]


def test_of_two_downloads_the_one_with_training_labels_is_read(downloads: dict[str, Download], tmp_path: Path) -> None:
    house = Path(shutil.copytree(downloads["D"].root / "CheXpert", tmp_path / "a" / "CheXpert"))
    (house / "train.csv").unlink()
    shutil.copytree(downloads["A"].root / SMALL, tmp_path / "b" / SMALL)
    shutil.copytree(house, tmp_path / "c" / "CheXpert")
    assert CheXpert().locate(tmp_path) == ("A", tmp_path / "b")


def test_labels_of_a_study_hold_for_all_its_views(small: Download) -> None:
    groups: dict[str, set[str]] = defaultdict(set)
    for sample in read(small.root, views="all").samples:
        if sample.patient >= "patient64741":
            groups[sample.patient].add(image_of(sample).rpartition("-")[2])
    assert groups["patient64741"] == {"view1_frontal", "view2_frontal", "view3_lateral"}
    frontal = {image_of(sample) for sample in read(small.root).samples if sample.patient == "patient64741"}
    assert frontal == {f"patient64741-study1-{view}" for view in ("view1_frontal", "view2_frontal")}
    assert (small.root / SMALL / "test/patient64741/study1/._view1_frontal.jpg").is_file(), "the trap is gone"


def test_a_row_about_an_image_comes_before_one_about_its_study(copied: Path) -> None:
    """Both official forms of the test labels may be there; each image counts once."""
    columns = ["Path", *FINDINGS]
    study_rows = list(csv.reader((copied / SMALL / "test" / "groundtruth.csv").open()))[1:]
    lines = [",".join(columns)] + [
        ",".join([f"test/{Path(row[0]).parent.name}/study1/view1_frontal.jpg", *row[1:]]) for row in study_rows
    ]
    (copied / SMALL / "test_labels.csv").write_text("\n".join(lines))
    found = read(copied)
    assert found.ids == read(copied.parent / "copy").ids and len(set(found.ids)) == len(found.ids)
    of_test = [sample for sample in found.samples if "view1" in sample.id and sample.patient >= "patient64741"]
    assert {sample.source["label_table"] for sample in of_test} == {f"{SMALL}/test_labels.csv"}
    second = found.one("patient64741-study1-view2_frontal")
    assert second.source["label_table"] == f"{SMALL}/test/groundtruth.csv"


# CheXpert Plus


@pytest.fixture
def plus(downloads: dict[str, Download], tmp_path: Path) -> Path:
    return Path(shutil.copytree(downloads["E"].root, tmp_path / "plus"))


def test_plus_prefers_labels_of_the_whole_report(plus: Path, downloads: dict[str, Download]) -> None:
    folder = plus / "chexbert_labels"
    found = read(plus)
    assert found.one("patient00002-study1-view1_frontal-edema").source["label_table"].endswith("report_fixed.json")
    assert found.counts["rows repeated"] == 1
    assert {one.source["label_source"] for one in found.samples if one.patient < "patient64741"} == {"report"}
    (folder / "report_fixed.json").rename(folder / "findings_fixed.json")
    (folder / "impression_fixed.json").unlink()
    assert read(plus).ids == downloads["E"].manifest["ids"]
    assert read(plus).samples[0].source["label_table"] == "chexbert_labels/findings_fixed.json"
    shutil.copy(folder / "findings_fixed.json", folder / "impression_fixed.json")
    assert read(plus).samples[0].source["label_table"] == "chexbert_labels/impression_fixed.json"


def test_plus_reads_png_and_dicom_although_the_table_says_jpg(plus: Path) -> None:
    kinds = defaultdict(set)
    for sample in read(plus).samples:
        kinds[Path(sample.image.path).suffix].add(sample.patient)
    assert kinds[".dcm"] == {"patient00002"} and len(kinds[".png"]) > 100 and set(kinds) == {".dcm", ".png"}
    dicom = plus / "DICOM" / "DICOM" / "train" / "patient00002"
    shutil.copytree(plus / "PNG/PNG/train/patient00001", plus / "DICOM/DICOM/train/patient00001")
    assert "/PNG/PNG/" in read(plus).samples[0].image.path
    assert dicom.is_dir() and read_image(read(plus).one("patient00002-study2-view1_frontal-ate").image).shape == (
        60,
        72,
    )


def test_plus_reports_rows_without_labels_and_bad_lines(plus: Path) -> None:
    file = plus / "chexbert_labels" / "report_fixed.json"
    lines = file.read_text().splitlines()
    lines[0], lines[1] = "{not json", json.dumps({"path_to_image": "train/patient00002/study2/view1_frontal.jpg"})
    file.write_text("\n".join(lines))
    found = read(plus)
    assert "no line of labels" in found.reasons("report_fixed.json line 1")[0]
    assert "KeyError" in found.reasons("report_fixed.json line 2")[0]
    # Reports run over several lines, so the first row ends on line 4 of the file.
    assert "has no labels in chexbert_labels/report_fixed.json" in found.reasons("240401.csv line 4")[0]
    assert not [one for one in found.ids if "patient00001" in one or "patient00002-study2" in one]


def test_plus_without_its_labels_says_so(plus: Path) -> None:
    shutil.rmtree(plus / "chexbert_labels")
    shutil.rmtree(plus / "test")
    with pytest.raises(CrossmedError, match=r"none of report_fixed\.json") as caught:
        read(plus)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


# Labels


@pytest.mark.parametrize(("policy", "blank"), [*product(("ignore", "zeros", "ones", "paper"), ("zero", "ignore"))])
def test_labels_under_each_policy(policy: str, blank: str, small: Download) -> None:
    signs = {"1": 1, "0": 0, "?": None}
    expected = small.manifest["labels"][f"{policy}/{blank}"]
    for name, image in small.manifest["images"].items():
        values = dict(zip(small.manifest["findings"], image["values"], strict=True))
        found = apply_policy(values, policy, blank)
        assert found == {one: signs[sign] for one, sign in zip(FINDINGS, expected[name], strict=True)}, name
    ids = {
        f"chexpert-{name}-{finding.lower().replace(' ', '-')}"
        for name in small.manifest["images"]
        if "frontal" in name
        for finding, sign in zip(FINDINGS, expected[name], strict=True)
        if sign == "1"
    }
    assert set(read(small.root, uncertain=policy, blank=blank, labels="all").ids) == ids


@pytest.mark.parametrize(
    "option", ["uncertain=zeros", "uncertain=ones", "uncertain=paper", "labels=competition", "labels=all", "views=all"]
)
def test_options_give_the_counts_of_the_manifest(option: str, small: Download) -> None:
    name, _, value = option.partition("=")
    counts = small.manifest["counts"]
    assert len(read(small.root, **{name: value}).samples) == counts[option]
    assert counts["uncertain=zeros"] == counts["default"] < counts["uncertain=paper"] < counts["uncertain=ones"]


def test_a_policy_per_finding(small: Download) -> None:
    found = {one for one in read(small.root, uncertain="edema=ones, Cardiomegaly=zeros").ids if "patient00002" in one}
    plain = {one for one in read(small.root).ids if "patient00002" in one}
    assert found - plain == {"chexpert-patient00002-study2-view1_frontal-edema"} and plain < found
    labels = apply_policy(
        {"Pleural Effusion": -1, "Edema": -1, "Fracture": -1}, "pleural_effusion=ones,edema=zeros", "zero"
    )
    assert (labels["Pleural Effusion"], labels["Edema"], labels["Fracture"]) == (1, 0, None)


@given(st.dictionaries(st.sampled_from(FINDINGS), st.sampled_from([1.0, 0.0, -1.0, None])), st.booleans())
def test_known_values_stay_whatever_the_policy(values: dict[str, float | None], zero: bool) -> None:
    for policy in ("ignore", "zeros", "ones", "paper"):
        labels = apply_policy(values, policy, "zero" if zero else "ignore")
        assert list(labels) == list(FINDINGS)
        for finding, label in labels.items():
            value = values.get(finding)
            if value in (0, 1):
                assert label == value
            elif value is None:
                assert label == (0 if zero else None)
            else:
                assert label in {"ignore": (None,), "zeros": (0,), "ones": (1,), "paper": (1, None)}[policy]


def test_cells_are_read_as_numbers() -> None:
    assert [parse_value(cell) for cell in ("1.0", "0", " -1.0 ", "", "nan", "NaN")] == [1, 0, -1, None, None, None]
    for cell in ("2", "0.5", "yes", "inf"):
        with pytest.raises(ValueError, match=cell):
            parse_value(cell)


# What may be offered as a wrong answer

EDGES = [  # arXiv 1901.07031, Fig. 1, written down a second time
    ("Enlarged Cardiomediastinum", "Cardiomegaly"), ("Lung Opacity", "Edema"), ("Lung Opacity", "Consolidation"),
    ("Lung Opacity", "Lung Lesion"), ("Lung Opacity", "Atelectasis"), ("Consolidation", "Pneumonia"),
]  # fmt: skip


def lines_of_descent() -> set[tuple[str, str]]:
    pairs = set(EDGES)
    while True:
        more = pairs | {(a, d) for a, b in pairs for c, d in pairs if b == c}
        if more == pairs:
            return pairs
        pairs = more


@given(
    st.dictionaries(st.sampled_from(FINDINGS), st.sampled_from([1.0, 0.0, -1.0])),
    st.sampled_from(["ignore", "zeros", "ones", "paper"]),
)
def test_possible_findings_against_brute_force(values: dict[str, float], policy: str) -> None:
    descent = lines_of_descent()
    truth = apply_policy(values, policy, "zero")
    stated = {one for one in FINDINGS if truth[one] == 1 or values.get(one) == -1}
    expected = stated | {above for above, one in descent if one in stated}
    expected |= {one for above, one in descent if above in stated and one not in values}
    assert possible(values, policy, "zero") == expected
    unknown = possible(values, policy, "ignore")
    assert expected <= unknown
    for finding in set(FINDINGS) - set(values) - expected:
        others = [one for one in FINDINGS if truth[one] == 1 and one != "Support Devices"]
        if finding == "No Finding":
            assert (finding in unknown) == (not others)
        else:
            assert (finding in unknown) == (truth["No Finding"] != 1 or finding == "Support Devices")


def test_distractors_by_hand(small: Download) -> None:
    found = read(small.root)
    # study1: cardiomegaly 0, opacity 1, edema 1, consolidation -1, effusion 1; the lesion, atelectasis and
    # pneumonia lie below an opacity that the report names, and are blank.
    edema = found.one("patient00002-study1-view1_frontal-edema")
    assert edema.excluded == (
        "lung opacity", "lung lesion", "consolidation", "pneumonia", "atelectasis", "pleural effusion",
    )  # fmt: skip
    # study2: cardiomegaly -1 bars the blank mediastinum above it; consolidation is 0 and fair.
    atelectasis = found.one("patient00002-study2-view1_frontal-atelectasis")
    assert atelectasis.excluded == (
        "enlarged cardiomediastinum", "cardiomegaly", "lung opacity", "lung lesion", "edema", "pneumonia",
        "pleural effusion",
    )  # fmt: skip
    assert found.one("patient00001-study1-view1_frontal-no-finding").excluded == ()
    devices = read(small.root, labels="all").one("patient00001-study1-view1_frontal-no-finding")
    assert devices.excluded == ("support devices",)


def test_what_a_finding_is_a_kind_of_is_no_distractor_though_the_table_denies_it(copied: Path) -> None:
    table = copied / SMALL / "train.csv"
    row = "Unknown,0,Frontal,LL"
    edit(table, row + "," * 14, row + ",,,,0.0,,1.0" + "," * 8)  # edema beside "no opacity"
    assert read(copied).one("patient00003").excluded == ("lung opacity",)
    edit(table, row + ",,,,0.0,,1.0" + "," * 8, row + ",,,,0.0,0.0,,0.0,-1.0,,,,,1.0,")  # pneumonia perhaps
    assert read(copied).one("patient00003").excluded == ("lung opacity", "consolidation", "pneumonia")
    edit(table, row + ",,,,0.0,0.0,,0.0,-1.0,,,,,1.0,", row + ",,,,1.0,0.0,,0.0,,,,,,,")  # a 0 below is believed
    assert read(copied).one("patient00003").excluded == ("edema", "pneumonia", "atelectasis")


def test_no_question_asks_what_a_report_mentions() -> None:
    """What it mentions as absent is mentioned too, and the official sets were labelled without one."""
    (question,) = CheXpert().questions().values()
    assert not re.search("report|mention", " ".join((*question.templates, *question.neutral)), re.IGNORECASE)


def test_uncertain_findings_are_no_distractors_even_as_zeros(small: Download) -> None:
    sample = read(small.root, uncertain="zeros").one("patient00002-study2-view1_frontal-atelectasis")
    assert {"cardiomegaly", "edema", "pleural effusion"} <= set(sample.excluded)


def test_findings_that_are_not_asked_still_bar_their_relatives(copied: Path) -> None:
    """Pneumonia is a consolidation, also where only the five competition tasks are asked."""
    table = copied / SMALL / "train.csv"
    edit(table, "Unknown,0,Frontal,LL" + "," * 14, "Unknown,0,Frontal,LL,,,,,,,,1.0,,,1.0,,,")
    assert read(copied, labels="competition").one("patient00003").excluded == ("consolidation",)


def test_unmentioned_findings_are_no_distractors_if_unknown(small: Download) -> None:
    found = read(small.root, blank="ignore")
    question = CheXpert().questions()[CELL]
    healthy = found.one("patient00001-study1-view1_frontal-no-finding")
    assert healthy.excluded == ()
    sick = found.one("patient00002-study1-view1_frontal-edema")
    assert set(question.labels) - set(sick.excluded) - {"edema"} == {"no finding", "cardiomegaly"}


def test_every_question_of_every_option_can_be_asked(small: Download) -> None:
    for labels, neutral in product(("findings", "competition", "all"), (False, True)):
        dataset = CheXpert(labels=labels)
        (question,) = dataset.questions().values()
        assert len(question.labels) == {"findings": 13, "competition": 5, "all": 14}[labels]
        assert len(question.templates) == len(question.neutral) >= 6
        if neutral:
            assert not re.search(r"x-?ray|chest|lung|heart|radiograph", " ".join(question.neutral), re.IGNORECASE)
            assert all("{modality}" in one and "{anatomy}" in one for one in question.templates)
        for sample in read(small.root, labels=labels).samples:
            if labels != "competition":
                item = make_item(sample, question, dataset="chexpert")
                assert item.label in item.options and not set(item.options) & set(sample.excluded)


# Parts


def test_parts(small: Download) -> None:
    patients = {name: set(ids) for name, ids in small.manifest["patients"].items()}
    parts = {test: dict[str, str]() for test in ("held-out", "official")}
    for test, of_patient in parts.items():
        for sample in read(small.root, test=test).samples:
            assert of_patient.setdefault(sample.patient, sample.part or "") == sample.part
    for of_patient in parts.values():
        assert all(of_patient[one] == "test" for one in patients["valid"] | patients["test"])
    held_out = {one for one, part in parts["held-out"].items() if part == "test" and one in patients["train"]}
    assert len(held_out) >= 20
    for patient in patients["train"] & set(parts["official"]):
        assert parts["official"][patient] == ("train" if patient in held_out else parts["held-out"][patient])


def test_official_patients_are_tested_before_those_held_out(small: Download) -> None:
    official = {one for split in ("valid", "test") for one in small.manifest["patients"][split]}
    for test in ("held-out", "official"):
        found = read(small.root, test=test).samples
        assert {one.priority for one in found if one.patient in official or one.part != "test"} == {0}
        held_out = {one.priority for one in found if one.part == "test" and one.patient not in official}
        assert held_out == ({1} if test == "held-out" else set())


def test_nine_of_ten_official_patients_train() -> None:
    dataset = CheXpert(test="official")
    drawn = Counter(dataset._drawn(f"patient{number:05d}") for number in range(1, 20001))
    assert set(drawn) == {"train", "val"} and 0.09 < drawn["val"] / 20000 < 0.11


def test_a_patient_of_the_official_sets_never_trains(copied: Path) -> None:
    rows = (copied / SMALL / "train.csv").read_text().splitlines()
    trained = next(
        sample for sample in read(copied).samples if sample.part == "train" and sample.patient > "patient00004"
    )
    with (copied / SMALL / "valid.csv").open("a") as table:
        table.write(
            f"CheXpert-v1.0/valid/{trained.patient}/study9/view1_frontal.jpg," + rows[1].partition(",")[2] + "\n"
        )
    found = [one for one in read(copied).samples if one.patient == trained.patient]
    assert {(one.part, one.priority) for one in found} == {("test", 0)}


# Paths


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (
            "CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg",
            ("train", "patient00002", "study1", "view2_lateral.jpg"),
        ),
        ("CheXpert-v1.0/test/patient64741/study1", ("test", "patient64741", "study1", None)),
        (
            "train/patient42142/study5/view1_frontal.jpg",
            ("train", "patient42142", "study5", "view1_frontal.jpg"),
        ),
        (r"D:\data\CheXpert-v1.0\val\patient64541\study1\view1_frontal.png",
         ("valid", "patient64541", "study1", "view1_frontal.png")),
    ],
)  # fmt: skip
def test_paths(text: str, meaning: tuple[str | None, ...]) -> None:
    assert parse_path(text) == meaning


@pytest.mark.parametrize(
    "text",
    [
        "",
        "patient00002/study1/view1_frontal.jpg",
        "pretrain/patient00002/study1/view1_frontal.jpg",
        "train/patient002/study1/view1_frontal.jpg",
        "train/patient000021/study1/view1_frontal.jpg",
        "train/patient00002/study1/view1_frontal.jpg/",
        "train/patient00002/study1/view1_frontal (1).jpg",
        "train/patient00002/view1_frontal.jpg",
        "train/patient00002/study1/view1.jpg",
    ],
)
def test_what_is_no_path_is_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="is not like") as caught:
        parse_path(text)
    assert repr(text) in str(caught.value)


@given(
    st.sampled_from(["", "CheXpert-v1.0/", "CheXpert-v1.0-small/", "/mnt/x/CheXpert-v1.0/", "some folder/"]),
    st.sampled_from(["train", "valid", "val", "test"]),
    st.integers(0, 99999),
    st.integers(1, 99),
    st.integers(1, 9),
    st.sampled_from(["frontal", "lateral"]),
    st.sampled_from(["jpg", "png"]),
    st.booleans(),
)
def test_paths_are_read_back(
    prefix: str, split: str, patient: int, study: int, view: int, side: str, kind: str, windows: bool
) -> None:
    path = f"{prefix}{split}/patient{patient:05d}/study{study}/view{view}_{side}.{kind}"
    found = parse_path(path.replace("/", "\\") if windows else path)
    split = {"val": "valid"}.get(split, split)
    assert found == (split, f"patient{patient:05d}", f"study{study}", f"view{view}_{side}.{kind}")


# Where it lies


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_found_below_and_beside_others(layout: str, downloads: dict[str, Download], tmp_path: Path) -> None:
    root, manifest = downloads[layout]
    for other in ("aaa/pneumothorax", "zzz/MICCAI_BraTS2020_TrainingData/BraTS20_Training_001", "test", "train"):
        (tmp_path / other).mkdir(parents=True)
    (tmp_path / "aaa" / "train.csv").write_text("ImageId,EncodedPixels\nx,-1\n")
    (tmp_path / "test" / "test.csv").write_text("id\n1\n")
    shutil.copytree(root, tmp_path / "data" / "mine")
    assert CheXpert().locate(tmp_path).name == layout
    assert read(tmp_path).ids == manifest["ids"]


def test_the_version_folder_itself_is_a_root(small: Download) -> None:
    assert CheXpert().locate(small.root / SMALL) == ("A", small.root / SMALL)
    assert read(small.root / SMALL).ids == small.manifest["ids"]


def test_a_relative_root_gives_absolute_paths(small: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.root)
    assert all(Path(sample.image.path).is_file() for sample in read(Path(SMALL)).samples)
    assert Path(read(Path()).samples[0].image.path).is_absolute()


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("train.csv", "ImageId,EncodedPixels"),
        ("train.csv", "Path,label"),
        ("mimic-cxr-2.0.0-chexpert.csv", "subject_id,study_id," + ",".join(FINDINGS)),
        ("train.csv", "subject_id,study_id," + ",".join(FINDINGS)),
        ("chexpert_train.csv", "Path," + ",".join(FINDINGS)),
    ],
)
def test_folders_of_other_datasets_are_not_claimed(name: str, header: str, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / name).write_text(header + "\n")
    with pytest.raises(CrossmedError) as caught:
        CheXpert().locate(tmp_path)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    for text in (
        "CheXpert-v1.0-small/",
        "batch 1",
        "val_labels.csv",
        "df_chexpert_plus",
        f"Found instead: {min(name, 'train/')}",
    ):
        assert text in caught.value.message


def test_not_here_is_another_error_than_broken(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for root in (tmp_path / "photos", tmp_path / "nowhere"):
        with pytest.raises(DownloadNotFoundError):
            list(CheXpert().verify(root))
    for table in (copied / SMALL).rglob("*.csv"):
        table.write_bytes(b"\xff\xff")
    assert "differs" in {check.verdict for check in CheXpert().verify(copied)}
    with pytest.raises(CrossmedError) as caught:
        read(copied)
    assert not isinstance(caught.value, DownloadNotFoundError)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(CrossmedError, match="No such file"):
        read(tmp_path / "nowhere")


def test_images_without_tables_and_tables_without_images(copied: Path) -> None:
    shutil.rmtree(copied / SMALL / "train")
    shutil.rmtree(copied / SMALL / "valid")
    shutil.rmtree(copied / SMALL / "test")
    with pytest.raises(CrossmedError, match=re.escape(str(copied))) as caught:
        read(copied)
    assert "was found" in caught.value.message and caught.value.exit_code == ExitCode.ENVIRONMENT
    for table in (copied / SMALL).glob("*.csv"):
        table.unlink()
    with pytest.raises(CrossmedError, match="holds no chexpert download"):
        read(copied)


def test_nothing_resolved_says_where_it_looked(copied: Path) -> None:
    for image in copied.rglob("*.jpg"):
        image.unlink()
    with pytest.raises(CrossmedError, match=re.escape(str(copied / SMALL / "train"))):
        read(copied)


# What is wrong in a download


def test_many_missing_images_are_summed_up(copied: Path) -> None:
    present = sorted((copied / SMALL / "train").iterdir())
    gone = [folder for folder in present if folder.name > "patient00020"][:70]
    for folder in gone:
        shutil.rmtree(folder)
    found = read(copied)
    singles = [one for one in found.skipped if " line " in one.where]
    (summary,) = [one for one in found.skipped if " line " not in one.where]
    total = found.counts["rows labelled"] - found.counts["rows resolved"] - found.counts["lateral rows left out"]
    assert total > 50 == len(singles)
    assert summary.where == f"{SMALL}/train.csv"
    assert re.fullmatch(
        rf"{total - 50} more rows without an image; is a batch missing\?, patient\d+ to {gone[-1].name}", summary.reason
    )


def test_bad_rows_are_skipped_with_their_reason(copied: Path) -> None:
    table = copied / SMALL / "train.csv"
    good = read(copied)
    row = f"{SMALL}/train/patient00001/study2/view1_frontal.jpg,Male,50,Frontal,AP,"
    extra = [
        row.replace("patient00001", "patient1") + "1.0" + "," * 13,
        row + "1.5" + "," * 13,
        row + "1.0",
        "",
    ]
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines + extra) + "\n")
    found = read(copied)
    assert found.ids == good.ids
    new = [one for one in found.skipped if one not in good.skipped]
    assert [one.where for one in new] == [f"{SMALL}/train.csv line {len(lines) + place}" for place in (1, 2, 3)]
    assert "patient1/study2" in new[0].reason
    assert "No Finding: '1.5' is none of 1, 0, -1 and blank" in new[1].reason
    assert "6 of 19 columns" in new[2].reason


def test_chexlocalize_calls_an_opacity_airspace_opacity(downloads: dict[str, Download], tmp_path: Path) -> None:
    shutil.copytree(downloads["D"].root, tmp_path / "copy")
    edit(tmp_path / "copy" / "CheXpert" / "test_labels.csv", "Lung Opacity", "Airspace Opacity")
    assert read(tmp_path).ids == downloads["D"].manifest["ids"]


def test_columns_are_read_by_name(copied: Path) -> None:
    table = copied / SMALL / "train.csv"
    before = read(copied).ids
    rows = list(csv.DictReader(table.open(newline="")))
    names = ["", *reversed(rows[0])]  # with an index, as pandas writes it
    with table.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows({"": number, **row} for number, row in enumerate(rows))
    assert read(copied).ids == before
    valid = copied / SMALL / "valid.csv"
    valid.write_text(valid.read_text(), encoding="utf-8-sig")  # as a spreadsheet saves it
    assert read(copied).ids == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\x00\xff\xfe\x80garbage", "cannot be read beyond line 0"),
        (b"Path,Sex\nx,y\n", "lacks the columns No Finding"),
        (b"PK\x03\x04 zip", "lacks the columns Path"),
    ],
)
def test_an_unreadable_table_is_told_and_the_others_are_read(content: bytes, reason: str, copied: Path) -> None:
    official = {one for one in read(copied).ids if "patient64" in one}
    (copied / SMALL / "train.csv").write_bytes(content)
    found = read(copied)
    assert found.reasons("train.csv")[0].startswith(reason)
    assert set(found.ids) == official
    assert "patients have no row in any label table" in found.reasons(f"{SMALL}/train")[-1]


def test_no_readable_table_ends_the_reading(copied: Path) -> None:
    for table in (copied / SMALL).rglob("*.csv"):
        table.write_bytes(b"\xff\xff")
    with pytest.raises(CrossmedError, match="no label of CheXpert could be read"):
        read(copied)
    for table in (copied / SMALL).rglob("*.csv"):
        table.unlink()
        table.mkdir()
    with pytest.raises(CrossmedError, match="not a regular file"):
        read(copied)


def test_a_table_cut_off_within_a_character_keeps_its_rows(copied: Path) -> None:
    table = copied / SMALL / "train.csv"
    whole = set(read(copied).ids)
    filler = b"CheXpert-v1.0-small/train/patient00003/study1/view1_frontal.jpg,Male,50,Frontal,AP" + b"," * 14 + b"\n"
    table.write_bytes(table.read_bytes() + filler * 400 + b"\xc3")
    found = read(copied)
    assert set(found.ids) == whole
    last = table.read_bytes().count(b"\n") + 1
    assert found.reasons(f"train.csv line {last}") == ["holds bytes that are not UTF-8 text; download it again"]


def test_what_is_no_regular_file_is_not_opened(copied: Path, irregular: Callable[[Path], None]) -> None:
    official = {one for one in read(copied).ids if "patient64" in one}
    irregular(copied / SMALL / "train.csv")
    found = read(copied)
    assert found.reasons("train.csv") == ["cannot be read beyond line 0: not a regular file; download it again"]
    assert set(found.ids) == official
    assert any("not a regular file" in check.found for check in CheXpert().verify(copied))
    for table in [one for one in (copied / SMALL).rglob("*.csv") if one.is_file()]:
        irregular(table)
    with pytest.raises(CrossmedError, match="not a regular file"):
        read(copied)


def test_an_irregular_table_is_no_sign_of_a_download(tmp_path: Path, irregular: Callable[[Path], None]) -> None:
    (tmp_path / "train.csv").touch()
    irregular(tmp_path / "train.csv")
    with pytest.raises(DownloadNotFoundError):
        read(tmp_path)


def test_irregular_labels_of_plus_are_not_opened(plus: Path, irregular: Callable[[Path], None]) -> None:
    for name in ("report_fixed.json", "impression_fixed.json", "findings_fixed.json"):
        if (plus / "chexbert_labels" / name).exists():
            irregular(plus / "chexbert_labels" / name)
    assert any("has no labels" in one.reason for one in read(plus).skipped)


ROW = f"{SMALL}/train/patient00001/study2/view1_frontal.jpg,Male,50,Frontal,AP,{'1.0' + ',' * 13}"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW.replace("Male", "M\udcff"), "holds bytes that are not UTF-8 text"),
        (ROW.replace("train/", "train\udcff/"), "holds bytes that are not UTF-8 text"),
        (ROW.replace("Male", "x" * 140_000), "field larger than field limit"),
        (ROW.replace("Male", '"Male'), "quotation mark that is not closed"),
        (ROW.replace("study2", "study" + "2" * 5000), "is not like"),
        (ROW.replace("view1", "view" + "1" * 5000), "is not like"),
        (ROW.replace("1.0", "1" * 5000), "is none of 1, 0, -1 and blank"),
    ],
    ids=["byte", "byte in the path", "long field", "open quotation", "study", "view", "label"],
)
@pytest.mark.parametrize("place", [1, 7, -2])
@pytest.mark.parametrize("more", [0, 2000], ids=["short table", "more behind it than a field may hold"])
def test_a_bad_row_costs_nothing_but_itself(row: str, reason: str, place: int, more: int, copied: Path) -> None:
    table = copied / SMALL / "train.csv"
    good = read(copied)
    lines = table.read_text().splitlines()
    place %= len(lines) + 1
    lines.insert(place, row)
    table.write_bytes("\n".join([*lines, *lines[-1:] * more, ""]).encode(errors="surrogateescape"))
    found = read(copied)
    assert found.ids == good.ids and found.counts["rows resolved"] == good.counts["rows resolved"]
    (told,) = found.reasons(f"{SMALL}/train.csv line {place + 1}")
    assert reason in told and len(told) < 500
    told.encode()  # a report can hold it
    assert len(found.skipped) == len(good.skipped) + 1
    assert any(reason in check.found for check in CheXpert().verify(copied))


def test_plus_goes_on_behind_a_bad_byte(plus: Path) -> None:
    file = plus / "chexbert_labels" / "report_fixed.json"
    good = read(plus)
    file.write_bytes(b'{"path_to_image": "\xff"}\n' + b"[" * 100_000 + b"\n" + file.read_bytes())
    found = read(plus)
    assert found.ids == good.ids
    assert "not UTF-8 text" in found.reasons("report_fixed.json line 1")[0]
    assert "RecursionError" in found.reasons("report_fixed.json line 2")[0]


def test_rows_that_repeat_with_other_labels_are_told(copied: Path) -> None:
    with (copied / SMALL / "train.csv").open("a") as table:
        table.write(f"{SMALL}/train/patient00001/study1/view1_frontal.jpg,Male,50,Frontal,AP" + "," * 10 + "1.0,,,,\n")
    found = read(copied)
    assert found.counts["rows repeated"] == 1
    assert any("labels differ from those of" in one.reason for one in found.skipped)
    assert found.one("patient00001").label == "no finding"


def test_patients_without_labels_are_told(copied: Path) -> None:
    (copied / SMALL / "test" / "groundtruth.csv").unlink()
    found = read(copied)
    (reason,) = found.reasons(f"{SMALL}/test")
    assert reason.startswith("13 patients have no row") and "groundtruth.csv" in reason


def test_junk_and_loops(copied: Path, small: Download) -> None:
    house = copied / SMALL
    for folder in (house, house / "train", house / "train" / "patient00001" / "study1", house / "__MACOSX"):
        folder.mkdir(exist_ok=True)
        for name in ("._train.csv", ".DS_Store", "Thumbs.db", "._view1_frontal.jpg", "._patient00001"):
            (folder / name).write_bytes(b"\0\1")
    (house / "train" / "loop").symlink_to(house)
    (house / "CheXpert").symlink_to(house)
    (house / "CheXlocalize").symlink_to("CheXlocalize")
    (house / "train" / "patient00001" / "study1" / "view2_frontal.jpg").symlink_to("gone.jpg")
    (house / "train" / "patient00001" / "study7").symlink_to("study7")
    found = read(copied)
    assert found.ids == small.manifest["ids"]
    assert not [one for one in found.skipped if "._" in one.where]


def test_suffixes_in_any_case_and_of_any_kind(copied: Path, small: Download) -> None:
    study = copied / SMALL / "train/patient00002/study1"
    (study / "view1_frontal.jpg").rename(study / "view1_frontal.JPG")
    study2 = copied / SMALL / "train/patient00002/study2"
    (study2 / "view1_frontal.jpg").rename(study2 / "view1_frontal.jpeg")
    assert read(copied).ids == small.manifest["ids"]
    (study2 / "view1_frontal.png").write_bytes(b"also there")
    assert read(copied).one("00002-study2-view1_frontal-atelectasis").image.path.endswith(".jpeg")
    (study2 / "view1_frontal.jpeg").unlink()
    (study2 / "view1_frontal.png").unlink()
    (study2 / "view1_frontal.jpg").mkdir()  # a folder is no image
    assert not [one for one in read(copied).ids if "patient00002-study2" in one]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reading_and_verifying_write_nothing(layout: str, downloads: dict[str, Download]) -> None:
    root, _ = downloads[layout]
    before = tree(root)
    read(root, views="all")
    list(CheXpert().verify(root))
    assert tree(root) == before


def test_samples_come_one_by_one(small: Download) -> None:
    stream = CheXpert().samples(small.root)
    assert isinstance(next(one for one in stream if isinstance(one, Sample)), Sample)


# Options


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("uncertain", "one", "ones"),
        ("uncertain", "edma=ones", "edema"),
        ("uncertain", "edema=maybe", "'maybe'"),
        ("uncertain", "edema=ones,", "''"),
        ("uncertain", "", "ignore, zeros, ones, paper"),
        ("uncertain", None, "must be text"),
        ("blank", "zeros", "zero"),
        ("labels", "finding", "findings"),
        ("views", "lateral", "frontal, all"),
        ("test", "offical", "official"),
        ("test", 1, "held-out, official"),
        ("views", ["all"], "frontal, all"),
    ],
)
def test_bad_options_name_what_is_allowed(option: str, value: object, said: str) -> None:
    with pytest.raises(CrossmedError) as caught:
        CheXpert(**{option: value})  # type: ignore[arg-type]
    assert option in str(caught.value) and repr(value) in str(caught.value) and said in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_bad_layout_of_the_fixture(tmp_path: Path) -> None:
    with pytest.raises(CrossmedError, match="layout must be one of A, B, C, D, E, not 'F'"):
        CheXpert().write_fixture(tmp_path, layout="F")


# Published facts


def test_published_facts_agree_with_each_other() -> None:
    assert sum(published.TRAIN[view] for view in ("frontal", "lateral")) == published.TRAIN["rows"]
    for finding, counts in published.LABEL_COUNTS.items():
        assert sum(counts) == published.TRAIN["rows"], finding
    assert list(published.LABEL_COUNTS) == list(FINDINGS)
    rows = published.TRAIN["rows"] + published.VALID["rows"] + published.TEST["images"]
    patients = published.TRAIN["patients"] + published.VALID["patients"] + published.TEST["patients"]
    assert (rows, patients) == (224_316, 65_240)  # the paper's totals


def test_verify_against_an_independent_count(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = {check.what: check.verdict for check in CheXpert().verify(copied)}
    assert verdicts["training rows"] == verdicts["validation rows"] == verdicts["training labels: Edema"] == "differs"
    assert verdicts["SHA-256 of train.csv"] == "hint"
    tables = {
        name: list(csv.DictReader((copied / SMALL / f"{name}.csv").open(newline=""))) for name in ("train", "valid")
    }
    paths = [row["Path"].replace("\\", "/").split("/") for row in tables["train"]]
    lateral = sum(row["Frontal/Lateral"] == "Lateral" for row in tables["train"])
    counted = {
        "rows": len(paths), "patients": len({path[2] for path in paths}), "lateral": lateral,
        "studies": len({(path[2], path[3]) for path in paths}), "frontal": len(paths) - lateral,
    }  # fmt: skip
    monkeypatch.setattr(published, "TRAIN", {name: counted[name] for name in published.TRAIN})
    labels = {
        finding: tuple(sum(row[finding] == cell for row in tables["train"]) for cell in ("1.0", "0.0", "-1.0", ""))
        for finding in FINDINGS
    }
    monkeypatch.setattr(published, "LABEL_COUNTS", labels)
    monkeypatch.setattr(published, "VALID", {"rows": 13, "patients": 13, "frontal": 13})
    monkeypatch.setattr(published, "TEST", {"images": 17, "patients": 13})
    monkeypatch.setattr(published, "FOLDERS", {"train": counted["patients"], "valid": 13, "test": 13})
    digest = hashlib.sha256((copied / SMALL / "train.csv").read_bytes()).hexdigest()
    monkeypatch.setattr(published, "TRAIN_SHA256", digest)
    checks = list(CheXpert().verify(copied))
    assert len(checks) >= 5 + 14 + 1 + 3 + 1 + 3
    assert {check.verdict for check in checks} == {"ok"}, [check for check in checks if check.verdict != "ok"]
    shutil.rmtree(copied / SMALL / "train" / "patient00001")
    edit(copied / SMALL / "train.csv", "1.0,,,,,,0.0", "0.0,,,,,,0.0")
    worse = {check.what: check.verdict for check in CheXpert().verify(copied) if check.verdict != "ok"}
    assert worse == {
        "training labels: No Finding": "differs", "SHA-256 of train.csv": "hint",
        "folders of train patients": "differs",
    }  # fmt: skip


def test_verify_of_plus_gives_hints_and_of_chexlocalize_no_fault(
    downloads: dict[str, Download], tmp_path: Path
) -> None:
    plus = {check.what: check.verdict for check in CheXpert().verify(downloads["E"].root)}
    assert plus["images with labels in CheXpert Plus"] == plus["patients of CheXpert Plus"] == "hint"
    house = Path(shutil.copytree(downloads["D"].root / "CheXpert", tmp_path / "CheXpert"))
    shutil.rmtree(house / "train")
    (house / "train.csv").unlink()
    verdicts = {check.what: check.verdict for check in CheXpert().verify(tmp_path)}
    assert verdicts["training rows"] == "hint" and verdicts["test patients"] == "differs"
    assert "folders of train patients" not in verdicts


def test_verify_counts_the_patients_of_all_batches(downloads: dict[str, Download]) -> None:
    found = {check.what: check.found for check in CheXpert().verify(downloads["B"].root)}
    for split, patients in downloads["B"].manifest["patients"].items():
        assert found[f"folders of {split} patients"] == str(len(patients))


def test_verify_shows_damaged_tables(copied: Path) -> None:
    (copied / SMALL / "valid.csv").write_bytes(b"")
    assert ("CheXpert-v1.0-small/valid.csv", "is empty; download it again") in {
        (check.what, check.found) for check in CheXpert().verify(copied) if check.verdict == "differs"
    }


# The fixture


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fixture_is_small_and_the_same_for_a_seed(layout: str, downloads: dict[str, Download], tmp_path: Path) -> None:
    files = tree(downloads[layout].root)
    assert sum(path.stat().st_size for path in downloads[layout].root.rglob("*") if path.is_file()) < 2_000_000
    CheXpert().write_fixture(tmp_path, layout=layout)
    assert tree(tmp_path) == files
    if layout == "A":
        (tmp_path / "other").mkdir()
        CheXpert().write_fixture(tmp_path / "other", seed=1)
        other = tree(tmp_path / "other")
        assert other.keys() == files.keys()
        assert not [
            name
            for name, digest in other.items()
            if name.endswith("frontal.jpg") and files[name] == digest and "._" not in name
        ]


def test_fixture_is_enough_to_train_on(small: Download) -> None:
    patients: dict[tuple[str | None, str | None], set[str]] = defaultdict(set)
    for sample in read(small.root).samples:
        patients[sample.part, sample.label] = patients[sample.part, sample.label] | {sample.patient}
    for label in CheXpert().questions()[CELL].labels:
        assert all(len(patients[part, label]) >= 2 for part in ("train", "val", "test")), label


def test_pixels_differ_and_carry_a_hint(small: Download) -> None:
    single: dict[str, list[tuple[str, np.ndarray]]] = {"train": [], "test": []}
    digests = set()
    images = set()
    for sample in read(small.root).samples:
        pixels = read_image(sample.image)
        digests.add(pixel_digest(pixels))
        images.add(sample.image.path)
        if sample.part in single and pixels.shape == (60, 72) and len(sample.source) and sample.label:
            single[sample.part].append((sample.label, pixels.astype(float)))
    assert len(digests) == len(images) > 150
    means = {
        label: np.mean([pixels for other, pixels in single["train"] if other == label], axis=0)
        for label in {label for label, _ in single["train"]}
    }
    right = sum(
        min(means, key=lambda label: float(((means[label] - pixels) ** 2).sum())) == truth
        for truth, pixels in single["test"]
    )
    assert right / len(single["test"]) > 0.35  # one of 13 by chance; several labels of an image are true


def test_specific_labels_leave_out_what_is_above_others() -> None:
    (question,) = CheXpert(labels="specific").questions().values()
    (all_findings,) = CheXpert(labels="findings").questions().values()
    assert set(all_findings.labels) - set(question.labels) == {"lung opacity", "enlarged cardiomediastinum"}

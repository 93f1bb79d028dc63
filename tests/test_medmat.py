"""Med-MAT: every item as the authors ask it, in the cell of its subset, and never a guess."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crossmed_core.errors import CrossmedError, DownloadNotFoundError, ExitCode
from crossmed_core.images import pixel_digest, read_image
from crossmed_core.parts import part_of
from crossmed_core.questions import Asking, make_item, wording
from crossmed_core.reading import samples_of
from crossmed_core.types import Counted, Sample, Skipped, person
from crossmed_core.vocabulary import ANATOMIES, MODALITIES, canonical
from crossmed_plugins.chexpert.dataset import CheXpert
from crossmed_plugins.medmat import tables
from crossmed_plugins.medmat.dataset import JsonFile, MedMat
from crossmed_plugins.medmat.entry import Entry, Refused, read_entry, read_options

INSTRUCTION = "Answer with the option's letter from the given choices directly."


# -- helpers ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("medmat")
    MedMat().write_fixture(root)
    return root


@pytest.fixture
def mini(forged: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(forged, tmp_path / "mini"))


def manifest(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "manifest.json").read_text())
    return content


def read(root: Path, **options: Any) -> tuple[dict[str, Sample], list[Skipped], Counter[str]]:
    found = list(MedMat(**options).samples(root))
    counts: Counter[str] = Counter()
    for one in found:
        if isinstance(one, Counted):
            counts[one.what] += one.n
    samples = [one for one in found if isinstance(one, Sample)]
    assert len({one.id for one in samples}) == len(samples)
    return {one.id: one for one in samples}, [one for one in found if isinstance(one, Skipped)], counts


def item(number: int = 0, options: tuple[str, ...] = ("Stone", "Cyst"), place: int = 1, **changed: Any) -> dict:
    """An object as the README of Med-MAT shows it, written by hand."""
    lines = [f"{letter}: {option}" for letter, option in zip("ABCD", options, strict=False)]
    return {
        "id": number,
        "caption": options[place],
        "image": f"med-mat/CT_Kindney_Dataset/CT/Cyst/Cyst- ({number}).jpg",
        "Question": "Review this kidney CT scan and determine the possible condition it represents.",
        "Answer": options[place],
        "Question-choice": "\n".join(["Review this kidney CT scan.", *lines, INSTRUCTION]),
        "Answer-choice": "ABCD"[place],
        "data-no": "2",
        **changed,
    }


def download(root: Path, files: dict[str, Any]) -> Path:
    """Write question files and, for every well-formed item, an image."""
    for number, (name, content) in enumerate(files.items()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
        for place, one in enumerate(content if isinstance(content, list) else ()):
            image = root / one["image"]
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 100 * number + place, np.uint8)).save(image)
    return root


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


# -- the fixture against its manifest ----------------------------------------------------------------


@pytest.mark.parametrize("form", ["subsets", "original"])
def test_samples_are_those_of_the_manifest(forged: Path, form: str) -> None:
    expected = manifest(forged)[form]["samples"]
    samples, _, _ = read(forged, files=form)
    assert samples.keys() == expected.keys()
    for name, sample in samples.items():
        known = expected[name]
        assert str(sample.mat) == known["cell"]
        assert sample.image.path == str(forged / known["image"])
        assert Path(sample.image.path).is_file()
        assert (sample.question, list(sample.options), sample.label) == (
            known["question"],
            known["options"],
            known["label"],
        )
        assert sample.patient == known["patient"]
        assert (sample.part, sample.excluded, sample.mask) == (known["part"], (), None)
        for key in ("file", "data_no", "multi_label", "true_in_distractors", "patient_known"):
            assert sample.source[key] == known[key], (name, key)
        assert all(isinstance(value, str | int | float | None) for value in sample.source.values())


def test_refused_items_are_named_with_file_position_and_id(forged: Path) -> None:
    _, skipped, counts = read(forged)
    refused = manifest(forged)["subsets"]["refused"]
    assert {kind: counts[kind] for kind in {one["kind"] for one in refused}} == Counter(one["kind"] for one in refused)
    rows = {one.where: one.reason for one in skipped}
    lacking = 0
    for one in refused:
        where = f"Aggregated_Subsets/{one['file']} item {one['item']}"
        where += "" if one["id"] is None else f" (id {one['id']})"
        lacking += where not in rows
        if one["kind"] == "label disagreements":
            assert "'Edema'" in rows[where] and "'No Finding'" in rows[where]
    assert lacking == 5  # of 25 missing images of one dataset, 20 are named


def test_counts_add_up(forged: Path) -> None:
    for form in ("subsets", "original"):
        expected = manifest(forged)[form]
        samples, _, counts = read(forged, files=form)
        assert counts["rows found"] == expected["rows"]
        assert counts["rows resolved"] == len(samples) == len(expected["samples"])
        assert counts["images found"] == len({one["image"] for one in expected["samples"].values()})
        partly = sum(one["true_in_distractors"] > 0 for one in expected["samples"].values())
        assert counts["rows with a partly true distractor"] == partly > 0
        missing = sum(one["kind"] == "rows without their image" for one in expected["refused"])
        assert counts["rows labelled"] == len(samples) + missing
        assert counts["rows found"] == len(samples) + len(expected["refused"])


def test_files_that_cannot_be_read_are_rows_of_the_report(forged: Path) -> None:
    for form in ("subsets", "original"):
        _, skipped, _ = read(forged, files=form)
        reasons = {one.where: one.reason for one in skipped if one.where.endswith(".json")}
        expected = manifest(forged)[form]["files"]
        assert reasons.keys() == expected.keys()
        for name, word in expected.items():
            assert word in reasons[name], (name, reasons[name])


def test_a_missing_image_set_is_twenty_rows_and_one_that_says_where_to_get_it(forged: Path) -> None:
    _, skipped, _ = read(forged)
    link = "https://nihcc.app.box.com/v/ChestXray-NIHCC/folder/36938765345"
    named = [one for one in skipped if "ChestXray-NIHCC/images/" in one.reason]
    assert len(named) == 20 and all(link in one.reason for one in named)
    (summary,) = [one for one in skipped if one.where.endswith("data-no 80")]
    assert "25 items" in summary.reason and "'ChestXray-NIHCC'" in summary.reason and link in summary.reason


def test_the_fixture_can_be_trained_on(forged: Path) -> None:
    samples, _, _ = read(forged)
    cells: dict[str, Counter[tuple[str, str]]] = {}
    digests = set()
    for sample in samples.values():
        cells.setdefault(str(sample.mat), Counter())[part_of(sample), sample.label or ""] += 1
        digests.add(pixel_digest(read_image(sample.image)))
    assert len(digests) == len(samples), "two images are equal"
    assert len(cells) == 4
    for counts in cells.values():
        assert counts.total() >= 40
        assert sum(n for (part, _), n in counts.items() if part == "test") >= 6
    for label in ("Cyst", "Normal", "Stone", "Tumor"):
        for part in ("train", "val", "test"):
            assert cells["ct/kidney/kidney-disease"][part, label] >= 2
    assert {len(one.options) for one in samples.values()} == {2, 3, 4}
    assert sum(path.stat().st_size for path in forged.rglob("*") if path.is_file()) < 2_000_000


@pytest.mark.parametrize("cell", ["ct/lung/covid", "xray/lung/covid-pneumonia"])
def test_the_pictures_show_their_label(forged: Path, cell: str) -> None:
    from sklearn.linear_model import LogisticRegression

    sides: dict[str, tuple[list[Any], list[str | None]]] = {"train": ([], []), "test": ([], [])}
    for sample in read(forged)[0].values():
        if str(sample.mat) == cell and part_of(sample) in sides:
            pixels = read_image(sample.image)
            pooled = pixels.reshape(12, 4, 12, 4).mean(axis=(1, 3))
            sides[part_of(sample)][0].append(pooled.ravel() / 255)
            sides[part_of(sample)][1].append(sample.label)
    network = LogisticRegression(max_iter=2000).fit(*sides["train"])
    assert network.score(*sides["test"]) > 0.7


def test_another_seed_is_another_fixture(forged: Path, tmp_path: Path) -> None:
    MedMat().write_fixture(tmp_path, seed=1)
    images = [path.name for path in tmp_path.rglob("*.jpg")]
    assert images and tree(tmp_path) != tree(forged)
    samples, _, _ = read(tmp_path)
    assert samples.keys() == manifest(tmp_path)["subsets"]["samples"].keys()


def test_nothing_is_written_under_root(forged: Path) -> None:
    before = tree(forged)
    medmat = MedMat()
    list(medmat.samples(forged))
    list(medmat.verify(forged))
    medmat.locate(forged)
    assert tree(forged) == before


# -- cells ---------------------------------------------------------------------------------------------


def test_there_are_37_cells_and_none_is_merged() -> None:
    questions = MedMat().questions()
    assert len(questions) == len(tables.subsets()) == 37
    expected = {
        1: "colposcopy/cervix/picture-quality",
        2: "ct/kidney/kidney-disease",
        7: "dermoscopy/skin/melanoma-type",
        9: "photography/mouth/teeth-condition",
        12: "endoscopy/bladder/cancer-degree",
        14: "fundus/retina/eye-disease",
        18: "microscopy/cell/cell-type",
        22: "mri/brain/head-disease",
        23: "oct/retina/retina-disease",
        24: "us/breast/breast-cancer",
        25: "xray/bone/knee-degree",
        31: "xray/chest/chest-multilabel",
        37: "xray/breast/disease-multilabel",
    }
    assert {number: str(tables.subsets()[number].mat) for number in expected} == expected
    for mat, question in questions.items():
        assert question.mat == mat and question.kind == "option" and question.labels == ()
        assert all(canonical(part) == part for part in mat)


def test_a_task_has_one_slug_and_a_slug_one_task() -> None:
    folder = Path(tables.__file__).parent
    rows = [row for row in csv.DictReader((folder / "subsets.csv").open(encoding="utf-8")) if row["slug"]]
    assert len(rows) == 37
    pairs = {(row["task"], row["slug"]) for row in rows}
    assert len({task for task, _ in pairs}) == len({slug for _, slug in pairs}) == len(pairs)


def test_datasets_stand_in_the_subset_of_their_own_modality() -> None:
    listed = tables.originals()
    assert len(listed) == 109
    assert listed[77].subset == 31 and listed[77].name == "CheXpert v1.0 small"
    assert listed[44].subset == 22, "Table 17 lists brain MRI among microscopy, too"
    assert [number for number in range(1, 88) if listed[number].subset is None] == [43, 64, 83]
    assert all(listed[number].subset is None for number in range(88, 110))
    for original in listed.values():
        if original.subset is not None:
            assert tables.subsets()[original.subset].mat[:2] == original.place
        assert original.link.startswith("https://")
    for subset in tables.subsets().values():
        assert {one for one in subset.originals if listed[one].subset == subset.number} >= set(subset.originals) - {44}


def test_prompts_name_the_cell_and_neutral_ones_give_nothing_away() -> None:
    telling = {
        *(word.lower() for word in (*MODALITIES.values(), *ANATOMIES, *MODALITIES)),
        "scan", "slice", "photograph", "radiograph", "colposcopy", "photography", "organ", "film", "tissue", "bowel",
    }  # fmt: skip
    for mat, question in MedMat().questions().items():
        assert len(set(question.templates)) == len(question.templates) >= 6
        assert len(set(question.neutral)) == len(question.neutral) == len(question.templates)
        for template in question.templates:
            assert template.count("{modality}") == 1 and "{anatomy}" in template
        for text in question.neutral:
            assert "{" not in text
            words = set(re.findall(r"[\w-]+", text.lower()))
            assert not words & telling, (text, words & telling)
        assert "{" not in wording("x", question, Asking())
        assert mat.anatomy.replace("-", " ") in wording("x", question, Asking())


def test_an_item_is_asked_as_the_authors_ask_it(forged: Path) -> None:
    questions = MedMat().questions()
    for sample in read(forged)[0].values():
        made = make_item(sample, questions[sample.mat], dataset="medmat")
        assert (made.question, made.options) == (sample.question, sample.options)
        assert made.options[made.answer or 0] == sample.label


# -- one object ------------------------------------------------------------------------------------------


def entry(**changed: Any) -> Entry | Refused:
    return read_entry(item(7, ("Stone", "Cyst", "Normal", "Tumor"), 1, **changed), multi_label=False)


def test_the_example_of_the_readme() -> None:
    found = entry()
    assert isinstance(found, Entry)
    assert found.options == ("Stone", "Cyst", "Normal", "Tumor")
    assert (found.id, found.label, found.letter, found.original) == (7, "Cyst", "B", 2)
    assert found.image == "med-mat/CT_Kindney_Dataset/CT/Cyst/Cyst- (7).jpg"
    assert found.question == "Review this kidney CT scan and determine the possible condition it represents."


@pytest.mark.parametrize(
    "changed",
    [
        {"Answer": "cyst"},
        {"Answer": " CYST "},
        {"Answer-choice": " b "},
        {"id": "7"},
        {"data-no": 2},
        {"caption": ["Cyst"]},
        {"Question-choice": f"Q?\r\nA: Stone\r\nB: Cyst\r\n{INSTRUCTION}"},
        {"Question-choice": f"Q?\nA:Stone\nB:Cyst  \n{INSTRUCTION}"},
        {"image": r"med-mat\CT\a.jpg"},
        {"image": "./med-mat//CT/a.jpg"},
    ],
)
def test_what_a_person_would_read_alike_is_read_alike(changed: dict[str, Any]) -> None:
    found = entry(**changed)
    assert isinstance(found, Entry) and found.label == "Cyst" and found.id == 7 and found.original == 2
    assert "image" not in changed or found.image == "med-mat/CT/a.jpg"


@pytest.mark.parametrize(
    ("changed", "kind", "word"),
    [
        ({"Answer": "Stone"}, "label disagreements", "'Cyst', 'Answer' is 'Stone'"),
        ({"Answer": "Cysts"}, "label disagreements", "'Cysts'"),
        ({"Answer-choice": "A"}, "label disagreements", "option A is 'Stone'"),
        ({"Answer-choice": "E"}, "malformed rows", "'E'"),
        ({"Answer-choice": "BC"}, "malformed rows", "'BC'"),
        ({"Answer-choice": 1}, "malformed rows", "Answer-choice"),
        ({"id": True}, "malformed rows", "'id'"),
        ({"id": -1}, "malformed rows", "'id'"),
        ({"id": "9" * 5000}, "malformed rows", "'id'"),
        ({"data-no": "CheXpert"}, "malformed rows", "data-no"),
        ({"data-no": None}, "malformed rows", "data-no"),
        ({"image": "/etc/passwd"}, "malformed rows", "outside"),
        ({"image": "med-mat/../../a.jpg"}, "malformed rows", "outside"),
        ({"image": r"med-mat\..\..\a.jpg"}, "malformed rows", "outside"),
        ({"image": "med-mat/\0.jpg"}, "malformed rows", "outside"),
        ({"image": "med-mat/\ud800.jpg"}, "malformed rows", "'image'"),
        ({"caption": "Cyst \ud800"}, "malformed rows", "'caption'"),
        ({"image": ["a.jpg"]}, "malformed rows", "'image'"),
        ({"Question": "  "}, "malformed rows", "'Question'"),
        ({"Question-choice": "Q?\nA: Stone\nC: Cyst"}, "malformed rows", "AC"),
        ({"Question-choice": "Q?\nB: Cyst\nA: Stone"}, "malformed rows", "BA"),
        ({"Question-choice": "Q?\nA: Stone\nB:  "}, "malformed rows", "option B"),
        ({"Question-choice": "Q? A: Stone B: Cyst"}, "malformed rows", "0, expected 2 to 4"),
        ({"Question-choice": "Q?\nA: a\nB: Cyst\nC: c\nD: d\nE: e"}, "malformed rows", "5, expected 2 to 4"),
        ({"Question-choice": "Q?\nA: cyst \nB: Cyst"}, "ambiguous options", "'cyst' and 'Cyst'"),
    ],
)
def test_what_is_not_sound_is_refused(changed: dict[str, Any], kind: str, word: str) -> None:
    found = entry(**changed)
    assert isinstance(found, Refused)
    assert found.kind == kind and word in found.reason and "\n" not in found.reason
    found.reason.encode()  # a report can hold it


def test_commas_join_labels_only_where_a_subset_has_several() -> None:
    options = ("Mass, Edema", "Edema, mass", "Edema")
    content = item(0, options, 0)
    alone, joined = read_entry(content, multi_label=False), read_entry(content, multi_label=True)
    assert isinstance(alone, Entry) and alone.true_in_distractors == 0
    assert isinstance(joined, Refused) and joined.kind == "ambiguous options"
    partly = read_entry(item(0, ("Mass, Edema", "Nodule", "Edema"), 0), multi_label=True)
    assert isinstance(partly, Entry) and partly.true_in_distractors == 1


words = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1).filter(lambda text: text.strip())


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(words, min_size=2, max_size=4, unique=True), words)
def test_options_survive_being_written(options: list[str], question: str) -> None:
    lines = [f"{letter}: {option}" for letter, option in zip("ABCD", options, strict=False)]
    if re.match(r"[A-H]:", question):
        question = f" {question}"
    assert read_options("\n".join([question, *lines, INSTRUCTION])) == tuple(option.strip() for option in options)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)  # a busy machine is no failure
@given(st.dictionaries(st.sampled_from(sorted(item())), anything), st.booleans())
def test_no_object_ends_the_reading(changed: dict[str, Any], multi_label: bool) -> None:
    found = read_entry({**item(), **changed}, multi_label=multi_label)
    if isinstance(found, Entry):
        assert found.label in found.options and 2 <= len(found.options) <= 4
    else:
        assert found.reason and "\n" not in found.reason


@settings(deadline=None)  # a busy machine is no failure
@given(anything)
def test_no_value_is_taken_for_an_object(content: Any) -> None:
    assert isinstance(read_entry(content, multi_label=True), Refused)


# -- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Ori--77-train.json", "ORI--077-Train.JSON"])
def test_file_names_in_any_case(mini: Path, name: str) -> None:
    folder = mini / "Original_Medical_Datasets"
    (folder / "ori--77-train.json").rename(folder / name)
    expected = manifest(mini)["original"]["samples"]
    samples, _, _ = read(mini, files="original")
    assert samples.keys() == expected.keys()
    assert {one.source["file"] for one in samples.values()} == {name, "ori--55-train.json"}


def test_auto_never_reads_both_forms(mini: Path) -> None:
    assert read(mini)[0].keys() == read(mini, files="subsets")[0].keys()
    shutil.rmtree(mini / "Aggregated_Subsets")
    assert read(mini)[0].keys() == manifest(mini)["original"]["samples"].keys()
    assert MedMat().locate(mini) == ("original", mini)
    with pytest.raises(CrossmedError, match="files=original") as caught:
        list(MedMat(files="subsets").samples(mini))
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_two_files_of_one_number_are_read_once(mini: Path) -> None:
    folder = mini / "Aggregated_Subsets"
    shutil.copy(folder / "Subset--03-train.json", folder / "subset--003-train.json")
    samples, skipped, _ = read(mini)
    assert samples.keys() == manifest(mini)["subsets"]["samples"].keys()
    assert any("has the number of" in one.reason for one in skipped)


def test_a_byte_order_mark_is_no_content(mini: Path) -> None:
    path = mini / "Aggregated_Subsets" / "Subset--02-train.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(mini)[0].keys() == manifest(mini)["subsets"]["samples"].keys()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe[]", "UTF-8"),
        (b"[" * 100_000, "no JSON"),
        (b"9" * 5000, "no JSON"),
        (b"null", "no list"),
        (None, "cannot be read"),
    ],
)
def test_a_broken_file_costs_its_own_items_only(mini: Path, content: bytes | None, word: str) -> None:
    path = mini / "Aggregated_Subsets" / "Subset--02-train.json"
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    samples, skipped, _ = read(mini)
    expected = {name for name in manifest(mini)["subsets"]["samples"] if "-s02-" not in name}
    assert samples.keys() == expected
    (row,) = [one for one in skipped if "Subset--02" in one.where]
    assert word in row.reason


def test_what_is_no_regular_file_is_not_opened(mini: Path, irregular: Callable[[Path], None]) -> None:
    irregular(mini / "Aggregated_Subsets" / "Subset--02-train.json")
    samples, skipped, _ = read(mini)
    assert samples.keys() == {name for name in manifest(mini)["subsets"]["samples"] if "-s02-" not in name}
    (row,) = [one for one in skipped if "Subset--02" in one.where]
    assert row.reason == "cannot be read: not a regular file"
    assert any(check.verdict == "differs" for check in MedMat().verify(mini))


def test_items_of_another_cell_are_refused(tmp_path: Path) -> None:
    brain = {"data-no": "44", "image": "med-mat/brain/a.png"}
    root = download(
        tmp_path,
        {
            "Aggregated_Subsets/Subset--18-train.json": [
                item(0, **{**brain, "image": "med-mat/brain/b.png"}),
                item(1, **{"data-no": "43", "image": "med-mat/lc/a.png"}),
            ],
            "Original_Medical_Datasets/ori--44-train.json": [item(0, **brain), item(1, **{"data-no": "45"})],
        },
    )
    samples, skipped, counts = read(root)
    assert list(samples) == ["medmat-s18-000001"] and counts["rows of another cell"] == 1
    assert "mri/brain" in skipped[0].reason and "microscopy/cell/cell-type" in skipped[0].reason
    (check,) = [one for one in MedMat().verify(root) if one.what.startswith("data-no")]
    assert check.found == "43" and check.verdict == "hint"
    samples, skipped, _ = read(root, files="original")
    assert {name: str(one.mat) for name, one in samples.items()} == {"medmat-d044-000000": "mri/brain/head-disease"}
    assert "file of dataset 44" in skipped[0].reason


def test_many_refusals_of_one_kind_are_cut_short(tmp_path: Path) -> None:
    items = [{**item(number), "Answer": "Stone"} for number in range(30)]
    root = download(tmp_path, {"Aggregated_Subsets/Subset--02-train.json": items})
    samples, skipped, counts = read(root)
    assert not samples and counts["label disagreements"] == 30
    assert len(skipped) == 21 and "30 label disagreements in all" in skipped[-1].reason


def test_units_are_files_that_travel(forged: Path) -> None:
    medmat = MedMat(subsets="03,31")
    units = [one for one in medmat.units(forged) if isinstance(one, JsonFile)]
    assert [unit.subset for unit in units] == [3, 31]
    travelled = [pickle.loads(pickle.dumps(unit)) for unit in units]  # noqa: S301
    alone = [one for unit in travelled for one in MedMat().read(unit)]
    assert alone == [one for one in medmat.samples(forged) if one not in list(medmat.units(forged))]


def test_two_studies_of_a_chexpert_patient_stay_together(forged: Path) -> None:
    patients: dict[str, set[str]] = {}
    for sample in read(forged)[0].values():
        if "/patient" in sample.image.path:
            assert sample.source["patient_known"] is True
            patients.setdefault(sample.patient, set()).add(Path(sample.image.path).parent.name)
        else:
            assert sample.source["patient_known"] is False and sample.image.path.endswith(sample.patient)
    assert {"study1", "study2"} in patients.values()
    assert all(re.fullmatch(r"chexpert:patient\d{5}", patient) for patient in patients)


def test_chexpert_patients_are_those_of_the_reader_of_chexpert(tmp_path: Path) -> None:
    """The same people, in the same parts: else one reader trains on whom the other tests."""
    (tmp_path / "chexpert").mkdir()
    CheXpert().write_fixture(tmp_path / "chexpert")
    there = {person("chexpert", one.patient): one.part for one in samples_of(CheXpert(), tmp_path / "chexpert")}
    names = sorted(patient.partition(":")[2] for patient in there)
    folder = {name: "train" if int(name[7:]) <= 64540 else "valid" for name in names}
    image = "med-mat/CheXpert-v1.0-small/{}/{}/study1/view1_frontal.jpg"
    items = [
        item(number, image=image.format(folder[name], name), **{"data-no": "77"}) for number, name in enumerate(names)
    ]
    other = item(len(items), image="med-mat/NIH/patient00001/study1/a.jpg", **{"data-no": "80"})
    root = download(tmp_path / "medmat", {"Aggregated_Subsets/Subset--31-train.json": [*items, other]})
    samples, _, _ = read(root)
    here = {person("medmat", one.patient): one.part for one in samples.values() if one.source["data_no"] == 77}
    assert here == there and set(there.values()) == {"train", "val", "test"}
    (stranger,) = [one for one in samples.values() if one.source["data_no"] == 80]
    assert stranger.patient == other["image"] and stranger.part is None, "another source's patient00001 is another"


# -- where it lies -------------------------------------------------------------------------------------------


def arranged(mini: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield (root to give, folder that holds both) for the ways people lay the parts out."""
    yield mini, mini
    deep = tmp_path / "a" / "b" / "c"
    deep.parent.mkdir(parents=True)
    mini.rename(deep)
    yield tmp_path / "a", deep
    # The repository of the questions beside the images.
    repository = deep / "Med-MAT"
    repository.mkdir()
    for name in ("Aggregated_Subsets", "Original_Medical_Datasets"):
        (deep / name).rename(repository / name)
    yield deep, deep
    # Images and questions in different branches.
    branch = deep / "images"
    branch.mkdir()
    (deep / "med-mat").rename(branch / "med-mat")
    yield deep, deep
    # Questions inside the folder of the images.
    for name in ("Aggregated_Subsets", "Original_Medical_Datasets"):
        (repository / name).rename(branch / "med-mat" / name)
    yield branch / "med-mat", branch / "med-mat"
    yield deep, branch
    # A person points at the folder of the questions itself.
    (branch / "med-mat" / "Aggregated_Subsets").rename(branch / "Aggregated_Subsets")
    yield branch / "Aggregated_Subsets", branch / "Aggregated_Subsets"


def test_it_is_found_however_it_is_laid_out(mini: Path, tmp_path: Path) -> None:
    expected = manifest(mini)["subsets"]["samples"].keys()
    n = 0
    for root, holds_both in arranged(mini, tmp_path):
        layout = MedMat().locate(root)
        assert layout == ("subsets", holds_both), root
        assert read(root)[0].keys() == expected, root
        assert read(layout.root)[0].keys() == expected, "what locate returns cannot be read"
        n += 1
    assert n == 7


def test_relative_roots_give_absolute_paths(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mini.parent)
    samples, _, _ = read(Path("mini"))
    assert samples and all(Path(one.image.path).is_absolute() for one in samples.values())


def test_it_claims_no_other_dataset(tmp_path: Path, mini: Path) -> None:
    for name in ("chexpert/CheXpert-v1.0-small/train/patient00001/study1", "brats/MICCAI_BraTS2020_TrainingData"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "chexpert" / "CheXpert-v1.0-small" / "train.csv").write_text("Path\n")
    (tmp_path / "med-mat").mkdir()  # images alone are no questions
    (tmp_path / "chexpert" / "subsets.json").write_text("[]")
    with pytest.raises(CrossmedError, match="holds no medmat download"):
        MedMat().locate(tmp_path / "chexpert")
    assert MedMat().locate(tmp_path).root.is_relative_to(tmp_path)
    assert read(tmp_path)[0], "not found beside other datasets"


def test_a_wrong_root_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    (tmp_path / "Aggregated_Subsets").mkdir()  # empty
    for attempt in (MedMat().locate, lambda root: list(MedMat().samples(root)), lambda r: list(MedMat().verify(r))):
        with pytest.raises(CrossmedError) as caught:
            attempt(tmp_path)
        text = str(caught.value)
        assert "Aggregated_Subsets/ with Subset--NN-train.json" in text
        assert "Original_Medical_Datasets/ with ori--NN-train.json" in text
        assert "holiday.jpg" in text and caught.value.exit_code == ExitCode.ENVIRONMENT


def test_not_here_is_another_error_than_broken(mini: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for root in (tmp_path / "photos", tmp_path / "nowhere"):
        with pytest.raises(DownloadNotFoundError):
            list(MedMat().verify(root))
    shutil.rmtree(mini / "Aggregated_Subsets")
    with pytest.raises(CrossmedError) as caught:
        list(MedMat(files="subsets").verify(mini))
    assert not isinstance(caught.value, DownloadNotFoundError)


def test_without_any_image_everything_is_reported(mini: Path) -> None:
    shutil.rmtree(mini / "med-mat")
    samples, skipped, counts = read(mini)
    expected = manifest(mini)["subsets"]
    assert not samples and counts["rows resolved"] == 0
    assert counts["rows without their image"] == counts["rows labelled"] == len(expected["samples"]) + 26
    assert skipped[0].where == "med-mat/" and "ships no images" in skipped[0].reason
    summaries = {one.where.rpartition("data-no ")[2] for one in skipped if "in all lack their image" in one.reason}
    assert summaries == {"2", "3", "55", "77", "80"}


def test_links_in_a_circle_and_junk_change_nothing(mini: Path) -> None:
    expected = read(mini)[0]
    (mini / "Aggregated_Subsets" / "loop").symlink_to(mini)
    (mini / "again").symlink_to(mini)
    (mini / "self").symlink_to(mini / "self")
    (mini / "Aggregated_Subsets" / "Thumbs.db").write_bytes(b"")
    (mini / "Original_Medical_Datasets" / "._ori--77-train.json").write_bytes(b"\0")
    assert read(mini)[0] == expected
    assert read(mini, files="original")[0].keys() == manifest(mini)["original"]["samples"].keys()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_a_locked_file_is_reported(mini: Path) -> None:
    path = mini / "Aggregated_Subsets" / "Subset--02-train.json"
    path.chmod(0)
    _, skipped, _ = read(mini)
    assert any("Permission denied" in one.reason for one in skipped)
    path.chmod(0o644)


def test_a_folder_or_an_endless_name_is_no_image(tmp_path: Path) -> None:
    root = download(tmp_path, {"Aggregated_Subsets/Subset--02-train.json": [item(0)]})
    content = [item(0), item(1, image=f"med-mat/{'x' * 5000}.jpg"), item(2, image="med-mat/CT_Kindney_Dataset")]
    (root / "Aggregated_Subsets" / "Subset--02-train.json").write_text(json.dumps(content))
    samples, _, counts = read(root)
    assert list(samples) == ["medmat-s02-000000"] and counts["rows without their image"] == 2


# -- options and verification -----------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", ["3, 31", "03,031", ["03", 31], (3, "31"), "31,3,3"])
def test_subsets_are_chosen_by_number(forged: Path, chosen: Any) -> None:
    medmat = MedMat(subsets=chosen)
    assert [str(mat) for mat in medmat.questions()] == ["ct/lung/covid", "xray/chest/chest-multilabel"]
    samples, _, _ = read(forged, subsets=chosen)
    assert {one.mat for one in samples.values()} == set(medmat.questions())
    originals, _, _ = read(forged, subsets=chosen, files="original")
    assert {str(one.mat) for one in originals.values()} == {"xray/chest/chest-multilabel"}


def test_one_number_is_enough() -> None:
    assert list(MedMat(subsets=31).questions()) == list(MedMat(subsets="31").questions())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"files": "subset"}, ["files", "'subset'", "'subsets'"]),
        ({"files": "zzz"}, ["files", "'zzz'", "auto, subsets, original"]),
        ({"files": ["subsets"]}, ["files", "['subsets']"]),
        ({"files": None}, ["files", "None"]),
        ({"subsets": "31,38"}, ["subsets", "'38'", "01 to 37"]),
        ({"subsets": "0"}, ["subsets", "'0'"]),
        ({"subsets": "chest"}, ["subsets", "'chest'"]),
        ({"subsets": [3.5]}, ["subsets", "3.5"]),
        ({"subsets": True}, ["subsets", "True"]),
        ({"subsets": {"31": 1}}, ["subsets", "{'31': 1}"]),
        ({"subsets": None}, ["subsets", "None"]),
        ({"subsets": "²"}, ["subsets", "'²'"]),
    ],
)
def test_bad_options_are_refused_in_words(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(CrossmedError) as caught:
        MedMat(**options)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_verify_tells_what_is_there_and_what_is_not(forged: Path) -> None:
    checks = {one.what: one for one in MedMat().verify(forged)}
    files = checks["files in Aggregated_Subsets"]
    assert files.found.startswith("7; without 01, 04, ") and "02" not in files.found.split(", ")
    assert files.expected.startswith("37") and files.verdict == "differs"
    of_31 = {what.partition(" of ")[0]: one for what, one in checks.items() if what.endswith("Subset--31-train.json")}
    expected = manifest(forged)["subsets"]
    here = [one for one in expected["samples"].values() if one["file"] == "Subset--31-train.json"]
    assert of_31["items"].found == str(len(here) + len(expected["refused"]))
    assert of_31["images"].found == str(len(here)) and of_31["images"].verdict == "differs"
    disagreements = checks["label disagreements in Subset--31-train.json"]
    assert (disagreements.found, disagreements.verdict) == ("1", "hint")
    assert checks["images of Subset--02-train.json"].verdict == "ok"
    assert checks["items of Subset--30-train.json"].verdict == "differs"
    assert {one.verdict for one in checks.values()} == {"ok", "differs", "hint"}


def test_verify_of_a_whole_choice_is_content(forged: Path) -> None:
    assert {one.verdict for one in MedMat(subsets="02,03,28").verify(forged)} == {"ok"}
    original = list(MedMat(files="original", subsets="31").verify(forged))
    assert original[0].found == "1; without 61, 73, 76, 80, 85, 87" and original[0].expected.startswith("7")

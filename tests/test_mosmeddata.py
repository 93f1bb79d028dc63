"""MosMedData: every oddity of the download, held against the fixture's own knowledge and against nibabel."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmed_core.errors import CrossmedError, DownloadNotFoundError
from crossmed_core.images import read_image, read_mask
from crossmed_core.reading import ReadingReport
from crossmed_core.types import MAT, Sample
from crossmed_plugins.mosmeddata.dataset import MosMedData, Unit

SEVERITY, REGION = MAT("ct", "lung", "classification"), MAT("ct", "lung", "segmentation")
Read = tuple[list[Sample], ReadingReport]


def digest_of(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(root: Path, **options: Any) -> Read:
    report = ReadingReport()
    return list(report.samples(MosMedData(**options).samples(root))), report


def of(samples: list[Sample], study: str, mat: MAT = SEVERITY) -> list[Sample]:
    return [one for one in samples if one.patient == study and one.mat == mat]


def facts(samples: list[Sample]) -> list[tuple[Any, ...]]:
    return [(one.id, one.label, one.part) for one in samples]


def resave(path: Path, change: Any) -> None:
    """Write a volume again, its array and affine changed."""
    image = nibabel.load(path)
    array, affine = change(np.asanyarray(image.dataobj).copy(), image.affine.copy())
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mosmed")
    MosMedData().write_fixture(root)
    return root


@pytest.fixture(scope="module")
def manifest(made: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((made / "manifest.json").read_text())
    return content


@pytest.fixture(scope="module")
def whole(made: Path) -> Read:
    return read(made, segmentation=True)


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def test_it_finds_what_the_fixture_holds(made: Path, manifest: dict[str, Any]) -> None:
    samples, report = read(made)
    assert report.counted == manifest["counted"]
    assert len(report.skipped) == len(manifest["skipped"])
    for study, why in manifest["skipped"].items():
        (row,) = [one for one in report.skipped if study in one.where + one.reason]
        assert why in row.reason
    assert {one.patient for one in samples} == manifest["studies"].keys()
    for study, known in manifest["studies"].items():
        found = of(samples, study)
        assert [one.source["slice"] for one in found] == manifest["middle"]
        assert {one.label for one in found} == {known["label"]}
        (category,) = {str(one.source["category"]) for one in found}
        assert known["label"].startswith(f"grade {category.removeprefix('CT-')}:")
        assert [one.id for one in found] == [f"mosmed-{study[6:]}-z{z:03d}" for z in manifest["middle"]]
    assert sum(path.stat().st_size for path in made.rglob("*") if path.is_file()) < 2e6


def test_cells_can_be_trained_on(whole: Read) -> None:
    for mat in (SEVERITY, REGION):
        of_cell = [one for one in whole[0] if one.mat == mat]
        assert len(of_cell) >= 40 and sum(one.part == "test" for one in of_cell) >= 6
        patients = {(one.patient, one.label, one.part) for one in of_cell}
        assert min(Counter((label, part) for _, label, part in patients).values()) >= 2
    images = [hashlib.sha256(read_image(one.image).tobytes()).digest() for one in whole[0] if one.mat == SEVERITY]
    assert len(set(images)) == len(images)


def test_masks_are_those_of_the_manifest(manifest: dict[str, Any], whole: Read) -> None:
    """Areas and places: lesions start in one corner of one lung, so that a flip of any axis moves the box."""
    samples, report = whole
    masked = {study: known for study, known in manifest["studies"].items() if "areas" in known}
    assert report.counted["masks found"] == len(masked) == manifest["masks"]
    assert report.counted["studies without masks"] == len(manifest["studies"]) - len(masked)
    assert {one.patient for one in samples if one.mat == REGION} == masked.keys()
    for study, known in masked.items():
        found = {int(one.source["slice"] or 0): read_mask(one.mask) for one in of(samples, study, REGION)}  # type: ignore[arg-type]
        assert {z: int(mask.sum()) for z, mask in found.items()} == {z: n for z, n in enumerate(known["areas"]) if n}
        for z, mask in found.items():
            rows, columns = np.nonzero(mask)
            assert [rows.min(), rows.max(), columns.min(), columns.max()] == known["box"][str(z)]
    rows, columns = np.nonzero(read_mask(of(samples, "study_0255", REGION)[2].mask))  # type: ignore[arg-type]
    assert rows.mean() > 17 and columns.max() < 16, "study 0255 is diseased behind, on the patient's right"


def test_masks_lie_on_their_images(whole: Read) -> None:
    for one in whole[0]:
        if one.mat == REGION:
            image, mask = read_image(one.image).astype(float), read_mask(one.mask)  # type: ignore[arg-type]
            assert 85 < image[mask].mean() < 120 and image[mask].std() < 15, one.id  # -450 HU in -1000 to 400


@pytest.mark.parametrize("window", ["-1000,400", "-1350, 150", (-1000, 400)])
def test_images_are_those_of_numpy(made: Path, window: Any) -> None:
    samples, _ = read(made, window=window)
    low, high = (float(one) for one in (window.split(",") if isinstance(window, str) else window))
    for study in ("study_0001", "study_0255", "study_0939", "study_1109"):
        for one in of(samples, study):
            array = np.asanyarray(nibabel.load(one.image.path).dataobj).astype(float)
            plane = np.rot90(array[:, :, one.source["slice"]])  # LAS, as the published masks are stored
            expected = (np.clip(plane, low, high) - low) / (high - low) * 255
            assert np.abs(read_image(one.image) - expected).max() <= 0.51
            assert one.source["window_hu"] == f"{low:g} to {high:g}"


def test_padding_and_metal_are_clipped(made: Path, manifest: dict[str, Any], whole: Read) -> None:
    studies = manifest["studies"]
    assert studies["study_0001"]["lowest"] == -2048 and studies["study_0255"]["highest"] == 3071
    padded = read_image(of(whole[0], "study_0001")[0].image)
    assert padded[0, 0] == 0 and np.median(padded) > 0
    metal = read_image(next(one for one in whole[0] if one.id == "mosmed-0255-z002").image)
    assert metal[20, 15] == 255


def test_studies_are_las_without_scaling(made: Path) -> None:
    """The counterfeit has the header of the published masks, on which the tests above rest."""
    for path in (made / "COVID19_1110").rglob("study_02*.nii.gz"):
        if not path.name.startswith("._"):
            image = nibabel.load(path)
            assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S")
            assert np.isnan(np.frombuffer(gzip.decompress(path.read_bytes())[112:116], "<f4"))[0]
            assert image.header["qform_code"] == image.header["sform_code"] == 1


def test_a_study_without_a_mask_is_not_annotated(whole: Read) -> None:
    assert of(whole[0], "study_0256") and not of(whole[0], "study_0256", REGION)


def test_segmentation_is_off_unless_asked_for(made: Path) -> None:
    samples, _ = read(made)
    assert {one.mat for one in samples} == set(MosMedData().questions()) == {SEVERITY}
    chest = MosMedData(anatomy="chest", segmentation=True)
    assert {one.mat.anatomy for one in read(made, anatomy="chest", segmentation=True)[0]} == {"chest"}
    assert {str(mat) for mat in chest.questions()} == {"ct/chest/classification", "ct/chest/segmentation"}


def test_masks_that_do_not_fit_are_passed_over(copy: Path, whole: Read) -> None:
    masks = copy / "COVID19_1110" / "masks"

    def mask(number: int) -> Path:
        return masks / f"study_{number:04d}_mask.nii.gz"

    resave(mask(255), lambda array, affine: (array[:, :, 1:], affine))
    resave(mask(257), lambda array, affine: (array * 2, affine))
    resave(mask(258), lambda array, affine: (array, affine @ np.diag([-1, 1, 1, 1])))
    resave(mask(259), lambda array, affine: (array, affine + 1e-6))
    resave(mask(260), lambda array, affine: (array, affine + np.array([[0, 0, 0, 20.0]] + [[0] * 4] * 3)))
    resave(mask(261), lambda array, affine: (array * 0, affine))
    mask(262).unlink()
    mask(263).write_bytes(mask(263).read_bytes()[:200])
    samples, report = read(copy, segmentation=True)
    reasons = [(one.where, one.reason) for one in report.skipped]
    for number, words in (
        (255, "its shape 32 x 32 x 5 is not that of the study"),
        (257, "label 2 occurs"),
        (258, "its affine turns it otherwise"),
        (263, "truncated"),
    ):
        assert [reason for where, reason in reasons if where.endswith(mask(number).name) and words in reason]
    assert any("study_0262_mask.nii.gz is not there" in reason for _, reason in reasons)
    for number in (255, 257, 258, 261, 262, 263):
        assert not of(samples, f"study_{number:04d}", REGION) and of(samples, f"study_{number:04d}")
    for number in (259, 260):
        found, before = (facts(of(one, f"study_{number:04d}", REGION)) for one in (samples, whole[0]))
        assert found and found == before
    assert report.counted["masks placed elsewhere by their affine, laid on the study voxel by voxel"] == 1
    assert report.counted["masks without foreground"] == 1


def test_registry_paths_start_with_a_slash_and_files_may_be_gunzipped(made: Path, whole: Read) -> None:
    registry = openpyxl.load_workbook(made / "COVID19_1110" / "dataset_registry.xlsx").active
    files = [row[2] for row in registry.iter_rows(min_row=2, values_only=True)]
    assert all(file.startswith("/studies/CT-") and file.endswith(".nii.gz") for file in files)
    assert of(whole[0], "study_0939")[0].image.path == str(made / "COVID19_1110/studies/CT-2/study_0939.nii")
    assert all(Path(one.image.path).is_file() for one in whole[0])


def test_workbook_and_csv_give_the_same(copy: Path, whole: Read) -> None:
    table = copy / "COVID19_1110" / "dataset_registry.csv"
    assert table.read_bytes().startswith(b"\xef\xbb\xbf")
    (copy / "COVID19_1110" / "dataset_registry.xlsx").unlink()
    samples, report = read(copy, segmentation=True)
    assert facts(samples) == facts(whole[0])
    assert report.counted == whole[1].counted and len(report.skipped) == len(whole[1].skipped)
    table.unlink()
    with pytest.raises(CrossmedError, match=r"dataset_registry\.xlsx is missing; dataset_registry\.csv is missing"):
        read(copy)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a workbook", b"study_id,category"])
def test_a_damaged_workbook_falls_back_to_the_csv(copy: Path, whole: Read, content: bytes) -> None:
    workbook = copy / "COVID19_1110" / "dataset_registry.xlsx"
    workbook.write_bytes(content)
    samples, report = read(copy, segmentation=True)
    assert facts(samples) == facts(whole[0])
    (row,) = [one for one in report.skipped if one.where == "dataset_registry.xlsx"]
    assert "cannot be read" in row.reason and "dataset_registry.csv is read in its place" in row.reason
    (copy / "COVID19_1110" / "dataset_registry.csv").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(CrossmedError, match=r"xlsx cannot be read .* dataset_registry\.csv lacks the column study_id"):
        read(copy)


def test_columns_are_found_by_name_and_sizes_are_not_believed(copy: Path, whole: Read) -> None:
    path = copy / "COVID19_1110" / "dataset_registry.xlsx"
    rows = list(openpyxl.load_workbook(path).active.iter_rows(values_only=True))
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(["note" if row[0] == "study_id" else None, *row[::-1]])
    book.active.append([None] * 5)
    book.save(path)
    with zipfile.ZipFile(path) as right:
        parts = {name: right.read(name) for name in right.namelist()}
    sheet = parts["xl/worksheets/sheet1.xml"]
    parts["xl/worksheets/sheet1.xml"] = re.sub(rb'<dimension ref="[A-Z0-9:]+"', b'<dimension ref="A1"', sheet)
    assert parts["xl/worksheets/sheet1.xml"] != sheet
    with zipfile.ZipFile(path, "w") as wrong:
        for name, content in parts.items():
            wrong.writestr(name, content)
    samples, report = read(copy, segmentation=True)
    assert facts(samples) == facts(whole[0])
    assert not [one for one in report.skipped if one.where == path.name], "the workbook was read, not the CSV"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("255,CT-1,/studies/CT-1/study_0255.nii.gz,", "listed twice"),
        ("16,CT-7,/studies/CT-0/study_0016.nii.gz,", "none of CT-0, CT-1"),
        ("16,CT-0,/studies/CT-0/notes.txt,", "names no study"),
        ("16,CT-0,/studies/CT-0/study_0017.nii.gz,", "name different studies"),
        ("16", "names no study"),
        (f"{'1' * 5000},CT-0,/studies/CT-0/study_0016.nii.gz,", "name different studies"),
        (f"16,CT-0,/studies/CT-0/study_{'1' * 5000}.nii.gz,", "names no study"),
        (f"16,{'CT-0' * 2000},/studies/CT-0/study_0016.nii.gz,", "none of CT-0, CT-1"),
    ],
)
def test_bad_rows_are_passed_over(copy: Path, whole: Read, row: str, reason: str) -> None:
    (copy / "COVID19_1110" / "dataset_registry.xlsx").unlink()
    with (copy / "COVID19_1110" / "dataset_registry.csv").open("a") as file:
        file.write(row + "\n")
    samples, report = read(copy, segmentation=True)
    assert facts(samples) == facts(whole[0])
    (found,) = [one for one in report.skipped if reason in one.reason]
    assert found.where == "dataset_registry.csv, row 81" and len(found.reason) < 300
    rows = {check.what: check.found for check in MosMedData().verify(copy)}["rows of the registry"]
    assert rows == "79", "verify passes over the row too"


@pytest.mark.parametrize("column", [2, 3])
def test_a_path_that_is_too_long_leads_nowhere(copy: Path, whole: Read, column: int) -> None:
    (copy / "COVID19_1110" / "dataset_registry.xlsx").unlink()
    table = copy / "COVID19_1110" / "dataset_registry.csv"
    text = table.read_text()
    (line,) = [one for one in text.splitlines() if "study_0260.nii.gz" in one]
    cells = line.split(",")
    cells[column] = f"/{'x' * 5000}{cells[column]}"
    table.write_text(text.replace(line, ",".join(cells)))
    samples, report = read(copy, segmentation=True)
    lost = [one for one in whole[0] if one.patient == "study_0260" and (column == 2 or one.mat == REGION)]
    assert lost and facts(samples) == facts([one for one in whole[0] if one not in lost])
    (found,) = [one for one in report.skipped if "xxx" in one.reason]
    assert "is not there" in found.reason and len(found.reason) < 400
    list(MosMedData().verify(copy))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("corner", [(0, 0), (2, 3)])
def test_an_affine_without_numbers_costs_its_study_only(
    copy: Path, whole: Read, value: float, corner: tuple[int, int]
) -> None:
    def spoil(path: Path) -> None:
        """Write the number into the header: nibabel would not save it."""
        content = bytearray(gzip.decompress(path.read_bytes()))
        place = 280 + 16 * corner[0] + 4 * corner[1]  # srow_x, srow_y, srow_z
        content[place : place + 4] = np.float32(value).tobytes()
        path.write_bytes(gzip.compress(bytes(content)))

    study, mask = "studies/CT-1/study_0260.nii.gz", "masks/study_0261_mask.nii.gz"
    for name in (study, mask):
        spoil(copy / "COVID19_1110" / name)
    samples, report = read(copy, segmentation=True)
    lost = ("mosmed-0260", "mosmed-0261-region")
    assert facts(samples) == facts([one for one in whole[0] if not one.id.startswith(lost)])
    reasons = {one.where.partition("/")[2]: one.reason for one in report.skipped}
    assert "its affine holds values that are no numbers" in reasons[study]
    assert "its affine holds values that are no numbers; the study is left out" in reasons[mask]


def test_a_volume_of_colours_costs_its_study_only(copy: Path, whole: Read) -> None:
    colours = np.zeros((8, 8, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    path = copy / "COVID19_1110/studies/CT-1/study_0260.nii.gz"
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), path)
    samples, report = read(copy, segmentation=True)
    assert facts(samples) == facts([one for one in whole[0] if one.patient != "study_0260"])
    assert any(one.where.endswith(path.name) and "no plain numbers" in one.reason for one in report.skipped)


def test_what_is_no_regular_file_is_not_opened(copy: Path, whole: Read, irregular: Callable[[Path], None]) -> None:
    base = copy / "COVID19_1110"
    irregular(base / "studies/CT-1/study_0260.nii.gz")
    irregular(base / "masks/study_0255_mask.nii.gz")
    irregular(base / "dataset_registry.xlsx")
    samples, report = read(copy, segmentation=True)
    lost = ("mosmed-0260", "mosmed-0255-region")
    assert facts(samples) == facts([one for one in whole[0] if not one.id.startswith(lost)])
    for name in ("study_0260.nii.gz", "study_0255_mask.nii.gz"):
        assert any(f"{name} is not there" in one.reason for one in report.skipped)
    (row,) = [one for one in report.skipped if one.where == "dataset_registry.xlsx"]
    assert "cannot be read (not a regular file); dataset_registry.csv is read" in row.reason
    found = {check.what: check.found for check in MosMedData().verify(copy)}
    assert found["SHA-256 of the mask of study_0255"] == "cannot be read: not a regular file"
    irregular(base / "dataset_registry.csv")
    with pytest.raises(CrossmedError, match=r"dataset_registry\.csv cannot be read \(not a regular file"):
        read(copy)


def test_paths_cannot_leave_the_download(copy: Path) -> None:
    outside = copy / "study_0016.nii.gz"
    shutil.copy(copy / "COVID19_1110/studies/CT-0/study_0016.nii.gz", outside)
    (copy / "COVID19_1110" / "dataset_registry.xlsx").unlink()
    with (copy / "COVID19_1110" / "dataset_registry.csv").open("a") as file:
        file.write("16,CT-0,../study_0016.nii.gz,\n")
    samples, report = read(copy)
    assert not of(samples, "study_0016") and any("../study_0016" in one.reason for one in report.skipped)


def test_a_partial_download_leaves_everybody_in_their_part(copy: Path, whole: Read) -> None:
    for number in (3, 4, 5):
        (copy / f"COVID19_1110/studies/CT-0/study_{number:04d}.nii.gz").unlink()
    (copy / "COVID19_1110/studies/CT-1/study_0260.nii.gz").write_bytes(b"not a volume")
    samples, report = read(copy)
    known = {one.id: one.part for one in whole[0]}
    assert all(one.part == known[one.id] for one in samples)
    assert sum("is not there" in one.reason for one in report.skipped) == 4
    assert any(one.where.endswith("study_0260.nii.gz") and "NIfTI" in one.reason for one in report.skipped)


def test_only_headers_are_needed_for_severity(copy: Path) -> None:
    """A volume that breaks off behind its header still has slices; the break shows when its pixels are opened."""
    path = copy / "COVID19_1110/studies/CT-2/study_0939.nii"
    path.write_bytes(path.read_bytes()[:400])
    assert len(of(read(copy)[0], "study_0939")) == 4


@given(st.integers(1, 400), st.integers(1, 40))
def test_severity_is_shown_in_the_middle(count: int, slices: int) -> None:
    chosen = MosMedData(slices=slices).middle(count)
    assert chosen == sorted(set(chosen)) and 1 <= len(chosen) <= slices
    assert 0.2 * (count - 1) - 0.51 <= chosen[0] and chosen[-1] <= 0.8 * (count - 1) + 0.51 and chosen[-1] < count
    assert len(chosen) == slices or np.all(np.diff(chosen) == 1)
    assert len(chosen) < 3 or np.ptp(np.diff(chosen)) <= 1


@given(st.lists(st.integers(0, 50), min_size=1, max_size=50), st.integers(1, 12), st.sampled_from(["even", "largest"]))
def test_regions_are_chosen_as_promised(areas: list[int], slices: int, choice: str) -> None:
    chosen = MosMedData(slices=slices, choice=choice).chosen(np.array(areas))
    diseased = [z for z, area in enumerate(areas) if area]
    assert chosen == sorted(set(chosen)) and set(chosen) <= set(diseased)
    assert len(chosen) == min(slices, len(diseased))
    if choice == "largest" and chosen:
        assert sorted(areas[z] for z in chosen) == sorted(areas[z] for z in diseased)[-slices:]
    elif len(chosen) > 1:
        assert chosen[0] == diseased[0] and chosen[-1] == diseased[-1]


def test_largest_reaches_the_samples(made: Path, manifest: dict[str, Any]) -> None:
    samples, _ = read(made, segmentation=True, choice="largest", slices=1)
    areas = manifest["studies"]["study_0255"]["areas"]
    (one,) = of(samples, "study_0255", REGION)
    assert one.source["region_pixels"] == max(areas) and one.source["choice"] == "largest"
    assert {one.source["choice"] for one in of(samples, "study_0255")} == {"even"}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("anatomy", "lungs", "Did you mean 'lung'"),
        ("choice", "middle", "even, largest"),
        ("slices", 0, "at least 1"),
        ("slices", 2.0, "at least 1"),
        ("slices", False, "at least 1"),
        ("segmentation", "yes", "true or false"),
        ("segmentation", 1, "true or false"),
        ("window", "lung", "two Hounsfield values"),
        ("window", "400,-1000", "the lower first"),
        ("window", "1,2,3", "two Hounsfield values"),
        ("window", "nan,400", "two Hounsfield values"),
        ("window", 400, "two Hounsfield values"),
    ],
)
def test_bad_options_are_refused(option: str, value: Any, words: str) -> None:
    with pytest.raises(CrossmedError, match=words) as caught:
        MosMedData(**{option: value})
    assert option in str(caught.value) and repr(value) in str(caught.value)


TELLING = ("CT", "lung", "chest", "pneumo", "ground-glass", "{", "covid")


def test_questions_are_wide_and_neutral_ones_give_nothing_away() -> None:
    questions = MosMedData(segmentation=True).questions()
    for question in questions.values():
        assert len(set(question.templates)) == len(set(question.neutral)) >= 6
        for text in question.templates:
            filled = text.format(modality="CT", anatomy="lung")
            assert "CT" in filled and "lung" in filled
        for text in question.neutral:
            assert not any(word in text for word in TELLING)
        assert bool(question.target) == bool(question.neutral_target) == (question.kind == "mask")
        assert not any(word in question.neutral_target for word in TELLING)
    severity = questions[SEVERITY]
    assert all("study" in text for text in (*severity.templates, *severity.neutral)), "no slice has a grade of its own"
    assert not any(word in label for word in TELLING for label in severity.labels), (
        "options are shown under neutral prompts"
    )
    assert [label[:7] for label in severity.labels] == [f"grade {number}" for number in range(5)]
    lengths = [len(label) for label in severity.labels]
    assert len(lengths) == 5 and max(lengths) - min(lengths) <= 1, "length must not give the answer away"


def test_a_wrong_root_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "holiday.txt").touch()
    with pytest.raises(CrossmedError, match=r"studies/CT-0.*Found instead: holiday\.txt, studies/"):
        MosMedData().locate(tmp_path)
    with pytest.raises(CrossmedError, match="No such file"):
        MosMedData().locate(tmp_path / "nowhere")


def test_not_here_is_another_error_than_broken(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "studies").mkdir(parents=True)
    for root in (tmp_path / "photos", tmp_path / "nowhere"):
        with pytest.raises(DownloadNotFoundError):
            list(MosMedData().verify(root))
    for suffix in ("xlsx", "csv"):
        (copy / "COVID19_1110" / f"dataset_registry.{suffix}").write_bytes(b"")
    with pytest.raises(CrossmedError) as caught:
        list(MosMedData().verify(copy))
    assert not isinstance(caught.value, DownloadNotFoundError)


def test_loops_and_junk_change_nothing_and_nothing_is_written(copy: Path, whole: Read) -> None:
    folder = copy / "COVID19_1110"
    (copy / "loop").symlink_to(copy)
    (folder / "studies" / "self").symlink_to(folder / "studies" / "self")
    (folder / "studies" / "CT-1" / "Thumbs.db").write_bytes(b"junk")
    (folder / "studies" / "._CT-9").mkdir()
    (folder / "._dataset_registry.xlsx").write_bytes(b"junk")
    (copy / "BraTS2020_TrainingData").mkdir()
    before = digest_of(folder)
    samples, report = read(copy, segmentation=True)
    assert facts(samples) == facts(whole[0])
    assert report.counted == whole[1].counted and len(report.skipped) == len(whole[1].skipped)
    for one in samples[:5]:
        read_image(one.image)
    list(MosMedData().verify(copy))
    assert digest_of(folder) == before


def test_units_travel_to_other_processes(made: Path) -> None:
    dataset = MosMedData(segmentation=True, slices=2)
    units = [unit for unit in dataset.units(made) if isinstance(unit, Unit)]
    there, sent = pickle.loads(pickle.dumps((dataset, units)))  # noqa: S301 - our own bytes
    assert [one for unit in sent for one in there.read(unit)] == [one for unit in units for one in dataset.read(unit)]
    assert len(units) == 5 and sum(len(unit.studies) for unit in units) == 78


def test_verify_tells_a_fixture_from_the_real_thing(made: Path) -> None:
    found = {check.what: check for check in MosMedData().verify(made)}
    assert found["rows of the registry"].found == "79" and found["rows of the registry"].verdict == "differs"
    assert found["studies on disk"].found == "79" and found["masks on disk"].found == "17"
    assert found["CT-4 rows"].verdict == "differs" and found["categories with masks"].verdict == "ok"
    hints = [check for check in found.values() if check.what.startswith("SHA-256")]
    assert len(hints) == 3 and {check.verdict for check in hints} == {"hint"}
    assert {check.found for check in hints} >= {"no mask"}


def test_verify_accepts_the_published_counts(tmp_path: Path) -> None:
    """A tree of the published shape, without pixels: only the digests of the masks cannot be right."""
    bounds = {"CT-0": (1, 254), "CT-1": (255, 938), "CT-2": (939, 1063), "CT-3": (1064, 1108), "CT-4": (1109, 1110)}
    lines = ["study_id,category,study_file,mask_file"]
    (tmp_path / "masks").mkdir()
    for category, (first, last) in bounds.items():
        folder = tmp_path / "studies" / category
        folder.mkdir(parents=True)
        for number in range(first, last + 1):
            (folder / f"study_{number:04d}.nii.gz").touch()
            mask = f"/masks/study_{number:04d}_mask.nii.gz" if 255 <= number <= 304 else ""
            if mask:
                (tmp_path / mask[1:]).touch()
            lines.append(f"{number},{category},/studies/{category}/study_{number:04d}.nii.gz,{mask}")
    (tmp_path / "dataset_registry.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    checks = list(MosMedData().verify(tmp_path))
    assert [check.verdict for check in checks if not check.what.startswith("SHA-256")] == ["ok"] * 10


def test_another_seed_is_another_fixture(made: Path, tmp_path: Path) -> None:
    MosMedData().write_fixture(tmp_path, seed=1)
    assert digest_of(tmp_path).keys() == digest_of(made).keys()
    one, other = (read_image(read(root, slices=1)[0][0].image) for root in (made, tmp_path))
    assert (one != other).any()

"""BraTS 2020: every oddity of the download, held against the fixture's own knowledge and against nibabel."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmed_core.errors import CrossmedError, DownloadNotFoundError
from crossmed_core.images import read_image, read_mask
from crossmed_core.reading import ReadingReport
from crossmed_core.types import MAT, Counted, Sample, Skipped
from crossmed_plugins.brats2020.dataset import Brats2020, Unit
from crossmed_plugins.brats2020.layout import case_files, read_survival

GRADE, REGION = MAT("mri", "brain", "classification"), MAT("mri", "brain", "segmentation")
TRAINING = Path("BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData")
VALUES = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}


def digest_of(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(root: Path, **options: Any) -> tuple[list[Sample], ReadingReport]:
    report = ReadingReport()
    return list(report.samples(Brats2020(**options).samples(root))), report


def of(samples: list[Sample], case: str, mat: MAT) -> list[Sample]:
    return [one for one in samples if one.patient == case and one.mat == mat]


def resave(path: Path, change: Any) -> None:
    """Write a volume again, its array and affine changed."""
    image = nibabel.load(path)
    array, affine = change(np.asanyarray(image.dataobj).copy(), image.affine.copy())
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("brats")
    Brats2020().write_fixture(root)
    return root


@pytest.fixture(scope="module")
def manifest(made: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((made / "manifest.json").read_text())
    return content


@pytest.fixture(scope="module")
def whole(made: Path) -> tuple[list[Sample], ReadingReport]:
    return read(made)


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def test_it_finds_what_the_fixture_holds(
    made: Path, manifest: dict[str, Any], whole: tuple[list[Sample], ReadingReport]
) -> None:
    samples, report = whole
    assert report.counted == manifest["counted"]
    assert len(report.skipped) == len(manifest["skipped"])
    for case, why in manifest["skipped"].items():
        (row,) = [one for one in report.skipped if case in one.where + one.reason]
        assert why in row.reason.replace("gives it no grade", "no grade")
    for mat in (GRADE, REGION):
        of_cell = [one for one in samples if one.mat == mat]
        assert len(of_cell) >= 40 and sum(one.part == "test" for one in of_cell) >= 6
    patients = {(one.patient, one.label, one.part) for one in samples if one.mat == GRADE}
    assert min(Counter((label, part) for _, label, part in patients).values()) >= 2
    assert sum(path.stat().st_size for path in made.rglob("*") if path.is_file()) < 2e6


@pytest.mark.parametrize("region", ["WT", "TC", "ET"])
def test_masks_are_those_of_the_manifest(made: Path, manifest: dict[str, Any], region: str) -> None:
    samples, report = read(made, region=region, min_area=1)
    by_case = {case: of(samples, case, REGION) for case in manifest["cases"]}
    empty = 0
    for case, known in manifest["cases"].items():
        areas = known["areas"][region]
        found = {one.source["slice"]: int(read_mask(one.mask).sum()) for one in by_case[case]}  # type: ignore[arg-type]
        assert found == {z: area for z, area in enumerate(areas) if area}
        assert sum(found.values()) == known["voxels"][region]
        assert all(one.source["region_pixels"] == areas[one.source["slice"]] for one in by_case[case])  # type: ignore[index]
        empty += not any(areas)
    assert report.counted[f"cases without {region}"] == empty
    assert (empty > 0) == (region == "ET")


def test_tumours_lie_where_they_were_drawn(manifest: dict[str, Any], whole: tuple[list[Sample], ReadingReport]) -> None:
    """Off the midline in both directions: a flip of x, y or z moves the box."""
    for one in whole[0]:
        if one.mat == REGION:
            rows, columns = np.nonzero(read_mask(one.mask))  # type: ignore[arg-type]
            box = [rows.min(), rows.max(), columns.min(), columns.max()]
            assert box == manifest["cases"][one.patient]["box"][str(one.source["slice"])], one.id
    first = next(one for one in whole[0] if one.id == "brats2020-001-region-z007")
    rows, columns = np.nonzero(read_mask(first.mask))  # type: ignore[arg-type]
    assert rows.max() < 13 and columns.max() < 13, "case 001 has its tumour in front and on the patient's right"


@pytest.mark.parametrize("rendering", ["percentile", "zscore"])
def test_images_are_those_of_numpy(made: Path, rendering: str) -> None:
    samples, _ = read(made, rendering=rendering, slices=1)
    for case in ("BraTS20_Training_001", "BraTS20_Training_260", "BraTS20_Training_355"):
        for mat, sequence in ((GRADE, "t1ce"), (REGION, "flair")):
            (one,) = of(samples, case, mat)
            (path,) = (made / TRAINING / case).glob(f"{case}_{sequence}.nii*")
            assert one.image.path == str(path)
            voxels = np.asanyarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj).astype(float)
            inside = voxels[voxels > 0]
            if rendering == "percentile":
                low, high = np.percentile(inside, [1, 99], method="inverted_cdf")
            else:
                low, high = inside.mean() - 2 * inside.std(), inside.mean() + 3 * inside.std()
            plane = voxels[::-1, ::-1, one.source["slice"]].T  # right to left, front to back
            expected = (np.clip(plane, low, high) - low) / (high - low) * 255
            assert np.abs(read_image(one.image) - expected).max() <= 0.51
            assert str(one.source["rendering"]).startswith(rendering)


def test_images_of_patients_differ(whole: tuple[list[Sample], ReadingReport]) -> None:
    images = [hashlib.sha256(read_image(one.image).tobytes()).digest() for one in whole[0]]
    assert len(set(images)) == len(images)


def test_grades_and_parts(made: Path, manifest: dict[str, Any], whole: tuple[list[Sample], ReadingReport]) -> None:
    samples, _ = whole
    parts: dict[str, set[Any]] = {}
    for one in samples:
        parts.setdefault(one.patient, set()).add(one.part)
        if one.mat == GRADE:
            assert one.label == manifest["cases"][one.patient]["grade"]
    assert all(len(found) == 1 for found in parts.values())
    assert {one.patient for one in samples if one.mat == GRADE} == {
        case for case, known in manifest["cases"].items() if known["grade"]
    }
    assert of(samples, "BraTS20_Training_400", REGION) and not of(samples, "BraTS20_Training_400", GRADE)


def test_a_partial_download_leaves_everybody_in_their_part(
    copy: Path, whole: tuple[list[Sample], ReadingReport]
) -> None:
    for number in (2, 5, 9, 261, 265):
        shutil.rmtree(copy / TRAINING / f"BraTS20_Training_{number:03d}")
    samples, report = read(copy)
    known = {one.id: one.part for one in whole[0]}
    assert {one.id: one.part for one in samples} == {one.id: known[one.id] for one in samples}
    assert len({one.patient for one in whole[0]}) - len({one.patient for one in samples}) == 5
    assert sum("has no folder" in one.reason for one in report.skipped) == 6


def test_the_odd_segmentation_and_its_repaired_copy(copy: Path, whole: tuple[list[Sample], ReadingReport]) -> None:
    case = "BraTS20_Training_355"
    folder = copy / TRAINING / case
    before = of(whole[0], case, REGION)
    assert before and all(str(one.mask.path).endswith("W39_1998.09.19_Segm.nii") for one in before if one.mask)
    (folder / "W39_1998.09.19_Segm.nii").rename(folder / f"{case}_seg.nii")
    (folder / "notes.nii").write_bytes(b"another unknown file does no harm beside a known segmentation")
    after = of(read(copy)[0], case, REGION)
    assert [one.id for one in after] == [one.id for one in before]
    assert all(str(one.mask.path).endswith("_seg.nii") for one in after if one.mask)


def test_two_unknown_files_are_no_segmentation(copy: Path) -> None:
    folder = copy / TRAINING / "BraTS20_Training_355"
    shutil.copy(folder / "W39_1998.09.19_Segm.nii", folder / "W40_Segm.nii")
    samples, report = read(copy)
    assert not of(samples, "BraTS20_Training_355", REGION) and not of(samples, "BraTS20_Training_355", GRADE)
    assert any("no segmentation" in one.reason and "355" in one.where for one in report.skipped)


def test_suffixes_are_matched_at_the_end(tmp_path: Path) -> None:
    names = ("x_T1CE.NII.GZ", "x_t1.nii", "x_t2.nii.gz", "x_flair.nii", "x_seg.nii", "._x_t1.nii", "x_t1.txt")
    for name in names:
        (tmp_path / name).touch()
    assert {kind: path.name for kind, path in case_files(tmp_path).items()} == {
        "t1ce": "x_T1CE.NII.GZ", "t1": "x_t1.nii", "t2": "x_t2.nii.gz", "flair": "x_flair.nii", "seg": "x_seg.nii",
    }  # fmt: skip


@pytest.mark.parametrize("options", [{"region_sequence": "t2"}, {"grade_sequence": "t2"}])
def test_a_missing_sequence_costs_its_own_cell_only(
    made: Path, manifest: dict[str, Any], options: dict[str, str]
) -> None:
    samples, report = read(made, **options)
    lost, kept = (REGION, GRADE) if "region_sequence" in options else (GRADE, REGION)
    case = manifest["no_t2"]
    assert not of(samples, case, lost) and of(samples, case, kept)
    (row,) = [one for one in report.skipped if one.where.endswith(case)]
    assert "no t2 image" in row.reason and row.reason.endswith(f"the {'region' if lost == REGION else 'grade'} cell")
    assert of(samples, "BraTS20_Training_001", lost)


def test_each_missing_sequence_is_told_whatever_is_shown(copy: Path, whole: tuple[list[Sample], ReadingReport]) -> None:
    case = "BraTS20_Training_002"
    for sequence in ("t1", "t2", "flair", "t1ce"):
        (copy / TRAINING / case / f"{case}_{sequence}.nii.gz").unlink()
    nothing = "no cell shows it as set, so nothing is lost"
    rows = [one.reason for one in read(copy)[1].skipped if one.where.endswith(case)]
    assert rows == [
        "no flair image; it is left out of the region cell",
        f"no t1 image; {nothing}",
        "no t1ce image; it is left out of the grade cell",
        f"no t2 image; {nothing}",
    ]
    (copy / TRAINING / case / f"{case}_seg.nii.gz").unlink()
    samples, report = read(copy, grade_sequence="t2", region_sequence="t2")
    rows = [one.reason for one in report.skipped if one.where.endswith(case)]
    assert rows[3] == "no t2 image; it is left out of the grade and the region cell"
    assert len(rows) == 5 and rows[4].startswith("no segmentation")
    assert not [one for one in samples if one.patient == case] and of(whole[0], case, GRADE)
    unlisted = "BraTS20_Training_400"
    (copy / TRAINING / unlisted / f"{unlisted}_t2.nii.gz").unlink()
    _, report = read(copy, grade_sequence="t2")
    (row,) = [one.reason for one in report.skipped if one.where.endswith(unlisted) and "t2" in one.reason]
    assert row == f"no t2 image; {nothing}", "it has no grade, so the grade cell lost nothing"


def test_label_three_is_another_year(whole: tuple[list[Sample], ReadingReport]) -> None:
    samples, report = whole
    assert not [one for one in samples if one.patient == "BraTS20_Training_301"]
    (row,) = [one for one in report.skipped if "label 3" in one.reason]
    assert row.where.endswith("BraTS20_Training_301_seg.nii.gz") and "BraTS 2023" in row.reason


def test_real_numbers_are_labels_and_fractions_are_not(copy: Path, manifest: dict[str, Any]) -> None:
    path = copy / TRAINING / "BraTS20_Training_017" / "BraTS20_Training_017_seg.nii.gz"
    assert nibabel.load(path).get_data_dtype() == np.float64
    assert of(read(copy)[0], "BraTS20_Training_017", REGION)
    resave(path, lambda array, affine: (array * 0.5, affine))
    samples, report = read(copy)
    assert not of(samples, "BraTS20_Training_017", REGION)
    assert any("not whole numbers" in one.reason for one in report.skipped)


def test_an_empty_region_is_counted_and_the_grade_stays(made: Path) -> None:
    samples, report = read(made, region="ET")
    assert not of(samples, "BraTS20_Training_260", REGION) and of(samples, "BraTS20_Training_260", GRADE)
    assert report.counted["cases without ET"] == 9
    assert not any("260" in one.where for one in report.skipped)


def test_a_region_that_is_small_everywhere_is_counted_apart(made: Path) -> None:
    samples, report = read(made, min_area=10_000)
    assert not samples
    assert report.counted["cases with WT below 10000 pixels in every slice"] == 2 * 40 - 2 - 1
    assert "cases without WT" not in report.counted


def test_na_stays_text_and_lines_may_end_in_crlf(copy: Path, whole: tuple[list[Sample], ReadingReport]) -> None:
    ids = {one.patient: one.source["tcga_id"] for one in whole[0]}
    assert ids["BraTS20_Training_001"] == "NA" and ids["BraTS20_Training_002"] == "TCGA-XX-0002"
    training = copy / TRAINING
    assert b"\r\n" in (training / "survival_info.csv").read_bytes()
    assert read_survival(training) == {
        "BraTS20_Training_001": "300",
        "BraTS20_Training_084": "ALIVE (361 days later)",
        "BraTS20_Training_355": "880",
    }
    lines = [line.split(",") for line in (training / "name_mapping.csv").read_text().splitlines()]
    turned = "\r\n".join(",".join(line[::-1]) for line in lines)  # columns the other way round, BOM, CRLF
    (training / "name_mapping.csv").write_bytes(b"\xef\xbb\xbf" + turned.encode())
    again = read(copy)[0]
    assert [(one.id, one.label, one.part) for one in again] == [(one.id, one.label, one.part) for one in whole[0]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("HGG,NA,NA,NA,NA,BraTS20_Training_001", "listed twice"),
        ("NA,NA,NA,NA,NA,BraTS20_Training_400", "neither HGG nor LGG"),
        ("HGG,NA,NA,NA,NA,BraTS19_Training_7", "not a BraTS 2020 training id"),
        ("HGG", "not a BraTS 2020 training id"),
        (f"LGG,NA,NA,NA,NA,BraTS20_Training_{'1' * 5000}", "not a BraTS 2020 training id"),
    ],
)
def test_bad_rows_are_passed_over(copy: Path, whole: tuple[list[Sample], ReadingReport], row: str, reason: str) -> None:
    with (copy / TRAINING / "name_mapping.csv").open("a") as file:
        file.write(row + "\n")
    samples, report = read(copy)
    assert [one.id for one in samples] == [one.id for one in whole[0]]
    (found,) = [one for one in report.skipped if reason in one.reason]
    assert found.where == "name_mapping.csv, line 42" and len(found.reason) < 200
    list(Brats2020().verify(copy))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"Grade,BraTS_2019_subject_ID\nHGG,BraTS19_X_1\n", "lacks the column BraTS_2020_subject_ID"),
        (b"", "lacks the column"),
        (b"Grade,\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_mapping_that_cannot_be_used_ends_the_reading(copy: Path, content: bytes | None, message: str) -> None:
    path = copy / TRAINING / "name_mapping.csv"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CrossmedError, match=message) as caught:
        read(copy)
    assert "name_mapping.csv" in str(caught.value)


def test_what_is_no_regular_file_is_not_opened(
    copy: Path, whole: tuple[list[Sample], ReadingReport], irregular: Callable[[Path], None]
) -> None:
    folder = copy / TRAINING
    for number, kind in ((2, "flair"), (3, "seg")):
        case = f"BraTS20_Training_{number:03d}"
        irregular(folder / case / f"{case}_{kind}.nii.gz")
    samples, report = read(copy)
    reasons = {one.where.rpartition("/")[2]: one.reason for one in report.skipped}
    assert reasons["BraTS20_Training_002_flair.nii.gz"] == (
        "not a regular file; the case is left out of the region cell"
    )
    assert reasons["BraTS20_Training_003_seg.nii.gz"] == "not a regular file"
    lost = ("brats2020-002-region", "brats2020-003")
    assert [one.id for one in samples] == [one.id for one in whole[0] if not one.id.startswith(lost)]
    irregular(folder / "survival_info.csv")
    assert any("not a regular file" in check.found for check in Brats2020().verify(copy))
    irregular(folder / "name_mapping.csv")
    with pytest.raises(CrossmedError, match=r"name_mapping\.csv cannot be read: not a regular file"):
        read(copy)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_affine_without_numbers_costs_its_case_only(
    copy: Path, whole: tuple[list[Sample], ReadingReport], value: float
) -> None:
    for number, kind in ((2, "flair"), (3, "seg")):
        case = f"BraTS20_Training_{number:03d}"
        path = copy / TRAINING / case / f"{case}_{kind}.nii.gz"
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[280:284] = np.float32(value).tobytes()  # srow_x
        path.write_bytes(gzip.compress(bytes(content)))
    colours = np.zeros((8, 8, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    path = copy / TRAINING / "BraTS20_Training_004" / "BraTS20_Training_004_flair.nii.gz"
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), path)
    samples, report = read(copy)
    reasons = {one.where.rpartition("/")[2]: one.reason for one in report.skipped}
    assert "its affine" in reasons["BraTS20_Training_002_flair.nii.gz"]
    assert "its affine holds values that are no numbers" in reasons["BraTS20_Training_003_seg.nii.gz"]
    assert "no plain numbers" in reasons["BraTS20_Training_004_flair.nii.gz"]
    lost = ("brats2020-002-region", "brats2020-003", "brats2020-004-region")
    assert [one.id for one in samples] == [one.id for one in whole[0] if not one.id.startswith(lost)]


def test_images_must_lie_on_their_segmentation(copy: Path) -> None:
    training = copy / TRAINING

    def file(number: int, kind: str) -> Path:
        return training / f"BraTS20_Training_{number:03d}" / f"BraTS20_Training_{number:03d}_{kind}.nii.gz"

    resave(file(2, "flair"), lambda array, affine: (array[:, :, :-1], affine))
    resave(file(3, "flair"), lambda array, affine: (array, affine @ np.diag([-1, 1, 1, 1])))
    resave(file(4, "flair"), lambda array, affine: (array, affine + 1e-5))  # as another program rounds
    file(5, "flair").write_bytes(file(5, "flair").read_bytes()[:60])
    file(6, "seg").write_bytes(gzip.compress(gzip.decompress(file(6, "seg").read_bytes())[:2000]))
    file(7, "seg").unlink()
    samples, report = read(copy)
    reasons = {one.where.rpartition("/")[2]: one.reason for one in report.skipped}
    for number, name, words in (
        (2, "BraTS20_Training_002_flair.nii.gz", "its shape 24 x 24 x 15 is not that of the segmentation"),
        (3, "BraTS20_Training_003_flair.nii.gz", "its affine is not that"),
        (5, "BraTS20_Training_005_flair.nii.gz", "truncated"),
    ):
        assert words in reasons[name] and "left out of the region cell" in reasons[name]
        assert not of(samples, f"BraTS20_Training_{number:03d}", REGION)
        assert of(samples, f"BraTS20_Training_{number:03d}", GRADE)
    assert of(samples, "BraTS20_Training_004", REGION)
    assert reasons["BraTS20_Training_006_seg.nii.gz"].startswith("truncated")
    assert reasons["BraTS20_Training_007"].startswith("no segmentation")
    for number in (6, 7):
        assert not [one for one in samples if one.patient == f"BraTS20_Training_{number:03d}"]
    assert all(Path(one.image.path).exists() for one in samples)


def test_validation_cases_are_counted_never_read(made: Path, whole: tuple[list[Sample], ReadingReport]) -> None:
    assert not [one for one in whole[0] if "Validation" in one.image.path]
    training_only = read(made / TRAINING)
    assert training_only[1].counted["cases without labels"] == 0, "nothing above the given root is looked at"
    assert [one.id for one in training_only[0]] == [one.id for one in whole[0]]


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["BraTS2021_00000", "BraTS2021_00002"], "BraTS 2021"),
        (["ASNR/BraTS-GLI-00000-000"], "BraTS 2023"),
        (["MICCAI_BraTS_2018/HGG/Brats18_2013_2_1"], "BraTS 2018"),
        (["HGG/BraTS19_2013_2_1", "LGG"], "BraTS 2019"),
        (["HGG/Brats17_CBICA_AAB_1"], "BraTS 2017"),
        (["data/HGG/other"], "2017 to 2019"),
        (["Task01_BrainTumour/imagesTr"], "Decathlon"),
        (["MICCAI_BraTS2020_ValidationData/BraTS20_Validation_001"], "validation data"),
    ],
)
def test_other_years_are_refused_by_name(tmp_path: Path, folders: list[str], words: str) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(CrossmedError, match=words) as caught:
        Brats2020().locate(tmp_path)
    assert "2020 training data only" in str(caught.value)


def test_other_years_beside_it_do_no_harm(copy: Path) -> None:
    (copy / "BraTS2021_00000").mkdir()
    (copy / "A" / "HGG").mkdir(parents=True)
    assert Brats2020().locate(copy).root == copy / TRAINING


def test_a_wrong_root_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").touch()
    with pytest.raises(CrossmedError, match=r"BraTS20_Training_001.*Found instead: holiday\.txt"):
        Brats2020().locate(tmp_path)
    with pytest.raises(CrossmedError, match="No such file"):
        Brats2020().locate(tmp_path / "nowhere")


def test_not_here_is_another_error_than_broken(copy: Path, tmp_path: Path) -> None:
    for name in ("photos", "other"):
        (tmp_path / name).mkdir()
    for root in (tmp_path / "photos", tmp_path / "nowhere"):
        with pytest.raises(DownloadNotFoundError):
            list(Brats2020().verify(root))
    (tmp_path / "other" / "BraTS2021_00000").mkdir()
    (copy / TRAINING / "name_mapping.csv").unlink()
    for root in (tmp_path / "other", copy):
        with pytest.raises(CrossmedError) as caught:
            list(Brats2020().verify(root))
        assert not isinstance(caught.value, DownloadNotFoundError)


def test_loops_and_junk_change_nothing_and_nothing_is_written(
    copy: Path, whole: tuple[list[Sample], ReadingReport]
) -> None:
    (copy / "loop").symlink_to(copy)
    (copy / TRAINING / "self").symlink_to(copy / TRAINING / "self")
    (copy / TRAINING / "BraTS20_Training_001" / "Thumbs.db").write_bytes(b"junk")
    (copy / TRAINING / "._BraTS20_Training_001").mkdir()
    (copy / TRAINING / "BraTS20_Training_500").write_text("a file, not a folder")
    before = digest_of(copy / TRAINING)
    samples, report = read(copy)
    assert [one.id for one in samples] == [one.id for one in whole[0]]
    assert report.counted == whole[1].counted
    for one in samples[:5]:
        read_image(one.image)
    list(Brats2020().verify(copy))
    assert digest_of(copy / TRAINING) == before


def test_units_travel_to_other_processes(made: Path) -> None:
    dataset = Brats2020(region="TC", slices=3)
    units = [unit for unit in dataset.units(made) if isinstance(unit, Unit)]
    there, sent = pickle.loads(pickle.dumps((dataset, units)))  # noqa: S301 - our own bytes
    far = [one for unit in sent for one in there.read(unit)]
    assert far == [one for unit in units for one in dataset.read(unit)]
    assert all(isinstance(one, Sample | Skipped | Counted) for one in far)


@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(1, 60),
    st.sampled_from(["even", "largest"]),
)
def test_slices_are_chosen_as_promised(areas: list[int], slices: int, least: int, choice: str) -> None:
    chosen = Brats2020(slices=slices, min_area=least, choice=choice).chosen(np.array(areas))
    able = [z for z, area in enumerate(areas) if area >= least]
    assert chosen == sorted(set(chosen)) and set(chosen) <= set(able)
    assert len(chosen) == min(slices, len(able))
    if choice == "largest":
        assert sorted(areas[z] for z in chosen) == sorted(areas[z] for z in able)[-slices:] or not able
    elif len(chosen) > 1:
        places = [able.index(z) for z in chosen]
        gaps = np.diff(places)
        assert places[0] == 0 and places[-1] == len(able) - 1 and gaps.max() - gaps.min() <= 1


def test_choice_and_bounds_reach_the_samples(made: Path, manifest: dict[str, Any]) -> None:
    samples, _ = read(made, slices=2, choice="largest", region="TC", min_area=5)
    areas = manifest["cases"]["BraTS20_Training_001"]["areas"]
    for mat, region in ((GRADE, "WT"), (REGION, "TC")):
        found = of(samples, "BraTS20_Training_001", mat)
        largest = sorted(sorted(range(16), key=lambda z: (-areas[region][z], z))[:2])
        assert [one.source["slice"] for one in found] == largest
        assert {one.source["choice"] for one in found} == {"largest"}
        assert {one.source["of"] for one in found} == {16}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("region", "wt", "'WT'|WT, TC, ET"),
        ("grade_sequence", "t1c", "Did you mean 't1'|t1ce"),
        ("region_sequence", "T2", "flair, t1, t1ce, t2"),
        ("choice", "evn", "Did you mean 'even'"),
        ("rendering", "window", "percentile, zscore"),
        ("slices", 0, "at least 1"),
        ("slices", "many", "at least 1"),
        ("slices", True, "at least 1"),
        ("min_area", -3, "at least 1"),
        ("min_area", 2.5, "at least 1"),
    ],
)
def test_bad_options_are_refused(option: str, value: Any, words: str) -> None:
    with pytest.raises(CrossmedError, match=words) as caught:
        Brats2020(**{option: value})
    assert option in str(caught.value) and repr(value) in str(caught.value)


@pytest.mark.parametrize("region", ["WT", "TC", "ET"])
def test_questions_are_wide_and_neutral_ones_give_nothing_away(region: str) -> None:
    for question in Brats2020(region=region).questions().values():
        assert len(set(question.templates)) == len(set(question.neutral)) >= 6
        for text in question.templates:
            filled = text.format(modality="MRI", anatomy="brain")
            assert "MRI" in filled and "brain" in filled and "REGION" not in filled
        assert bool(question.target) == bool(question.neutral_target) == (question.kind == "mask")
        for text in (*question.neutral, question.neutral_target):
            words = text.lower()
            assert not any(word in words for word in ("mri", "brain", "glio", "head", "{", "scan"))
    assert any(Brats2020(region=region).questions()[REGION].target in text for text in question.templates)
    labels = Brats2020().questions()[GRADE]
    assert len(labels.labels) + len(labels.outside) >= 4 and not set(labels.labels) & set(labels.outside)


def test_verify_tells_a_fixture_from_the_real_thing(copy: Path) -> None:
    found = {check.what: check for check in Brats2020().verify(copy)}
    assert found["training cases"].found == "40" and found["training cases"].verdict == "differs"
    assert found["cases with four sequences and a segmentation"].found == "39"
    assert found["survival of case 084"].verdict == "ok"
    survival = copy / TRAINING / "survival_info.csv"
    survival.write_text(survival.read_text().replace("ALIVE (361 days later)", "361"))
    assert {one.what: one.verdict for one in Brats2020().verify(copy)}["survival of case 084"] == "hint"
    survival.unlink()
    assert list(Brats2020().verify(copy))[-1].verdict == "differs"


def test_verify_accepts_the_published_counts(tmp_path: Path) -> None:
    """A tree of the published shape: 369 cases, LGG 260 to 335, 236 rows of survival."""
    training = tmp_path / TRAINING
    lines = ["Grade,BraTS_2020_subject_ID"]
    for number in range(1, 370):
        name = f"BraTS20_Training_{number:03d}"
        (training / name).mkdir(parents=True)
        for kind in ("flair", "t1", "t1ce", "t2", "seg"):
            odd = (number, kind) == (355, "seg")
            (training / name / ("W39_1998.09.19_Segm.nii" if odd else f"{name}_{kind}.nii")).touch()
        lines.append(f"{'LGG' if 260 <= number <= 335 else 'HGG'},{name}")
    (training / "name_mapping.csv").write_text("\n".join(lines))
    rows = [f"BraTS20_Training_{number:03d},1" for number in range(1, 237)]
    rows[83] = "BraTS20_Training_084,ALIVE (361 days later)"
    (training / "survival_info.csv").write_text("\n".join(["Brats20ID,Survival_days", *rows]))
    checks = list(Brats2020().verify(tmp_path))
    assert {check.verdict for check in checks} == {"ok"} and len(checks) == 8


def test_another_seed_is_another_fixture(made: Path, tmp_path: Path) -> None:
    Brats2020().write_fixture(tmp_path, seed=1)
    assert digest_of(tmp_path).keys() == digest_of(made).keys()
    one, other = (read(root, slices=1)[0] for root in (made, tmp_path))
    assert (read_image(one[0].image) != read_image(replace(other[0].image)).reshape(24, 24)).any()

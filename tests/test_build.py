"""Builds: from the counterfeit downloads of all five readers to runs; stopped, resumed, broken, refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossmed_cli.main import run
from crossmed_core import build_rounds
from crossmed_core.build import BuildResult, build
from crossmed_core.build_recipe import BuildRecipe, DatasetPlan, read_build_recipe
from crossmed_core.build_sources import BuildRequest
from crossmed_core.built import BuiltBenchmark
from crossmed_core.catalog import Catalog
from crossmed_core.errors import CrossmedError
from crossmed_core.images import decode_mask, read_image, read_mask
from crossmed_core.types import MAT, person

FOUR = ("brats2020", "chexpert", "mosmeddata", "siim-acr")
REGIONS = MAT("mri", "brain", "segmentation")
GRADE = MAT("mri", "brain", "classification")
FINDING = MAT("xray", "chest", "classification")
SEVERITY = MAT("ct", "lung", "classification")
PNEUMOTHORAX = MAT("xray", "chest", "segmentation")


def tree(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    catalog = Catalog()
    for name in (*FOUR, "medmat"):
        (root / name).mkdir()
        catalog.dataset(name, {})[0].write_fixture(root / name)
    return root


def silent(phase: str, what: str, done: int, total: int | None) -> None:
    pass


def built(raw: Path, out: Path, recipe: str | BuildRecipe = "crossmed-20200", **settings: Any) -> BuildResult:
    recipe = read_build_recipe(recipe) if isinstance(recipe, str) else recipe
    return build(BuildRequest((raw,), out, recipe, **settings), Catalog(), silent)


@pytest.fixture(scope="module")
def bench(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = tree(raw)
    out = tmp_path_factory.mktemp("bench") / "b"
    result = built(raw, out)
    assert tree(raw) == before, "the download is never written to"
    assert not result.problems
    return out


@pytest.fixture
def benchmark(bench: Path) -> BuiltBenchmark:
    return BuiltBenchmark(bench, {})


def test_five_cells_of_four_sources(benchmark: BuiltBenchmark) -> None:
    assert set(benchmark.questions) == {FINDING, PNEUMOTHORAX, GRADE, REGIONS, SEVERITY}
    assert set(benchmark.card()["sources"]) == set(FOUR)
    for mat in benchmark.questions:
        for part in ("train", "val", "test"):
            assert any(key.mat == mat and key.part == part for key in benchmark.keys.values()), (mat, part)


def test_no_patient_stands_in_two_parts_and_the_cells_of_brats_share_one_split(benchmark: BuiltBenchmark) -> None:
    parts = defaultdict(set)
    for key in benchmark.keys.values():
        parts[key.dataset, key.patient].add(key.part)
    assert all(len(found) == 1 for found in parts.values())
    both = [{key.patient: key.part for key in benchmark.keys.values() if key.mat == mat} for mat in (GRADE, REGIONS)]
    shared = both[0].keys() & both[1].keys()
    assert len(shared) > 10 and all(both[0][one] == both[1][one] for one in shared)


def test_no_image_stands_in_two_parts(benchmark: BuiltBenchmark) -> None:
    parts = defaultdict(set)
    for item in benchmark.items(benchmark.keys):
        parts[item.image.pixels].add(item.part)
    assert all(len(found) == 1 for found in parts.values())


def test_findings_have_no_distractor_that_is_true_or_uncertain(raw: Path, benchmark: BuiltBenchmark) -> None:
    reader, _ = Catalog().dataset("chexpert", {})
    samples = {one.id: one for one in reader.samples(reader.locate(raw).root) if hasattr(one, "excluded")}
    checked = 0
    for item in benchmark.items(key.id for key in benchmark.keys.values() if key.mat == FINDING):
        others = set(item.options) - {item.label}
        assert not others & set(samples[item.id].excluded), item
        checked += bool(samples[item.id].excluded)
    assert checked > 5, "the fixture has images with several findings"


def test_test_parts_are_balanced_as_far_as_the_data_allow(benchmark: BuiltBenchmark) -> None:
    for cell, facts in benchmark.card()["cells"].items():
        for part in facts["parts"].values():
            taken, offered = part["labels"], part["offered"]
            unused = [taken[label] for label in taken if taken[label] < offered.get(label, 0)]
            if facts["answers"] == "option" and unused:
                assert max(taken.values()) <= min(unused) + 1, (cell, taken, offered)


def test_provenance_names_file_slice_rendering_and_pixels(raw: Path, benchmark: BuiltBenchmark) -> None:
    for mat, keys in (
        (GRADE, {"file", "axial", "rendering", "native", "size", "resize", "pixels", "source"}),
        (SEVERITY, {"file", "axial", "rendering", "native", "size", "resize", "pixels", "source"}),
        (PNEUMOTHORAX, {"file", "native", "size", "resize", "pixels", "source"}),
    ):
        item = next(key.id for key in benchmark.keys.values() if key.mat == mat)
        row = benchmark.row(item)
        assert keys <= set(row["provenance"]), mat
        assert (row["modality"], row["anatomy"], row["task"]) == tuple(mat), "MAT tags"
        source = benchmark.card()["sources"][row["dataset"]]
        assert (Path(source["root"]) / row["provenance"]["file"]).exists()


def test_images_are_lossless(raw: Path, benchmark: BuiltBenchmark) -> None:
    reader, _ = Catalog().dataset("brats2020", {"slices": 16})
    root = reader.locate(raw).root
    samples = {one.id: one for one in reader.samples(root) if hasattr(one, "image")}
    some = [key.id for key in benchmark.keys.values() if key.mat == REGIONS][::25]
    for item in benchmark.items(some):
        assert np.array_equal(read_image(item.image), read_image(samples[item.id].image))
        assert item.mask is not None
        assert np.array_equal(read_mask(item.mask), read_mask(samples[item.id].mask))


def test_prompts_without_giveaway_words(bench: Path) -> None:
    named, neutral = BuiltBenchmark(bench, {}), BuiltBenchmark(bench, {"prompts": "neutral"})
    assert named.digest != neutral.digest
    words = re.compile(r"\b(x-?ray|radiograph|ct|mri|mr|chest|lungs?|brain|thora\w+|cranial|head|tomogra\w+)\b", re.I)
    for first, second in zip(named.items(named.keys), neutral.items(neutral.keys), strict=True):
        assert words.search(first.question), first.question
        assert not words.search(second.question), second.question
        assert first.options == second.options
    for facts in named.card()["cells"].values():
        assert len(facts["templates"]) >= 6 and len(facts["neutral"]) >= 6


def test_regions_are_asked_of_models_that_choose_and_masks_of_those_that_outline(bench: Path) -> None:
    contours, boxes = BuiltBenchmark(bench, {}), BuiltBenchmark(bench, {"regions": "boxes"})
    some = [key.id for key in contours.keys.values() if key.mat == REGIONS and key.part == "test"][:5]
    for item_id in some:
        (outline,), (choice,), (box,) = (
            b.items([item_id], answers)
            for b, answers in ((contours, ("option", "mask")), (contours, ("option",)), (boxes, ("option",)))
        )
        assert outline.kind == "mask" and not outline.options
        assert choice.kind == box.kind == "option" and len(set(choice.options)) == 4
        assert choice.answer is not None and outline.mask is not None
        assert choice.candidates[choice.answer] == outline.mask.rle
        assert choice.label == choice.options[choice.answer]
        assert read_image(choice.image).ndim == 3, "contours are drawn in colour"
        assert np.array_equal(read_image(box.image), read_image(outline.image)), "boxes are not drawn"
        left, top, right, bottom = json.loads(box.options[choice.answer])
        rows, columns = np.nonzero(decode_mask(outline.mask.rle))
        height, width = outline.mask.rle.size
        assert (left, right) == (round(1000 * columns.min() / width), round(1000 * (columns.max() + 1) / width))
        assert (top, bottom) == (round(1000 * rows.min() / height), round(1000 * (rows.max() + 1) / height))
    for mat in (REGIONS, PNEUMOTHORAX):
        choice_values = contours.card()["cells"][str(mat)]["parts"]["test"]["choice"]
        assert 0 < choice_values["random"]["ciou"] < 0.5 and choice_values["best"]["ciou"] == 1


def test_options_from_outside_or_fewer(raw: Path, tmp_path: Path, benchmark: BuiltBenchmark) -> None:
    grade = benchmark.card()["cells"][str(GRADE)]
    assert set(grade["parts"]["test"]["options"]) == {"4"}
    assert grade["parts"]["test"]["chance"] == 0.25
    recipe = replace(read_build_recipe("mini"), fill="own")
    own = built(raw, tmp_path / "own", recipe, datasets=("brats2020",))
    assert own.card["cells"][str(GRADE)]["parts"]["test"]["chance"] == 0.5
    assert own.card["settings"]["fill"] == "own"


def test_the_same_bytes_for_any_number_of_processes(raw: Path, bench: Path, tmp_path: Path) -> None:
    built(raw, tmp_path / "two", jobs=2)
    assert tree(tmp_path / "two") == tree(bench)


def test_a_build_that_was_stopped_goes_on_to_the_same_bytes(
    raw: Path, bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "b"
    real = {name: getattr(build_rounds, name) for name in ("render_group", "make_regions")}
    for name, calls in (("render_group", 7), ("render_group", 31), ("make_regions", 3)):
        count = 0

        def stopping(task: Any, name: str = name, calls: int = calls) -> Any:
            nonlocal count
            count += 1
            if count == calls:
                raise KeyboardInterrupt
            return real[name](task)

        monkeypatch.setattr(build_rounds, name, stopping)
        with pytest.raises(KeyboardInterrupt):
            built(raw, out)
        monkeypatch.setattr(build_rounds, name, real[name])
    done = len((out / ".work" / "rendered.jsonl").read_text().splitlines())
    rendered: list[str] = []

    def counting(task: Any) -> Any:
        rendered.extend(sample.id for sample in task[1])
        return real["render_group"](task)

    monkeypatch.setattr(build_rounds, "render_group", counting)
    result = built(raw, out)
    assert done > 0 and len(rendered) < result.card["n"] / 2, "what was rendered is not rendered again"
    assert tree(out) == tree(bench)


def test_a_finished_build_is_found_and_another_is_refused(raw: Path, bench: Path) -> None:
    before = tree(bench)
    assert built(raw, bench).reused and tree(bench) == before
    with pytest.raises(CrossmedError, match="holds another benchmark"):
        built(raw, bench, "mini")


def test_other_folders_are_refused(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CrossmedError, match="not empty and holds no benchmark"):
        built(raw, tmp_path)
    (tmp_path / "x" / ".work").mkdir(parents=True)
    (tmp_path / "x" / ".work" / "build.json").write_text('{"build": "other"}')
    with pytest.raises(CrossmedError, match="another build that was not finished"):
        built(raw, tmp_path / "x")


def test_images_are_reduced_with_their_regions(raw: Path, tmp_path: Path) -> None:
    recipe = BuildRecipe("small", {"siim-acr": DatasetPlan()}, max_side=40)
    out = tmp_path / "b"
    built(raw, out, recipe)
    benchmark = BuiltBenchmark(out, {})
    reduced = 0
    for item in benchmark.items(benchmark.keys):
        shape = read_image(item.image).shape[:2]
        assert max(shape) <= 40 and item.mask is not None and read_mask(item.mask).shape == shape
        facts = benchmark.row(item.id)["provenance"]
        reduced += facts["resize"] is not None
        assert facts["resize"] is None or max(facts["native"]) > 40
    assert reduced > 10


def test_images_can_stay_where_they_are(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    built(raw, out, "mini", datasets=("chexpert",), images="reference")
    assert not (out / "images").exists()
    benchmark = BuiltBenchmark(out, {})
    item = benchmark.items(list(benchmark.keys)[:1])[0]
    assert Path(item.image.path).is_relative_to(raw) and read_image(item.image).size


@pytest.fixture
def own_raw(raw: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(raw, tmp_path / "mine", symlinks=True)
    yield tmp_path / "mine"


def skipped(result: BuildResult, dataset: str) -> str:
    return "\n".join(f"{one['where']}: {one['reason']}" for one in result.card["sources"][dataset]["skipped"])


def test_broken_files_are_rows_and_the_rest_is_built(own_raw: Path, bench: Path, tmp_path: Path) -> None:
    benchmark = BuiltBenchmark(bench, {})

    def file_of(mat: MAT, number: int) -> Path:
        item = [key.id for key in benchmark.keys.values() if key.mat == mat and key.part == "train"][number]
        row = benchmark.row(item)
        root = Path(benchmark.card()["sources"][row["dataset"]]["root"])
        return next(own_raw.rglob(str((root / row["provenance"]["file"]).name)))

    truncated = {
        "chexpert": file_of(FINDING, 0),
        "siim-acr": file_of(PNEUMOTHORAX, 0),
        "brats2020": file_of(GRADE, 0),
        "mosmeddata": file_of(SEVERITY, 0),
    }
    for path in truncated.values():
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    loop = own_raw / "chexpert" / "again"
    loop.symlink_to(own_raw, target_is_directory=True)
    (own_raw / "brats2020" / "._name_mapping.csv").write_bytes(b"\0\5\26\7")
    result = built(own_raw, tmp_path / "b")
    assert not result.problems
    for dataset, path in truncated.items():
        assert path.name.partition(".")[0] in skipped(result, dataset), dataset
    before = benchmark.card()["sources"]
    for dataset in FOUR:
        lost = before[dataset]["items"] - result.card["sources"][dataset]["items"]
        assert lost <= 20, f"{dataset}: one file costs its own items only"


def test_a_second_patient_with_the_same_pixels_does_not_cross_parts(own_raw: Path, bench: Path, tmp_path: Path) -> None:
    benchmark = BuiltBenchmark(bench, {})
    files = {}
    for part in ("train", "test"):
        item = next(k.id for k in benchmark.keys.values() if k.mat == FINDING and k.part == part)
        row = benchmark.row(item)
        name = Path(row["provenance"]["file"])
        files[part] = next(p for p in own_raw.rglob(name.name) if str(p).endswith(str(name)))
    files["train"].write_bytes(files["test"].read_bytes())
    result = built(own_raw, tmp_path / "b", datasets=("chexpert",))
    assert "shows the same pixels as" in skipped(result, "chexpert")
    assert files["train"].parts[-3] in skipped(result, "chexpert"), "the one that trains gives way"


def test_a_dataset_that_cannot_be_read_is_named_and_the_others_are_built(
    own_raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for registry in own_raw.rglob("dataset_registry*"):
        registry.write_bytes(b"no table at all")
    code = run(
        ["build", "--data", str(own_raw), "--out", str(tmp_path / "b"), "--recipe", "mini", "--jobs", "1", "--json"]
    )
    printed = capsys.readouterr()
    assert code == 1
    card = json.loads(printed.out)
    assert "mosmeddata" in card["problems"] and "dataset_registry" in card["problems"]["mosmeddata"]
    assert set(card["sources"]) == {"brats2020", "chexpert", "siim-acr", "medmat"}
    assert "mosmeddata is left out" in printed.err


def test_another_year_beside_it_is_refused_in_a_sentence(
    own_raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(own_raw / "brats2020")
    case = own_raw / "RSNA" / "BraTS2021_00000"
    case.mkdir(parents=True)
    (case / "BraTS2021_00000_flair.nii.gz").write_bytes(b"")
    command = ["build", "--data", str(own_raw), "--recipe", "mini", "--jobs", "1"]
    assert run([*command, "--out", str(tmp_path / "b")]) == 1
    printed = capsys.readouterr()
    assert "brats2020 is left out" in printed.err and "looks like BraTS 2021" in printed.err
    assert run([*command, "--dataset", "brats2020", "--out", str(tmp_path / "c")]) == 3
    assert "looks like BraTS 2021" in capsys.readouterr().err


def test_a_wrong_root_says_what_was_looked_for_and_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    assert run(["build", "--data", str(tmp_path), "--out", str(tmp_path / "b")]) == 3
    said = capsys.readouterr().err
    assert all(name in said for name in FOUR) and "photos/" in said and "Traceback" not in said
    assert run(["build", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "b")]) == 3
    assert "is not a folder" in capsys.readouterr().err


def test_a_root_without_permission_is_said(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    real = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root may read everything, so the test forges it
    assert run(["build", "--data", str(closed), "--out", str(tmp_path / "b")]) == 3
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--recipe", "crossmed-2020"], 2, "crossmed-20200"),
        (["--dataset", "chexpert5"], 2, "chexpert"),
        (["--dataset-option", "uncertain=ones"], 2, "DATASET.KEY=VALUE"),
        (["--dataset-option", "chexpert.uncertain=perhaps"], 2, "uncertain"),
        (["--dataset-option", "chexpert.uncertian=ones"], 2, "uncertain"),
        (["--dataset-option", "nosuch.a=1"], 2, "nosuch"),
    ],
)
def test_mistakes_are_one_line(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert run(["build", "--data", str(raw), "--out", str(tmp_path / "b"), *arguments]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0], lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no \\[datasets.NAME\\]"),
        ("[datasets.x]\nitmes = 3", "itmes.*Did you mean 'items'"),
        ("[datasets.x]\nitems = -3", "whole number of at least 0"),
        ("[datasets.x]\ntest = 2.0", "test must be"),
        ("max_side = 4\n[datasets.x]", "max_side must be at least 32"),
        ('fill = "maybe"\n[datasets.x]', "fill must be"),
        ("[datasets.x]\n[candidates]\nmax_iuo = 1", "max_iuo.*Did you mean 'max_iou'"),
        ("[datasets.x]\ncells = { a = -1 }", "cells must be"),
        ("datasets = 3 [", "cannot be read"),
        ("[datasets.x]\nitems = 9\ntest = 0.9\nval = 0.9", "sum to more than 1"),
        ("[datasets.x]\ntest = 0.2", "shares of items, which is not set"),
        ('name = "../evil"\n[datasets.x]', "name must be letters"),
        ("[datasets.x]\n[candidates]\nmax_area_ratio = 0.5", "max_area_ratio must lie between"),
    ],
)
def test_recipes_with_mistakes_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(CrossmedError, match=said):
        read_build_recipe(str(path))


def test_the_shipped_recipe_promises_the_sum_of_its_parts() -> None:
    recipe = read_build_recipe("crossmed-20200")
    cells = {"chexpert": 1, "siim-acr": 1, "brats2020": 2, "mosmeddata": 1}
    assert sum((recipe.datasets[name].items or 0) * n for name, n in cells.items()) == recipe.items == 20_200


PLUGIN = """
from pathlib import Path
import sys
from crossmed_core import hookimpl
from crossmed_core.records import DatasetRecord
from crossmed_core.types import MAT, ImageRef, Question, Sample

CELL = MAT("dermoscopy", "skin", "classification")

class Spots:
    def __init__(self, fault: str = ""):
        self.fault = fault
        if fault == "init":
            sys.exit(0)

    def questions(self):
        if self.fault == "questions":
            raise TypeError("oops")
        text = "What is this {nonsense}?" if self.fault == "template" else "What is this?"
        return {CELL: Question(CELL, "option", (text, text), ("light", "dark"))}

    def samples(self, root):
        if self.fault == "samples":
            sys.exit(0)
        for number, path in enumerate(sorted(Path(root).glob("*.png"))):
            label = "purple" if self.fault == "label" and number == 0 else "light" if number % 2 else "dark"
            part = "zz" if self.fault == "part" and number == 0 else None
            image = None if self.fault == "image" and number == 0 else ImageRef(str(path))
            patient = f"p{number // 2}" if self.fault != "patient" else "p0"
            part = ("test" if number else "train") if self.fault == "patient" and number < 2 else part
            yield Sample(f"spot-{number:03d}", patient, CELL, image, label=label, part=part, source={"odd": {1, 2}})

    def write_fixture(self, root, *, seed=0):
        raise OSError("no")

@hookimpl
def crossmed_datasets():
    yield DatasetRecord(name="spots", summary="Spots", target="spots_plugin:Spots")
"""


@pytest.fixture
def spots(in_tmp: Path) -> Path:
    (in_tmp / "spots_plugin.py").write_text(PLUGIN)
    rng = np.random.default_rng(0)
    (in_tmp / "spots").mkdir()
    for number in range(40):
        pixels = rng.integers(0, 90, (24, 24)) + 120 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(in_tmp / "spots" / f"{number:03d}.png")
    return in_tmp


def build_spots(spots: Path, *more: str, out: str = "b") -> int:
    command = ["build", "--data", "spots", "--dataset", "spots", "--plugin", "spots_plugin.py", "--recipe", "mini"]
    return run([*command, "--out", out, "--json", *more])


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_dataset_of_a_local_plugin_is_built_and_run(
    spots: Path, capsys: pytest.CaptureFixture[str], jobs: str
) -> None:
    assert build_spots(spots, "--jobs", jobs) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["n"] == 40 and card["cells"]["dermoscopy/skin/classification"]["parts"]["test"]["chance"] == 0.5
    assert run(["run", "--model", "majority", "--split", "in-domain", "--data", "b", "--jobs", "1", "--json"]) == 0


@pytest.mark.parametrize("fault", ["label", "part", "image", "patient"])
def test_an_unsound_sample_of_a_plugin_is_a_row(spots: Path, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    assert build_spots(spots, "--dataset-option", f"spots.fault={fault}", "--jobs", "1") == 0
    source = json.loads(capsys.readouterr().out)["sources"]["spots"]
    assert source["skipped"] and (source["items"] == 39 if fault != "patient" else source["items"] < 40)


@pytest.mark.parametrize("fault", ["init", "questions", "samples", "template"])
def test_a_failing_plugin_is_one_line_and_no_success(
    spots: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    assert build_spots(spots, "--dataset-option", f"spots.fault={fault}", "--jobs", "1") not in (0, None)
    said = capsys.readouterr().err
    assert "Traceback" not in said and "crossmed:" in said


def test_people_of_two_datasets_stay_in_one_part(raw: Path, tmp_path: Path) -> None:
    """Med-MAT's data set 77 is CheXpert: the same patients under other paths."""
    out = tmp_path / "b"
    built(raw, out, "mini", datasets=("chexpert", "medmat"))
    parts = defaultdict(set)
    for key in BuiltBenchmark(out, {}).keys.values():
        parts[person(key.dataset, key.patient)].add(key.part)
    assert all(len(found) == 1 for found in parts.values())
    assert any(name.startswith("chexpert:") for name in parts)


def test_the_options_alone_say_no_more_than_chance(benchmark: BuiltBenchmark) -> None:
    cells = benchmark.card()["cells"]
    assert cells[str(FINDING)]["parts"]["test"]["options_only"] < 0.33
    assert cells[str(SEVERITY)]["parts"]["test"]["options_only"] < 0.33
    grade = cells[str(GRADE)]["parts"]["test"]
    assert grade["informed_chance"] == grade["options_only"] == 0.5, "two of four options are never true"


def test_a_mass_of_broken_files_is_passed_over(own_raw: Path, tmp_path: Path) -> None:
    files = sorted(own_raw.rglob("CheXpert-v1.0-small/train/**/*.jpg"))
    for path in files[: len(files) * 3 // 4]:
        path.write_bytes(b"")
    recipe = BuildRecipe("few", {"chexpert": DatasetPlan(items=26, test=0, val=0)})
    result = built(own_raw, tmp_path / "b", recipe)
    assert result.card["n"] == 26 or result.card["cells"][str(FINDING)]["parts"]["train"]["n"] >= 20


def test_a_dataset_that_was_left_out_is_said_again_when_the_build_is_reused(
    own_raw: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CROSSMED_CACHE", str(in_tmp / "cache"))
    tables = {path: path.read_bytes() for path in own_raw.rglob("dataset_registry*")}
    for path in tables:
        path.write_bytes(b"no table")
    command = ["run", "--model", "chance", "--split", "in-domain", "--data", str(own_raw), "--build-recipe", "mini"]
    for said in ("built now", "built before"):
        run([*command, "--dry-run"])
        err = capsys.readouterr().err
        assert said in err and "mosmeddata is left out" in err
    for path, content in tables.items():
        path.write_bytes(content)
    run([*command, "--dry-run"])
    err = capsys.readouterr().err
    assert "built now" in err and "left out" not in err, "a repaired table is noticed"


def test_nothing_is_built_into_a_download(own_raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(own_raw)
    inside = own_raw / "siim-acr" / "pneumothorax" / "out"
    for out in (own_raw, inside, own_raw / "brats2020" / "BraTS2020_TrainingData" / "MICCAI_BraTS2020_TrainingData"):
        assert run(["build", "--data", str(own_raw), "--out", str(out)]) in (2, 4)
        assert "Traceback" not in capsys.readouterr().err
    assert tree(own_raw) == before and not inside.exists()


def test_an_unfinished_build_is_no_download(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b" / ".work").mkdir(parents=True)
    (tmp_path / "b" / ".work" / "build.json").write_text('{"build": "x"}')
    for command in (
        ["verify", str(tmp_path / "b")],
        ["build", "--data", str(tmp_path / "b"), "--out", str(tmp_path / "c")],
    ):
        assert run(command) == 3
        assert "not finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        lambda card: card.update(sources=[]),
        lambda card: card.update(cells={"a": {}}),
        lambda card: card.pop("n"),
        lambda card: card["cells"].popitem(),
        lambda card: card.update(cells=None),
    ],
)
def test_a_damaged_card_is_one_line(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[dict[str, Any]], Any]
) -> None:
    copy = tmp_path / "b"
    copy.mkdir()
    (copy / "items.jsonl").write_bytes((bench / "items.jsonl").read_bytes())
    card = json.loads((bench / "card.json").read_text())
    damage(card)
    (copy / "card.json").write_text(json.dumps(card))
    for command in (["verify", str(copy)], ["run", "--model", "chance", "--data", str(copy), "--dry-run"]):
        assert run(command) in (3, 4)
        assert "card.json" in capsys.readouterr().err


def test_a_damaged_journal_is_made_anew(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "b"
    recipe = replace(read_build_recipe("mini"), name="m")
    real = build_rounds.make_regions

    def stop(task: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(build_rounds, "make_regions", stop)
    with pytest.raises(KeyboardInterrupt):
        built(raw, out, recipe, datasets=("siim-acr",))
    monkeypatch.setattr(build_rounds, "make_regions", real)
    journal = out / ".work" / "rendered.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    for row, (name, value) in zip(
        rows, [("mask", 7), ("image", None), ("pixels", []), ("size", None), ("mask", {"size": [1]})], strict=False
    ):
        row[name] = value
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    built(raw, out, recipe, datasets=("siim-acr",))
    built(raw, tmp_path / "c", recipe, datasets=("siim-acr",))
    assert tree(out) == tree(tmp_path / "c")


# -- runs on what was built ------------------------------------------------------------------------


def test_run_builds_on_first_use_and_says_so(
    raw: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CROSSMED_CACHE", str(in_tmp / "cache"))
    command = [
        "run",
        "--model",
        "oracle",
        "--split",
        "zero-overlap",
        "--data",
        str(raw),
        "--build-recipe",
        "mini",
        "--json",
    ]
    assert run([*command, "--target", "mri/brain/segmentation,mri/brain/classification", "--jobs", "1"]) == 0
    first = capsys.readouterr()
    assert "built now" in first.err
    scores = {(one["metric"], one["target"]): one for one in json.loads(first.out)["scores"]}
    assert scores["accuracy", str(GRADE)]["value"] == scores["ciou", str(REGIONS)]["value"] == 1
    assert run([*command, "--target", "mri/brain/classification", "--out", "again", "--jobs", "1"]) == 0
    assert "built before" in capsys.readouterr().err


def test_a_model_that_chooses_is_scored_by_the_chosen_region(
    bench: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = in_tmp / "chooser.py"
    plugin.write_text(
        "from crossmed_core import hookimpl\n"
        "from crossmed_core.records import ModelRecord\n"
        "from crossmed_core.types import Prediction\n"
        "class First:\n"
        "    def fit(self, train, val, context): pass\n"
        "    def predict(self, items):\n"
        "        for item in items:\n"
        "            assert item.options == tuple(f'region {c}' for c in 'ABCD') and len(item.image.marks) == 4\n"
        "            yield Prediction(item.id, option=0)\n"
        "class Family:\n"
        "    def load(self, spec, *, device): return First()\n"
        "    def tiny(self, *, device): return First()\n"
        "@hookimpl\n"
        "def crossmed_models():\n"
        "    yield ModelRecord(name='first', summary='Always A', target='chooser:Family', trains=False)\n"
    )
    command = ["run", "--model", "first", "--split", "in-domain", "--target", str(REGIONS), "--data", str(bench)]
    assert run([*command, "--plugin", str(plugin), "--out", "r", "--json", "--jobs", "1"]) == 0
    scores = {one["metric"]: one for one in json.loads(capsys.readouterr().out)["scores"]}
    items = BuiltBenchmark(bench, {}).items(
        [k.id for k in BuiltBenchmark(bench, {}).keys.values() if k.mat == REGIONS and k.part == "test"], ("option",)
    )
    truths = [decode_mask(one.candidates[one.answer or 0]) for one in items]
    firsts = [decode_mask(one.candidates[0]) for one in items]
    both = sum(int((a & b).sum()) for a, b in zip(truths, firsts, strict=True))
    either = sum(int((a | b).sum()) for a, b in zip(truths, firsts, strict=True))
    assert scores["ciou"]["value"] == pytest.approx(both / either)
    assert scores["ciou"]["best"] == 1 and 0 < scores["ciou"]["chance"] < 0.5
    assert scores["accuracy"]["value"] == pytest.approx(np.mean([one.answer == 0 for one in items]))
    assert scores["accuracy"]["chance"] == 0.25
    assert run(["score", "r"]) == 0
    table = capsys.readouterr().out
    assert "best" in table and "a random choice among them" in table


def test_networks_run_on_a_build(bench: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = [
        "--set",
        "steps=2",
        "--set",
        "size=64",
        "--set",
        "batch_size=4",
        "--train-size",
        "12",
        "--limit",
        "6",
        "--jobs",
        "1",
        "--json",
    ]
    for model, target in (("cnn-tiny", str(FINDING)), ("fpn-tiny", str(PNEUMOTHORAX))):
        command = ["run", "--model", model, "--split", "zero-overlap", "--target", target, "--data", str(bench)]
        assert run([*command, "--out", model, *few]) == 0
        content = json.loads(capsys.readouterr().out)
        assert {one["metric"] for one in content["scores"]} >= ({"accuracy"} if model == "cnn-tiny" else {"ciou"})


# -- verify ----------------------------------------------------------------------------------------


def test_verify_notices_changed_images_and_rows(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "b"
    shutil.copytree(bench, copy)
    assert run(["verify", str(copy)]) == 0
    capsys.readouterr()
    picture = next((copy / "images").rglob("*.png"))
    pixels = np.asarray(Image.open(picture)).copy()
    pixels.flat[0] ^= 1
    Image.fromarray(pixels).save(picture)
    assert run(["verify", str(copy), "--json"]) == 1
    checks = next(iter(json.loads(capsys.readouterr().out).values()))
    assert any(check["verdict"] == "differs" and picture.name in check["found"] for check in checks)
    rows = (copy / "items.jsonl").read_text().replace('"train"', '"test"', 1)
    (copy / "items.jsonl").write_text(rows)
    assert run(["verify", str(copy)]) == 3
    assert "not the file that card.json describes" in capsys.readouterr().err


def test_verify_holds_downloads_against_published_counts(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(raw), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {*FOUR, "medmat"}
    assert any("223,414" in check["expected"] for check in found["chexpert"])
    assert any("369" in check["expected"] for check in found["brats2020"])


def test_datasets_shows_licence_access_and_tree(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["datasets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    for name in (*FOUR, "medmat"):
        assert rows[name]["licence"] and rows[name]["access"] and rows[name]["tree"], name
    assert run(["datasets", "mosmeddata"]) == 0
    text = capsys.readouterr().out
    assert "CC BY-NC-ND 3.0" in text and "dataset_registry.xlsx" in text
    assert run(["datasets", "mosmed"]) == 2

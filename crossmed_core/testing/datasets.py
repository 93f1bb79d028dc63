"""Checks of a dataset, on the counterfeit that it forges."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from crossmed_core.contracts import Dataset, GeneratedDataset, LocatesItself, ReadsInUnits
from crossmed_core.errors import CrossmedError
from crossmed_core.images import read_image, read_mask
from crossmed_core.parts import part_of
from crossmed_core.questions import make_item
from crossmed_core.reading import samples_of
from crossmed_core.records import DatasetRecord
from crossmed_core.types import PARTS, Counted, Sample, Skipped
from crossmed_core.vocabulary import canonical

LOOKED_AT = 4
"""Images opened per cell."""


def _forged(record: DatasetRecord, folder: Path, *, seed: int = 0) -> tuple[Dataset, Path]:
    dataset: Dataset = record.load()()
    assert isinstance(dataset, Dataset), f"{record.name} lacks questions, samples or write_fixture"
    root = folder / f"fixture-{seed}"
    root.mkdir()
    dataset.write_fixture(root, seed=seed)
    return dataset, root


def _tree(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _some_per_cell(dataset: Dataset, samples: Sequence[Sample]) -> list[Sample]:
    taken: dict[object, list[Sample]] = {}
    for sample in samples:
        if len(group := taken.setdefault(sample.mat, [])) < LOOKED_AT:
            group.append(sample)
    chosen = [sample for group in taken.values() for sample in group]
    if isinstance(dataset, GeneratedDataset):
        assert list(dataset.materialise(chosen)) == [one.id for one in chosen], (
            "materialise must yield each id in order"
        )
    return chosen


def check_fixture_is_deterministic(record: DatasetRecord, folder: Path) -> None:
    """`write_fixture` writes the same bytes for the same seed, and only under the root it is given."""
    _, first = _forged(record, folder)
    (folder / "again").mkdir()
    _, second = _forged(record, folder / "again")
    assert _tree(first), f"{record.name}: write_fixture wrote nothing"
    assert _tree(first) == _tree(second), f"{record.name}: two fixtures of one seed differ"


def check_samples_are_sound(record: DatasetRecord, folder: Path) -> None:
    """Samples have unique ids, known cells with canonical names, and labels that their cell declares."""
    dataset, root = _forged(record, folder)
    questions = dataset.questions()
    samples = samples_of(dataset, root)
    assert samples, f"{record.name}: no samples in its own fixture"
    ids = [sample.id for sample in samples]
    assert len(set(ids)) == len(ids), f"{record.name}: sample ids repeat"
    for mat, question in questions.items():
        assert question.mat == mat, f"{record.name}: the question of {mat} says it is of {question.mat}"
        assert all(canonical(part) == part for part in mat), f"{record.name}: {mat} is not canonical"
        assert len(question.templates) >= 2, f"{record.name}: {mat} has fewer than two templates"
        assert question.kind == "option" or not question.labels, f"{record.name}: {mat} asks for a mask and has labels"
        if question.neutral:
            assert len(question.neutral) == len(question.templates), f"{record.name}: {mat} lacks neutral prompts"
    for sample in samples:
        assert sample.mat in questions, f"{record.name}: {sample.id} lies in {sample.mat}, which asks nothing"
        assert sample.part in (None, *PARTS), f"{record.name}: {sample.id} has part {sample.part!r}"
        assert Path(sample.image.path).is_absolute(), f"{record.name}: {sample.id} has a relative image path"
        make_item(sample, questions[sample.mat], dataset=record.name)


def check_samples_are_deterministic(record: DatasetRecord, folder: Path) -> None:
    """Reading twice gives the same samples in the same order."""
    dataset, root = _forged(record, folder)
    again: Dataset = record.load()()
    assert samples_of(dataset, root) == samples_of(again, root), f"{record.name}: two readings differ"


def check_reading_leaves_the_root_alone(record: DatasetRecord, folder: Path) -> None:
    """Reading a download writes nothing into it."""
    dataset, root = _forged(record, folder)
    before = _tree(root)
    for sample in _some_per_cell(dataset, samples_of(dataset, root)):
        read_image(sample.image)
    if not isinstance(dataset, GeneratedDataset):  # a generated dataset owns its root
        assert _tree(root) == before, f"{record.name}: reading changed the download"


def check_images_and_masks_open(record: DatasetRecord, folder: Path) -> None:
    """Images open as 8-bit arrays; masks have their image's size and, where not declared empty, some foreground."""
    dataset, root = _forged(record, folder)
    foreground: dict[object, int] = {}
    for sample in _some_per_cell(dataset, samples_of(dataset, root)):
        image = read_image(sample.image)
        assert image.dtype.name == "uint8" and image.size, f"{record.name}: {sample.id} has no 8-bit pixels"
        if sample.mask is not None:
            mask = read_mask(sample.mask)
            assert mask.shape == image.shape[:2], f"{record.name}: mask and image of {sample.id} differ in size"
            foreground[sample.mat] = foreground.get(sample.mat, 0) + int(mask.sum())
    empty = [str(mat) for mat, pixels in foreground.items() if pixels == 0]
    assert not empty, f"{record.name}: every mask looked at is empty in {', '.join(empty)}"


def check_patients_stay_in_one_part(record: DatasetRecord, folder: Path) -> None:
    """No patient stands in two parts."""
    dataset, root = _forged(record, folder)
    parts: dict[str, str] = {}
    for sample in samples_of(dataset, root):
        part = part_of(sample)
        other = parts.setdefault(sample.patient, part)
        assert other == part, f"{record.name}: patient {sample.patient!r} stands in {other} and {part}"


def check_units_are_the_samples(record: DatasetRecord, folder: Path) -> None:
    """A dataset read in units yields, unit by unit, what `samples` yields."""
    dataset, root = _forged(record, folder)
    if not isinstance(dataset, ReadsInUnits):
        return
    units = [unit for unit in dataset.units(root) if not isinstance(unit, Counted | Skipped)]
    found = [one for unit in units for one in dataset.read(unit) if isinstance(one, Sample)]
    assert found == samples_of(dataset, root), f"{record.name}: units and samples differ"


def check_junk_changes_nothing(record: DatasetRecord, folder: Path) -> None:
    """What macOS and Windows leave behind beside every file yields no sample and no failure."""
    dataset, root = _forged(record, folder)
    if isinstance(dataset, GeneratedDataset):
        return
    before = samples_of(dataset, root)
    for path in [path for path in root.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
    (root / ".DS_Store").write_bytes(b"Bud1")
    assert samples_of(dataset, root) == before, f"{record.name}: junk files changed the samples"


def check_other_folder_is_refused_in_words(record: DatasetRecord, folder: Path) -> None:
    """A folder without the download is an error that says what is there instead."""
    dataset: Dataset = record.load()()
    if isinstance(dataset, GeneratedDataset):
        return
    (folder / "holiday.txt").write_text("not this dataset")
    try:
        samples_of(dataset, folder)
    except CrossmedError as error:
        assert "holiday.txt" in str(error), f"{record.name}: the error does not say what was found instead"
    else:
        raise AssertionError(f"{record.name}: an empty folder is taken for the download")
    if isinstance(dataset, LocatesItself):
        _, root = _forged(record, folder)
        assert dataset.locate(folder).root.is_relative_to(root), f"{record.name}: not found one folder below"


CHECKS = (
    check_units_are_the_samples,
    check_junk_changes_nothing,
    check_other_folder_is_refused_in_words,
    check_fixture_is_deterministic,
    check_samples_are_sound,
    check_samples_are_deterministic,
    check_reading_leaves_the_root_alone,
    check_images_and_masks_open,
    check_patients_stay_in_one_part,
)

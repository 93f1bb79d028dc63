"""The phantom as a benchmark: honest, and the same from everywhere."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from crossmed_core.catalog import Catalog
from crossmed_core.contracts import FitContext
from crossmed_core.images import read_image, read_mask
from crossmed_core.questions import letter_counts
from crossmed_core.types import MAT, Item
from crossmed_plugins.baseline.model import Majority, QuestionOnly
from crossmed_plugins.metrics.mask import ciou
from crossmed_plugins.metrics.option import accuracy
from crossmed_plugins.phantom.dataset import Phantom

CATALOG = Catalog()
WHOLE = CATALOG.benchmark("phantom", {"train": 192, "val": 0, "test": 192}, None)


def items_of(part: str, task: str, cells: set[MAT] | None = None) -> list[Item]:
    keys = WHOLE.keys.values()
    return WHOLE.items(
        k.id for k in keys if k.part == part and k.mat.task == task and (cells is None or k.mat in cells)
    )


def test_it_has_96_cells_and_labels_in_equal_numbers() -> None:
    assert len(WHOLE.questions) == 96
    for cell in WHOLE.card()["cells"].values():
        for labels in cell["parts"].values():
            assert len(set(labels.values())) == 1, "a label is more frequent than another"


def test_what_is_outlined_has_a_name() -> None:
    for mat, question in Phantom().questions().items():
        expected = ("the lesion", "the abnormal area") if mat.task == "segmentation" else ("", "")
        assert (question.target, question.neutral_target) == expected


@pytest.mark.parametrize("task", ["finding", "grade", "location"])
@pytest.mark.parametrize("model", [Majority, QuestionOnly])
def test_text_and_majority_are_at_chance(model: type[Majority], task: str) -> None:
    blind = model()
    blind.fit(items_of("train", task), [], FitContext())
    test = items_of("test", task)
    assert len(test) == 24 * 192
    right = sum(one.option == item.answer for item, one in zip(test, blind.predict(test), strict=True))
    # 4,608 items: a true rate of 0.28 would be found with a power above 0.99.
    assert binomtest(right, len(test), 0.25).pvalue > 1e-3, right / len(test)
    assert accuracy.chance(test) == 0.25


def test_question_only_lights_up_when_text_gives_the_answer_away() -> None:
    from dataclasses import replace

    def leaky(item: Item) -> Item:
        return replace(item, question=item.question + f" ({item.label})")

    blind = QuestionOnly()
    blind.fit([leaky(item) for item in items_of("train", "finding")], [], FitContext())
    test = [leaky(item) for item in items_of("test", "finding")]
    right = sum(one.option == item.answer for item, one in zip(test, blind.predict(test), strict=True))
    assert right / len(test) > 0.95


def test_masks_are_not_given_away_by_their_place() -> None:
    cells = {MAT("ct", "abdomen", "segmentation")}
    train, test = (items_of(part, "segmentation", cells) for part in ("train", "test"))
    WHOLE.materialise([item.id for item in train + test])
    blind = Majority()
    blind.fit(train, [], FitContext())
    assert ciou(list(zip(test, blind.predict(test), strict=True))) < 0.3


def test_letters_are_balanced_in_every_task() -> None:
    for task in ("finding", "grade", "location"):
        counts = letter_counts(items_of("test", task))
        assert chisquare(list(counts.values())).pvalue > 1e-4


def digest_of(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.png")):
        total.update(f"{path.relative_to(folder)}".encode() + path.read_bytes())
    return total.hexdigest()


def test_files_are_the_same_from_another_process_in_another_order(tmp_path: Path) -> None:
    options = {"modalities": "us,pet", "anatomies": "knee", "train": 3, "val": 1, "test": 2}
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    list(Phantom(**options).materialise(list(Phantom(**options).samples(tmp_path / "here"))))
    code = (
        "from pathlib import Path\nfrom crossmed_plugins.phantom.dataset import Phantom\n"
        f"phantom = Phantom(**{options!r})\n"
        f"samples = list(phantom.samples(Path({str(tmp_path / 'there')!r})))\n"
        "for sample in reversed(samples): list(phantom.materialise([sample]))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert digest_of(tmp_path / "here") == digest_of(tmp_path / "there")
    assert len(list((tmp_path / "here").rglob("*.png"))) == 2 * (4 + 1) * 6


def test_an_image_depends_on_nothing_but_its_name(tmp_path: Path) -> None:
    few, many = Phantom(modalities="ct", train=2, test=1), Phantom(train=50, test=9)
    by_id = {sample.id: sample for sample in many.samples(tmp_path)}
    for sample in few.samples(tmp_path):
        if sample.part != "val":
            assert by_id[sample.id] == sample


def test_existing_files_are_left_alone(tmp_path: Path) -> None:
    phantom = Phantom(modalities="ct", anatomies="knee", tasks="grade", train=1, val=0, test=1)
    samples = list(phantom.samples(tmp_path))
    list(phantom.materialise(samples))
    Path(samples[0].image.path).write_bytes(b"mine")
    list(phantom.materialise(samples))
    assert Path(samples[0].image.path).read_bytes() == b"mine"


def test_masks_lie_on_their_images() -> None:
    items = items_of("test", "segmentation", {MAT("t2", "brain", "segmentation")})[:16]
    WHOLE.materialise([item.id for item in items])
    for item in items:
        image, mask = read_image(item.image), read_mask(item.mask)  # type: ignore[arg-type]
        assert image.shape == mask.shape and mask.sum() >= 6
        ring = np.roll(mask, 6, axis=0) & ~mask
        assert abs(float(image[mask].mean()) - float(image[ring].mean())) > 1, "the region looks like its surroundings"

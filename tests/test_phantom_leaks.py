"""The phantom, broken on purpose: what gives the answer away, and that the honest one is untouched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from crossmed_core.benchmark import Benchmark
from crossmed_core.catalog import Catalog
from crossmed_core.contracts import FitContext
from crossmed_core.errors import CrossmedError
from crossmed_core.images import read_image, read_mask
from crossmed_core.types import MAT, Item
from crossmed_plugins.baseline.model import Majority, QuestionOnly
from crossmed_plugins.phantom.dataset import LEAKS, Phantom
from crossmed_plugins.phantom.render import FINDINGS, PhantomKey, render

SMALL = {"modalities": "ct,t2", "anatomies": "brain,knee", "train": 192, "val": 0, "test": 192}
CHOICES = ("finding", "grade", "location")


@pytest.fixture(scope="module")
def benchmarks() -> dict[str, Benchmark]:
    return {leak: Catalog().benchmark("phantom", {**SMALL, "leak": leak}, None) for leak in LEAKS}


def items(benchmark: Benchmark, part: str, cell: MAT) -> list[Item]:
    return benchmark.items(key.id for key in benchmark.keys.values() if key.part == part and key.mat == cell)


def right(model: Majority, benchmark: Benchmark, cell: MAT) -> tuple[int, int]:
    model.fit(items(benchmark, "train", cell), [], FitContext())
    test = items(benchmark, "test", cell)
    return sum(one.option == item.answer for item, one in zip(test, model.predict(test), strict=True)), len(test)


@pytest.mark.parametrize("task", CHOICES)
def test_a_text_model_knows_the_answer_if_and_only_if_the_text_tells_it(
    task: str, benchmarks: dict[str, Benchmark]
) -> None:
    cell = MAT("t2", "brain", task)
    for leak in LEAKS:
        found, n = right(QuestionOnly(), benchmarks[leak], cell)
        if leak in ("text", "options"):
            assert found / n > 0.9, leak
        else:
            assert binomtest(found, n, 0.25).pvalue > 1e-3, (leak, found / n)


def test_leaking_options_tell_without_the_question_and_in_any_order(benchmarks: dict[str, Benchmark]) -> None:
    cell = MAT("ct", "knee", "grade")
    found, n = right(Majority(), benchmarks["options"], cell)
    assert found == n == 192
    letters = [item.answer for item in items(benchmarks["options"], "test", cell)]
    assert min(letters.count(letter) for letter in range(4)) > 24, "the place of the answer tells nothing"
    # The wording leaks through the question alone: the options are as ever.
    found, n = right(Majority(), benchmarks["text"], cell)
    assert binomtest(found, n, 0.25).pvalue > 1e-3


def test_a_leaking_image_tells_the_label_by_its_corners(benchmarks: dict[str, Benchmark]) -> None:
    benchmark = benchmarks["image"]
    for task in (*CHOICES, "segmentation"):
        test = items(benchmark, "test", MAT("ct", "brain", task))[:24]
        benchmark.materialise([item.id for item in test])
        corners: dict[str, set[int]] = {}
        for item in test:
            image = read_image(item.image)
            bright = [
                image[rows, columns].min() == 255
                for rows in (np.s_[:8], np.s_[-8:])
                for columns in (np.s_[:8], np.s_[-8:])
            ]
            assert sum(bright) == 1
            label = item.label
            if item.mask is not None:
                mask = read_mask(item.mask)
                down, across = (places.mean() >= 31.5 for places in np.nonzero(mask))
                label = str(2 * down + across)
                assert not mask[:8, :8].any() and not mask[-8:, -8:].any()
            corners.setdefault(label, set()).add(bright.index(True))
        assert len(corners) == 4 and all(len(one) == 1 for one in corners.values()), (task, corners)


def test_a_leaking_image_is_the_honest_one_but_for_the_corner(tmp_path: Path) -> None:
    phantom = Phantom(modalities="ct", anatomies="knee", tasks="finding", train=1, val=0, test=2, leak="image")
    samples = list(phantom.samples(tmp_path))
    list(phantom.materialise(samples))
    honest = render(PhantomKey("ct", "knee", "finding", "test", 1, 0)).image
    different = np.argwhere(read_image(samples[-1].image) != honest)
    assert len(different) and np.ptp(different, axis=0).max() < 8


def test_the_honest_phantom_is_untouched_and_no_leak_passes_for_it(
    benchmarks: dict[str, Benchmark], tmp_path: Path
) -> None:
    ids = {leak: set(benchmark.keys) for leak, benchmark in benchmarks.items()}
    digests = {benchmark.digest for benchmark in benchmarks.values()}
    assert len(digests) == len(LEAKS)
    for leak in LEAKS[1:]:
        assert not ids[leak] & ids[""]
        assert len(ids[leak]) == len(ids[""])
    paths = {leak: {s.image.path for s in Phantom(**SMALL, leak=leak).samples(tmp_path)} for leak in LEAKS}  # type: ignore[arg-type]
    assert not paths["image"] & paths[""], "other bytes lie elsewhere"
    assert paths["text"] == paths["options"] == paths[""], "the same bytes are drawn once"
    # As it was before there were leaks: the first test item, its question and its options.
    first = items(benchmarks[""], "test", MAT("t2", "brain", "finding"))[0]
    assert first.id == "phantom0-t2-brain-finding-test-00000"
    assert first.image.path.endswith("v1-64px-seed0/t2/brain/finding/test-00000.png")
    assert set(first.options) == set(FINDINGS)
    told = hashlib.sha256(repr((first.question, first.options)).encode()).hexdigest()
    assert told.startswith("5de637eba1fe8882")


def test_an_unknown_leak_is_refused() -> None:
    with pytest.raises(CrossmedError, match=r"no leak 'txt'.*Did you mean 'text'"):
        Phantom(leak="txt")

"""The phantom's images are reproducible, balanced, exact and free of intensity shortcuts."""

import hashlib
import math
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest

from crossmed_plugins.phantom.findings import FINDINGS, GRADES, LOCATIONS, RADIUS_RANGES
from crossmed_plugins.phantom.render import (
    ANATOMIES,
    MODALITIES,
    PARTS,
    TASKS,
    PhantomKey,
    Rendered,
    factors,
    render,
    render_many,
)

CELLS = list(product(MODALITIES, ANATOMIES))


def key(modality="t2", anatomy="brain", task="finding", part="train", index=0, seed=0):
    return PhantomKey(modality, anatomy, task, part, index, seed)


def digest(rendered: Rendered) -> str:
    return hashlib.blake2b(rendered.image.tobytes() + rendered.mask.tobytes(), digest_size=16).hexdigest()


def centre_of_mass(mask: np.ndarray) -> tuple[float, float]:
    """(x, y) in -1..1, right and down as displayed."""
    rows, columns = np.nonzero(mask)
    size = mask.shape[0]
    return (columns.mean() + 0.5) * 2 / size - 1, (rows.mean() + 0.5) * 2 / size - 1


@pytest.fixture(scope="module")
def one_block() -> list[tuple[PhantomKey, Rendered]]:
    """All 64 combinations of every modality and anatomy."""
    keys = [key(m, a, index=i) for m, a in CELLS for i in range(64)]
    return list(zip(keys, render_many(keys), strict=True))


# --- reproducible ---


def test_grouping_and_order_do_not_change_bytes():
    keys = [key(m, a, index=i, seed=3) for m, a in CELLS for i in range(2)]
    alone = [digest(render(k)) for k in keys]
    assert [digest(r) for r in render_many(keys)] == alone
    shuffled = np.random.default_rng(0).permutation(len(keys))
    together = render_many([keys[i] for i in shuffled])
    assert [digest(r) for r in together] == [alone[i] for i in shuffled]


def test_another_process_draws_the_same_bytes():
    keys = [key(m, a, index=7) for m, a in CELLS]
    program = (
        "import sys\n"
        "from hashlib import blake2b\n"
        "from crossmed_plugins.phantom.render import PhantomKey, render\n"
        "for line in reversed(sys.stdin.read().split()):\n"
        "    m, a = line.split('/')\n"
        "    r = render(PhantomKey(m, a, 'finding', 'train', 7, 0))\n"
        "    print(line, blake2b(r.image.tobytes() + r.mask.tobytes(), digest_size=16).hexdigest())\n"
    )
    # Another hash seed: str hashes must play no part.
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    names = "\n".join(f"{k.modality}/{k.anatomy}" for k in keys)
    result = subprocess.run(
        [sys.executable, "-c", program],
        input=names,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    elsewhere = dict(line.split() for line in result.stdout.splitlines())
    assert elsewhere == {f"{k.modality}/{k.anatomy}": digest(render(k)) for k in keys}


def test_seed_part_task_and_index_each_give_another_image():
    keys = [key(task=t, part=p, index=i, seed=s) for t in TASKS for p in PARTS for i in range(6) for s in (0, 1, 2**40)]
    images = {render(k).image.tobytes() for k in keys}
    assert len(images) == len(keys)


def test_each_modality_and_anatomy_gives_another_image(one_block):
    images = {r.image.tobytes() for _, r in one_block}
    assert len(images) == len(one_block)


def test_every_image_has_contrast_and_little_clipping(one_block):
    for k, r in one_block:
        assert r.image.std() > 15, k
        assert (r.image == 255).mean() < 0.30, k


# --- balanced ---


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("task", TASKS)
def test_every_block_holds_each_combination_once(task, part):
    orders = []
    for block in range(3):
        shown = [factors(key("us", "knee", task, part, 64 * block + i, seed=5)) for i in range(64)]
        assert len(set(shown)) == 64
        assert Counter(f.finding for f in shown) == dict.fromkeys(FINDINGS, 16)
        assert Counter(f.grade for f in shown) == dict.fromkeys(GRADES, 16)
        assert Counter(f.location for f in shown) == dict.fromkeys(LOCATIONS, 16)
        orders.append(tuple(shown))
    assert len(set(orders)) == 3, "blocks should be shuffled differently"


def test_order_differs_between_cells_tasks_parts_and_seeds():
    variants = [
        key(),
        key(modality="ct"),
        key(anatomy="knee"),
        key(task="grade"),
        key(part="test"),
        key(seed=1),
    ]
    orders = {
        tuple(factors(PhantomKey(v.modality, v.anatomy, v.task, v.part, i, v.seed)) for i in range(64))
        for v in variants
    }
    assert len(orders) == len(variants)


# --- exact ---


def test_mask_size_is_the_grade(one_block):
    """Equivalent radius within 6 % of the grade's range; the gaps between grades are 20 % and more."""
    areas: dict[str, list[int]] = {grade: [] for grade in GRADES}
    for k, r in one_block:
        area = int(r.mask.sum())
        assert r.mask.dtype == bool and area >= 6, k
        radius = math.sqrt(area / math.pi) * 2 / r.mask.shape[0]
        low, high = RADIUS_RANGES[factors(k).grade]
        assert 0.94 * low < radius < 1.06 * high, k
        areas[factors(k).grade].append(area)
    for smaller, larger in pairwise(GRADES):
        assert max(areas[smaller]) < min(areas[larger])


def test_mask_lies_in_the_named_quadrant(one_block):
    """Fails when left and right, or up and down, are exchanged."""
    for k, r in one_block:
        x, y = centre_of_mass(r.mask)
        assert factors(k).location == f"{'lower' if y > 0 else 'upper'} {'right' if x > 0 else 'left'}", k


def test_quadrants_are_as_displayed():
    """Row 0 is the top and column 0 the left of the picture, written without the helpers used above."""
    for i in range(64):
        k = key("pet", "knee", index=i)
        r, location = render(k), factors(k).location
        half = r.mask.shape[0] // 2
        top, left = r.mask[:half].sum(), r.mask[:, :half].sum()
        assert (top > r.mask[half:].sum()) == location.startswith("upper")
        assert (left > r.mask[:, half:].sum()) == location.endswith("left")


def test_the_lesion_is_where_the_mask_says():
    """PET lesions are hot: brighter under the mask than outside, and than under the mask's mirror image."""
    for i in range(64):
        k = key("pet", "knee", index=i)
        if factors(k).finding == "ring":  # its core is cold
            continue
        r = render(k)
        image = r.image.astype(float)
        here = image[r.mask].mean() - image[~r.mask].mean()
        mirrored = image[r.mask[:, ::-1]].mean() - image[~r.mask[:, ::-1]].mean()
        assert here > 40 and here > mirrored, k


def test_a_larger_picture_shows_the_same_scene():
    for modality, anatomy in CELLS[::5]:
        for i in range(4):
            k = key(modality, anatomy, index=i)
            small, large = render(k, size=64), render(k, size=128)
            assert large.image.shape == large.mask.shape == (128, 128)
            shrunk = large.mask.reshape(64, 2, 64, 2).mean((1, 3)) > 0.5
            intersection, union = (shrunk & small.mask).sum(), (shrunk | small.mask).sum()
            assert intersection / union > 0.75, k
            coarse = large.image.reshape(64, 2, 64, 2).mean((1, 3))
            assert np.corrcoef(coarse.ravel(), small.image.ravel())[0, 1] > 0.75, k


def test_sizes_from_48_work_and_smaller_are_refused():
    for size in (48, 57, 96):
        assert render(key("us", "brain"), size=size).image.shape == (size, size)
    with pytest.raises(ValueError, match="48"):
        render(key(), size=47)


@pytest.mark.parametrize(
    "wrong", [{"modality": "mri"}, {"anatomy": "foot"}, {"task": "vqa"}, {"part": "dev"}, {"index": -1}]
)
def test_unknown_names_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        key(**wrong)


# --- honest ---


def linear_probe(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Least-squares one-hot classifier fitted on one half, predictions right or wrong on the other."""
    half = len(features) // 2
    mean, std = features[:half].mean(0), features[:half].std(0)
    design = np.column_stack([np.ones(len(features)), (features - mean) / std])
    weights, *_ = np.linalg.lstsq(design[:half], np.eye(4)[labels[:half]], rcond=None)
    return (design[half:] @ weights).argmax(1) == labels[half:]


def test_brightness_and_contrast_say_almost_nothing():
    """A linear probe on each picture's mean and standard deviation, 64 training and 64 test images per cell.

    Pooled over the 24 (modality, anatomy) cells there are 1,536 test answers; were they coin flips at the
    chance level of 25 %, 99.9 % of such tests would stay below .25 + 3 * sqrt(.25 * .75 / 1536) = .283. The
    mean alone must keep that bound for finding and location, and so must both features for location. For
    finding the contrast of a ring (bright and dark at once) may help a little: the pooled accuracy must stay
    under .35, far from the .9 that a network reaches.
    """
    hits: dict[str, list[np.ndarray]] = {
        "mean/finding": [],
        "mean/location": [],
        "finding": [],
        "location": [],
    }
    for modality, anatomy in CELLS:
        keys = [key(modality, anatomy, index=i) for i in range(128)]
        images = np.stack([r.image for r in render_many(keys)]).reshape(len(keys), -1)
        features = np.column_stack([images.mean(1), images.std(1)])
        shown = [factors(k) for k in keys]
        finding = np.array([FINDINGS.index(f.finding) for f in shown])
        location = np.array([LOCATIONS.index(f.location) for f in shown])
        hits["mean/finding"].append(linear_probe(features[:, :1], finding))
        hits["mean/location"].append(linear_probe(features[:, :1], location))
        hits["finding"].append(linear_probe(features, finding))
        hits["location"].append(linear_probe(features, location))
    accuracy = {name: float(np.concatenate(values).mean()) for name, values in hits.items()}
    bound = 0.25 + 3 * math.sqrt(0.25 * 0.75 / (64 * len(CELLS)))
    assert accuracy["mean/finding"] < bound, accuracy
    assert accuracy["mean/location"] < bound, accuracy
    assert accuracy["location"] < bound, accuracy
    assert accuracy["finding"] < 0.35, accuracy

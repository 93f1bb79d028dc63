"""Images that were trained on under another name: identical, re-encoded, edited, flipped; and innocent ones."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from crossmed_core import leaks, near_duplicates
from crossmed_core.catalog import Catalog
from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import pixel_digest, read_image
from crossmed_core.leaks import ImageProof, SignatureCache, prove_images
from crossmed_core.near_duplicates import DIHEDRAL, HAMMING, aligned_correlation, signature
from crossmed_core.runlog import read_json
from crossmed_core.runner import TrialSpec, run_trial
from crossmed_core.splits import SplitViolationError
from crossmed_core.types import MAT, RLE, ImageRef, Item, Rendering
from crossmed_plugins.phantom.render import ANATOMIES, MODALITIES, TASKS, PhantomKey, render

Picture = NDArray[np.uint8]
CELL = MAT("xray", "chest", "finding")


def body(index: int, modality: str = "xray", anatomy: str = "chest", size: int = 64) -> Picture:
    return render(PhantomKey(modality, anatomy, TASKS[index % 4], "train", index // 4, seed=3), size=size).image


def item(path: Path, name: str = "", **image: Any) -> Item:
    name = name or path.stem
    return Item(name, "made-up", CELL, f"patient of {name}", "test", ImageRef(str(path), **image), "?", ("a", "b"), 0)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Item]:
    def saved(pixels: Picture, name: str, **options: Any) -> Item:
        path = tmp_path / name
        Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)
        return item(path)

    return saved


def accusation(train: list[Item], test: list[Item]) -> str:
    with pytest.raises(SplitViolationError) as caught:
        prove_images(train, test, SignatureCache())
    return str(caught.value)


def test_a_near_duplicate_can_be_reported_and_equal_pixels_cannot(save: Callable[..., Item]) -> None:
    train, test = save(body(0), "a.png"), save(np.fliplr(body(0)), "b.png")
    proof = prove_images([train], [test], SignatureCache(), refuse=False)
    assert proof.result == "1 near-duplicates, reported"
    (said,) = proof.near_duplicates
    assert train.id in said and test.id in said and "flipped left-right" in said
    with pytest.raises(SplitViolationError, match="identical"):
        prove_images([train], [save(body(0), "c.png")], SignatureCache(), refuse=False)


# -- identical ---------------------------------------------------------------------------------------------------------


def test_a_renamed_copy_is_named_with_both_patients_and_files(save: Callable[..., Item]) -> None:
    train, other, test = save(body(0), "first.png"), save(body(1), "other.png"), save(body(0), "second.png")
    said = accusation([other, train], [save(body(2), "innocent.png"), test])
    assert "identical file bytes" in said
    for one in (train, test):
        assert one.id in said and one.patient in said and one.image.path in said
    assert "other" not in said.replace("another", "") and "innocent" not in said


@pytest.mark.parametrize(
    ("name", "options", "change"),
    [
        ("b.bmp", {}, lambda pixels: pixels),
        ("b.png", {"compress_level": 0}, lambda pixels: pixels),
        ("b.tiff", {}, lambda pixels: pixels),
        ("b.png", {"compress_level": 0}, lambda pixels: np.repeat(pixels[..., None], 3, axis=2)),
    ],
)
def test_the_same_pixels_in_another_file_are_the_same_image(
    name: str, options: dict[str, Any], change: Callable[[Picture], Picture], save: Callable[..., Item]
) -> None:
    train = save(body(0), "a.png")
    test = save(change(body(0)), name, **options)
    assert Path(train.image.path).read_bytes() != Path(test.image.path).read_bytes()
    assert "identical pixels" in accusation([train], [test])
    # A digest that a benchmark recorded names the same image as one that is computed now.
    known = replace(train, image=replace(train.image, pixels=pixel_digest(body(0))))
    assert "identical pixels" in accusation([known], [test])


def test_marks_do_not_make_another_image(save: Callable[..., Item]) -> None:
    train = save(body(0), "a.png")
    marked = replace(train, id="marked", image=replace(train.image, marks=(RLE((64, 64), (100, 300, 3696)),)))
    assert read_image(marked.image).shape != (64, 64), "marks are drawn for models"
    assert "identical file bytes" in accusation([train], [marked])


def test_slices_of_a_volume_are_images_of_their_own(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    planes = np.stack([np.asarray(body(i), dtype=np.int16).T for i in range(4)], axis=2)
    for name in ("a.nii.gz", "b.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(planes, np.diag([-1.0, -1.0, 1.0, 1.0])), tmp_path / name)
    shown = Rendering("window", 0, 255)
    slices = [item(tmp_path / "a.nii.gz", f"a{z}", axial=z, rendering=shown) for z in range(4)]
    assert prove_images(slices[:2], slices[2:], SignatureCache()).unreadable == 0
    copied = item(tmp_path / "b.nii.gz", "b1", axial=1, rendering=shown)
    said = accusation(slices, [copied])
    assert "identical pixels" in said and "'a1'" in said and "slice 1" in said


def test_what_shows_nothing_or_cannot_be_read_is_counted(save: Callable[..., Item], tmp_path: Path) -> None:
    black = np.zeros((64, 64), dtype=np.uint8)
    faint = black.copy()
    faint[5, 5] = 1
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "alike.png").write_bytes(b"\x89PNG broken")
    train = [save(black, "a.png"), save(body(0), "c.png"), item(tmp_path / "broken.png"), item(tmp_path / "none.png")]
    test = [save(black, "b.png"), save(faint, "d.png"), save(body(1), "e.png"), item(tmp_path / "alike.png")]
    proof = prove_images(train, test, SignatureCache())
    assert (proof.train, proof.test, proof.unreadable, proof.flat) == (4, 4, 3, 3)
    assert "no test image" in proof.result
    written = json.loads(json.dumps(proof.to_json()))
    assert ImageProof(**{**written, "near_duplicates": tuple(written["near_duplicates"])}) == proof
    # A faint image has no hash, but its pixels are its own.
    assert "identical pixels" in accusation([save(faint, "f.bmp")], test)


def test_an_image_is_opened_once_and_again_when_it_changed(
    save: Callable[..., Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counting(ref: ImageRef) -> Picture:
        opened.append(ref.path)
        if "bad" in ref.path:
            raise UnreadableImageError("bad")
        return read_image(ref)

    monkeypatch.setattr(leaks, "read_image", counting)
    cache = SignatureCache()
    train, test, bad = save(body(0), "a.png"), save(body(1), "b.png"), save(body(2), "bad.png")
    for _ in range(3):
        prove_images([train, bad], [test], cache)
    assert len(opened) == 3
    save(body(0), "b.png")
    with pytest.raises(SplitViolationError):
        prove_images([train, bad], [test], cache)
    assert len(opened) == 4


# -- near-duplicates ---------------------------------------------------------------------------------------------------


def jpeg(pixels: Picture) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


def resized(share: float) -> Callable[[Picture], Picture]:
    def change(pixels: Picture) -> Picture:
        height, width = (round(share * side) for side in pixels.shape)
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height)))

    return change


def cropped(share: float) -> Callable[[Picture], Picture]:
    def change(pixels: Picture) -> Picture:
        cut = round(share * len(pixels))
        return pixels[cut:-cut, cut:-cut]

    return change


def toned(gain: float, offset: float) -> Callable[[Picture], Picture]:
    return lambda pixels: np.clip(pixels.astype(float) * gain + offset, 0, 255).astype(np.uint8)


def noisy(pixels: Picture) -> Picture:
    noise = np.random.default_rng(0).normal(0, 3, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


EDITS: dict[str, Callable[[Picture], Picture]] = {
    "brighter": toned(1, 20),
    "less contrast": toned(0.7, 10),
    "more contrast": toned(1.1, -5),
    "JPEG": jpeg,
    "90 %": resized(0.9),
    "80 %": resized(0.8),
    "crop 1 %": cropped(0.01),
    "noise": noisy,
    "JPEG, 90 %, brighter": lambda pixels: toned(1, 10)(resized(0.9)(jpeg(pixels))),
    "crop 1 %, JPEG": lambda pixels: jpeg(cropped(0.01)(pixels)),
}
LAYINGS: dict[str, Callable[[Picture], Picture]] = {
    "as it is": lambda pixels: pixels,
    "turned by 90 degrees clockwise": lambda pixels: np.rot90(pixels, -1),
    "turned by 180 degrees": lambda pixels: pixels[::-1, ::-1],
    "turned by 90 degrees counter-clockwise": lambda pixels: np.rot90(pixels),
    "flipped left-right": np.fliplr,
    "flipped about the diagonal": np.transpose,
    "flipped top-bottom": np.flipud,
    "flipped about the other diagonal": lambda pixels: np.rot90(pixels, 2).T,
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_copy_is_found_and_named(edit: str, save: Callable[..., Item]) -> None:
    """Of bodies of every modality, each laid another way; 192 pixels, so that a crop of 1 % is one of two pixels."""
    for number, modality in enumerate(MODALITIES):
        laying = list(LAYINGS)[(number + list(EDITS).index(edit)) % 8]
        bodies = [save(body(i, modality, size=192), f"{modality}{i}.png") for i in range(4)]
        planted = save(LAYINGS[laying](EDITS[edit](body(2, modality, size=192))), f"{modality}-planted.png")
        said = accusation(bodies, [planted])
        assert f"training item '{modality}2'" in said and f"{modality}-planted" in said, said
        assert "near-duplicate" in said and "pHash distance" in said and "correlation " in said
        if laying != "as it is":
            assert f"({laying})" in said


@pytest.mark.parametrize("laying", LAYINGS)
def test_every_way_of_laying_is_found_and_named(laying: str, save: Callable[..., Item]) -> None:
    assert tuple(LAYINGS) == DIHEDRAL
    train = save(body(0), "a.png")
    said = accusation([train], [save(jpeg(LAYINGS[laying](body(0))), "b.png")])
    assert "near-duplicate" in said and (laying == "as it is" or f"({laying})" in said)


def test_different_patients_are_never_accused() -> None:
    """4,800 bodies in all cells: 24 x 160 x 40 pairs that look alike in eight ways, and none is called a copy."""
    total: dict[str, int] = {}
    for modality in MODALITIES:
        for anatomy in ANATOMIES:
            signatures = [signature(body(i, modality, anatomy)) for i in range(200)]
            counts: dict[str, int] = {}
            found = list(near_duplicates.near_duplicates(signatures[:160], signatures[160:], counts))
            assert not found, (modality, anatomy, str(found[0]))
            total = {name: total.get(name, 0) + counts.get(name, 0) for name in ("candidates", "examined")}
    assert total["candidates"] > 1000 and total["examined"] > 100, (
        "the hash alone would accuse, so this tests something"
    )


def test_a_real_radiograph_compressed_with_loss_is_found(tmp_path: Path) -> None:
    data = pytest.importorskip("pydicom.data")
    pytest.importorskip("openjpeg")
    paths = {
        name: data.get_testdata_file(f"{name}.dcm", download=False)
        for name in ("RG1_UNCR", "RG1_J2KR", "RG1_J2KI", "RG3_UNCR")
    }
    if not all(paths.values()):
        pytest.skip("pydicom-data is not installed")
    original, lossless, lossy, tibia = (item(Path(path), name) for name, path in paths.items())
    assert "identical pixels" in accusation([original], [lossless])
    assert "near-duplicate" in accusation([original], [lossy])
    assert prove_images([original], [tibia], SignatureCache()).unreadable == 0


def test_slices_of_a_real_brain_are_told_apart_and_their_flipped_copies_are_not() -> None:
    datasets = pytest.importorskip("nilearn.datasets")
    volume = np.asarray(datasets.load_mni152_template(resolution=1).dataobj)
    # From the side, one half: this atlas is exactly symmetric, which no head is and no pHash can stand.
    slices = [np.rint(255 * volume[x].T / volume.max()).astype(np.uint8) for x in range(30, 95, 5)]
    known = [signature(one) for one in slices]
    assert not list(near_duplicates.near_duplicates(known[::2], known[1::2]))
    copies = [signature(jpeg(one[:, ::-1])) for one in slices]
    found = [(match.train, match.test, match.laid) for match in near_duplicates.near_duplicates(known, copies)]
    assert found == [(number, number, "flipped left-right") for number in range(len(slices))]


def test_the_search_agrees_with_a_double_loop() -> None:
    train = [signature(body(i, "xray", "brain")) for i in range(40)]
    test = [signature(body(i, "xray", "brain")) for i in range(40, 60)]
    counts: dict[str, int] = {}
    list(near_duplicates.near_duplicates(train, test, counts))
    naive = 0
    for one in test:
        assert one.thumbnail is not None
        for laid in LAYINGS.values():  # a group: the eight undone are the eight done
            turned = imagehash.phash(Image.fromarray(np.ascontiguousarray(laid(one.thumbnail))))
            naive += sum(turned - imagehash.phash(Image.fromarray(other.thumbnail)) <= HAMMING for other in train)
    assert counts["candidates"] == naive > 10


def test_the_hash_is_that_of_imagehash() -> None:
    pixels = body(5, size=64)
    assert f"{signature(pixels).phash:016x}" == str(imagehash.phash(Image.fromarray(pixels)))


def test_alignment_undoes_a_crop() -> None:
    whole = body(7, "t1", "brain", size=256)
    one, other = signature(whole).thumbnail, signature(whole[5:-2, 3:-5]).thumbnail
    assert one is not None and other is not None
    plain = float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    assert plain < 0.97 < 0.99 < aligned_correlation(one, other)
    far = signature(body(8, "t1", "brain", size=256)).thumbnail
    assert far is not None and aligned_correlation(one, far) < 0.95


# -- whole trials: the runner calls prove_images -----------------------------------------------------------------------

SMALL = {"modalities": "xray,t2", "anatomies": "brain", "tasks": "finding,grade", "train": 64, "val": 8, "test": 32}


@pytest.mark.parametrize(
    ("how", "said"),
    [("renamed", "identical file bytes"), ("re-encoded", "identical pixels"), ("flipped", "(flipped left-right)")],
)
def test_a_planted_copy_fails_the_trial(how: str, said: str, tmp_path: Path) -> None:
    catalog = Catalog()
    options = {**SMALL, "seed": 1000 + sum(map(ord, how))}
    spec = TrialSpec(
        "cnn-tiny", "related", MAT("t2", "brain", "finding"), 0, "phantom",
        options={"steps": 2, "batch_size": 8}, dataset_options=options, train_size=64, val_size=8,
    )  # fmt: skip
    benchmark = catalog.benchmark("phantom", options, None)
    clean = run_trial(spec, tmp_path / "clean", catalog, benchmark, lambda *_, **__: None)
    assert clean.status == "finished", clean.message
    card = read_json(tmp_path / "clean" / "split.json")
    train, test = benchmark.items(card["train"][:1]) + benchmark.items(card["test"][:1])
    source, planted = Path(train.image.path), Path(test.image.path)
    if how == "renamed":
        planted.write_bytes(source.read_bytes())
    elif how == "re-encoded":
        Image.open(source).save(planted, format="BMP")
    else:
        Image.fromarray(jpeg(np.fliplr(read_image(train.image)))).save(planted, format="PNG")
    leaky = run_trial(spec, tmp_path / "leaky", catalog, benchmark, lambda *_, **__: None)
    assert leaky.status == "failed" and said in leaky.message
    for one in (train, test):
        assert one.id in leaky.message and one.patient in leaky.message and one.image.path in leaky.message

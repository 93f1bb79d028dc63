"""The clip family: prompts, pictures, checkpoints, and the three modes."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from crossmed_core.candidates import BOXES, CHOICES, NEUTRAL_CHOICES
from crossmed_core.contracts import FitContext, TrainSettings
from crossmed_core.controls import controlled
from crossmed_core.errors import CrossmedError, ExitCode, UnreadableImageError
from crossmed_core.images import encode_mask
from crossmed_core.registry import load_registry
from crossmed_core.testing.items import LABELS, option_item
from crossmed_core.types import MAT, ImageRef, Item, MaskRef, ModelSpec
from crossmed_plugins.clip import miniature
from crossmed_plugins.clip.model import ClipFamily, ClipModel, Pairs, averaged
from crossmed_plugins.clip.pictures import ClipInput, crop_box
from crossmed_plugins.clip.prompts import TEMPLATES, Wording, compared, finding, named, target
from crossmed_plugins.phantom.dataset import LABELS as PHANTOM_LABELS

SETTINGS = TrainSettings(steps=6, batch_size=8, learning_rate=1e-3, checkpoint_seconds=0.0)
CELL = MAT("ct", "brain", "finding")
QUESTION = "What does this chest X-ray show?"

SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 40, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the hub's cache of the person who runs it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def item(options: tuple[str, ...] = ("nodule", "ring"), **more: Any) -> Item:
    given = {"question": QUESTION, "answer": 0, "label": options[0], "image": ImageRef("/nowhere.png"), **more}
    return Item(given.pop("id", "i"), "d", CELL, "p", "test", options=options, **given)


def film(folder: Path, shape: tuple[int, ...] = (48, 80), name: str = "film") -> ImageRef:
    pixels = np.random.default_rng(len(name)).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f"{name}.png")
    return ImageRef(str(folder / f"{name}.png"))


def load(name: str | Path, **options: Any) -> ClipModel:
    return ClipFamily().load(ModelSpec("asked", "clip", {"name": str(name), **options}), device="cpu")


def scores(model: ClipModel, *items: Item) -> list[tuple[float, ...]]:
    found = list(model.predict(items))
    assert all(one.option_scores for one in found), [one.error for one in found]
    return [one.option_scores for one in found]


def save_checkpoint(folder: Path, model: dict[str, Any] = SMALL, *, name: str = "") -> Path:
    """Write a random network as open_clip writes its own."""
    torch.manual_seed(1)
    given = {key: value for key, value in model.items() if key != "custom_text"}
    network = (open_clip.CustomTextCLIP if "custom_text" in model else open_clip.CLIP)(**given)
    folder.mkdir(exist_ok=True, parents=True)
    content = {"model_cfg": model, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    if name.endswith(".bin"):
        torch.save(state, folder / name)
    else:
        save_file(state, folder / "open_clip_model.safetensors")
    return folder


def small_tokenizer(folder: Path, *, pad: int) -> None:
    """Write a tokenizer of transformers over the words of these tests."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import WordLevel
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[CLS]", "[UNK]", "[END]"]
    words += sorted({word for text in (*TEMPLATES, *LABELS, "x-ray of the chest nodule ring") for word in text.split()})
    words[0], words[pad] = words[pad], words[0]
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("[CLS]", words.index("[CLS]")), ("[END]", words.index("[END]"))]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [END]", special_tokens=ends)
    named_tokens = {"pad_token": "[PAD]", "cls_token": "[CLS]", "unk_token": "[UNK]", "sep_token": "[END]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named_tokens).save_pretrained(folder)


# -- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Which finding does this T2-weighted MRI image of the brain show?", ("T2-weighted MRI", "brain")),
        ("Name the abnormality in this chest X-ray image.", ("X-ray", "chest")),
        ("What does this thoracic radiograph show?", ("X-ray", "chest")),
        ("Looking at the lungs in this CT image, what is present?", ("CT", "lung")),
        ("Tell us what this end of the US image shows.", ("ultrasound", "")),
        (
            "By its appearance in this fundus photography image, what type of eye is this?",
            ("fundus photography", "eye"),
        ),
        ("What does this image show?", ("", "")),
        ("A subchestnut x-rayed scan", ("", "")),
        ("", ("", "")),
    ],
)
def test_modality_and_anatomy_are_those_that_the_question_names(question: str, expected: tuple[str, str]) -> None:
    assert named(question) == expected


def test_prompts_by_hand() -> None:
    assert Wording().prompts(item(), "nodule") == (
        "X-ray of the chest showing nodule",
        "nodule in the chest, X-ray",
        "nodule is seen in this X-ray of the chest",
    )
    assert Wording().prompts(item(question=""), "No finding")[0] == "medical image of the body showing no abnormality"
    own = Wording.of(["{question} {label}", "a {modality}: {finding}"])
    assert own.prompts(item(), "severe") == (f"{QUESTION} severe", "a X-ray: a severe abnormality")
    assert Wording().prompts(item(question="Is it broken?"), "Yes") == ("Is it broken? Yes",)
    assert Wording().prompts(item(), "{label}")[0] == "X-ray of the chest showing {label}"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("normal", "no abnormality"),
        ("Negative.", "no abnormality"),
        ("no pneumothorax", "no pneumothorax"),
        ("moderate", "a moderate abnormality"),
        ("lower right", "an abnormality in the lower right part"),
        ("left-sided effusion", "left-sided effusion"),
        ("grade 2", "grade 2"),
    ],
)
def test_labels_that_name_no_thing_become_one(label: str, expected: str) -> None:
    assert finding(label) == expected


@pytest.mark.parametrize("template", (*CHOICES, *NEUTRAL_CHOICES))
@pytest.mark.parametrize("suffix", ("", f" {BOXES}"))
def test_the_target_of_every_instruction_of_the_core_is_found(template: str, suffix: str) -> None:
    words = {"modality": "T1-weighted MRI", "anatomy": "whole-body"}
    assert target(template.format(target="the tumour core of this brain", **words) + suffix) == (
        "the tumour core of this brain"
    )


def test_the_target_of_other_instructions_is_the_instruction() -> None:
    square = encode_mask(np.ones((4, 4), dtype=bool))
    odd = item(("region A", "region B"), candidates=(square, square), question="Point at the stone.")
    assert compared(odd) == ("Point at the stone.",) * 2
    assert Wording().prompts(odd, compared(odd)[0]) == ("Point at the stone.",)
    assert compared(replace(odd, question="")) == ("the abnormal area",) * 2


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ("a photo", "lacks {label} or {finding}"),
        ("{lable}", "holds 'lable' in braces, which is no field. Did you mean 'label'"),
        ("{label", "is not one"),
        ("{label!r}", "in braces"),
        ("{} {label}", "in braces"),
        (3, "templates must be a text or a list of texts, not 3"),
        ([], "templates must be a text or a list"),
        (["{label}", 3], "templates must be a text or a list"),
    ],
)
def test_bad_templates_are_refused(templates: object, message: str) -> None:
    with pytest.raises(CrossmedError) as caught:
        Wording.of(templates)
    assert message in str(caught.value)


def test_the_cell_of_an_item_is_never_read() -> None:
    model = load("miniature")
    asked = item(withheld=frozenset({"image"}))
    elsewhere = replace(asked, mat=MAT("us", "knee", "grade"), label="ring", answer=1)
    assert scores(model, asked) == scores(model, elsewhere)


def test_wrong_words_reach_the_prompts(tmp_path: Path) -> None:
    asked = item(question="Name the lesion in this brain CT image.", image=film(tmp_path))
    (wrong,) = controlled("wrong-mat", [asked], [MAT("us", "knee", "finding"), CELL])
    assert isinstance(wrong, Item)
    assert Wording().prompts(wrong, "ring")[0] == "ultrasound of the knee showing ring"
    model = load("miniature")
    assert scores(model, asked) != scores(model, wrong)


# -- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["longest", "squash", "shortest"])
@pytest.mark.parametrize("shape", [(48, 80), (81, 37), (20, 21, 3), (64, 64), (7, 300)])
def test_an_image_is_seen_as_open_clips_own_transform_shows_it(tmp_path: Path, resize: str, shape: tuple) -> None:
    ref = film(tmp_path, shape)
    seen = ClipInput(32, 3, (0, 0, 0), (1, 1, 1), resize).pictures(item(image=ref))[0]
    transform = open_clip.image_transform(32, False, (0, 0, 0), (1, 1, 1), resize_mode=resize)
    expected = (transform(Image.open(ref.path)) * 255).round().permute(1, 2, 0).numpy()
    assert seen.shape == (1, 32, 32, 3) and seen.dtype == np.uint8
    assert (seen[0] == expected).all()


def test_by_default_the_edges_of_a_film_are_seen(tmp_path: Path) -> None:
    pixels = np.full((60, 100), 80, np.uint8)
    pixels[:, :10] = pixels[:, -10:] = 255
    Image.fromarray(pixels).save(tmp_path / "film.png")
    ref = ImageRef(str(tmp_path / "film.png"))
    whole, cut = (
        ClipInput(50, 3, (0,) * 3, (1,) * 3, how).pictures(item(image=ref))[0] for how in ("longest", "shortest")
    )
    assert (whole[0, 25, [0, -1]] == 255).all() and (cut == 80).all()
    assert (whole[0, [0, -1]] == 0).all(), "what is padded is black"


def region(top: int, left: int, bottom: int, right: int, shape: tuple[int, int] = (40, 60)):
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return encode_mask(mask)


def test_crops_by_hand() -> None:
    # 10 x 20 pixels: a quarter of the longer side is 5 on every side, and the image ends at 0 and at 60.
    assert crop_box(region(12, 30, 22, 50), (40, 60), 0.25) == (slice(7, 27), slice(25, 55))
    assert crop_box(region(2, 38, 12, 58), (40, 60), 0.25) == (slice(0, 17), slice(33, 60))
    assert crop_box(region(12, 30, 22, 50), (40, 60), 0.0) == (slice(12, 22), slice(30, 50))
    assert crop_box(region(0, 0, 0, 0), (40, 60), 0.25) == (slice(0, 40), slice(0, 60))
    with pytest.raises(UnreadableImageError, match=r"size \(40, 60\), the image \(40, 61\)"):
        crop_box(region(12, 30, 22, 50), (40, 61), 0.25)


def choice(folder: Path, number: int = 0, *, answer: int = 0, part: str = "train") -> Item:
    """One of four squares is bright: the target."""
    squares = [(4, 4), (4, 40), (24, 4), (24, 40)]
    regions = tuple(region(top, left, top + 12, left + 12) for top, left in squares)
    pixels = np.random.default_rng([number, answer]).integers(20, 60, (40, 60)).astype(np.uint8)
    for place, (top, left) in enumerate(squares):
        pixels[top : top + 12, left : left + 12] = 200 if place == answer else 100
    path = folder / f"{part}-{number}-{answer}.png"
    Image.fromarray(pixels).save(path)
    question = CHOICES[number % len(CHOICES)].format(modality="X-ray", anatomy="chest", target="the lesion")
    options = tuple(f"region {letter}" for letter in "ABCD")
    return Item(
        f"{part}-{number}-{answer}", "d", MAT("xray", "chest", "segmentation"), f"{number}", part,  # type: ignore[arg-type]
        ImageRef(str(path), marks=regions), question, options, answer, options[answer],
        mask=MaskRef(rle=regions[answer]), candidates=regions,
    )  # fmt: skip


def test_a_choice_is_shown_as_crops_without_the_marks(tmp_path: Path) -> None:
    asked = choice(tmp_path, answer=2)
    spec = ClipInput(24, 3, (0,) * 3, (1,) * 3, margin=0.0)
    shown, shape = spec.pictures(asked)
    assert shown.shape == (4, 24, 24, 3) and shape == (40, 60)
    assert [int(crop.min()) for crop in shown] == [100, 100, 200, 100] == [int(crop.max()) for crop in shown]
    blank, _ = spec.pictures(replace(asked, image=replace(asked.image, blank=True)))
    assert (blank == 127).all()
    nothing, _ = spec.pictures(replace(asked, withheld=frozenset({"image"}), image=ImageRef("/nowhere.png")))
    assert nothing.shape == (1, 24, 24, 3) and (nothing == 127).all()


def test_pairs_by_hand(tmp_path: Path) -> None:
    regions = choice(tmp_path)
    pairs = Pairs.of([item(("ring", "nodule", "ring")), regions, item(("nodule",))], Wording())
    assert pairs.pictures.tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 0, 0, 0]]
    assert pairs.texts.tolist() == [[0, 1, 0, 0], [2, 2, 2, 2], [1, 0, 0, 0]]
    assert pairs.real.sum(dim=1).tolist() == [3, 4, 1]
    assert [texts[0] for texts in pairs.prompts] == [
        f"X-ray of the chest showing {word}" for word in ("ring", "nodule", "the lesion")
    ]


# -- scores -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize("resize", ["longest", "squash", "shortest"])
def test_zero_shot_is_what_open_clips_own_functions_say(saved: Path, tmp_path: Path, resize: str) -> None:
    labels = ("nodule", "no finding", "mild", "ring")
    shapes = {"a": (48, 80), "bb": (70, 30, 3)}
    items = [item(labels, id=name, image=film(tmp_path, shape, name)) for name, shape in shapes.items()]
    found = scores(load(f"local-dir:{saved}", mode="zero-shot", resize=resize), *items)

    network, transform = open_clip.create_model_from_pretrained(f"local-dir:{saved}", image_resize_mode=resize)
    network.eval()
    written = [text.format(modality="X-ray", anatomy="chest", finding="{}") for text in TEMPLATES]
    seen = ["nodule", "no abnormality", "a mild abnormality", "ring"]
    tokenizer = open_clip.get_tokenizer(f"local-dir:{saved}")
    classifier = open_clip.build_zero_shot_classifier(network, tokenizer, seen, written)
    for asked, given in zip(items, found, strict=True):
        with torch.no_grad():
            picture = transform(Image.open(asked.image.path))[None]
            logits = network.logit_scale.exp() * network.encode_image(picture, normalize=True) @ classifier
        assert given == pytest.approx(logits.softmax(dim=1)[0].tolist(), abs=2e-6)


def test_a_choice_is_scored_crop_by_crop(saved: Path, tmp_path: Path) -> None:
    asked = choice(tmp_path, answer=1)
    (found,) = scores(load(saved, mode="zero-shot", margin=0.5), asked)
    network, transform = open_clip.create_model_from_pretrained(f"local-dir:{saved}", image_resize_mode="longest")
    network.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{saved}")
    written = [text.format(modality="X-ray", anatomy="chest", finding="the lesion") for text in TEMPLATES]
    picture = Image.open(asked.image.path)
    crops = [(0, 0, 22, 22), (34, 0, 58, 22), (0, 18, 22, 40), (34, 18, 58, 40)]  # 12 pixels and 6 around them
    with torch.no_grad():
        text = network.encode_text(tokenizer(written), normalize=True).mean(dim=0)
        shown = torch.stack([transform(picture.crop(box)) for box in crops])
        cosines = functional.cosine_similarity(network.encode_image(shown), text[None])
    assert found == pytest.approx((network.logit_scale.exp() * cosines).softmax(dim=0).tolist(), abs=2e-6)


def test_the_loss_is_the_cross_entropy_of_the_scores(saved: Path, tmp_path: Path) -> None:
    model = load(saved)
    items = [option_item(0, tmp_path), choice(tmp_path, answer=3), option_item(2, tmp_path)]
    given = scores(model, *items)
    (batch,) = model.held_out_batches(items, FitContext(settings=SETTINGS))
    loss = float(model.loss(model.module.eval(), batch, smoothing=0.0).detach())
    assert loss == pytest.approx(
        -np.mean([np.log(one[i.answer]) for one, i in zip(given, items, strict=True)]), abs=1e-4
    )


def test_averaging_is_the_mean_of_unit_embeddings() -> None:
    embeddings = functional.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    found = averaged(embeddings, ["a", "b", "c"], [("a", "c"), ("b",)])
    mean = (embeddings[0] + embeddings[2]) / 2
    assert torch.allclose(found, torch.stack([mean / mean.norm(), embeddings[1]]), atol=1e-6)


def count_texts(model: ClipModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many texts each call of the text tower gets."""
    network: Any = model.network
    counts: list[int] = []
    embed = network.encode_text

    def counting(tokens: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        counts.append(len(tokens))
        return embed(tokens, normalize=normalize)

    monkeypatch.setattr(network, "encode_text", counting)
    return counts


def test_a_prompt_is_embedded_once_per_step_and_once_for_all_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("miniature")
    items = [option_item(number, tmp_path) for number in range(8)]
    model.prepare(items, seed=0)
    counts = count_texts(model, monkeypatch)
    (batch,) = model.held_out_batches(items, FitContext(settings=SETTINGS))
    model.loss(model.module.train(), batch, smoothing=0.0)
    model.loss(model.module.eval(), batch, smoothing=0.0)
    assert counts == [len(LABELS), len(LABELS) * len(TEMPLATES)], (
        "32 options, of which 4 differ; one template in training"
    )
    counts.clear()
    list(model.predict(items))
    list(model.predict([replace(one, id=f"{one.id}-again") for one in items]))
    assert counts == [len(LABELS) * len(TEMPLATES)]


# -- controls ---------------------------------------------------------------------------------------------------------


def test_a_withheld_image_is_mid_grey_and_a_withheld_question_says_nothing(tmp_path: Path) -> None:
    model = load("miniature")
    Image.fromarray(np.full((64, 64), 127, np.uint8)).save(tmp_path / "grey.png")
    asked = item(image=film(tmp_path))
    without = replace(asked, withheld=frozenset({"image"}), image=ImageRef("/nowhere.png"))
    assert scores(model, without) == scores(model, replace(asked, image=ImageRef(str(tmp_path / "grey.png"))))
    bare = replace(without, withheld=frozenset({"image", "question"}), question="")
    assert scores(model, bare) == scores(model, replace(without, question="What does this image show?"))
    assert scores(model, bare) != scores(model, without)


def test_a_choice_without_its_image_is_a_guess(tmp_path: Path) -> None:
    model = load("miniature")
    asked = choice(tmp_path)
    answers = list(model.predict([replace(asked, id=str(n), withheld=frozenset({"image"})) for n in range(40)]))
    assert all(one.guess and one.option_scores == (0.25,) * 4 for one in answers)
    assert len({one.option for one in answers}) == 4


# -- training ---------------------------------------------------------------------------------------------------------


def state(model: ClipModel) -> dict[str, torch.Tensor]:
    assert model.network is not None
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Return the towers that differ: "visual", "text", "scale"."""
    names = {name for name in before if not torch.equal(before[name], after[name])}
    towers = {"visual": "visual", "logit_scale": "scale"}
    return {towers.get(name.split(".")[0], "text") for name in names}


@pytest.mark.parametrize(("freeze", "expected"), [(False, {"visual", "text", "scale"}), (True, {"visual", "scale"})])
def test_what_fine_tuning_changes(saved: Path, tmp_path: Path, freeze: bool, expected: set[str]) -> None:
    model = load(saved, freeze_text=freeze)
    train = [option_item(number, tmp_path) for number in range(8)]
    before = load(saved)
    list(before.predict(train[:1]))  # loads the weights
    model.fit(train, train[:4], FitContext(settings=SETTINGS))
    assert changed(state(before), state(model)) == expected
    folder = tmp_path / "weights"
    folder.mkdir()
    model.save(folder)
    again = load(saved, freeze_text=freeze)
    again.restore(folder)
    assert list(again.predict(train)) == list(model.predict(train))


def test_zero_shot_learns_nothing_and_says_so(saved: Path, tmp_path: Path) -> None:
    train = [option_item(number, tmp_path) for number in range(8)]
    model, untouched = load(saved, mode="zero-shot"), load(saved)
    told: list[str] = []
    model.fit(train, [], FitContext(settings=SETTINGS, warn=told.append))
    assert scores(model, *train) == scores(untouched, *train)
    assert "learns nothing" in told[0]
    folder = tmp_path / "weights"
    folder.mkdir()
    model.save(folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3000, "the checkpoint's weights are not copied"
    again = load(saved, mode="zero-shot")
    again.restore(folder)
    assert list(again.predict(train)) == list(model.predict(train))


def test_a_killed_fine_tuning_ends_in_the_same_bytes(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def die(step: int, total: int, **values: float) -> None:
        if step == 4:
            raise KilledError

    train = [option_item(number, tmp_path) for number in range(8)]
    straight, killed, resumed = (load("miniature") for _ in range(3))
    straight.fit(train, train[:4], FitContext(1, "cpu", SETTINGS))
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    with pytest.raises(KilledError):
        killed.fit(train, train[:4], FitContext(1, "cpu", SETTINGS, checkpoint, die))
    resumed.fit(train, train[:4], FitContext(1, "cpu", SETTINGS, checkpoint))
    assert changed(state(straight), state(resumed)) == set()


def test_a_high_learning_rate_for_pretrained_towers_is_said(saved: Path, tmp_path: Path) -> None:
    train = [option_item(number, tmp_path) for number in range(8)]
    told: list[str] = []
    load(saved).fit(train, [], FitContext(settings=replace(SETTINGS, steps=1), warn=told.append))
    assert "learning_rate 0.001 is high" in told[0]
    told.clear()
    load(saved).fit(train, [], FitContext(settings=replace(SETTINGS, steps=1, learning_rate=1e-5), warn=told.append))
    assert told == []


def test_choices_and_options_are_learned_together(tmp_path: Path) -> None:
    train = [choice(tmp_path, number, answer=number % 4) for number in range(24)]
    train += [option_item(number, tmp_path) for number in range(24)]
    model = load("miniature")
    model.fit(train, train[:4], FitContext(settings=replace(SETTINGS, steps=60, batch_size=16)))
    test = [choice(tmp_path, number, answer=number % 4, part="test") for number in range(100, 116)]
    assert sum(one.option == i.answer for one, i in zip(model.predict(test), test, strict=True)) > 12


# -- linear probe -----------------------------------------------------------------------------------------------------


def test_a_linear_probe_is_logistic_regression_on_frozen_features(saved: Path, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    train = [option_item(number, tmp_path) for number in range(40)]
    val = [option_item(number, tmp_path, part="val") for number in range(12)]
    test = [option_item(number, tmp_path, part="test") for number in range(12)]
    model, before = load(saved, mode="linear-probe"), load(saved)
    list(before.predict(test[:1]))
    losses: list[dict[str, float]] = []
    model.fit(train, val, FitContext(settings=SETTINGS, log=lambda step, total, **values: losses.append(values)))
    assert changed(state(before), state(model)) == set(), "the towers are frozen"

    def features(items: list[Item]) -> np.ndarray:
        assert before.spec is not None
        (batch,) = before.held_out_batches(items, FitContext(settings=replace(SETTINGS, batch_size=len(items))))
        with torch.no_grad():
            return before.network.encode_image(batch.images, normalize=True).double().numpy()  # type: ignore[union-attr]

    from crossmed_plugins.clip.probe import STRENGTHS

    best = STRENGTHS[int(np.argmin([values["val_loss"] for values in losses]))]
    reference = LogisticRegression(C=best, max_iter=5000, tol=1e-8)
    reference.fit(features(train), [one.label for one in train])
    expected = reference.predict_proba(features(test))
    for given, asked, row in zip(scores(model, *test), test, expected, strict=True):
        by_label = dict(zip(reference.classes_, row, strict=True))
        assert given == pytest.approx([by_label[option] for option in asked.options], abs=5e-3)

    folder = tmp_path / "weights"
    folder.mkdir()
    model.save(folder)
    assert (folder / "model.safetensors").stat().st_size < 2000, "only the layer is kept"
    again = load(saved, mode="linear-probe")
    again.restore(folder)
    assert list(again.predict(test)) == list(model.predict(test))
    strangers = [replace(one, options=("never", "seen"), label="never", answer=0) for one in test]
    assert all(one.guess for one in model.predict(strangers))


def test_a_linear_probe_learns_targets_of_choices_and_passes_over_broken_files(tmp_path: Path) -> None:
    train = [choice(tmp_path, number, answer=number % 4) for number in range(12)]
    broken = replace(train[0], id="broken", image=ImageRef(str(tmp_path / "gone.png")))
    told: list[str] = []
    model = load("miniature", mode="linear-probe")
    model.fit([broken, *train], [broken], FitContext(settings=SETTINGS, warn=told.append))
    assert len(told) == 2 and "training item broken" in told[0] and "validation item broken" in told[1]
    assert model.labels.labels == ["the lesion"]
    test = [choice(tmp_path, number, answer=number % 4, part="test") for number in range(100, 116)]
    assert sum(one.option == i.answer for one, i in zip(model.predict(test), test, strict=True)) == 16
    with pytest.raises(CrossmedError, match="None of the 1 training images"):
        model.fit([broken], [], FitContext(settings=SETTINGS))


# -- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_folder_is_loaded_by_its_path(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    asked = item(image=film(tmp_path))
    by_name, by_prefix = load(f"./{saved.name}"), load(f"local-dir:{saved}")
    assert scores(by_name, asked) == scores(by_prefix, asked)
    assert by_name.facts()["weights"].endswith("open_clip_model.safetensors")
    assert scores(load(save_checkpoint(tmp_path / "pickled", name="open_clip_pytorch_model.bin")), asked) == scores(
        by_name, asked
    )


def refused(name: str | Path, **options: Any) -> CrossmedError:
    with pytest.raises(CrossmedError) as caught:
        list(load(name, **options).predict([item(withheld=frozenset({"image"}))]))
    assert "\n" not in str(caught.value)
    return caught.value


class Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_weights_that_are_missing_or_broken_are_one_line(saved: Path, in_tmp: Path) -> None:
    def copy(name: str) -> Path:
        return save_checkpoint(in_tmp / name)

    bare, cut, lacking, other, evil, shapeless, textual = map(copy, "abcdefg")
    (bare / "open_clip_model.safetensors").unlink()
    assert "holds no weights. They are looked for in open_clip_model.safetensors and" in str(refused(bare))
    content = (cut / "open_clip_model.safetensors").read_bytes()
    (cut / "open_clip_model.safetensors").write_bytes(content[: len(content) // 2])
    assert "open_clip_model.safetensors cannot be loaded (SafetensorError" in str(refused(cut))
    from safetensors.torch import load_file

    tensors = load_file(lacking / "open_clip_model.safetensors")
    del tensors["visual.proj"]
    save_file(tensors, lacking / "open_clip_model.safetensors")
    assert "cannot be loaded (RuntimeError" in str(refused(lacking)), "never a random start for what is missing"
    config = json.loads((other / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["width"] = 128
    (other / "open_clip_config.json").write_text(json.dumps(config))
    assert "cannot be loaded (RuntimeError" in str(refused(other))
    (evil / "open_clip_model.safetensors").unlink()
    (evil / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(Malicious(), protocol=2))
    assert "cannot be loaded (UnpicklingError" in str(refused(evil))
    assert not (in_tmp / "executed").exists()
    (shapeless / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 3}}')
    assert "describes no CLIP" in str(refused(shapeless))
    (textual / "open_clip_config.json").write_text("[")
    assert "cannot be read as JSON" in str(refused(textual))
    for folder in (in_tmp / "nowhere", in_tmp):
        error = refused(folder)
        assert error.exit_code is ExitCode.ENVIRONMENT
    assert "has no open_clip_config.json" in str(refused(in_tmp))
    config["model_cfg"]["multimodal_cfg"] = {}
    (other / "open_clip_config.json").write_text(json.dumps(config))
    assert "captions (CoCa)" in str(refused(other))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-23/openai", "no architecture 'ViT-B-23'. Did you mean 'ViT-B-32'"),
        ("ViT-B-32-quickgelu/opanai", "no weights 'opanai' of 'ViT-B-32-quickgelu'; write ARCHITECTURE/TAG. Did you"),
        ("ViT-B-32", "several weights of 'ViT-B-32'; write ARCHITECTURE/TAG. Known: openai"),
        ("ViT-B-32/openai", "another activation than 'ViT-B-32' has. Use ViT-B-32-quickgelu/openai"),
        ("RN50-quickgelu/nothing/at/all", "no weights 'nothing/at/all'"),
        ("hf-hub:no-such id", "'no-such id' is not a hub id ORG/NAME"),
    ],
)
def test_bad_names_are_helped(name: str, message: str) -> None:
    assert message in str(refused(name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "zeroshot"}, "mode must be one of finetune, linear-probe, zero-shot, not 'zeroshot'. Did you mean"),
        ({"resize": "crop"}, "resize must be one of longest, squash, shortest, not 'crop'"),
        ({"freeze_text": "False"}, "freeze_text must be true or false, not 'False'"),
        ({"margin": -1}, "margin must be a number of at least 0, not -1"),
        ({"margin": float("nan")}, "margin must be a number of at least 0, not nan"),
        ({"templates": "x"}, "lacks {label}"),
    ],
)
def test_bad_options_are_helped(options: dict[str, Any], message: str) -> None:
    assert message in str(refused("miniature", **options))


SHIPPED = sorted(name for name, entry in load_registry().models.items() if entry.family == "clip")


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "clip-tiny"])
def test_shipped_names_are_known_and_say_how_to_fetch_their_weights(name: str) -> None:
    entry = load_registry().models[name]
    spec = ModelSpec(name, "clip", entry.options, entry.hub, entry.revision)
    with pytest.raises(CrossmedError) as caught:
        ClipFamily().load(spec, device="cpu")
    assert caught.value.exit_code is ExitCode.ENVIRONMENT
    pinned = f" --revision {entry.revision}" if entry.revision else ""
    assert f"hf download {entry.hub}{pinned} --include" in caught.value.hint
    assert entry.licence and entry.parameters_m and "\n" not in str(caught.value)


COMMIT, TEXT_COMMIT = "a" * 40, "b" * 40


def cached(hub_cache: Path, hub: str, commit: str) -> Path:
    """Return the folder of a snapshot in the hub's cache."""
    folder = hub_cache / f"models--{hub.replace('/', '--')}" / "snapshots" / commit
    folder.mkdir(parents=True)
    return folder


def describe(folder: Path, text: str, **more: Any) -> None:
    """Make a folder's configuration that of a network whose text tower is transformers'."""
    tower = {"hf_model_name": text, "hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", **more}
    model = {**SMALL, "text_cfg": {"hf_tokenizer_name": "org/bert", "context_length": 24, **tower}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_a_text_tower_of_transformers_needs_no_network(tmp_path: Path, place: str) -> None:
    from transformers import BertConfig

    spec = ModelSpec("asked", "clip", {"name": "hf-hub:org/clip", "text_revision": TEXT_COMMIT}, "org/clip", COMMIT)
    if place == "folder":
        folder = tmp_path / "clip"
        folder.mkdir()
        text, name, spec = folder / "text", "text", replace(spec, options={"name": str(folder)})
    else:
        folder, text = cached(tmp_path / "hub", "org/clip", COMMIT), cached(tmp_path / "hub", "org/bert", TEXT_COMMIT)
        name = "org/bert"
        (folder / "config.json").write_text('{"model_type": "something else"}')
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertConfig(vocab_size=60, **size).save_pretrained(text)
    small_tokenizer(folder, pad=0)
    describe(folder, str(text), hf_model_pretrained=False)
    network = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False).eval()
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    describe(folder, name)

    model = ClipFamily().load(spec, device="cpu")
    asked = item(image=film(tmp_path))
    (found,) = scores(model, asked)
    assert model.tokenizer(["x-ray of the chest"]).shape == (1, 24)
    facts = model.facts()
    weights = str(folder / "open_clip_model.safetensors")
    assert (facts["weights"], facts["commit"]) == (("org/clip", COMMIT) if place == "hub" else (weights, ""))
    written = [text.format(modality="X-ray", anatomy="chest", finding="{}") for text in TEMPLATES]
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    classifier = open_clip.build_zero_shot_classifier(network, tokenizer, list(asked.options), written)
    transform = open_clip.image_transform(32, False, resize_mode="longest")
    with torch.no_grad():
        picture = transform(Image.open(asked.image.path))[None]
        logits = network.logit_scale.exp() * network.encode_image(picture, normalize=True) @ classifier
    assert found == pytest.approx(logits.softmax(dim=1)[0].tolist(), abs=2e-6)


def test_a_text_tower_whose_configuration_is_nowhere_is_one_line(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "clip")
    describe(folder, "org/bert")
    error = refused(folder, text_revision=TEXT_COMMIT)
    assert f"hf download org/bert --revision {TEXT_COMMIT} --include 'config.json'" in str(error)


def siglip() -> dict[str, Any]:
    """SigLIP 2 as open_clip describes it, small."""
    vision = {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"}
    text = {
        "context_length": 20, "vocab_size": 60, "width": 64, "heads": 2, "layers": 2, "no_causal_mask": True,
        "hf_tokenizer_name": "org/siglip", "tokenizer_kwargs": {"clean": "canonicalize"},
        "proj_bias": True, "pool_type": "last",
    }  # fmt: skip
    return {"embed_dim": 64, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": text}


def test_siglip_sees_padded_texts_and_its_softmax_is_the_odds_of_its_sigmoid(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "siglip", siglip())
    small_tokenizer(folder, pad=1)
    model = load(folder, mode="zero-shot", templates="{label}")
    tokens = model.tokenizer(["Nodule.", "x-ray of the chest"])
    assert tokens.shape == (2, 20)
    assert (tokens[0, 3:] == 1).all() and tokens[0, 1] not in (1, 2), "punctuation stripped, padded to the full length"
    asked = item(("nodule", "ring", "bright"), image=film(tmp_path))
    (found,) = scores(model, asked)
    network, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}", image_resize_mode="longest")
    network.eval()
    with torch.no_grad():
        texts = open_clip.get_tokenizer(f"local-dir:{folder}")(list(asked.options))
        logits, _ = network.get_logits(transform(Image.open(asked.image.path))[None], texts)
    true = torch.sigmoid(logits[0].double())
    odds = true / (1 - true)
    assert found == pytest.approx((odds / odds.sum()).tolist(), abs=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("pickled", [False, True])
def test_checkpoints_of_transformers_are_loaded_too(tmp_path: Path, kind: str, pickled: bool) -> None:
    import transformers

    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**text, "image_size": 32, "patch_size": 8}
    text |= {"vocab_size": 60, "max_position_embeddings": 24, "bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0}
    names = {"clip": ("CLIP", {"projection_dim": 16}), "siglip": ("Siglip", {})}
    prefix, more = names[kind]
    torch.manual_seed(2)
    config = getattr(transformers, f"{prefix}Config")(text_config=text, vision_config=vision, **more)
    reference = getattr(transformers, f"{prefix}Model")(config).eval()
    folder = tmp_path / "checkpoint"
    reference.save_pretrained(folder)
    if pickled:
        tensors = {**reference.state_dict(), "text_model.embeddings.position_ids": torch.arange(24)[None]}
        torch.save(tensors, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    shown = {"image_mean": [0.4] * 3, "image_std": [0.3] * 3, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(shown))
    small_tokenizer(folder, pad=0)
    model = load(folder, mode="zero-shot", templates="{label}")
    asked = item(("nodule", "ring", "bright"), image=film(tmp_path))
    (found,) = scores(model, asked)
    transform = open_clip.image_transform(
        32, False, (0.4,) * 3, (0.3,) * 3, resize_mode="longest", interpolation="bilinear"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(list(asked.options), padding="max_length", max_length=24, return_tensors="pt").input_ids
    with torch.no_grad():
        picture = transform(Image.open(asked.image.path))[None]
        logits = reference(input_ids=tokens, pixel_values=picture).logits_per_image
    assert found == pytest.approx(logits.softmax(dim=1)[0].tolist(), abs=2e-6)

    train = [replace(asked, id=str(number), part="train") for number in range(4)]
    tuned = load(folder, freeze_text=True)
    tuned.fit(train, [], FitContext(settings=SETTINGS))
    after = state(tuned)
    moved = {name for name, tensor in reference.state_dict().items() if not torch.equal(tensor, after[f"model.{name}"])}
    assert moved and not any(name.startswith("text_") for name in moved)
    probe = load(folder, mode="linear-probe")
    probe.fit(train, [], FitContext(settings=SETTINGS))
    weights = tmp_path / "weights"
    weights.mkdir()
    probe.save(weights)
    again = load(folder, mode="linear-probe")
    again.restore(weights)
    assert list(again.predict(train)) == list(probe.predict(train))


def test_other_models_of_transformers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "holds a model of type 'bert'. Served: clip and siglip" in str(refused(tmp_path))


# -- the miniature ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokens() -> Iterator[miniature.SmallTokenizer]:
    yield miniature.SmallTokenizer()


def test_the_small_tokenizer_knows_the_words_of_the_phantom(tokens: miniature.SmallTokenizer) -> None:
    again = miniature.SmallTokenizer()
    labels = [label for group in PHANTOM_LABELS.values() for label in group]
    found = tokens([*labels, "upper left", "never seen: Größe"])
    assert torch.equal(found, again([*labels, "upper left", "never seen: Größe"]))
    for label, row in zip(labels, found, strict=False):
        assert int(row.argmax()) == len(label.split()) + 1, f"{label}: one token per word, then the end"
        assert row[0] == tokens.start and row.max() == tokens.end
    assert (tokens(["RING"]) == tokens(["ring"])).all()


def test_a_text_that_is_too_long_keeps_its_end(tokens: miniature.SmallTokenizer) -> None:
    (row,) = tokens("lesion " * 100)
    assert len(row) == miniature.CONTEXT and row[-1] == tokens.end


def test_every_prompt_of_the_phantom_fits(tokens: miniature.SmallTokenizer) -> None:
    assert (tokens(sorted(set(miniature.corpus())))[:, -1] == 0).all()


def test_the_miniature_is_described() -> None:
    facts = load("miniature").facts()
    assert facts["weights"] == "random" and facts["image_size"] == 64 and facts["templates"] == list(TEMPLATES)
    assert json.loads(json.dumps(facts)) == facts

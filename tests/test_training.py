"""Training: options, batches, the loop, and going on after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from crossmed_core.answers import choose
from crossmed_core.contracts import FitContext, TrainSettings
from crossmed_core.errors import CrossmedError
from crossmed_core.testing.items import mask_item, option_item
from crossmed_core.training.data import InputSpec, TrainingBatches, letterbox, shifted, undo_letterbox
from crossmed_core.training.options import LabelVocabulary
from crossmed_core.types import MAT, ImageRef, Item
from crossmed_plugins.smp.model import SmpFamily, mask_loss
from crossmed_plugins.timm.model import TimmFamily

SPEC = InputSpec(64, 1, (0.449,), (0.226,))
FAST = TrainSettings(steps=12, batch_size=8, checkpoint_seconds=0.0)


def item(options: tuple[str, ...], answer: int = 0, name: str = "x") -> Item:
    cell = MAT("ct", "chest", "finding")
    return Item(name, "d", cell, name, "train", ImageRef("/x"), "?", options, answer, options[answer])


# -- options ----------------------------------------------------------------------------------------------------------


def test_loss_is_cross_entropy_over_the_items_own_options() -> None:
    vocabulary = LabelVocabulary("abcdef")
    items = [item(tuple("badc"), 2), item(tuple("fe"), 1)]
    logits = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    by_hand = [
        functional.cross_entropy(logits[0, [1, 0, 3, 2]][None], torch.tensor([2]), label_smoothing=0.1),
        functional.cross_entropy(logits[1, [5, 4]][None], torch.tensor([1]), label_smoothing=0.1),
    ]
    assert vocabulary.loss(logits, items, smoothing=0.1) == pytest.approx(float(sum(by_hand)) / 2, abs=1e-6)


def test_items_that_teach_nothing_are_left_out() -> None:
    vocabulary = LabelVocabulary("ab")
    logits = torch.randn(2, 2, requires_grad=True)
    known, unknown = item(("a", "b")), item(("x", "y"))
    alone = vocabulary.loss(logits[:1], [known]).detach()
    assert float(vocabulary.loss(logits, [known, unknown]).detach()) == pytest.approx(float(alone))
    nothing = vocabulary.loss(logits, [unknown, item(("a", "x"))])
    assert float(nothing.detach()) == 0
    nothing.backward()  # still a graph: a batch of strangers must not crash training


def test_probabilities_of_labels_never_trained_on_are_chance() -> None:
    vocabulary = LabelVocabulary("ab")
    logits = torch.tensor([[2.0, 0.0]])
    all_known, half, one, none = (
        vocabulary.predictions(logits, [item(options)], seed=0)[0]
        for options in (("a", "b"), ("a", "b", "x", "y"), ("a", "x", "y", "z"), ("w", "x", "y", "z"))
    )
    assert all_known.option == 0 and not all_known.guess
    p = float(torch.softmax(torch.tensor([2.0, 0.0]), 0)[0])
    assert half.option_scores == pytest.approx((p / 2, (1 - p) / 2, 0.25, 0.25), abs=1e-6) and not half.guess
    assert one.option_scores == pytest.approx((0.25,) * 4) and one.guess
    assert none.option_scores == pytest.approx((0.25,) * 4) and none.guess


def test_the_coin_is_fair_and_seeded_by_the_item() -> None:
    items = [item(tuple("abcd"), name=str(number)) for number in range(4000)]
    first = [choose(one, (0.25,) * 4, seed=0).option for one in items]
    assert first == [choose(one, (0.25,) * 4, seed=0).option for one in items]
    assert first != [choose(one, (0.25,) * 4, seed=1).option for one in items]
    assert np.bincount(first, minlength=4).min() > 900


def test_scores_that_are_no_numbers_are_an_error() -> None:
    nan = LabelVocabulary("ab").predictions(torch.tensor([[float("nan"), 0.0]]), [item(("a", "b"))], seed=0)[0]
    assert not nan.scored and "NaN" in str(nan.error)


# -- batches ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 90), st.integers(1, 90), st.integers(8, 64))
def test_letterbox_shows_all_and_can_be_undone(height: int, width: int, size: int) -> None:
    boxed = letterbox(np.full((height, width), 255, np.uint8), size)
    assert boxed.shape == (size, size)
    filled = np.argwhere(boxed == 255)
    assert max(filled.max(axis=0) + 1) == size, "the longer side fills the square"
    assert undo_letterbox(boxed == 255, (height, width)).shape == (height, width)
    assert undo_letterbox(boxed == 255, (height, width)).all(), "no padding comes back"


def test_shifts_move_mask_and_image_alike() -> None:
    image = np.arange(20).reshape(4, 5)
    moved = shifted(image, 1, -2)
    assert (moved[1:, :3] == image[:-1, 2:]).all() and (moved[0] == moved[1]).all()


def batches(items: list[Item], **more: object) -> TrainingBatches:
    settings: dict = {"batch_size": 4, "count": 30, "seed": 0, "augment": True, **more}
    return TrainingBatches(items, SPEC, **settings)


def test_a_batch_depends_on_its_number_alone(tmp_path: Path) -> None:
    items = [option_item(number, tmp_path) for number in range(10)]
    first, second = batches(items), batches(items)
    forwards = [first[number] for number in range(8)]
    for number in reversed(range(8)):
        again = second[number]
        assert [i.id for i in again.items] == [i.id for i in forwards[number].items]
        assert torch.equal(again.images, forwards[number].images)
    assert not torch.equal(batches(items, seed=1)[0].images, forwards[0].images)


def test_every_item_once_per_epoch_and_ranks_share_it(tmp_path: Path) -> None:
    items = [option_item(number, tmp_path) for number in range(12)]
    epoch = [one.id for number in range(3) for one in batches(items)[number].items]
    assert sorted(epoch) == sorted(one.id for one in items)
    halves = [batches(items, batch_size=2, rank=rank, world=2) for rank in range(2)]
    shared = [one.id for number in range(3) for half in halves for one in half[number].items]
    assert shared == epoch


def test_masks_follow_their_images(tmp_path: Path) -> None:
    items = [mask_item(number, tmp_path) for number in range(4)]
    batch = batches(items)[0]
    bright = batch.images[:, 0] > 0
    overlap = (bright & (batch.masks[:, 0] > 0)).sum() / (bright | (batch.masks[:, 0] > 0)).sum()
    assert overlap > 0.95 and bool(batch.is_mask.all())


# -- the loop ---------------------------------------------------------------------------------------------------------


def train_set(folder: Path, count: int = 16) -> list[Item]:
    return [option_item(number, folder) for number in range(count)]


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.module.state_dict().items()}


class KilledError(Exception):
    pass


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_training_ends_in_the_same_bytes(tmp_path: Path, accumulate: int) -> None:
    settings = replace(FAST, accumulate=accumulate)
    train = train_set(tmp_path)
    straight = TimmFamily().tiny(device="cpu")
    straight.fit(train, train[:8], FitContext(seed=3, settings=settings))

    def kill_at(step_to_die: int):
        def log(step: int, total: int, **values: float) -> None:
            if step == step_to_die:
                raise KilledError

        return log

    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for death in (3, 4, 9):
        with pytest.raises(KilledError):
            TimmFamily().tiny(device="cpu").fit(
                train, train[:8], FitContext(3, "cpu", settings, checkpoint, kill_at(death))
            )
    steps: list[int] = []
    resumed = TimmFamily().tiny(device="cpu")
    resumed.fit(
        train, train[:8], FitContext(3, "cpu", settings, checkpoint, lambda step, total, **v: steps.append(step))
    )
    assert steps[0] > 3, "it went on from a checkpoint"
    for name, value in weights(straight).items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    # Without batch norm, dropout and augmentation, two batches of 4 make the step of one batch of 8.
    train = train_set(tmp_path, 8)
    results = []
    for size, accumulate in ((8, 1), (4, 2)):
        model = TimmFamily().tiny(device="cpu")
        model.options["kwargs"] = {"channels": [8, 16, 32, 64], "norm_layer": torch.nn.Identity}
        settings = TrainSettings(steps=1, batch_size=size, accumulate=accumulate, augment=False, learning_rate=1e-4)
        model.prepare(train, seed=0)
        with torch.no_grad():  # without norms the activations explode; scale the kernels down
            for parameter in model.module.parameters():
                parameter.mul_(0.5)
        from crossmed_core.training.loop import train as loop

        loop(model, train, [], FitContext(settings=settings))
        results.append(weights(model))
    for name, value in results[0].items():
        assert torch.allclose(value, results[1][name], atol=1e-6), name


def val_loss(model, items: list[Item]) -> float:
    from crossmed_core.training.loop import _mean_loss

    batches = model.held_out_batches(items, FitContext(settings=TrainSettings(batch_size=8)))
    return _mean_loss(model, model.module, batches, torch.device("cpu"))


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    train, val = train_set(tmp_path), [option_item(number, tmp_path, part="val") for number in range(12)]
    losses: list[float] = []

    def log(step: int, total: int, **values: float) -> None:
        if "val_loss" in values:
            losses.append(values["val_loss"])

    # A learning rate that rises until it wrecks the network: the loss falls, then grows.
    settings = TrainSettings(steps=200, batch_size=8, learning_rate=0.3, eval_every=2, patience=3, augment=False)
    model = TimmFamily().tiny(device="cpu")
    model.fit(train, val, FitContext(settings=settings, log=log))
    assert len(losses) == losses.index(min(losses)) + 4 < 100, "three looks without improvement end it"
    assert losses[-1] > min(losses)
    assert val_loss(model, val) == pytest.approx(min(losses), abs=1e-4)


def test_the_last_batch_of_validation_counts_by_its_size(tmp_path: Path) -> None:
    val = [option_item(number, tmp_path, part="val") for number in range(11)]
    model = TimmFamily().tiny(device="cpu")
    model.fit(train_set(tmp_path), [], FitContext(settings=FAST))
    alone = [val_loss(model, [one]) for one in val]
    assert val_loss(model, val) == pytest.approx(np.mean(alone), abs=1e-4)


def test_a_loss_that_is_no_number_ends_training_in_words(tmp_path: Path) -> None:
    settings = TrainSettings(steps=40, batch_size=8, learning_rate=1e30)
    with pytest.raises(CrossmedError, match=r"loss is not a number at step \d+"):
        TimmFamily().tiny(device="cpu").fit(train_set(tmp_path), [], FitContext(settings=settings))


def test_no_readable_image_is_said(tmp_path: Path) -> None:
    lost = [replace(one, image=ImageRef(str(tmp_path / "gone.png"))) for one in train_set(tmp_path, 4)]
    with pytest.raises(CrossmedError, match="None of the 4 training images"):
        TimmFamily().tiny(device="cpu").fit(lost, [], FitContext(settings=FAST))


# -- smp --------------------------------------------------------------------------------------------------------------


def test_mask_loss_against_the_formulas() -> None:
    logits = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    truth = (torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2)) < 0.3).float()
    p = torch.sigmoid(logits)
    cross_entropy = -(truth * torch.log(p) + (1 - truth) * torch.log(1 - p)).mean()
    dice = 1 - 2 * (p * truth).sum() / (p.sum() + truth.sum())
    assert float(mask_loss(logits, truth)) == pytest.approx(float(cross_entropy + dice), abs=1e-5)


def test_a_unet_learns_masks_and_labels_together(tmp_path: Path) -> None:
    train = [make(number, tmp_path) for number in range(24) for make in (mask_item, option_item)]
    model = SmpFamily().tiny(device="cpu")
    model.fit(train, [], FitContext(settings=TrainSettings(steps=60, batch_size=8, learning_rate=3e-3)))
    answers = {one.item: one for one in model.predict(train)}
    from crossmed_plugins.metrics.mask import ciou

    assert ciou([(one, answers[one.id]) for one in train if one.kind == "mask"]) > 0.7
    labels = [one for one in train if one.kind == "option"]
    assert sum(answers[one.id].option == one.answer for one in labels) > 16


def test_a_unet_that_never_saw_a_mask_says_so(tmp_path: Path) -> None:
    model = SmpFamily().tiny(device="cpu")
    model.fit(train_set(tmp_path), [], FitContext(settings=FAST))
    (answer,) = model.predict([mask_item(0, tmp_path, part="test")])
    assert answer.guess and answer.mask is not None


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        (TimmFamily, "resnet1818", "timm has no model 'resnet1818'. Did you mean 'resnet18'"),
        (TimmFamily, "resnet18.a9_in1k", "no weights 'a9_in1k' of 'resnet18'"),
        (TimmFamily, {"size": "abc"}, "size must be a whole number of at least 16, not 'abc'"),
        (TimmFamily, {"kwargs": 3}, "kwargs must be a table"),
        (TimmFamily, {"pretrained": "False"}, "pretrained must be true or false, not 'False'"),
        (SmpFamily, {"channels": 2}, "channels must be 1 or 3, not 2"),
        (SmpFamily, "unet", "write ARCHITECTURE/ENCODER"),
        (SmpFamily, "unett/resnet18", "no architecture 'unett'. Did you mean 'unet'"),
        (SmpFamily, "unet/resnet81", "no encoder 'resnet81'"),
    ],
)
def test_bad_names_and_options_are_helped(family: type, name: str | dict, message: str) -> None:
    from crossmed_core.types import ModelSpec

    fine = {"name": "unet/resnet18" if family is SmpFamily else "resnet18"}
    options = {"name": name} if isinstance(name, str) else {**fine, **name}
    with pytest.raises(CrossmedError) as caught:
        family().load(ModelSpec("x", "y", options), device="cpu")
    assert message in str(caught.value)


def test_pretrained_weights_that_cannot_be_had_are_one_line(tmp_path: Path) -> None:
    from crossmed_core.types import ModelSpec

    spec = ModelSpec(
        "resnet18", "timm", {"name": "resnet18.a1_in1k", "pretrained": True}, "timm/resnet18.a1_in1k", "0" * 40
    )
    with pytest.raises(CrossmedError, match=r"cannot be had.*--set pretrained=false"):
        TimmFamily().load(spec, device="cpu").fit(train_set(tmp_path, 4), [], FitContext(settings=FAST))


def test_local_weights_are_loaded(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    from crossmed_core.types import ModelSpec

    source = timm.create_model("resnet10t", num_classes=0)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    options = {"name": "resnet10t", "weights": str(tmp_path / "weights.safetensors"), "size": 64}
    model = TimmFamily().load(ModelSpec("x", "timm", options), device="cpu")
    model.prepare(train_set(tmp_path, 4), seed=5)
    name, value = next(iter(source.state_dict().items()))
    assert torch.equal(model.module.backbone.state_dict()[name], value)

"""Checks of a model family, on the miniature that it builds."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from crossmed_core.contracts import FitContext, Model, ModelFamily, SavesWeights, TrainSettings
from crossmed_core.records import ModelRecord
from crossmed_core.testing.items import items_for
from crossmed_core.types import ImageRef, Item, Prediction

SETTINGS = TrainSettings(steps=40, batch_size=8, learning_rate=3e-3, label_smoothing=0.0)


def _tiny(record: ModelRecord) -> Model:
    family: ModelFamily = record.load()()
    assert isinstance(family, ModelFamily), f"{record.name} lacks load or tiny"
    model = family.tiny(device="cpu")
    assert isinstance(model, Model), f"{record.name}: the miniature lacks fit or predict"
    return model


def _fitted(record: ModelRecord, folder: Path, steps: int = 4) -> tuple[Model, list[Item]]:
    model = _tiny(record)
    train = items_for(record.answers, 16, folder)
    model.fit(train, train[:4], FitContext(settings=replace(SETTINGS, steps=steps)))
    return model, items_for(record.answers, 8, folder, part="test")


def _answers(model: Model, items: list[Item]) -> list[Prediction]:
    return list(model.predict(items))


def check_answers_every_item_once(record: ModelRecord, folder: Path) -> None:
    """`predict` yields one sound prediction per item, in order, for each kind of answer that the record declares."""
    model, items = _fitted(record, folder)
    answers = _answers(model, items)
    assert [one.item for one in answers] == [item.id for item in items], (
        f"{record.name}: not one answer per item, in order"
    )
    for item, one in zip(items, answers, strict=True):
        assert one.scored, f"{record.name}: no answer to {item.id}: {one.error}"
        if item.kind == "option":
            assert one.option in range(len(item.options)), f"{record.name}: option {one.option!r} of {item.id}"
        else:
            assert one.mask is not None and item.mask is not None and item.mask.rle is not None
            assert tuple(one.mask.size) == item.mask.rle.size, f"{record.name}: mask of {item.id} has another size"


def check_option_scores_are_probabilities(record: ModelRecord, folder: Path) -> None:
    """Option scores, where given, are one per option, sum to 1, and the chosen option has the highest."""
    model, items = _fitted(record, folder)
    for item, one in zip(items, _answers(model, items), strict=True):
        if item.kind == "option" and one.option_scores is not None and one.option is not None:
            assert len(one.option_scores) == len(item.options), f"{record.name}: not one score per option"
            assert abs(sum(one.option_scores) - 1) < 1e-3, f"{record.name}: scores of {item.id} do not sum to 1"
            assert one.option_scores[one.option] == max(one.option_scores), (
                f"{record.name}: {item.id} chose a lower score"
            )


def check_training_is_deterministic(record: ModelRecord, folder: Path) -> None:
    """Two trainings with one seed on the CPU give equal predictions."""
    (first, items), (second, _) = _fitted(record, folder), _fitted(record, folder)
    assert _answers(first, items) == _answers(second, items), f"{record.name}: same seed, other predictions"


def check_items_are_not_changed(record: ModelRecord, folder: Path) -> None:
    """Fitting and predicting leave the items as they were."""
    train = items_for(record.answers, 8, folder)
    before = copy.deepcopy(train)
    model = _tiny(record)
    model.fit(train, [], FitContext(settings=replace(SETTINGS, steps=2)))
    _answers(model, train)
    assert train == before, f"{record.name}: items were changed"


def check_unreadable_image_is_an_error_of_its_item(record: ModelRecord, folder: Path) -> None:
    """A broken file costs one item, with a reason; the others are answered; training passes it over."""
    model, items = _fitted(record, folder)
    broken_file = folder / "broken.png"
    broken_file.write_bytes(b"not an image")
    broken = replace(items[0], id="broken", image=ImageRef(str(broken_file)))
    answers = _answers(model, [broken, *items[1:]])
    assert answers[0].error or not record.sees_images, f"{record.name}: answered {broken.id} without its image"
    assert all(one.scored for one in answers[1:]), f"{record.name}: one broken file spoilt other answers"
    told: list[str] = []
    context = FitContext(settings=replace(SETTINGS, steps=2), warn=told.append)
    _tiny(record).fit([broken, *items_for(record.answers, 8, folder)], [], context)
    assert any("broken" in message for message in told) or not (record.trains and record.sees_images), (
        f"{record.name}: training did not warn of the unreadable image"
    )


def check_training_lowers_the_loss(record: ModelRecord, folder: Path) -> None:
    """Training on items that a brightness meter can answer beats an untrained guess on them."""
    model = _tiny(record)
    train = items_for(frozenset({"option"}), 32, folder)
    steps: list[int] = []
    context = FitContext(settings=SETTINGS, log=lambda step, total, **values: steps.append(step))
    model.fit(train, [], context)
    assert steps, f"{record.name}: training reported no step to `context.log`"
    right = sum(one.option == item.answer for item, one in zip(train, _answers(model, train), strict=True))
    assert right > len(train) // 2, f"{record.name}: {right} of {len(train)} of its own training items right"


check_training_lowers_the_loss.applies = lambda record: (  # type: ignore[attr-defined]
    record.trains and record.sees_images and "option" in record.answers
)


def check_restored_model_answers_alike(record: ModelRecord, folder: Path) -> None:
    """A model that saves its weights answers the same after `restore`; the folder holds no pickle."""
    model, items = _fitted(record, folder)
    if not isinstance(model, SavesWeights):
        return
    place = folder / "weights"
    place.mkdir()
    model.save(place)
    pickles = [path.name for path in place.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin")]
    assert not pickles, f"{record.name}: weights are pickled ({', '.join(pickles)}); use safetensors"
    again = _tiny(record)
    assert isinstance(again, SavesWeights)
    again.restore(place)
    assert _answers(model, items) == _answers(again, items), f"{record.name}: other predictions after restore"


def check_options_without_training_are_a_guess(record: ModelRecord, folder: Path) -> None:
    """Labels that training never showed are marked as a guess, not passed off as knowledge."""
    model, items = _fitted(record, folder)
    options = ("never", "seen", "these", "words")
    strange = [replace(i, options=options, answer=0, label="never") for i in items if i.kind == "option"]
    assert all(one.guess for one in _answers(model, strange)), f"{record.name}: guesses are not marked as guesses"


check_options_without_training_are_a_guess.applies = lambda record: (  # type: ignore[attr-defined]
    record.trains and record.sees_images and record.closed_labels and "option" in record.answers
)


def check_withheld_images_and_questions_are_never_opened(record: ModelRecord, folder: Path) -> None:
    """A model that reads text answers an item without its image, and without its question, for the controls."""
    model, items = _fitted(record, folder)
    for item in (one for one in items if one.kind == "option"):
        nowhere = ImageRef(str(folder / "withheld.png"))
        for withheld, question in ((("image",), item.question), (("image", "question"), "")):
            asked = replace(item, withheld=frozenset(withheld), question=question, image=nowhere)
            (answer,) = _answers(model, [asked])
            assert answer.scored, (
                f"{record.name}: no answer to {item.id} without {' and '.join(withheld)}: {answer.error}"
            )


check_withheld_images_and_questions_are_never_opened.applies = lambda record: (  # type: ignore[attr-defined]
    record.reads_text and "option" in record.answers
)


def check_zero_shot_needs_no_training(record: ModelRecord, folder: Path) -> None:
    """A model that declares `zero_shot` answers as it is loaded, before `fit`."""
    items = items_for(record.answers, 8, folder, part="test")
    answers = _answers(_tiny(record), items)
    assert all(one.scored for one in answers), f"{record.name}: declares zero_shot and does not answer before fit"


check_zero_shot_needs_no_training.applies = lambda record: record.zero_shot  # type: ignore[attr-defined]


CHECKS = (
    check_answers_every_item_once,
    check_option_scores_are_probabilities,
    check_training_is_deterministic,
    check_items_are_not_changed,
    check_unreadable_image_is_an_error_of_its_item,
    check_training_lowers_the_loss,
    check_restored_model_answers_alike,
    check_options_without_training_are_a_guess,
    check_withheld_images_and_questions_are_never_opened,
    check_zero_shot_needs_no_training,
)

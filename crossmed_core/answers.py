"""Scores -> a choice, and a model's output -> exactly one sound prediction per item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from operator import index
from typing import get_args

from crossmed_core.contracts import AnswersOrders, Model
from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import decode_mask, read_mask
from crossmed_core.seeding import digest
from crossmed_core.types import RLE, FailureKind, Item, Prediction


def choose(item: Item, scores: Sequence[float], *, seed: int) -> Prediction:
    """Pick the best option. A tie is decided by a coin seeded with the item's id, and marked as a guess.

    Args:
        item: An option item.
        scores: One probability per option.
        seed: Seed of the coin.
    """
    if any(score != score for score in scores):
        return Prediction(item.id, error="the option scores are not numbers (NaN)")
    rounded = tuple(round(float(score), 6) for score in scores)
    tied = [place for place, score in enumerate(rounded) if score == max(rounded)]
    option = min(tied, key=lambda place: digest(seed, "coin", item.id, item.options[place]))
    return Prediction(item.id, option=option, option_scores=rounded, guess=len(tied) > 1)


def answer_block(model: Model, block: Sequence[Item]) -> dict[str, Prediction]:
    """Answer a block; each item gets exactly one sound prediction, or an error that says why there is none.

    If the model fails on the block (one bad item, memory), the items are asked one by one, so that only those that fail
    alone become errors.

    Raises:
        Exception: The model's own, if it fails on every item: then the trial fails, and can be tried again.
    """
    try:
        answers = _by_item(model, block)
    except (Exception, SystemExit) as whole:
        answers, failed = {}, 0
        for item in block:
            try:
                answers |= _by_item(model, [item])
            except (Exception, SystemExit) as error:
                failed += 1
                reason = (f"{type(error).__name__}: {error}".splitlines() or [""])[0][:300]
                answers[item.id] = Prediction(item.id, error=f"the model failed: {reason}")
        if failed == len(block):
            raise whole
    return {item.id: checked(item, answers.get(item.id)) for item in block}


def answer_orders(model: AnswersOrders, groups: Sequence[Sequence[Item]]) -> list[list[Prediction]] | None:
    """Answer items in several orders of their options at once.

    Args:
        model: Can be asked so.
        groups: Each is one item with its options in several orders.

    Returns:
        Per group one sound prediction per order; None if the model failed, and is to be asked order by order.
    """
    try:
        answers = [list(found) for found in model.predict_orders(groups)]
    except (Exception, SystemExit):
        return None
    if [len(found) for found in answers] != [len(group) for group in groups]:
        return None
    return [
        [checked(item, one) for item, one in zip(group, found, strict=True)]
        for group, found in zip(groups, answers, strict=True)
    ]


def _by_item(model: Model, items: Sequence[Item]) -> dict[str, Prediction]:
    wanted = {item.id for item in items}
    answers: dict[str, Prediction] = {}
    for prediction in model.predict(items):
        if not isinstance(prediction, Prediction):
            raise TypeError(f"predict yielded {type(prediction).__name__}, not Prediction")
        if prediction.item in wanted:
            answers[prediction.item] = prediction
    return answers


def checked(item: Item, prediction: Prediction | None) -> Prediction:
    """Turn an answer that cannot be scored into an error that says why, and its numbers into plain ones."""
    if prediction is None:
        return Prediction(item.id, error="the model returned no prediction")
    raw = None if prediction.raw is None else str(prediction.raw)
    if prediction.error is not None:
        failure = prediction.failure if prediction.failure in get_args(FailureKind) else "error"
        return Prediction(item.id, raw=raw, error=str(prediction.error), failure=failure)
    try:
        kind = _option(item, prediction) if item.kind == "option" else _mask(item, prediction)
    except (TypeError, ValueError, UnreadableImageError) as error:
        return Prediction(item.id, raw=raw, error=str(error))
    mass = None if prediction.letter_mass is None else float(prediction.letter_mass)
    return replace(kind, raw=raw, guess=bool(prediction.guess), letter_mass=mass)


def _option(item: Item, prediction: Prediction) -> Prediction:
    try:
        option = index(prediction.option)  # type: ignore[arg-type]  # numpy integers pass, texts and floats do not
    except TypeError:
        raise ValueError(f"option {prediction.option!r} is not the number of an option") from None
    if not 0 <= option < len(item.options):
        raise ValueError(f"option {option} is not one of the {len(item.options)} options")
    if prediction.option_scores is None:
        return Prediction(item.id, option=option)
    scores = tuple(float(score) for score in prediction.option_scores)
    if len(scores) != len(item.options):
        raise ValueError(f"{len(scores)} option scores for {len(item.options)} options")
    if not all(isfinite(score) for score in scores):
        raise ValueError("the option scores are not numbers (NaN or infinite)")
    return Prediction(item.id, option=option, option_scores=scores)


def _mask(item: Item, prediction: Prediction) -> Prediction:
    if prediction.mask is None:
        raise ValueError("the model returned no mask")
    if item.mask is None:
        raise ValueError("the true mask cannot be read")
    height, width = (int(side) for side in prediction.mask.size)
    mask = RLE((height, width), tuple(int(count) for count in prediction.mask.counts))
    found, truth = decode_mask(mask).shape, read_mask(item.mask).shape
    if found != truth:
        raise ValueError(f"the mask has size {found}, the truth {truth}")
    return Prediction(item.id, mask=mask)

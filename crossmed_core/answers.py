"""Scores -> a choice, and a model's output -> exactly one sound prediction per item."""

from __future__ import annotations

from collections.abc import Sequence

from crossmed_core.contracts import Model
from crossmed_core.images import UnreadableImageError, read_mask
from crossmed_core.seeding import digest
from crossmed_core.types import Item, MaskRef, Prediction


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
    tied = [index for index, score in enumerate(rounded) if score == max(rounded)]
    option = min(tied, key=lambda index: digest(seed, "coin", item.id, item.options[index]))
    return Prediction(item.id, option=option, option_scores=rounded, guess=len(tied) > 1)


def answer_block(model: Model, block: Sequence[Item]) -> dict[str, Prediction]:
    """Answer a block; whatever the model does, each item gets exactly one prediction."""
    answers: dict[str, Prediction] = {}
    try:
        for prediction in model.predict(block):
            answers[prediction.item] = prediction
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        for item in block:
            answers.setdefault(item.id, Prediction(item.id, error=f"the model failed: {reason}"))
    return {item.id: checked(item, answers.get(item.id)) for item in block}


def checked(item: Item, prediction: Prediction | None) -> Prediction:
    """Turn an answer that cannot be scored into an error that says why."""
    if prediction is None:
        return Prediction(item.id, error="the model returned no prediction")
    if prediction.error is not None:
        return prediction
    wrong = ""
    if item.kind == "option":
        if prediction.option is None or not 0 <= prediction.option < len(item.options):
            wrong = f"option {prediction.option!r} is not one of the {len(item.options)} options"
        elif prediction.option_scores is not None and any(score != score for score in prediction.option_scores):
            wrong = "the option scores are not numbers (NaN)"
    elif prediction.mask is None:
        wrong = "the model returned no mask"
    elif item.mask is not None and (truth := _truth_size(item.mask)) not in (
        None,
        tuple(prediction.mask.size),
    ):
        wrong = f"the mask has size {prediction.mask.size}, the truth {truth}"
    elif item.mask is not None and _truth_size(item.mask) is None:
        wrong = "the true mask cannot be read"
    return Prediction(item.id, raw=prediction.raw, error=wrong) if wrong else prediction


def _truth_size(mask: MaskRef) -> tuple[int, int] | None:
    if mask.rle is not None:
        return mask.rle.size
    try:
        height, width = read_mask(mask).shape
    except UnreadableImageError:
        return None
    return height, width

"""Asks a trained model and keeps its answers: in blocks, in every cyclic order if wanted, and as controls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from crossmed_core.answers import answer_block, answer_orders
from crossmed_core.contracts import AnswersOrders, Model
from crossmed_core.controls import Asked
from crossmed_core.orders import asked_orders, combined, rotated, row
from crossmed_core.runlog import append_rows, drop_torn_line, prediction_to_json, read_rows, rewrite_rows, writing
from crossmed_core.types import Item, Prediction

BLOCK = 64
"""Test items per call of `predict`, unless the model says how many it wants (an attribute `block`).

A block is predicted whole, so bytes do not depend on where a run was killed.
"""


class Emit(Protocol):
    """Receives what a trial is doing, for bars and lines."""

    def __call__(self, phase: str, done: int, total: int, **values: Any) -> None:
        """Report progress of a phase: "images", "load", "fit", "predict" or "warning" (with `message`)."""


def answered(path: Path) -> set[str]:
    """Return the ids that have an answer in a file of predictions, which may not exist."""
    return {entry["item"] for entry in read_rows(path, ["item"])}


def predict(
    model: Model,
    items: Sequence[Item],
    path: Path,
    emit: Emit,
    *,
    asked: Sequence[Asked] | None = None,
    orders: int = 1,
    singles: Path | None = None,
    seed: int = 0,
) -> None:
    """Append the missing answers to a file, one line per item, in the items' order.

    Args:
        model: Trained or restored.
        items: As they are scored.
        path: The file; what it holds is kept.
        emit: Receives progress.
        asked: The items as a control asks them; None = as they are.
        orders: Cyclic orders of the options in which each item is asked, and over which the answer is made.
        singles: Where the answer to every single order is kept; None = nowhere.
        seed: Seed of the coin that decides ties between orders.
    """
    drop_torn_line(path)
    done = answered(path)
    if singles is not None:
        if not orders_kept(singles, [item for item in items if item.id in done], orders):
            with writing(path):
                path.unlink(missing_ok=True)  # some single answers were lost: all are given again, the same ones
            done = set()
        _forget_others(singles, done)
    emit("predict", len(done), len(items))
    finished = 0
    size = int(getattr(model, "block", BLOCK))
    for start in range(0, len(items), size):
        block = items[start : start + size]
        finished += len(block)
        missing = [item for item in block if item.id not in done]
        if missing:
            questions = list(asked[start : start + size]) if asked is not None else list(block)
            answers = _ask(model, block, questions, orders, singles, {item.id for item in missing}, seed)
            append_rows(path, [prediction_to_json(answers[item.id]) for item in missing])
        emit("predict", finished, len(items))


def _ask(
    model: Model,
    block: Sequence[Item],
    questions: Sequence[Asked],
    orders: int,
    singles: Path | None,
    missing: set[str],
    seed: int,
) -> Mapping[str, Prediction]:
    sound = [question for question in questions if isinstance(question, Item)]
    refused = {
        item.id: Prediction(item.id, error=question, failure="error")
        for item, question in zip(block, questions, strict=True)
        if isinstance(question, str)
    }
    if orders == 1:
        return {**refused, **(answer_block(model, sound) if sound else {})}
    by_order = _in_orders(model, sound, orders)
    rows = [
        row(item, order, by_order[item.id][order])
        for order in range(orders)
        for item in sound
        if item.options and item.id in missing and order in by_order[item.id]
    ]
    if singles is not None:
        append_rows(singles, rows)
    return {
        **refused,
        **{
            item.id: combined(item, by_order[item.id], seed=seed) if item.options else by_order[item.id][0]
            for item in sound
        },
    }


def _in_orders(model: Model, items: Sequence[Item], orders: int) -> dict[str, dict[int, Prediction]]:
    """Ask items in every cyclic order: item id -> order -> answer."""
    wanted = {item.id: asked_orders(item, orders) for item in items}
    if isinstance(model, AnswersOrders) and items:
        groups = [[rotated(item, order) for order in wanted[item.id]] for item in items]
        if (together := answer_orders(model, groups)) is not None:
            return {
                item.id: dict(zip(wanted[item.id], found, strict=True))
                for item, found in zip(items, together, strict=True)
            }
    answers: dict[str, dict[int, Prediction]] = {item.id: {} for item in items}
    for order in range(orders):
        turned = [item for item in items if order in wanted[item.id]]
        if turned:
            found = answer_block(model, [rotated(item, order) for item in turned])
            for item in turned:
                answers[item.id][order] = found[item.id]
    return answers


def orders_kept(path: Path, items: Sequence[Item], orders: int) -> bool:
    """Whether a file of single answers holds one for every order of these items."""
    found = {(entry["item"], entry["order"]) for entry in read_rows(path, ["item", "order"])}
    return all((item.id, order) in found for item in items if item.options for order in asked_orders(item, orders))


def _forget_others(path: Path, known: Iterable[str]) -> None:
    """Drop the single answers of items whose block was not finished: they are asked again."""
    drop_torn_line(path)
    rows, wanted = read_rows(path, ["item"]), set(known)
    kept = [entry for entry in rows if entry["item"] in wanted]
    if len(kept) < len(rows):
        rewrite_rows(path, kept)

"""The files of one trial: test items, answers, and those of the controls, baselines and seen cells beside them.

TRIAL/predictions.jsonl           the answers to the test items
TRIAL/orders.jsonl                with --option-orders: every single answer, one line per item and order
TRIAL/controls/NAME.jsonl         the answers under a control
TRIAL/baselines/NAME.jsonl        the answers of a baseline that learned from the same training items
TRIAL/seen/items.jsonl, predictions.jsonl, card.json   answers to test items of the cells that were trained on
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossmed_core.errors import CrossmedError, ExitCode, UnreadableImageError
from crossmed_core.images import encode_mask, pixel_digest, read_image, read_mask
from crossmed_core.predicting import answered, orders_kept
from crossmed_core.runlog import (
    append_rows,
    item_from_json,
    item_to_json,
    prediction_from_json,
    read_json,
    read_rows,
    writing,
)
from crossmed_core.scoring import Answers, OrderAnswer
from crossmed_core.types import Item, MaskRef

SEEN = "seen"
NOT_INSTALLED = "it is not installed"
"""A reason to pass a baseline over that may have gone by the next time."""
_FOLDERS = {"control": "controls", "baseline": "baselines"}


@dataclass(frozen=True)
class Variant:
    """Answers beside the real ones.

    Attributes:
        kind: "control", "baseline" or "seen".
        name: Of the control or baseline; "" for seen cells.
    """

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind

    def path(self, trial: Path) -> Path:
        """Return where its predictions lie in a trial's folder."""
        if self.kind == SEEN:
            return trial / SEEN / "predictions.jsonl"
        return trial / _FOLDERS[self.kind] / f"{self.name}.jsonl"


def write_items(path: Path, items: Sequence[Item], root: Path, *, seen: bool) -> None:
    """Write test items once, masks inline and digests of seen images with them: scoring needs no other file.

    Args:
        path: The file; left alone if it holds these items.
        items: The items.
        root: Image paths are written relative to it.
        seen: Whether the model looks at the images.
    """
    if [row["id"] for row in read_rows(path, ["id"])] == [item.id for item in items]:
        return
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        partial.unlink(missing_ok=True)
    append_rows(partial, (item_to_json(_self_contained(item, seen=seen), root) for item in items))
    with writing(path):
        partial.replace(path)


def _self_contained(item: Item, *, seen: bool) -> Item:
    """Add the image digest and bring the mask inline. A mask that cannot be read is left out: the item is unscored."""
    if seen and not item.image.sha256 and not item.image.pixels:
        item = replace(item, image=replace(item.image, pixels=_pixels(item)))
    if item.mask is None or item.mask.rle is not None:
        return item
    try:
        return replace(item, mask=MaskRef(rle=encode_mask(read_mask(item.mask))))
    except UnreadableImageError:
        return replace(item, mask=None)


def _pixels(item: Item) -> str | None:
    """Return the digest of an item's pixels; None if they cannot be read, which is reported when its turn comes."""
    try:
        return pixel_digest(read_image(replace(item.image, marks=())))
    except UnreadableImageError:
        return None


def is_complete(
    folder: Path,
    variants: Sequence[Variant] = (),
    passed_over: Mapping[str, str] | None = None,
    *,
    orders: int = 1,
    seen: int = 0,
) -> bool:
    """Whether every test item has its line in every file; files may have been deleted since the trial finished.

    Args:
        folder: The trial's folder.
        variants: What is wanted beside the real answers.
        passed_over: Variants that do not apply -> the reason.
        orders: Cyclic orders whose single answers are wanted.
        seen: Items of seen cells that are wanted; fewer are there if the cells hold no more.
    """
    passed_over = passed_over or {}
    card = folder / "split.json"
    wanted = set(read_json(card, ["test"])["test"]) if card.exists() else set()
    items = {row["id"] for row in read_rows(folder / "items.jsonl", ["id"])}
    if not wanted or items != wanted or not wanted <= answered(folder / "predictions.jsonl"):
        return False
    if orders > 1:
        tested = [item_from_json(row) for row in read_rows(folder / "items.jsonl")]
        if not orders_kept(folder / "orders.jsonl", tested, orders):
            return False
    for variant in variants:
        if passed_over.get(str(variant), NOT_INSTALLED) != NOT_INSTALLED:
            continue
        asked = wanted
        if variant.kind == SEEN:
            card_of_seen = folder / SEEN / "card.json"
            if not card_of_seen.exists() or read_json(card_of_seen, ["asked", "n"])["asked"] != seen:
                return False
            asked = {row["id"] for row in read_rows(folder / SEEN / "items.jsonl", ["id"])}
            if len(asked) != read_json(card_of_seen)["n"]:
                return False
        if not asked or not asked <= answered(variant.path(folder)):
            return False
    return True


def read_trial(folder: Path) -> tuple[dict[str, Any], list[Answers]]:
    """Read a trial's state and answers back, as far as it came: the real ones first, then those beside them.

    Raises:
        CrossmedError: If its files are damaged.
    """
    state = read_json(folder / "trial.json", ["id", "status", "spec"])
    card = folder / "split.json"
    try:
        spec = state["spec"]
        train = read_json(card, ["n"])["n"]["train"] if card.exists() else 0
        who = Answers(
            spec["model"], spec["split"], spec["target"], spec["seed"], [], train, fraction=spec.get("fraction", 1.0)
        )
        items = [item_from_json(row) for row in read_rows(folder / "items.jsonl")]
        found = [_answers(who, items, folder / "predictions.jsonl")]
        found[0] = replace(found[0], orders=_orders(folder / "orders.jsonl"))
        for variant in _variants(folder):
            asked = items
            if variant.kind == SEEN:
                asked = [item_from_json(row) for row in read_rows(folder / SEEN / "items.jsonl")]
            found.append(_answers(replace(who, variant=str(variant)), asked, variant.path(folder)))
    except (KeyError, TypeError, ValueError) as error:
        raise CrossmedError(
            f"The files of trial {folder} are damaged ({type(error).__name__}: {error}).",
            hint="Delete that folder and run the same command again to make it anew.",
            exit_code=ExitCode.RUN_FOLDER,
        ) from error
    if state["status"] == "finished" and not is_complete(folder):
        raise CrossmedError(
            f"Trial {folder} is finished, but items.jsonl or predictions.jsonl lacks test items of split.json.",
            hint="Run the same command again to make them anew.",
            exit_code=ExitCode.RUN_FOLDER,
        )
    return state, found


def _variants(folder: Path) -> list[Variant]:
    found = [
        Variant(kind, path.stem)
        for kind, name in _FOLDERS.items()
        for path in sorted((folder / name).glob("*.jsonl"))
    ]  # fmt: skip
    return [*found, Variant(SEEN)] if (folder / SEEN / "predictions.jsonl").exists() else found


def _answers(who: Answers, items: Sequence[Item], path: Path) -> Answers:
    predictions = {row["item"]: prediction_from_json(row) for row in read_rows(path, ["item"])}
    return replace(who, pairs=[(item, predictions[item.id]) for item in items if item.id in predictions])


def _orders(path: Path) -> dict[str, tuple[OrderAnswer, ...]]:
    found: dict[str, dict[int, OrderAnswer]] = {}
    for row in read_rows(path, ["item", "order"]):
        if "letter" in row:
            found.setdefault(row["item"], {})[row["order"]] = OrderAnswer(row["order"], row["letter"], row["option"])
    return {item: tuple(answers[order] for order in sorted(answers)) for item, answers in found.items()}

"""`crossmed cases`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import click

from crossmed_cli.console import err, out, print_json, print_table
from crossmed_cli.options import json_option, option
from crossmed_core.errors import CrossmedError, ExitCode, UnreadableImageError, unknown
from crossmed_core.run import read_answers
from crossmed_core.runlog import read_json, write_bytes
from crossmed_core.scoring import Answers
from crossmed_core.types import Item, Prediction

Kind = Literal["mask", "region", "option"]

TITLES: dict[Kind, str] = {"mask": "masks", "region": "choices among regions", "option": "choices among labels"}
OVERLAP = ("dice", "iou", "true_px", "predicted_px", "both_px", "empty")
CHOICE = ("label", "chosen", "confidence", "right")
FAILURE = ("guess", "failure", "error")
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "mask": (*OVERLAP, *FAILURE),
    "region": ("chosen", "confidence", "right", "best_iou", *OVERLAP, *FAILURE),
    "option": (*CHOICE, *FAILURE),
}
WHO = ("model", "split", "fraction", "target", "seed")


@dataclass(frozen=True)
class Case:
    """One answered test item of one trial.

    Attributes:
        model: Model name.
        split: What was trained on.
        fraction: Share of the matched training size.
        target: The tested cell.
        seed: Training seed.
        item: Item id.
        patient: Whose image it is.
        kind: "mask"; "region", a choice among candidate regions; "option".
        label: The true option.
        chosen: The chosen option; None if there is no answer.
        confidence: Probability of the chosen option, where the model gives it.
        right: Whether the chosen option is true.
        dice: 2 |P and G| / (|P| + |G|), of the mask or the chosen region; 1 if both are empty, 0 if one is.
        iou: |P and G| / |P or G|, likewise.
        true_px: |G|, pixels.
        predicted_px: |P|.
        both_px: |P and G|.
        empty: "truth", "prediction", "both" or "".
        best_iou: The highest that one of the candidate regions reaches.
        guess: Whether the model declared a guess.
        failure: "unparsed", "refused" or "error" where there is no answer.
        error: Why.
    """

    model: str
    split: str
    fraction: float
    target: str
    seed: int
    item: str
    patient: str
    kind: Kind
    label: str | None = None
    chosen: str | None = None
    confidence: float | None = None
    right: bool | None = None
    dice: float | None = None
    iou: float | None = None
    true_px: int | None = None
    predicted_px: int | None = None
    both_px: int | None = None
    empty: str = ""
    best_iou: float | None = None
    guess: bool = False
    failure: str | None = None
    error: str | None = None

    @property
    def badness(self) -> tuple[float, float, str, str, str, int]:
        """Sorts the worst first.

        No answer comes before every answer; masks and regions go by Dice; among labels a wrong one given with
        confidence is worse than one without, and a right one given with confidence is best.
        """
        if self.failure is not None:
            rank = (-1.0, 0.0)
        elif self.kind == "option":
            sure = self.confidence or 0.0
            rank = (1.0, sure) if self.right else (0.0, -sure)
        else:
            rank = (self.dice or 0.0, self.iou or 0.0)
        return (*rank, self.item, self.split, self.model, self.seed)


def case_of(answers: Answers, item: Item, prediction: Prediction) -> Case:
    """Describe one answer."""
    kind: Kind = "region" if item.options and item.candidates else item.kind
    who = (answers.model, answers.split, answers.fraction, answers.target, answers.seed)
    case = Case(*who, item.id, item.patient, kind, label=item.label or None, guess=prediction.guess)
    if not prediction.scored:
        return replace(case, failure=prediction.failure or "error", error=prediction.error or "no answer")
    if prediction.option is not None:
        scores = prediction.option_scores
        case = replace(
            case,
            chosen=item.options[prediction.option],
            confidence=scores[prediction.option] if scores else None,
            right=prediction.option == item.answer,
        )
    return case if kind == "option" else _with_overlap(case, item, prediction)


def _with_overlap(case: Case, item: Item, prediction: Prediction) -> Case:
    from crossmed_core.images import decode_mask

    region = regions(item, prediction)[1]
    if item.mask is None or item.mask.rle is None or region is None:
        return replace(case, failure="error", error="the true region was not recorded, as it could not be read")
    try:
        truth, found = decode_mask(item.mask.rle), decode_mask(region)
        if truth.shape != found.shape:
            raise UnreadableImageError(f"the predicted mask is {found.shape}, the true one {truth.shape}")
        best = max((_overlaps(truth, decode_mask(one))[1] for one in item.candidates), default=None)
    except UnreadableImageError as error:
        return replace(case, failure="error", error=str(error))
    dice, iou, both = _overlaps(truth, found)
    true, predicted = int(truth.sum()), int(found.sum())
    empty = {(True, True): "both", (True, False): "truth", (False, True): "prediction"}.get((not true, not predicted))
    return replace(
        case, dice=dice, iou=iou, true_px=true, predicted_px=predicted, both_px=both, empty=empty or "", best_iou=best
    )


def _overlaps(truth: Any, found: Any) -> tuple[float, float, int]:
    """Return Dice, IoU and the pixels that two bool arrays share."""
    both, either = int((truth & found).sum()), int((truth | found).sum())
    return (2 * both / (both + either), both / either, both) if either else (1.0, 1.0, 0)


def regions(item: Item, prediction: Prediction) -> tuple[Any, Any]:
    """Return the true and the predicted region of an item as run lengths; None where there is none."""
    true = item.mask.rle if item.mask else None
    if prediction.mask is not None or prediction.option is None or not item.candidates:
        return true, prediction.mask
    return true, item.candidates[prediction.option]


@click.command("cases")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@option("--target", "-t", help="Only this cell.")
@option("--split", help="Only what was trained on under this split.")
@option("--model", "-m", help="Only this model.")
@option("--seed", type=int, help="Only this training seed.")
@option("--worst", type=click.IntRange(min=0), default=20, show_default=True, help="Cases to show of each kind.")
@option(
    "--csv",
    "table",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write all cases to this CSV file.",
)
@option(
    "--pictures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a PNG of each case shown to this folder: the true region green, the predicted one red.",
)
@json_option
def command(
    folder: Path,
    target: str | None,
    split: str | None,
    model: str | None,
    seed: int | None,
    worst: int,
    table: Path | None,
    pictures: Path | None,
    as_json: bool,
) -> int:
    """Show the single answers of RUN, the worst first, from its files alone.

    \b
    crossmed cases runs/demo --split related --worst 10 --pictures worst
    crossmed cases runs/demo --csv cases.csv
    """  # noqa: D301  (\b is click's mark for lines that it must not wrap)
    if not (folder / "run.json").is_file():
        raise CrossmedError(f"{folder} holds no run (no run.json).", exit_code=ExitCode.RUN_FOLDER)
    answers = [one for one in read_answers(folder)[0] if not one.variant]
    if not answers:
        raise CrossmedError(f"Run {folder} has no answers yet.", exit_code=ExitCode.RUN_FOLDER)
    for kind, wanted in (("target", target), ("split", split), ("model", model), ("seed", seed)):
        answers = _only(answers, kind, wanted)
    pairs = [(case_of(one, *pair), *pair) for one in answers for pair in one.pairs]
    pairs.sort(key=lambda found: found[0].badness)
    shown = [pair for kind in TITLES for pair in [pair for pair in pairs if pair[0].kind == kind][:worst]]
    if table is not None:
        write_bytes(table, _csv([case for case, *_ in pairs]))
    drawn = _draw(shown, folder, pictures) if pictures is not None else {}
    if as_json:
        rows = [{**asdict(case), "picture": drawn.get(number)} for number, (case, *_) in enumerate(shown)]
        print_json({"run": str(folder), "n": len(pairs), "cases": rows})
        return 0
    for kind in TITLES:
        _print([case for case, *_ in shown if case.kind == kind], sum(case.kind == kind for case, *_ in pairs), kind)
    if table is not None:
        out.print(f"Written: {table}, all {len(pairs)} cases", markup=False, soft_wrap=True)
    if pictures is not None:
        out.print(f"Written: {len(drawn)} pictures in {pictures}", markup=False, soft_wrap=True)
    return 0


def _only(answers: list[Answers], kind: str, wanted: str | int | None) -> list[Answers]:
    """Keep the trials with this target, split, model or seed.

    Raises:
        CrossmedError: If there are none.
    """
    if wanted is None:
        return answers
    known = {str(getattr(one, kind)) for one in answers}
    if str(wanted) not in known:
        raise unknown(f"{kind} among the trials", str(wanted), known)
    return [one for one in answers if getattr(one, kind) == wanted]


def _csv(cases: Sequence[Case]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(Case.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(case) for case in cases)
    return text.getvalue().encode()


def _print(cases: Sequence[Case], n: int, kind: Kind) -> None:
    if not cases:
        return
    rows = [asdict(case) for case in cases]
    # What all cases have in common, or none has, needs no column.
    same = {name: rows[0][name] for name in WHO if len({str(row[name]) for row in rows}) == 1}
    names = [name for name in (*WHO, "item", *COLUMNS[kind]) if name not in same]
    names = [name for name in names if name == "right" or any(_says_something(row[name]) for row in rows)]
    about = " · ".join(str(_text(*one)) for one in same.items() if one != ("fraction", 1.0))
    out.print(f"{TITLES[kind]}: the worst {len(cases)} of {n}", style="bold", markup=False)
    out.print(about, style="dim", markup=False, soft_wrap=True)
    numbers = {"confidence", "best_iou", *OVERLAP} - {"empty"}
    heads = [name.replace("_", " ") for name in names]
    print_table(
        heads,
        [[_text(name, row[name]) for name in names] for row in rows],
        right=[head for name, head in zip(names, heads, strict=True) if name in numbers],
    )
    out.print()


def _says_something(value: Any) -> bool:
    return value is not None and value is not False and value != ""  # a Dice of 0.0 does


def _text(name: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "seed":
        return f"seed {value}"
    return f"{value:.3f}" if isinstance(value, float) and name != "fraction" else str(value)


def _draw(shown: Sequence[tuple[Case, Item, Prediction]], folder: Path, pictures: Path) -> dict[int, str]:
    """Draw the cases whose image can still be read; returns place -> file."""
    from crossmed_cli.pictures import save_case

    root = _image_root(folder)
    drawn: dict[int, str] = {}
    lost = ""
    for number, (case, item, prediction) in enumerate(shown):
        # A control character or a slash in an id must not lead elsewhere.
        name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in f"{case.split}-{item.id}")
        path = pictures / f"{number + 1:03d}-{name[:120]}.png"
        answer = case.error or (case.chosen and f"answered: {case.chosen}") or ""
        score = f"Dice {case.dice:.3f}" if case.dice is not None else f"true: {item.label}" if item.label else ""
        try:
            image = replace(item.image, path=str(root / item.image.path))
            save_case(
                replace(item, image=image), regions(item, prediction), [one for one in (score, answer) if one], path
            )
        except UnreadableImageError as error:
            lost = lost or str(error)
        else:
            drawn[number] = str(path)
    if lost:
        err.print(f"warning: {len(shown) - len(drawn)} cases are not drawn: {lost}", style="yellow", soft_wrap=True)
    return drawn


def _image_root(folder: Path) -> Path:
    """Return the folder that image paths in items.jsonl are relative to."""
    from crossmed_core.paths import cache_folder

    benchmark = read_json(folder / "run.json", ["benchmark"])["benchmark"]
    data: str | None = benchmark["data"]
    return Path(data) if data else cache_folder() / "generated" / str(benchmark["dataset"])

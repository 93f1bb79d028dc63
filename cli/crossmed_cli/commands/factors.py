"""`crossmed factors`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from crossmed_cli.console import err, out, print_json, print_table
from crossmed_cli.options import catalog_options, json_option, option
from crossmed_cli.tables import interval, number
from crossmed_core.catalog import Catalog
from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.run import RUN_FIELDS, kinds_of
from crossmed_core.runlog import read_json, trial_folder
from crossmed_core.scoring import Answers, finite, with_probabilities
from crossmed_core.trial_files import read_trial
from crossmed_core.types import AnswerKind

if TYPE_CHECKING:
    from crossmed_core.factors import FactorAnalysis, Observation

COLUMNS = ("effect", "value", "95 % interval", "p", "Holm")
OVERLAP = "factor_overlap"


class _Trial(NamedTuple):
    """A trained trial: its answers, the shares of its training items that share a factor with the target, their ids."""

    answers: Answers
    shares: dict[str, float]
    trained: str


@click.command("factors")
@click.argument("folders", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@option("--metric", help="Metric. [default: the primary one of the kind of answer that most trials have]")
@json_option
@catalog_options
def command(folders: tuple[Path, ...], catalog: Catalog, metric: str | None, as_json: bool) -> int:
    """Say what sharing modality, anatomy and task with the target is worth, over all trained trials of RUN...

    \b
    crossmed run --recipe factors
    crossmed factors runs/factors
    """  # noqa: D301  (\b is click's mark for lines that it must not wrap)
    trials = [trial for folder in dict.fromkeys(one.resolve() for one in folders) for trial in _trained(folder)]
    if not trials:
        names = ", ".join(map(str, folders))
        raise CrossmedError(
            f"No trial of {names} was trained and answered.",
            hint="See 'crossmed run --recipe factors'.",
            exit_code=ExitCode.RUN_FOLDER,
        )
    trials = _whole(trials)
    name = metric or _metric(catalog, trials)
    by_model = _observations(catalog, trials, name)
    found = {model: _analyse(model, rows) for model, rows in by_model.items()}
    if as_json:
        print_json({"metric": name, "models": {model: _plain(one) for model, one in found.items()}})
    else:
        for number_, (model, one) in enumerate(found.items()):
            if number_:
                out.print()
            _print(model, name, one)
    return 0


def _trained(folder: Path) -> list[_Trial]:
    """Read the trials of a run that trained on something.

    Raises:
        CrossmedError: If the folder holds no run, or a file is damaged.
    """
    if not (folder / "run.json").is_file():
        raise CrossmedError(f"{folder} holds no run (no run.json).", exit_code=ExitCode.RUN_FOLDER)
    found = []
    for name in read_json(folder / "run.json", RUN_FIELDS)["trials"]:
        place = trial_folder(folder, name)
        if not (place / "trial.json").exists():
            _warn(f"{folder}: trial {name} is not started")
            continue
        state, answers = read_trial(place)
        if state["status"] != "finished":
            _warn(f"{folder}: trial {name} is {state['status']} and is left out")
            continue
        card = read_json(place / "split.json", ["train"])
        shares = card.get(OVERLAP)
        if shares is None:
            raise CrossmedError(
                f"{place / 'split.json'} does not say which factors were shared; an older version wrote it.",
                hint="Run it again into another folder.",
                exit_code=ExitCode.RUN_FOLDER,
            )
        if all(share is not None for share in shares.values()):
            found.append(_Trial(answers[0], shares, "\n".join(sorted(card["train"]))))
    return found


def _whole(trials: Sequence[_Trial]) -> list[_Trial]:
    """Keep the largest share of the training size: with less, every effect is another."""
    largest = max(one.answers.fraction for one in trials)
    kept = [one for one in trials if one.answers.fraction == largest]
    if len(kept) < len(trials):
        _warn(f"{len(trials) - len(kept)} trials on less than {largest:g} of the training size are left out")
    # Two conditions that train on the same items are one observation, however they are called.
    distinct = {(one.answers.model, one.answers.target, one.answers.seed, one.trained): one for one in reversed(kept)}
    if len(distinct) < len(kept):
        _warn(
            f"{len(kept) - len(distinct)} trials that repeat another one's training items, target and seed are left out"
        )
    return list(reversed(distinct.values()))


def _metric(catalog: Catalog, trials: Iterable[_Trial]) -> str:
    """Return the primary metric of the kind that most trials have.

    Raises:
        CrossmedError: If two kinds are as frequent.
    """
    counts: Counter[AnswerKind] = Counter(kinds_of(one.answers)[0] for one in trials)
    names = {kind: next(iter(catalog.metrics_for(kind, primary=True)), "") for kind in counts}
    ranked = counts.most_common()
    if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
        raise CrossmedError(
            "As many trials are answered by options as by masks, and their scores cannot be mixed.",
            hint=f"Choose with --metric, e.g. {' or '.join(sorted(names.values()))}.",
        )
    return names[ranked[0][0]]


def _observations(catalog: Catalog, trials: Sequence[_Trial], name: str) -> dict[str, list[Observation]]:
    """Score each trial with the metric; those that it does not fit are left out. Model -> observations.

    Raises:
        CrossmedError: For an unknown metric, or one that fits none.
    """
    from crossmed_core.factors import Observation

    record, metric = catalog.metric(name)
    by_model: dict[str, list[Observation]] = {}
    other = unscored = 0
    for answers, shares, _ in trials:
        if record.answers not in kinds_of(answers):
            other += 1
            continue
        pairs = (with_probabilities(answers) if record.needs_scores else answers).scored()
        value = finite(metric(pairs)) if pairs else None
        if value is None:
            unscored += 1
            continue
        row = Observation(answers.target, answers.seed, answers.split, **shares, value=value)
        by_model.setdefault(answers.model, []).append(row)
    if not by_model:
        raise CrossmedError(f"Metric {name!r} scores {record.answers} items; none of these trials can be scored by it.")
    if other:
        _warn(f"{other} trials are left out: {name} scores {record.answers} items; see --metric")
    if unscored:
        _warn(f"{unscored} trials are left out: {name} is not defined for their answers")
    return by_model


def _analyse(model: str, rows: Sequence[Observation]) -> FactorAnalysis:
    from crossmed_core.factors import analyse

    try:
        return analyse(rows)
    except ValueError as error:
        raise CrossmedError(f"Model {model}: {error}.", hint="See 'crossmed run --recipe factors'.") from error


def _plain(found: FactorAnalysis) -> dict[str, Any]:
    content = asdict(found)
    content["effects"] = [
        {"name": one.name, **{key: _number(value) for key, value in asdict(one).items()}} for one in found.effects
    ]
    return {**content, "r_squared": finite(found.r_squared)}


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value


def _print(model: str, metric: str, found: FactorAnalysis) -> None:
    title = f"{model} · {metric} · {found.observations} trials · {found.targets} target{'s' * (found.targets > 1)}"
    out.print(title, style="bold cyan", markup=False, soft_wrap=True)
    rows = []
    for one in found.effects:
        low, high = finite(one.low), finite(one.high)
        values = [one.name, number(one.value, sign=True), interval(low, high, sign=True)]
        rows.append([*values, _probability(one.p), _probability(one.p_holm)])
    print_table(COLUMNS, rows, right=COLUMNS[1:])
    for name, why in found.left_out.items():
        out.print(f"Cannot be told: {name}: {why}.", style="yellow", markup=False, soft_wrap=True)
    explained = finite(found.r_squared)
    notes = [
        "" if explained is None else f"The effects explain {explained:.0%} of the variance within targets.",
        f"Standard errors: {found.errors}.",
        "Main effect: sharing the factor minus not sharing it, averaged over the other two. Holm: over the effects.",
    ]
    for note in filter(None, notes):
        out.print(note, style="dim", markup=False, soft_wrap=True)


def _probability(value: float | None) -> str:
    known = finite(value)
    return "–" if known is None else "<.001" if known < 0.001 else f"{known:.3f}"


def _warn(message: str) -> None:
    err.print(f"warning: {message}", style="yellow", soft_wrap=True)

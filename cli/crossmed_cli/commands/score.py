"""`crossmed score`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from crossmed_cli import score_tables
from crossmed_cli.console import err, print_json
from crossmed_cli.options import catalog_options, compared, json_option, many, option
from crossmed_core.catalog import Catalog
from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.run import RUN_FIELDS, read_answers, score_run, write_scores
from crossmed_core.runlog import locked, read_json


@click.command("score")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@option(
    "--metric",
    multiple=True,
    help="Metric to show. Repeat or separate by commas. [default: the primary ones]",
)
@option(
    "--compare",
    multiple=True,
    metavar="A:B",
    help="Gap between two splits to report. [default: the run's own]",
)
@option(
    "--save/--no-save",
    default=True,
    show_default=True,
    help="Write scores.jsonl anew (only without --metric and --compare).",
)
@json_option
@catalog_options
def command(
    folder: Path,
    catalog: Catalog,
    metric: tuple[str, ...],
    compare: tuple[str, ...],
    save: bool,
    as_json: bool,
) -> int:
    """Score RUN again from its items and predictions, without models, images or torch.

    \b
    crossmed score runs/demo
    crossmed score runs/demo --metric macro-f1,dice --compare related:unrelated
    """  # noqa: D301  (\b is click's mark for lines that it must not wrap)
    if not (folder / "run.json").is_file():
        raise CrossmedError(f"{folder} holds no run (no run.json).", exit_code=ExitCode.RUN_FOLDER)
    run = read_json(folder / "run.json", RUN_FIELDS)
    splits = list(run["splits"])
    pairs = compared(compare, splits) or [tuple(pair) for pair in run["compare"]]
    names = many(metric)
    answers, states = read_answers(folder)
    scores, gaps = score_run(answers, catalog, pairs, names, warn=_warn)
    for state in states:
        for variant, reason in state.get("failed_beside", {}).items():
            _warn(f"trial {state['id']}: {variant} has no score: {reason}")
        if state["status"] != "finished":
            seen = f"{state['answered']} items answered so far" if state.get("answered") else "nothing answered"
            _warn(f"trial {state['id']} is {state['status']}: {seen}")
    if as_json:
        scored = {"scores": [asdict(one) for one in scores], "gaps": [asdict(one) for one in gaps]}
        print_json({"run": str(folder), "status": run["status"], "synthetic": run["benchmark"]["synthetic"], **scored})
    else:
        score_tables.print_scores(run, scores, gaps, catalog, metrics=names)
    if save and not names and not compare:
        try:
            with locked(folder):
                write_scores(folder, scores, gaps)
        except CrossmedError as error:  # a run that goes on, or a read-only archive: the scores are shown all the same
            _warn(f"scores.jsonl is left as it was: {error.message}")
    return ExitCode.OK if all(state["status"] == "finished" for state in states) else ExitCode.TRIALS_FAILED


def _warn(message: str) -> None:
    err.print(f"warning: {message}", style="yellow", soft_wrap=True)

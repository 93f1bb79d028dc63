"""`crossmed bound`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.text import Text

from crossmed_cli.console import out, print_json, print_table
from crossmed_cli.options import FiniteRange, json_option, option
from crossmed_cli.tables import number
from crossmed_core.bound import DELTA, BoundCheck, check_bounds, share_held
from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.run import read_answers

COLUMNS = (
    *("model", "trained on", "target", "seed", "loss on seen cells", "patients", "epsilon", "bound", "target risk"),
    "held",
)
ASSUMPTION = (
    "Hoeffding's bound on the risk over the training cells, for patients that the model never saw and nothing was "
    "chosen by. It speaks of the target only if the factor that was never seen together with the other two costs "
    "nothing: held says whether it did."
)


@click.command("bound")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@option(
    "--delta",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=DELTA,
    show_default=True,
    help="The chance that the risk on the seen cells lies above the bound, at most.",
)
@json_option
def command(folder: Path, delta: float, as_json: bool) -> int:
    """Hold the two-factor bound of each trial of RUN against its target; needs a run with --seen N.

    \b
    crossmed run --model cnn-tiny --seen 512 --out runs/bound
    crossmed bound runs/bound
    """  # noqa: D301  (\b is click's mark for lines that it must not wrap)
    if not (folder / "run.json").is_file():
        raise CrossmedError(f"{folder} holds no run (no run.json).", exit_code=ExitCode.RUN_FOLDER)
    checks = check_bounds(read_answers(folder)[0], delta)
    if not checks:
        raise CrossmedError(
            f"Run {folder} was not asked about the cells it trained on.",
            hint="Give the same 'crossmed run' command again with --seen 512; nothing is trained anew.",
            exit_code=ExitCode.RUN_FOLDER,
        )
    shares = {
        split: dict(zip(("held", "trials", "low", "high"), share_held(mine), strict=True))
        for split in dict.fromkeys(check.split for check in checks)
        if (mine := [check for check in checks if check.split == split])
    }
    if as_json:
        print_json({"run": str(folder), "delta": delta, "checks": [asdict(one) for one in checks], "shares": shares})
        return 0
    print_table(COLUMNS, [_row(one) for one in checks], right=COLUMNS[3:9])
    out.print()
    for split, share in shares.items():
        held, n = share["held"], share["trials"]
        between = f"[{share['low']:.0%}, {share['high']:.0%}]"
        out.print(f"{split}: held in {held} of {n} trials, {held / n:.0%} {between}.", markup=False)
    out.print(ASSUMPTION, style="dim", markup=False, soft_wrap=True)
    for note in _notes(checks, delta):
        out.print(note, style="dim", markup=False, soft_wrap=True)
    return 0


def _row(one: BoundCheck) -> list[object]:
    split = one.split if one.fraction == 1 else f"{one.split} ({one.fraction:.4g} of it)"
    values = [one.model, split, one.target, one.seed, number(one.bound.empirical), one.bound.n]
    values += [number(one.bound.epsilon), number(one.bound.value), number(one.risk)]
    return [*values, Text("yes", style="green") if one.held else Text("no", style="yellow")]


def _notes(checks: Sequence[BoundCheck], delta: float) -> list[str]:
    notes = [
        f"Delta {delta:g}. Loss: 1 for a wrong option, 1 − IoU for a mask, 1 without an answer; mean over patients. "
        "The interval takes trials to be independent; those of one study share test patients."
    ]
    if any(one.bound.value >= 1 for one in checks):
        notes.append("A bound of 1 or more says nothing: too few patients, or too great a loss.")
    return notes

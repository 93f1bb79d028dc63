"""The tables that `run` and `score` end in: scores, gaps, controls, option orders, and the notes to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from crossmed_cli.console import out, print_table
from crossmed_cli.tables import interval, number
from crossmed_core.catalog import Catalog
from crossmed_core.gaps import Gap
from crossmed_core.letter_mass import LETTER_MASS, LOW
from crossmed_core.order_scores import FLIP_RATE, LETTER_BIAS, ORDER_METRICS
from crossmed_core.run import OWN_METRICS
from crossmed_core.runner import TrialResult
from crossmed_core.types import Score

GAP_COLUMNS = ("gap", "difference", "95 % interval", "n", "share lost", "p", "detectable", "")
CONTROL_COLUMNS = ("trained on", "control", "value", "95 % interval", "n", "chance", "lost", "95 % interval", "p", "")
ORDER_COLUMNS = ("trained on", "items", "flip rate", "95 % interval", "letter bias", "letters chosen")
SEEN_COLUMNS = ("trained on", "value on seen cells", "95 % interval", "n", "chance")
BASELINES = "baseline:"
ALPHA = 0.05
CONTROLS = "control:"


def print_scores(
    run: Mapping[str, Any],
    scores: Sequence[Score],
    gaps: Sequence[Gap],
    catalog: Catalog,
    results: Sequence[TrialResult] = (),
    metrics: Sequence[str] = (),
) -> None:
    """Print the end table, the gaps, and what a reader must know of them.

    Args:
        run: Content of run.json.
        scores: All scores; the primary metric of each kind is shown unless `metrics` are named.
        gaps: All gaps.
        catalog: Knows which metrics are primary.
        results: How trials ended, to name those that failed.
        metrics: Names to show instead.
    """
    records = catalog.plugins.records("metric")
    shown = set(metrics) or {name for name, claim in records.items() if claim.record.primary}
    rows = [one for one in scores if one.metric in shown and one.metric not in OWN_METRICS]
    for target, model, metric in dict.fromkeys((one.target, one.model, one.metric) for one in rows):
        key = (target, model, metric)
        group = [one for one in rows if (one.target, one.model, one.metric) == key]
        found = [one for one in gaps if (one.target, one.model, one.metric) == key]
        seeds = sorted({seed for one in group for seed in one.seeds})
        said = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        out.print()
        out.print(f"{target} · {model} · {metric} · {said}", style="bold cyan", markup=False, soft_wrap=True)
        _print_values(group)
        _print_gaps([one for one in found if not one.variant])
        _print_controls(group, found)
        _print_seen(group)
    wanted = {name for name in ORDER_METRICS if not metrics or name in metrics}
    _print_orders([one for one in scores if one.metric in wanted])
    if not metrics or LETTER_MASS in metrics:
        _print_masses([one for one in scores if one.metric == LETTER_MASS and not one.variant])
    _print_notes(run, rows, gaps, results)


def _label(one: Score | Gap, split: str = "") -> str:
    name = split or (one.split if isinstance(one, Score) else one.first)
    return name if one.fraction == 1 else f"{name} ({one.fraction:.4g} of it)"


def _print_values(group: Sequence[Score]) -> None:
    """Print the answers themselves, the baselines beside them."""
    real = [one for one in group if not one.variant]
    beside = {
        (one.split, one.fraction, one.variant.removeprefix(BASELINES)): one
        for one in group
        if one.variant.startswith(BASELINES)
    }
    baselines = list(dict.fromkeys(name for _, _, name in beside))
    bounded = any(one.best is not None for one in real)
    unscored = any(one.worst is not None for one in real)
    columns = ["trained on", "items", "value", "95 % interval", "n", "chance", *(["best"] if bounded else [])]
    columns += [*baselines, "unscored", *(["worst, best case"] if unscored else []), "guessed"]
    table = []
    for one in real:
        values: list[Any] = [_label(one), one.train, number(one.value), interval(one.low, one.high), one.n]
        values += [number(one.chance), *([number(one.best)] if bounded else [])]
        for name in baselines:
            other = beside.get((one.split, one.fraction, name))
            lit = other is not None and _above_chance(other)
            values.append(Text(number(other.value if other else None), style="red" if lit else ""))
        answers = one.n * len(one.seeds)
        values += [one.unscored, *([interval(one.worst, one.optimum)] if unscored else [])]
        table.append(_shaded([*values, f"{one.guessed / answers:.0%}" if answers else "–"], small=one.small))
    print_table(columns, table, right=columns[1:])


def _shaded(values: Sequence[Any], *, small: bool) -> list[Any]:
    """Grey a row of too few patients out."""
    return [Text(str(value), style="dim") for value in values] if small else list(values)


def _print_gaps(found: Sequence[Gap]) -> None:
    if not found:
        return
    out.print()
    table = []
    for one in found:
        away = one.low is not None and one.high is not None and (one.low > 0 or one.high < 0)
        verdict = Text("away from 0" if away else "not away from 0", style="green" if away else "yellow")
        if one.small or one.low is None:
            verdict = Text("too few patients to say", style="dim")
        elif one.guessed:
            verdict.append(f" ({' and '.join(one.guessed)}: all guesses)", style="dim")
        values = [f"{_label(one)} − {one.second}", number(one.value, sign=True), interval(one.low, one.high, sign=True)]
        share = _share(one)
        values += [str(one.n), share, probability(one), number(one.mde)]
        table.append([*_shaded(values, small=one.small), verdict])
    print_table(GAP_COLUMNS, table, right=GAP_COLUMNS[1:7])


def _share(one: Gap) -> str:
    if one.relative is None or one.relative_low is None or one.relative_high is None:
        return "–"
    return f"{one.relative:.0%} [{100 * one.relative_low:.0f}, {100 * one.relative_high:.0f}]"


def probability(one: Gap) -> str:
    """Format the p-value, adjusted by Holm where several targets were compared."""
    value = one.p if one.p_holm is None else one.p_holm
    return "–" if value is None else "<.001" if value < 0.001 else f"{value:.3f}"


def _print_controls(group: Sequence[Score], found: Sequence[Gap]) -> None:
    controls = [one for one in group if one.variant.startswith(CONTROLS)]
    if not controls:
        return
    lost = {(one.first, one.fraction, one.variant): one for one in found if one.variant}
    table = []
    for one in controls:
        values: list[Any] = [_label(one), one.variant.removeprefix(CONTROLS), number(one.value)]
        values += [interval(one.low, one.high), one.n, number(one.chance)]
        gap = lost.get((one.split, one.fraction, one.variant))
        if gap is None:
            values += ["–", "–", "–"]
        else:
            values += [number(gap.value, sign=True), interval(gap.low, gap.high, sign=True), probability(gap)]
        lit = _above_chance(one)
        table.append([*_shaded(values, small=one.small), Text("above chance", style="red") if lit else ""])
    out.print()
    print_table(CONTROL_COLUMNS, table, right=CONTROL_COLUMNS[2:-1])


def _above_chance(one: Score) -> bool:
    """Whether a score that ought to be at chance is not, tested over all controls and baselines of the run."""
    return one.p_chance is not None and one.p_chance < ALPHA


def _print_seen(group: Sequence[Score]) -> None:
    seen = [one for one in group if one.variant == "seen"]
    if not seen:
        return
    out.print()
    table = [
        _shaded(
            [_label(one), number(one.value), interval(one.low, one.high), one.n, number(one.chance)], small=one.small
        )
        for one in seen
    ]
    print_table(SEEN_COLUMNS, table, right=SEEN_COLUMNS[1:])


def _print_orders(scores: Sequence[Score]) -> None:
    keys = dict.fromkeys((one.target, one.model, one.split, one.fraction) for one in scores)
    by_key = {(one.target, one.model, one.split, one.fraction, one.metric): one for one in scores}
    for target, model in dict.fromkeys(key[:2] for key in keys):
        out.print()
        out.print(f"{target} · {model} · option orders", style="bold cyan", markup=False, soft_wrap=True)
        table = []
        for key in (key for key in keys if key[:2] == (target, model)):
            flips, bias = by_key.get((*key, FLIP_RATE)), by_key.get((*key, LETTER_BIAS))
            one = flips or bias
            assert one is not None
            values = [_label(one), one.n, number(flips.value if flips else None)]
            values += [interval(flips.low, flips.high) if flips else "–", number(bias.value if bias else None)]
            table.append([*values, bias.detail.removeprefix("letters chosen: ") if bias else "–"])
        print_table(ORDER_COLUMNS, table, right=ORDER_COLUMNS[1:5])


def _print_masses(scores: Sequence[Score]) -> None:
    """Say how much probability the option letters had, where it is low or one asks for it."""
    low = [one for one in scores if one.value is not None and one.value < LOW]
    if not scores:
        return
    out.print()
    values = [one.value for one in scores if one.value is not None]
    spread = number(min(values)) if len(values) == 1 else f"{number(min(values))} to {number(max(values))}"
    out.print(f"Letter mass: the option letters had {spread} of the probability.", markup=False, soft_wrap=True)
    for one in low:
        out.print(
            f"{one.model}, {_label(one)}, {one.target}: only {number(one.value)}. The model was about to say something "
            "else; look at its prompt, or ask it with --set scoring=generate.",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )


def _print_notes(
    run: Mapping[str, Any], rows: Sequence[Score], gaps: Sequence[Gap], results: Sequence[TrialResult]
) -> None:
    notes = []
    if run["benchmark"]["synthetic"]:
        notes.append("Synthetic phantom: this shows the pipeline at work and says nothing about hospital images.")
    notes += [f"{remark}." for remark in run.get("remarks", ())]
    if rows and all(len(one.seeds) == 1 for one in rows):
        notes.append(
            "One training seed: intervals cover the choice of test items, not of training runs; try --seeds 5."
        )
    if any(len(one.seeds) > 1 for one in rows):
        notes.append("Several training seeds: values are means, intervals cover test items and training runs.")
    if gaps:
        notes.append(
            "Share lost: the gap as a share of what the first scores above chance. Detectable: the smallest difference "
            "found with 80 % power. p: of no difference" + (
                ", adjusted by Holm over the targets." if any(one.p_holm != one.p for one in gaps) else "."
            )
        )  # fmt: skip
    if any(one.guessed for one in rows):
        notes.append(
            "Guessed: the model had no ground to choose (labels or masks never trained on, a tie); a seeded coin did."
        )
    if any(one.unscored for one in rows):
        notes.append(_failures(rows))
    above = sorted({one.variant.partition(":")[2] for one in rows if _above_chance(one)})
    if above:
        notes.append(
            f"Above chance without what a sound answer needs: {', '.join(above)}. Part of the score can be had without "
            "looking at the image, or at this one (tested against chance, Holm over all controls and baselines)."
        )
    if any(one.small for one in rows):
        notes.append("Grey: too few patients were tested; such cells are not ranked.")
    if any(one.best is not None for one in rows):
        notes.append(
            "Regions: a model that only chooses is shown four; chance: a random choice among them, best: the best one."
        )
    if any(one.metric == "ciou" and one.best is None for one in rows):
        notes.append("Chance for masks: the better score of marking every pixel and of marking none.")
    informed = sorted({(one.target, one.informed) for one in rows if one.informed is not None})
    for target, value in informed:
        notes.append(
            f"{target}: some options are never true in this cell; who knows its labels guesses {number(value)}, "
            "who does not, chance."
        )
    failed = [one for one in results if one.status != "finished"]
    notes += [f"Failed: {one.spec.id}: {one.message}" for one in failed]
    if notes:
        out.print()
    for note in notes:
        out.print(note, style="dim" if not note.startswith("Failed") else "red", soft_wrap=True, markup=False)


def _failures(rows: Sequence[Score]) -> str:
    total, unparsed, refused = (
        sum(getattr(one, name) for one in rows if not one.variant) for name in ("unscored", "unparsed", "refused")
    )
    return (
        f"Unscored: {total} answers ({unparsed} named no option, {refused} refused, {total - unparsed - refused} "
        "failed; see 'error' in predictions.jsonl); left out of value and n. Worst and best case: had they all been "
        "wrong, or right."
    )

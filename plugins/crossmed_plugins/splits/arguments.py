"""The rules that are written after a colon: direction, held-out and sharing."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from crossmed_core.errors import CrossmedError, suggest
from crossmed_core.splits import ArgumentRule, Rule, Shares
from crossmed_core.types import MAT
from crossmed_core.vocabulary import canonical, canonical_cell
from crossmed_plugins.splits.rules import all_but_target, related_any

_FACTORS = ("modality", "anatomy", "task")
_WILD = "*?["


def _parts(split: str, argument: str) -> list[str]:
    """Take an argument apart at its plus signs.

    Raises:
        CrossmedError: For an empty or repeated part.
    """
    parts = [part.strip() for part in argument.split("+")]
    if not all(parts):
        raise CrossmedError(f"Split '{split}:{argument}': nothing stands beside a '+'.")
    if twice := [part for part in parts if parts.count(part) > 1]:
        raise CrossmedError(f"Split '{split}:{argument}' names {twice[0]!r} twice.")
    return parts


def read_direction(argument: str, *, strict: bool = True) -> Rule:
    """Return the rule "train on these cells" for "CELL+CELL" or "CELL+CELL+CELL".

    Args:
        argument: The source cells.
        strict: Whether to refuse a target of which the sources together do not carry modality, anatomy and task.

    Raises:
        CrossmedError: If it names no two cells. The rule itself raises for a source that is the target or no cell of
            the benchmark, and, if strict, for a factor that no source carries.
    """
    try:
        sources = [canonical_cell(part) for part in _parts("direction", argument)]
    except ValueError as error:
        raise CrossmedError(f"Split 'direction:{argument}': {error}.") from error
    if len(set(sources)) < 2:
        raise CrossmedError(
            f"Split 'direction:{argument}' names one cell; a direction combines two or three.",
            hint="Write direction:CELL+CELL.",
        )

    def rule(target: MAT, cells: Sequence[MAT], share: Shares) -> Iterable[MAT]:
        for source in sources:
            if source == target:
                raise CrossmedError(f"Split 'direction:{argument}' trains on its target {target}.")
            if source not in cells:
                hint = suggest(str(source), map(str, cells))
                raise CrossmedError(f"Split 'direction:{argument}': no items of {source} here.", hint=hint)
        shared = {source: share.factors(source) for source in sources}
        missing = [factor for factor in _FACTORS if not any(factor in one for one in shared.values())]
        if strict and missing:
            has = "; ".join(f"{cell} shares {' and '.join(sorted(one)) or 'nothing'}" for cell, one in shared.items())
            raise CrossmedError(
                f"Split 'direction:{argument}' does not lead to {target}: no source has its {' or '.join(missing)} "
                f"({has}).",
                hint="--split-option strict=false trains on them all the same, and the card says what is missing.",
            )
        return sources

    return rule


def read_held_out(argument: str) -> Rule:
    """Return the rule "train on everything but these and the target" for cells or wildcards joined by "+".

    Raises:
        CrossmedError: If a part is no cell. The rule itself raises for a part that matches no cell, so that a slip of
            the pen does not train on what was to be held out.
    """
    patterns = []
    for part in _parts("held-out", argument):
        pieces = [piece.strip() for piece in part.split("/")]
        if len(pieces) != 3 or not all(pieces):
            raise CrossmedError(
                f"Split 'held-out:{argument}': {part!r} is not modality/anatomy/task.",
                hint="Wildcards are allowed: 'held-out:ct/*/*'.",
            )
        patterns.append(
            "/".join(piece if any(sign in piece for sign in _WILD) else canonical(piece) for piece in pieces)
        )

    def rule(target: MAT, cells: Sequence[MAT], share: Shares) -> Iterable[MAT]:
        out = {target}
        for pattern in patterns:
            found = [cell for cell in cells if fnmatch.fnmatchcase(str(cell), pattern)]
            if not found:
                hint = suggest(pattern, map(str, cells)) or "Cells that the model cannot answer do not count."
                raise CrossmedError(f"Split 'held-out:{argument}': {pattern!r} matches no cell here.", hint=hint)
            out.update(found)
        return [cell for cell in cells if cell not in out]

    return rule


def read_sharing(argument: str) -> Rule:
    """Return the rule "cells that share exactly these factors" for factor names joined by "+", or "none".

    Raises:
        CrossmedError: For an unknown factor.
    """
    wanted = frozenset[str]() if argument.strip() == "none" else frozenset(_parts("sharing", argument))
    for factor in wanted:
        if factor not in _FACTORS:
            hint = suggest(factor, [*_FACTORS, "none"]) or f"Write {', '.join(_FACTORS)}, joined by '+', or none."
            raise CrossmedError(f"Split 'sharing:{argument}': {factor!r} is not a factor.", hint=hint)
    return lambda target, cells, share: [cell for cell in cells if share.factors(cell) == wanted]


direction = ArgumentRule("direction", read_direction, "CELL+CELL", defaults={"strict": True})
held_out = ArgumentRule(
    "held-out",
    read_held_out,
    "CELL+CELL (wildcards allowed)",
    wants="is left beside those held out and",
    instead=(all_but_target,),
)
sharing = ArgumentRule(
    "sharing",
    read_sharing,
    "modality+task",
    wants="shares exactly {argument} with",
    instead=(related_any, all_but_target),
)

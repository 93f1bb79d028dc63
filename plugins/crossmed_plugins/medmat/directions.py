"""Table 3 of Med-MAT: 43 directions (two source subsets, one target), and the recipe that asks for them.

The paper prints coarse names ("Lung State"), not subset numbers; `directions.csv` says which subsets we take them for,
and how sure that is: "baseline" where the printed score without training is that of the subset in Tables 1 and 2 and
the name fits, "name" where the name and the other rows leave one subset, "guess" where more than one would do.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from crossmed_core.types import MAT
from crossmed_plugins.medmat.tables import subsets

TRAIN_SIZE = 6000
"""Two subsets of at most 3,000 (Med-MAT, section 2)."""


class Direction(NamedTuple):
    """One row of Table 3.

    Attributes:
        row: 1 to 43.
        kind: What is fixed; the borders between the kinds are inferred from the order of the rows.
        names: Sources and target as printed.
        sources: The source subsets.
        target: The target subset.
        sources_by: How sure the sources are: "name" or "guess".
        target_by: How sure the target is: "baseline", "name" or "guess".
        printed: Accuracy in percent of LLaVA without training, trained on unrelated subsets, trained on the sources.
        note: Why these subsets, where it is not plain.
    """

    row: int
    kind: str
    names: tuple[str, str, str]
    sources: tuple[int, int]
    target: int
    sources_by: str
    target_by: str
    printed: tuple[int, int, int]
    note: str

    @property
    def cells(self) -> tuple[MAT, MAT]:
        """The source cells."""
        first, second = (subsets()[number].mat for number in self.sources)
        return first, second

    @property
    def split(self) -> str:
        """The split as it is written."""
        return "direction:" + "+".join(map(str, self.cells))


@cache
def directions() -> tuple[Direction, ...]:
    """Return the 43 rows in their order."""
    text = (files(__package__) / "directions.csv").read_text(encoding="utf-8")
    return tuple(
        Direction(
            int(row["row"]),
            row["type"],
            (row["source_1"], row["source_2"], row["target"]),
            (int(row["subset_1"]), int(row["subset_2"])),
            int(row["subset_target"]),
            row["sources_by"],
            row["target_by"],
            (int(row["baseline"]), int(row["baseline_plus"]), int(row["trained"])),
            row["note"],
        )
        for row in csv.DictReader(text.splitlines())
    )


_HEAD = """\
# The 43 directions of Med-MAT (arXiv 2412.20070v2, Table 3). Made by crossmed_plugins.medmat.directions.recipe_text()
# of directions.csv, which says which subsets the coarse names of the paper are taken for and how sure that is.
#
#   crossmed run --recipe medmat-directions --model MODEL --data BENCH      (BENCH: a build of Med-MAT)
#
# There is a block per target, so that its directions share one untrained score (zero-shot, the paper's Baseline) and
# one control of the same size (zero-overlap, its Baseline+). The paper's map from subsets to coarse tasks ("State",
# "Diseases", "Level") is not published, and ours gives each distinct task a name of its own. Hence
# - the task of a target is that of no source by name, and strict = false lets the directions pass: the split card says
#   which factor is missing. What Table 3 calls a fixed or recombined task is here a look-alike;
# - zero-overlap leaves out cells of the same modality, anatomy or distinct task, not those of the same coarse task;
# - a row that comes to the same subsets as an earlier one is named beside it and run once.
about = "Med-MAT's 43 directions, pairs of subsets against unrelated data and no training; name a --model"
dataset = "medmat"
split_options = { strict = false }
compare = [["direction", "zero-overlap"], ["direction", "zero-shot"]]
"""


def recipe_text() -> str:
    """Return the recipe `medmat-directions` as TOML; the shipped file is this text."""
    by_target: dict[int, dict[str, list[Direction]]] = defaultdict(lambda: defaultdict(list))
    for one in directions():
        by_target[one.target][one.split].append(one)
    lines = [_HEAD]
    for target, splits in by_target.items():
        lines += ["[[blocks]]", f'targets = ["{subsets()[target].mat}"]', f"train_size = {TRAIN_SIZE}"]
        lines += ["splits = [", '  "zero-shot",', '  "zero-overlap",']
        for split, rows in splits.items():
            lines += [f"  # {_comment(one)}" for one in rows]
            lines.append(f'  "{split}",')
        lines += ["]", ""]
    return "\n".join(lines)


def _comment(one: Direction) -> str:
    first, second, target = one.names
    sure = f"subsets {one.sources[0]:02} + {one.sources[1]:02} -> {one.target:02}"
    if "guess" in (one.sources_by, one.target_by):
        sure += ", a guess"
    printed = "printed: {} untrained, {} unrelated, {} trained".format(*one.printed)
    return f"row {one.row}, {one.kind}: {first} + {second} -> {target}; {sure}; {printed}"

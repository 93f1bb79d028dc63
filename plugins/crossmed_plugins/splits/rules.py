"""The rules without an argument.

`share(cell)` counts the factors that a cell shares with the target, `share.factors` names them; the target itself
shares 3. With containment another cell may share all three too (xray/chest/classification
and xray/lung/tuberculosis): it is neither related nor unrelated, and only the rules on all data train on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from crossmed_core.splits import CellRule, Rule, Shares
from crossmed_core.types import MAT
from crossmed_core.vocabulary import TaskKind, task_kind


def _related_without(factor: str, target: MAT, cells: Sequence[MAT], share: Shares) -> Iterable[MAT]:
    """Choose the cells that share one or two factors, `factor` not among them."""
    return [cell for cell in cells if 1 <= share(cell) <= 2 and factor not in share.factors(cell)]


def _of_kind(kind: TaskKind, target: MAT, cells: Sequence[MAT], share: Shares) -> Iterable[MAT]:
    """Choose the cells with a task of `kind`, the target never. Detection is a kind of its own."""
    return [cell for cell in cells if task_kind(cell.task) == kind and cell != target]


def _without(factor: str) -> CellRule:
    rule: Rule = partial(_related_without, factor)
    wants = f"shares a factor but not the {factor} with"
    return CellRule(f"without-{factor}", rule, wants=wants, instead=(zero_overlap, related_any))


zero_shot = CellRule("zero-shot", lambda target, cells, share: [], trains=False)
all_data = CellRule("all-data", lambda target, cells, share: cells)
in_domain = CellRule("in-domain", lambda target, cells, share: [cell for cell in cells if cell == target], wants="is")
all_but_target = CellRule(
    "all-but-target",
    lambda target, cells, share: [cell for cell in cells if cell != target],
    wants="of this benchmark is another than",
    instead=(in_domain,),
)
related_any = CellRule(
    "related-any",
    lambda target, cells, share: [cell for cell in cells if 1 <= share(cell) <= 2],
    wants="shares one or two factors with",
    instead=(all_but_target, in_domain),
)
related = CellRule(
    "related",
    lambda target, cells, share: [cell for cell in cells if share(cell) == 2],
    wants="shares exactly two factors with",
    instead=(related_any, all_but_target),
)
unrelated = CellRule(
    "unrelated",
    lambda target, cells, share: [cell for cell in cells if share(cell) <= 1],
    wants="shares at most one factor with",
    instead=(related, in_domain),
)
zero_overlap = CellRule(
    "zero-overlap",
    lambda target, cells, share: [cell for cell in cells if share(cell) == 0],
    wants="shares no factor with",
    instead=(unrelated, related),
)
without_modality, without_anatomy, without_task = (_without(factor) for factor in ("modality", "anatomy", "task"))
classification_only = CellRule(
    "classification-only",
    partial(_of_kind, "classification"),
    wants="has a classification task, besides",
    instead=(all_but_target,),
)
segmentation_only = CellRule(
    "segmentation-only",
    partial(_of_kind, "segmentation"),
    wants="has a segmentation task, besides",
    instead=(all_but_target,),
)

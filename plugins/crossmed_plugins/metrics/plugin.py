"""Registers the metrics."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import MetricRecord

_OPTION = "crossmed_plugins.metrics.option"
_MASK = "crossmed_plugins.metrics.mask"


@hookimpl
def crossmed_metrics() -> Iterator[MetricRecord]:
    """Yield three metrics for options and five for masks."""
    yield MetricRecord(
        name="accuracy",
        summary="Share of items whose true option was chosen",
        target=f"{_OPTION}:accuracy",
        primary=True,
    )
    yield MetricRecord(
        name="balanced-accuracy",
        summary="Mean over true labels of the share answered right",
        target=f"{_OPTION}:balanced_accuracy",
    )
    yield MetricRecord(
        name="macro-f1", summary="Mean over true labels of the F1 of that label", target=f"{_OPTION}:macro_f1"
    )
    yield MetricRecord(
        name="ciou",
        summary="Cumulative intersection over cumulative union (cIoU; not Complete IoU)",
        target=f"{_MASK}:ciou",
        answers="mask",
        primary=True,
    )
    yield MetricRecord(
        name="giou",
        summary="Mean per-image IoU (gIoU of LISA; not Generalized IoU); empty on empty scores 1",
        target=f"{_MASK}:giou",
        answers="mask",
    )
    yield MetricRecord(
        name="giou-nonempty",
        summary="Mean per-image IoU over images with a true region",
        target=f"{_MASK}:giou_nonempty",
        answers="mask",
    )
    yield MetricRecord(
        name="dice",
        summary="Mean per-image Dice; empty on empty scores 1",
        target=f"{_MASK}:dice",
        answers="mask",
    )
    yield MetricRecord(
        name="dice-nonempty",
        summary="Mean per-image Dice over images with a true region",
        target=f"{_MASK}:dice_nonempty",
        answers="mask",
    )

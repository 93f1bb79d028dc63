"""Registers the metrics."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import MetricRecord

_OPTION = "crossmed_plugins.metrics.option"
_CALIBRATION = "crossmed_plugins.metrics.calibration"
_MASK = "crossmed_plugins.metrics.mask"


@hookimpl
def crossmed_metrics() -> Iterator[MetricRecord]:
    """Yield three metrics for options, three for their probabilities and five for masks."""
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
        name="ece",
        summary="Expected calibration error: confidence against share of right answers, in 15 bins",
        target=f"{_CALIBRATION}:ece",
        lower_is_better=True,
        needs_scores=True,
    )
    yield MetricRecord(
        name="brier",
        summary="Brier score: squared error of the probabilities, summed over an item's options (0 to 2)",
        target=f"{_CALIBRATION}:brier",
        high=2.0,
        lower_is_better=True,
        needs_scores=True,
    )
    yield MetricRecord(
        name="accuracy-at-80",
        summary="Accuracy among the 80 % most confident answers",
        target=f"{_CALIBRATION}:accuracy_at_80",
        needs_scores=True,
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

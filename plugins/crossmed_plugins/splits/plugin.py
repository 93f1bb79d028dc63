"""Registers the splits."""

from __future__ import annotations

from collections.abc import Iterator

from crossmed_core import hookimpl
from crossmed_core.records import SplitRecord

_RULES = "crossmed_plugins.splits.rules"
_ARGUMENTS = "crossmed_plugins.splits.arguments"
_CROSSMED = "CrossMed (arXiv 2511.11034)"
_MEDMAT = "Med-MAT (arXiv 2412.20070)"
_CONTAINMENT = (
    "containment",
    "whether lung in chest, T1 in MRI and grade in classification count as shared (true by default)",
)


def _rule(name: str, summary: str, source: str, example: str) -> SplitRecord:
    return SplitRecord(
        name=name,
        summary=summary,
        target=f"{_RULES}:{name.replace('-', '_')}",
        source=source,
        options=(_CONTAINMENT,),
        example=example,
    )


@hookimpl
def crossmed_splits() -> Iterator[SplitRecord]:
    """Yield the conditions of both papers, and three that are written after a colon."""
    yield SplitRecord(
        name="zero-shot",
        summary="Train on nothing: the model is asked as it is loaded",
        target=f"{_RULES}:zero_shot",
        source=f"{_MEDMAT}, Baseline",
        example="Any target: no training cells.",
    )
    yield _rule(
        "in-domain",
        "Train on the target cell itself: the ceiling",
        f"{_MEDMAT}, single-task training",
        "Target mri/brain/classification: trains on mri/brain/classification.",
    )
    yield _rule(
        "related",
        "Train on cells that share exactly two of modality, anatomy and task with the target",
        f"{_CROSSMED}, Theorem 1",
        "Target mri/brain/classification: trains on mri/brain/segmentation, not on xray/chest/classification.",
    )
    yield _rule(
        "related-any",
        "Train on cells that share one or two factors with the target",
        f"{_MEDMAT}, All Related (section 4)",
        "Target mri/brain/classification: trains on mri/brain/segmentation and xray/chest/classification.",
    )
    yield _rule(
        "unrelated",
        "Train on cells that share at most one factor with the target",
        f"{_CROSSMED}; weaker than zero-overlap, which it lists apart",
        "Target mri/brain/classification: trains on xray/chest/classification and xray/chest/segmentation.",
    )
    yield _rule(
        "zero-overlap",
        "Train on cells that share no factor with the target",
        f"{_CROSSMED}; called Unrelated in {_MEDMAT}",
        "Target mri/brain/classification: trains on xray/chest/segmentation.",
    )
    for factor, kept in (
        ("modality", "xray/chest/classification"),
        ("anatomy", "xray/chest/classification"),
        ("task", "mri/brain/segmentation"),
    ):
        yield _rule(
            f"without-{factor}",
            f"Train on cells that share one or two factors with the target, the {factor} not among them",
            f"{_MEDMAT}, w/o {factor} (section 4); {_CROSSMED}",
            f"Target mri/brain/classification: trains on {kept}, of those that share a factor.",
        )
    yield _rule(
        "all-data",
        "Train on every cell, the target's own training part included",
        f"{_CROSSMED}, multi-task upper bound",
        "Any target: trains on all cells.",
    )
    yield _rule(
        "all-but-target",
        "Train on every cell but the target",
        f"{_MEDMAT}, All Data (section 4)",
        "Target mri/brain/classification: trains on all other cells.",
    )
    yield _rule(
        "classification-only",
        "Train on cells that ask for a class (finding, grade, ...), never on the target: cross-task transfer",
        f"{_CROSSMED}, cross-task transfer",
        "Target mri/brain/segmentation: trains on every classification cell, and on no mask or box.",
    )
    yield _rule(
        "segmentation-only",
        "Train on cells that ask for a mask, never on the target: cross-task transfer",
        f"{_CROSSMED}, cross-task transfer, the other way round",
        "Target mri/brain/classification: trains on every segmentation cell; detection is neither.",
    )
    yield SplitRecord(
        name="direction",
        summary="Train on two or three named cells that together carry the target's modality, anatomy and task",
        target=f"{_ARGUMENTS}:direction",
        source=f"{_MEDMAT}, Table 3 (pairs) and Table 10 (triples)",
        argument="the source cells, joined by '+'",
        options=(
            _CONTAINMENT,
            ("strict", "whether a target is refused of which a factor is in no source (true by default)"),
        ),
        example="direction:mri/lung/finding+ct/brain/segmentation trains on these two for mri/brain/finding: "
        "modality and task come from the first, anatomy from the second.",
    )
    yield SplitRecord(
        name="held-out",
        summary="Train on every cell but the named ones and the target",
        target=f"{_ARGUMENTS}:held_out",
        source="the usual leave-out design; no paper of its own",
        argument="cells to hold out beside the target, joined by '+'; wildcards allowed",
        options=(_CONTAINMENT,),
        example="held-out:ct/*/*+xray/chest/segmentation trains neither on CT, nor on that cell, nor on the target.",
    )
    yield SplitRecord(
        name="sharing",
        summary="Train on the cells that share exactly the named factors with the target",
        target=f"{_ARGUMENTS}:sharing",
        source="factor analysis over many targets: one condition per set of factors",
        argument="factors joined by '+' (modality, anatomy, task), or none",
        options=(_CONTAINMENT,),
        example="sharing:modality+task trains for ct/brain/finding on ct/chest/finding and not on ct/brain/grade.",
    )

"""CheXpert's 14 labels: what a cell of the table says, and what that means under an uncertainty policy.

A table has four values: 1 (positive), 0 (mentioned as absent), -1 (uncertain) and blank (not mentioned). What becomes
of -1 and what becomes of a blank are two decisions. Policies and hierarchy: Irvin et al. 2019, arXiv 1901.07031.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from crossmed_core.errors import CrossmedError, suggest

NO_FINDING = "No Finding"
SUPPORT_DEVICES = "Support Devices"

WORDS: Mapping[str, str] = {
    NO_FINDING: "no finding",
    "Enlarged Cardiomediastinum": "enlarged cardiomediastinum",
    "Cardiomegaly": "cardiomegaly",
    "Lung Opacity": "lung opacity",
    "Lung Lesion": "lung lesion",
    "Edema": "edema",
    "Consolidation": "consolidation",
    "Pneumonia": "pneumonia",
    "Atelectasis": "atelectasis",
    "Pneumothorax": "pneumothorax",
    "Pleural Effusion": "pleural effusion",
    "Pleural Other": "other pleural abnormality",
    "Fracture": "fracture",
    SUPPORT_DEVICES: "support devices",
}
"""Column of the table, in the table's order -> the words of an option."""

FINDINGS: tuple[str, ...] = tuple(WORDS)

COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five tasks that the CheXpert competition scores."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "findings": tuple(finding for finding in FINDINGS if finding != SUPPORT_DEVICES),
    "specific": tuple(
        finding
        for finding in FINDINGS
        if finding not in (SUPPORT_DEVICES, "Enlarged Cardiomediastinum", "Lung Opacity")
    ),
    "competition": COMPETITION,
    "all": FINDINGS,
}
"""Option `labels` -> the columns that are asked about."""

PARENT: Mapping[str, str] = {
    "Cardiomegaly": "Enlarged Cardiomediastinum",
    "Edema": "Lung Opacity",
    "Consolidation": "Lung Opacity",
    "Lung Lesion": "Lung Opacity",
    "Atelectasis": "Lung Opacity",
    "Pneumonia": "Consolidation",
}
"""The hierarchy of findings (arXiv 1901.07031, Fig. 1)."""

TREATMENTS = ("ignore", "zeros", "ones")
"""What can become of -1: U-Ignore, U-Zeros, U-Ones."""

PAPER: Mapping[str, str] = {"Atelectasis": "ones", "Edema": "ones"}
"""Policy "paper": the tasks that the paper found U-Ones best for. Its other choices (U-MultiClass, U-SelfTrained) are
ways of training, not labels, so the rest is ignored."""

BLANKS = ("zero", "ignore")
"""What can become of a blank: absent, or unknown."""


def slug(finding: str) -> str:
    """Return a column as it stands in ids ("Pleural Effusion" -> "pleural-effusion")."""
    return finding.lower().replace(" ", "-")


def parse_value(text: str) -> int | None:
    """Read one cell of a label column.

    Returns:
        1, 0, -1, or None for a blank.

    Raises:
        ValueError: For anything else.
    """
    cell = text.strip()
    if not cell or cell.lower() == "nan":
        return None
    try:
        value = float(cell)
    except ValueError:
        value = 2.0
    if value not in (1.0, 0.0, -1.0):
        shown = repr(cell) if len(cell) <= 60 else f"{cell[:60]!r} ..."
        raise ValueError(f"{shown} is none of 1, 0, -1 and blank")
    return int(value)


@lru_cache(maxsize=64)
def parse_uncertain(text: str) -> Mapping[str, str]:
    """Read the option `uncertain`.

    Args:
        text: "ignore", "zeros", "ones" or "paper"; or one treatment per finding, as "edema=ones,cardiomegaly=zeros",
            where findings that are not named are ignored.

    Returns:
        Column -> "ignore", "zeros" or "ones", for all 14 columns.

    Raises:
        CrossmedError: For an unknown policy, finding or treatment.
    """
    if text in TREATMENTS:
        return dict.fromkeys(FINDINGS, text)
    treatments = dict.fromkeys(FINDINGS, "ignore")
    if text == "paper":
        return {**treatments, **PAPER}
    if "=" not in text:
        raise _bad(text, f"Allowed: {', '.join(TREATMENTS)}, paper, or finding=treatment,... {_meant(text)}")
    columns = {slug(finding): finding for finding in FINDINGS}
    for pair in text.split(","):
        name, _, treatment = (part.strip().lower() for part in pair.partition("="))
        name = name.replace(" ", "-").replace("_", "-")
        if name not in columns:
            raise _bad(
                text, f"There is no finding {name!r}. {suggest(name, columns) or 'Known: ' + ', '.join(columns)}"
            )
        if treatment not in TREATMENTS:
            raise _bad(
                text, f"{name} can be {', '.join(TREATMENTS)}, not {treatment!r}. {suggest(treatment, TREATMENTS)}"
            )
        treatments[columns[name]] = treatment
    return treatments


def _meant(text: str) -> str:
    return suggest(text, (*TREATMENTS, "paper"))


def _bad(text: str, hint: str) -> CrossmedError:
    return CrossmedError(f"Dataset 'chexpert': uncertain={text!r} is no uncertainty policy.", hint=hint.strip())


def apply_policy(values: Mapping[str, float | None], uncertain: str, blank: str) -> dict[str, int | None]:
    """Turn the values of a row into labels.

    Args:
        values: Column -> 1, 0, -1 or None (blank); a column that is not there counts as blank.
        uncertain: What becomes of -1, as `parse_uncertain` reads it.
        blank: "zero" or "ignore": whether what a report does not mention is absent or unknown.

    Returns:
        Column -> 1 (true), 0 (false) or None (unknown), for all 14 columns.

    Example:
        >>> labels = apply_policy({"Edema": -1.0, "Fracture": None}, "ones", "ignore")
        >>> labels["Edema"], labels["Fracture"]
        (1, None)
    """
    treatments = parse_uncertain(uncertain)
    of_uncertain = {"ignore": None, "zeros": 0, "ones": 1}
    of_blank = 0 if blank == "zero" else None
    labels: dict[str, int | None] = {}
    for finding in FINDINGS:
        value = values.get(finding)
        if value is None:
            labels[finding] = of_blank
        elif value == -1:
            labels[finding] = of_uncertain[treatments[finding]]
        else:
            labels[finding] = int(value)
    return labels


def above(finding: str) -> list[str]:
    """Return what a finding is a kind of, in the hierarchy, the nearest first.

    Example:
        >>> above("Pneumonia")
        ['Consolidation', 'Lung Opacity']
    """
    found = []
    while finding in PARENT:
        finding = PARENT[finding]
        found.append(finding)
    return found


def below(finding: str) -> list[str]:
    """Return the kinds of a finding, in the hierarchy.

    Example:
        >>> below("Consolidation")
        ['Pneumonia']
    """
    return [other for other in FINDINGS if finding in above(other)]


def possible(values: Mapping[str, float | None], uncertain: str, blank: str) -> frozenset[str]:
    """Return the findings that are or may be true, none of which is a fair wrong answer.

    These are what is true under the policy; what the report calls uncertain, whatever the policy makes of it; all that
    lies above one of those in the hierarchy, whatever its own value: an edema is an opacity, though the table says 0 of
    the opacity beside it; and a blank below one of those: an opacity that is named may be an edema that is not. If
    blanks are unknown, they may all be true, with two exceptions that follow from the meaning of "No Finding": beside
    it every other finding but a support device is absent, and beside another finding it is false.

    Args:
        values: As in `apply_policy`.
        uncertain: As in `apply_policy`.
        blank: As in `apply_policy`.
    """
    labels = apply_policy(values, uncertain, blank)
    stated = {finding for finding in FINDINGS if labels[finding] == 1 or values.get(finding) == -1}
    blanks = {finding for finding in FINDINGS if values.get(finding) is None}
    maybe = set(stated)
    for finding in stated:
        maybe.update(above(finding))
        maybe.update(blanks.intersection(below(finding)))
    if blank == "ignore":
        if labels[NO_FINDING] == 1:
            blanks &= {SUPPORT_DEVICES}
        elif any(labels[finding] == 1 for finding in FINDINGS if finding != SUPPORT_DEVICES):
            blanks -= {NO_FINDING}
        maybe |= blanks
    return frozenset(maybe)

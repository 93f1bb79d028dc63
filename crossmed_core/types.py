"""The nouns of crossmed: frozen values that walk one way, from a raw download to a score. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

AnswerKind = Literal["option", "mask"]
"""How an item is answered: by choosing one of its options, or by outlining a region."""

FailureKind = Literal["unparsed", "refused", "error"]
"""Why there is no answer: words that name no option, a refusal, or anything else that went wrong."""

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class MAT(NamedTuple):
    """A Modality-Anatomy-Task triplet, the cell that a sample belongs to (CrossMed, arXiv 2511.11034).

    Example:
        >>> MAT.parse("xray/chest/segmentation").anatomy
        'chest'
    """

    modality: str
    anatomy: str
    task: str

    def __str__(self) -> str:
        return "/".join(self)

    @classmethod
    def parse(cls, text: str) -> MAT:
        """Read "modality/anatomy/task".

        Raises:
            ValueError: If there are not exactly three non-empty parts.
        """
        parts = [part.strip() for part in text.split("/")]
        if len(parts) != 3 or not all(parts):
            raise ValueError(f"{text!r} is not a cell; write modality/anatomy/task, e.g. xray/chest/segmentation")
        return cls(*parts)


class RLE(NamedTuple):
    """A binary mask as run lengths in COCO's uncompressed form.

    `counts` alternates background and foreground runs, starting with background, over pixels in column-major
    order; it sums to height x width. pycocotools reads `{"size": size, "counts": counts}` with `frPyObjects`.
    """

    size: tuple[int, int]
    counts: tuple[int, ...]


class Rendering(NamedTuple):
    """How raw intensities become the 8 bits that a person or a network sees.

    Attributes:
        method: "window": `low` and `high` are raw values (HU for CT). "percentile": percentiles of the volume's voxels
            above 0. "zscore": standard deviations from the mean of the volume's voxels above 0.
        low: Shown as black; everything below too.
        high: Shown as white; everything above too.
    """

    method: Literal["window", "percentile", "zscore"]
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where an image lies. Pixels are opened by `crossmed_core.images` at the last moment.

    Attributes:
        path: Absolute path of a displayable image, a DICOM file or a NIfTI volume.
        sha256: Hex digest of the file's bytes where known; checked when read.
        pixels: Hex digest of the decoded pixels (`images.pixel_digest`) where known; checked when read.
        axial: Which slice of a volume, counted from the feet; None for a file that holds one image.
        rendering: How the raw values of a volume are shown; DICOM files say it themselves.
        marks: Regions drawn on the image as lettered contours, A first.
        blank: Whether every pixel is replaced by mid grey before the marks are drawn (a control: `controls`).
    """

    path: str
    sha256: str | None = None
    pixels: str | None = None
    axial: int | None = None
    rendering: Rendering | None = None
    marks: tuple[RLE, ...] = ()
    blank: bool = False


@dataclass(frozen=True, slots=True)
class MaskRef:
    """A ground-truth mask: a file or inline run lengths. Exactly one is set.

    Attributes:
        path: An image file (non-zero = foreground) or a NIfTI label volume.
        rle: Run lengths.
        axial: Which slice of a label volume, counted from the feet.
        values: Labels of the volume that are foreground; empty = every label but 0.
    """

    path: str | None = None
    rle: RLE | None = None
    axial: int | None = None
    values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if (self.path is None) == (self.rle is None):
            raise ValueError("a MaskRef holds either a path or run lengths")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image of a raw download, before a question is made of it.

    Attributes:
        id: Unique within the dataset and stable over releases; every seed is derived from it.
        patient: Whose image it is. A patient never stands on both sides of a split. "SOURCE:id" names the same person
            in every dataset that says so (`person`); any other id is the dataset's own.
        mat: The cell.
        image: Where the pixels lie.
        label: The true label, for cells answered by an option.
        mask: The true region, for cells answered by a mask.
        part: The part that the source assigns, or None to have it drawn by patient.
        study: The examination, where the source tells.
        excluded: Labels that are or may be true for this image too; never offered as distractors.
        question: The question, where the source brings its own; else one of the cell's templates is drawn.
        options: The options in their order, where the source brings its own; `label` is one of them.
        priority: Samples of a lower number are chosen first, within a part and label.
        source: What the file alone does not tell and a reader of the benchmark wants to know (view, spacing, grade of
            the label ...), copied into the item's provenance.
    """

    id: str
    patient: str
    mat: MAT
    image: ImageRef
    label: str | None = None
    mask: MaskRef | None = None
    part: Part | None = None
    study: str | None = None
    excluded: tuple[str, ...] = ()
    question: str | None = None
    options: tuple[str, ...] = ()
    priority: int = 0
    source: Mapping[str, str | int | float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or row that yields no sample, with the reason: a row of the report, never an end of the reading.

    Attributes:
        where: The file, or file and row, relative to the root.
        reason: Why, in one line that a person can act on.
    """

    where: str
    reason: str


class Counted(NamedTuple):
    """Something that a reader counted: "images found", "rows labelled", "rows resolved" ... Equal names are summed."""

    what: str
    n: int


Reading = Sample | Skipped | Counted
"""What a dataset yields while it reads a download."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked in one cell.

    Attributes:
        mat: The cell.
        kind: Answered by an option or by a mask.
        templates: The pool of instructions; one is drawn per sample. `{modality}` and `{anatomy}` are filled in.
        labels: All labels of the cell; distractors are drawn from them. Empty for masks, and where every sample brings
            its own options.
        neutral: The same instructions without the words that give modality and anatomy away, place by place.
        outside: Plausible labels that are never true in this cell; they fill up to four options if the build says so.
        target: What is outlined in a segmentation cell, in words that complete "Which of them is ...?".
        neutral_target: The same without the words that give modality and anatomy away.
    """

    mat: MAT
    kind: AnswerKind
    templates: tuple[str, ...]
    labels: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    target: str = ""
    neutral_target: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one image: the unit that is trained on, answered and scored.

    Attributes:
        id: The sample's id.
        question: The instruction, without the options.
        options: Option texts in the order shown (A, B, C, ...); empty for a mask item.
        answer: Index of the true option, or None for a mask item.
        label: The true label; equals `options[answer]` for an option item.
        mask: The true region of a segmentation item.
        candidates: Regions among which a model chooses that outlines nothing itself: one per option where the item is
            asked as a choice. One of them is the true region.
        decoys: How many of the options are never true in this cell: who knows its labels chooses among the others.
        withheld: What a model that reads text is not given (a control: `controls`): "image", "question". Only a model
            whose record says `reads_text` is ever asked such an item.
    """

    id: str
    dataset: str
    mat: MAT
    patient: str
    part: Part
    image: ImageRef
    question: str
    options: tuple[str, ...] = ()
    answer: int | None = None
    label: str = ""
    mask: MaskRef | None = None
    study: str | None = None
    candidates: tuple[RLE, ...] = ()
    decoys: int = 0
    withheld: frozenset[str] = frozenset()

    @property
    def kind(self) -> AnswerKind:
        """How this item is answered. A segmentation item with options is answered by choosing one of its candidates."""
        return "option" if self.options else "mask"

    @property
    def prompt(self) -> str:
        """The question with its lettered options, one per line."""
        lines = [self.question, *(f"{LETTERS[i]}. {text}" for i, text in enumerate(self.options))]
        return "\n".join(lines)


def person(dataset: str, patient: str) -> str:
    """Return who a patient is, over all datasets: two datasets may show images of the same people.

    Example:
        >>> person("chexpert", "patient00002") == person("medmat", "chexpert:patient00002")
        True
    """
    return patient if ":" in patient else f"{dataset}:{patient}"


class ItemKey(NamedTuple):
    """All that a splitter may know of an item: no pixels, no options."""

    id: str
    mat: MAT
    patient: str
    dataset: str
    label: str
    part: Part
    study: str | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """Who trains, who validates, who is tested, for one target cell under one rule.

    Attributes:
        rule: Name of the split.
        target: The cell that is tested.
        seed: Seed of every draw.
        train: Item ids, in a seeded order of which every prefix is even over cells and labels; likewise `val`.
        test: Item ids, in an order of which every prefix is a random sample.
        cells: The training cells.
        note: Why no cell satisfies the rule, and the rule that would work; "" if some do.
        trains: False if the model is asked as it is loaded, without training (zero-shot).
    """

    rule: str
    target: MAT
    seed: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    cells: tuple[MAT, ...]
    note: str = ""
    trains: bool = True


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model said about one item. A failure is a value of its own, never a guess.

    Attributes:
        item: The item's id.
        option: Index of the chosen option; None for masks and failures.
        mask: The predicted region at the image's own size.
        option_scores: One probability per option, in the item's order, where the model has them.
        raw: The model's own words, if it speaks.
        guess: True where the model knows nothing of the options (labels never trained on) and a seeded coin decided.
        error: Why there is no answer; then `option` and `mask` are None.
        failure: The kind of failure; None where `error` is, and taken as "error" where only `error` is set.
        letter_mass: Probability, 0 to 1, that a language model gave to the option letters before it was shared among
            them; little of it means that the model was about to say something else.
    """

    item: str
    option: int | None = None
    mask: RLE | None = None
    option_scores: tuple[float, ...] | None = None
    raw: str | None = None
    guess: bool = False
    error: str | None = None
    failure: FailureKind | None = None
    letter_mass: float | None = None

    @property
    def scored(self) -> bool:
        """Whether there is an answer to score."""
        return self.error is None and (self.option is not None or self.mask is not None)


@dataclass(frozen=True, slots=True)
class Score:
    """One number with all that makes it readable.

    Attributes:
        metric: The metric's name.
        target: The cell that was tested, as text.
        model: Model name.
        split: Split name.
        value: The metric over the scored items; None if there are none.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Scored items (distinct items, not items x seeds).
        patients: Distinct patients among them.
        chance: What knowing nothing scores on the same items.
        best: What the best choice scores, where the choice is bounded (candidate regions); else None.
        informed: What guessing scores for who knows which options are never true in the cell; None if there are none.
        unscored: Items without an answer, over all seeds.
        guessed: Answers that were a declared guess, over all seeds.
        seeds: Seeds that were averaged.
        by_seed: The value for each seed.
        interval: How the interval was made.
        train: Training items of each run; 0 for a model that does not train.
        fraction: Share of the matched training size.
        variant: "" for the answers themselves; "control:NAME", "baseline:NAME" or "seen" for those beside them.
        unparsed: Unscored items whose words named no option, over all seeds.
        refused: Unscored items that the model refused to answer, over all seeds.
        worst: The value if every unscored item had been answered as badly as can be; None if the metric cannot tell.
        optimum: The value if every unscored item had been answered as well as can be; None likewise.
        small: Whether too few patients were scored to rank it (`statistics.too_small`).
        detail: What else a reader wants to know, e.g. how often each letter was chosen.
        p_chance: Of a control or baseline that ought to be at chance: one-sided p-value of its not being above,
            adjusted by Holm over all of them in the run; else None.
    """

    metric: str
    target: str
    model: str
    split: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    patients: int
    chance: float | None
    unscored: int
    guessed: int
    seeds: tuple[int, ...]
    by_seed: tuple[float | None, ...]
    interval: str
    train: int = 0
    best: float | None = None
    informed: float | None = None
    fraction: float = 1.0
    variant: str = ""
    unparsed: int = 0
    refused: int = 0
    worst: float | None = None
    optimum: float | None = None
    small: bool = False
    detail: str = ""
    p_chance: float | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as resolved from the command line and the registry, ready to be loaded.

    Attributes:
        name: As asked for ("resnet50", "timm:convnext_tiny.in12k_ft_in1k").
        family: The plugin record that loads it.
        options: Keyword options of the family, merged from registry and command line.
        hub: Hub id of the weights, if any.
        revision: Pinned commit of the hub id.
        licence: Licence of the weights.
        parameters_m: Parameters in millions, if known.
        gated: Whether the hub asks for an agreement first.
    """

    name: str
    family: str
    options: Mapping[str, object] = field(default_factory=dict)
    hub: str = ""
    revision: str = ""
    licence: str = ""
    parameters_m: float | None = None
    gated: bool = False

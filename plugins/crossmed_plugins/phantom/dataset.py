"""The phantom as a crossmed dataset: 96 cells whose samples exist by name and are drawn when first needed.

It validates the pipeline and the statistics, and lets one study composition under known structure. It
predicts nothing about hospital images: contrasts are exaggerated, the images small, the findings four toys.

Its `leak` option breaks it on purpose, to show that the controls of a run find what they are made to find:

- "text": each label has an instruction of its own, so that the wording gives the answer away (text-only lights up);
- "options": the false options are labels of other tasks, so that the only fitting one is true (options-only lights up);
- "image": a bright square in one of four corners tells the label, where no lesion is (accuracy rises, and falls to
  chance with blank or shuffled images; nothing but an occlusion of the corners would tell it from knowledge).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from crossmed_core.errors import CrossmedError, suggest
from crossmed_core.questions import OPTIONS
from crossmed_core.runlog import writing
from crossmed_core.seeding import digest
from crossmed_core.types import MAT, PARTS, ImageRef, MaskRef, Part, Question, Sample
from crossmed_core.vocabulary import words
from crossmed_plugins.phantom.render import (
    ANATOMIES,
    FINDINGS,
    GRADES,
    LOCATIONS,
    MIN_SIZE,
    MODALITIES,
    RENDERER_VERSION,
    TASKS,
    PhantomKey,
    Rendered,
    factors,
    render,
)

LEAKS = ("", "text", "options", "image")

LABELS: Mapping[str, tuple[str, ...]] = {"finding": FINDINGS, "grade": GRADES, "location": LOCATIONS}

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "finding": (
        "Which finding does this {modality} image of the {anatomy} show?",
        "What kind of lesion is seen in this {modality} image of the {anatomy}?",
        "Name the abnormality in this {anatomy} {modality} image.",
        "Looking at the {anatomy} in this {modality} image, which finding is present?",
        "Identify the type of lesion on this {modality} image ({anatomy}).",
        "The {modality} image shows the {anatomy}. What is the finding?",
    ),
    "grade": (
        "How extensive is the abnormality in this {modality} image of the {anatomy}?",
        "Grade the lesion seen in this {anatomy} {modality} image.",
        "What is the severity of the finding in this {modality} image of the {anatomy}?",
        "The {modality} image shows the {anatomy}. Which grade fits the lesion's size?",
        "Rate the extent of the lesion on this {modality} image ({anatomy}).",
        "Looking at the {anatomy} in this {modality} image, how severe is the finding?",
    ),
    "location": (
        "Where in this {modality} image of the {anatomy} does the abnormality lie?",
        "In which quadrant of this {anatomy} {modality} image is the lesion?",
        "Locate the finding in this {modality} image of the {anatomy}.",
        "The {modality} image shows the {anatomy}. Which quadrant holds the lesion?",
        "Which part of this {modality} image ({anatomy}) contains the abnormality?",
        "Looking at the {anatomy} in this {modality} image, in which quadrant is the finding?",
    ),
    "segmentation": (
        "Outline the lesion in this {modality} image of the {anatomy}.",
        "Segment the abnormality in this {anatomy} {modality} image.",
        "Mark all pixels of the lesion in this {modality} image of the {anatomy}.",
        "The {modality} image shows the {anatomy}. Delineate the finding.",
        "Which region of this {modality} image ({anatomy}) is abnormal?",
        "Draw the boundary of the lesion on this {anatomy} {modality} image.",
    ),
}


class Phantom:
    """The synthetic Modality-Anatomy-Task benchmark (`contracts.GeneratedDataset`).

    Args:
        size: Side of the images in pixels, at least 48.
        seed: Names the whole benchmark; another seed gives other patients.
        modalities: Which of the six modalities, comma-separated or as a list; "" = all.
        anatomies: Which of the four anatomies; "" = all.
        tasks: Which of the four tasks; "" = all.
        train: Training samples per cell.
        val: Validation samples per cell.
        test: Test samples per cell.
        leak: "" = honest; "text", "options" or "image" = broken on purpose (see the module). Segmentation cells have no
            label to tell: there "image" tells the quadrant of the lesion, the others change nothing.

    Raises:
        CrossmedError: For an unknown name or a size that is too small.
    """

    def __init__(
        self,
        size: int = 64,
        seed: int = 0,
        modalities: str | Sequence[str] = "",
        anatomies: str | Sequence[str] = "",
        tasks: str | Sequence[str] = "",
        train: int = 1024,
        val: int = 64,
        test: int = 256,
        leak: str = "",
    ) -> None:
        for name, value, least in (
            ("size", size, MIN_SIZE),
            ("train", train, 1),
            ("val", val, 0),
            ("test", test, 1),
        ):
            if not isinstance(value, int) or value < least:
                raise CrossmedError(
                    f"Dataset 'phantom': {name} must be a whole number of at least {least}, not {value!r}."
                )
        if leak not in LEAKS:
            hint = suggest(str(leak), LEAKS[1:]) or f"Known: {', '.join(LEAKS[1:])}; none by default."
            raise CrossmedError(f"Dataset 'phantom' has no leak {leak!r}.", hint=hint)
        self.leak = leak
        self.size = size
        self.seed = seed
        self.modalities = _chosen("modality", modalities, MODALITIES)
        self.anatomies = _chosen("anatomy", anatomies, ANATOMIES)
        self.tasks = _chosen("task", tasks, TASKS)
        self.counts: dict[Part, int] = dict(zip(PARTS, (train, val, test), strict=True))

    def questions(self) -> Mapping[MAT, Question]:
        """Return one question per cell."""
        return {
            MAT(modality, anatomy, task): Question(
                MAT(modality, anatomy, task),
                "mask" if task == "segmentation" else "option",
                TEMPLATES[task],
                LABELS.get(task, ()),
                target="the lesion" if task == "segmentation" else "",
                neutral_target="the abnormal area" if task == "segmentation" else "",
            )
            for modality in self.modalities
            for anatomy in self.anatomies
            for task in self.tasks
        }

    def samples(self, root: Path) -> Iterator[Sample]:
        """Yield all samples; their files appear under `root` with `materialise`."""
        broken = f"-leak-{self.leak}" if self.leak else ""
        marked = broken if self.leak == "image" else ""  # the other leaks show the very images of the honest phantom
        folder = f"{root}/v{RENDERER_VERSION}-{self.size}px-seed{self.seed}{marked}"
        for mat in self.questions():
            masked = mat.task == "segmentation"
            for part, count in self.counts.items():
                stem = f"{folder}/{mat.modality}/{mat.anatomy}/{mat.task}/{part}"
                name = f"phantom{self.seed}{broken}-{mat.modality}-{mat.anatomy}-{mat.task}-{part}"
                for index in range(count):
                    item = f"{name}-{index:05d}"
                    label = None
                    if not masked:
                        label = str(getattr(factors(PhantomKey(*mat, part, index, self.seed)), mat.task))
                    sample = Sample(
                        id=item,
                        patient=item,  # every image is another body
                        mat=mat,
                        image=ImageRef(f"{stem}-{index:05d}.png"),
                        label=label,
                        mask=MaskRef(f"{stem}-{index:05d}-mask.png") if masked else None,
                        part=part,
                    )
                    yield self._leaking(sample) if label else sample

    def _leaking(self, sample: Sample) -> Sample:
        """Give the label of a sample away in its question or options, if that is the leak."""
        mat, label = sample.mat, str(sample.label)
        if self.leak == "text":
            template = TEMPLATES[mat.task][LABELS[mat.task].index(label)]
            return replace(sample, question=template.format(modality=words(mat.modality), anatomy=words(mat.anatomy)))
        if self.leak == "options":
            foreign = [name for task, labels in LABELS.items() if task != mat.task for name in labels]
            foreign.sort(key=lambda name: digest("foreign", sample.id, name))
            shown = [label, *foreign[: OPTIONS - 1]]
            return replace(sample, options=tuple(sorted(shown, key=lambda name: digest("order", sample.id, name))))
        return sample

    def materialise(self, samples: Sequence[Sample]) -> Iterator[str]:
        """Draw the missing files. Files that exist are left alone, whatever they hold."""
        for sample in samples:
            image = Path(sample.image.path)
            mask = Path(sample.mask.path) if sample.mask and sample.mask.path else None
            if not image.exists() or (mask and not mask.exists()):
                part: Part = sample.part or "train"
                key = PhantomKey(*sample.mat, part, int(sample.id.rpartition("-")[2]), self.seed)
                drawn = render(key, size=self.size)
                if self.leak == "image":
                    drawn = _marked(drawn, key)
                with writing(image):
                    image.parent.mkdir(parents=True, exist_ok=True)
                    # The image last: where it exists, its mask does.
                    if mask:
                        _write_png(mask, drawn.mask.astype(np.uint8) * 255)
                    _write_png(image, drawn.image)
            yield sample.id

    def write_fixture(self, root: Path, *, seed: int = 0) -> None:
        """Draw two images of every part of each cell under `root`, as `samples(root)` will look for them."""
        train, val, test = (min(2, count) for count in self.counts.values())
        chosen = (self.modalities, self.anatomies, self.tasks)
        small = Phantom(self.size, seed, *chosen, train=train, val=val, test=test, leak=self.leak)
        for _ in small.materialise(list(small.samples(root))):
            pass


def _chosen(kind: str, wanted: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(wanted, str | list | tuple):
        raise CrossmedError(f"Dataset 'phantom': {kind} names must be text or a list, not {wanted!r}.")
    names = [part.strip() for part in wanted.split(",") if part.strip()] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if not isinstance(name, str):
            raise CrossmedError(f"Dataset 'phantom': {kind} names must be text, not {name!r}.")
        if name not in known:
            hint = suggest(name, known) or f"Known: {', '.join(known)}."
            raise CrossmedError(f"Dataset 'phantom' has no {kind} {name!r}.", hint=hint)
    return tuple(name for name in known if name in names or not names)


def _marked(drawn: Rendered, key: PhantomKey) -> Rendered:
    """Put a white square, an eighth of the side wide, into the corner that stands for the label."""
    shown = factors(key)
    labels = LABELS.get(key.task, LOCATIONS)
    place = labels.index(str(getattr(shown, key.task, shown.location)))
    image = drawn.image.copy()
    side = len(image) // 8
    rows = slice(0, side) if place < 2 else slice(-side, None)
    columns = slice(0, side) if place % 2 == 0 else slice(-side, None)
    image[rows, columns] = 255
    return Rendered(image, drawn.mask)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # two processes may draw the same image
    try:
        partial.write_bytes(buffer.getvalue())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

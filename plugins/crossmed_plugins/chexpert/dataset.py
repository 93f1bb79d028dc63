"""CheXpert as a crossmed dataset: one question per finding that is true of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from crossmed_core.contracts import Check, Layout
from crossmed_core.errors import CrossmedError, ExitCode, suggest
from crossmed_core.parts import drawn_part
from crossmed_core.types import MAT, Counted, ImageRef, Part, Question, Reading, Sample, Skipped
from crossmed_plugins.chexpert import fixture, labels, layouts, published
from crossmed_plugins.chexpert.labels import BLANKS, CHOICES, FINDINGS, WORDS
from crossmed_plugins.chexpert.paths import Images
from crossmed_plugins.chexpert.tables import Row, Tables, Trouble, Values

CELL = MAT("xray", "chest", "classification")

TEMPLATES = (
    "Which of these findings does this {anatomy} {modality} show?",
    "What is the finding on this {modality} of the {anatomy}?",
    "Looking at this {anatomy} {modality}, which option applies?",
    "Read this {modality} of the {anatomy}. Which of the following is present?",
    "Which statement describes this {anatomy} {modality} best?",
    "A radiologist reads this {modality} of the {anatomy}. Which of these is present?",
)
NEUTRAL = (
    "Which of these findings does this image show?",
    "What is the finding on this image?",
    "Looking at this image, which option applies?",
    "Read this image. Which of the following is present?",
    "Which statement describes this image best?",
    "A radiologist reads this image. Which of these is present?",
)


class _Asked(NamedTuple):
    """One question that the labels of a row allow."""

    finding: str
    value: int | None
    excluded: tuple[str, ...]


class CheXpert:
    """CheXpert, CheXpert Plus and CheXlocalize's test set (Irvin et al. 2019, arXiv 1901.07031; 2405.19538).

    Every image gives one sample for each finding that is true of it. The labels of train.csv were read out of reports
    by a program; those of the official valid and test sets are radiologists'. A patient of the official valid or test
    set is always tested, never trained on, and chosen before the training patients that are held out (`priority`).

    Args:
        uncertain: What becomes of the value -1: "ignore" (no sample), "zeros" (absent), "ones" (present), "paper" (ones
            for atelectasis and edema, else ignore), or one of the three per finding ("edema=ones,cardiomegaly=zeros").
        blank: What becomes of a finding that the report does not mention: "zero" (absent, so it may be offered as a
            wrong answer) or "ignore" (unknown, so it is not).
        labels: "findings" (no finding and the 12 findings), "specific" (without lung opacity and enlarged
            cardiomediastinum, which are above others and so seldom fair wrong answers: offered, they are mostly
            true), "competition" (the 5 tasks of the competition) or "all" (with support devices).
        views: "frontal" or "all" (lateral images too).
        test: "held-out" (the official valid and test sets and a tenth of the training patients) or "official" (only
            the former). Another tenth of the training patients validates, the same for both.

    Raises:
        CrossmedError: For a value that is not among these.
    """

    def __init__(
        self,
        uncertain: str = "ignore",
        blank: str = "zero",
        labels: str = "findings",
        views: str = "frontal",
        test: str = "held-out",
    ) -> None:
        self.uncertain = _checked_policy(uncertain)
        self.blank = _one_of("blank", blank, BLANKS)
        self.labels = CHOICES[_one_of("labels", labels, tuple(CHOICES))]
        self.views = _one_of("views", views, ("frontal", "all"))
        self.test = _one_of("test", test, ("held-out", "official"))

    def questions(self) -> Mapping[MAT, Question]:
        """Return the question of the one cell."""
        return {CELL: Question(CELL, "option", TEMPLATES, tuple(WORDS[one] for one in self.labels), NEUTRAL)}

    def locate(self, root: Path) -> Layout:
        """Find the download at `root` or up to three folders below, in any of the five layouts.

        Raises:
            DownloadNotFoundError: If it is not there.
        """
        return layouts.locate(root)

    def samples(self, root: Path) -> Iterator[Reading]:
        """Yield a sample for each image and true finding, by patient, study and view.

        Raises:
            CrossmedError: If `root` holds no CheXpert, no table can be read, or no row has its image.
        """
        layout = self.locate(root)
        known = Tables(layout)
        yield from known.skipped
        if not known.rows:
            why = "; ".join(f"{one.where}: {one.reason}" for one in known.skipped[:3]) or "they hold no rows"
            raise CrossmedError(
                f"{layout.root}: no label of CheXpert could be read ({why}).", exit_code=ExitCode.ENVIRONMENT
            )
        images = Images(layout.root)
        yield from images.unread
        wanted = [row for row in known.rows if self.views == "all" or not row.lateral]
        official = {row.patient for row in known.rows if row.split != "train"}
        missing = Trouble("rows without an image; is a batch missing?")
        questions: dict[Values, tuple[_Asked, ...]] = {}
        seen: set[tuple[str, str]] = set()
        resolved = found = unasked = 0
        patient = ""
        part: Part = "train"
        priority = 0
        for row in wanted:
            if row.patient != patient:
                patient = row.patient
                part = "test" if patient in official else self._drawn(patient)
                priority = int(part == "test" and patient not in official)
                seen.clear()
            files = self._files(row, images)
            if not files:
                yield from missing.add(row.table, row.line, _not_there(row, images), row.patient)
                continue
            resolved += 1
            if row.values not in questions:
                questions[row.values] = tuple(self._ask(row.values))
            asked = questions[row.values]
            for stem, path in files.items():
                if (row.study, stem) in seen:  # a row about the study after one about this image
                    continue
                seen.add((row.study, stem))
                found += 1
                unasked += not asked
                yield from self._samples_of(row, stem, path, part, priority, asked)
        yield from missing.rest()
        yield from _unlabelled(known, images)
        yield Counted("images found", found)
        yield Counted("rows labelled", len(known.rows))
        yield Counted("rows resolved", resolved)
        yield Counted("rows repeated", known.repeated)
        yield Counted("lateral rows left out", len(known.rows) - len(wanted))
        yield Counted("images without a finding to ask for", unasked)
        if wanted and not resolved:
            raise CrossmedError(
                f"None of {len(wanted):,} labelled images of CheXpert was found. Looked for folders of patients in "
                f"{', '.join(str(home.folder) for home in images.homes) or f'{layout.root} and the folders below'}.",
                hint="Unpack the images beside their label tables; 'crossmed datasets chexpert' shows the tree.",
                exit_code=ExitCode.ENVIRONMENT,
            )

    def _files(self, row: Row, images: Images) -> Mapping[str, str]:
        study = images.of_study(row.split, row.patient, row.study)
        if row.stem:
            return {row.stem: study[row.stem]} if row.stem in study else {}
        return {stem: path for stem, path in study.items() if self.views == "all" or not stem.endswith("lateral")}

    def _ask(self, values: Values) -> Iterator[_Asked]:
        raw = dict(zip(FINDINGS, values, strict=True))
        truth = labels.apply_policy(raw, self.uncertain, self.blank)
        maybe = labels.possible(raw, self.uncertain, self.blank)
        for finding in self.labels:
            if truth[finding] == 1:
                barred = tuple(WORDS[other] for other in self.labels if other in maybe and other != finding)
                yield _Asked(finding, raw[finding], barred)

    def _drawn(self, patient: str) -> Part:
        part = drawn_part(patient)
        return "train" if part == "test" and self.test == "official" else part

    def _samples_of(
        self, row: Row, stem: str, path: str, part: Part, priority: int, asked: tuple[_Asked, ...]
    ) -> Iterator[Sample]:
        image = ImageRef(path)
        for finding, value, excluded in asked:
            yield Sample(
                id=f"chexpert-{row.patient}-{row.study}-{stem}-{labels.slug(finding)}",
                patient=row.patient,
                mat=CELL,
                image=image,
                label=WORDS[finding],
                part=part,
                study=f"{row.patient}-{row.study}",
                excluded=excluded,
                priority=priority,
                source={
                    "view": stem.rpartition("_")[2],
                    "projection": row.projection,
                    "sex": row.sex,
                    "age": row.age,
                    "label_source": row.source,
                    "label_table": row.labels,
                    "label_value": value,
                    "uncertain": self.uncertain,
                    "blank": self.blank,
                },
            )

    def write_fixture(self, root: Path, *, seed: int = 0, layout: str = "A") -> None:
        """Write a miniature with synthetic rows and pixels, and the expected answers in manifest.json.

        Args:
            root: An empty folder.
            seed: Another seed gives other pixels and other labels beside the findings of each patient.
            layout: "A" to "E": the same data as another release arranges it. "E" needs pydicom.

        Raises:
            CrossmedError: For an unknown layout.
        """
        fixture.write(Path(root), seed=seed, layout=_one_of("layout", layout, tuple("ABCDE")))

    def verify(self, root: Path) -> Iterator[Check]:
        """Hold the label tables and the folders of patients against the published counts.

        Raises:
            DownloadNotFoundError: If `root` holds no CheXpert.
        """
        layout = self.locate(root)
        yield from published.checks(layout, Tables(layout), Images(layout.root))


def _checked_policy(uncertain: str) -> str:
    if not isinstance(uncertain, str):
        raise CrossmedError(f"Dataset 'chexpert': uncertain must be text, not {uncertain!r}.")
    labels.parse_uncertain(uncertain)
    return uncertain


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        near = suggest(value, allowed) if isinstance(value, str) else ""
        raise CrossmedError(
            f"Dataset 'chexpert': {option} must be one of {', '.join(allowed)}, not {value!r}.", hint=near
        )
    return value


def _not_there(row: Row, images: Images) -> str:
    what = f"{row.split}/{row.patient}/{row.study}/{row.stem or 'view*_frontal'} (.jpg, .png, .dcm)"
    here = any(row.patient in home.patients for home in images.homes)
    return f"{what} is not there, {'though a folder of the patient is' if here else 'nor is any folder of the patient'}"


def _unlabelled(known: Tables, images: Images) -> Iterator[Skipped]:
    labelled = {row.patient for row in known.rows}
    for home in images.homes:
        if without := sorted(home.patients - labelled):
            yield Skipped(
                home.folder.relative_to(images.root).as_posix(),
                f"{len(without):,} patients have no row in any label table ({without[0]} to {without[-1]}); "
                "for the test set, put groundtruth.csv or test_labels.csv beside it",
            )

"""The reader of Med-MAT: the authors' questions over the images that lie there."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crossmed_core.contracts import Check, Layout
from crossmed_core.errors import CrossmedError, ExitCode, UnreadableImageError, suggest
from crossmed_core.files import relative, require_regular
from crossmed_core.parts import drawn_part
from crossmed_core.types import MAT, Counted, ImageRef, Part, Question, Reading, Sample, Skipped
from crossmed_plugins.medmat import tables
from crossmed_plugins.medmat.entry import DISAGREEMENT, Entry, Refused, is_joined, read_entry
from crossmed_plugins.medmat.fixture import write
from crossmed_plugins.medmat.location import FOLDERS, IMAGES, Download, common_folder, find, subset_of
from crossmed_plugins.medmat.report import Refusals
from crossmed_plugins.medmat.wording import WORDING

MISSING, ELSEWHERE, REPEATED = "rows without their image", "rows of another cell", "repeated ids"

_CHEXPERT = 77
# CheXpert's own paths say whose image it is (arXiv:1901.07031, its README): .../patient00002/study1/view1_frontal.jpg
_PATIENT = re.compile(r".*/patient(\d{5})/")
_OFFICIAL = 64_541
"""The first patient of CheXpert's official valid and test sets; those before are of train.csv (64,540)."""


class JsonFile(NamedTuple):
    """One file of questions: the unit of reading.

    Attributes:
        path: The file.
        root: What reports are relative to.
        base: The folder that image paths are resolved against: the parent of `med-mat/`.
        subset: The subset, and so the cell, that its items belong to.
        original: The original dataset, for a file of `Original_Medical_Datasets`; else None.
    """

    path: str
    root: str
    base: str
    subset: int
    original: int | None


class MedMat:
    """Med-MAT (arXiv 2412.20070): 37 released subsets, each a Modality-Anatomy-Task cell with its own questions.

    The authors ship questions, no images: these come from 109 listed image sets and lie under `med-mat/`. Whatever is
    missing is reported per image set, with its address. Every item brings its own two to four options.

    An item's patient is its image path (`source["patient_known"]` is False): Med-MAT names no patients, so nobody can
    promise that two images of one person stay on one side of a split. CheXpert is the exception, where an image's path
    still names the patient: those are the same people as in the dataset chexpert, in the part that it gives by default.

    Args:
        files: "subsets" reads `Aggregated_Subsets/`, "original" reads `Original_Medical_Datasets/`, "auto" the
            subsets where there are any, else the originals. Never both: they hold the same questions.
        subsets: Numbers of the subsets to read, comma-separated or as a list; "" = all 37.

    Raises:
        CrossmedError: For an unknown value.
    """

    def __init__(self, files: str = "auto", subsets: str | int | Sequence[str | int] = "") -> None:
        known = ("auto", *FOLDERS)
        if files not in known:
            hint = suggest(str(files), known) or f"Known: {', '.join(known)}."
            raise CrossmedError(f"Dataset 'medmat': option files must not be {files!r}.", hint=hint)
        self.files = files
        self.subsets = _chosen(subsets)

    def questions(self) -> Mapping[MAT, Question]:
        """Return one question per chosen subset; its options come with each sample."""
        found: dict[MAT, Question] = {}
        for subset in self.subsets.values():
            named, neutral = zip(*WORDING[subset.kind], strict=True)
            found[subset.mat] = Question(subset.mat, "option", named, neutral=neutral)
        return found

    def locate(self, root: Path) -> Layout:
        """Find the question files, by their names, at `root` or a few folders below.

        Returns:
            The form that is read, "subsets" or "original", and the folder that holds both questions and images.

        Raises:
            DownloadNotFoundError: If there are none.
        """
        root = root.absolute()
        download = find(root)
        return Layout(self._form(download), common_folder(download, root))

    def units(self, root: Path) -> Iterator[JsonFile | Skipped]:
        """Yield the files of questions in the order of their numbers.

        Raises:
            DownloadNotFoundError: If there are none.
            CrossmedError: If there are none of the form that was asked for.
        """
        root = root.absolute()
        download = find(root)
        form = self._form(download)
        if form not in download.files:
            there = next(iter(download.files))
            raise CrossmedError(
                f"{download.home} holds no files of {FOLDERS[form]}, only of {FOLDERS[there]}.",
                hint=f"Read those with the option files={there}.",
                exit_code=ExitCode.ENVIRONMENT,
            )
        if download.base is None:
            yield Skipped(
                f"{IMAGES}/",
                f"no such folder at or near {download.home}; Med-MAT ships no images: put each original dataset there",
            )
        for path in download.strangers:
            if path.parent.name == FOLDERS[form]:
                yield Skipped(relative(path, root), "is not named as the release names its files; not read")
        read: dict[int, Path] = {}
        for path, number in download.files[form]:
            subset = subset_of(form, number)
            if isinstance(subset, str):
                yield Skipped(relative(path, root), subset)
            elif number in read:
                yield Skipped(relative(path, root), f"has the number of {relative(read[number], root)}, which is read")
            elif subset in self.subsets:
                read[number] = path
                base = download.base or download.home
                yield JsonFile(str(path), str(root), str(base), subset, number if form == "original" else None)

    def read(self, unit: JsonFile) -> Iterator[Reading]:
        """Read one file: a sample per item that is sound and whose image is there."""
        file = relative(unit.path, Path(unit.root))
        contents = _load(Path(unit.path))
        if isinstance(contents, str):
            yield Skipped(file, contents)
            return
        subset = tables.subsets()[unit.subset]
        refusals, exists = Refusals(file), _looking_below(Path(unit.base))
        seen: set[int] = set()
        images: set[str] = set()
        labelled = resolved = overlapping = 0
        for place, content in enumerate(contents, start=1):
            entry = _checked(read_entry(content, multi_label=subset.multi_label), subset, unit.original, seen)
            if isinstance(entry, Refused):
                yield from refusals.add(place, entry)
                continue
            seen.add(entry.id)
            labelled += 1
            original = tables.originals()[entry.original]
            if not exists(entry.image):
                reason = f"no image {entry.image}; it belongs to {original.name!r}, from {original.link}"
                yield from refusals.add(place, Refused(MISSING, reason, entry.id), original)
                continue
            images.add(entry.image)
            resolved += 1
            overlapping += entry.true_in_distractors > 0
            yield _sample(entry, unit, subset, original)
        yield from refusals.summaries()
        yield Counted("rows found", len(contents))
        yield Counted("rows labelled", labelled)
        yield Counted("rows resolved", resolved)
        yield Counted("images found", len(images))
        yield Counted("rows with a partly true distractor", overlapping)

    def samples(self, root: Path) -> Iterator[Reading]:
        """Yield what all units hold, one file at a time."""
        for unit in self.units(root):
            if isinstance(unit, JsonFile):
                yield from self.read(unit)
            else:
                yield unit

    def write_fixture(self, root: Path, *, seed: int = 0) -> None:
        """Write synthetic questions and images under the release's names, with its traps."""
        write(root, seed=seed)

    def verify(self, root: Path) -> Iterator[Check]:
        """Hold the files, their items and their images against what the paper and the README say.

        Raises:
            DownloadNotFoundError: If `root` does not hold Med-MAT.
            CrossmedError: If it holds no questions of the form that was asked for.
        """
        units = [unit for unit in self.units(root) if isinstance(unit, JsonFile)]
        form = self._form(find(root.absolute()))
        if form == "subsets":
            there, expected = {unit.subset for unit in units}, set(self.subsets)
        else:
            there = {unit.original or 0 for unit in units}
            expected = {one.number for one in tables.originals().values() if one.subset in self.subsets}
        absent = ", ".join(f"{number:02d}" for number in sorted(expected - there))
        yield Check(
            f"files in {FOLDERS[form]}",
            f"{len(there)}" + (f"; without {absent}" if absent else ""),
            f"{len(expected)} (README of Med-MAT)",
            "differs" if absent else "ok",
        )
        for unit in units:
            yield from self._verify_file(unit)

    def _verify_file(self, unit: JsonFile) -> Iterator[Check]:
        name = Path(unit.path).name
        counts: Counter[str] = Counter()
        originals: set[int] = set()
        for one in self.read(unit):
            if isinstance(one, Counted):
                counts[one.what] += one.n
            elif isinstance(one, Sample):
                originals.add(int(str(one.source["data_no"])))
        rows, labelled, resolved = (counts[f"rows {what}"] for what in ("found", "labelled", "resolved"))
        yield Check(f"items of {name}", f"{rows}", "1 or more (not published)", "ok" if rows else "differs")
        yield Check(
            f"sound items of {name}", f"{labelled}", f"{rows}, as it has items", "ok" if labelled == rows else "hint"
        )
        wrong = counts[DISAGREEMENT]
        yield Check(f"label disagreements in {name}", f"{wrong}", "0", "hint" if wrong else "ok")
        yield Check(
            f"images of {name}",
            f"{resolved}",
            f"{labelled}, one per sound item",
            "ok" if resolved == labelled else "differs",
        )
        if others := sorted(originals - {*tables.subsets()[unit.subset].originals, unit.original or 0}):
            listed = ", ".join(map(str, tables.subsets()[unit.subset].originals))
            yield Check(f"data-no in {name}", ", ".join(map(str, others)), f"{listed} (Table 17)", "hint")

    def _form(self, download: Download) -> str:
        if self.files != "auto":
            return self.files
        return "subsets" if "subsets" in download.files else "original"


def _chosen(wanted: str | int | Sequence[str | int]) -> dict[int, tables.Subset]:
    if isinstance(wanted, str | int):
        wanted = [part for part in str(wanted).split(",") if part.strip()]
    if not isinstance(wanted, list | tuple):
        raise CrossmedError(f"Dataset 'medmat': option subsets must be text or a list, not {wanted!r}.")
    known = tables.subsets()
    numbers: set[int] = set()
    for one in wanted:
        text = str(one).strip()
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 3 else 0
        if number not in known:
            raise CrossmedError(
                f"Dataset 'medmat': option subsets must not hold {one!r}.",
                hint="Allowed are 01 to 37, e.g. 02,03,31; the others have no questions with options.",
            )
        numbers.add(number)
    return {number: subset for number, subset in known.items() if number in numbers or not numbers}


def _load(path: Path) -> list[Any] | str:
    try:
        require_regular(path)
        text = path.read_text(encoding="utf-8-sig")
        contents = json.loads(text)
    except UnreadableImageError as error:
        return f"cannot be read: {str(error).removeprefix(f'{path}: ')}"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        return f"is not UTF-8 text (byte {error.start}); fetch it again"
    except (ValueError, RecursionError) as error:
        if text.startswith("version https://git-lfs"):
            return "is a pointer of Git LFS, not the file; fetch it with 'git lfs pull'"
        return f"is no JSON, perhaps cut short ({error}); fetch it again"
    if not isinstance(contents, list):
        return "is JSON but no list of items; fetch it again"
    return contents


def _checked(entry: Entry | Refused, subset: tables.Subset, file_of: int | None, seen: set[int]) -> Entry | Refused:
    """Refuse a sound entry that repeats an id or says that it lies in another cell than its file."""
    if isinstance(entry, Refused):
        return entry
    if entry.id in seen:
        return Refused(REPEATED, "an earlier item of the file has the same id; that one is read", entry.id)
    original = tables.originals().get(entry.original)
    if original is None:
        return Refused(ELSEWHERE, f"data-no {entry.original} is not in the paper's list of datasets", entry.id)
    if file_of is not None and entry.original != file_of:
        return Refused(ELSEWHERE, f"data-no {entry.original} stands in the file of dataset {file_of}", entry.id)
    if original.place != subset.mat[:2]:
        place = "/".join(original.place)
        return Refused(
            ELSEWHERE, f"data-no {entry.original} is {place}, but subset {subset.number:02d} is {subset.mat}", entry.id
        )
    return entry


def _sample(entry: Entry, unit: JsonFile, subset: tables.Subset, original: tables.Original) -> Sample:
    known = _chexpert_patient(entry.image) if entry.original == _CHEXPERT else None
    group = f"s{unit.subset:02d}" if unit.original is None else f"d{unit.original:03d}"
    return Sample(
        id=f"medmat-{group}-{entry.id:06d}",
        patient=f"chexpert:{known}" if known else entry.image,
        mat=subset.mat,
        image=ImageRef(str(Path(unit.base) / entry.image)),
        label=entry.label,
        part=_chexpert_part(known) if known else None,
        question=entry.question,
        options=entry.options,
        source={
            "file": Path(unit.path).name,
            "image": entry.image,
            "subset": subset.number,
            "data_no": original.number,
            "of": original.name,
            "caption": entry.caption,
            "letter": entry.letter,
            "label_source": "Med-MAT Answer-choice",
            "multi_label": subset.multi_label and is_joined(entry.label),
            "true_in_distractors": entry.true_in_distractors,
            "patient_known": known is not None,
        },
    )


def _chexpert_patient(image: str) -> str | None:
    """Return "patient00002" where the path of a CheXpert image names the patient."""
    found = _PATIENT.match(image)
    return f"patient{found[1]}" if found else None


def _chexpert_part(patient: str) -> Part:
    """Return the part that the reader of CheXpert gives a patient unless told otherwise."""
    return "test" if int(patient.removeprefix("patient")) >= _OFFICIAL else drawn_part(patient)


def _looking_below(base: Path) -> Callable[[str], bool]:
    """Return a test for files below `base` that asks each folder once: most image sets are missing for most people."""
    folders: dict[str, bool] = {}

    def exists(image: str) -> bool:
        folder = image.rpartition("/")[0]
        try:
            if folder not in folders:
                folders[folder] = (base / folder).is_dir()
            return folders[folder] and (base / image).is_file()
        except (OSError, ValueError):  # a name that is too long
            return False

    return exists

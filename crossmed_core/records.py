"""What registration hooks yield: small frozen facts and the import path of the heavy code, imported only when used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.types import AnswerKind


@dataclass(frozen=True, kw_only=True)
class Record:
    """Common to all four kinds.

    Attributes:
        name: What a user types. Lower case, unique per kind.
        summary: One line for lists.
        target: "package.module:attribute" of the class or function.
        packages: Top-level packages that `target` imports and the base install lacks.
        extra: The extra of `crossmed` (or the requirement, for third parties) that installs them.
    """

    name: str
    summary: str
    target: str
    packages: tuple[str, ...] = ()
    extra: str = ""

    def missing(self) -> tuple[str, ...]:
        """Return the packages that are not installed, without importing any."""
        return tuple(package for package in self.packages if find_spec(package) is None)

    def install_hint(self) -> str:
        """Say what to type to get the missing packages."""
        if self.extra:
            return f"pip install 'crossmed[{self.extra}]'"
        return f"pip install {' '.join(self.packages)}"

    def load(self) -> Any:
        """Import and return the target.

        Raises:
            CrossmedError: If a package is missing or the path does not resolve.
        """
        if missing := self.missing():
            raise CrossmedError(
                f"{self.name!r} needs {', '.join(missing)}, which this environment lacks.",
                hint=f"Install it with: {self.install_hint()}",
                exit_code=ExitCode.ENVIRONMENT,
            )
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise CrossmedError(
                f"{self.name!r} could not be loaded from {self.target!r}: {error}.",
                hint="'crossmed plugins doctor' tells more.",
                exit_code=ExitCode.ENVIRONMENT,
            ) from error


@dataclass(frozen=True, kw_only=True)
class DatasetRecord(Record):
    """A dataset. `target` is called with the user's options as keywords and returns a `contracts.Dataset`.

    Attributes:
        generated: True if the images are computed (`contracts.GeneratedDataset`) and no download is needed.
        default_targets: Cells tested when no `--target` is given; empty = every cell.
        synthetic: True if the pixels are not of patients; reports then say so.
        licence: Licence of the data.
        access: How to get it, in one line.
        url: Where to get it.
        tree: The expected files of the download, as lines of an indented tree; one tree per layout.
        citation: What to cite.
    """

    generated: bool = False
    default_targets: tuple[str, ...] = ()
    synthetic: bool = False
    licence: str = ""
    access: str = ""
    url: str = ""
    tree: str = ""
    citation: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelRecord(Record):
    """A model family. `target` is a class without arguments that follows `contracts.ModelFamily`.

    Attributes:
        answers: The kinds of answers it can give.
        trains: Whether `fit` learns anything from items.
        sees_images: Whether option items are looked at; if not, generated datasets need not draw them.
        closed_labels: True if it can only answer labels that it was trained on (a classifier, not a language model).
        reads_text: Whether the words of question and options are read, not only the options chosen among: then the
            controls that withhold the image or change the words apply to it.
        zero_shot: Whether it can answer as it is loaded, without `fit`; always so if it does not train.
        needs_spec: True if a bare name is not enough ("timm:resnet18", or an alias of the registry).
        options: Option names that `load` understands, with one-line descriptions.
        train: Training settings (`contracts.TrainSettings`) in which the family differs from the defaults.
        answers_if: (option, value, answers): the kinds of answers it gives instead where the option has that value.
        forecast: "package.module:function" that says what is known of a model before it is loaded, without importing
            its libraries: called with a `ModelSpec`, `TrainSettings` (None if nothing is trained) and the device, it
            returns a `contracts.Forecast`. "" = nothing is known.
    """

    answers: frozenset[AnswerKind] = frozenset({"option"})
    trains: bool = True
    sees_images: bool = True
    closed_labels: bool = False
    reads_text: bool = False
    zero_shot: bool = False
    needs_spec: bool = False
    options: tuple[tuple[str, str], ...] = ()
    train: tuple[tuple[str, Any], ...] = ()
    answers_if: tuple[tuple[str, str, frozenset[AnswerKind]], ...] = ()
    forecast: str = ""

    def configured(self, options: Mapping[str, Any]) -> ModelRecord:
        """Return the record as it holds with these options of the family."""
        for name, value, answers in self.answers_if:
            if options.get(name) == value:
                return replace(self, answers=answers)
        return self


@dataclass(frozen=True, kw_only=True)
class SplitRecord(Record):
    """A split. `target` follows `contracts.Splitter`.

    Attributes:
        source: The paper that the rule comes from.
        argument: What is written after a colon ("held-out:CELL+CELL"), in one line; "" if the split takes none.
        options: Names that `--split-option` may set for it, with one-line descriptions. A split with an argument or
            options follows `contracts.ConfigurableSplitter`.
        example: One line that shows what it does; for a split with an argument it begins with NAME:ARGUMENT.
    """

    source: str = ""
    argument: str = ""
    options: tuple[tuple[str, str], ...] = ()
    example: str = ""


@dataclass(frozen=True, kw_only=True)
class MetricRecord(Record):
    """A metric. `target` follows `contracts.Metric`.

    Attributes:
        answers: The kind of items it scores.
        primary: Whether tables show it by default for that kind.
        low: Smallest possible value.
        high: Largest possible value.
        lower_is_better: True for errors and losses.
        needs_scores: True if it looks at `Prediction.option_scores`; answers without them do not count.
    """

    answers: AnswerKind = "option"
    primary: bool = False
    low: float = 0.0
    high: float = 1.0
    lower_is_better: bool = False
    needs_scores: bool = False

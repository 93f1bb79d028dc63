"""What a dataset, model, split and metric must do. Structural types: a plugin need not inherit from anything.

Two unusual demands make everything testable anywhere: a dataset can forge a tiny faithful counterfeit of its real
download (`write_fixture`), and a model family can build a random miniature (`tiny`), both without a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from crossmed_core.types import MAT, Item, ItemKey, ModelSpec, Prediction, Question, Reading, Sample, Split

if TYPE_CHECKING:
    import numpy as np  # only named here: lists and --help must not wait for it


@runtime_checkable
class Dataset(Protocol):
    """A source of samples."""

    def questions(self) -> Mapping[MAT, Question]:
        """Return what is asked in each cell that this dataset can fill."""

    def samples(self, root: Path) -> Iterator[Reading]:
        """Yield every sample under `root`, with absolute image paths, never writing there.

        A bad file or row is a `Skipped` in the stream, a count worth reporting a `Counted`; neither ends the reading.
        What only shows when pixels are opened is found when they are, and reported then.

        Raises:
            CrossmedError: If `root` does not look like this dataset at all; the message says what was looked for.
        """

    def write_fixture(self, root: Path, *, seed: int = 0) -> None:
        """Write a miniature of the real download under the empty folder `root`; same seed, same bytes."""


class Layout(NamedTuple):
    """Where and in which of its known forms a download lies.

    Attributes:
        name: The layout, as documented by the dataset.
        root: The folder that paths are resolved against.
    """

    name: str
    root: Path


@runtime_checkable
class LocatesItself(Protocol):
    """A dataset that recognises its download, so that `crossmed build --data DIR` need not be told what lies there."""

    def locate(self, root: Path) -> Layout:
        """Find the download at `root` or a few folders below.

        Raises:
            DownloadNotFoundError: If it is not there; names the layouts that were looked for and what was found
                instead (`files.not_found`).
            CrossmedError: If something like it is there and refused, e.g. another year's release.
        """


@runtime_checkable
class ReadsInUnits(Protocol):
    """A dataset that is read in independent units (a case, a chunk of files), so that several processes can share it.

    `samples(root)` yields the same as reading all units in order.
    """

    def units(self, root: Path) -> Iterator[Any]:
        """Yield picklable units in a fixed order, and `Skipped` and `Counted` for what belongs to none.

        All samples of a patient lie in one unit where the source allows it. Cheap: lists files and label tables.
        """

    def read(self, unit: Any) -> Iterator[Reading]:
        """Read one unit; called in another process. May open its files."""


class Check(NamedTuple):
    """One thing that is known of a download, held against what is there.

    Attributes:
        what: "training rows", "SHA-256 of train.csv" ...
        found: What is there, as text.
        expected: What is known, with its source where it is not our own count.
        verdict: "ok", "differs" (something is missing or changed) or "hint" (differs from a copy that may well be
            re-saved, or a fact that nobody has verified).
    """

    what: str
    found: str
    expected: str
    verdict: str


@runtime_checkable
class KnowsItsDownload(Protocol):
    """A dataset that can hold a download against the published counts."""

    def verify(self, root: Path) -> Iterator[Check]:
        """Yield what is known and what is there. Opens label tables and lists files; reads no pixels.

        Raises:
            CrossmedError: If `root` does not hold this dataset.
        """


@runtime_checkable
class GeneratedDataset(Dataset, Protocol):
    """A dataset whose images are computed. `root` is then a cache that the runner owns."""

    def materialise(self, samples: Sequence[Sample]) -> Iterator[str]:
        """Write the missing image and mask files of `samples`, atomically; yield each id once its files exist."""


class LogStep(Protocol):
    """Receives the progress of training; the runner writes it to train.jsonl and moves the bar."""

    def __call__(self, step: int, total: int, **values: float) -> None:
        """Report that `step` of `total` is done, with any measured values (loss, val_loss, lr ...)."""


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained. Every field is recorded with the run and can be set by `--set`.

    Attributes:
        steps: Optimizer steps; every condition that is compared takes the same number.
        batch_size: Items per step and device.
        learning_rate: Peak of the one-cycle schedule (Smith 2018) with AdamW.
        weight_decay: AdamW's decoupled weight decay.
        label_smoothing: Of the cross-entropy over an item's own options.
        accumulate: Batches whose gradients are summed before a step.
        augment: Random gain, offset and small shifts, seeded per item and epoch.
        max_shift: Largest shift in pixels on either axis.
        eval_every: Steps between looks at the validation loss; 0 = only at the end.
        patience: Stop after this many looks without improvement and keep the best weights; 0 = never stop early.
        warmup: Share of the steps, 0 to 1, in which the learning rate rises to its peak.
        checkpoint_seconds: Least seconds between checkpoints.
        clip_norm: Gradients are clipped to this norm.
    """

    steps: int = 600
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    accumulate: int = 1
    augment: bool = True
    max_shift: int = 2
    eval_every: int = 0
    patience: int = 0
    warmup: float = 0.3
    checkpoint_seconds: float = 60.0
    clip_norm: float = 1.0


@dataclass(frozen=True)
class FitContext:
    """What a model needs to know while it learns.

    Attributes:
        seed: Seed of weights, order and augmentation.
        device: "cpu" or "cuda".
        settings: How to train.
        folder: Where checkpoints may be kept so that a killed run goes on; None = keep none.
        log: Receives progress.
        warn: Receives one-line warnings (an image that could not be read ...).
    """

    seed: int = 0
    device: str = "cpu"
    settings: TrainSettings = field(default_factory=TrainSettings)
    folder: Path | None = None
    log: LogStep = lambda step, total, **values: None
    warn: Any = lambda message: None


@runtime_checkable
class Model(Protocol):
    """Answers items. `fit` may do nothing."""

    def fit(self, train: Sequence[Item], val: Sequence[Item], context: FitContext) -> None:
        """Learn from `train`; look at `val` only to decide when to stop."""

    def predict(self, items: Sequence[Item]) -> Iterator[Prediction]:
        """Yield one prediction per item, in order. What cannot be answered is a prediction with `error` set."""


@runtime_checkable
class SavesWeights(Protocol):
    """A model that can be put aside after `fit`. Without it a killed run trains again from the start."""

    def save(self, folder: Path) -> None:
        """Write everything `restore` needs into the existing folder."""

    def restore(self, folder: Path) -> None:
        """Become the model that `save` wrote."""


@runtime_checkable
class AnswersOrders(Protocol):
    """A model that is faster when it is asked an item in all orders of its options at once: they share a beginning."""

    def predict_orders(self, groups: Sequence[Sequence[Item]]) -> Iterator[Sequence[Prediction]]:
        """Yield, for each group, one prediction per item of it, as `predict` would give.

        Args:
            groups: Each is one item with its options in several orders, all under the same id.
        """


@runtime_checkable
class Warns(Protocol):
    """A model that may have something to say while it answers, in one line; the runner sets where to."""

    warn: Callable[[str], None]


@runtime_checkable
class DescribesItself(Protocol):
    """A model that knows what it runs on and how, for the record of the trial."""

    def facts(self) -> Mapping[str, Any]:
        """Return commit of the weights, dtype, prompt and whatever else changes a number, as JSON values."""


@dataclass(frozen=True)
class Forecast:
    """What can be said of a model before it is loaded.

    Attributes:
        weights: Where they are or come from.
        parameters_m: Parameters in millions; None if unknown.
        dtype: "bfloat16", "float32" ...
        predict_gib: Memory for answering, in GiB; None if unknown.
        train_gib: Memory for training with these settings, in GiB; None if unknown or untrained.
        answer_ms: Rough milliseconds per answer; None if unknown.
        train_ms: Rough milliseconds per training item and pass; None if unknown or untrained.
        notes: What a reader should know, one line each.
        problem: Why it cannot be loaded; "" if nothing is known against it.
    """

    weights: str
    parameters_m: float | None = None
    dtype: str = ""
    predict_gib: float | None = None
    train_gib: float | None = None
    answer_ms: float | None = None
    train_ms: float | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""


@runtime_checkable
class ModelFamily(Protocol):
    """Loads models of one kind."""

    def load(self, spec: ModelSpec, *, device: str) -> Model:
        """Build the model that `spec` names.

        Raises:
            CrossmedError: For an unknown name or option, or weights that cannot be had.
        """

    def tiny(self, *, device: str) -> Model:
        """Build a random miniature of this family, offline, in under a second or two."""


@runtime_checkable
class Splitter(Protocol):
    """Makes the pools of one condition. It sees keys only, so it cannot look at pixels."""

    def __call__(self, keys: Sequence[ItemKey], *, target: MAT, seed: int) -> Split:
        """Return the full pools for `target`; the runner draws the matched number of items from them.

        The result depends on `seed` and the set of keys, never on their order.
        """


@runtime_checkable
class ConfigurableSplitter(Splitter, Protocol):
    """A splitter with options (`SplitRecord.options`) or an argument (`SplitRecord.argument`)."""

    def configured(self, options: Mapping[str, Any], argument: str) -> Splitter:
        """Return the splitter with these options and the text after the colon ("" if there is none).

        Raises:
            CrossmedError: For a value that it does not take, or a missing argument.
        """


@runtime_checkable
class Metric(Protocol):
    """A pure function of answered items."""

    def __call__(self, pairs: Sequence[tuple[Item, Prediction]]) -> float:
        """Return the metric over scored pairs; NaN if it is not defined for them."""


@runtime_checkable
class AdditiveMetric(Metric, Protocol):
    """A metric that is a function of sums over items, which makes its bootstrap one matrix product.

    Accuracy is sum(correct) / sum(1); cIoU is sum(intersection) / sum(union); macro-F1 is a function of per-class
    counts. Any metric without this is resampled the slow way. A metric whose terms depend on the
    other pairs it is given, or whose bootstrap is biased, sets `conditional = True`: conditions are not compared by it.
    """

    def terms(self, pairs: Sequence[tuple[Item, Prediction]]) -> np.ndarray:
        """Return the summands, float64 of shape (items, terms)."""

    def value(self, sums: np.ndarray) -> np.ndarray:
        """Turn sums of shape (..., terms) into values of shape (...)."""


@runtime_checkable
class KnowsChance(Protocol):
    """A metric that can say what knowing nothing scores."""

    def chance(self, items: Sequence[Item]) -> float:
        """Return the expected value for a model that knows nothing of these items."""


@runtime_checkable
class KnowsBest(Protocol):
    """A metric that can say what the best choice scores, where a choice is bounded by what is offered."""

    def best(self, items: Sequence[Item]) -> float:
        """Return the value of the best choice; NaN where nothing bounds it."""


@runtime_checkable
class KnowsInformedChance(Protocol):
    """A metric that can say what guessing scores for who knows which options are never true in a cell."""

    def informed_chance(self, items: Sequence[Item]) -> float:
        """Return the expected value of a uniform guess among the options that are no decoys (`Item.decoys`)."""


@runtime_checkable
class KnowsBounds(Protocol):
    """A metric that can say what unscored items could have made of it."""

    def bounds(self, pairs: Sequence[tuple[Item, Prediction]], unscored: Sequence[Item]) -> tuple[float, float]:
        """Return the value if every unscored item were answered as badly, and as well, as can be."""

"""The baselines. None of them opens the image of an option item."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossmed_core.answers import choose
from crossmed_core.contracts import FitContext
from crossmed_core.errors import UnreadableImageError
from crossmed_core.images import encode_mask, read_image, read_mask
from crossmed_core.types import LETTERS, Item, ModelSpec, Prediction

GRID = 64
"""Side of the grid on which training masks are averaged."""


class Baseline(ABC):
    """Common to all: scores for options, a region for masks."""

    masks_are_guesses = False

    def __init__(self) -> None:
        self.seed = 0

    def fit(self, train: Sequence[Item], val: Sequence[Item], context: FitContext) -> None:
        """Learn nothing but the seed of the coin."""
        self.seed = context.seed

    def predict(self, items: Sequence[Item]) -> Iterator[Prediction]:
        """Answer each item; a mask item whose image cannot be read is an error, as its size is unknown."""
        for item in items:
            if item.kind == "option":
                yield choose(item, self.scores(item), seed=self.seed)
                continue
            try:
                height, width = read_image(item.image).shape[:2]
                region = self.region(item, (height, width))
            except UnreadableImageError as error:
                yield Prediction(item.id, error=str(error))
            else:
                yield Prediction(item.id, mask=encode_mask(region), guess=self.masks_are_guesses)

    @abstractmethod
    def scores(self, item: Item) -> list[float]:
        """Return one probability per option."""

    @abstractmethod
    def region(self, item: Item, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the mask at the image's own (height, width)."""


class Chance(Baseline):
    """Knows nothing."""

    masks_are_guesses = True

    def scores(self, item: Item) -> list[float]:
        """Return equal probabilities; the coin decides."""
        return [1 / len(item.options)] * len(item.options)

    def region(self, item: Item, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the whole image."""
        return np.ones(shape, dtype=bool)


class Oracle(Baseline):
    """Knows the answer."""

    def scores(self, item: Item) -> list[float]:
        """Return certainty."""
        return [float(index == item.answer) for index in range(len(item.options))]

    def region(self, item: Item, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the truth."""
        if item.mask is None:
            raise UnreadableImageError(f"{item.id}: the item has no mask")
        return read_mask(item.mask)


class Majority(Baseline):
    """Answers with what was most often true in training."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.prior: NDArray[np.bool_] = np.ones((GRID, GRID), dtype=bool)

    def fit(self, train: Sequence[Item], val: Sequence[Item], context: FitContext) -> None:
        """Count labels, and average masks."""
        super().fit(train, val, context)
        self.counts = Counter(item.label for item in train if item.kind == "option")
        self.prior = mask_prior([item for item in train if item.kind == "mask"], context)

    def scores(self, item: Item) -> list[float]:
        """Return the training share of each option, equal shares if none was ever true."""
        seen = [self.counts[option] for option in item.options]
        total = sum(seen)
        return [count / total for count in seen] if total else [1 / len(seen)] * len(seen)

    def region(self, item: Item, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the pixels most often foreground in training, scaled to the image."""
        height, width = shape
        return np.asarray(Image.fromarray(self.prior).resize((width, height), Image.Resampling.NEAREST), dtype=bool)


class QuestionOnly(Majority):
    """Naive Bayes on text: for each option, how much more often was it true than offered, given each clue?

    Clues are the option itself, the option with each word of the question, its letter, its rank by length, and how many
    words it shares with the question: whatever a text model could exploit without the image.
    """

    def __init__(self) -> None:
        super().__init__()
        self.true: Counter[str] = Counter()
        self.offered: Counter[str] = Counter()

    def fit(self, train: Sequence[Item], val: Sequence[Item], context: FitContext) -> None:
        """Count the clues of all options, and of the true ones."""
        super().fit(train, val, context)
        self.true, self.offered = Counter(), Counter()
        for item in train:
            for index in range(len(item.options)):
                clues = self._clues(item, index)
                self.offered.update(clues)
                if index == item.answer:
                    self.true.update(clues)

    @staticmethod
    def _clues(item: Item, index: int) -> set[str]:
        option = item.options[index]
        asked = set(re.findall(r"\w+", item.question.lower()))
        longest = sorted(range(len(item.options)), key=lambda i: (-len(item.options[i]), i))
        shared = asked & set(re.findall(r"\w+", option.lower()))
        return {
            f"option={option}",
            f"letter={LETTERS[index]}",
            f"length-rank={longest.index(index)}",
            f"shared-words={len(shared)}",
            *(f"{option}|{word}" for word in asked),
        }

    def scores(self, item: Item) -> list[float]:
        """Return the softmax of summed log-odds; a clue never offered says nothing."""
        k = len(item.options)
        totals = []
        for index in range(k):
            total = 0.0
            for clue in sorted(self._clues(item, index)):
                if offered := self.offered[clue]:
                    # Shrunk towards 1 / k by ten pseudo-counts: rare clues are not evidence.
                    total += math.log((self.true[clue] + 10 / k) / (offered + 10) * k)
            totals.append(total)
        top = max(totals)
        weights = [math.exp(total - top) for total in totals]
        return [weight / sum(weights) for weight in weights]


def mask_prior(items: Sequence[Item], context: FitContext) -> NDArray[np.bool_]:
    """Average training masks on a grid and cut at the level with the best cIoU on them; all foreground without any."""
    grids = []
    for item in items:
        assert item.mask is not None
        try:
            mask = Image.fromarray(read_mask(item.mask))
        except UnreadableImageError as error:
            context.warn(f"training item {item.id} left out: {error}")
            continue
        grids.append(np.asarray(mask.resize((GRID, GRID), Image.Resampling.NEAREST), dtype=bool))
    if not grids:
        return np.ones((GRID, GRID), dtype=bool)
    stack = np.stack(grids)
    mean = stack.mean(axis=0)

    def ciou(level: float) -> float:
        prior = mean >= level
        return float(np.count_nonzero(stack & prior)) / max(1.0, float(np.count_nonzero(stack | prior)))

    levels = [float(level) for level in np.unique(mean[mean > 0].round(3))]
    best: NDArray[np.bool_] = mean >= max(levels, key=ciou, default=0.0)
    return best


class _Family:
    kind: type[Baseline]

    def load(self, spec: ModelSpec, *, device: str) -> Baseline:
        """Build the baseline; it has no options."""
        return self.kind()

    def tiny(self, *, device: str) -> Baseline:
        """Build the baseline itself: it is small already."""
        return self.kind()


class ChanceFamily(_Family):
    """Loads `Chance`."""

    kind = Chance


class MajorityFamily(_Family):
    """Loads `Majority`."""

    kind = Majority


class QuestionOnlyFamily(_Family):
    """Loads `QuestionOnly`."""

    kind = QuestionOnly


class OracleFamily(_Family):
    """Loads `Oracle`."""

    kind = Oracle

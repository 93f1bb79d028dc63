"""Training items as batches of tokens, of like length, each a pure function of its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from crossmed_core.seeding import digest
from crossmed_core.training.data import augmented
from crossmed_core.types import Item
from crossmed_plugins.mllm.feature_store import FeatureStore
from crossmed_plugins.mllm.vision import Eyes, Features, Prepared, open_rgb

WINDOW = 16
"""Batches whose items are sorted by length together: little padding, and still an almost random order."""


@dataclass
class Example:
    """A training item in tokens.

    Attributes:
        item: The item.
        prompt: Tokens of the prompt, the image's placeholders among them.
        answer: Tokens of the answer, the end of the turn last.
        image: The prepared image, perhaps without its pixels.
    """

    item: Item
    prompt: list[int]
    answer: list[int]
    image: Prepared


@dataclass
class TokenBatch:
    """A batch on its way into the model.

    Attributes:
        items: The items.
        ids: int64 (items, length), padded on the left: the answers end at the right.
        mask: int64 of the same shape, 0 on padding.
        labels: int64 (items, longest answer): the last tokens, -100 where an answer is shorter.
        images: Per item, the prepared image.
        features: Per item, what the vision tower saw, where that is known beforehand.
    """

    items: list[Item]
    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    images: list[Prepared]
    features: list[Features] | None

    def to(self, device: torch.device) -> TokenBatch:
        """Move all tensors."""
        ids, mask, labels = (one.to(device, non_blocking=True) for one in (self.ids, self.mask, self.labels))
        features = self.features and [
            Features(one.pooled.to(device), [layer.to(device) for layer in one.deep]) for one in self.features
        ]
        images = [
            replace(one, tensors={name: value.to(device, non_blocking=True) for name, value in one.tensors.items()})
            for one in self.images
        ]
        return TokenBatch(self.items, ids, mask, labels, images, features)

    def joined(self) -> dict[str, torch.Tensor] | None:
        """Join the vision tower's inputs along the first dimension; None if their other dimensions differ."""
        shapes = {tuple((name, value.shape[1:]) for name, value in one.tensors.items()) for one in self.images}
        if len(shapes) > 1:
            return None
        names = self.images[0].tensors
        return {name: torch.cat([one.tensors[name] for one in self.images]) for name in names}


class TokenBatches(Dataset[TokenBatch]):
    """All batches of a training run (`training.loop.NumberedBatches`).

    They are those of an endless sequence of seeded permutations (one per epoch), cut into windows; within a window,
    items are sorted by length, cut into batches, and the batches shuffled.

    Args:
        examples: Training items in tokens.
        eyes: Prepares images that are not kept.
        store: Features of all images, where the tower sees them once.
        pad: Token that fills the left.
        batch_size: Items per batch.
        seed: Seed of order and augmentation.
        augment: Random gain, offset and shifts (`training.data.augmented`), seeded per item and epoch.
        max_shift: Largest shift in pixels.
        rank: This process among `world`.
        world: Number of processes.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        eyes: Eyes,
        store: FeatureStore | None,
        *,
        pad: int,
        batch_size: int,
        seed: int = 0,
        augment: bool = False,
        max_shift: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.examples = list(examples)
        self.items = [one.item for one in self.examples]
        self.eyes = eyes
        self.store = store
        self.pad = pad
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self.max_shift = max_shift
        self.rank, self.world = rank, world
        self._windows: dict[int, list[list[tuple[int, int]]]] = {}
        self._orders: dict[int, np.ndarray] = {}

    def __getitem__(self, number: int) -> TokenBatch:
        window, place = divmod(number * self.world + self.rank, WINDOW)
        if window not in self._windows:
            self._windows = {window: self._window(window)}
        return self.of(
            [self.examples[index] for _, index in self._windows[window][place]],
            epochs=[epoch for epoch, _ in self._windows[window][place]],
        )

    def _window(self, window: int) -> list[list[tuple[int, int]]]:
        """Return the batches of a window, as (epoch, index of the example)."""
        size = WINDOW * self.batch_size
        places = [self._place(window * size + offset) for offset in range(size)]
        places.sort(key=lambda place: len(self.examples[place[1]].prompt))
        batches = [places[start : start + self.batch_size] for start in range(0, size, self.batch_size)]
        order = np.random.default_rng(digest(self.seed, "window", window)).permutation(WINDOW)
        return [batches[index] for index in order]

    def _place(self, position: int) -> tuple[int, int]:
        epoch, offset = divmod(position, len(self.examples))
        if epoch not in self._orders:
            if len(self._orders) > 2:
                self._orders.clear()
            rng = np.random.default_rng(digest(self.seed, "order", epoch))
            self._orders[epoch] = rng.permutation(len(self.examples))
        return epoch, int(self._orders[epoch][offset])

    def of(self, examples: Sequence[Example], *, epochs: Sequence[int] = ()) -> TokenBatch:
        """Make one batch of examples; `epochs` seed their augmentation."""
        rows = [one.prompt + one.answer for one in examples]
        longest = max(len(row) for row in rows)
        answers = max(len(one.answer) for one in examples)
        images = [one.image for one in examples]
        features = None
        if self.store is not None:
            features = [self.store.get(one.item.image) for one in examples]
        elif self.augment and epochs:
            images = [self._augmented(one, epoch) for one, epoch in zip(examples, epochs, strict=True)]
        else:
            images = [self._with_pixels(one) for one in examples]
        return TokenBatch(
            [one.item for one in examples],
            torch.tensor([[self.pad] * (longest - len(row)) + row for row in rows]),
            torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
            torch.tensor([[-100] * (answers - len(one.answer)) + one.answer for one in examples]),
            images,
            features,
        )

    def _with_pixels(self, example: Example) -> Prepared:
        image = example.image
        return image if image.has_pixels else self.eyes.prepare_image(open_rgb(example.item.image))

    def _augmented(self, example: Example, epoch: int) -> Prepared:
        pixels = np.asarray(open_rgb(example.item.image)).astype(np.float32)[None]
        seed = digest(self.seed, "augment", epoch, example.item.id)
        changed, _ = augmented(pixels, None, seed, max_shift=self.max_shift)
        return self.eyes.prepare_image(Image.fromarray(np.rint(changed[0]).astype(np.uint8)))

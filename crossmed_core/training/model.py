"""The base class of networks that answer items: a subclass says how to build the network, its loss and its answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from crossmed_core.contracts import FitContext
from crossmed_core.errors import CrossmedError, UnreadableImageError
from crossmed_core.images import read_image
from crossmed_core.runlog import read_json, write_bytes, write_json
from crossmed_core.training.data import Batch, InputSpec, TrainingBatches, decode, to_batch
from crossmed_core.training.loop import train as train_loop
from crossmed_core.training.options import LabelVocabulary
from crossmed_core.types import Item, Prediction


class TorchModel(ABC):
    """A network with a label head, a mask head, or both.

    `fit` builds the network for the training items and trains it; `predict` decodes, runs and answers in one batch per
    call; `save` and `restore` keep weights as safetensors and everything else as JSON.

    Args:
        device: "cpu" or "cuda".
        options: What the network is built from; written by `save`.
    """

    def __init__(self, *, device: str, options: Mapping[str, Any]) -> None:
        self.device = torch.device(device)
        self.options = dict(options)
        self.seed = 0
        self.batch_size = 32
        self.labels = LabelVocabulary(())
        self.saw_masks = False
        self.spec: InputSpec | None = None
        self.module: torch.nn.Module | None = None

    @abstractmethod
    def input_spec(self, sides: Sequence[int]) -> InputSpec:
        """Choose the input for images whose longer sides are `sides`, in pixels."""

    @abstractmethod
    def build(self, spec: InputSpec, labels: int, *, fresh: bool) -> torch.nn.Module:
        """Make the network with `labels` label outputs. Called after the seed is set.

        Args:
            spec: The input.
            labels: Outputs of the label head; 0 if no training item has options.
            fresh: True before training, when pretrained weights are wanted; False if saved ones are loaded next.
        """

    @abstractmethod
    def loss(self, module: torch.nn.Module, batch: Batch, *, smoothing: float) -> torch.Tensor:
        """Return the training loss of a batch, a scalar."""

    @abstractmethod
    def answer(self, module: torch.nn.Module, batch: Batch, shapes: Sequence[tuple[int, int]]) -> Iterator[Prediction]:
        """Yield one prediction per item of a batch; `shapes` are the images' own (height, width)."""

    # -- contracts.Model ---------------------------------------------------------------------------

    def fit(self, train: Sequence[Item], val: Sequence[Item], context: FitContext) -> None:
        """Build the network for these items and train it (`contracts.Model`).

        Raises:
            CrossmedError: If no training image can be read.
        """
        self.batch_size = context.settings.batch_size
        self.prepare(train, seed=context.seed)
        train_loop(self, train, val, context)

    def prepare(self, train: Sequence[Item], *, seed: int) -> None:
        """Fix labels, input and initial weights, as functions of the training items and the seed."""
        self.seed = seed
        self.labels = LabelVocabulary.of(train)
        self.saw_masks = any(item.kind == "mask" for item in train)
        self.spec = self.input_spec(_sides(train))
        torch.manual_seed(seed)
        self.module = self._placed(self.build(self.spec, len(self.labels), fresh=True))

    def training_batches(self, items: Sequence[Item], context: FitContext, *, rank: int, world: int) -> TrainingBatches:
        """Decode and augment (`loop.Trainable`)."""
        assert self.spec is not None
        settings = context.settings
        return TrainingBatches(
            items, self.spec, batch_size=settings.batch_size, count=settings.steps * settings.accumulate,
            seed=context.seed, augment=settings.augment, max_shift=settings.max_shift,
            rank=rank, world=world, warn=context.warn,
        )  # fmt: skip

    def held_out_batches(self, items: Sequence[Item], context: FitContext) -> list[Batch]:
        """Decode the validation items (`loop.Trainable`)."""
        assert self.spec is not None
        decoded = []
        for item in items:
            try:
                decoded.append((item, *decode(item, self.spec)))
            except UnreadableImageError as error:
                context.warn(f"validation item {item.id} left out: {error}")
        size = context.settings.batch_size
        chunks = [decoded[start : start + size] for start in range(0, len(decoded), size)]
        return [
            to_batch(
                [item for item, _, _ in chunk],
                [image.astype(np.float32) for _, image, _ in chunk],
                [mask for _, _, mask in chunk],
                self.spec,
            )
            for chunk in chunks
        ]

    def _placed(self, module: torch.nn.Module) -> torch.nn.Module:
        # Channels last: convolutions, and on a CPU pooling above all, run half as fast again (benchmarks/training.py).
        return module.to(self.device).to(memory_format=torch.channels_last)

    def predict(self, items: Sequence[Item]) -> Iterator[Prediction]:
        """Answer items in batches of the training's size (`contracts.Model`), for which there was memory.

        An unreadable image is an error of its item alone.
        """
        for start in range(0, len(items), self.batch_size):
            yield from self._predict_batch(items[start : start + self.batch_size])

    def _predict_batch(self, items: Sequence[Item]) -> Iterator[Prediction]:
        if self.module is None or self.spec is None:
            raise CrossmedError("The model was asked before it was trained or restored.")
        readable, images, shapes, failed = [], [], [], {}
        for item in items:
            try:
                pictures, shape = self.spec.pictures(item)
            except UnreadableImageError as error:
                failed[item.id] = Prediction(item.id, error=str(error))
                continue
            readable.append(item)
            shapes.append(shape)
            images.append(pictures.astype(np.float32))
        answers: dict[str, Prediction] = {}
        if readable:
            batch = to_batch(readable, images, [None] * len(readable), self.spec).to(self.device)
            self.module.eval()
            with torch.inference_mode():
                answers = {one.item: one for one in self.answer(self.module, batch, shapes)}
        for item in items:
            yield failed.get(item.id) or answers[item.id]

    # -- contracts.SavesWeights --------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json`."""
        if self.module is None or self.spec is None:
            raise CrossmedError("There are no weights to save before training.")
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.module.state_dict().items()}
        write_bytes(folder / "model.safetensors", save_tensors(state))
        config = {
            "options": self.options,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "labels": self.labels.labels,
        }
        write_json(folder / "config.json", {**config, "saw_masks": self.saw_masks, "input": asdict(self.spec)})

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote."""
        config = read_json(folder / "config.json")
        self.seed, self.batch_size, self.saw_masks = config["seed"], config["batch_size"], config["saw_masks"]
        self.labels = LabelVocabulary(config["labels"])
        seen = config["input"]
        self.spec = InputSpec(seen["size"], seen["channels"], tuple(seen["mean"]), tuple(seen["std"]))
        torch.manual_seed(self.seed)
        self.module = self._placed(self.build(self.spec, len(self.labels), fresh=False))
        self.module.load_state_dict(load_tensors((folder / "model.safetensors").read_bytes()))


def _sides(items: Sequence[Item]) -> list[int]:
    """Return the longer sides of up to 16 readable images."""
    sides: list[int] = []
    for item in items:
        try:
            sides.append(max(read_image(item.image).shape[:2]))
        except UnreadableImageError:
            continue
        if len(sides) == 16:
            break
    if not sides:
        raise CrossmedError(
            f"None of the {len(items)} training images can be read.",
            hint="train.jsonl and the data folder tell more.",
        )
    return sides

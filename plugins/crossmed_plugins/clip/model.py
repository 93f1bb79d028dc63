"""CLIP models: an item is answered by how near its pictures lie to the words of its options.

An option item has one picture and a text per option; a choice among regions has one text, its target, and a picture per
region. Either way an option is a pair of a picture and a text, its logit is scale x cosine of their embeddings, and the
item's logits go through a softmax. For towers that were trained with a sigmoid per pair (SigLIP) that is the right
posterior too: if exactly one option is true, its odds are those of the softmax, and the bias cancels.

Three modes: "zero-shot" trains nothing; "linear-probe" puts one linear layer on frozen image features (Radford et al.
2021, arXiv 2103.00020, appendix A.3); "finetune" trains the towers by cross-entropy over an item's own options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn
from torch.nn import functional

from crossmed_core.answers import choose
from crossmed_core.contracts import FitContext
from crossmed_core.errors import CrossmedError, UnreadableImageError, suggest
from crossmed_core.training.data import Batch, InputSpec, decode, to_batch
from crossmed_core.training.model import TorchModel
from crossmed_core.training.options import LabelVocabulary, choice_loss, choice_scores
from crossmed_core.types import Item, ModelSpec, Prediction
from crossmed_plugins.clip.checkpoint import MINIATURE, Checkpoint, resolve
from crossmed_plugins.clip.pictures import MARGIN, RESIZE, ClipInput, count
from crossmed_plugins.clip.probe import Features, fit_probe, option_logits
from crossmed_plugins.clip.prompts import TEMPLATES, Wording, compared
from crossmed_plugins.clip.towers import IMAGE_PARAMETERS, build, embedding_width, image_size, tokenizer

MODES = ("finetune", "linear-probe", "zero-shot")
HIGH_RATE = 3e-4
"""Above this peak learning rate, fine-tuning is likely to undo the pretraining."""
TEXTS = 256
"""Prompts that are embedded at once."""

Prompts = tuple[str, ...]
"""The prompts whose mean embedding stands for one text."""


@dataclass(frozen=True)
class Pairs:
    """Which picture and which text each option of a batch of items stands for.

    Attributes:
        pictures: int64 (items, most options), places in the batch's pictures; 0 for padding.
        texts: int64, the same shape, places in `prompts`; 0 for padding.
        real: bool, the same shape; False for padding.
        prompts: The distinct texts.
    """

    pictures: torch.Tensor
    texts: torch.Tensor
    real: torch.Tensor
    prompts: tuple[Prompts, ...]

    @classmethod
    def of(cls, items: Sequence[Item], wording: Wording) -> Pairs:
        """Lay out the options of items whose pictures follow each other as `ClipInput` makes them."""
        width = max(len(item.options) for item in items)
        pictures, texts = torch.zeros(2, len(items), width, dtype=torch.int64)
        real = torch.zeros(len(items), width, dtype=torch.bool)
        places: dict[Prompts, int] = {}
        first = 0
        for row, item in enumerate(items):
            shown = count(item)
            for column, text in enumerate(compared(item)):
                pictures[row, column] = first + (column if shown > 1 else 0)
                texts[row, column] = places.setdefault(wording.prompts(item, text), len(places))
                real[row, column] = True
            first += shown
        return cls(pictures, texts, real, tuple(places))

    def logits(self, images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Return scale x cosine for every option.

        Args:
            images: (pictures, width), each of length 1.
            texts: (texts, width), each of length 1.
            scale: The learned factor.

        Returns:
            float32 (items, most options), meaningless for padding.
        """
        return scale.float() * (images[self.pictures].float() * texts[self.texts].float()).sum(dim=-1)


def one_of_each(texts: Sequence[Prompts]) -> list[Prompts]:
    """Draw a template by torch's generator, the same for all texts: a step that embeds them all costs several times."""
    place = int(torch.randint(2**31, ()))
    return [(text[place % len(text)],) for text in texts]


def averaged(embeddings: torch.Tensor, prompts: Sequence[str], texts: Sequence[Prompts]) -> torch.Tensor:
    """Return the mean embedding of each text's prompts, scaled to length 1.

    Args:
        embeddings: (prompts, width), each of length 1.
        prompts: Whose embeddings these are, each once.
        texts: The prompts of each text.

    Returns:
        (texts, width).
    """
    place = {prompt: row for row, prompt in enumerate(prompts)}
    shares = torch.zeros(len(texts), len(prompts), dtype=embeddings.dtype)
    for row, text in enumerate(texts):
        for prompt in text:
            shares[row, place[prompt]] = 1 / len(text)
    return functional.normalize(shares.to(embeddings.device) @ embeddings, dim=1)


class ClipModel(TorchModel):
    """A CLIP as a crossmed model. Options as declared by the plugin's record.

    Asked before `fit`, every mode answers as zero-shot does. Without its image (a control) an item shows mid grey;
    without its question, its prompts name neither modality nor anatomy. A fitted linear probe reads the options only.

    Args:
        device: "cpu" or "cuda".
        options: What the network is built from; written by `save`.
        checkpoint: The files.
    """

    def __init__(self, *, device: str, options: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        super().__init__(device=device, options=options)
        self.checkpoint = checkpoint
        self.mode = str(options.get("mode", MODES[0]))
        self.frozen_text = bool(options.get("freeze_text", False))
        self.wording = Wording.of(options.get("templates"))
        self.tokenizer = tokenizer(checkpoint)
        self._size = image_size(checkpoint)
        self.network: nn.Module | None = None
        self._tokens: dict[str, torch.Tensor] = {}
        self._texts: dict[Prompts, torch.Tensor] = {}

    # -- TorchModel --------------------------------------------------------------------------------

    def input_spec(self, sides: Sequence[int]) -> ClipInput:
        """Return the image tower's own size, mean and standard deviation, whatever the images' size."""
        preprocess = self.checkpoint.preprocess
        return ClipInput(
            size=self._size,
            channels=3,
            mean=tuple(preprocess.get("mean", open_clip.OPENAI_DATASET_MEAN)),
            std=tuple(preprocess.get("std", open_clip.OPENAI_DATASET_STD)),
            resize=str(self.options.get("resize", RESIZE[0])),
            interpolation=str(preprocess.get("interpolation", "bicubic")),
            margin=float(self.options.get("margin", MARGIN)),
        )

    def build(self, spec: InputSpec, labels: int, *, fresh: bool) -> nn.Module:
        """Make the network, and return the part of it that is trained."""
        self._texts.clear()
        finetune = self.mode == "finetune"
        self.network = self._placed(build(self.checkpoint, weights=fresh or not finetune)).eval()
        for name, parameter in self.network.named_parameters():
            frozen = self.frozen_text and not name.startswith(IMAGE_PARAMETERS)
            parameter.requires_grad_(finetune and not frozen)
        if finetune:
            return self.network
        return nn.Linear(embedding_width(self.checkpoint), labels) if labels else nn.Identity()

    def loss(self, module: nn.Module, batch: Batch, *, smoothing: float) -> torch.Tensor:
        """Cross-entropy over each item's own options; every distinct prompt of the batch is embedded once."""
        pairs = Pairs.of(batch.items, self.wording)
        if self.frozen_text:
            images, _, scale = module(batch.images)[:3]
            texts = self._embedded(pairs.prompts)
        else:
            shown = one_of_each(pairs.prompts) if module.training else pairs.prompts
            prompts = tuple(dict.fromkeys(prompt for text in shown for prompt in text))
            images, embeddings, scale = module(batch.images, self._tokenized(prompts))[:3]
            texts = averaged(embeddings, prompts, shown)
        logits = pairs.logits(images, texts, scale)
        return choice_loss(logits, pairs.real.to(logits.device), batch.items, smoothing=smoothing)

    def answer(self, module: nn.Module, batch: Batch, shapes: Sequence[tuple[int, int]]) -> Iterator[Prediction]:
        """Choose among each item's own options."""
        network: Any = self.network
        images = network.encode_image(batch.images, normalize=True)
        pairs = Pairs.of(batch.items, self.wording)
        if isinstance(module, nn.Linear):
            labels = self._labels_of(batch.items)
            logits, known = option_logits(module(images), pairs.pictures, labels), labels >= 0
        else:
            logits, known = pairs.logits(images, self._embedded(pairs.prompts), network.logit_scale.exp()), pairs.real
        for item, row, here in zip(batch.items, logits.cpu(), known, strict=True):
            size = len(item.options)
            yield choose(item, choice_scores(row[:size], here[:size]), seed=self.seed)

    # -- contracts ---------------------------------------------------------------------------------

    def fit(self, train: Sequence[Item], val: Sequence[Item], context: FitContext) -> None:
        """Train as the mode says (`contracts.Model`).

        Raises:
            CrossmedError: If no training image can be read.
        """
        if self.mode == "finetune":
            rate = context.settings.learning_rate
            if self.checkpoint.weights is not None and rate > HIGH_RATE:
                context.warn(f"learning_rate {rate:g} is high for pretrained towers; usual is --set learning_rate=1e-5")
            super().fit(train, val, context)
            self.network = self.module
            self._texts.clear()  # embedded before or in training
            return
        self.batch_size = context.settings.batch_size
        self._as_loaded(context.seed)
        if self.mode == "linear-probe":
            self._fit_probe(train, val, context)
        else:
            context.warn("mode zero-shot learns nothing from the training items; --split zero-shot asks it without any")

    def predict(self, items: Sequence[Item]) -> Iterator[Prediction]:
        """Answer items in batches (`contracts.Model`)."""
        if self.module is None:
            self._as_loaded(self.seed)
        yield from super().predict(items)

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote, the trained part; what was frozen comes from the checkpoint again."""
        super().restore(folder)
        self.spec = self.input_spec(())

    def facts(self) -> dict[str, Any]:
        """Return what changes a number (`contracts.DescribesItself`)."""
        spec = self.input_spec(())
        return {
            "weights": self.checkpoint.hub or str(self.checkpoint.weights or "random"),
            "commit": self.checkpoint.commit,
            "open_clip": open_clip.__version__,
            "mode": self.mode,
            "freeze_text": self.frozen_text,
            "templates": list(self.wording.templates or TEMPLATES),
            "image_size": spec.size,
            "resize": spec.resize,
            "interpolation": spec.interpolation,
        }

    # -- parts -------------------------------------------------------------------------------------

    def _as_loaded(self, seed: int) -> None:
        """Load the network and train nothing."""
        self.seed, self.spec = seed, self.input_spec(())
        torch.manual_seed(seed)
        self.module = self.build(self.spec, 0, fresh=True)

    def _tokenized(self, prompts: Sequence[str]) -> torch.Tensor:
        new = [prompt for prompt in prompts if prompt not in self._tokens]
        if new:
            self._tokens.update(zip(new, self.tokenizer(new), strict=True))
        return torch.stack([self._tokens[prompt] for prompt in prompts]).to(self.device)

    def _embedded(self, texts: Sequence[Prompts]) -> torch.Tensor:
        """Return the embeddings of texts by a text tower that does not change, each computed once.

        Returns:
            (texts, width), each of length 1.
        """
        new = [text for text in texts if text not in self._texts]
        if new:
            network: Any = self.network
            prompts = tuple(dict.fromkeys(prompt for text in new for prompt in text))
            training = network.training
            network.eval()
            # No inference tensors: what a validation batch embeds first, a training step may use.
            with torch.inference_mode(False), torch.no_grad():
                chunks = [prompts[start : start + TEXTS] for start in range(0, len(prompts), TEXTS)]
                found = torch.cat([network.encode_text(self._tokenized(chunk), normalize=True) for chunk in chunks])
                self._texts.update(zip(new, averaged(found, prompts, new), strict=True))
            network.train(training)
        return torch.stack([self._texts[text] for text in texts])

    def _fit_probe(self, train: Sequence[Item], val: Sequence[Item], context: FitContext) -> None:
        items, values = self._image_features(train, lambda text: context.warn(f"training item {text}"))
        if not items:
            raise CrossmedError(f"None of the {len(train)} training images can be read.")
        self.labels = LabelVocabulary(compared(item)[item.answer or 0] for item in items)
        seen = self._features(items, values)
        held_out, values = self._image_features(val, lambda text: context.warn(f"validation item {text}"))
        unseen = self._features(held_out, values) if held_out else None
        weight, bias = fit_probe(seen, unseen, len(self.labels), context.log)
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        self.module = layer.to(self.device)

    def _image_features(
        self, items: Sequence[Item], warn: Callable[[str], None]
    ) -> tuple[list[Item], list[torch.Tensor]]:
        """Embed the pictures of the items that can be read, a batch at a time."""
        assert self.spec is not None
        network: Any = self.network
        readable: list[Item] = []
        values: list[torch.Tensor] = []
        for start in range(0, len(items), self.batch_size):
            decoded = []
            for item in items[start : start + self.batch_size]:
                try:
                    decoded.append((item, decode(item, self.spec)[0]))
                except UnreadableImageError as error:
                    warn(f"{item.id} left out: {error}")
            if decoded:
                chunk = [item for item, _ in decoded]
                images = [pictures.astype("float32") for _, pictures in decoded]
                batch = to_batch(chunk, images, [None] * len(chunk), self.spec).to(self.device)
                with torch.no_grad():
                    values.append(network.encode_image(batch.images, normalize=True).double().cpu())
                readable += chunk
        return readable, values

    def _features(self, items: Sequence[Item], values: Sequence[torch.Tensor]) -> Features:
        pairs = Pairs.of(items, self.wording)
        return Features(items, torch.cat(list(values)), pairs.pictures, self._labels_of(items))

    def _labels_of(self, items: Sequence[Item]) -> torch.Tensor:
        return self.labels.indices([replace(item, options=compared(item)) for item in items])


class ClipFamily:
    """Loads CLIPs (`contracts.ModelFamily`)."""

    def load(self, spec: ModelSpec, *, device: str) -> ClipModel:
        """Check the options and find the files; weights are read when they are needed.

        Raises:
            CrossmedError: For an unknown name or a bad option, or files that cannot be had.
        """
        check_options(spec.options)
        return ClipModel(device=device, options=spec.options, checkpoint=resolve(spec))

    def tiny(self, *, device: str) -> ClipModel:
        """Return the miniature of open_clip's RN50, its text tower held still: the image tower then learns sooner."""
        options = {"name": MINIATURE, "freeze_text": True}
        return self.load(ModelSpec(MINIATURE, "clip", options), device=device)


def check_options(options: Mapping[str, Any]) -> None:
    """Check everything but the name.

    Raises:
        CrossmedError: Naming the option and what it must be.
    """
    for name, known in (("mode", MODES), ("resize", RESIZE)):
        value = options.get(name, known[0])
        if value not in known:
            hint = suggest(str(value), known) or f"Known: {', '.join(known)}."
            raise CrossmedError(f"{name} must be one of {', '.join(known)}, not {value!r}.", hint=hint)
    if not isinstance(options.get("freeze_text", False), bool):  # the text "False" would count as true
        raise CrossmedError(f"freeze_text must be true or false, not {options['freeze_text']!r}.")
    margin = options.get("margin", MARGIN)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not (isfinite(margin) and margin >= 0):
        raise CrossmedError(f"margin must be a number of at least 0, not {margin!r}.")
    Wording.of(options.get("templates"))

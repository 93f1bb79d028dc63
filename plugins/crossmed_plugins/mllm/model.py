"""Chat models that see: asked, trained and kept as crossmed models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from crossmed_core.answers import choose
from crossmed_core.contracts import FitContext
from crossmed_core.errors import CrossmedError, UnreadableImageError
from crossmed_core.images import encode_mask
from crossmed_core.runlog import read_json, write_json
from crossmed_core.types import ImageRef, Item, ModelSpec, Prediction
from crossmed_plugins.mllm.batching import Batcher
from crossmed_plugins.mllm.boxes import BoxForm, read_box
from crossmed_plugins.mllm.checkpoint import SHIPPED, check, fetch, weights_digest
from crossmed_plugins.mllm.distributed import train_in_processes
from crossmed_plugins.mllm.engine import Asked, Engine, LetterScores, read_letters
from crossmed_plugins.mllm.finetuning import STATE, finetune, load_adapter
from crossmed_plugins.mllm.instruction import BOX_INSTRUCTIONS
from crossmed_plugins.mllm.loading import Loaded, load
from crossmed_plugins.mllm.parser import failure_of, parse_option
from crossmed_plugins.mllm.plain import PlainWay, Prompt
from crossmed_plugins.mllm.prompt import Prompts
from crossmed_plugins.mllm.settings import Settings
from crossmed_plugins.mllm.vision import Eyes, Prepared, open_rgb

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.05}
"""How far the option probabilities of the fast and the plain way may differ on the first item: rounding, no more."""

UNKNOWN_TOKENS = 1024
"""Image tokens assumed for a batch's size where an architecture does not say."""


class MllmModel:
    """An image-text chat model (`contracts.Model`).

    The weights are loaded when they are first needed.

    Args:
        spec: Which model.
        settings: Its options.
        device: "cpu" or "cuda".
    """

    def __init__(self, spec: ModelSpec, settings: Settings, *, device: str) -> None:
        self.spec = spec
        self.settings = settings
        self.device = device
        self.seed = 0
        self.warn: Callable[[str], None] = lambda message: None
        # A block is answered whole: large enough that a GPU is busy while the next images are prepared.
        self.block = 512 if device == "cuda" else 64
        self._loaded: Loaded | None = None
        self._verified = False
        self._plainly = not settings.reuse

    # -- loading -----------------------------------------------------------------------------------

    @property
    def loaded(self) -> Loaded:
        """The model and what belongs to it, loaded now if it was not."""
        if self._loaded is None:
            self.take(load(self.spec, self.settings, self.device))
            if self.settings.adapter:
                load_adapter(self.loaded, Path(self.settings.adapter), trainable=False)
        assert self._loaded is not None
        return self._loaded

    def take(self, loaded: Loaded) -> None:
        """Put a loaded model in place."""
        self._loaded = loaded
        settings = self.settings
        self.prompts = Prompts(
            loaded.processor, instruction=settings.instruction, system=settings.system, name=self.spec.name
        )
        self.eyes = Eyes(
            loaded.model,
            loaded.processor,
            square=loaded.architecture.pad_square,
            workers=8 if self.device == "cuda" else 0,
        )
        self.batcher = Batcher(settings.budget(self.device), lambda message: self.warn(message), self.eyes.forget)
        pad = int(loaded.processor.tokenizer.pad_token_id)
        self.engine = Engine(loaded.model, self.eyes, loaded.architecture, self.batcher, pad=pad)
        self.plain = PlainWay(loaded.model, loaded.processor)

    def facts(self) -> Mapping[str, Any]:
        """Say what changes a number (`contracts.DescribesItself`)."""
        loaded, base = self.loaded, fetch(self.spec)
        letters = self.prompts.letters[:4] if self.settings.scoring == "letters" else ()
        return {
            **{name: value for name, value in asdict(self.settings).items() if value not in ("", None)},
            "hub": base.hub,
            "commit": base.commit,
            "weights_sha256": "" if base.hub else weights_digest(base.folder),
            "architecture": loaded.model_type,
            "dtype": str(loaded.model.dtype).removeprefix("torch."),
            "attention": loaded.attention,
            "token_budget": self.batcher.budget,
            "prompt": self.prompts.template,
            "letter_tokens": [list(tokens) for tokens in letters],
            "image_size": _plain_values(getattr(loaded.processor.image_processor, "size", None)),
        }

    # -- answering ---------------------------------------------------------------------------------

    def predict(self, items: Sequence[Item]) -> Iterator[Prediction]:
        """Answer items (`contracts.Model`)."""
        for answers in self.predict_orders([[item] for item in items]):
            yield answers[0]

    def predict_orders(self, groups: Sequence[Sequence[Item]]) -> Iterator[Sequence[Prediction]]:
        """Answer items in several orders of their options at once (`contracts.AnswersOrders`)."""
        self.loaded.model.eval()
        flat = [(number, item) for number, group in enumerate(groups) for item in group]
        refs = list(dict.fromkeys(item.image for _, item in flat if "image" not in item.withheld))
        prepared, failed = self._prepare(refs)
        answers: dict[int, Prediction] = {}
        letters, generated = [], []
        for place, (_, item) in enumerate(flat):
            if "image" not in item.withheld and item.image in failed:
                answers[place] = Prediction(item.id, error=str(failed[item.image]))
            elif item.kind == "option" and self.settings.scoring == "letters":
                if all(self.prompts.letters[: len(item.options)]):
                    letters.append(place)
                else:
                    reason = f"the tokenizer has no single token for one of the letters of {len(item.options)} options"
                    answers[place] = Prediction(item.id, error=f"{reason}; ask it with scoring=generate")
            else:
                generated.append(place)
        if letters:
            self._verify(flat[letters[0]][1], prepared)
            answer = self._plain_letters if self._plainly or not self.engine.reuses else self._letters
            answers |= answer([(place, *flat[place]) for place in letters], prepared)
        if generated:
            answers |= self._generated([(place, flat[place][1]) for place in generated], prepared)
        place = 0
        for group in groups:
            yield [answers[place + offset] for offset in range(len(group))]
            place += len(group)

    def _prepare(
        self, refs: Sequence[ImageRef]
    ) -> tuple[dict[ImageRef, Prepared], dict[ImageRef, UnreadableImageError]]:
        if self.engine.reuses:
            found = self.eyes.prepare(refs)
            return (
                {ref: one for ref, one in found.items() if isinstance(one, Prepared)},
                {ref: one for ref, one in found.items() if isinstance(one, UnreadableImageError)},
            )
        ready: dict[ImageRef, Prepared] = {}
        failed: dict[ImageRef, UnreadableImageError] = {}
        for ref in refs:
            try:
                image = open_rgb(ref)
            except UnreadableImageError as error:
                failed[ref] = error
            else:
                shape = image.height, image.width
                ready[ref] = Prepared({}, self.prompts.image_token, UNKNOWN_TOKENS, shape)
        return ready, failed

    def _text(self, item: Item) -> str:
        """Return an item's whole prompt."""
        instruction = BOX_INSTRUCTIONS[self.box_form] if item.kind == "mask" else None
        return self.prompts.prompt(self.prompts.question(item, instruction), image="image" not in item.withheld)

    def tokens(self, items: Sequence[Item], prepared: Mapping[ImageRef, Prepared]) -> list[list[int]]:
        """Tokenize items' prompts, images expanded to their placeholders."""
        texts = []
        for item in items:
            text = self._text(item)
            if "image" not in item.withheld:
                text = self.prompts.expanded(text, prepared[item.image].placeholder)
            texts.append(text)
        return self.prompts.encode(texts)

    def _letters(
        self, rows: Sequence[tuple[int, int, Item]], prepared: dict[ImageRef, Prepared]
    ) -> dict[int, Prediction]:
        ids = self.tokens([item for _, _, item in rows], prepared)
        asked = [
            Asked(
                tokens,
                None if "image" in item.withheld else item.image,
                self.prompts.letters[: len(item.options)],
                group,
            )
            for tokens, (_, group, item) in zip(ids, rows, strict=True)
        ]
        found = self.engine.score(asked, prepared)
        return {place: self._chosen(item, one) for (place, _, item), one in zip(rows, found, strict=True)}

    def _plain_letters(
        self, rows: Sequence[tuple[int, int, Item]], prepared: dict[ImageRef, Prepared]
    ) -> dict[int, Prediction]:
        """Score letters through the model's own processor, a batch at a time."""
        answers: dict[int, Prediction] = {}

        def ask(batch: list[tuple[int, Item]]) -> None:
            logits = self.plain.logits([self._prompt(item) for _, item in batch])
            for (place, item), row in zip(batch, logits, strict=True):
                answers[place] = self._chosen(item, read_letters(row, self.prompts.letters[: len(item.options)]))

        self._in_batches([(place, item) for place, _, item in rows], prepared, ask)
        return answers

    def _generated(self, rows: Sequence[tuple[int, Item]], prepared: dict[ImageRef, Prepared]) -> dict[int, Prediction]:
        answers: dict[int, Prediction] = {}

        def ask(batch: list[tuple[int, Item]]) -> None:
            prompts = [self._prompt(item) for _, item in batch]
            said = self.plain.generate(prompts, max_new_tokens=self.settings.max_new_tokens)
            for (place, item), text in zip(batch, said, strict=True):
                answers[place] = self._read(item, text, prepared)

        self._in_batches(rows, prepared, ask)
        return answers

    def _in_batches(
        self,
        rows: Sequence[tuple[int, Item]],
        prepared: dict[ImageRef, Prepared],
        ask: Callable[[list[tuple[int, Item]]], None],
    ) -> None:
        """Call `ask` for batches of rows that all have an image, or all have none."""
        texts = self.prompts.encode([self._text(item) for _, item in rows])
        lengths = {
            place: len(ids) + (prepared[item.image].tokens if "image" not in item.withheld else 0)
            for (place, item), ids in zip(rows, texts, strict=True)
        }
        for without in (False, True):
            part = [(place, item) for place, item in rows if ("image" in item.withheld) is without]
            self.batcher.run(part, lambda row: lengths[row[0]], ask)

    def _prompt(self, item: Item) -> Prompt:
        return self._text(item), None if "image" in item.withheld else self.eyes.shown(open_rgb(item.image))

    def _chosen(self, item: Item, scores: LetterScores) -> Prediction:
        if not all(math.isfinite(one) for one in scores.options):
            return Prediction(item.id, error="the model's output is not a number (NaN)")
        return replace(choose(item, scores.options, seed=self.seed), letter_mass=round(scores.mass, 6))

    def _read(self, item: Item, text: str, prepared: Mapping[ImageRef, Prepared]) -> Prediction:
        if item.kind == "option":
            option, failure = parse_option(text, item.options)
            if option is None:
                reason = "the model refused" if failure == "refused" else "the answer names no single option"
                return Prediction(item.id, raw=text, error=f"{reason}: {text.strip()[:80]!r}", failure=failure)
            return Prediction(item.id, option=option, raw=text)
        if "image" in item.withheld:
            return Prediction(item.id, raw=text, error="there is no image to outline a region on")
        image = prepared[item.image]
        region = read_box(text, self.box_form, self.seen_size(image), image.shape)
        if region is None:
            reason = f"the answer is no box: {text.strip()[:80]!r}"
            return Prediction(item.id, raw=text, error=reason, failure=failure_of(text))
        return Prediction(item.id, mask=encode_mask(region), raw=text)

    @property
    def box_form(self) -> BoxForm:
        """How this model writes boxes."""
        return self.loaded.architecture.boxes or "thousandths"

    def seen_size(self, image: Prepared) -> tuple[int, int]:
        """Return (height, width) in pixels of an image as the model sees it."""
        if "image_grid_thw" not in image.tensors:
            return image.shape
        patch = int(self.loaded.processor.image_processor.patch_size)
        _, rows, columns = image.tensors["image_grid_thw"][0].tolist()
        return int(rows) * patch, int(columns) * patch

    def _verify(self, item: Item, prepared: dict[ImageRef, Prepared]) -> None:
        """Hold the fast way against the plain one on the first item; if they differ, go the plain way and say so."""
        if self._verified or self._plainly or not self.engine.reuses:
            return
        self._verified = True
        fast = self._letters([(0, 0, item)], prepared)[0].option_scores
        slow = self._plain_letters([(0, 0, item)], prepared)[0].option_scores
        if fast is None or slow is None:
            return
        off = max(abs(one - other) for one, other in zip(fast, slow, strict=True))
        if off > TOLERANCE[self.settings.precision(self.device)]:
            self._plainly = True
            self.warn(
                f"with precomputed image features {self.spec.name!r} answers otherwise than by its own processor "
                f"(option probabilities differ by {off:.3g}); going on without them, slower"
            )

    # -- training ----------------------------------------------------------------------------------

    def fit(self, train: Sequence[Item], val: Sequence[Item], context: FitContext) -> None:
        """Fine-tune (`contracts.Model`)."""
        self.seed = context.seed
        if self.settings.processes > 1 or self.settings.accelerate_config:
            train_in_processes(self, train, val, context)
        else:
            finetune(self, train, val, context)
        self.eyes.forget()

    # -- contracts.SavesWeights --------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write an adapter, as peft does, or all weights with the processor, as transformers does."""
        loaded = self.loaded
        if self.settings.tuning == "lora":
            loaded.adapted.save_pretrained(folder)
        else:
            loaded.model.to(getattr(torch, self.settings.precision(self.device))).save_pretrained(folder)
            loaded.processor.save_pretrained(folder)
        facts = {"seed": self.seed, "tuning": self.settings.tuning, "architecture": loaded.model_type}
        write_json(folder / STATE, {**facts, "hub": loaded.checkpoint.hub, "commit": loaded.checkpoint.commit})

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote."""
        self.seed = int(read_json(folder / STATE, ["seed"])["seed"])
        if self.settings.tuning == "lora":
            self.take(load(self.spec, self.settings, self.device))
            load_adapter(self.loaded, folder, trainable=False)
        else:
            base = replace(self.spec, options={**self.spec.options, "name": str(folder.absolute())}, hub="")
            self.take(load(base, self.settings, self.device))


def _plain_values(size: Any) -> Any:
    return {name: value for name, value in dict(size).items() if value is not None} if size is not None else None


class MllmFamily:
    """Loads image-text chat models (`contracts.ModelFamily`)."""

    def load(self, spec: ModelSpec, *, device: str) -> MllmModel:
        """Find the weights, on the hub if need be; they are read when first needed.

        Raises:
            CrossmedError: For a wrong option, or weights that cannot be had.
        """
        settings = Settings.of(spec.options)
        check(fetch(spec), spec)
        if settings.adapter and not (Path(settings.adapter) / "adapter_config.json").is_file():
            raise CrossmedError(f"{settings.adapter} holds no LoRA adapter (adapter_config.json).")
        return MllmModel(spec, settings, device=device)

    def tiny(self, *, device: str) -> MllmModel:
        """Return the Qwen2-VL miniature that comes with this package."""
        options = {"name": f"{SHIPPED}qwen2vl-tiny", "tuning": "full", "vision": "trained"}
        return MllmModel(ModelSpec("tiny", "mllm", options), Settings.of(options), device=device)

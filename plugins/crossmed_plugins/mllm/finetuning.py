"""Fine-tuning: adapters (LoRA) or all weights, with a loss on the answer alone.

A training text is the prompt in the model's chat template and the answer: the option's letter (or a box) and the end of
the turn. Only these few tokens meet the vocabulary and the loss. While the vision tower is frozen and images are not
augmented, each image is looked at once, and its features are kept on disk.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional

from crossmed_core.contracts import FitContext
from crossmed_core.errors import CrossmedError, UnreadableImageError
from crossmed_core.images import read_mask
from crossmed_core.runlog import read_json
from crossmed_core.training.loop import train as train_loop
from crossmed_core.types import LETTERS, ImageRef, Item
from crossmed_plugins.mllm.boxes import write_box
from crossmed_plugins.mllm.feature_store import FeatureStore
from crossmed_plugins.mllm.loading import Loaded, load
from crossmed_plugins.mllm.training_batches import Example, TokenBatch, TokenBatches
from crossmed_plugins.mllm.vision import Prepared

STATE = "crossmed.json"
"""Beside saved weights: what they belong to."""

if TYPE_CHECKING:
    from crossmed_plugins.mllm.model import MllmModel


def finetune(model: MllmModel, train: Sequence[Item], val: Sequence[Item], context: FitContext) -> None:
    """Train a model in place.

    Args:
        model: Its settings say what is trained.
        train: Training items.
        val: Validation items.
        context: Seed, settings, checkpoint folder, log.

    Raises:
        CrossmedError: If no training image can be read, or the adapter does not fit.
    """
    settings = model.settings
    full = settings.tuning == "full"
    # AdamW's small steps are lost in 16 bits: all weights are trained as float32, under autocast.
    model.take(load(model.spec, settings, model.device, training_dtype="float32" if full else ""))
    torch.manual_seed(context.seed)
    loaded = model.loaded
    if full:
        _choose_weights(loaded, frozen=settings.vision == "frozen")
    elif settings.adapter:
        load_adapter(loaded, Path(settings.adapter), trainable=True)
    else:
        add_adapter(model)
    if settings.checkpointing:
        loaded.model.activation_checkpointing_enable({"use_reentrant": False})
        loaded.model.enable_input_require_grads()
    trainer = Finetuning(model)
    train_loop(trainer, train, val, context)
    if settings.checkpointing:
        loaded.model.activation_checkpointing_disable()
        loaded.model.disable_input_require_grads()
    if full:
        loaded.model.to(getattr(torch, settings.precision(model.device)))
    loaded.model.eval()


def _choose_weights(loaded: Loaded, *, frozen: bool) -> None:
    """Let all weights learn, or all but those of the vision tower and its connector."""
    prefixes = tuple(f"{prefix}." for prefix in loaded.architecture.vision)
    for name, parameter in loaded.model.named_parameters():
        parameter.requires_grad = not (frozen and prefixes and name.startswith(prefixes))


def add_adapter(model: MllmModel) -> None:
    """Put untrained LoRA layers into a model, in place."""
    settings, loaded = model.settings, model.loaded
    frozen = settings.vision == "frozen"
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_rank,
        lora_dropout=settings.lora_dropout,
        bias="none",
        # By module names: a bare "q_proj" would also hit vision towers that use the same names.
        target_modules=loaded.architecture.lora_targets if frozen else "all-linear",
    )
    revision = loaded.checkpoint.commit or None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers in a way that grows old
            loaded.adapted = get_peft_model(loaded.model, config, revision=revision)
    except ValueError as error:
        raise CrossmedError(
            f"Model {model.spec.name!r}: LoRA finds no layers to adapt ({str(error).splitlines()[0]}).",
            hint="Train all weights with --set tuning=full.",
        ) from error


def load_adapter(loaded: Loaded, folder: Path, *, trainable: bool) -> None:
    """Put a saved LoRA adapter into a model, in place.

    Raises:
        CrossmedError: If the folder holds none, or it does not fit: then peft would leave layers untrained with nothing
            but a warning.
    """
    if (folder / STATE).exists():  # an adapter that was made elsewhere has no such file
        owner = read_json(folder / STATE, ["architecture"])["architecture"]
        if owner != loaded.model_type:
            raise CrossmedError(f"The adapter in {folder} is of architecture {owner!r}, not {loaded.model_type!r}.")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            loaded.adapted = PeftModel.from_pretrained(loaded.model, str(folder), is_trainable=trainable)
        except (ValueError, RuntimeError, OSError) as error:
            raise CrossmedError(
                f"The adapter in {folder} cannot be put into this model: {str(error).splitlines()[0][:300]}.",
                hint="It belongs to another architecture, or its files are damaged.",
            ) from error
    for one in said:
        if "missing adapter keys" in str(one.message).lower():
            raise CrossmedError(
                f"The adapter in {folder} does not fit this model: some of its layers are not in it.",
                hint="It was trained on another model, or by other releases of peft and transformers.",
            )


class Finetuning:
    """The training loop's view of a chat model (`training.loop.Trainable`).

    Args:
        model: With adapters, or with its weights chosen.
    """

    def __init__(self, model: MllmModel) -> None:
        self.model = model
        self.module: Any = model.loaded.model
        self.store: FeatureStore | None = None

    def training_batches(self, items: Sequence[Item], context: FitContext, *, rank: int, world: int) -> TokenBatches:
        """Tokenize, look at images where that is done once, and cut into batches of like length."""
        settings = context.settings
        augment = settings.augment
        if self._features_hold(augment):
            self.store = FeatureStore(context.folder / f"features-{rank}" if context.folder else None)
        examples = self._examples(items, context, "training", keep_pixels=not augment)
        return TokenBatches(
            examples,
            self.model.eyes,
            self.store,
            pad=self.model.engine.pad,
            batch_size=settings.batch_size,
            seed=context.seed,
            augment=augment,
            max_shift=settings.max_shift,
            rank=rank,
            world=world,
        )

    def held_out_batches(self, items: Sequence[Item], context: FitContext) -> list[TokenBatch]:
        """Make the batches of the validation items."""
        examples = self._examples(items, context, "validation", keep_pixels=True)
        size = context.settings.batch_size
        batches = TokenBatches(examples, self.model.eyes, self.store, pad=self.model.engine.pad, batch_size=size)
        return [batches.of(examples[start : start + size]) for start in range(0, len(examples), size)]

    def _features_hold(self, augment: bool) -> bool:
        """Whether an image looks the same to the model at every step."""
        frozen = bool(self.model.loaded.architecture.vision) and self.model.settings.vision == "frozen"
        return frozen and not augment and self.model.engine.reuses

    def _examples(self, items: Sequence[Item], context: FitContext, part: str, *, keep_pixels: bool) -> list[Example]:
        model = self.model
        if not model.engine.reuses:
            raise CrossmedError(
                f"Model {model.spec.name!r}: fine-tuning is not supported for its architecture "
                f"{model.loaded.model_type!r}; it can be asked as it is (--split zero-shot)."
            )
        refs = list(dict.fromkeys(item.image for item in items))
        ready: dict[ImageRef, Prepared | UnreadableImageError] = {}
        room = model.eyes.room
        for ref in refs:
            (one,) = model.eyes.prepare([ref]).values()
            if isinstance(one, UnreadableImageError):
                ready[ref] = one
                continue
            if self.store is not None:
                self.store.add(ref, one, model.eyes)
            room -= sum(tensor.nbytes for tensor in one.tensors.values())
            # What will not be needed again, or does not fit, is prepared anew when its turn comes.
            ready[ref] = one if keep_pixels and self.store is None and room > 0 else one.without_pixels()
        if self.store is not None:
            self.store.flush(model.eyes)
        kept: list[tuple[Item, str]] = []
        for item in items:
            image = ready[item.image]
            if isinstance(image, UnreadableImageError):
                context.warn(f"{part} item {item.id} left out: {image}")
                continue
            answer = self._answer(item, image)
            if answer is None:
                context.warn(f"{part} item {item.id} left out: it has no region to put a box around")
                continue
            kept.append((item, answer))
        images = {ref: image for ref, image in ready.items() if isinstance(image, Prepared)}
        prompts = model.tokens([item for item, _ in kept], images)
        return [
            Example(item, prompt, model.prompts.answer_ids(answer), images[item.image])
            for (item, answer), prompt in zip(kept, prompts, strict=True)
        ]

    def _answer(self, item: Item, image: Any) -> str | None:
        """Return what the model is to say; None for an empty region."""
        if item.kind == "option":
            assert item.answer is not None
            return LETTERS[item.answer]
        assert item.mask is not None
        mask = read_mask(item.mask)
        return write_box(mask, self.model.box_form, self.model.seen_size(image)) if mask.any() else None

    def loss(self, module: torch.nn.Module, batch: TokenBatch, *, smoothing: float) -> torch.Tensor:
        """Return the mean cross-entropy over the tokens of the answers."""
        engine = self.model.engine
        images: dict[str, Any]
        if batch.features is not None:
            images = engine.features_for(batch.features)
        elif (joined := batch.joined()) is not None:
            images = joined
        else:
            groups = [self.model.eyes.look([one])[0] for one in batch.images]
            images = engine.features_for(groups)
        kept = batch.labels.shape[1]
        logits = module(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=engine.positions(batch.ids, batch.mask, batch.images),
            use_cache=False,
            logits_to_keep=kept + 1,
            **images,
            **engine.token_types(batch.ids),
        ).logits[:, :-1]
        return functional.cross_entropy(
            logits.float().flatten(0, 1), batch.labels.flatten(), ignore_index=-100, label_smoothing=smoothing
        )

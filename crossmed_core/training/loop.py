"""The training loop, on one page.

AdamW, one-cycle learning rate, gradient accumulation and clipping, mixed precision on CUDA, checkpoints, and early
stopping on the validation loss if asked for. What happens in a step depends on the seed and the step's number alone,
never on how often the run was killed before: batches are numbered, and torch's generator is seeded anew for every step.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch.utils.data import DataLoader

from crossmed_core.contracts import FitContext
from crossmed_core.devices import precision
from crossmed_core.errors import CrossmedError
from crossmed_core.runlog import write_bytes
from crossmed_core.seeding import digest
from crossmed_core.types import Item

LOG_EVERY = 20
CHECKPOINT = "checkpoint.pt"


class Batched(Protocol):
    """Items on their way into a network."""

    items: list[Item]

    def to(self, device: torch.device) -> Self:
        """Move the tensors."""


class NumberedBatches(Protocol):
    """All batches of a training run, each a pure function of its number."""

    items: list[Item]
    """The training items that can be read."""

    def __getitem__(self, number: int) -> Any:
        """Make a batch (`Batched`)."""


class Trainable(Protocol):
    """A network with all that the loop needs to know of it."""

    module: torch.nn.Module | None

    def training_batches(self, items: Sequence[Item], context: FitContext, *, rank: int, world: int) -> NumberedBatches:
        """Make the batches of process `rank` of `world`: `steps * accumulate` of `batch_size` items each."""

    def held_out_batches(self, items: Sequence[Item], context: FitContext) -> Sequence[Batched]:
        """Make the batches of the validation items, without augmentation; unreadable ones are warned of."""

    def loss(self, module: torch.nn.Module, batch: Any, *, smoothing: float) -> torch.Tensor:
        """Return the training loss of a batch, a scalar."""


def train(model: Trainable, train: Sequence[Item], val: Sequence[Item], context: FitContext) -> None:
    """Train `model.module` in place.

    Args:
        model: Gives the network, the batches and the loss.
        train: Training items.
        val: Validation items; looked at to report, and to stop early if `patience` is set.
        context: Seed, settings, checkpoint folder, log.

    Raises:
        CrossmedError: If no training image can be read, or the loss stops being a number.
    """
    settings = context.settings
    assert model.module is not None
    accelerator = Accelerator(
        cpu=context.device == "cpu",
        mixed_precision="bf16" if precision(context.device).startswith("bfloat16") else "no",
        gradient_accumulation_steps=settings.accumulate,
        # Towers that are read at an inner layer have weights that no loss reaches.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise CrossmedError(
            f"Training with {accelerator.distributed_type.value} is not supported: sharded weights could not be kept.",
            hint="Use plain data parallel training (processes=N), adapters (tuning=lora) or checkpointing=true.",
        )
    batches = model.training_batches(train, context, rank=accelerator.process_index, world=accelerator.num_processes)
    held_out = model.held_out_batches(val, context)
    if not batches.items:
        raise CrossmedError(f"None of the {len(train)} training images can be read.")
    optimizer = torch.optim.AdamW(
        _parameter_groups(model.module, settings.weight_decay), lr=settings.learning_rate, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=settings.warmup
    )
    module, optimizer = accelerator.prepare(model.module, optimizer)
    state = _State(model.module, optimizer, schedule, context.folder / CHECKPOINT if context.folder else None)
    state.load(accelerator.device)

    # Numbered batches need no shuffling sampler: workers prefetch in order, a resumed run starts at its number.
    numbers = range(state.step * settings.accumulate, settings.steps * settings.accumulate)
    workers = 4 if accelerator.device.type == "cuda" else 0
    numbered: Any = batches  # a map-style dataset by its methods, which torch's annotations do not know
    loader = iter(DataLoader(numbered, batch_size=None, sampler=numbers, num_workers=workers, pin_memory=workers > 0))
    saved = time.monotonic()
    while state.step < settings.steps and not state.stopped:
        torch.manual_seed(digest(context.seed, "step", state.step))
        module.train()
        total = torch.zeros((), device=accelerator.device)
        for _ in range(settings.accumulate):
            batch = next(loader).to(accelerator.device)
            with accelerator.accumulate(module), accelerator.autocast():
                loss = model.loss(module, batch, smoothing=settings.label_smoothing)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(module.parameters(), settings.clip_norm)
                optimizer.step()
                optimizer.zero_grad()
            total += loss.detach() / settings.accumulate
        schedule.step()
        state.step += 1
        last = state.step == settings.steps
        values: dict[str, float] = {}
        if last or state.step % LOG_EVERY == 0:
            values["loss"] = round(float(total), 5)
            if values["loss"] != values["loss"]:
                raise CrossmedError(
                    f"The training loss is not a number at step {state.step}.",
                    hint="Lower it with --set learning_rate=...",
                )
        if held_out and (last or (settings.eval_every and state.step % settings.eval_every == 0)):
            values["val_loss"] = round(_mean_loss(model, module, held_out, accelerator.device), 5)
            state.judge(values["val_loss"], settings.patience)
        context.log(state.step, settings.steps, **values)
        if not last and time.monotonic() - saved > settings.checkpoint_seconds and accelerator.is_main_process:
            state.save()
            saved = time.monotonic()
    if settings.patience:
        state.restore_best()
    # Without accelerate's wrapper of `forward`: a model that was just trained must answer like one that was restored.
    model.module = accelerator.unwrap_model(module, keep_fp32_wrapper=False)


class _State:
    """What a killed run needs to go on: step, trained weights, optimizer, schedule, the best weights so far.

    Frozen weights are those that the model was loaded with, and may be thousands of times as large: they are not kept.
    """

    def __init__(self, module: torch.nn.Module, optimizer: Any, schedule: Any, path: Path | None) -> None:
        self.module, self.optimizer, self.schedule, self.path = module, optimizer, schedule, path
        self.step = 0
        self.best = float("inf")
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.since_best = 0
        self.stopped = False

    def judge(self, val_loss: float, patience: int) -> None:
        """Keep the best weights and stop after `patience` looks without improvement; 0 = do neither."""
        if not patience:
            return
        if val_loss < self.best:
            self.best, self.since_best = val_loss, 0
            self.best_weights = {name: value.detach().clone() for name, value in self._weights().items()}
        else:
            self.since_best += 1
            self.stopped = self.since_best >= patience

    def _weights(self) -> dict[str, torch.Tensor]:
        frozen = {
            name
            for name, parameter in self.module.named_parameters(remove_duplicate=False)
            if not parameter.requires_grad
        }
        return {name: value for name, value in self.module.state_dict().items() if name not in frozen}

    def _load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        if set(weights) != set(self._weights()):
            raise KeyError("it holds other weights than this network trains")
        self.module.load_state_dict(weights, strict=False)

    def restore_best(self) -> None:
        """Go back to the weights with the lowest validation loss, if they were kept."""
        if self.best_weights is not None:
            self._load_weights(self.best_weights)

    def save(self) -> None:
        if self.path is None:
            return
        buffer = io.BytesIO()
        kept = {name: getattr(self, name) for name in ("step", "best", "best_weights", "since_best", "stopped")}
        parts = {name: getattr(self, name).state_dict() for name in ("optimizer", "schedule")}
        torch.save({**kept, **parts, "module": self._weights()}, buffer)
        write_bytes(self.path, buffer.getvalue())

    def load(self, device: torch.device) -> None:
        if self.path is None or not self.path.exists():
            return
        try:
            content = torch.load(self.path, map_location=device, weights_only=True)
            self._load_weights(content.pop("module"))
        except Exception as error:
            raise CrossmedError(
                f"The checkpoint {self.path} cannot be read ({type(error).__name__}).",
                hint="Delete it and run the same command again to train from the start.",
            ) from error
        for name in ("optimizer", "schedule"):
            getattr(self, name).load_state_dict(content.pop(name))
        for name, value in content.items():
            setattr(self, name, value)


def _parameter_groups(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices and kernels, not biases and norms."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {
            "params": [parameter for parameter in parameters if parameter.ndim > 1],
            "weight_decay": weight_decay,
        },
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def _mean_loss(model: Trainable, module: torch.nn.Module, batches: Sequence[Batched], device: torch.device) -> float:
    module.eval()
    with torch.inference_mode():
        losses = [float(model.loss(module, batch.to(device), smoothing=0.0)) for batch in batches]
    sizes = [len(batch.items) for batch in batches]
    return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)

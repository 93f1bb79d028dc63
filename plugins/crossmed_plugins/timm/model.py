"""timm classifiers: one linear layer over all labels of the training items, read at the options of the item asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from crossmed_core.errors import CrossmedError, ExitCode, suggest
from crossmed_core.training.checks import check_options
from crossmed_core.training.data import Batch, InputSpec
from crossmed_core.training.model import TorchModel
from crossmed_core.types import ModelSpec, Prediction

# A grey channel is the mean of ImageNet's three, as timm itself sums the first convolution over them.
GREY_MEAN, GREY_STD = (0.449,), (0.226,)


class Classifier(nn.Module):
    """A timm backbone with one linear layer.

    Args:
        backbone: timm model made with `num_classes=0`; typed loosely, as every architecture adds its own.
        pool: "model", or "max+grid" for backbones whose `forward_features` returns (items, channels, height, width).
        labels: Outputs.
    """

    def __init__(self, backbone: Any, pool: str, labels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        width = int(backbone.num_features) * 5 if pool == "max+grid" else int(backbone.head_hidden_size)
        self.head = nn.Linear(width, labels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (items, channels, size, size) to logits (items, labels)."""
        if self.pool == "model":
            features = self.backbone(images)
        else:
            maps = self.backbone.forward_features(images)
            grid = nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)
            features = torch.cat([maps.amax(dim=(2, 3)), grid], dim=1)
        logits: torch.Tensor = self.head(features)
        return logits


class TimmModel(TorchModel):
    """A timm classifier as a crossmed model. Options as declared by the plugin's record."""

    def input_spec(self, sides: Sequence[int]) -> InputSpec:
        """Take the images' own size, at most the model's; the model's own where it is fixed (transformers)."""
        backbone = self._backbone(pretrained=False)
        config = resolve_model_data_config(backbone)
        own = int(config["input_size"][-1])
        fixed = bool(backbone.pretrained_cfg.get("fixed_input_size"))
        size = int(self.options.get("size") or (own if fixed else min(own, max(sides))))
        channels = int(self.options.get("channels", 3))
        if channels == 1:
            return InputSpec(size, 1, GREY_MEAN, GREY_STD)
        return InputSpec(size, 3, tuple(config["mean"]), tuple(config["std"]))

    def build(self, spec: InputSpec, labels: int, *, fresh: bool) -> nn.Module:
        """Make backbone and head."""
        return Classifier(self._backbone(pretrained=fresh), str(self.options.get("pool", "model")), labels)

    def _backbone(self, *, pretrained: bool) -> Any:
        options = self.options
        arguments: dict[str, Any] = {"num_classes": 0, "in_chans": int(options.get("channels", 3))}
        arguments |= dict(options.get("kwargs", {}))
        wanted = pretrained and bool(options.get("pretrained") or options.get("weights"))
        if options.get("weights"):
            arguments["pretrained_cfg_overlay"] = {"file": str(options["weights"])}
        name = str(options["name"])
        if wanted and not options.get("weights") and options.get("hub"):
            name = (
                f"hf-hub:{options['hub']}@{options['revision']}"
                if options.get("revision")
                else f"hf-hub:{options['hub']}"
            )
        try:
            return timm.create_model(name, pretrained=wanted, **arguments)
        except TypeError as error:
            raise CrossmedError(f"timm cannot build {options['name']!r} with {arguments}: {error}.") from error
        except (OSError, RuntimeError) as error:
            if not wanted:
                raise
            raise CrossmedError(
                f"The pretrained weights of {options['name']!r} cannot be had: {str(error).splitlines()[0]}.",
                hint="Fetch them on a machine with a network, or pass --set weights=FILE, or --set pretrained=false.",
                exit_code=ExitCode.ENVIRONMENT,
            ) from error

    def loss(self, module: nn.Module, batch: Batch, *, smoothing: float) -> torch.Tensor:
        """Cross-entropy over each item's own options."""
        return self.labels.loss(module(batch.images), batch.items, smoothing=smoothing)

    def answer(self, module: nn.Module, batch: Batch, shapes: Sequence[tuple[int, int]]) -> Iterator[Prediction]:
        """Choose among each item's own options."""
        yield from self.labels.predictions(module(batch.images), batch.items, seed=self.seed)


class TimmFamily:
    """Loads timm models (`contracts.ModelFamily`)."""

    def load(self, spec: ModelSpec, *, device: str) -> TimmModel:
        """Check name and options; the network itself is built for the training items.

        Raises:
            CrossmedError: For an unknown timm name or a bad option.
        """
        options = dict(spec.options)
        if options.get("pretrained") and spec.hub:
            options |= {"hub": spec.hub, "revision": spec.revision}
        _check(options)
        return TimmModel(device=device, options=options)

    def tiny(self, *, device: str) -> TimmModel:
        """Return a resnet18 of an eighth of its width on grey images."""
        kwargs = {"channels": [8, 16, 32, 64]}
        return TimmModel(
            device=device, options={"name": "resnet18", "channels": 1, "pool": "max+grid", "kwargs": kwargs}
        )


def _check(options: Mapping[str, Any]) -> None:
    name = str(options.get("name", ""))
    if not timm.is_model(name):
        hint = suggest(name.partition(".")[0], timm.list_models())
        raise CrossmedError(f"timm has no model {name!r}.", hint=f"{hint} timm.list_models() lists all.".strip())
    base, _, tag = name.partition(".")
    if tag and tag not in {one.partition(".")[2] for one in timm.list_pretrained(f"{base}.*")}:
        raise CrossmedError(
            f"timm has no weights {tag!r} of {base!r}.", hint=suggest(name, timm.list_pretrained(f"{base}.*"))
        )
    check_options(options)
    if options.get("pool", "model") not in ("model", "max+grid"):
        raise CrossmedError(f"pool must be 'model' or 'max+grid', not {options['pool']!r}.")
    if options.get("weights") and not Path(str(options["weights"])).is_file():
        raise CrossmedError(f"Weights file {options['weights']} does not exist.", exit_code=ExitCode.ENVIRONMENT)

"""smp networks: masks from the decoder, and labels from an auxiliary head on the shared encoder.

The auxiliary head is what lets a U-Net learn from classification cells at all, and so what cross-task transfer
(CrossMed's "+7 %" of cIoU after training on classification data) is measured with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.encoders import get_encoder_names
from torch import nn
from torch.nn import functional

from crossmed_core.errors import CrossmedError, ExitCode, suggest
from crossmed_core.images import encode_mask
from crossmed_core.training.checks import check_options
from crossmed_core.training.data import Batch, InputSpec, undo_letterbox
from crossmed_core.training.model import TorchModel
from crossmed_core.types import ModelSpec, Prediction

# smp fetches these from the hub for its built-in encoders; they are ImageNet's for every one that we alias.
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = (0.449,), (0.226,)
STRIDE = 32
LARGEST = 512


class SmpModel(TorchModel):
    """An smp network as a crossmed model. Options as declared by the plugin's record."""

    def input_spec(self, sides: Sequence[int]) -> InputSpec:
        """Take the images' own size, at most 512, rounded up to the stride that most architectures need."""
        size = int(self.options.get("size") or min(LARGEST, -(-max(sides) // STRIDE) * STRIDE))
        if int(self.options.get("channels", 3)) == 1:
            return InputSpec(size, 1, GREY_MEAN, GREY_STD)
        return InputSpec(size, 3, RGB_MEAN, RGB_STD)

    def build(self, spec: InputSpec, labels: int, *, fresh: bool) -> nn.Module:
        """Make the network, with a label head if there are labels to learn."""
        architecture, encoder = str(self.options["name"]).split("/", 1)
        use_labels = labels > 0 and bool(self.options.get("auxiliary", True))
        try:
            network: nn.Module = smp.create_model(
                architecture,
                encoder_name=encoder,
                encoder_weights="imagenet" if fresh and self.options.get("pretrained") else None,
                in_channels=spec.channels,
                classes=1,
                aux_params={"classes": labels, "pooling": "avg"} if use_labels else None,
                **dict(self.options.get("kwargs", {})),
            )
        except TypeError as error:
            raise CrossmedError(f"smp cannot build {self.options['name']!r}: {error}.") from error
        except (OSError, RuntimeError) as error:
            if not self.options.get("pretrained"):
                raise
            raise CrossmedError(
                f"The pretrained weights of {encoder!r} cannot be had: {str(error).splitlines()[0]}.",
                hint="Fetch them on a machine with a network, or pass --set pretrained=false.",
                exit_code=ExitCode.ENVIRONMENT,
            ) from error
        return network

    def _outputs(self, module: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return mask logits (items, 1, size, size) and label logits (items, labels) or None."""
        result = module(images)
        return result if isinstance(result, tuple) else (result, None)

    def loss(self, module: nn.Module, batch: Batch, *, smoothing: float) -> torch.Tensor:
        """Add the mean loss of mask items (cross-entropy + Dice) and of option items, weighted by their shares."""
        masks, labels = self._outputs(module, batch.images)
        total = masks.sum() * 0  # keeps every parameter in the graph when a batch has one kind only
        share = float(batch.is_mask.float().mean())
        if share > 0:
            total = total + share * mask_loss(masks[batch.is_mask], batch.masks[batch.is_mask])
        if share < 1 and labels is not None:
            options = ~batch.is_mask
            items = [item for item in batch.items if item.kind == "option"]
            weight = (1 - share) * float(self.options.get("auxiliary_weight", 1.0))
            total = total + weight * self.labels.loss(labels[options], items, smoothing=smoothing)
        return total

    def answer(self, module: nn.Module, batch: Batch, shapes: Sequence[tuple[int, int]]) -> Iterator[Prediction]:
        """Answer mask items by probability > 0.5 at the image's own size, option items by the label head."""
        masks, labels = self._outputs(module, batch.images)
        found = (masks[:, 0].float() > 0).cpu().numpy()
        if labels is None:
            labels = masks.new_zeros(len(batch.items), len(self.labels))
        for row, (item, shape) in enumerate(zip(batch.items, shapes, strict=True)):
            if item.kind == "mask":
                region = encode_mask(undo_letterbox(found[row], shape))
                # Without a single training mask the decoder still has its random weights.
                yield Prediction(item.id, mask=region, guess=not self.saw_masks)
            else:
                yield from self.labels.predictions(labels[row : row + 1], [item], seed=self.seed)


def mask_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean over pixels of the binary cross-entropy, plus one minus the soft Dice of the batch.

    smp's DiceLoss counts a batch without foreground as 0, which leaves false alarms unpunished; the cross-entropy does
    punish them.

    Args:
        logits: (items, 1, height, width).
        truth: The same shape, of 0 and 1.
    """
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, truth)
    dice: torch.Tensor = smp.losses.DiceLoss("binary")(logits, truth)
    return cross_entropy + dice


class SmpFamily:
    """Loads smp networks (`contracts.ModelFamily`)."""

    def load(self, spec: ModelSpec, *, device: str) -> SmpModel:
        """Check architecture, encoder and options; the network itself is built for the training items.

        Raises:
            CrossmedError: For an unknown architecture or encoder, or a bad option.
        """
        _check(spec.options)
        return SmpModel(device=device, options=spec.options)

    def tiny(self, *, device: str) -> SmpModel:
        """Return a U-Net of depth 3 on grey images."""
        kwargs = {"encoder_depth": 3, "decoder_channels": [32, 16, 8]}
        options = {"name": "unet/tu-test_efficientnet", "channels": 1, "kwargs": kwargs}
        return SmpModel(device=device, options=options)


def _check(options: Mapping[str, Any]) -> None:
    architecture, slash, encoder = str(options.get("name", "")).partition("/")
    known = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
    if not slash:
        raise CrossmedError(f"{options.get('name')!r}: write ARCHITECTURE/ENCODER, e.g. smp:unet/resnet34.")
    if architecture not in known:
        hint = suggest(architecture, known) or f"Known: {', '.join(known)}."
        raise CrossmedError(f"smp has no architecture {architecture!r}.", hint=hint)
    if not encoder.startswith("tu-") and encoder not in get_encoder_names():
        raise CrossmedError(f"smp has no encoder {encoder!r}.", hint=suggest(encoder, get_encoder_names()))
    if encoder.startswith("tu-"):
        import timm

        if not timm.is_model(encoder.removeprefix("tu-")):
            raise CrossmedError(f"timm has no encoder {encoder!r}.", hint=suggest(encoder[3:], timm.list_models()))
    check_options(options)

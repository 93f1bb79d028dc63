"""What a frozen vision tower saw in the training images, computed once and kept on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from crossmed_core.errors import CrossmedError
from crossmed_core.runlog import write_bytes, writing
from crossmed_core.types import ImageRef
from crossmed_plugins.mllm.vision import Eyes, Features, Prepared

SHARD = 64
"""Images per file."""


class FeatureStore:
    """Features by image.

    Several processes that train together have one store each.

    Args:
        folder: Where they are kept, in files of `SHARD` images; None = in memory. What a killed run left there is
            written anew: it belongs to the run's own checkpoint folder.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._where: dict[ImageRef, tuple[Path, str, int]] = {}
        self._memory: dict[ImageRef, Features] = {}
        self._waiting: dict[ImageRef, Prepared] = {}
        self._shards = 0

    def add(self, ref: ImageRef, image: Prepared, eyes: Eyes) -> None:
        """Have an image looked at, if it was not."""
        if ref in self._where or ref in self._memory or ref in self._waiting:
            return
        self._waiting[ref] = image
        if len(self._waiting) == SHARD:
            self.flush(eyes)

    def flush(self, eyes: Eyes) -> None:
        """Look at the images that wait."""
        waiting, self._waiting = self._waiting, {}
        with torch.no_grad():
            found = {ref: eyes.look([image])[0] for ref, image in waiting.items()}
        if self.folder is None:
            self._memory |= {ref: _on_cpu(one) for ref, one in found.items()}
            return
        if not found:
            return
        with writing(self.folder):
            self.folder.mkdir(exist_ok=True)
        path = self.folder / f"features-{self._shards:05d}.safetensors"
        tensors = {}
        for number, (ref, one) in enumerate(found.items()):
            for layer, value in enumerate((one.pooled, *one.deep)):
                tensors[f"{number}.{layer}"] = value.detach().cpu().contiguous()
            self._where[ref] = (path, str(number), 1 + len(one.deep))
        write_bytes(path, save(tensors))
        self._shards += 1

    def get(self, ref: ImageRef) -> Features:
        """Read the features of an image, on the CPU.

        Raises:
            CrossmedError: If the file was damaged meanwhile.
        """
        if ref in self._memory:
            return self._memory[ref]
        path, number, layers = self._where[ref]
        try:
            with safe_open(path, "pt") as file:
                pooled, *deep = (file.get_tensor(f"{number}.{layer}") for layer in range(layers))
        except (OSError, SafetensorError) as error:
            raise CrossmedError(f"{path} cannot be read: {error}.", hint="Run the same command again.") from error
        return Features(pooled, deep)


def _on_cpu(features: Features) -> Features:
    return Features(features.pooled.detach().cpu(), [layer.detach().cpu() for layer in features.deep])

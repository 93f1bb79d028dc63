"""Training steps per CPU second of the demo's models, channels last against the default memory layout; one thread.

python benchmarks/training.py
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import tempfile
import time
from pathlib import Path

import torch

from crossmed_core.catalog import Catalog
from crossmed_core.testing.items import items_for
from crossmed_core.training.model import TorchModel

ROUNDS, STEPS, BATCH = 5, 8, 32


def seconds_per_step(model: TorchModel, layout: torch.memory_format, batch) -> float:
    """Return CPU seconds per training step in a memory layout."""
    module = model.module.to(memory_format=layout)
    batch.images = batch.images.contiguous(memory_format=layout)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    module.train()
    for step in range(STEPS + 2):
        if step == 2:
            started = time.process_time()
        model.loss(module, batch, smoothing=0.05).backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.process_time() - started) / STEPS


def main() -> None:
    """Interleave the two layouts and print medians and their ratio."""
    torch.set_num_threads(1)
    from crossmed_core.training.data import TrainingBatches

    catalog = Catalog()
    print(f"{'model':16} {'default':>12} {'channels last':>14} {'ratio':>6}   ms per step of {BATCH}")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cnn-tiny", "fpn-tiny", "resnet18", "unet"):
            resolved = catalog.model(name)
            items = items_for(resolved.record.answers, BATCH, Path(folder))
            model = catalog.load_model(resolved, device="cpu")
            model.prepare(items, seed=0)
            batch = TrainingBatches(items, model.spec, batch_size=BATCH, count=1, seed=0, augment=True)[0]
            times: dict[torch.memory_format, list[float]] = {torch.contiguous_format: [], torch.channels_last: []}
            for _ in range(ROUNDS):
                for layout, results in times.items():
                    results.append(seconds_per_step(model, layout, batch))
            default, last = (1000 * statistics.median(results) for results in times.values())
            print(f"{name:16} {default:12.1f} {last:14.1f} {default / last:6.2f}")


if __name__ == "__main__":
    main()

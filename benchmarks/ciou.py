"""Areas of masks on run lengths against counting the pixels of decoded masks, on disks of 1024 x 1024 pixels.

python benchmarks/ciou.py
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from crossmed_core.images import decode_mask, encode_mask
from crossmed_core.types import MAT, RLE, ImageRef, Item, MaskRef, Prediction
from crossmed_plugins.metrics.mask import ciou

SIDE, PAIRS, ROUNDS = 1024, 300, 5


def disk(rng: np.random.Generator) -> RLE:
    """Return a random disk of 5 to 30 % of the image's side."""
    radius = rng.uniform(0.05, 0.3) * SIDE
    row, column = rng.uniform(radius, SIDE - radius, 2)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    return encode_mask((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def of_pixels(masks: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Count intersections and unions of masks that lie decoded in memory."""
    both = sum(int((truth & guess).sum()) for truth, guess in masks)
    return both / sum(int((truth | guess).sum()) for truth, guess in masks)


def main() -> None:
    """Interleave the methods and print medians and ratios; all must agree."""
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(PAIRS):
        truth, guess = disk(rng), disk(rng)
        item = Item(
            str(number), "d", MAT("ct", "chest", "segmentation"), str(number), "test", ImageRef("/x"), "?",
            mask=MaskRef(rle=truth),
        )  # fmt: skip
        pairs.append((item, Prediction(item.id, mask=guess)))
    runs = [(item.mask.rle, answer.mask) for item, answer in pairs if item.mask and item.mask.rle and answer.mask]
    decoded = [(decode_mask(truth), decode_mask(guess)) for truth, guess in runs]
    methods = {
        "bool masks in memory": lambda: of_pixels(decoded),
        "decoded, then counted": lambda: of_pixels([(decode_mask(truth), decode_mask(guess)) for truth, guess in runs]),
        "crossmed": lambda: ciou(pairs),
    }
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(ROUNDS):
        values = []
        for name, method in methods.items():
            started = time.process_time()
            values.append(method())
            times[name].append(time.process_time() - started)
        assert len(set(values)) == 1, f"the methods disagree: {values}"
    ours = statistics.median(times["crossmed"])
    print(f"{PAIRS} pairs of {SIDE} x {SIDE} masks, {np.mean([len(truth.counts) for truth, _ in runs]):.0f} runs each")
    for name, results in times.items():
        median = statistics.median(results)
        print(f"{name:22} {1000 * median / PAIRS:7.3f} CPU ms per pair  {median / ours:6.1f} x")


if __name__ == "__main__":
    main()

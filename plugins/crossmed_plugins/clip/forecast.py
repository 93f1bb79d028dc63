"""What can be said of a CLIP before it is loaded: where its weights are, and how much memory it takes, roughly."""

from __future__ import annotations

from pathlib import Path

from crossmed_core.contracts import Forecast, TrainSettings
from crossmed_core.devices import memory_gib
from crossmed_core.types import ModelSpec

GIB = 1 << 30
BYTES = 4
"""Per weight: towers are loaded as float32."""
TRAINED_BYTES = 16
"""Per trained weight: itself, its gradient and AdamW's two moments."""
_NAMES = ("hf-hub:", "local-dir:")


def forecast(spec: ModelSpec, settings: TrainSettings | None, device: str) -> Forecast:
    """Say what is known (`ModelRecord.forecast`).

    Args:
        spec: The model.
        settings: How it will be trained; None if it will not be.
        device: "cpu" or "cuda".
    """
    name = str(spec.options.get("name") or "")
    notes = [f"Licence: {spec.licence}"] if spec.licence else []
    if spec.gated:
        notes.append("Gated: accept its licence on its hub page and log in with 'hf auth login' first")
    if name == "miniature":
        where = "random, made here"
    elif spec.hub:
        where = f"of {spec.hub}{f' at {spec.revision[:12]}' if spec.revision else ''}, fetched where they are missing"
    else:
        plain = name.removeprefix(_NAMES[0]).removeprefix(_NAMES[1])
        where = str(Path(plain)) if Path(plain).expanduser().is_dir() else f"of {plain}, fetched where they are missing"
    if spec.parameters_m is None:
        return Forecast(where, dtype="float32", notes=tuple(notes))
    count = spec.parameters_m * 1e6
    trains = settings is not None and spec.options.get("mode", "finetune") == "finetune"
    size = count * BYTES / GIB
    available = memory_gib(device)
    return Forecast(
        where,
        parameters_m=spec.parameters_m,
        dtype="float32",
        predict_gib=1.2 * size,
        train_gib=count * TRAINED_BYTES / GIB if trains else None,
        notes=tuple(notes),
        problem=f"its weights take {size:.1f} GiB, this device has {available:.1f}" if size > available else "",
    )

"""Which device a run uses, and why."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from crossmed_core.errors import CrossmedError, ExitCode


def resolve_device(asked: str, *, needs_torch: bool) -> tuple[str, str]:
    """Choose the device.

    Args:
        asked: "auto", "cpu" or "cuda".
        needs_torch: Whether any model of the run uses torch; if not, torch is not imported.

    Returns:
        The device and the reason in a few words.

    Raises:
        CrossmedError: If CUDA is asked for and there is none, or the name is unknown.
    """
    if asked not in ("auto", "cpu", "cuda"):
        raise CrossmedError(f"Unknown device {asked!r}.", hint="Use auto, cpu or cuda.")
    if asked == "cpu":
        return "cpu", "asked for"
    if not needs_torch and asked == "auto":
        return "cpu", "no model of this run uses a network"
    if find_spec("torch") is None:
        if asked == "cuda":
            raise CrossmedError(
                "CUDA is asked for, but torch is not installed.",
                hint="Install it with: pip install 'crossmed[torch]'",
                exit_code=ExitCode.ENVIRONMENT,
            )
        return "cpu", "torch is not installed"
    if asked == "auto" and not _has_driver():
        return "cpu", "no GPU driver found"
    import torch

    if torch.cuda.is_available():
        return "cuda", f"{torch.cuda.get_device_name()} found"
    if asked == "cuda":
        built = torch.version.cuda
        reason = f"torch {torch.__version__} sees no CUDA device" if built else "this torch is built without CUDA"
        raise CrossmedError(
            f"CUDA is asked for, but {reason}.",
            hint="Use --device cpu, or check the driver with nvidia-smi.",
            exit_code=ExitCode.ENVIRONMENT,
        )
    return "cpu", "no CUDA device found"


def _has_driver() -> bool:
    """Whether a driver that torch's CUDA interface could use is there at all; importing torch to ask takes seconds."""
    if Path("/dev/kfd").exists():  # AMD: torch's ROCm build answers as CUDA
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def memory_gib(device: str) -> float:
    """Return the memory of a device in GiB; of the machine for "cpu"."""
    if device == "cuda":
        # Whoever chose this device has imported torch for it.
        return float(sys.modules["torch"].cuda.mem_get_info()[1]) / (1 << 30)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def precision(device: str) -> str:
    """Say in which precision networks of `crossmed_core.training` compute on a device."""
    if device == "cuda":
        import torch

        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16 autocast in training, float32 in answers"
    return "float32"

"""Finds the adapter that a finished run saved, so that another run can start from it."""

from __future__ import annotations

from pathlib import Path

from crossmed_core.errors import CrossmedError, ExitCode

CONFIG = "adapter_config.json"
"""What peft writes beside the weights of an adapter."""


def find_adapter(path: Path) -> Path:
    """Return the folder of the adapter that a path means.

    Args:
        path: A run with one trained adapter, one of its trials, or the adapter's own folder.

    Raises:
        CrossmedError: If there is none, or more than one to choose from.
    """
    for folder in (path, path / "model"):
        if (folder / CONFIG).is_file():
            return folder.resolve()
    found = sorted(one.parent for one in path.glob(f"trials/*/model/{CONFIG}"))
    if len(found) == 1:
        return found[0].resolve()
    if found:
        names = ", ".join(one.parent.name for one in found[:4])
        raise CrossmedError(
            f"{path} holds {len(found)} adapters ({names}{', ...' if len(found) > 4 else ''}).",
            hint=f"Name one: --adapter {found[0].parent}",
        )
    raise CrossmedError(
        f"{path} holds no adapter ({CONFIG}).",
        hint="Name a run of a model that was fine-tuned with adapters (tuning=lora), or one of its trials.",
        exit_code=ExitCode.ENVIRONMENT,
    )

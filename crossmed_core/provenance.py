"""What a run was made with: code, plugins, packages, device."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import crossmed_core
from crossmed_core.plugin_info import Status
from crossmed_core.plugins import PluginManager

_PACKAGES = (
    "crossmed", "numpy", "scipy", "pillow", "pluggy", "torch", "torchvision", "accelerate", "safetensors", "timm",
    "segmentation-models-pytorch", "open_clip_torch", "transformers", "peft", "pydicom", "pylibjpeg", "nibabel", "isal",
    "openpyxl",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that can change a number, where installed."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """Return the commit of a source checkout, with "+changes" if the tree differs from it; None outside one."""
    folder = Path(crossmed_core.__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def environment(plugins: PluginManager) -> dict[str, Any]:
    """Describe this environment for run.json."""
    active = [info for info in plugins.plugins if info.status in (Status.OK, Status.MISSING_EXTRA)]
    return {
        "crossmed": crossmed_core.__version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": Path(sys.executable).name,
        "packages": package_versions(),
        "plugins": [
            {
                "name": info.name,
                "distribution": info.distribution,
                "version": info.version,
                "module": info.module,
            }
            for info in active
        ],
    }

"""Forges installed distributions: a package and its `.dist-info` in a folder that is put on the path."""

from __future__ import annotations

from pathlib import Path

GOOD = """
from crossmed_core import hookimpl
from crossmed_core.records import ModelRecord

@hookimpl
def crossmed_models():
    yield ModelRecord(name="{model}", summary="A model", target="crossmed_plugins.baseline.model:ChanceFamily",
                      answers=frozenset({{"option", "mask"}}), trains=False, sees_images=False)
"""

BROKEN = {
    "missing-import": ("import a_package_that_nobody_has\n", "broken", "No module named 'a_package_that_nobody_has'"),
    "sys-exit": ("import sys\nsys.exit(3)\n", "broken", "called sys.exit(3)"),
    "wrong-argument": (
        "from crossmed_core import hookimpl\n@hookimpl\ndef crossmed_models(config):\n    return []\n",
        "broken",
        "hook crossmed_models has no argument 'config'",
    ),
    "misspelt-hook": (
        "from crossmed_core import hookimpl\n@hookimpl\ndef crossmed_model():\n    return []\n",
        "broken",
        "there is no hook 'crossmed_model'. Did you mean 'crossmed_models'?",
    ),
    "raises-late": (
        GOOD.format(model="half-a-plugin").rstrip() + "\n    raise RuntimeError('out of models')\n",
        "broken",
        "RuntimeError: out of models",
    ),
    "newer-api": ("CROSSMED_API_VERSION = 99\n" + GOOD.format(model="future"), "incompatible", "needs plugin API 99"),
    "name-clash": (GOOD.format(model="chance"), "ok", "model 'chance' is also registered by crossmed"),
}
"""Plugin -> source, expected status, part of the expected reason."""


def install(site: Path, name: str, source: str, *, version: str = "1.0") -> None:
    """Install a distribution `name` with one plugin of that name into `site`."""
    module = "plugin_" + name.replace("-", "_")
    (site / f"{module}.py").write_text(source, encoding="utf-8")
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[crossmed]\n{name} = {module}\n", encoding="utf-8")


def install_broken(site: Path) -> None:
    """Install all broken plugins and a good one."""
    for name, (source, _, _) in BROKEN.items():
        install(site, name, source)
    install(site, "good-plugin", GOOD.format(model="good-model"))

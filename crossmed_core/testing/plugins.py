"""Checks of a plugin module as a whole."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from crossmed_core import hookspecs
from crossmed_core.plugins import KINDS, check_hooks
from crossmed_core.records import Record

HEAVY = ("torch", "tensorflow", "jax", "timm", "transformers", "open_clip", "pandas", "segmentation_models_pytorch")


def records_of(plugin: ModuleType) -> list[Record]:
    """Return all records that a plugin module yields, in the order of the hooks."""
    found: list[Record] = []
    for kind in KINDS:
        hook = getattr(plugin, f"crossmed_{kind}s", None)
        found += list(hook()) if hook else []
    return found


def check_hooks_are_known(plugin: ModuleType, folder: Path) -> None:
    """Each hook exists, is marked, and takes only arguments that the hook offers."""
    check_hooks(plugin)


def check_api_version(plugin: ModuleType, folder: Path) -> None:
    """The plugin does not need a newer crossmed than the one it is tested with."""
    wanted = getattr(plugin, "CROSSMED_API_VERSION", hookspecs.API_VERSION)
    assert isinstance(wanted, int), f"CROSSMED_API_VERSION must be an integer, not {wanted!r}"
    assert wanted <= hookspecs.API_VERSION, f"needs API {wanted}; this crossmed has {hookspecs.API_VERSION}"


def check_import_is_light(plugin: ModuleType, folder: Path) -> None:
    """Importing the plugin and collecting its records imports no heavy library, as every command does it."""
    code = (
        "import importlib, sys\n"
        f"module = importlib.import_module({plugin.__name__!r})\n"
        "from crossmed_core.testing.plugins import records_of\n"
        "records_of(module)\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, f"the plugin cannot be imported on its own:\n{result.stderr}"
    heavy = result.stdout.split()
    assert not heavy, f"importing {plugin.__name__} imports {', '.join(heavy)}; move that behind a record's target"


def check_records_are_complete(plugin: ModuleType, folder: Path) -> None:
    """Records are frozen and unique, have a one-line summary, and their targets can be imported."""
    records = records_of(plugin)
    names = [(type(record), record.name) for record in records]
    assert len(set(names)) == len(names), f"a name is registered twice: {names}"
    for record in records:
        assert dataclasses.is_dataclass(record) and type(record).__dataclass_params__.frozen, f"{record} is not frozen"  # type: ignore[attr-defined]
        assert record.summary.strip() and "\n" not in record.summary, f"{record.name}: the summary must be one line"
        assert not record.missing(), f"{record.name} needs {record.missing()}; install it to test the plugin"
        assert callable(record.load()), f"{record.name}: {record.target} is not callable"


CHECKS = (check_hooks_are_known, check_api_version, check_import_is_light, check_records_are_complete)

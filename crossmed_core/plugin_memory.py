"""How each plugin's last load ended, kept in the cache, so that a list can show a broken plugin without importing it.

Only a convenience: whatever is wrong with the file, the list then says "found", and a run goes on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from crossmed_core.paths import cache_folder
from crossmed_core.plugin_info import LOCAL, PluginInfo, Status

Memory = Mapping[str, Any]


def _path() -> Path:
    return cache_folder() / "plugins.json"


def _key(info: PluginInfo) -> str:
    # The interpreter's prefix keeps environments apart that share one cache folder.
    return f"{sys.prefix}|{info.key}|{info.version}|{info.module}"


def origin(info: PluginInfo) -> str | None:
    """Return the file of a plugin that failed to import, so that a later edit of it is noticed."""
    with contextlib.suppress(Exception):
        spec = importlib.util.find_spec(info.module) if info.distribution != LOCAL else None
        return spec.origin if spec else info.module
    return None


def _fingerprint(file: str | None) -> int | None:
    try:
        return Path(file).stat().st_mtime_ns if file else None
    except OSError:
        return None


def read() -> Memory:
    """Return what was written last; empty if there is nothing or it cannot be read."""
    try:
        content = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def recall(info: PluginInfo, memory: Memory) -> PluginInfo:
    """Return the row with its last status and reason, or as it is if its file has changed since."""
    past: Any = memory.get(_key(info))
    try:
        if _fingerprint(past["origin"]) != past["fingerprint"]:
            return info
        return replace(
            info,
            status=Status(past["status"]),
            reason=past["reason"],
            hooks=tuple(past["hooks"]),
            records=tuple(past["records"]),
            import_seconds=past["import_seconds"],
            remembered=True,
        )
    except (KeyError, TypeError, ValueError):  # never loaded, or a damaged entry
        return info


def write(plugins: Iterable[PluginInfo], origins: Mapping[str, str | None]) -> None:
    """Remember how each plugin in `origins` (key -> file) was loaded; does nothing if all of it is known already."""
    mine = {
        _key(info): {
            "status": str(info.status),
            "reason": info.reason,
            "hooks": list(info.hooks),
            "records": list(info.records),
            "import_seconds": info.import_seconds,
            "origin": origins[info.key],
            "fingerprint": _fingerprint(origins[info.key]),
        }
        for info in plugins
        if info.key in origins
    }
    memory = read()
    if _without_times(mine).items() <= _without_times(memory).items():
        return
    kept = {key: value for key, value in memory.items() if not key.startswith(f"{sys.prefix}|")}
    with contextlib.suppress(OSError):  # a read-only home must not stop a run
        _path().parent.mkdir(parents=True, exist_ok=True)
        partial = _path().with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps({**kept, **mine}, indent=1), encoding="utf-8")
        partial.replace(_path())


def _without_times(memory: Memory) -> dict[str, str]:
    facts = {key: {**value, "import_seconds": None} for key, value in memory.items() if isinstance(value, dict)}
    return {key: json.dumps(value, sort_keys=True) for key, value in facts.items()}

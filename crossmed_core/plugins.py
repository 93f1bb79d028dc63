"""Discover plugins without importing them, load each one in isolation, and keep what went wrong as a row.

pluggy checks hook signatures but isolates nothing: one broken plugin would end every command, its own removal included.
So entry points are walked here, and the import, the registration, the hook names and the iteration of each plugin are
wrapped one by one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from crossmed_core import hookspecs, plugin_memory
from crossmed_core.errors import CrossmedError, ExitCode, suggest, unknown
from crossmed_core.plugin_info import LOCAL, PluginInfo, Status
from crossmed_core.records import DatasetRecord, MetricRecord, ModelRecord, Record, SplitRecord
from crossmed_core.registry import Registry

GROUP = "crossmed"
KINDS: dict[str, type[Record]] = {
    "dataset": DatasetRecord,
    "model": ModelRecord,
    "split": SplitRecord,
    "metric": MetricRecord,
}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class Claim:
    """A record and the plugin that registered it."""

    record: Any
    plugin: PluginInfo


@dataclass(frozen=True)
class PluginConfig:
    """Which plugins may be loaded. Picklable, so that worker processes load the same ones.

    Attributes:
        files: Local plugin files (`--plugin FILE.py`).
        disabled: Names or `distribution:name` that must not be imported.
        allowed: If not None, the only third-party plugins that may be imported.
        strict: Whether any plugin that is not ok fails the command.
    """

    files: tuple[Path, ...] = ()
    disabled: frozenset[str] = frozenset()
    allowed: frozenset[str] | None = None
    strict: bool = False

    @classmethod
    def from_environment(cls, *, files: Sequence[Path] = (), disabled: Iterable[str] = ()) -> PluginConfig:
        """Add `CROSSMED_DISABLE`, `CROSSMED_PLUGINS` and `CROSSMED_STRICT` to what the flags say."""

        def names(text: str) -> frozenset[str]:
            return frozenset(part.strip() for part in text.split(",") if part.strip())

        allowed = os.environ.get("CROSSMED_PLUGINS")
        return cls(
            files=tuple(files),
            disabled=names(os.environ.get("CROSSMED_DISABLE", "")) | frozenset(disabled),
            allowed=None if allowed is None else names(allowed),
            strict=os.environ.get("CROSSMED_STRICT", "") not in ("", "0"),
        )


@dataclass
class PluginManager:
    """Finds, loads and asks plugins.

    Args:
        config: Which plugins may be loaded.
        registry: Declares the packages of plugins, so that a missing extra shows without an import.
    """

    config: PluginConfig
    registry: Registry
    plugins: list[PluginInfo] = field(init=False)
    claims: dict[str, dict[str, Claim]] = field(init=False)
    _loaded: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._hooks = pluggy.PluginManager(hookspecs.PROJECT)
        self._hooks.add_hookspecs(hookspecs)
        self.claims = {kind: {} for kind in KINDS}
        self._by_distribution: dict[str, dict[str, Claim]] = {kind: {} for kind in KINDS}
        self.plugins = self._discover()

    # -- finding -----------------------------------------------------------------------------------

    def _discover(self) -> list[PluginInfo]:
        found: dict[str, PluginInfo] = {}
        for point in metadata.entry_points(group=GROUP):
            name, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "")
            info = PluginInfo(point.name, name, version, point.value)
            found.setdefault(info.key, self._status_before_import(info))
        # Ours first, so that nobody takes a built-in name by accident; the rest by name, so that the order is stable.
        rows = sorted(found.values(), key=lambda info: (not info.builtin, info.distribution, info.name))
        return rows + [_local_file(path) for path in self.config.files]

    def _status_before_import(self, info: PluginInfo) -> PluginInfo:
        config = self.config
        if info.name in config.disabled or info.key in config.disabled:
            return replace(info, status=Status.DISABLED, reason="disabled by flag or CROSSMED_DISABLE")
        if config.allowed is not None and not info.builtin and not {info.name, info.key} & config.allowed:
            return replace(info, status=Status.DISABLED, reason="not in CROSSMED_PLUGINS")
        entry = self.registry.plugins.get(info.name) if info.builtin else None
        missing = [package for package in entry.packages if importlib.util.find_spec(package) is None] if entry else []
        if entry and missing:
            hint = f"pip install 'crossmed[{entry.extra}]'"
            return replace(info, status=Status.MISSING_EXTRA, reason=f"needs {', '.join(missing)}: {hint}")
        return info

    def remembered(self) -> list[PluginInfo]:
        """Return all plugins, importing none, with what is remembered of the last time each was loaded."""
        memory = plugin_memory.read()
        return [plugin_memory.recall(info, memory) if info.status is Status.FOUND else info for info in self.plugins]

    # -- loading -----------------------------------------------------------------------------------

    def load(self) -> None:
        """Import every plugin that may be imported, once. Never raises for a plugin, except in strict mode.

        Raises:
            CrossmedError: In strict mode, naming the first plugin that is broken, incompatible or claims a taken name.
        """
        if self._loaded:
            return
        self._loaded = True
        origins: dict[str, str | None] = {}
        for index, info in enumerate(self.plugins):
            if info.status in (Status.FOUND, Status.MISSING_EXTRA):
                self.plugins[index], origins[info.key] = self._load_one(info)
        plugin_memory.write(self.plugins, origins)
        if self.config.strict:
            for info in self.plugins:
                if info.status in (Status.BROKEN, Status.INCOMPATIBLE) or (info.status is Status.OK and info.reason):
                    raise CrossmedError(
                        f"Plugin {info.name!r} of {info.distribution} ({info.status}): {info.reason}.",
                        hint="CROSSMED_STRICT=1 makes this an error.",
                        exit_code=ExitCode.ENVIRONMENT,
                    )

    def _load_one(self, info: PluginInfo) -> tuple[PluginInfo, str | None]:
        started = time.perf_counter()
        module: ModuleType | None = None
        registered = False
        try:
            # What a plugin prints while it is imported must not spoil the JSON on stdout.
            with contextlib.redirect_stdout(sys.stderr):
                module = _import(info)
                seconds = time.perf_counter() - started
                wanted = getattr(module, "CROSSMED_API_VERSION", hookspecs.API_VERSION)
                if wanted > hookspecs.API_VERSION:
                    reason = f"needs plugin API {wanted}, this crossmed has {hookspecs.API_VERSION}; upgrade crossmed"
                    return replace(info, status=Status.INCOMPATIBLE, reason=reason), module.__file__
                hooks = check_hooks(module)
                self._hooks.register(module, name=info.key)
                registered = True
                records = self._records(module, info)
        except (Exception, SystemExit) as error:
            if registered:
                self._hooks.unregister(module)
            origin = module.__file__ if module else plugin_memory.origin(info)
            return replace(info, status=Status.BROKEN, reason=_one_line(error)), origin
        clashes = [clash for kind, record in records if (clash := self._claim(kind, record, info))]
        status = Status.MISSING_EXTRA if info.status is Status.MISSING_EXTRA else Status.OK
        row = replace(
            info,
            status=status,
            reason="; ".join([info.reason] * bool(info.reason) + clashes),
            hooks=tuple(hooks),
            records=tuple(f"{kind} {record.name}" for kind, record in records),
            import_seconds=round(seconds, 4),
        )
        return row, module.__file__

    def _records(self, module: ModuleType, info: PluginInfo) -> list[tuple[str, Record]]:
        """Iterate the registration hooks of one plugin to the end, so that a late failure drops all of it."""
        others = [plugin for plugin in self._hooks.get_plugins() if plugin is not module]
        records: list[tuple[str, Record]] = []
        for kind, expected in KINDS.items():
            hook = self._hooks.subset_hook_caller(f"crossmed_{kind}s", others)
            for yielded in hook():
                for record in yielded:
                    if not isinstance(record, expected):
                        raise TypeError(
                            f"crossmed_{kind}s yielded {type(record).__name__}, expected {expected.__name__}"
                        )
                    if not _NAME.fullmatch(record.name):
                        raise ValueError(
                            f"{kind} name {record.name!r} must be lower-case letters, digits, '.', '_', '-'"
                        )
                    target = re.fullmatch(r"([\w.]+):(\w+)", str(record.target))
                    if target is None:
                        raise ValueError(f"target {record.target!r} of {record.name!r} must be 'module:attribute'")
                    if info.distribution == LOCAL and target[1] == info.name:
                        # A file given by --plugin is imported under a name of ours; its author knows it by its stem.
                        record = replace(record, target=f"{module.__name__}:{target[2]}")
                    records.append((kind, record))
        return records

    def _claim(self, kind: str, record: Record, info: PluginInfo) -> str:
        claim = Claim(record, info)
        self._by_distribution[kind][f"{info.distribution}:{record.name}"] = claim
        owner = self.claims[kind].setdefault(record.name, claim).plugin
        if owner is info:
            return ""
        return (
            f"{kind} {record.name!r} is also registered by {owner.distribution}, which keeps it; "
            f"use '{info.distribution}:{record.name}' for this one"
        )

    # -- asking ------------------------------------------------------------------------------------

    def _load_to_use(self) -> None:
        self.load()
        for info in self.plugins:
            if info.distribution == LOCAL and info.status in (Status.BROKEN, Status.INCOMPATIBLE):
                raise CrossmedError(
                    f"--plugin {info.module} is {info.status}: {info.reason}.", exit_code=ExitCode.ENVIRONMENT
                )

    def records(self, kind: str) -> dict[str, Claim]:
        """Return name -> claim for "dataset", "model", "split" or "metric"; loads plugins on first use.

        Raises:
            CrossmedError: If a file that was named with --plugin cannot be used.
        """
        self._load_to_use()
        return dict(sorted(self.claims[kind].items()))

    def get(self, kind: str, name: str, *, also: Iterable[str] = ()) -> Claim:
        """Look up a name, or `distribution:name`.

        Args:
            kind: "dataset", "model", "split" or "metric".
            name: As typed.
            also: Further names (aliases) that the error may suggest.

        Raises:
            CrossmedError: For an unknown name, with the nearest one, or the broken plugin that may have had it.
        """
        self._load_to_use()
        claim = self.claims[kind].get(name) or self._by_distribution[kind].get(name)
        if claim is not None:
            return claim
        error = unknown(kind, name, [*self.claims[kind], *also], see=f"crossmed ls {kind}s")
        broken = [info for info in self.plugins if info.status in (Status.BROKEN, Status.INCOMPATIBLE)]
        if broken:
            error.hint += f" (Not loaded: {', '.join(f'{i.name}: {i.reason}' for i in broken)}.)"
        off = [info.name for info in self.plugins if info.status is Status.DISABLED]
        if off:
            error.hint += f" (Disabled: {', '.join(off)}.)"
        raise error

    def observe(self, name: str, warn: Any, **arguments: object) -> None:
        """Call an observer hook on each plugin that has it; one that raises is told to `warn` and passed over."""
        self.load()
        for implementation in getattr(self._hooks.hook, name).get_hookimpls():
            try:
                implementation.function(*(arguments[arg] for arg in implementation.argnames))
            except (Exception, SystemExit) as error:
                warn(f"plugin {implementation.plugin_name!r} failed in {name}: {_one_line(error)}")


def _local_file(path: Path) -> PluginInfo:
    if not path.is_file():
        raise CrossmedError(f"Plugin file {path} does not exist.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PluginInfo(path.stem, LOCAL, f"sha256:{digest[:16]}", str(path.resolve()))


def _import(info: PluginInfo) -> ModuleType:
    if info.distribution != LOCAL:
        return importlib.import_module(info.module)
    name = f"crossmed_local_{re.sub(r'[^0-9a-zA-Z_]', '_', info.name)}"
    spec = importlib.util.spec_from_file_location(name, info.module)
    if spec is None or spec.loader is None:
        raise ImportError(f"{info.module} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before running it: records name their target as f"{__name__}:Thing"
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def check_hooks(module: ModuleType) -> list[str]:
    """Return the hooks that a module implements.

    Raises:
        TypeError: For a misspelt hook, a wrong argument, or no hook at all, in words that say what to do.
    """
    specs = {name for name in vars(hookspecs) if name.startswith("crossmed_")}
    hooks = []
    for name, value in vars(module).items():
        marked = getattr(value, f"{hookspecs.PROJECT}_impl", None) is not None
        if not marked and name.startswith("crossmed_") and callable(value):
            raise TypeError(f"{name} is not marked with @hookimpl (from crossmed_core import hookimpl)")
        if not marked:
            continue
        if name not in specs:
            raise TypeError(f"there is no hook {name!r}. {suggest(name, specs)}".strip())
        accepted = tuple(inspect.signature(getattr(hookspecs, name)).parameters)
        for argument in inspect.signature(value).parameters:
            if argument not in accepted:
                known = f"it offers {', '.join(accepted)}" if accepted else "it has no arguments"
                raise TypeError(f"hook {name} has no argument {argument!r}; {known}")
        hooks.append(name)
    if not hooks:
        raise TypeError("it implements no hook; mark functions with @hookimpl (from crossmed_core import hookimpl)")
    return hooks


def _one_line(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"called sys.exit({error.code!r}) while it was imported"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

"""registry.toml: code says what a plugin can do, the registry says what this release stands behind.

Files are layered, the later ones winning name by name and key by key: the shipped file, the user's `registry.toml` in
the configuration folder, `$CROSSMED_REGISTRY`, then each `--registry FILE`. An unknown key is an error with a
suggestion, because a silently ignored `revison = "..."` would cost somebody a week.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from crossmed_core.errors import CrossmedError, suggest


@dataclass(frozen=True, kw_only=True)
class PluginEntry:
    """Facts of a plugin that must be known without importing it.

    Attributes:
        summary: One line.
        extra: The extra of `crossmed` that installs `packages`.
        packages: Top-level packages that its heavy half imports.
    """

    summary: str = ""
    extra: str = ""
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model alias.

    Attributes:
        family: The plugin record that loads it.
        summary: One line.
        options: Keyword options handed to the family.
        train: Overrides of `contracts.TrainSettings`.
        hub: Hub id of pretrained weights.
        revision: Commit of the hub id that was checked or is pinned.
        licence: Licence of the weights.
        parameters_m: Parameters in millions.
        gated: Whether the hub asks for an agreement.
        ms_per_image: CPU milliseconds per training image of 64 pixels on one core, for rough estimates only.
    """

    family: str
    summary: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    hub: str = ""
    revision: str = ""
    licence: str = ""
    parameters_m: float | None = None
    gated: bool = False
    ms_per_image: float | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """What this release knows of a dataset beyond its plugin's record."""

    summary: str = ""
    licence: str = ""
    access: str = ""
    url: str = ""


_SECTIONS: dict[str, type] = {"plugins": PluginEntry, "models": ModelEntry, "datasets": DatasetEntry}
SCHEMA = 1


@dataclass(frozen=True)
class Registry:
    """The merged registry.

    Attributes:
        plugins: Plugin name -> entry.
        models: Alias -> entry.
        datasets: Dataset name -> entry.
        sources: The files that were read, in order.
    """

    plugins: Mapping[str, PluginEntry]
    models: Mapping[str, ModelEntry]
    datasets: Mapping[str, DatasetEntry]
    sources: tuple[Path, ...]


def shipped_path() -> Path:
    """Return the registry of this release: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "registry.toml"
    return inside if inside.is_file() else package.parent / "registry.toml"


def user_path() -> Path:
    """Return where a user's own registry is looked for."""
    return platformdirs.user_config_path("crossmed", appauthor=False) / "registry.toml"


def load_registry(extra: Sequence[Path] = ()) -> Registry:
    """Read and merge all layers.

    Args:
        extra: Files of `--registry`, later ones winning.

    Raises:
        CrossmedError: For a file that cannot be read or parsed, or an unknown key; names the file.
    """
    layers = [shipped_path()]
    if user_path().is_file():
        layers.append(user_path())
    if named := os.environ.get("CROSSMED_REGISTRY"):
        layers.extend(Path(part) for part in named.split(os.pathsep) if part)
    layers.extend(extra)
    merged: dict[str, dict[str, dict[str, Any]]] = {section: {} for section in _SECTIONS}
    for path in layers:
        for section, entries in _read(path).items():
            for name, entry in entries.items():
                merged[section][name] = _merge(merged[section].get(name, {}), entry)
    built = {
        section: {name: _build(kind, section, name, entry) for name, entry in sorted(merged[section].items())}
        for section, kind in _SECTIONS.items()
    }
    return Registry(built["plugins"], built["models"], built["datasets"], tuple(layers))


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged


def _read(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CrossmedError(f"Registry {path} cannot be read: {reason}.") from error
    except tomllib.TOMLDecodeError as error:
        raise CrossmedError(f"Registry {path} is not valid TOML: {error}.") from error
    schema = content.pop("schema", SCHEMA)
    if schema != SCHEMA:
        raise CrossmedError(
            f"Registry {path} has schema {schema!r}, this release reads {SCHEMA}.", hint="Upgrade crossmed."
        )
    for section, entries in content.items():
        if section not in _SECTIONS:
            raise CrossmedError(
                f"Registry {path}: unknown section [{section}].",
                hint=suggest(section, [*_SECTIONS, "schema"]),
            )
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            raise CrossmedError(f"Registry {path}: [{section}] must hold tables, e.g. [{section}.NAME].")
        for name, entry in entries.items():
            known = [f.name for f in fields(_SECTIONS[section])]
            for key in entry:
                if key not in known:
                    raise CrossmedError(
                        f"Registry {path}: unknown key {key!r} in [{section}.{name}].",
                        hint=suggest(key, known),
                    )
    return content


_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "family": (str, "text"), "summary": (str, "text"), "hub": (str, "text"), "revision": (str, "text"),
    "licence": (str, "text"), "extra": (str, "text"), "access": (str, "text"), "url": (str, "text"),
    "options": (dict, "a table"), "train": (dict, "a table"), "packages": (list, "a list of texts"),
    "parameters_m": ((int, float), "a number"), "ms_per_image": ((int, float), "a number"),
    "gated": (bool, "true or false"),
}  # fmt: skip


def _build(kind: type, section: str, name: str, entry: Mapping[str, Any]) -> Any:
    for key, value in entry.items():
        wanted, words = _KINDS[key]
        if not isinstance(value, wanted) or (
            isinstance(value, list) and not all(isinstance(one, str) for one in value)
        ):
            raise CrossmedError(f"Registry entry [{section}.{name}]: {key} must be {words}, not {value!r}.")
    if kind is ModelEntry and "family" not in entry:
        raise CrossmedError(f"Registry entry [{section}.{name}] names no family.", hint='E.g. family = "timm".')
    packages = {"packages": tuple(entry["packages"])} if "packages" in entry else {}
    return kind(**{**entry, **packages})

"""Where weights lie: a folder, the hub's cache, or the hub. Every reason why they cannot be had is one line."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.hub import cached, download, fetch_command
from crossmed_core.types import ModelSpec

SHIPPED = "shipped:"
"""Before the name of a miniature that comes with this package."""

# Never *.bin, *.pt: pickles run code when they are opened. Never *.py either, unless asked for.
FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Files that can be loaded.

    Attributes:
        folder: Where they are.
        hub: Hub id; "" for a local folder.
        commit: Commit of the hub id; "" for a local folder.
    """

    folder: Path
    hub: str = ""
    commit: str = ""


def local_folder(spec: ModelSpec) -> Path | None:
    """Return the folder that a model's name means; None if it is a hub id.

    Raises:
        CrossmedError: If the name can only be a folder, and there is none.
    """
    name = str(spec.options.get("name") or spec.hub)
    if name.startswith(SHIPPED):
        return Path(__file__).parent / "checkpoints" / name.removeprefix(SHIPPED)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name:
        raise CrossmedError(
            f"Model {spec.name!r}: there is no folder {name!r}.",
            hint="Name a folder with config.json and *.safetensors, or a hub id ORG/NAME.",
            exit_code=ExitCode.ENVIRONMENT,
        )
    return None


def find(spec: ModelSpec) -> Checkpoint | None:
    """Find a checkpoint on this machine, without asking the hub; None if its hub id is not wholly in the cache.

    Raises:
        CrossmedError: If the name is that of a folder and there is none.
    """
    if (folder := local_folder(spec)) is not None:
        return Checkpoint(folder)
    hub, revision = _hub_id(spec)
    found = cached(hub, revision, _files(spec))
    return Checkpoint(found, hub, found.name) if found is not None and _is_whole(found) else None


def fetch(spec: ModelSpec) -> Checkpoint:
    """Find a checkpoint, downloading it from the hub if it is not on this machine.

    Raises:
        CrossmedError: If it cannot be had: no network, no such id or revision, a licence to be accepted first.
    """
    if (found := find(spec)) is not None:
        return found
    hub, revision = _hub_id(spec)
    folder = download(spec.name, hub, revision, _files(spec))
    return Checkpoint(folder, hub, folder.name)


def _is_whole(folder: Path) -> bool:
    """Whether all weights that a snapshot lists are there: a download may have been cut off between its files."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return any(folder.glob("*.safetensors"))
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return all((folder / name).is_file() for name in names)


def command_for(spec: ModelSpec) -> str:
    """Return the command that puts a hub id's weights into the cache."""
    hub, revision = _hub_id(spec)
    return fetch_command(hub, revision, _files(spec))


def _hub_id(spec: ModelSpec) -> tuple[str, str | None]:
    name = str(spec.options.get("name") or spec.hub)
    # The pin belongs to the registry's hub id, not to another that was put in its place.
    pinned = spec.revision if name == spec.hub else ""
    return name, str(spec.options.get("revision") or pinned) or None


def _files(spec: ModelSpec) -> tuple[str, ...]:
    return (*FILES, "*.py") if spec.options.get("trust_remote_code") is True else FILES


def check(checkpoint: Checkpoint, spec: ModelSpec) -> dict[str, Any]:
    """Check that a folder holds all that a chat model of transformers needs, and return its config.json.

    Raises:
        CrossmedError: Naming what is missing.
    """
    folder = checkpoint.folder

    def refuse(what: str, hint: str) -> CrossmedError:
        return CrossmedError(f"Model {spec.name!r}: {folder} {what}.", hint=hint, exit_code=ExitCode.ENVIRONMENT)

    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if "config.json" not in names:
        raise refuse("has no config.json", "It is not a folder that 'save_pretrained' wrote.")
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert isinstance(config, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise refuse("has a config.json that is not a JSON object", "Fetch it again.") from error
    if not any(name.endswith(".safetensors") for name in names):
        pickled = any(name.endswith((".bin", ".pt", ".pth")) for name in names)
        hint = "Weights are pickled there, which is not opened; convert them with 'save_pretrained'." if pickled else ""
        raise refuse("holds no *.safetensors weights", hint or "The download is incomplete; fetch it again.")
    if not names & {"processor_config.json", "preprocessor_config.json"}:
        raise refuse(
            "has no processor_config.json or preprocessor_config.json, so images cannot be prepared",
            "Copy it from the model that it was made of, or save it with 'processor.save_pretrained'.",
        )
    if not names & {"tokenizer.json", "tokenizer.model", "vocab.json"}:
        raise refuse("has no tokenizer (tokenizer.json)", "Copy it from the model that it was made of.")
    return config


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 over a folder's weights and config.json: what names a model that no hub commit names."""
    total = hashlib.sha256()
    for path in (folder / "config.json", *sorted(folder.glob("*.safetensors"))):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


@dataclass(frozen=True)
class Weights:
    """What the headers of safetensors files say.

    Attributes:
        parameters: Number of weights.
        dtypes: Weights per stored dtype, e.g. {"BF16": 8291375616}.
    """

    parameters: int
    dtypes: dict[str, int]


def weights_of(folder: Path) -> Weights | None:
    """Count the weights of a folder from the files' headers; None if a file is damaged."""
    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if length > path.stat().st_size:
                    return None
                header = json.loads(file.read(length))
            for name, entry in header.items():
                if name != "__metadata__":
                    counts[entry["dtype"]] += math.prod(entry["shape"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return Weights(sum(counts.values()), dict(counts))

"""From a model's name to the files that it is made of.

A checkpoint is open_clip's (open_clip_config.json), or a CLIP or SigLIP of transformers (config.json), in a folder or
on the hub. open_clip's own way to the hub takes no revision, so a snapshot of the pinned commit is fetched here.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import open_clip

from crossmed_core.errors import CrossmedError, ExitCode, suggest
from crossmed_core.hub import download, fetch_command
from crossmed_core.types import ModelSpec

HUB, FOLDER = "hf-hub:", "local-dir:"
MINIATURE = "miniature"
"""The name of the network that begins with random weights (`miniature`)."""

OPEN_CLIP, TRANSFORMERS = "open_clip_config.json", "config.json"
WEIGHTS = {
    OPEN_CLIP: ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    TRANSFORMERS: ("model.safetensors", "pytorch_model.bin"),
}
"""Configuration -> files of weights, the preferred one first. Pickled ones are opened with `weights_only`."""
SERVED = ("clip", "siglip")
"""Architectures of transformers (`model_type`)."""
_TEXT_FILES = ("*.json", "*.txt", "*.model")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "*.model")


@dataclass(frozen=True)
class Checkpoint:
    """All that a network is made of.

    Attributes:
        name: As the user wrote it, for messages.
        model: open_clip's `model_cfg`, with paths in place of hub ids; empty for a checkpoint of transformers.
        preprocess: Mean, std and interpolation, under open_clip's names; what is missing is CLIP's.
        folder: The files' folder; None where open_clip knows the architecture, and for the miniature.
        weights: The file; None for the miniature.
        tokenizer: Folder of a tokenizer of transformers; None = CLIP's own, which open_clip brings.
        hub: Hub id; "" for a folder.
        commit: Commit of the hub id.
    """

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    preprocess: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    weights: Path | None = None
    tokenizer: Path | None = None
    hub: str = ""
    commit: str = ""


def resolve(spec: ModelSpec) -> Checkpoint:
    """Find the files of a model, fetching those that are not on this machine.

    Raises:
        CrossmedError: For an unknown name, or files that cannot be had or are not those of a CLIP.
    """
    name = str(spec.options.get("name") or f"{HUB}{spec.hub}")
    if name == MINIATURE:
        from crossmed_plugins.clip.miniature import CONFIG

        return Checkpoint(spec.name, CONFIG)
    if name.startswith(HUB):
        return _of_hub(spec, name.removeprefix(HUB))
    path = Path(name.removeprefix(FOLDER)).expanduser()
    if name.startswith((FOLDER, ".", "/", "~")) or path.is_dir():
        return _of_folder(spec, path)
    return _of_architecture(spec, name)


def _of_hub(spec: ModelSpec, hub: str) -> Checkpoint:
    revision = _revision(spec, hub)
    files = [file for names in WEIGHTS.values() for file in names]
    folder = download(spec.name, hub, revision, _TEXT_FILES, wanted=files)
    checkpoint = _read(spec, folder)
    weights = _fetch_weights(spec, hub, revision, WEIGHTS[_kind(spec, folder)])
    return replace(checkpoint, weights=weights, hub=hub, commit=folder.name)


def _of_folder(spec: ModelSpec, folder: Path) -> Checkpoint:
    if not folder.is_dir():
        raise _refused(spec, f"there is no folder {folder}.", f"Name one that holds {OPEN_CLIP} and weights.")
    checkpoint = _read(spec, folder)
    files = WEIGHTS[_kind(spec, folder)]
    weights = next((folder / file for file in files if (folder / file).is_file()), None)
    if weights is None:
        raise _refused(spec, f"{folder} holds no weights.", f"They are looked for in {' and '.join(files)}.")
    return replace(checkpoint, weights=weights)


def _of_architecture(spec: ModelSpec, name: str) -> Checkpoint:
    architecture, _, tag = name.partition("/")
    known = open_clip.list_models()
    if architecture not in known:
        hint = suggest(architecture, known) or "open_clip.list_models() lists all; a hub id is written hf-hub:ORG/NAME."
        raise CrossmedError(f"open_clip has no architecture {architecture!r}.", hint=hint)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        hint = suggest(tag, tags) or (f"Known: {', '.join(tags)}." if tags else "It has none at all.")
        what = f"no weights {tag!r} of" if tag else "several weights of" if tags else "no weights of"
        raise CrossmedError(f"open_clip has {what} {architecture!r}; write ARCHITECTURE/TAG.", hint=hint)
    model, preprocess = open_clip.get_model_config(architecture), open_clip.get_pretrained_cfg(architecture, tag)
    quick = bool(preprocess.get("quick_gelu"))
    if quick != bool(model.get("quick_gelu")):
        plain = architecture.removesuffix("-quickgelu")
        raise CrossmedError(
            f"The weights {tag!r} were trained with another activation than {architecture!r} has.",
            hint=f"Use {plain}{'-quickgelu' if quick else ''}/{tag}.",
        )
    hub, _, file = str(preprocess["hf_hub"]).rpartition("/")
    files = (f"{file.rpartition('.')[0]}.safetensors", file) if file else WEIGHTS[OPEN_CLIP]
    revision = _revision(spec, hub)
    weights = _fetch_weights(spec, hub, revision, files)
    checkpoint = Checkpoint(spec.name, model, preprocess, None, weights, None, hub, weights.parent.name)
    return _with_text_tower(spec, checkpoint, weights.parent)


def _revision(spec: ModelSpec, hub: str) -> str | None:
    # The pin belongs to the registry's hub id, not to another that was put in its place.
    pinned = spec.revision if hub == spec.hub else ""
    return str(spec.options.get("revision") or pinned) or None


def _fetch_weights(spec: ModelSpec, hub: str, revision: str | None, files: tuple[str, ...]) -> Path:
    for place, file in enumerate(files):
        folder = download(spec.name, hub, revision, (*_TEXT_FILES, file), wanted=files[place + 1 :])
        if (folder / file).is_file():
            return folder / file
    command = fetch_command(hub, revision, (*_TEXT_FILES, *files))
    raise _refused(spec, f"there is no {' or '.join(files)} of {hub}.", f"If the hub has one: {command}")


def _kind(spec: ModelSpec, folder: Path) -> str:
    for config in WEIGHTS:
        if (folder / config).is_file():
            return config
    raise _refused(spec, f"{folder} has no {OPEN_CLIP}.", "It is not a checkpoint of open_clip.")


def _read(spec: ModelSpec, folder: Path) -> Checkpoint:
    """Read a folder's configuration; its weights are looked for later."""
    kind = _kind(spec, folder)
    content = _json(spec, folder / kind)
    if kind == OPEN_CLIP:
        model, preprocess = content.get("model_cfg"), content.get("preprocess_cfg", {})
        if not isinstance(model, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(model):
            raise _refused(spec, f"{folder / kind} describes no CLIP ('model_cfg').")
        return _with_text_tower(spec, Checkpoint(spec.name, model, preprocess, folder), folder)
    if content.get("model_type") not in SERVED:
        served = " and ".join(SERVED)
        raise _refused(spec, f"{folder} holds a model of type {content.get('model_type')!r}.", f"Served: {served}.")
    shown = _json(spec, folder / "preprocessor_config.json")
    preprocess = {
        "mean": shown.get("image_mean"),
        "std": shown.get("image_std"),
        "interpolation": "bilinear" if shown.get("resample") == 2 else "bicubic",  # numbers of Pillow's filters
    }
    given = {name: value for name, value in preprocess.items() if value}
    return Checkpoint(spec.name, {}, given, folder, None, folder)


def _json(spec: ModelSpec, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise _refused(spec, f"{path} cannot be read as JSON ({type(error).__name__}).") from error
    return content


def _with_text_tower(spec: ModelSpec, checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Find what a text tower of transformers needs beside the weights: its configuration and its tokenizer.

    open_clip would ask the hub for the configuration, of whatever revision, even if it has the weights of the whole
    network. A folder may bring it: `hf_model_name` is then a folder inside it, with a config.json.
    """
    model = deepcopy(checkpoint.model)
    text = model["text_cfg"]
    revision = str(spec.options.get("text_revision") or "") or None
    tokenizer = None
    if source := text.get("hf_model_name"):
        inside = folder / source
        found = inside if inside.is_dir() else download(spec.name, source, revision, (TRANSFORMERS,))
        text["hf_model_name"] = str(found)
    if source := text.get("hf_tokenizer_name"):
        own = any(path for pattern in _TOKENIZERS for path in folder.glob(pattern))
        tokenizer = folder if own else download(spec.name, source, revision, _TEXT_FILES)
    return replace(checkpoint, model=model, tokenizer=tokenizer)


def _refused(spec: ModelSpec, what: str, hint: str = "") -> CrossmedError:
    return CrossmedError(f"Model {spec.name!r}: {what}", hint=hint, exit_code=ExitCode.ENVIRONMENT)

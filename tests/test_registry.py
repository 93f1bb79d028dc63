"""The registry: layers, mistakes, resolving names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crossmed_core.catalog import Catalog, train_settings
from crossmed_core.errors import CrossmedError
from crossmed_core.plugins import PluginConfig
from crossmed_core.registry import load_registry, shipped_path, user_path


def write(folder: Path, text: str, name: str = "r.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_the_shipped_registry_resolves_to_the_last_alias() -> None:
    catalog = Catalog.with_files(PluginConfig(allowed=frozenset()))
    for alias, entry in catalog.registry.models.items():
        resolved = catalog.model(alias)
        assert resolved.spec.family == entry.family and resolved.settings.steps > 0
        known = {option for option, _ in resolved.record.options}
        assert set(entry.options) <= known, f"{alias} sets options that {entry.family} does not know"
    assert shipped_path().name == "registry.toml"


def test_layers_merge_key_by_key_and_the_last_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = write(
        user_path().parent, '[models.mine]\nfamily = "timm"\noptions = { name = "a", size = 32 }\n', "registry.toml"
    )
    named = write(
        tmp_path, '[models.mine]\nsummary = "from the environment"\n[models.mine.options]\nsize = 64\n', "e.toml"
    )
    flag = write(tmp_path, '[models.mine]\nsummary = "from the flag"\n', "f.toml")
    monkeypatch.setenv("CROSSMED_REGISTRY", str(named))
    try:
        registry = load_registry([flag])
    finally:
        user.unlink()
    assert registry.models["mine"].summary == "from the flag"
    assert registry.models["mine"].options == {"name": "a", "size": 64}
    assert registry.sources == (shipped_path(), user, named, flag)


def test_three_lines_make_a_model(tmp_path: Path) -> None:
    extra = write(tmp_path, '[models.my-resnet]\nfamily = "timm"\noptions = { name = "resnet34" }\n')
    resolved = Catalog.with_files(PluginConfig(), [extra]).model("my-resnet", {"steps": 7, "size": 48})
    assert resolved.spec.options == {"name": "resnet34", "size": 48} and resolved.settings.steps == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[models.x]\nfamly = "timm"\n', r"r\.toml: unknown key 'famly' in \[models\.x\]\. Did you mean 'family'"),
        ("[model.x]\n", r"unknown section \[model\]\. Did you mean 'models'"),
        ("[models]\nx = 3\n", r"\[models\] must hold tables"),
        ("models = [\n", r"r\.toml is not valid TOML"),
        ("schema = 9\n", "has schema 9"),
        ('[models.x]\nfamily = "timm"\noptions = "resnet18"\n', r"options must be a table, not 'resnet18'"),
        ('[plugins.x]\npackages = "torch"\n', "packages must be a list of texts"),
        ('[models.x]\nsummary = "no family"\n', r"\[models\.x\] names no family"),
    ],
)
def test_mistakes_are_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CrossmedError, match=message):
        load_registry([write(tmp_path, text)])


def test_an_unreadable_registry_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CrossmedError, match="cannot be read: No such file"):
        load_registry([tmp_path / "nothing.toml"])
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CrossmedError, match="not UTF-8"):
        load_registry([tmp_path / "bytes.toml"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_registry_without_permission_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.chmod(0)
    with pytest.raises(CrossmedError, match="Permission denied"):
        load_registry([path])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt18", "Did you mean 'resnet18'"),
        ("timm", "name a model of it"),
        ("timm:", "after the colon"),
        ("nobody:chance", "Unknown model"),
    ],
)
def test_unknown_models_are_helped(name: str, message: str) -> None:
    with pytest.raises(CrossmedError, match=message):
        Catalog().model(name)


def test_options_and_settings_are_checked() -> None:
    catalog = Catalog()
    with pytest.raises(CrossmedError, match=r"no option 'stpes'\. Did you mean 'steps'"):
        catalog.model("resnet18", {"stpes": 5})
    for bad, message in [
        ({"steps": "many"}, "must be int"),
        ({"steps": 0}, "at least 1"),
        ({"steps": -1}, "at least 0"),
        ({"clip_norm": float("nan")}, "at least 0"),
    ]:
        with pytest.raises(CrossmedError, match=message):
            train_settings("x", bad)
    with pytest.raises(CrossmedError, match="must be int, not True"):
        train_settings("x", {"steps": True})
    assert train_settings("x", {"learning_rate": 1}).learning_rate == 1.0


def test_dataset_options_are_checked() -> None:
    catalog = Catalog()
    with pytest.raises(CrossmedError, match=r"no option 'sise'\. Did you mean 'size'"):
        catalog.dataset("phantom", {"sise": 64})
    for options, message in [
        ({"size": 8}, "at least"),
        ({"modalities": "xry"}, "Did you mean 'xray'"),
        ({"train": "x"}, "whole"),
    ]:
        with pytest.raises(CrossmedError, match=message):
            catalog.dataset("phantom", options)

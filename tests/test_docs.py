"""Documents agree with the code."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import click
import pytest

import crossmed_cli
import crossmed_core
import crossmed_plugins
from crossmed_cli.main import COMMANDS, cli
from crossmed_core import hookspecs

ROOT = Path(__file__).parent.parent
HOOKS = [name for name in vars(hookspecs) if name.startswith("crossmed_")]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_has_an_example_that_runs(name: str) -> None:
    hook = getattr(hookspecs, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(hook, name, globs={})
    assert test.examples, f"{name} has no example"
    assert any(f"def {name}(" in example.source for example in test.examples), f"the example does not implement {name}"
    assert doctest.DocTestRunner().run(test).failed == 0
    if name.endswith("s") and "_run" not in name:
        list(test.globs.get(name, list)())


def test_each_hook_is_in_the_guide() -> None:
    guide = (ROOT / "docs" / "plugins.md").read_text()
    assert [name for name in HOOKS if f"`{name}`" not in guide] == []


def modules() -> list[str]:
    found = []
    for package in (crossmed_core, crossmed_cli, crossmed_plugins):
        found += [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return found


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_readme_tree_is_the_tree() -> None:
    readme = (ROOT / "README.md").read_text()
    tree = readme.split("## The tree", 1)[1].split("```", 2)[1]
    named: set[str] = set()
    stack: list[str] = []
    for line in tree.splitlines():
        if not line.strip() or line.lstrip() == "text":
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        entry = line.split()[0]
        stack = [*stack[:depth], entry]
        if not entry.endswith("/"):
            named.add("".join(stack))
    folders = ("crossmed_core", "cli", "plugins", "tests", "benchmarks", "docs", "examples")
    real = {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".toml", ".md") and "__pycache__" not in path.parts
        if path.name != "__init__.py" or path.parent == ROOT / "crossmed_core"
    }
    assert sorted(real - named) == [], "files that the README does not name"
    assert sorted(name for name in named if not (ROOT / name).exists()) == [], "files that do not exist"


def known_options() -> dict[str, set[str]]:
    context = click.Context(cli)
    found: dict[str, set[str]] = {}

    def collect(prefix: str, command: click.Command) -> None:
        found[prefix] = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        if isinstance(command, click.Group):
            for name, sub in command.commands.items():
                collect(f"{prefix} {name}".strip(), sub)

    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        collect(name, command)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_exist(path: Path) -> None:
    options = known_options()
    seen = 0
    for line in re.findall(r"^\s*(?:\$ )?crossmed (.+)$", path.read_text(), flags=re.MULTILINE):
        words = line.split("#")[0].split()
        if words[0].startswith("-") or re.match(r"\d", words[0]):
            continue
        name = " ".join(words[:2]) if " ".join(words[:2]) in options else words[0]
        assert name in options, f"{path.name}: no command {name!r}"
        flags = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert flags - options[name] - {"--help"} == set(), f"{path.name}: crossmed {line}"
        seen += 1
    assert seen or path.name not in ("README.md", "plugins.md")


def test_names_in_documents_exist() -> None:
    from crossmed_core.catalog import Catalog

    catalog = Catalog()
    readme = "\n".join(path.read_text() for path in DOCUMENTS)
    known = {*catalog.registry.models, *catalog.plugins.records("model"), "example-cnn"}
    for name in re.findall(r"--model[ =]([\w:./,-]+)", readme):
        for one in name.split(","):
            assert one in known or one.partition(":")[0] in known or one in ("my-net", "NAME"), one
    for name in re.findall(r"--split[ =]([\w,-]+)", readme):
        for one in name.split(","):
            assert one in catalog.plugins.records("split") or one in ("NAME", "same-task"), one


def test_every_public_function_has_a_docstring() -> None:
    silent = []
    for name in modules():
        module = importlib.import_module(name)
        for attribute, value in vars(module).items():
            public = not attribute.startswith("_") and getattr(value, "__module__", None) == name
            if public and (inspect.isfunction(value) or inspect.isclass(value)) and not inspect.getdoc(value):
                silent.append(f"{name}.{attribute}")
    assert silent == []


def test_the_one_file_plugin_of_the_guide_works(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from crossmed_cli.main import run

    (source,) = re.findall(
        r"```python\n# my_plugin\.py.*?\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text(), re.DOTALL
    )
    (in_tmp / "my_plugin.py").write_text(source)
    small = [f"--dataset-option={one}" for one in ("modalities=ct,t2", "anatomies=brain", "train=32", "test=16")]
    command = [
        "run",
        "--model",
        "majority",
        "--split",
        "same-task",
        "--target",
        "t2/brain/finding",
        "--out",
        "r",
        *small,
    ]
    assert run([*command, "--plugin", "my_plugin.py", "--json"]) == 0
    scores = {one["metric"]: one["value"] for one in json.loads(capsys.readouterr().out)["scores"]}
    assert 0.25 <= scores["top-probability"] <= 1
    assert run(["score", "r"]) == 0, "without the plugin"
    assert "top-probability" in (in_tmp / "r" / "scores.jsonl").read_text(), "its scores are kept"


def test_the_dataset_of_the_guide_works(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json
    import sys

    from crossmed_cli.main import run
    from crossmed_core.testing import checks_for

    guide = (ROOT / "docs" / "plugins.md").read_text()
    (source,) = re.findall(r"```python\n# my_images\.py.*?\n(.*?)```", guide, re.DOTALL)
    (in_tmp / "my_images.py").write_text(source)
    sys.path.insert(0, str(in_tmp))
    try:
        module = importlib.import_module("my_images")
        for check in checks_for(module):
            if "import_is_light" not in check.name:  # asks another process, which does not know this folder
                check()
        (in_tmp / "IMAGES").mkdir()
        module.MyImages().write_fixture(in_tmp / "IMAGES")
    finally:
        sys.path.remove(str(in_tmp))
    command = ["build", "--plugin", "my_images.py", "--dataset", "my-images", "--data", "IMAGES", "--recipe", "mini"]
    assert run([*command, "--out", "bench", "--jobs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 32

"""Plugins: found without an import, loaded in isolation, shown with their reasons."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crossmed_core.catalog import Catalog
from crossmed_core.errors import CrossmedError
from crossmed_core.plugin_info import Status
from crossmed_core.plugins import PluginConfig
from tests.fake_distribution import BROKEN, GOOD, install, install_broken


def crossmed(*arguments: str, site: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site)] * bool(site))
    environment = {**os.environ, "PYTHONPATH": path, **env}
    command = [sys.executable, "-m", "crossmed_cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def rows(result: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(result.stdout)}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CROSSMED_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def test_seven_kinds_of_broken_plugin_become_rows(site: Path) -> None:
    install_broken(site)
    result = crossmed("plugins", "doctor", "--json", site=site)
    assert result.returncode == 3 and "Traceback" not in result.stderr
    found = rows(result)
    for name, (_, status, reason) in BROKEN.items():
        assert found[name]["status"] == status, found[name]
        assert reason in found[name]["reason"], found[name]
    assert found["good-plugin"]["status"] == "ok" and found["good-plugin"]["records"] == ["model good-model"]
    assert all(found[name]["status"] == "ok" for name in ("phantom", "baseline", "splits", "metrics"))
    models = {row["name"] for row in json.loads(crossmed("ls", "models", "--json", site=site).stdout)}
    assert {"good-model", "chance", "majority"} <= models
    assert not {"half-a-plugin", "future"} & models, "a broken plugin leaves nothing behind"


def test_list_imports_no_plugin_and_remembers_why_one_is_broken(site: Path) -> None:
    install_broken(site)
    before = rows(crossmed("plugins", "list", "--json", site=site))
    assert before["sys-exit"]["status"] == "found" and before["sys-exit"]["reason"] == ""
    crossmed("ls", "models", site=site)
    after = rows(crossmed("plugins", "list", "--json", site=site))
    for name, (_, status, reason) in BROKEN.items():
        assert after[name]["status"] == status and reason in after[name]["reason"] and after[name]["remembered"]
    # Mended: the list does not insist on yesterday's news.
    (site / "plugin_sys_exit.py").write_text(GOOD.format(model="mended"), encoding="utf-8")
    mended = rows(crossmed("plugins", "list", "--json", site=site))
    assert mended["sys-exit"]["status"] == "found"


def modules_after(*arguments: str, site: Path | None = None) -> tuple[set[str], str]:
    code = (
        "import sys\n"
        "from crossmed_cli.main import run\n"
        f"code = run({list(arguments)!r})\n"
        "print('MODULES', code, *sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site or "")}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    last = result.stdout.strip().splitlines()[-1].split()
    assert last[0] == "MODULES", result.stderr
    return set(last[2:]), result.stdout


@pytest.mark.parametrize("arguments", [("plugins", "list"), ("--help",), ("--version",)])
def test_start_up_budget(arguments: tuple[str, ...], site: Path) -> None:
    install_broken(site)
    modules, _ = modules_after(*arguments, site=site)
    heavy = {"torch", "timm", "transformers", "segmentation_models_pytorch", "scipy", "numpy", "PIL", "pandas"}
    assert not heavy & modules
    plugins = {name for name in modules if name.startswith(("crossmed_plugins.", "plugin_"))}
    assert not plugins, "a plugin was imported"


@pytest.mark.parametrize("arguments", [("ls", "models"), ("ls", "splits"), ("plugins", "doctor"), ("run", "--help")])
def test_lists_never_import_torch(arguments: tuple[str, ...]) -> None:
    modules, _ = modules_after(*arguments)
    assert not {"torch", "timm", "transformers", "segmentation_models_pytorch"} & modules


def test_disable_and_allow_act_before_import(site: Path) -> None:
    install_broken(site)
    disabled = rows(crossmed("plugins", "doctor", "--json", site=site, CROSSMED_DISABLE="sys-exit,timm"))
    assert disabled["sys-exit"]["status"] == "disabled" == disabled["timm"]["status"]
    flagged = rows(crossmed("plugins", "doctor", "--json", "--no-plugin", "sys-exit:sys-exit", site=site))
    assert flagged["sys-exit"]["status"] == "disabled"
    ours = crossmed("plugins", "doctor", "--json", site=site, CROSSMED_PLUGINS="")
    assert ours.returncode == 0 and rows(ours)["good-plugin"]["status"] == "disabled"
    assert rows(ours)["phantom"]["status"] == "ok"
    some = rows(crossmed("plugins", "doctor", "--json", site=site, CROSSMED_PLUGINS="good-plugin"))
    assert some["good-plugin"]["status"] == "ok" and some["newer-api"]["status"] == "disabled"


def test_strict_mode_turns_warnings_into_failures(site: Path) -> None:
    install(site, "name-clash", BROKEN["name-clash"][0])
    assert crossmed("ls", "models", site=site).returncode == 0
    strict = crossmed("ls", "models", site=site, CROSSMED_STRICT="1")
    assert strict.returncode == 3 and "also registered by crossmed" in strict.stderr and strict.stderr.count("\n") == 1


def test_a_name_claimed_twice_stays_with_its_first_owner(site: Path) -> None:
    install(site, "name-clash", BROKEN["name-clash"][0])
    first = json.loads(crossmed("show", "model", "chance", "--json", site=site).stdout)
    second = json.loads(crossmed("show", "model", "name-clash:chance", "--json", site=site).stdout)
    assert first["plugin"] == "crossmed:baseline" and second["plugin"] == "name-clash:name-clash"


def test_an_unknown_name_points_at_the_plugin_that_did_not_load(site: Path) -> None:
    install(site, "raises-late", BROKEN["raises-late"][0])
    result = crossmed("show", "model", "raises-late:half-a-plugin", site=site)
    assert result.returncode == 2 and "out of models" in result.stderr and "Traceback" not in result.stderr


def test_what_a_plugin_prints_does_not_spoil_json(site: Path) -> None:
    install(site, "chatty", "print('hello from a plugin')\n" + GOOD.format(model="chatty-model"))
    result = crossmed("ls", "models", "--json", site=site)
    assert "chatty-model" in {row["name"] for row in json.loads(result.stdout)} and "hello" in result.stderr


def local_plugin(folder: Path, body: str = GOOD.format(model="local-model")) -> Path:
    path = folder / "my_plugin.py"
    path.write_text(body, encoding="utf-8")
    return path


def test_a_local_file_is_a_plugin_and_marked_as_one(tmp_path: Path) -> None:
    path = local_plugin(tmp_path)
    catalog = Catalog.with_files(PluginConfig(files=(path,)))
    claim = catalog.plugins.get("model", "local-model")
    assert claim.plugin.distribution == "local file" and claim.plugin.version.startswith("sha256:")
    assert claim.plugin.module == str(path)


def test_a_missing_local_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CrossmedError, match=r"nothing\.py does not exist"):
        Catalog.with_files(PluginConfig(files=(tmp_path / "nothing.py",)))


def test_a_missing_extra_shows_without_an_import(tmp_path: Path) -> None:
    registry = tmp_path / "registry.toml"
    registry.write_text('[plugins.timm]\npackages = ["not_a_package"]\nextra = "timm"\n', encoding="utf-8")
    catalog = Catalog.with_files(PluginConfig(), [registry])
    row = next(info for info in catalog.plugins.remembered() if info.name == "timm")
    assert row.status is Status.MISSING_EXTRA and "pip install 'crossmed[timm]'" in row.reason


def test_wrong_records_are_refused(tmp_path: Path) -> None:
    body = "from crossmed_core import hookimpl\n@hookimpl\ndef crossmed_models():\n    yield {}\n"
    catalog = Catalog.with_files(PluginConfig(files=(local_plugin(tmp_path, body),)))
    catalog.plugins.load()
    assert "yielded dict, expected ModelRecord" in catalog.plugins.plugins[-1].reason
    upper = GOOD.format(model="Not A Name")
    catalog = Catalog.with_files(PluginConfig(files=(local_plugin(tmp_path, upper),)))
    catalog.plugins.load()
    assert "must be lower-case" in catalog.plugins.plugins[-1].reason


def test_an_unmarked_hook_is_noticed(tmp_path: Path) -> None:
    path = local_plugin(tmp_path, "def crossmed_models():\n    return []\n")
    catalog = Catalog.with_files(PluginConfig(files=(path,)))
    catalog.plugins.load()
    assert "not marked with @hookimpl" in catalog.plugins.plugins[-1].reason


def test_an_observer_that_raises_is_passed_over(tmp_path: Path) -> None:
    body = "from crossmed_core import hookimpl\n@hookimpl\ndef crossmed_run_started(run):\n    raise ValueError('no')\n"
    catalog = Catalog.with_files(PluginConfig(files=(local_plugin(tmp_path, body),)))
    told: list[str] = []
    catalog.plugins.observe("crossmed_run_started", told.append, run={"name": "demo"})
    assert len(told) == 1 and "ValueError: no" in told[0]

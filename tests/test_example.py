"""The example distribution, installed by pip as a third party's would be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "crossmed-example-model"
SMALL = ["modalities=ct,t2", "anatomies=chest,brain", "train=64", "val=8", "test=32"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # No build isolation and no dependencies: the tests work without a network.
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(EXAMPLE)], check=True, timeout=120)
    return folder


def call(site: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env, timeout=300, check=False)


def test_installed_it_appears_runs_and_passes_its_checks(site: Path, tmp_path: Path) -> None:
    models = json.loads(call(site, "-m", "crossmed_cli.main", "ls", "models", "--json").stdout)
    assert "example-cnn" in {row["name"] for row in models if row["plugin"] == "crossmed-example-model"}
    command = ["run", "--model=example-cnn", "--split=related", "--set=steps=8", "--set=batch_size=8", "--jobs=1"]
    data = [f"--dataset-option={one}" for one in SMALL]
    result = call(site, "-m", "crossmed_cli.main", *command, *data, f"--out={tmp_path / 'run'}", "--json")
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert content["scores"][0]["model"] == "example-cnn" and content["scores"][0]["n"] == 32
    header = json.loads((tmp_path / "run" / "run.json").read_text())
    used = {plugin["distribution"]: plugin["version"] for plugin in header["sessions"][0]["environment"]["plugins"]}
    assert used["crossmed-example-model"] == "0.1.0"
    checks = call(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests"), f"--rootdir={tmp_path}")
    assert checks.returncode == 0 and "skipped" not in checks.stdout, checks.stdout


def test_removed_it_is_gone(site: Path, tmp_path: Path) -> None:
    left = tmp_path / "left"
    shutil.copytree(site, left)
    for path in left.glob("crossmed_example_model*"):
        shutil.rmtree(path)
    models = json.loads(call(left, "-m", "crossmed_cli.main", "ls", "models", "--json").stdout)
    assert "example-cnn" not in {row["name"] for row in models}

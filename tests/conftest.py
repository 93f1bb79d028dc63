"""Every test works offline, in its own cache, with one thread, whatever the person's environment says."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.update({"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
for name in [name for name in os.environ if name.startswith("CROSSMED_") and name != "CROSSMED_CACHE"]:
    del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSMED_CACHE", str(tmp_path_factory.mktemp("cache")))
        # A registry or plugin setting of the person who runs the tests must not change them.
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=["pipe", "link to a pipe", "link to a device"])
def irregular(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Put in a file's place what must not be opened: a pipe never answers, the device never ends."""

    def replace(path: Path) -> None:
        path.unlink()
        if request.param == "link to a device":
            path.symlink_to("/dev/zero")
        elif request.param == "link to a pipe":
            pipe = tmp_path_factory.mktemp("pipe") / "pipe"
            os.mkfifo(pipe)
            path.symlink_to(pipe)
        else:
            os.mkfifo(path)

    return replace

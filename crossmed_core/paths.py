"""Where crossmed keeps files of its own."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the cache: `$CROSSMED_CACHE`, or the user's cache folder. It may be deleted at any time."""
    if named := os.environ.get("CROSSMED_CACHE"):
        return Path(named)
    return platformdirs.user_cache_path("crossmed", appauthor=False)

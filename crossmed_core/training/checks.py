"""Checks of model options that families share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossmed_core.errors import CrossmedError


def check_options(options: Mapping[str, Any]) -> None:
    """Check `channels`, `size`, `kwargs` and the switches.

    Raises:
        CrossmedError: Naming the option and what it must be.
    """
    if options.get("channels", 3) not in (1, 3):
        raise CrossmedError(f"channels must be 1 or 3, not {options['channels']!r}.")
    for name in ("pretrained", "auxiliary"):
        if not isinstance(options.get(name, False), bool):  # the text "False" would count as true
            raise CrossmedError(f"{name} must be true or false, not {options[name]!r}.")
    size = options.get("size", 64)
    if type(size) is not int or size < 16:
        raise CrossmedError(f"size must be a whole number of at least 16, not {size!r}.")
    if not isinstance(options.get("kwargs", {}), Mapping):
        raise CrossmedError(f"kwargs must be a table, e.g. {{ drop_rate = 0.1 }}, not {options['kwargs']!r}.")

"""Collects the checks that apply to a plugin module."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from crossmed_core.records import DatasetRecord, MetricRecord, ModelRecord, Record, SplitRecord
from crossmed_core.testing import datasets, metrics, models, plugins, splits

CheckFunction = Callable[[Any, Path], None]

_CHECKS: dict[type[Record], tuple[CheckFunction, ...]] = {
    DatasetRecord: datasets.CHECKS,
    ModelRecord: models.CHECKS,
    SplitRecord: splits.CHECKS,
    MetricRecord: metrics.CHECKS,
}


@dataclass(frozen=True)
class Check:
    """One named check of one record, or of the plugin as a whole.

    Attributes:
        name: "check_...[record]", as pytest shows it.
        function: What is called with the subject and an empty folder.
        subject: The record, or the plugin module.
    """

    name: str
    function: CheckFunction
    subject: Any

    def __call__(self) -> None:
        """Run the check.

        Raises:
            AssertionError: Saying what is wrong and what is expected.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.function(self.subject, Path(folder))

    def __str__(self) -> str:
        return self.name


def checks_for(plugin: ModuleType) -> Iterator[Check]:
    """Yield all checks that apply to a plugin module.

    Args:
        plugin: The module that an entry point names.
    """
    for function in plugins.CHECKS:
        yield Check(function.__name__, function, plugin)
    for record in plugins.records_of(plugin):
        for check in _CHECKS[type(record)]:
            if getattr(check, "applies", lambda record: True)(record):
                yield Check(f"{check.__name__}[{record.name}]", check, record)


def parametrize_with_checks(*plugins_to_check: ModuleType) -> Any:
    """Return a pytest decorator that runs a test once per check; the test takes `check` and calls it.

    Args:
        *plugins_to_check: Plugin modules.
    """
    import pytest

    checks = [check for plugin in plugins_to_check for check in checks_for(plugin)]
    return pytest.mark.parametrize("check", checks, ids=str)

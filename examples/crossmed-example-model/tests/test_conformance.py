"""The checks that crossmed gives to every plugin."""

import pytest

from crossmed_core.testing import parametrize_with_checks

plugin = pytest.importorskip("crossmed_example_model.plugin", reason="pip install ./examples/crossmed-example-model")


@parametrize_with_checks(plugin)
def test_conformance(check):
    check()

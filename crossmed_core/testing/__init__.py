"""The conformance suite: what every plugin must pass, as small named checks chosen by what it declares.

In a plugin's own test suite:

    import my_package.plugin
    from crossmed_core.testing import parametrize_with_checks

    @parametrize_with_checks(my_package.plugin)
    def test_conformance(check):
        check()

Every check works offline, on the counterfeits that datasets forge and the miniatures that model families build.
"""

from crossmed_core.testing.suite import Check, checks_for, parametrize_with_checks

__all__ = ["Check", "checks_for", "parametrize_with_checks"]

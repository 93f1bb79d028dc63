"""Our own plugins pass the suite that we give to others, and the suite notices what it is there to notice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

import crossmed_plugins.baseline.plugin
import crossmed_plugins.brats2020.plugin
import crossmed_plugins.chexpert.plugin
import crossmed_plugins.clip.plugin
import crossmed_plugins.medmat.plugin
import crossmed_plugins.metrics.plugin
import crossmed_plugins.mllm.plugin
import crossmed_plugins.mosmeddata.plugin
import crossmed_plugins.phantom.plugin
import crossmed_plugins.siim_acr.plugin
import crossmed_plugins.smp.plugin
import crossmed_plugins.splits.plugin
import crossmed_plugins.timm.plugin
from crossmed_core import hookimpl
from crossmed_core.records import DatasetRecord, MetricRecord, ModelRecord, SplitRecord
from crossmed_core.splits import CellRule, SplitViolationError
from crossmed_core.testing import Check, checks_for, parametrize_with_checks
from crossmed_core.types import Prediction
from crossmed_plugins.baseline.model import Chance, ChanceFamily
from crossmed_plugins.metrics.option import Accuracy
from crossmed_plugins.phantom.dataset import Phantom


@parametrize_with_checks(
    crossmed_plugins.baseline.plugin,
    crossmed_plugins.brats2020.plugin,
    crossmed_plugins.chexpert.plugin,
    crossmed_plugins.clip.plugin,
    crossmed_plugins.medmat.plugin,
    crossmed_plugins.metrics.plugin,
    crossmed_plugins.mllm.plugin,
    crossmed_plugins.mosmeddata.plugin,
    crossmed_plugins.phantom.plugin,
    crossmed_plugins.siim_acr.plugin,
    crossmed_plugins.smp.plugin,
    crossmed_plugins.splits.plugin,
    crossmed_plugins.timm.plugin,
)
def test_built_in(check: Check) -> None:
    check()


class WrongOrder(Chance):
    def predict(self, items):
        return reversed(list(super().predict(items)))


class WrongOrderFamily(ChanceFamily):
    kind = WrongOrder


class Forgetful(Chance):
    """Answers with another seed each time."""

    calls = 0

    def predict(self, items):
        Forgetful.calls += 1
        self.seed = Forgetful.calls
        return super().predict(items)


class ForgetfulFamily(ChanceFamily):
    kind = Forgetful


class NotProbabilities(Chance):
    def predict(self, items):
        for one in super().predict(items):
            yield replace(one, option_scores=(0.9, 0.9, 0.9, 0.9)) if one.option is not None else one


class NotProbabilitiesFamily(ChanceFamily):
    kind = NotProbabilities


class ImpureAccuracy(Accuracy):
    def __call__(self, pairs):
        pairs.reverse()
        return super().__call__(pairs)


class ErrorRate(Accuracy):
    def __call__(self, pairs):
        return 1 - super().__call__(pairs)


class TwoSided(Phantom):
    """Puts one patient into two parts."""

    def samples(self, root):
        for sample in super().samples(root):
            yield replace(sample, patient="everybody")


class Random(Phantom):
    """Invents ids."""

    count = 0

    def samples(self, root):
        for sample in super().samples(root):
            Random.count += 1
            yield replace(sample, id=f"{sample.id}-{Random.count}")


impure, error_rate = ImpureAccuracy(), ErrorRate()


def leaky(keys, *, target, seed):
    split = CellRule("leaky", lambda target, cells, share: [c for c in cells if c == target])(
        keys, target=target, seed=seed
    )
    return replace(split, train=split.train + split.test[:1])


def forgetful_order(keys, *, target, seed):
    split = CellRule("unordered", lambda target, cells, share: [c for c in cells if c == target])(
        keys, target=target, seed=seed
    )
    return replace(split, train=tuple(key.id for key in keys if key.mat == target and key.part == "train"))


HERE = __name__


def plugin_with(hook: str, record: object) -> ModuleType:
    module = ModuleType(HERE)
    implementation: Callable[[], object] = lambda: iter([record])  # noqa: E731
    implementation.__name__ = hook
    setattr(module, hook, hookimpl(implementation))
    return module


def model(target: str) -> ModelRecord:
    answers = frozenset({"option", "mask"})
    return ModelRecord(
        name="bad", summary="bad", target=f"{HERE}:{target}", answers=answers, trains=False, sees_images=False
    )


@pytest.mark.parametrize(
    ("hook", "record", "failing"),
    [
        ("crossmed_models", model("WrongOrderFamily"), "check_answers_every_item_once[bad]"),
        ("crossmed_models", model("ForgetfulFamily"), "check_training_is_deterministic[bad]"),
        ("crossmed_models", model("NotProbabilitiesFamily"), "check_option_scores_are_probabilities[bad]"),
        (
            "crossmed_metrics",
            MetricRecord(name="bad", summary="bad", target=f"{HERE}:impure"),
            "check_metric_is_pure[bad]",
        ),
        (
            "crossmed_metrics",
            MetricRecord(name="bad", summary="bad", target=f"{HERE}:error_rate"),
            "check_perfect_answers_score_best[bad]",
        ),
        (
            "crossmed_splits",
            SplitRecord(name="leaky", summary="bad", target=f"{HERE}:leaky"),
            "check_split_keeps_its_promises[leaky]",
        ),
        (
            "crossmed_splits",
            SplitRecord(name="unordered", summary="bad", target=f"{HERE}:forgetful_order"),
            "check_split_ignores_order[unordered]",
        ),
        (
            "crossmed_datasets",
            DatasetRecord(name="bad", summary="bad", target=f"{HERE}:TwoSided"),
            "check_patients_stay_in_one_part[bad]",
        ),
        (
            "crossmed_datasets",
            DatasetRecord(name="bad", summary="bad", target=f"{HERE}:Random"),
            "check_samples_are_deterministic[bad]",
        ),
    ],
)
def test_suite_notices(
    hook: str, record: object, failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])
    checks = {check.name: check for check in checks_for(plugin_with(hook, record))}
    # The module under test is this one, so that the heavy half is importable by name.
    with pytest.raises((AssertionError, SplitViolationError)):
        checks[failing].function(record, tmp_path)


def test_suite_notices_a_misspelt_hook() -> None:
    module = ModuleType("misspelt")

    @hookimpl
    def crossmed_model():
        return []

    module.crossmed_model = crossmed_model  # type: ignore[attr-defined]
    check = next(one for one in checks_for(module) if one.name == "check_hooks_are_known")
    with pytest.raises(TypeError, match="Did you mean 'crossmed_models'"):
        check()


def test_a_failed_answer_is_no_answer() -> None:
    assert not Prediction("x", error="refused").scored
    assert not Prediction("x").scored

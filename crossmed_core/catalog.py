"""Names -> things: joins what plugins can do with what the registry stands behind."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from crossmed_core.contracts import (
    ConfigurableSplitter,
    Dataset,
    Forecast,
    Metric,
    Model,
    ModelFamily,
    Splitter,
    TrainSettings,
)
from crossmed_core.errors import CrossmedError, ExitCode, suggest
from crossmed_core.paths import cache_folder
from crossmed_core.plugins import Claim, PluginConfig, PluginManager
from crossmed_core.records import DatasetRecord, MetricRecord, ModelRecord, SplitRecord
from crossmed_core.registry import ModelEntry, Registry, load_registry
from crossmed_core.types import AnswerKind, ModelSpec

if TYPE_CHECKING:
    from crossmed_core.benchmark import Benchmark


@dataclass(frozen=True)
class ResolvedModel:
    """A model name, resolved.

    Attributes:
        spec: What to load.
        record: The family's record.
        claim: Who registered the family.
        settings: Training settings: the registry's over the defaults.
        entry: The registry entry, if the name is an alias.
    """

    spec: ModelSpec
    record: ModelRecord
    claim: Claim
    settings: TrainSettings
    entry: ModelEntry | None


class Catalog:
    """Looks names up.

    Args:
        plugins: What is installed; None = as the environment says.
    """

    def __init__(self, plugins: PluginManager | None = None) -> None:
        self.plugins = plugins or PluginManager(PluginConfig.from_environment(), load_registry())
        self.registry: Registry = self.plugins.registry

    @classmethod
    def with_files(cls, config: PluginConfig, registries: Sequence[Path] = ()) -> Catalog:
        """Build a catalog from plugin settings and registry files."""
        return cls(PluginManager(config, load_registry(registries)))

    # -- models ------------------------------------------------------------------------------------

    def model(self, name: str, options: Mapping[str, Any] | None = None) -> ResolvedModel:
        """Resolve a model: a registry alias, a plugin's own name, `distribution:name`, or `family:spec`.

        Args:
            name: What the user typed.
            options: Overrides; keys of `TrainSettings` go to training, the others to the family.

        Raises:
            CrossmedError: For an unknown name or option.
        """
        entry = self.registry.models.get(name)
        if entry is not None:
            claim = self.plugins.get("model", entry.family)
            values, train = dict(entry.options), {**dict(claim.record.train), **entry.train}
            spec = ModelSpec(
                name, entry.family, {}, entry.hub, entry.revision, entry.licence, entry.parameters_m, entry.gated
            )
        else:
            claim, values = self._family(name)
            train = dict(claim.record.train)
            spec = ModelSpec(name, claim.record.name)
        known_train = {field.name for field in fields(TrainSettings)}
        known_options = {option for option, _ in claim.record.options}
        for key, value in (options or {}).items():
            if key in known_train:
                train[key] = value
            elif key in known_options:
                values[key] = value
            else:
                raise CrossmedError(
                    f"Model {name!r} has no option {key!r}.", hint=suggest(key, known_train | known_options)
                )
        record = claim.record.configured(values)
        return ResolvedModel(replace(spec, options=values), record, claim, train_settings(name, train), entry)

    def _family(self, name: str) -> tuple[Claim, dict[str, Any]]:
        claims = self.plugins.records("model")
        prefix, colon, rest = name.partition(":")
        if colon and prefix in claims:
            if not rest:
                raise CrossmedError(f"{name!r}: write what to load after the colon, e.g. 'timm:resnet18'.")
            return claims[prefix], {"name": rest}
        claim = self.plugins.get("model", name, also=self.registry.models)
        if claim.record.needs_spec:
            raise CrossmedError(
                f"{name!r} is a family; name a model of it, e.g. '{name}:NAME'.",
                hint="See 'crossmed ls models'.",
            )
        return claim, {}

    def load_model(self, resolved: ResolvedModel, *, device: str) -> Model:
        """Import the family and build the model."""
        family: ModelFamily = resolved.record.load()()
        return family.load(resolved.spec, device=device)

    def forecast(self, resolved: ResolvedModel, *, device: str, trains: bool) -> Forecast | None:
        """Say what is known of a model before it is loaded; None if its family says nothing.

        Args:
            resolved: The model.
            device: "cpu" or "cuda".
            trains: Whether it will be trained.
        """
        path = resolved.record.forecast
        if not path or resolved.record.missing():
            return None
        function = replace(resolved.record, target=path).load()
        found: Forecast = function(resolved.spec, resolved.settings if trains else None, device)
        return found

    # -- datasets ----------------------------------------------------------------------------------

    def dataset_record(self, name: str) -> DatasetRecord:
        """Look a dataset up.

        Raises:
            CrossmedError: For an unknown name.
        """
        record: DatasetRecord = self.plugins.get("dataset", name).record
        return record

    def dataset(self, name: str, options: Mapping[str, Any]) -> tuple[Dataset, dict[str, Any]]:
        """Build a dataset and return it with all its options, defaults included.

        Raises:
            CrossmedError: For an unknown name or option.
        """
        record = self.dataset_record(name)
        factory = record.load()
        signature = inspect.signature(factory)
        for key in options:
            if key not in signature.parameters:
                raise CrossmedError(f"Dataset {name!r} has no option {key!r}.", hint=suggest(key, signature.parameters))
        defaults = {key: parameter.default for key, parameter in signature.parameters.items()}
        try:
            return factory(**options), {**defaults, **options}
        except CrossmedError:
            raise
        except (TypeError, ValueError) as error:
            raise CrossmedError(f"Dataset {name!r} does not take these options: {error}.") from error
        except (Exception, SystemExit) as error:
            raise CrossmedError(
                f"Dataset {name!r} cannot be made: {type(error).__name__}: {error}.",
                hint="That is a fault of its plugin.",
                exit_code=ExitCode.ENVIRONMENT,
            ) from error

    def benchmark(self, name: str, options: Mapping[str, Any], data: Path | None) -> Benchmark:
        """Open a benchmark: a folder that was built, or a dataset whose images are computed.

        Args:
            name: Dataset name; ignored for a folder that was built, whose card names it.
            options: Options of the dataset, or how a built benchmark is asked.
            data: The built folder; None for a generated dataset.

        Raises:
            CrossmedError: For an unknown name or option, or a raw download, which is built first.
        """
        # Lists of names do not wait for these.
        from crossmed_core.benchmark import DatasetBenchmark
        from crossmed_core.built import BuiltBenchmark, is_built

        if data is not None and is_built(data):
            return BuiltBenchmark(data, options)
        if data is not None:
            raise CrossmedError(
                f"{data} holds no benchmark that was built.",
                hint="Build one of raw downloads with 'crossmed build --data DIR --out BENCH'.",
                exit_code=ExitCode.ENVIRONMENT,
            )
        record = self.dataset_record(name)
        if not record.generated:
            raise CrossmedError(
                f"Dataset {name!r} is read from a download, and a benchmark is built of it first.",
                hint=f"crossmed build --dataset {name} --data DIR --out BENCH. {record.access}".strip(),
                exit_code=ExitCode.ENVIRONMENT,
            )
        dataset, settings = self.dataset(name, options)
        root = cache_folder() / "generated" / record.name
        facts: dict[str, Any] = {"default_targets": record.default_targets, "synthetic": record.synthetic}
        try:
            return DatasetBenchmark(name, dataset, root, settings, **facts)
        except CrossmedError:
            raise
        except (Exception, SystemExit) as error:
            raise CrossmedError(
                f"Dataset {name!r} failed while it was read: {type(error).__name__}: {error}.",
                exit_code=ExitCode.ENVIRONMENT,
            ) from error

    # -- splits and metrics ------------------------------------------------------------------------

    def splitter(self, text: str, options: Mapping[str, Any] | None = None) -> Splitter:
        """Import a split, with its argument and options.

        Args:
            text: NAME, NAME:ARGUMENT, or either with "distribution:" before it.
            options: Its options (`split_options`).

        Raises:
            CrossmedError: For an unknown name or option, a missing argument, one too many, or a value that the split
                does not take.
        """
        claim, argument = self._split(text)
        record: SplitRecord = claim.record
        known = {name for name, _ in record.options}
        for name in options or {}:
            if name not in known:
                raise CrossmedError(f"Split {record.name!r} has no option {name!r}.", hint=suggest(name, known))
        splitter: Splitter = record.load()
        if not record.argument and not record.options:
            return splitter
        if not isinstance(splitter, ConfigurableSplitter):
            raise CrossmedError(
                f"Split {record.name!r} declares an argument or options, and takes none.",
                hint="That is a fault of its plugin: it needs a method 'configured'.",
                exit_code=ExitCode.ENVIRONMENT,
            )
        return splitter.configured(dict(options or {}), argument)

    def split_claim(self, text: str) -> Claim:
        """Look up who registered the split of a text as `splitter` takes it, without importing it.

        Raises:
            CrossmedError: For an unknown name, a missing argument, or one too many.
        """
        return self._split(text)[0]

    def split_options(self, text: str) -> set[str]:
        """Return the options that the split of a text knows.

        Raises:
            CrossmedError: As `split_claim`.
        """
        return {name for name, _ in self.split_claim(text).record.options}

    def split_settings(self, text: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the options of a split as they act, defaults included where it tells them (`settings`), for the card.

        Raises:
            CrossmedError: As `splitter`.
        """
        splitter = self.splitter(text, options)
        return {**getattr(splitter, "settings", {}), **(options or {})}

    def _split(self, text: str) -> tuple[Claim, str]:
        """Take NAME or NAME:ARGUMENT apart; a distribution may stand before either."""
        head, colon, rest = text.partition(":")
        name, argument = head, rest
        if head not in self.plugins.records("split") and head in {one.distribution for one in self.plugins.plugins}:
            own, colon, argument = rest.partition(":")
            name = f"{head}:{own}"
        claim = self.plugins.get("split", name)
        record: SplitRecord = claim.record
        if colon and not record.argument:
            raise CrossmedError(f"Split {name!r} takes nothing after a colon, not {argument!r}.")
        if record.argument and not argument.strip():
            raise CrossmedError(
                f"Split {name!r} needs an argument: {record.argument}.", hint=f"For example: {record.example}"
            )
        return claim, argument

    def metric(self, name: str) -> tuple[MetricRecord, Metric]:
        """Import a metric."""
        record: MetricRecord = self.plugins.get("metric", name).record
        return record, record.load()

    def metrics_for(self, kind: AnswerKind, *, primary: bool = False) -> dict[str, Metric]:
        """Return the metrics for a kind of answer, or only the primary ones; one that cannot load is left out."""
        found = {}
        for name, claim in self.plugins.records("metric").items():
            if claim.record.answers == kind and (claim.record.primary or not primary):
                try:
                    found[name] = claim.record.load()
                except CrossmedError:
                    continue  # named with --metric, or by 'plugins doctor', it says why
        return found


def train_settings(owner: str, values: Mapping[str, Any]) -> TrainSettings:
    """Build training settings, checking names and types.

    Raises:
        CrossmedError: For an unknown setting or a value of the wrong type or sign.
    """
    hints = get_type_hints(TrainSettings)
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise CrossmedError(f"{owner}: unknown training setting {key!r}.", hint=suggest(key, hints))
        wanted = hints[key]
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not wanted:
            raise CrossmedError(f"{owner}: {key} must be {wanted.__name__}, not {value!r}.")
        if not isinstance(value, bool) and not (0 <= value < float("inf")):
            raise CrossmedError(f"{owner}: {key} must be a number of at least 0, not {value}.")
        checked[key] = value
    for key in ("steps", "batch_size", "accumulate"):
        if checked.get(key) == 0:
            raise CrossmedError(f"{owner}: {key} must be at least 1.")
    return TrainSettings(**checked)

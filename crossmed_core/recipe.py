"""What a run is asked to do: a grid of trials, from flags or a TOML recipe."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from crossmed_core.errors import CrossmedError, suggest

CONTROLS = ("text-only", "options-only", "blank-image", "shuffled-image", "wrong-mat")
"""What can be taken away from the test items (`crossmed_core.controls`)."""
NEAR_DUPLICATES = ("refuse", "report")
DEFAULT_SPLITS = ("in-domain", "related", "unrelated", "zero-overlap")
DEFAULT_TRAIN_SIZE = 1024
DEFAULT_DATASET = "phantom"
DEFAULT_BUILD = "crossmed-20200"
"""Build recipe of raw downloads where none is named."""


@dataclass(frozen=True)
class Block:
    """One rectangular part of a study: every split for every target, seed and model in it.

    Attributes:
        models: Model names.
        splits: Split names.
        targets: Target cells; wildcards allowed ("ct/*/finding"); "all" = every cell that the model can answer.
        seeds: Seeds.
        set: Options of the model and its training.
        train_size: Training items for every condition; None = as many as the smallest condition has.
        fractions: Shares of that size; each is a trial of its own, and smaller ones are nested in larger ones.
        epochs: Passes over the training items, instead of the model's own number of steps; None = its steps. With
            equal sizes, all conditions of a fraction still take the same steps.
    """

    models: tuple[str, ...] = ()
    splits: tuple[str, ...] = DEFAULT_SPLITS
    targets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    set: Mapping[str, Any] = field(default_factory=dict)
    train_size: int | None = DEFAULT_TRAIN_SIZE
    fractions: tuple[float, ...] = (1.0,)
    epochs: float | None = None


@dataclass(frozen=True)
class Study:
    """What a run is asked to do.

    Attributes:
        name: Of the recipe, or made of the flags.
        blocks: The parts of the grid.
        dataset: Dataset name.
        dataset_options: Its options.
        data: Root of its download.
        limit: At most this many test items per target.
        compare: Pairs of splits whose gap is reported; a split with an argument is named without it.
        about: One line for the reader.
        split_options: Options of the splits.
        controls: Controls scored beside the answers (`CONTROLS`).
        option_orders: Cyclic orders of its options in which each test item is asked.
        seen: Test items of the cells that were trained on, to be answered too; 0 = none.
        near_duplicates: "refuse" test images that are near-duplicates of training images, or "report" them.
        baselines: Whether majority and question-only are trained on the same items and scored beside the answers.
    """

    name: str
    blocks: tuple[Block, ...]
    dataset: str = DEFAULT_DATASET
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None
    limit: int | None = None
    compare: tuple[tuple[str, str], ...] = (
        ("related", "zero-overlap"),
        ("related", "unrelated"),
        ("in-domain", "related"),
        ("in-domain", "zero-overlap"),
    )
    about: str = ""
    split_options: Mapping[str, Any] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    option_orders: int = 1
    seen: int = 0
    baselines: bool = True
    near_duplicates: str = "refuse"


def recipe_path(name: str) -> Path:
    """Return the file of a shipped recipe, or `name` itself if it is a file.

    Raises:
        CrossmedError: If there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    folder = Path(__file__).parent / "recipes"
    shipped = {path.stem: path for path in folder.glob("*.toml")}
    if name not in shipped:
        raise CrossmedError(
            f"Recipe {name!r} is neither a file nor shipped.",
            hint=suggest(name, shipped) or f"Shipped: {', '.join(shipped)}.",
        )
    return shipped[name]


def read_recipe(path: Path) -> Study:
    """Read a study from TOML.

    Raises:
        CrossmedError: If the file cannot be read or holds an unknown key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CrossmedError(f"Recipe {path} cannot be read: {error}.") from error
    blocks = content.pop("blocks", [])
    _check_keys(path, content, Study)
    if not blocks:
        raise CrossmedError(f"Recipe {path} has no [[blocks]].")
    parsed = []
    for block in blocks:
        _check_keys(path, block, Block)
        parsed.append(Block(**{key: _frozen(path, key, value) for key, value in block.items()}))
    content.setdefault("name", path.stem)
    if "data" in content:
        content["data"] = Path(content["data"])
    return Study(blocks=tuple(parsed), **{key: _frozen(path, key, value) for key, value in content.items()})


_LISTS = {"models": str, "splits": str, "targets": str, "seeds": int, "controls": str}
_SCALARS = {
    "train_size": int, "limit": int, "dataset": str, "name": str, "about": str, "option_orders": int, "seen": int,
    "baselines": bool, "near_duplicates": str,
}  # fmt: skip


def _frozen(path: Path, key: str, value: Any) -> Any:
    """Check a value's type, and make lists tuples.

    Raises:
        CrossmedError: Naming file, key and value.
    """
    if key in _LISTS:
        wanted = _LISTS[key]
        values = value if isinstance(value, list) else [value]
        if not values or not all(type(one) is wanted for one in values):
            raise CrossmedError(f"Recipe {path}: {key} must be a list of {wanted.__name__}, not {value!r}.")
        return tuple(values)
    if key == "fractions":
        return check_fractions(value if isinstance(value, list) else [value], f"Recipe {path}: fractions")
    if key == "epochs":
        return check_epochs(value, f"Recipe {path}: epochs")
    if key in _SCALARS and (type(value) is not _SCALARS[key] or (type(value) is int and value < 1)):
        kind = {int: "a whole number of at least 1", bool: "true or false", str: "text"}[_SCALARS[key]]
        raise CrossmedError(f"Recipe {path}: {key} must be {kind}, not {value!r}.")
    if key == "near_duplicates" and value not in NEAR_DUPLICATES:
        raise CrossmedError(f"Recipe {path}: near_duplicates must be {' or '.join(NEAR_DUPLICATES)}, not {value!r}.")
    if key == "compare":
        if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            raise CrossmedError(f"Recipe {path}: compare must be pairs of splits, not {value!r}.")
        return tuple(tuple(pair) for pair in value)
    if key in ("set", "dataset_options", "split_options") and not isinstance(value, dict):
        raise CrossmedError(f"Recipe {path}: {key} must be a table, not {value!r}.")
    return value


def check_controls(names: Iterable[str]) -> tuple[str, ...]:
    """Return the named controls in the order of `CONTROLS`; "all" stands for every one.

    Raises:
        CrossmedError: For an unknown name.
    """
    wanted = set(names)
    for name in sorted(wanted - {"all", *CONTROLS}):
        raise CrossmedError(
            f"There is no control {name!r}.", hint=suggest(name, CONTROLS) or f"Known: {', '.join(CONTROLS)}."
        )
    return CONTROLS if "all" in wanted else tuple(name for name in CONTROLS if name in wanted)


def check_fractions(values: Sequence[Any], where: str) -> tuple[float, ...]:
    """Return training shares, smallest first.

    Args:
        values: Numbers, or texts that are numbers.
        where: The flag or recipe key, for the error.

    Raises:
        CrossmedError: For a value that is not above 0 and at most 1.
    """
    found = set()
    for value in values:
        try:
            share = float(value)
        except (TypeError, ValueError):
            share = -1.0
        if isinstance(value, bool) or not 0 < share <= 1:
            raise CrossmedError(f"{where}: {value!r} is not a share above 0 and at most 1.")
        found.add(share)
    return tuple(sorted(found))


def check_epochs(value: Any, where: str) -> float:
    """Return a number of passes over the training items.

    Raises:
        CrossmedError: If it is not a number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise CrossmedError(f"{where} must be a number above 0, not {value!r}.")
    return float(value)


def _check_keys(path: Path, content: Mapping[str, Any], kind: type) -> None:
    known = [one.name for one in fields(kind)]
    for key in content:
        if key not in known:
            raise CrossmedError(f"Recipe {path}: unknown key {key!r}.", hint=suggest(key, known))

"""What a benchmark is built of: datasets, their options, and how many items each cell gets, from a TOML recipe."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from crossmed_core.candidates import CandidateRules
from crossmed_core.errors import CrossmedError, suggest
from crossmed_core.selection import Quota
from crossmed_core.types import MAT

ANY = "*"
"""Name of the table in a recipe that stands for every dataset it does not name."""


@dataclass(frozen=True)
class DatasetPlan:
    """What a build takes of one dataset.

    Attributes:
        options: Options of the dataset.
        items: Items per cell; None = all.
        cells: Wildcard pattern of cells -> items, over `items`.
        test: Share of a cell's items that is tested, of those whose patients the dataset allows.
        val: Share that validates.
        empty: Share of a segmentation cell's items whose mask is empty.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    items: int | None = None
    cells: Mapping[str, int] = field(default_factory=dict)
    test: float = 0.1
    val: float = 0.06
    empty: float = 0.0

    def quota(self, mat: MAT) -> Quota:
        """Return the quota of a cell; the first pattern that fits counts."""
        fitting = (items for pattern, items in self.cells.items() if fnmatch.fnmatchcase(str(mat), pattern))
        return Quota(next(fitting, self.items), self.test, self.val, self.empty)


@dataclass(frozen=True)
class BuildRecipe:
    """A whole build.

    Attributes:
        name: Of the recipe.
        datasets: Name -> plan; "*" stands for every other dataset.
        about: One line for the reader.
        items: The sum that full downloads give, if the recipe promises one.
        seed: Another seed chooses other samples.
        max_side: Longest side of an image in pixels; larger ones are reduced.
        fill: Whether options are filled up to four with labels from outside the cell ("outside") or not ("own").
        candidates: How distractor regions are made.
    """

    name: str
    datasets: Mapping[str, DatasetPlan]
    about: str = ""
    items: int | None = None
    seed: int = 0
    max_side: int = 1024
    fill: str = "outside"
    candidates: CandidateRules = field(default_factory=CandidateRules)

    def plan_for(self, dataset: str, *, named: bool = False) -> DatasetPlan | None:
        """Return the plan of a dataset; None if the recipe leaves it out.

        Args:
            dataset: Its name.
            named: Whether the user asked for it: then everything is taken if the recipe does not say otherwise.
        """
        return self.datasets.get(dataset) or self.datasets.get(ANY) or (DatasetPlan() if named else None)

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in a card."""
        return asdict(self)


def build_recipes() -> dict[str, Path]:
    """Return the shipped build recipes by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "recipes" / "builds").glob("*.toml"))}


def read_build_recipe(name: str) -> BuildRecipe:
    """Read a shipped recipe, or a TOML file.

    Raises:
        CrossmedError: If there is neither, the file cannot be read, or it holds an unknown key or a wrong value.
    """
    shipped = build_recipes()
    path = Path(name) if Path(name).is_file() else shipped.get(name)
    if path is None:
        raise CrossmedError(
            f"Build recipe {name!r} is neither a file nor shipped.",
            hint=suggest(name, shipped) or f"Shipped: {', '.join(shipped)}.",
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CrossmedError(f"Build recipe {path} cannot be read: {error}.") from error
    datasets = content.pop("datasets", {})
    rules = content.pop("candidates", {})
    if not isinstance(datasets, dict) or not datasets:
        raise CrossmedError(f"Build recipe {path} has no [datasets.NAME].")
    content.setdefault("name", path.stem)
    where = f"Build recipe {path}"
    plans = {
        key: DatasetPlan(**_checked(f"{where}, [datasets.{key}]", DatasetPlan, one)) for key, one in datasets.items()
    }
    rest = _checked(where, BuildRecipe, content)
    try:
        candidates = CandidateRules(**_checked(f"{where}, [candidates]", CandidateRules, rules))
    except ValueError as error:
        raise CrossmedError(f"{where}, [candidates]: {error}.") from error
    recipe = BuildRecipe(datasets=plans, candidates=candidates, **rest)
    if recipe.fill not in ("outside", "own"):
        raise CrossmedError(f'{where}: fill must be "outside" or "own", not {recipe.fill!r}.')
    for dataset, plan in plans.items():
        if plan.test + plan.val > 1:
            raise CrossmedError(f"{where}, [datasets.{dataset}]: test and val sum to more than 1.")
        if plan.items is None and not plan.cells and {"test", "val", "empty"} & datasets[dataset].keys():
            raise CrossmedError(
                f"{where}, [datasets.{dataset}]: test, val and empty are shares of items, which is not set."
            )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", recipe.name):
        raise CrossmedError(f"{where}: name must be letters, digits, dots and dashes, not {recipe.name!r}.")
    if recipe.max_side < 32:
        raise CrossmedError(f"{where}: max_side must be at least 32, not {recipe.max_side}.")
    return recipe


_WORDS = {int: "a whole number of at least 0", float: "a number from 0 up", str: "text", dict: "a table"}


def _checked(where: str, kind: type, content: Any) -> dict[str, Any]:
    """Check the keys and types of a table.

    Raises:
        CrossmedError: Naming place, key and value.
    """
    if not isinstance(content, dict):
        raise CrossmedError(f"{where} must be a table, not {content!r}.")
    hints = get_type_hints(kind)
    known = [one.name for one in fields(kind)]
    for key, value in content.items():
        if key not in known:
            raise CrossmedError(f"{where}: unknown key {key!r}.", hint=suggest(key, known))
        hint = str(hints[key])
        wanted: type = dict if "Mapping" in hint else int if "int" in hint else float if "float" in hint else str
        number = not isinstance(value, bool) and isinstance(value, int if wanted is int else int | float)
        fits = number and value >= 0 if wanted in (int, float) else isinstance(value, wanted)
        if fits and key in ("test", "val", "empty"):
            fits = value <= 1
        if fits and key == "cells":
            fits = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value.values())
        if not fits:
            raise CrossmedError(f"{where}: {key} must be {_WORDS[wanted]}, not {value!r}.")
    return dict(content)

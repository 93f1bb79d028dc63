"""Splits as rules on sets of cells: the rules' frame, fair order, size matching, and the proof of disjointness.

A rule picks the training cells; everything else is common to all rules. The pools come in an order of which every
prefix is as even over cells, and within a cell over labels, as the data allow. So taking the first n is size matching,
and smaller training sizes are nested in larger ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crossmed_core.contracts import Splitter
from crossmed_core.errors import CrossmedError, suggest
from crossmed_core.seeding import digest
from crossmed_core.types import MAT, ItemKey, Split, person
from crossmed_core.vocabulary import shared_factors

CONTAINMENT = "containment"
"""The option of every rule on cells: whether lung in chest, or T1 in MRI, counts as shared."""


class SplitViolationError(CrossmedError):
    """A split broke a promise (a patient on both sides, a leaked test item). The trial fails."""


@dataclass(frozen=True)
class Shares:
    """What cells share with the target. Called with a cell, it counts the shared factors (3 for the target itself).

    Attributes:
        target: The target.
        containment: Whether an anatomy inside the other counts as shared (lung in chest).

    Example:
        >>> share = Shares(MAT("ct", "lung", "finding"))
        >>> share(MAT("ct", "chest", "grade")), sorted(share.factors(MAT("ct", "chest", "grade")))
        (2, ['anatomy', 'modality'])
    """

    target: MAT
    containment: bool = True

    def __call__(self, cell: MAT) -> int:
        """Return how many of modality, anatomy and task `cell` shares with the target."""
        return len(self.factors(cell))

    def factors(self, cell: MAT) -> frozenset[str]:
        """Return which of "modality", "anatomy" and "task" `cell` shares with the target."""
        return shared_factors(self.target, cell, containment=self.containment)


Rule = Callable[[MAT, Sequence[MAT], Shares], Iterable[MAT]]


@dataclass(frozen=True)
class CellRule:
    """A splitter made of a rule.

    Attributes:
        name: Name of the split, its argument included.
        rule: Takes the target, all cells in sorted order, and `Shares`, which counts the factors that a cell shares
            with the target and names them; returns the training cells.
        containment: Whether an anatomy inside the other counts as shared (lung in chest). An option of the split.
        wants: What a training cell does, between "no cell" and the target: "shares exactly two factors with".
        instead: Rules to name, in this order, where this one finds no cell.
        trains: False if the model is to be asked without training.
        more: Further settings that the rule was made with, for the card.

    Example:
        >>> related = CellRule("related", lambda target, cells, share: [c for c in cells if share(c) == 2])
        >>> cells = [MAT("ct", "lung", "finding"), MAT("ct", "brain", "finding")]
        >>> keys = [ItemKey(f"{c}/{i}", c, f"p{c}{i}", "d", "a", "train") for c in cells for i in range(2)]
        >>> [str(cell) for cell in related(keys, target=cells[0], seed=0).cells]
        ['ct/brain/finding']
    """

    name: str
    rule: Rule
    containment: bool = True
    wants: str = ""
    instead: tuple[CellRule, ...] = ()
    trains: bool = True
    more: tuple[tuple[str, Any], ...] = ()

    def __call__(self, keys: Sequence[ItemKey], *, target: MAT, seed: int) -> Split:
        """Return the pools for `target` (`contracts.Splitter`)."""
        by_cell: dict[MAT, list[ItemKey]] = defaultdict(list)
        for key in keys:
            by_cell[key.mat].append(key)
        cells = sorted(by_cell)
        chosen = self.choose(target, cells)
        pool = [key for cell in chosen for key in by_cell.get(cell, ())]
        return Split(
            rule=self.name,
            target=target,
            seed=seed,
            train=fair_order((key for key in pool if key.part == "train"), seed=seed),
            val=fair_order((key for key in pool if key.part == "val"), seed=seed),
            test=random_order(key for key in by_cell.get(target, ()) if key.part == "test"),
            cells=tuple(chosen),
            note="" if chosen or not self.trains else self._why_empty(target, cells),
            trains=self.trains,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the cells beside the rule itself, for the card."""
        if not self.trains:
            return {}
        return {CONTAINMENT: self.containment, **dict(self.more)}

    def configured(self, options: Mapping[str, Any], argument: str) -> CellRule:
        """Return the rule with another `containment` (`contracts.ConfigurableSplitter`).

        Raises:
            CrossmedError: For an argument, another option, or a value that is not true or false.
        """
        if argument:
            raise CrossmedError(f"Split {self.name!r} takes nothing after a colon, not {argument!r}.")
        return replace(self, containment=checked_options(self.name, options, {})[CONTAINMENT])

    def choose(self, target: MAT, cells: Sequence[MAT]) -> list[MAT]:
        """Return the training cells for `target` among `cells`, sorted, without repeats."""
        return sorted(set(self.rule(target, sorted(cells), Shares(target, self.containment))))

    def _why_empty(self, target: MAT, cells: Sequence[MAT]) -> str:
        """Say why no cell satisfies the rule, and which rule would work."""
        wants = self.wants or f"of this benchmark satisfies {self.name!r} for"
        reasons = []
        if others := replace(self, containment=not self.containment).choose(target, cells):
            how = "as the same" if self.containment else "as different"
            reasons.append(
                f" ({_only_by_containment(target, others)} count {how}: containment={_toml(self.containment)}; "
                f"with containment={_toml(not self.containment)} it would train on {_cells(len(others))})"
            )
        for rule in self.instead:
            if found := replace(rule, containment=self.containment).choose(target, cells):
                reasons.append(f"; {rule.name} would train on {_cells(len(found))}")
                break
        return f"no cell {wants} {target}{''.join(reasons)}"


@dataclass(frozen=True)
class ArgumentRule:
    """A splitter of which the rule is written after a colon, NAME:ARGUMENT.

    Attributes:
        name: Name of the split.
        read: Takes the argument and, by keyword, the options in `defaults`; returns the rule.
        argument: What to write, for errors: "CELL+CELL".
        wants: As in `CellRule`; "{argument}" stands for the argument.
        instead: As in `CellRule`.
        defaults: Further options, all true or false.
    """

    name: str
    read: Callable[..., Rule]
    argument: str
    wants: str = ""
    instead: tuple[CellRule, ...] = ()
    defaults: Mapping[str, bool] = field(default_factory=dict)

    def __call__(self, keys: Sequence[ItemKey], *, target: MAT, seed: int) -> Split:
        """Refuse: there is no rule without an argument (`contracts.Splitter`).

        Raises:
            CrossmedError: Always.
        """
        return self.configured({}, "")(keys, target=target, seed=seed)

    def configured(self, options: Mapping[str, Any], argument: str) -> CellRule:
        """Return the rule that `argument` stands for (`contracts.ConfigurableSplitter`).

        Raises:
            CrossmedError: For a missing or malformed argument, an unknown option, or a value of the wrong type.
        """
        if not argument.strip():
            raise CrossmedError(f"Split {self.name!r} needs an argument.", hint=f"Write {self.name}:{self.argument}.")
        settings = checked_options(self.name, options, self.defaults)
        containment = settings.pop(CONTAINMENT)
        return CellRule(
            f"{self.name}:{argument}",
            self.read(argument, **settings),
            containment,
            self.wants.format(argument=argument),
            self.instead,
            more=tuple(settings.items()),
        )


def checked_options(name: str, options: Mapping[str, Any], defaults: Mapping[str, bool]) -> dict[str, bool]:
    """Return `containment` (on by default) and `defaults` as `options` set them.

    Raises:
        CrossmedError: For an unknown option, or a value that is not true or false.
    """
    settings = {CONTAINMENT: True, **defaults}
    for key, value in options.items():
        if key not in settings:
            raise CrossmedError(f"Split {name!r} has no option {key!r}.", hint=suggest(key, settings))
        if not isinstance(value, bool):
            raise CrossmedError(f"Split {name!r}: {key} must be true or false, not {value!r}.")
        settings[key] = value
    return settings


def _only_by_containment(target: MAT, cells: Iterable[MAT]) -> str:
    """Name the places, sequences and tasks of `cells` that are the target's only by containment: "lung and chest"."""
    pairs = set()
    for cell in cells:
        wide, strict = (shared_factors(target, cell, containment=on) for on in (True, False))
        pairs |= {f"{getattr(target, axis)} and {getattr(cell, axis)}" for axis in wide - strict}
    return ", ".join(sorted(pairs))


def _cells(n: int) -> str:
    return f"{n} cell" + "s" * (n != 1)


def _toml(value: bool) -> str:
    return "true" if value else "false"


def draw(splitter: Splitter, keys: Sequence[ItemKey], *, name: str, target: MAT, seed: int) -> Split:
    """Ask a splitter for the full pools, and prove what it returns.

    Args:
        splitter: The splitter; anybody's.
        keys: All items that may be drawn.
        name: What the user called it, for errors.
        target: The target.
        seed: Seed of every draw.

    Raises:
        SplitViolationError: If it breaks a promise.
        CrossmedError: If it fails, or refuses the target.
    """
    try:
        split = splitter(keys, target=target, seed=seed)
        prove(split, {key.id: key for key in keys})
    except CrossmedError:
        raise
    except (Exception, SystemExit) as error:  # a plugin's fault is one line, not a traceback
        raise CrossmedError(f"Split {name!r} failed for {target}: {type(error).__name__}: {error}.") from error
    return split


def fair_order(keys: Iterable[ItemKey], *, seed: int) -> tuple[str, ...]:
    """Order ids so that every prefix is even over cells, and over the labels of each cell.

    Within a (cell, label) the order is by a hash of seed and id; the labels of a cell take turns, then the cells do.
    """
    strata: dict[MAT, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for key in keys:
        strata[key.mat][key.label].append(key.id)
    queues = []
    for cell in sorted(strata, key=lambda cell: digest(seed, "cell", cell)):
        labels = sorted(strata[cell], key=lambda label: digest(seed, "label", cell, label))
        ranked = [sorted(strata[cell][label], key=lambda item: (digest(seed, item), item)) for label in labels]
        queues.append(_take_turns(ranked))
    return tuple(_take_turns(queues))


def random_order(keys: Iterable[ItemKey]) -> tuple[str, ...]:
    """Order test ids by a hash of the id: every prefix is a simple random sample, labels as frequent as they are.

    The order is the same for every seed: seeds vary the training, not the exam.
    """
    return tuple(sorted((key.id for key in keys), key=lambda item: (digest("exam", item), item)))


def _take_turns(queues: Sequence[Sequence[str]]) -> list[str]:
    ordered = sorted(((turn, place) for place, queue in enumerate(queues) for turn in range(len(queue))))
    return [queues[place][turn] for turn, place in ordered]


def matched(split: Split, *, train: int | None, val: int | None, test: int | None) -> Split:
    """Keep the first `train`, `val` and `test` items of each pool; None keeps all."""
    return replace(split, train=split.train[:train], val=split.val[:val], test=split.test[:test])


def prove(split: Split, keys: Mapping[str, ItemKey]) -> None:
    """Check what every split promises.

    A person counts once over all datasets that name the same one (`types.person`), and so does a study; a study that
    the source does not tell (None) is known by its patient alone.

    Args:
        split: The split to check.
        keys: Item id -> key.

    Raises:
        SplitViolationError: Naming the first item, patient or study that stands on two sides, an unknown id, a test
            item outside the target cell, a training item outside the declared cells, an item of the wrong part, or a
            training item of a split that does not train.
    """
    sides = {"train": split.train, "val": split.val, "test": split.test}
    if not split.trains and (split.train or split.val):
        raise SplitViolationError(f"{split.rule}: says that nothing is trained, and holds training items")
    owners: dict[tuple[str, str], tuple[str, str]] = {}
    for side, ids in sides.items():
        if len(set(ids)) != len(ids):
            twice = next(item for item, count in Counter(ids).items() if count > 1)
            raise SplitViolationError(f"{split.rule}: item {twice!r} stands twice in {side}")
        for item in ids:
            key = keys.get(item)
            if key is None:
                raise SplitViolationError(f"{split.rule}: {side} item {item!r} is not in the benchmark")
            if key.part != side:
                raise SplitViolationError(f"{split.rule}: {side} holds {item!r}, which the source keeps for {key.part}")
            allowed = (split.target,) if side == "test" else split.cells
            if key.mat not in allowed:
                raise SplitViolationError(f"{split.rule}: {side} item {item!r} lies in {key.mat}, outside its cells")
            for kind, name in (("patient", key.patient), ("study", key.study)):
                if name is None:
                    continue
                other, first = owners.setdefault((kind, person(key.dataset, name)), (side, item))
                if other != side:
                    raise SplitViolationError(
                        f"{split.rule}: {kind} {name!r} of {key.dataset} stands in {other} ({first!r}) "
                        f"and in {side} ({item!r})"
                    )


def coincidences(splits: Sequence[Split]) -> list[str]:
    """Say which conditions of one target train on the same items, and so are no two conditions.

    Args:
        splits: Full pools, drawn with the same settings.

    Returns:
        One line per group, like "without-modality and without-anatomy train on the same 2 cells for TARGET".
    """
    groups: dict[tuple[MAT, int, frozenset[str]], list[Split]] = defaultdict(list)
    for split in splits:
        if split.train:
            groups[split.target, split.seed, frozenset(split.train)].append(split)
    lines = []
    for (target, _, _), same in groups.items():
        names = list(dict.fromkeys(split.rule for split in same))
        if len(names) > 1:
            what = _cells(len(same[0].cells)) if len({split.cells for split in same}) == 1 else "items"
            lines.append(f"{', '.join(names[:-1])} and {names[-1]} train on the same {what} for {target}")
    return list(dict.fromkeys(lines))


def split_digest(split: Split) -> str:
    """Return a SHA-256 over everything that the split decides."""
    lines = [split.rule, str(split.target), str(split.seed)]
    for side in (split.train, split.val, split.test):
        lines += ["--", *side]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def require_cells(split: Split, *, train: bool = True) -> None:
    """Refuse an empty condition in words that help.

    Args:
        split: The split.
        train: Whether the model trains, and so needs training items.

    Raises:
        CrossmedError: If nothing can be trained on or tested.
    """
    if not split.test:
        raise CrossmedError(f"Target {split.target} has no test items.", hint="See 'crossmed show cell CELL'.")
    if train and not split.train:
        raise CrossmedError(
            f"Split {split.rule!r} is empty for {split.target}: {split.note or 'its cells hold no training items'}.",
            hint="See 'crossmed show split --all --target CELL' for what would work.",
        )

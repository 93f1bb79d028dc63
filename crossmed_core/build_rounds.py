"""Rendering and asking what a selection chose, in rounds: what turns out unusable is replaced by the next in rank."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from crossmed_core.build_items import ImageSettings, make_regions, render_group
from crossmed_core.build_sources import BuildRequest, Progress, Source
from crossmed_core.candidates import Drawn, choice_wording
from crossmed_core.errors import CrossmedError
from crossmed_core.files import relative
from crossmed_core.parts import part_of
from crossmed_core.pool import Workers
from crossmed_core.questions import Asking, distractor_weights, make_item, wording
from crossmed_core.runlog import append_rows, drop_torn_line, read_rows, rle_from_json
from crossmed_core.types import MAT, PARTS, ImageRef, Item, MaskRef, Part, Question, Sample, Skipped, person

GROUP = 16
"""Images per task, where they do not share files."""
ROUNDS = 50
_TEST_FIRST: tuple[Part, ...] = ("test", "val", "train")


class Rounds:
    """Renders and asks what is chosen until nothing more turns out unusable.

    Args:
        request: What is built.
        sources: Read already.
        work: Where the journal lies.
        workers: Do the work.
        progress: Receives what is going on.
    """

    def __init__(
        self, request: BuildRequest, sources: Sequence[Source], work: Path, workers: Workers, progress: Progress
    ) -> None:
        self.request = request
        self.sources = sources
        self.work = work
        self.workers = workers
        self.progress = progress
        self.settings = ImageSettings(request.out, request.recipe.max_side, request.images == "copy")
        self.weights: dict[tuple[str, MAT, Part], dict[str, float]] = {}
        self.rendered: dict[tuple[str, str], dict[str, Any]] = {}
        self.regions: dict[tuple[str, str], dict[str, Any]] = {}
        self.journal = work / "rendered.jsonl"

    def run(self) -> tuple[list[Item], dict[str, dict[str, Any]]]:
        """Return the items, in the order in which they are written, and each id's further fields of its row."""
        drop_torn_line(self.journal)
        for row in read_rows(self.journal, ["dataset", "id"]):
            if _is_sound(row, self.request.out):
                self.rendered[row["dataset"], row["id"]] = row
        ahead = 0
        for _ in range(ROUNDS):
            before = self._unusable()
            for source in self.sources:
                self._render(source, source.selection.choose(source.unusable, ahead=ahead))
            if self._unusable() > before:
                ahead = 2 * ahead + 4  # where much is broken, more and more of the next in rank are tried at a time
                continue
            chosen = {source.name: source.selection.choose(source.unusable) for source in self.sources}
            items = self._ask(chosen)
            if self._unusable() == before:
                self._make_regions(items)
            if self._unusable() == before:
                return self._finished(items, chosen)
        raise CrossmedError(f"Too many broken files: {ROUNDS} rounds of replacing them did not end.")

    def _unusable(self) -> int:
        return sum(len(source.unusable) for source in self.sources)

    def _render(self, source: Source, chosen: Sequence[Sample]) -> None:
        todo = [one for one in chosen if (source.name, one.id) not in self.rendered and one.id not in source.unusable]
        groups = [(source.name, group, self.settings) for group in _groups(todo)]
        done = len(chosen) - len(todo)
        self.progress("images", source.name, done, len(chosen))
        for (_, samples, _), rows in zip(groups, self.workers.map(render_group, groups), strict=True):
            good = []
            for sample, row in zip(samples, rows, strict=True):
                if "skipped" in row:
                    self._drop(source, sample, row["skipped"])
                else:
                    good.append({"dataset": source.name, **row})
                    self.rendered[source.name, sample.id] = good[-1]
            append_rows(self.journal, good)
            done += len(rows)
            self.progress("images", source.name, done, len(chosen))

    def _drop(self, source: Source, sample: Sample, reason: str) -> None:
        source.unusable[sample.id] = reason
        where = relative(sample.image.path, source.root)
        source.report.take(Skipped(where, f"{sample.id}: {reason.removeprefix(sample.image.path + ': ')}"))

    def _ask(self, chosen: Mapping[str, Sequence[Sample]]) -> list[tuple[Source, Item]]:
        """Make the items; drop those that cannot be asked, or whose pixels or patient stand in an earlier part."""
        items: list[tuple[Source, Item]] = []
        shown: dict[str, Item] = {}
        people: dict[str, Item] = {}
        ids: dict[str, Item] = {}
        asked = [(source, sample) for source in self.sources for sample in chosen[source.name]]
        self._weigh(asked)
        # Test items first: of two equal images in two parts, the one that trains gives way.
        for source, sample in sorted(asked, key=lambda one: _TEST_FIRST.index(part_of(one[1]))):
            row = self.rendered[source.name, sample.id]
            weights = self.weights.get((source.name, sample.mat, part_of(sample)), {})
            asking = Asking(fill=self.request.recipe.fill, weights=weights)  # type: ignore[arg-type]  # checked before
            try:
                item = make_item(sample, source.questions[sample.mat], dataset=source.name, asking=asking)
            except (CrossmedError, KeyError, IndexError, ValueError) as error:
                # Too few distractors, or a plugin's fault: an undeclared label, a template with unknown braces.
                reason = str(error) if isinstance(error, CrossmedError) else f"cannot be asked: {error!r}"
                self._drop(source, sample, reason)
                continue
            other = ids.setdefault(item.id, item)
            if other.dataset != item.dataset:
                self._drop(source, sample, f"dataset {other.dataset} has an item with the same id")
                continue
            item = _with_files(item, row)
            other = shown.setdefault(row["pixels"], item)
            if other.part != item.part:
                self._drop(source, sample, f"shows the same pixels as {other.id}, which is kept for {other.part}")
                continue
            other = people.setdefault(person(source.name, item.patient), item)
            if other.part != item.part:
                self._drop(source, sample, f"is of the same patient as {other.id}, which is kept for {other.part}")
                continue
            items.append((source, item))
        return items

    def _weigh(self, asked: Sequence[tuple[Source, Sample]]) -> None:
        """Weigh the distractors of each cell and part."""
        groups: dict[tuple[str, MAT, Part], list[Sample]] = defaultdict(list)
        for source, sample in asked:
            groups[source.name, sample.mat, part_of(sample)].append(sample)
        questions = {source.name: source.questions for source in self.sources}
        self.weights = {
            (name, mat, part): distractor_weights(samples, questions[name][mat])
            for (name, mat, part), samples in groups.items()
            if questions[name][mat].kind == "option"
        }

    def _make_regions(self, items: Sequence[tuple[Source, Item]]) -> None:
        pools: dict[tuple[str, MAT, str], list[tuple[Source, Drawn]]] = defaultdict(list)
        for source, item in items:
            if item.mask is not None and item.mask.rle is not None and any(item.mask.rle.counts[1::2]):
                drawn = Drawn(item.id, item.patient, item.mask.rle)
                pools[source.name, item.mat, item.part].append((source, drawn))
        # What has company keeps it: an item that replaces another later borrows, and changes nobody else's regions.
        tasks = []
        for (name, mat, part), members in pools.items():
            new = [drawn for source, drawn in members if (source.name, drawn.item) not in self.regions]
            known = [drawn for source, drawn in members if (source.name, drawn.item) in self.regions]
            others = [
                one for pool, some in pools.items() if pool[:2] == (name, mat) and pool[2] != part for _, one in some
            ]
            tasks.append((new, self.request.recipe.candidates, known, others))
        done, total = 0, sum(len(task[0]) for task in tasks)
        for members, found in zip(pools.values(), self.workers.map(make_regions, tasks), strict=True):
            for source, drawn in members:
                regions = found.get(drawn.item)
                if isinstance(regions, str):
                    source.unusable[drawn.item] = regions
                    source.report.take(Skipped(drawn.item, f"cannot be asked as a choice among regions: {regions}"))
                elif regions is not None:
                    self.regions[source.name, drawn.item] = regions
            done += len(found)
            self.progress("regions", "candidates", done, total)

    def _finished(
        self, items: Sequence[tuple[Source, Item]], chosen: Mapping[str, Sequence[Sample]]
    ) -> tuple[list[Item], dict[str, dict[str, Any]]]:
        samples = {(source.name, one.id): one for source in self.sources for one in chosen[source.name]}
        finished: list[Item] = []
        further: dict[str, dict[str, Any]] = {}
        for source, item in sorted(items, key=lambda one: (one[1].mat, PARTS.index(one[1].part), one[1].id)):
            sample, row = samples[source.name, item.id], self.rendered[source.name, item.id]
            question = source.questions[item.mat]
            further[item.id] = {
                **dict(zip(("modality", "anatomy", "task"), item.mat, strict=True)),
                "question_neutral": wording(sample.id, question, Asking("neutral")) if question.neutral else None,
                "provenance": _provenance(sample, source, row),
            }
            if regions := self.regions.get((source.name, item.id)):
                candidates = tuple(rle_from_json(one) for one in json.loads(regions["regions"]))
                assert item.mask is not None and item.mask.rle is not None
                item = replace(item, candidates=candidates, answer=candidates.index(item.mask.rle))
                further[item.id] |= _choice(item, question)
                further[item.id]["provenance"]["candidates"] = {one: regions[one] for one in ("max_iou", "grouped")}
            finished.append(item)
        return finished, further


def _is_sound(row: Mapping[str, Any], out: Path) -> bool:
    """Whether a row of the journal can be gone on with; a damaged one is made anew."""
    try:
        if row["mask"] is not None:
            rle_from_json(row["mask"])
        return (
            bool((out / row["image"]).stat().st_size)
            and isinstance(row["pixels"], str)
            and all(isinstance(row[name], list) for name in ("native", "size"))
            and {"image_sha256", "resize", "rendering"} <= row.keys()
        )
    except (OSError, KeyError, TypeError, ValueError):
        return False


def _groups(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Put slices of one patient together, as they share volumes; other images in groups of a fixed size."""
    slices = sorted((one for one in samples if one.image.axial is not None), key=lambda one: (one.patient, one.id))
    for _, group in groupby(slices, key=lambda one: one.patient):
        yield list(group)
    single = [one for one in samples if one.image.axial is None]
    for first in range(0, len(single), GROUP):
        yield single[first : first + GROUP]


def _with_files(item: Item, row: Mapping[str, Any]) -> Item:
    image = ImageRef(row["image"], row["image_sha256"], row["pixels"])
    rle = rle_from_json(row["mask"]) if item.mask is not None else None
    return replace(item, image=image, mask=MaskRef(rle=rle) if rle else None)


def _choice(item: Item, question: Question) -> dict[str, str]:
    """Return the instructions of a segmentation item that is asked as a choice."""
    target = question.target or "the region in question"
    neutral = question.neutral_target or "the region in question"
    return {
        "question_choice": choice_wording(item.id, item.mat, target, neutral=False),
        "question_choice_neutral": choice_wording(item.id, item.mat, neutral, neutral=True),
    }


def _provenance(sample: Sample, source: Source, row: Mapping[str, Any]) -> dict[str, Any]:
    """Say what an image was made of, so that it can be made again."""
    facts: dict[str, Any] = {"file": relative(sample.image.path, source.root)}
    if sample.image.axial is not None:
        facts["axial"] = sample.image.axial
    if sample.mask is not None and sample.mask.path:
        facts["mask_file"] = relative(sample.mask.path, source.root)
        facts["mask_values"] = list(sample.mask.values)
    facts |= {name: row[name] for name in ("rendering", "native", "size", "resize", "pixels")}
    return {**facts, **({"source": dict(sample.source)} if sample.source else {})}

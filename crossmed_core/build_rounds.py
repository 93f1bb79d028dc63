"""Rendering and asking what a selection chose, in rounds: what turns out unusable is replaced by the next in rank."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from crossmed_core.build_items import ImageSettings, donors_file, make_regions, render_group
from crossmed_core.build_sources import BuildRequest, Progress, Source
from crossmed_core.dicom import PERCENTILES, is_dicom
from crossmed_core.errors import CrossmedError
from crossmed_core.files import relative
from crossmed_core.parts import part_of
from crossmed_core.pool import Workers
from crossmed_core.questions import Asking, UnaskableError, make_item, wording
from crossmed_core.runlog import (
    append_rows,
    drop_torn_line,
    read_rows,
    rle_from_json,
    rle_to_json,
    write_bytes,
)
from crossmed_core.types import MAT, PARTS, ImageRef, Item, MaskRef, Part, Question, Sample, Skipped

GROUP = 16
"""Images per task, where they do not share files."""
REGIONS = 24
"""Items per task of candidate regions."""
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
        self.asking = Asking(fill=request.recipe.fill)  # type: ignore[arg-type]  # checked by the recipe
        self.rendered: dict[tuple[str, str], dict[str, Any]] = {}
        self.regions: dict[tuple[str, str], str] = {}
        self.journal = work / "rendered.jsonl"

    def run(self) -> tuple[list[Item], dict[str, dict[str, Any]]]:
        """Return the items, in the order in which they are written, and each id's further fields of its row."""
        drop_torn_line(self.journal)
        for row in read_rows(self.journal, ["dataset", "id"]):
            if Path(self.request.out / row["image"]).exists():
                self.rendered[row["dataset"], row["id"]] = row
        for _ in range(ROUNDS):
            before = self._unusable()
            chosen = {source.name: source.selection.choose(source.unusable) for source in self.sources}
            for source in self.sources:
                self._render(source, chosen[source.name])
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
        """Make the items; drop those that cannot be asked, or show the pixels of an item in an earlier part."""
        items: list[tuple[Source, Item]] = []
        shown: dict[str, Item] = {}
        asked = [(source, sample) for source in self.sources for sample in chosen[source.name]]
        # Test items first: of two equal images in two parts, the one that trains gives way.
        for source, sample in sorted(asked, key=lambda one: _TEST_FIRST.index(part_of(one[1]))):
            row = self.rendered.get((source.name, sample.id))
            if row is None:
                continue
            try:
                item = make_item(
                    sample, source.dataset.questions()[sample.mat], dataset=source.name, asking=self.asking
                )
            except UnaskableError as error:
                self._drop(source, sample, str(error))
                continue
            item = _with_files(item, row)
            other = shown.setdefault(row["pixels"], item)
            if other.part != item.part:
                self._drop(source, sample, f"shows the same pixels as {other.id}, which is kept for {other.part}")
                continue
            items.append((source, item))
        return items

    def _make_regions(self, items: Sequence[tuple[Source, Item]]) -> None:
        pools: dict[tuple[str, MAT, str], list[tuple[Source, Item]]] = defaultdict(list)
        for source, item in items:
            if item.mask is not None and item.mask.rle is not None and any(item.mask.rle.counts[1::2]):
                pools[source.name, item.mat, item.part].append((source, item))
        tasks, owners = [], []
        for pool, members in sorted(pools.items()):
            # The regions first found together stay the donors, so that a replacement later changes no other item.
            path = donors_file(self.work, str(pool))
            if not path.exists():
                rows = [
                    [item.id, item.patient, rle_to_json(item.mask.rle if item.mask else None)] for _, item in members
                ]
                write_bytes(path, json.dumps(rows).encode())
            todo = [(source, item) for source, item in members if (source.name, item.id) not in self.regions]
            for first in range(0, len(todo), REGIONS):
                some = todo[first : first + REGIONS]
                files = [(item, self.request.out / item.image.path) for _, item in some]
                tasks.append((path, files, self.request.recipe.candidates))
                owners.append(some)
        total = sum(len(some) for some in owners)
        done = 0
        for some, found in zip(owners, self.workers.map(make_regions, tasks), strict=True):
            for (source, item), (_, regions, reason) in zip(some, found, strict=True):
                if reason:
                    source.unusable[item.id] = reason
                    source.report.take(Skipped(item.id, f"cannot be asked as a choice among regions: {reason}"))
                else:
                    self.regions[source.name, item.id] = regions
            done += len(some)
            self.progress("regions", "candidates", done, total)

    def _finished(
        self, items: Sequence[tuple[Source, Item]], chosen: Mapping[str, Sequence[Sample]]
    ) -> tuple[list[Item], dict[str, dict[str, Any]]]:
        samples = {(source.name, one.id): one for source in self.sources for one in chosen[source.name]}
        finished: list[Item] = []
        further: dict[str, dict[str, Any]] = {}
        for source, item in sorted(items, key=lambda one: (one[1].mat, PARTS.index(one[1].part), one[1].id)):
            if item.id in further:
                raise CrossmedError(f"Datasets {item.dataset} and another have an item with the id {item.id!r}.")
            sample, row = samples[source.name, item.id], self.rendered[source.name, item.id]
            if regions := self.regions.get((source.name, item.id)):
                candidates = tuple(one for text in json.loads(regions) if (one := rle_from_json(text)) is not None)
                truth = item.mask.rle if item.mask else None
                item = replace(item, candidates=candidates, answer=candidates.index(truth) if truth else None)
            finished.append(item)
            further[item.id] = {
                **dict(zip(("modality", "anatomy", "task"), item.mat, strict=True)),
                "question_neutral": _neutral(sample, source.dataset.questions()[item.mat]),
                "provenance": _provenance(sample, source, row),
            }
        return finished, further


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


def _neutral(sample: Sample, question: Question) -> str | None:
    return wording(sample.id, question, Asking("neutral")) if question.neutral else None


def _provenance(sample: Sample, source: Source, row: Mapping[str, Any]) -> dict[str, Any]:
    """Say what an image was made of, so that it can be made again."""
    facts: dict[str, Any] = {"file": relative(sample.image.path, source.root)}
    if sample.image.axial is not None:
        facts["axial"] = sample.image.axial
    if sample.image.rendering is not None:
        facts["rendering"] = sample.image.rendering._asdict()
    elif is_dicom(sample.image.path):
        facts["rendering"] = {"method": "the file's own LUTs and window, else percentiles", "else": list(PERCENTILES)}
    if sample.mask is not None and sample.mask.path:
        facts["mask_file"] = relative(sample.mask.path, source.root)
        facts["mask_values"] = list(sample.mask.values)
    facts |= {name: row[name] for name in ("native", "size", "resize", "pixels")}
    return {**facts, **({"source": dict(sample.source)} if sample.source else {})}

"""items.jsonl and card.json: the items of a build, and all that a reader must know to trust them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from crossmed_core import __version__
from crossmed_core.build_sources import BuildRequest, Source
from crossmed_core.built import CARD, ITEMS, SCHEMA_VERSION, cells_digest_content, row_digest_content
from crossmed_core.candidates import choice_values
from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.provenance import package_versions
from crossmed_core.questions import letter_counts, options_only
from crossmed_core.runlog import SURROGATES, item_to_json, write_json, writing
from crossmed_core.types import MAT, PARTS, Item, Part, person

Weights = Mapping[tuple[str, MAT, Part], Mapping[str, float]]


def write_benchmark(
    request: BuildRequest,
    sources: Sequence[Source],
    items: Sequence[Item],
    further: Mapping[str, Mapping[str, Any]],
    weights: Weights,
    key: str,
    problems: Mapping[str, str],
) -> dict[str, Any]:
    """Write items.jsonl, then card.json, and return the card.

    Args:
        request: What was built.
        sources: Of which.
        items: In the order in which they are written.
        further: Id -> further fields of the item's row.
        weights: (dataset, cell, part) -> weights of the distractors.
        key: Names the build.
        problems: Datasets that were there and could not be read, with the reasons.

    Raises:
        CrossmedError: If there is no item.
    """
    if not items:
        reasons = [f"{one.where}: {one.reason}" for source in sources for one in source.report.skipped[:3]]
        raise CrossmedError(
            f"No item is left: everything was skipped ({'; '.join(reasons) or 'nothing was there'}).",
            exit_code=ExitCode.ENVIRONMENT,
        )
    cells = _cells(sources, items, weights)
    identity, file_digest = hashlib.sha256(), hashlib.sha256()
    partial = request.out / f"{ITEMS}.partial"
    with writing(request.out), partial.open("wb") as file:
        for item in items:
            row = {**item_to_json(item), **further[item.id]}
            line = (json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=str) + "\n").encode(
                errors=SURROGATES
            )
            identity.update(row_digest_content(row))
            file_digest.update(line)
            file.write(line)
    with writing(request.out):
        partial.replace(request.out / ITEMS)
    identity.update(cells_digest_content(cells))
    card = {
        "schema_version": SCHEMA_VERSION,
        "name": request.recipe.name,
        "about": request.recipe.about,
        "n": len(items),
        "promised": None if request.datasets else request.recipe.items,
        "sha256": identity.hexdigest(),
        "items_sha256": file_digest.hexdigest(),
        "build": key,
        "problems": dict(problems),
        "crossmed": __version__,
        "packages": {
            name: version
            for name, version in package_versions().items()
            if name in ("numpy", "pillow", "pydicom", "pylibjpeg", "nibabel", "scipy")
        },
        "settings": {"images": request.images, **request.recipe.as_json()},
        "cells": cells,
        "sources": {source.name: _source(source, items) for source in sources},
    }
    write_json(request.out / CARD, card)
    return card


def _source(source: Source, items: Sequence[Item]) -> dict[str, Any]:
    record = source.record
    mine = [item for item in items if item.dataset == source.name]
    return {
        "items": len(mine),
        "patients": len({item.patient for item in mine}),
        "licence": record.licence,
        "access": record.access,
        "url": record.url,
        "citation": record.citation,
        "synthetic": record.synthetic,
        "root": str(source.root),
        "layout": source.layout,
        "options": source.settings,
        **source.report.as_json(),
    }


def _cells(sources: Sequence[Source], items: Sequence[Item], weights: Weights) -> dict[str, Any]:
    """Describe each cell: what is asked, how many items, what chance scores."""
    by_cell: dict[MAT, list[Item]] = defaultdict(list)
    for item in items:
        by_cell[item.mat].append(item)
    cells: dict[str, Any] = {}
    for mat, mine in sorted(by_cell.items()):
        asked = [source.questions[mat] for source in sources if any(i.dataset == source.name for i in mine)]
        kinds = {question.kind for question in asked}
        if len(kinds) > 1:
            raise CrossmedError(f"Two datasets ask {mat} in two ways: by an option and by a mask.")
        offered: Counter[tuple[str, str]] = Counter()
        for source in sources:
            for part, strata in source.selection.offered.get(mat, {}).items():
                offered.update({(part, label): count for label, count in strata.items()})
        parts: dict[str, Any] = {}
        train = [item for item in mine if item.part == "train"]
        for part in PARTS:
            here = [item for item in mine if item.part == part]
            facts: dict[str, Any] = {
                "n": len(here),
                "patients": len({person(item.dataset, item.patient) for item in here}),
                "labels": dict(sorted(Counter(item.label or "region" for item in here).items())),
                "offered": {label: count for (one, label), count in sorted(offered.items()) if one == part},
            }
            if kinds == {"option"}:
                facts["chance"] = sum(1 / len(item.options) for item in here) / len(here) if here else None
                decoys = any(item.decoys for item in here)
                informed = sum(1 / (len(item.options) - item.decoys) for item in here) if decoys else None
                facts["informed_chance"] = informed and informed / len(here)
                facts["options_only"] = options_only(train if part != "train" else [], here)
                facts["distractor_weights"] = {
                    source.name: found for source in sources if (found := weights.get((source.name, mat, part)))
                }
                facts["options"] = dict(sorted(Counter(len(item.options) for item in here).items()))
                facts["letters"] = letter_counts(here)
            else:
                choices = [item for item in here if item.candidates]
                facts["letters"] = letter_counts(choices)
                facts["choice"] = {name: asdict(one) for name, one in choice_values(choices).items()}
            parts[part] = facts
        cells[str(mat)] = {
            "answers": kinds.pop(),
            "datasets": sorted({item.dataset for item in mine}),
            "templates": list(dict.fromkeys(one for question in asked for one in question.templates)),
            "neutral": list(dict.fromkeys(one for question in asked for one in question.neutral)),
            "labels": list(dict.fromkeys(one for question in asked for one in question.labels)),
            "outside": list(dict.fromkeys(one for question in asked for one in question.outside)),
            "target": " or ".join(dict.fromkeys(question.target for question in asked if question.target)),
            "parts": parts,
        }
    return cells

"""What a person sees: one console for results (stdout), one for what is going on (stderr), and JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

# A pipe has no width; rich would assume 80 columns and fold the rows of files and CI logs.
_PIPE_WIDTH = 200

out = Console(highlight=False, emoji=False, markup=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
err = Console(
    stderr=True, highlight=False, emoji=False, markup=False, width=None if sys.stderr.isatty() else _PIPE_WIDTH
)

FOLDING = frozenset(
    {
        *("summary", "reason", "provides", "access", "source", "labels", "about", "state", "gap", "trained on", ""),
        *("layout", "licence", "what", "found", "expected"),
    }
)
"""Columns that may be folded on a narrow terminal; all others keep their words whole."""


def print_json(content: Any) -> None:
    """Write JSON to stdout, and nothing else goes there."""
    click.echo(json.dumps(content, indent=1, ensure_ascii=False, default=str))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "", right: Iterable[str] = ()
) -> None:
    """Print a table to stdout.

    Args:
        columns: Headings.
        rows: Cells; None prints as a dash.
        title: Above the table.
        right: Headings of right-aligned columns.
    """
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    aligned = set(right)
    for column in columns:
        justify: Any = "right" if column in aligned else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column not in FOLDING)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text("–" if cell is None else str(cell)) for cell in row))
    out.print(table)

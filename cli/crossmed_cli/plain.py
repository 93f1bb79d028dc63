"""Tables without rich, for the lists that promise to answer at once: importing rich would double their time."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence

import click

PIPE_WIDTH = 200
LEAST = 24
"""Columns are never folded narrower than this."""


def print_columns(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, folding: Sequence[str], colours: Mapping[str, str]
) -> None:
    """Print a table to stdout, folding the wide columns to fit the terminal.

    Args:
        columns: Headings.
        rows: Cells.
        folding: Headings of the columns that may be folded.
        colours: Cell text -> colour of that cell.
    """
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    room = (shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH) - 2 * (len(columns) - 1)
    for name in sorted(folding, key=lambda name: -widths[columns.index(name)]):
        place = columns.index(name)
        over = sum(widths) - room
        widths[place] = max(min(widths[place], LEAST), widths[place] - max(0, over))
    for number, row in enumerate([columns, *rows]):
        folded = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
        for line in range(max(len(cell) for cell in folded)):
            parts = []
            for cell, width, whole in zip(folded, widths, row, strict=True):
                text = (cell[line] if line < len(cell) else "").ljust(width)
                parts.append(click.style(text, bold=number == 0, fg=colours.get(whole) if number else None))
            click.echo("  ".join(parts).rstrip())

"""Finding files in a download: junk left out, symbolic links followed once, unreadable folders reported."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from crossmed_core.errors import DownloadNotFoundError, UnreadableImageError
from crossmed_core.types import Skipped

_JUNK = frozenset({".ds_store", "thumbs.db", "desktop.ini", "__macosx"})
NEARBY = 3
"""How many folders below the given root a download is looked for."""
CROWD = 2000
"""Folders in one folder above which they are taken for patients."""


def is_junk(name: str) -> bool:
    """Whether a file or folder is what macOS and Windows leave behind ("._x" shadows of real files among them)."""
    return name.startswith("._") or name.lower() in _JUNK


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a listing is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def walk(root: Path, *, depth: int | None = None) -> Iterator[Path | Skipped]:
    """Yield every file below `root` in sorted order, and a `Skipped` for each folder that cannot be read.

    Symbolic links are followed, but no folder is entered twice, so that loops end.

    Args:
        root: Where to start.
        depth: How many folders deep to go; None = all the way.
    """
    yield from _walk(root, root, depth, set())


def _walk(folder: Path, root: Path, depth: int | None, entered: set[tuple[int, int]]) -> Iterator[Path | Skipped]:
    try:
        state = folder.stat()
        if (state.st_dev, state.st_ino) in entered:
            return
        entered.add((state.st_dev, state.st_ino))
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        yield Skipped(relative(folder, root), f"cannot be read: {error.strerror}")
        return
    for entry in entries:
        if is_junk(entry.name):
            continue
        try:
            folder_here = entry.is_dir()
        except OSError as error:  # a link to itself
            yield Skipped(relative(folder / entry.name, root), f"cannot be followed: {error.strerror}")
            continue
        if not folder_here:
            yield folder / entry.name
        elif depth is None or depth > 0:
            yield from _walk(folder / entry.name, root, None if depth is None else depth - 1, entered)


def folders(root: Path, *, depth: int = NEARBY) -> Iterator[Path]:
    """Yield `root` and the folders below it, the nearest first, each level sorted; unreadable ones are passed over.

    A folder with thousands of folders in it holds patients, not downloads: those are not looked into.
    """
    level, entered = [root], set()
    for left in range(depth, -1, -1):
        below: list[Path] = []
        for folder in level:
            try:
                state = folder.stat()
                if (state.st_dev, state.st_ino) in entered:
                    continue
                entered.add((state.st_dev, state.st_ino))
                yield folder
                if left:
                    with os.scandir(folder) as listing:
                        inside = [folder / one.name for one in listing if not is_junk(one.name) and is_folder(one)]
                    below += inside if len(inside) <= CROWD else []
            except OSError:
                continue
        level = sorted(below)


def relative(path: Path | str, root: Path) -> str:
    """Return a path as it is shown in reports: below `root` with forward slashes, else as it is."""
    path = Path(path)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def require_regular(path: Path | str) -> None:
    """Refuse what is no file: a pipe would never answer, a device never end.

    Raises:
        UnreadableImageError: Naming the path.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        raise UnreadableImageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(mode):
        raise UnreadableImageError(f"{path}: not a regular file")


def not_found(dataset: str, root: Path, layouts: Sequence[str]) -> DownloadNotFoundError:
    """Build the error for a root that holds no download: which layouts were looked for, and what is there instead.

    Args:
        dataset: Name of the dataset.
        root: Where it was looked for.
        layouts: One line per layout, as a person would recognise it.
    """
    try:
        names = sorted(entry.name + ("/" if is_folder(entry) else "") for entry in os.scandir(root))
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        found = f"Found instead: {shown}." if names else "The folder is empty."
    except OSError as error:
        found = f"It cannot be read: {error.strerror}."
    return DownloadNotFoundError(
        f"{root} holds no {dataset} download. "
        f"Looked, up to {NEARBY} folders deep, for: {'; or '.join(layouts)}. {found}",
        hint=f"'crossmed datasets {dataset}' shows the expected tree.",
    )

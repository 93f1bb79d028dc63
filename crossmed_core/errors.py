"""Errors that a person can act on, and the exit codes they end in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process returns. Scripts may rely on these numbers."""

    OK = 0
    TRIALS_FAILED = 1
    """It ended, but a trial failed or could not be made, a dataset was left out of a build, or a check differs."""
    USAGE = 2
    """An unknown name, a wrong option, an unreadable registry or recipe."""
    ENVIRONMENT = 3
    """A missing package, device, plugin or data folder."""
    RUN_FOLDER = 4
    """The run or benchmark folder is locked, read-only, full, or holds another run."""
    INTERRUPTED = 130
    """Stopped from the keyboard; the same command goes on where it stopped."""


class CrossmedError(Exception):
    """An expected failure, told in one line.

    Args:
        message: What is wrong, naming the file, row or option.
        hint: What to do about it; printed on the same line.
        exit_code: The code the command ends with.
    """

    def __init__(self, message: str, *, hint: str = "", exit_code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message, hint, exit_code)  # all of it in args, so that it survives pickling
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from keyword-only arguments when a worker process sends the error home."""
        return _rebuild, (self.message, self.hint, self.exit_code)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UnreadableImageError(CrossmedError):
    """An image or mask that cannot be opened; the message names the file and the reason."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=ExitCode.ENVIRONMENT)

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild as what it is, so that a worker's caller can tell it from other errors."""
        return UnreadableImageError, (self.message,)


class DownloadNotFoundError(CrossmedError):
    """A folder that does not hold a dataset; the message says what was looked for and what is there."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, exit_code=ExitCode.ENVIRONMENT)

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild as what it is."""
        return _not_found, (self.message, self.hint)


def _not_found(message: str, hint: str) -> DownloadNotFoundError:
    return DownloadNotFoundError(message, hint=hint)


def _rebuild(message: str, hint: str, exit_code: ExitCode) -> CrossmedError:
    return CrossmedError(message, hint=hint, exit_code=exit_code)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'?" for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else ""


def unknown(kind: str, name: str, known: Iterable[str], *, see: str = "") -> CrossmedError:
    """Build the error for a name that nobody registered.

    Args:
        kind: What was looked for ("model", "split", ...).
        name: The name as given.
        known: All names that would have worked.
        see: A command that lists them.
    """
    known = sorted(known)
    hint = suggest(name, known)
    if not hint and known and len(known) <= 12:
        hint = f"Known: {', '.join(known)}."
    if see:
        hint = f"{hint} See '{see}'.".strip()
    return CrossmedError(f"Unknown {kind} {name!r}.", hint=hint)

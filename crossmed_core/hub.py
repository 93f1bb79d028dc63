"""Files of the hub, as a snapshot of one commit. Every reason why they cannot be had is one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossmed_core.errors import CrossmedError, ExitCode


def download(name: str, hub: str, revision: str | None, files: Sequence[str], *, wanted: Sequence[str] = ()) -> Path:
    """Return the folder of a snapshot that holds those of the files that the hub has.

    What is in the cache is not fetched again, and a pinned commit that is there needs no network.

    Args:
        name: The model, as the user wrote it.
        hub: Hub id.
        revision: Commit, tag or branch; None = the newest.
        files: Names or patterns.
        wanted: What the hint is to fetch besides, for the next call; empty = `files` are all.

    Raises:
        CrossmedError: If they cannot be had: no network, no such id or revision, a licence to be accepted first.
    """
    from huggingface_hub import errors, snapshot_download

    command = fetch_command(hub, revision, (*files, *wanted))
    try:
        return Path(snapshot_download(hub, revision=revision, allow_patterns=list(files)))
    except errors.GatedRepoError as error:
        problem, cause = f"{hub} is gated.", error
        hint = f"Accept its licence on its hub page, log in with 'hf auth login', then: {command}"
    except errors.RevisionNotFoundError as error:
        problem, hint, cause = f"{hub} has no revision {revision!r}.", "", error
    except errors.RepositoryNotFoundError as error:
        problem, cause = f"the hub has no {hub!r}, or it is private.", error
        hint = "Check the spelling; for a private one, log in with 'hf auth login'."
    except errors.HFValidationError as error:
        problem, hint, cause = f"{hub!r} is not a hub id ORG/NAME.", "", error
    except Exception as error:  # offline, in the many ways in which the hub's client says so
        problem = f"the files of {hub} are not on this machine and the hub cannot be reached ({type(error).__name__})."
        hint, cause = f"On a machine with a network: {command}", error
    raise CrossmedError(f"Model {name!r}: {problem}", hint=hint, exit_code=ExitCode.ENVIRONMENT) from cause


def cached(hub: str, revision: str | None, files: Sequence[str]) -> Path | None:
    """Return the folder of a snapshot that lies on this machine, without asking the hub; None if there is none.

    Args:
        hub: Hub id.
        revision: Commit, tag or branch; None = the newest that was fetched.
        files: Names or patterns of what is looked for.
    """
    from huggingface_hub import errors, snapshot_download

    try:
        found = snapshot_download(hub, revision=revision, allow_patterns=list(files), local_files_only=True)
    except (errors.HFValidationError, errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError):
        return None
    return Path(found)


def fetch_command(hub: str, revision: str | None, files: Sequence[str]) -> str:
    """Return the command that puts files of a hub id into the cache."""
    pinned = f" --revision {revision}" if revision else ""
    return f"hf download {hub}{pinned}" + "".join(f" --include '{file}'" for file in dict.fromkeys(files))

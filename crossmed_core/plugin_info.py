"""What is known of a plugin: one row of `crossmed plugins list`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

OWN_DISTRIBUTION = "crossmed"
LOCAL = "local file"
"""In place of a distribution, for a file given by --plugin."""


class Status(StrEnum):
    """Where a plugin stands."""

    FOUND = "found"
    """Seen in the metadata of a distribution, not imported."""
    OK = "ok"
    DISABLED = "disabled"
    MISSING_EXTRA = "missing-extra"
    """Works, but the packages of its heavy half are not installed."""
    INCOMPATIBLE = "incompatible"
    BROKEN = "broken"


@dataclass(frozen=True)
class PluginInfo:
    """One row of `crossmed plugins list`.

    Attributes:
        name: Entry point name, or the stem of a local file.
        distribution: Who installed it; "local file" for `--plugin`.
        version: The distribution's version, or the SHA-256 of the local file.
        module: Import path, or file path.
        status: Where it stands.
        reason: Why it is not ok, or what to know although it is.
        hooks: The hooks it implements (known after loading).
        records: "kind name" of all it registers (known after loading).
        import_seconds: Time its import took.
        remembered: True if status and reason come from an earlier load.
    """

    name: str
    distribution: str
    version: str
    module: str
    status: Status = Status.FOUND
    reason: str = ""
    hooks: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    import_seconds: float | None = None
    remembered: bool = False

    @property
    def key(self) -> str:
        """`distribution:name`, unique."""
        return f"{self.distribution}:{self.name}"

    @property
    def builtin(self) -> bool:
        """Whether it ships with crossmed."""
        return self.distribution == OWN_DISTRIBUTION

"""Seeds that depend on what a thing is called, never on when it was reached."""

from __future__ import annotations

from hashlib import blake2b


def digest(*parts: object) -> int:
    """Hash the parts to an unsigned 64-bit integer, the same in every process and on every machine.

    Example:
        >>> digest(0, "item-7") == digest(0, "item-7"), digest(0, "item-7") == digest(1, "item-7")
        (True, False)
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(errors="backslashreplace"), digest_size=8).digest(), "big")

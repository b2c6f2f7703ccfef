"""What can go wrong with the store. Every message is one sentence, and none holds a password or a stored value."""

from __future__ import annotations


class StoreError(Exception):
    """The database cannot be used: it cannot be opened, is damaged, or is newer than this program."""


class StoreBusy(Exception):
    """Not now: it is locked, has no room, or is not reachable. Nothing was written; the same may succeed later."""


class VersionConflict(Exception):
    """The row is not as the writer thought. `found`: the version that is there; None where there is none to tell."""

    def __init__(self, message: str, found: int | None = None) -> None:
        super().__init__(message)
        self.found = found

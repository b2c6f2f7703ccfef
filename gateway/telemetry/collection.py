"""What became of the records of one collection in one process: stored, or dropped and why.

Threads: the loop drops for DROPPED_BY_LOOP, the writer's thread stores and drops for the rest; each number has one
writer, and no key is ever added, so that the loop may read while the thread counts.
Errors: none.
"""

from __future__ import annotations

DROPPED_BY_LOOP = ("queue_full", "too_large", "invalid")
DROPPED = (*DROPPED_BY_LOOP, "disk_full", "disk_error", "error")
STORED = "stored"


class CollectionRecord:
    """The counts of one collection of a deployment."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        # All reasons are there from the start: a rate over a series needs its zero.
        self._counts = dict.fromkeys((STORED, *DROPPED), 0)

    def stored(self) -> None:
        self._counts[STORED] += 1

    def dropped(self, reason: str) -> None:
        """For one of DROPPED."""
        self._counts[reason] += 1

    def snapshot(self) -> dict[str, int]:
        return dict(self._counts)

"""Batch: items that run together. It grows on the loop until an instance takes it, and from then on is closed.

Threads: `fill` and `withdraw` are the loop's, `take` and `runs` are the instance's; the lock orders the moment of
taking and nothing else. Once taken, the batch is the instance's until it is finished; then it is the loop's again.
Ownership: the instance never writes to an item. It records its runs here, and the loop hands the rows back, so that
an item that was cancelled or expired meanwhile is left alone.
Units: *_ns monotonic nanoseconds, room in rows.
"""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock

from runtimes.batching.item import WorkItem
from runtimes.batching.latency import Cost
from runtimes.batching.queue import Queue
from runtimes.errors import RuntimeFault
from runtimes.tensor import Array

# A staged batch may hold this many withdrawn items before they are let go.
_SLACK = 16


class Run:
    """One run of a session: `results` in the order of `items`, or the fault that they share."""

    __slots__ = ("fault", "finished_ns", "items", "results", "started_ns")

    def __init__(self, items: list[WorkItem], started_ns: int) -> None:
        self.items = items
        self.started_ns = started_ns
        self.finished_ns = 0
        self.results: list[dict[str, Array]] | None = None
        self.fault: RuntimeFault | None = None


class Batch:
    """Items of one key, never more than a batch's rows.

    `deadline_ns` is its first item's. `starts_ns` is when an instance is expected to take it and `run_ns` how long
    its run will then take, 0 where nobody asked. `due_ns`: what had a deadline up to then, when an instance took it,
    is not run.
    """

    __slots__ = (
        "_lock",
        "_rows_max",
        "_withdrawn",
        "cost",
        "deadline_ns",
        "due_ns",
        "fault",
        "is_finished",
        "is_taken",
        "items",
        "key",
        "room",
        "run_ns",
        "runs",
        "starts_ns",
        "taken_ns",
    )

    def __init__(self, key: Hashable, rows_max: int, cost: Cost | None = None) -> None:
        self.key = key
        self.cost = cost or Cost({}, rows_max, 0)
        self.items: list[WorkItem] = []
        self.room = rows_max
        self.is_taken = False
        # Set by the instance when it is done with it, before the loop is told.
        self.is_finished = False
        self.taken_ns = 0
        self.deadline_ns = 0
        self.due_ns = 0
        self.starts_ns = 0
        self.run_ns = 0.0
        self.runs: list[Run] = []
        # Set when the instance itself failed, so that items without a run have an answer.
        self.fault: RuntimeFault | None = None
        self._rows_max = rows_max
        self._withdrawn = 0
        self._lock = Lock()

    @property
    def used(self) -> int:
        """The room that its items take."""
        return self._rows_max - self.room

    def fill(self, queue: Queue[WorkItem], now_ns: int = 0, rows_max: int = 0, ends_ns: int = 0) -> bool:
        """Take in what fits of the queue's items of this key and is not late by `ends_ns` (Queue.take), up to
        `rows_max` in all where that is given; False once an instance has the batch."""
        with self._lock:
            if self.is_taken:
                return False
            if self._withdrawn > _SLACK:
                self.items = [item for item in self.items if not item.done]
                self._withdrawn = 0
            room = self.room if not rows_max else min(self.room, rows_max - self.used)
            for item in queue.take(self.key, room, ends_ns, self.room == self._rows_max):
                item.batch = self
                item.batched_ns = now_ns
                self.room -= item.weight
                self.items.append(item)
            return True

    def withdraw(self, item: WorkItem) -> bool:
        """Give a done item's room back; whether no instance has run it, or ever will."""
        with self._lock:
            if self.is_taken:
                return not _is_worth_running(item, self.taken_ns, self.due_ns)
            self.room += item.weight
            self._withdrawn += 1
            return True

    def take(self, now_ns: int) -> list[WorkItem]:
        """Close the batch; the items that are still worth running: those that the run will be in time for, as far as
        is known. Where that leaves none, those whose deadline is still to come: what is known may be wrong."""
        with self._lock:
            self.taken_ns = now_ns
            due_ns = now_ns + int(self.run_ns)
            # Written out, as it is done for every item; the usual one is through with two comparisons.
            taken = [
                item
                for item in self.items
                if not item.done
                and (item.deadline_ns > due_ns or not item.deadline_ns)
                and (not item.start_by_ns or item.start_by_ns > now_ns)
            ]
            if not taken:
                due_ns = now_ns
                taken = [item for item in self.items if not item.done and _is_worth_running(item, now_ns, now_ns)]
            self.due_ns = due_ns
            # Last, for `has_started` looks at it without the lock.
            self.is_taken = True
            return taken

    def has_started(self, item: WorkItem) -> bool:
        """Whether an instance took the batch with this item in time to run it."""
        return self.is_taken and _is_worth_running(item, self.taken_ns, self.due_ns)

    def oldest(self) -> WorkItem | None:
        """Who of it has waited longest; None once an instance has it."""
        return None if self.is_taken else next((item for item in self.items if not item.done), None)

    def let_go(self) -> None:
        """Forget the items, which hold on to the batch: a slow caller's item must not keep all the others alive."""
        self.items = []
        self.runs = []


def _is_worth_running(item: WorkItem, now_ns: int, due_ns: int) -> bool:
    return not (0 < item.deadline_ns <= due_ns or 0 < item.start_by_ns <= now_ns)

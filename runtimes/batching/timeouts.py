"""Which items must be answered when, with one timer for all of them.

Why: a timer for each request costs more than the rest of the batcher; nobody may wait past a deadline because an
instance is slow or hangs, so expiry does not depend on instances.
How: a heap of (when, item). Items that are done leave it lazily, and it is rebuilt when they are the majority, so
that a long deadline does not keep answered requests in memory. The timer is armed for the earliest only.
Units: *_ns monotonic nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from runtimes.batching.item import WorkItem
from runtimes.clock import Scheduler, Timer

_NEVER = 1 << 63
# The heap may hold this many done items beyond as many as live, so that a short one is never rebuilt.
_SLACK = 64


class Timeouts:
    """Calls `due(item, now_ns)` on the loop once an item's time has come, unless the item is done by then."""

    __slots__ = ("_armed_ns", "_due", "_fire_callback", "_heap", "_rebuild_at", "_scheduler", "_serial", "_timer")

    def __init__(self, scheduler: Scheduler, due: Callable[[WorkItem, int], None]) -> None:
        self._scheduler = scheduler
        self._due = due
        self._heap: list[tuple[int, int, WorkItem]] = []
        self._serial = 0
        self._rebuild_at = _SLACK
        self._armed_ns = _NEVER
        self._timer: Timer | None = None
        self._fire_callback = self._fire

    def add(self, when_ns: int, item: WorkItem) -> None:
        heap = self._heap
        if len(heap) >= self._rebuild_at:
            self._rebuild()
        # The serial number decides between equal times, for items do not compare.
        self._serial += 1
        heappush(heap, (when_ns, self._serial, item))
        if when_ns < self._armed_ns:
            self._arm(when_ns)

    def close(self) -> None:
        self._heap.clear()
        self._disarm()

    def __len__(self) -> int:
        return len(self._heap)

    def _fire(self) -> None:
        # A loop's timer may be some microseconds early; the time it was armed for has come all the same.
        now_ns = max(self._scheduler.now_ns(), self._armed_ns)
        self._disarm()
        heap = self._heap
        while heap and (heap[0][2].done or heap[0][0] <= now_ns):
            item = heappop(heap)[2]
            if not item.done:
                self._due(item, now_ns)
        if heap and heap[0][0] < self._armed_ns:
            self._arm(heap[0][0])

    def _arm(self, when_ns: int) -> None:
        self._disarm()
        self._armed_ns = when_ns
        self._timer = self._scheduler.call_at(when_ns, self._fire_callback)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_ns = _NEVER

    def _rebuild(self) -> None:
        # In place, for `_fire` may be walking it.
        self._heap[:] = [entry for entry in self._heap if not entry[2].done]
        heapify(self._heap)
        self._rebuild_at = 2 * len(self._heap) + _SLACK

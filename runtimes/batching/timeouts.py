"""Which items must be answered when, with one timer for all of them.

Why: a timer for each request costs more than the rest of the batcher; nobody may wait past a deadline because an
instance is slow or hangs, so expiry does not depend on instances.
How: most requests allow the same time, so they fall due in the order they come, and a line of (when, item) is enough;
those that come out of order are in a heap. Items that are done leave at the front of the line as others come; both
are rebuilt when done items are the majority, so that a long deadline does not keep answered requests in memory. The
timer is armed for the earliest only.
Units: *_ns monotonic nanoseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar

from runtimes.clock import Scheduler, Timer

_NEVER = 1 << 63
# So many done items may be kept beyond as many as live, so that a short line is never rebuilt.
_SLACK = 256


class Timed(Protocol):
    @property
    def done(self) -> bool: ...


T = TypeVar("T", bound=Timed)


class Timeouts(Generic[T]):
    """Calls `due(item, now_ns)` on the loop once an item's time has come, unless the item is done by then."""

    __slots__ = (
        *("_armed_ns", "_due", "_fire_callback", "_heap", "_heap_max", "_line", "_line_max", "_scheduler"),
        *("_serial", "_timer"),
    )

    def __init__(self, scheduler: Scheduler, due: Callable[[T, int], None]) -> None:
        self._scheduler = scheduler
        self._due = due
        self._line: deque[tuple[int, T]] = deque()
        self._line_max = _SLACK
        self._heap: list[tuple[int, int, T]] = []
        self._heap_max = _SLACK
        self._serial = 0
        self._armed_ns = _NEVER
        self._timer: Timer | None = None
        self._fire_callback = self._fire

    def add(self, when_ns: int, item: T) -> None:
        line = self._line
        while line and line[0][1].done:
            line.popleft()
        if not line or line[-1][0] <= when_ns:
            line.append((when_ns, item))
            if len(line) >= self._line_max:
                self._line = deque(entry for entry in line if not entry[1].done)
                self._line_max = 2 * len(self._line) + _SLACK
        else:
            self._push(when_ns, item)
        if when_ns < self._armed_ns:
            self._arm(when_ns)

    def close(self) -> None:
        self._line.clear()
        self._heap.clear()
        self._disarm()

    def __len__(self) -> int:
        return len(self._line) + len(self._heap)

    def _push(self, when_ns: int, item: T) -> None:
        if len(self._heap) >= self._heap_max:
            self._heap = [entry for entry in self._heap if not entry[2].done]
            heapify(self._heap)
            self._heap_max = 2 * len(self._heap) + _SLACK
        # The serial number decides between equal times, for items do not compare.
        self._serial += 1
        heappush(self._heap, (when_ns, self._serial, item))

    def _fire(self) -> None:
        # A loop's timer may be some microseconds early; the time it was armed for has come all the same.
        now_ns = max(self._scheduler.now_ns(), self._armed_ns)
        self._disarm()
        # `due` may add, cancel and close: nothing is kept over its call.
        while (item := self._next(now_ns)) is not None:
            self._due(item, now_ns)
        first_ns = min(
            self._line[0][0] if self._line else _NEVER,
            self._heap[0][0] if self._heap else _NEVER,
        )
        if first_ns < self._armed_ns:
            self._arm(first_ns)

    def _next(self, now_ns: int) -> T | None:
        """The next item whose time has come; what is done before it is forgotten."""
        while self._line and (self._line[0][1].done or self._line[0][0] <= now_ns):
            item = self._line.popleft()[1]
            if not item.done:
                return item
        while self._heap and (self._heap[0][2].done or self._heap[0][0] <= now_ns):
            item = heappop(self._heap)[2]
            if not item.done:
                return item
        return None

    def _arm(self, when_ns: int) -> None:
        self._disarm()
        self._armed_ns = when_ns
        self._timer = self._scheduler.call_at(when_ns, self._fire_callback)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_ns = _NEVER

"""The waiting items of one runtime: bounded, in order of arrival, and by key.

Why: the batcher asks for the oldest item of all and for the items of one key, both many times a millisecond, and
callers hang up at any moment; every verb here is amortised O(1) an item.
How: an item stands in two lines, one for all and one (a lane) for its key. Leaving the queue only marks it (`taken`
or `done`); the marked are skipped when they reach a front, and a line in which they are the majority is rebuilt.
Units: items are requests, and the bound counts those that wait, never the marked; rows along the batch axis.
Errors: Overloaded when there is no seat left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from runtimes.batching.item import WorkItem
from runtimes.errors import Overloaded

# A line may hold this many marked items beyond as many as wait, so that a short line is never rebuilt.
_SLACK = 64


class _Lane:
    """The items of one key; `load` is the room that all of them need in batches."""

    __slots__ = ("items", "load", "waiting")

    def __init__(self) -> None:
        self.items: deque[WorkItem] = deque()
        self.load = 0
        self.waiting = 0


class Queue:
    """`waiting` items with `rows` not yet given to a batch. The owner marks an item `done` before `discard`."""

    __slots__ = ("_full", "_items_max", "_lanes", "_line", "_rows_max", "rows", "waiting")

    def __init__(self, *, items_max: int, rows_max: int) -> None:
        self.waiting = 0
        self.rows = 0
        self._items_max = items_max
        self._rows_max = rows_max
        self._line: deque[WorkItem] = deque()
        self._lanes: dict[Hashable, _Lane] = {}
        self._full: dict[Hashable, None] = {}

    def put(self, item: WorkItem) -> None:
        if self.waiting >= self._items_max:
            raise Overloaded(
                f"the queue is full: {self.waiting} requests wait for an instance and at most "
                f"{self._items_max} may; try again later"
            )
        key = item.key
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
        lane.items.append(item)
        lane.waiting += 1
        lane.load += item.rows if item.split is not None else item.weight
        if lane.load >= self._rows_max:
            self._full[key] = None
        self._line.append(item)
        self.waiting += 1
        self.rows += item.rows

    def discard(self, item: WorkItem) -> None:
        """A waiting item leaves without an instance; its seat is free at once."""
        lane = self._lanes[item.key]
        split = item.split
        lane.load -= item.weight if split is None else split.left
        lane.waiting -= 1
        self.waiting -= 1
        self.rows -= item.rows if split is None else split.left
        self._tidy(item.key, lane)

    def oldest(self) -> WorkItem | None:
        line = self._line
        while line:
            item = line[0]
            if not (item.taken or item.done):
                return item
            line.popleft()
        return None

    def full_key(self) -> Hashable:
        """The key that has filled a batch for longest; ask `has_full` before."""
        return next(iter(self._full))

    @property
    def has_full(self) -> bool:
        return bool(self._full)

    def take(self, key: Hashable, room: int) -> list[WorkItem]:
        """The next items of a key that fit in `room`, in order of arrival; none overtakes one that does not fit.

        A split request gives its next part and keeps its place until it has given the last.
        """
        lane = self._lanes.get(key)
        taken: list[WorkItem] = []
        if lane is None:
            return taken
        items = lane.items
        while items:
            item = items[0]
            if not item.done:
                weight = item.weight
                if weight > room:
                    break
                room -= weight
                lane.load -= weight
                if item.split is None:
                    self.rows -= item.rows
                    taken.append(item)
                else:
                    self.rows -= weight
                    taken.append(item.split.cut())
                    if item.split.left:
                        continue
                item.taken = True
                lane.waiting -= 1
                self.waiting -= 1
            items.popleft()
        self._tidy(key, lane)
        return taken

    def items(self) -> list[WorkItem]:
        """Every waiting item, oldest first."""
        return [item for item in self._line if not (item.taken or item.done)]

    def _tidy(self, key: Hashable, lane: _Lane) -> None:
        if lane.load < self._rows_max:
            self._full.pop(key, None)
        if not lane.waiting:
            del self._lanes[key]
        elif len(lane.items) > 2 * lane.waiting + _SLACK:
            lane.items = deque(item for item in lane.items if not item.done)
        if not self.waiting:
            self._line.clear()
        elif len(self._line) > 2 * self.waiting + _SLACK:
            self._line = deque(item for item in self._line if not (item.taken or item.done))

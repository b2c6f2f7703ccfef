"""The waiting items of one runtime: bounded, in order of arrival, and by key.

Why: the batcher asks for the oldest item of all and for the items of one key, both many times a millisecond, and
callers hang up at any moment; every verb here is amortised O(1) an item.
How: an item stands in two lines, one for all and one (a lane) for its key. Leaving the queue only marks it (`taken`
or `done`); the marked are skipped when they reach a front, and a line in which they are the majority is rebuilt.
Units: items are requests, and the bound counts those that wait, never the marked; rows along the batch axis; work_ns
is what the waiting rows will take on one instance, at the pace of full batches.
Errors: Overloaded when there is no seat left.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Hashable
from typing import Any, Generic, Protocol, TypeVar

from runtimes.batching.latency import Cost, LatencyTable
from runtimes.errors import Overloaded

# A line may hold this many marked items beyond as many as wait, so that a short line is never rebuilt.
_SLACK = 64


class Parts(Protocol):
    """What a request larger than a batch is cut into: `left` rows are still to be cut."""

    @property
    def left(self) -> int: ...

    def cut(self) -> Any: ...


class Waiting(Protocol):
    """What a queue holds: a WorkItem of a model, or a request to a scoring script."""

    done: bool
    taken: bool

    @property
    def key(self) -> Hashable: ...

    @property
    def rows(self) -> int: ...

    @property
    def weight(self) -> int: ...

    @property
    def deadline_ns(self) -> int: ...

    @property
    def split(self) -> Parts | None: ...


T = TypeVar("T", bound=Waiting)


class Lane(Generic[T]):
    """The items of one key; `load` is the room that all of them need in batches, `row_ns` what a row of it counts for
    in the queue's work, and `cost` what is known of the key's runs."""

    __slots__ = ("cost", "items", "load", "row_ns", "waiting")

    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        self.row_ns = 0.0
        self.items: deque[T] = deque()
        self.load = 0
        self.waiting = 0

    def first(self) -> T:
        """Who is next of those that wait; somebody does."""
        items = self.items
        while items[0].done:
            items.popleft()
        return items[0]


class Queue(Generic[T]):
    """`waiting` items with `rows` not yet given to a batch. The owner marks an item `done` before `discard`.

    `lanes` has a lane for each key that waits, and some for keys that did. `late` are those that are too late for
    their run; they have left the queue, for the owner to answer.
    """

    __slots__ = ("_enough", "_full", "_items_max", "_line", "_table", "lanes", "late", "rows", "waiting", "work_ns")

    def __init__(self, *, items_max: int, rows_max: int, table: LatencyTable | None = None, enough: int = 0) -> None:
        """`enough`: a key with so many rows counts as full, though a batch would hold more; 0: none does."""
        self.waiting = 0
        self.rows = 0
        self.work_ns = 0.0
        self.late: list[T] = []
        self._items_max = items_max
        self._enough = enough or sys.maxsize
        self._table = table if table is not None else LatencyTable(rows_max)
        self._line: deque[T] = deque()
        self.lanes: dict[Hashable, Lane[T]] = {}
        self._full: dict[Hashable, None] = {}

    def put(self, item: T) -> None:
        if self.waiting >= self._items_max:
            raise Overloaded(
                f"the queue is full: {self.waiting} requests wait for an instance and at most "
                f"{self._items_max} may; try again later"
            )
        key = item.key
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(self._table.cost(key))
        if not lane.waiting:
            lane.row_ns = lane.cost.row_ns
        lane.items.append(item)
        lane.waiting += 1
        load = item.rows if item.split is not None else item.weight
        lane.load += load
        self.work_ns += load * lane.row_ns
        if lane.load >= lane.cost.rows_cap or lane.load >= self._enough:
            self._full[key] = None
        self._line.append(item)
        self.waiting += 1
        self.rows += item.rows

    def discard(self, item: T) -> None:
        """A waiting item leaves without an instance; its seat is free at once."""
        lane = self.lanes[item.key]
        self._leave(lane, item)
        self._tidy(item.key, lane)

    def oldest(self) -> T | None:
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

    def cost_and_load(self, key: Hashable) -> tuple[Cost, int]:
        """What is known of a key's runs, and the room that its waiting items need."""
        lane = self.lanes.get(key)
        return (lane.cost, lane.load) if lane is not None else (self._table.cost(key), 0)

    def reprice(self, key: Hashable) -> None:
        """The key's cost has changed."""
        lane = self.lanes.get(key)
        if lane is not None:
            row_ns = lane.cost.row_ns
            self.work_ns += lane.load * (row_ns - lane.row_ns)
            lane.row_ns = row_ns

    def take(self, key: Hashable, room: int, ends_ns: int = 0, is_first: bool = False) -> list[T]:
        """The next items of a key that fit in `room`, in order of arrival; none overtakes one that does not fit.

        A split request gives its next part and keeps its place until it has given the last. Items that fit and have a
        deadline up to `ends_ns`, when the run is expected to end, are `drop`ped instead. A batch that is empty
        (`is_first`) gets one item whatever it needs and whenever it is due.
        """
        lane = self.lanes.get(key)
        taken: list[T] = []
        if lane is None:
            return taken
        items = lane.items
        before = lane.load
        while items:
            item = items[0]
            if not item.done:
                weight = item.weight
                if weight > room and (taken or not is_first):
                    break
                deadline_ns = item.deadline_ns
                if deadline_ns <= ends_ns and deadline_ns and (taken or not is_first):
                    before -= self.drop(lane, item)
                    continue
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
        self.work_ns -= (before - lane.load) * lane.row_ns
        self._tidy(key, lane)
        return taken

    def drop(self, lane: Lane[T], item: T) -> int:
        """The first of a lane is too late for its run; the load it leaves with."""
        load = self._leave(lane, item)
        item.taken = True
        lane.items.popleft()
        self.late.append(item)
        return load

    def items(self) -> list[T]:
        """Every waiting item, oldest first."""
        return [item for item in self._line if not (item.taken or item.done)]

    def _leave(self, lane: Lane[T], item: T) -> int:
        """Count out an item that no batch takes; the load it leaves with."""
        split = item.split
        load = item.weight if split is None else split.left
        lane.load -= load
        lane.waiting -= 1
        self.waiting -= 1
        self.rows -= item.rows if split is None else split.left
        self.work_ns -= load * lane.row_ns
        return load

    def _tidy(self, key: Hashable, lane: Lane[T]) -> None:
        if lane.load < lane.cost.rows_cap and lane.load < self._enough:
            self._full.pop(key, None)
        if not lane.waiting:
            lane.items.clear()
            if len(self.lanes) > self.waiting + _SLACK:
                self.lanes = {key: lane for key, lane in self.lanes.items() if lane.waiting}
        elif len(lane.items) > 2 * lane.waiting + _SLACK:
            lane.items = deque(item for item in lane.items if not item.done)
        if not self.waiting:
            self._line.clear()
            # Sums of fractions do not come back to nothing by themselves.
            self.work_ns = 0.0
        elif len(self._line) > 2 * self.waiting + _SLACK:
            self._line = deque(item for item in self._line if not (item.taken or item.done))

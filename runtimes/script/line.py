"""The requests of one scorer that wait for a script's workers, and which of them are handed over next. Pure.

How: the queue, the policy and the learned run times are those of a model's batches (`runtimes/batching`). Requests
that may share a call of run_batch() are one lane, of which a batch is taken; all others are taken one by one. Of a
script without run_batch() nothing may share anything.
Units: *_ns monotonic nanoseconds; a request is one row; bytes of bodies.
Errors: none; requests that cannot be in time any more are found in `take_late`.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable

from runtimes.batching.fit import fit
from runtimes.batching.latency import LatencyTable
from runtimes.batching.policy import Choice, choose, may_hand_over
from runtimes.batching.queue import Lane, Queue
from runtimes.script.outbox import Outbox
from runtimes.script.request import ALONE, SHARED, ScriptRequest
from runtimes.spec import BatchLimits

# Bodies that travel together: a batch of large ones is made smaller, so that no worker is given gigabytes at once.
BATCH_BYTES_MAX = 64 * 1024 * 1024


class Line:
    """`wake_ns`: when there is something to hand over that is held for a queue delay now; 0 where nothing is."""

    __slots__ = ("_batching", "_delay_ns", "_queue", "_table", "wake_ns")

    def __init__(self, batching: BatchLimits | None) -> None:
        self.set(batching, [])

    def set(self, batching: BatchLimits | None, waiting: list[ScriptRequest]) -> None:
        """From now on by these limits, beginning with those that wait."""
        self.wake_ns = 0
        self._batching = batching
        self._delay_ns = batching.queue_delay_ns if batching is not None else 0
        rows_max = batching.batch_rows_max if batching is not None else 1
        self._table = LatencyTable(
            rows_max,
            slo_ns=batching.slo_ns if batching is not None else 0,
            rows_max_of=lambda key: rows_max if key == SHARED else 1,
        )
        # How many may wait is the client's to say, before.
        self._queue: Queue[ScriptRequest] = Queue(items_max=sys.maxsize, rows_max=rows_max, table=self._table)
        for request in waiting:
            self.put(request)

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    @property
    def work_ns(self) -> float:
        """What running all that waits will take one worker."""
        return self._queue.work_ns

    @property
    def rows_cap(self) -> int:
        """How many requests may share a run now."""
        return self._table.cost(SHARED if self._batching is not None else ALONE).rows_cap

    @property
    def runs(self) -> int:
        """How many runs it takes to run what waits."""
        return sum(-(-lane.load // lane.cost.rows_cap) for lane in self._queue.lanes.values())

    def requests(self) -> list[ScriptRequest]:
        """Oldest first."""
        return self._queue.items()

    def put(self, request: ScriptRequest) -> None:
        request.key = self._key_of(request)
        self._queue.put(request)

    def passes(self, request: ScriptRequest, out: Outbox, workers: int) -> bool:
        """Whether it need not wait in line: it runs alone, nobody is before it, and a worker may be free. It has left
        the line then. This is every request to a script that does not batch and is not busy."""
        if self._queue.waiting or self._key_of(request) != ALONE:
            return False
        request.taken = may_hand_over(len(out), out.untaken, workers, is_full=True)
        return request.taken

    def _key_of(self, request: ScriptRequest) -> str:
        return SHARED if self._batching is not None and request.method == "POST" else ALONE

    def discard(self, request: ScriptRequest) -> None:
        """It waits no longer, and is done."""
        self._queue.discard(request)

    def hurry(self) -> None:
        """Hold nothing back any more."""
        self._delay_ns = 0

    @property
    def has_late(self) -> bool:
        return bool(self._queue.late)

    def take_late(self) -> list[ScriptRequest]:
        """Those that have left as their run would end after their deadline."""
        late, self._queue.late = self._queue.late, []
        return late

    def next(self, out: Outbox, workers: int, now_ns: int) -> list[ScriptRequest]:
        """What is handed over now, as one parcel; nothing where it had better wait."""
        self.wake_ns = 0
        key = self._next_key(now_ns)
        if key is None:
            return []
        lane = self._queue.lanes[key]
        if not may_hand_over(len(out), out.untaken, workers, lane.load >= lane.cost.rows_cap):
            return []
        if key == ALONE or lane.waiting == 1:
            return self._queue.take(key, 1, is_first=True)
        most = _fitting(lane, lane.cost.rows_cap)
        if len(out) + 1 < workers:
            # Who would be too late in this run is the first in another worker's: nobody is dropped for the pace.
            rows_max, ends_ns = fit(self._queue, lane, now_ns, most, pace_kept=0.0)
            room = _prompt(lane, _fitting(lane, rows_max or most), ends_ns)
            return self._queue.take(key, room, is_first=True)
        starts_ns = now_ns + int(out.work_ns / workers) if len(out) >= workers else now_ns
        rows_max, ends_ns = fit(self._queue, lane, starts_ns, most)
        room = _fitting(lane, rows_max or most, ends_ns)
        return self._queue.take(key, room, ends_ns, is_first=True)

    def run_ns(self, requests: list[ScriptRequest]) -> float:
        """What their run is expected to take."""
        return self._table.cost(requests[0].key).run_ns(len(requests))

    def learn(self, key: Hashable, rows: int, run_ns: int) -> None:
        """A run of so many took so long."""
        self._table.learn(key, rows, run_ns)
        self._queue.reprice(key)

    def _next_key(self, now_ns: int) -> Hashable | None:
        oldest = self._queue.oldest()
        if oldest is None:
            return None
        if not self._delay_ns:
            return oldest.key
        match choose(oldest.submitted_ns, self._queue.has_full, self._delay_ns, now_ns):
            case Choice.OLDEST:
                return oldest.key
            case Choice.FULL:
                return self._queue.full_key()
            case Choice.WAIT:
                self.wake_ns = oldest.submitted_ns + self._delay_ns
                return None


def _prompt(lane: Lane[ScriptRequest], rows_max: int, ends_ns: int) -> int:
    """How many of a lane's next requests come before one that is due before the run ends; the first is in it
    whenever it is due."""
    rows = 0
    for request in lane.items:
        if request.done:
            continue
        if rows == rows_max or (rows and 0 < request.deadline_ns <= ends_ns):
            break
        rows += 1
    return rows


def _fitting(lane: Lane[ScriptRequest], rows_max: int, ends_ns: int = 0) -> int:
    """How many of a lane's next requests travel together, without those that `Queue.take` drops, as they are due
    before the run ends; one does, whatever its size."""
    rows = size = 0
    for request in lane.items:
        if request.done or (rows and 0 < request.deadline_ns <= ends_ns):
            continue
        size += len(request.body)
        if rows == rows_max or (size > BATCH_BYTES_MAX and rows):
            break
        rows += 1
    return rows

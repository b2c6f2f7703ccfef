"""The pump: from the queue into batches, and from there to the instances.

How: it runs once a tick of the loop, so that requests parsed in one tick share a batch. First the staged batches
grow, then new ones are formed while the pool has room. An inline pool gets batches for some milliseconds; then
the loop sees to its sockets. One timer is armed while the oldest item is held for a queue delay; nothing polls.
Deadlines: a batch stays as small as its first item's deadline asks, where that costs little of the pace; else that
item is dropped, so that those behind it still can be in time, and `late` is told at once. The last that waits is
never dropped: so a forecast that is wrong is put right by a run.
Threads: the loop's only.
Units: *_ns monotonic nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from runtimes.batching.batch import Batch
from runtimes.batching.fit import DEADLINE_SHARE, fit
from runtimes.batching.item import WorkItem
from runtimes.batching.policy import Choice, choose, preferred_rows
from runtimes.batching.queue import Lane, Queue
from runtimes.clock import Scheduler, Timer
from runtimes.instance import InstancePool
from runtimes.spec import BatchLimits

# How long one turn may go on running inline batches.
_TURN_NS = 2_000_000
# A tick that is longer has turns within it.
_TICK_NS = 1_000_000


class Pump:
    """`running` are the batches that the pool has, in the order it got them; `is_due`: a turn is asked for.

    `catch_up_ns`: from then on an arrival finds that a turn is overdue, if any batch is running or full.
    `work_ns` is what they are expected to take, each from its beginning.
    """

    __slots__ = (
        "_capacity",
        "_finished",
        "_growing",
        "_home",
        "_instances",
        "_late",
        "_now_ns",
        "_pool",
        "_preferred",
        "_queue",
        "_scheduler",
        "_turn",
        "_wake",
        "_wake_ns",
        "batches",
        "catch_up_ns",
        "delay_ns",
        "is_due",
        "running",
        "work_ns",
    )

    def __init__(
        self,
        *,
        queue: Queue[WorkItem],
        pool: InstancePool,
        limits: BatchLimits,
        scheduler: Scheduler,
        home: Callable[[Batch], None],
        late: Callable[[WorkItem, int], None],
    ) -> None:
        self.delay_ns = limits.queue_delay_ns
        self._preferred = limits.preferred
        self.running: dict[Batch, None] = {}
        self.batches = 0
        self.is_due = False
        self.work_ns = 0.0
        self.catch_up_ns = 0
        self._queue = queue
        self._pool = pool
        self._capacity = pool.capacity
        self._instances = pool.instances
        self._scheduler = scheduler
        self._now_ns = scheduler.now_ns
        self._home = home
        self._late = late
        # For each key the last batch that the pool got, which may still grow.
        self._growing: dict[Hashable, Batch] = {}
        self._wake: Timer | None = None
        self._wake_ns = 0
        # Bound once, for they are handed out once a tick and once a batch.
        self._turn = self._take_turn
        self._finished = self._take_home

    def ask(self) -> None:
        """Have a turn in the next tick; the same one, however often it is asked for."""
        if not self.is_due:
            self.is_due = True
            self._scheduler.call_soon(self._turn)

    def catch_up(self, now_ns: int) -> None:
        """A turn within a tick, for ticks that are long: a loop with thousands of sockets to read from reads them all
        before it takes the next turn, and the instances would have nothing to do meanwhile."""
        self.catch_up_ns = now_ns + _TICK_NS
        for batch in tuple(self.running):
            if batch.is_finished:
                self._take_home(batch)
        self._send(now_ns)

    def resized(self) -> None:
        """The pool has more or fewer instances now."""
        self._capacity = self._pool.capacity
        self._instances = self._pool.instances
        if self._queue.waiting:
            self.ask()

    def hurry(self) -> None:
        """Hold no item back any more."""
        self.delay_ns = 0
        self.ask()

    def close(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    def growing(self, key: Hashable) -> Batch | None:
        """The batch that waits for an instance and takes more of this key."""
        batch = self._growing.get(key)
        return batch if batch is not None and not batch.is_taken else None

    def ahead_ns(self, now_ns: int) -> float:
        """What is left of the running batches, and the staged ones, together."""
        left_ns = 0.0
        for batch in self.running:
            run_ns = batch.run_ns
            left_ns += max(0.0, batch.taken_ns + run_ns - now_ns) if batch.is_taken else run_ns
        return left_ns

    def _take_turn(self) -> None:
        self.is_due = False
        now_ns = self._now_ns()
        self.catch_up_ns = now_ns + _TICK_NS
        self._send(now_ns)

    def _send(self, now_ns: int) -> None:
        queue = self._queue
        if self._growing:
            self._grow(now_ns)
        until_ns = now_ns + _TURN_NS
        while len(self.running) < self._capacity:
            oldest = queue.oldest()
            if oldest is None:
                return
            key, is_due = oldest.key, False
            if self.delay_ns:
                choice = choose(oldest.enqueued_ns, queue.has_full, self.delay_ns, now_ns)
                if choice is Choice.WAIT:
                    self._wake_at(oldest.enqueued_ns + self.delay_ns)
                    return
                is_due = choice is Choice.OLDEST
                key = key if is_due else queue.full_key()
            # What has been held for as long as it may goes whole.
            self._start(key, now_ns, self._preferred if not is_due else ())
            if not self.running:
                # An inline pool is through with a batch when it has started it. The loop sees to its sockets now and
                # then, but not after each batch: one tick may bring more requests than fit in one.
                now_ns = self._now_ns()
                if now_ns > until_ns:
                    return

    def _start(self, key: Hashable, now_ns: int, preferred: Sequence[int]) -> None:
        queue = self._queue
        lane = queue.lanes[key]
        cost = lane.cost
        batch = Batch(key, cost.rows_cap, cost)
        batch.starts_ns = now_ns + int(self.ahead_ns(now_ns) / self._instances) if self.running else now_ns
        rows_max = ends_ns = 0
        if lane.waiting > 1:
            rows_max, ends_ns = fit(queue, lane, batch.starts_ns)
            if preferred and not rows_max:
                rows_max = preferred_rows(min(lane.load, cost.rows_cap), preferred)
        batch.deadline_ns = lane.first().deadline_ns
        batch.fill(queue, now_ns, rows_max, ends_ns)
        if self._capacity > 1:
            batch.run_ns = cost.run_ns(max(batch.used, 1))
            self.work_ns += batch.run_ns
        self.batches += 1
        self.running[batch] = None
        self._growing[key] = batch
        self._pool.start(batch, self._finished)
        if queue.late:
            self._shed(now_ns)

    def _grow(self, now_ns: int) -> None:
        # Only the last batch of a key grows, so no item overtakes one of its own key.
        for key, batch in tuple(self._growing.items()):
            lane = self._queue.lanes.get(key)
            rows_max, ends_ns = self._grown(batch, lane, now_ns) if lane is not None and lane.waiting else (0, 0)
            if not batch.fill(self._queue, now_ns, rows_max, ends_ns):
                del self._growing[key]
                continue
            self.work_ns -= batch.run_ns
            batch.run_ns = batch.cost.run_ns(max(batch.used, 1))
            self.work_ns += batch.run_ns
        if self._queue.late:
            self._shed(now_ns)

    def _grown(self, batch: Batch, lane: Lane[WorkItem], now_ns: int) -> tuple[int, int]:
        """How many rows a staged batch may have that grows by this lane (0: any), and when its run will end."""
        cost, starts_ns = batch.cost, max(now_ns, batch.starts_ns)
        run_ns = cost.run_ns(min(batch.used + lane.load, cost.rows_cap))
        left_ns = DEADLINE_SHARE * (batch.deadline_ns - starts_ns)
        if run_ns > left_ns and batch.deadline_ns:
            rows_max = max(batch.used, cost.rows_within(left_ns), 1)
            return rows_max, starts_ns + int(cost.run_ns(rows_max))
        return 0, starts_ns + int(run_ns)

    def _shed(self, now_ns: int) -> None:
        late, self._queue.late = self._queue.late, []
        for item in late:
            # An inline run that was started meanwhile is over, and may have ended what it ran a part of.
            if not item.done:
                self._late(item, now_ns)

    def _take_home(self, batch: Batch) -> None:
        if batch not in self.running:
            # It was taken home within the tick, before the loop came to it.
            return
        del self.running[batch]
        # Sums of fractions do not come back to nothing by themselves.
        self.work_ns = self.work_ns - batch.run_ns if self.running else 0.0
        if self._growing.get(batch.key) is batch:
            del self._growing[batch.key]
        self._home(batch)
        if self._queue.waiting:
            self.ask()

    def _wake_at(self, when_ns: int) -> None:
        # The oldest only gets younger, so a timer that is armed fires in time; at worst for one who has left.
        if self._wake is None:
            self._wake_ns = when_ns
            self._wake = self._scheduler.call_at(when_ns, self._woken)

    def _woken(self) -> None:
        self._wake = None
        # A loop's timer may be some microseconds early; the time it was set for has come all the same.
        self._send(max(self._now_ns(), self._wake_ns))

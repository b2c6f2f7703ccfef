"""The pump: from the queue into batches, and from there to the instances.

How: it runs once a tick of the loop, so that requests parsed in one tick share a batch. First the staged batches
grow, then new ones are formed while the pool has room. An inline pool gets one batch a tick, so that the loop sees to
its sockets in between. One timer is armed while the oldest item is held for a queue delay; nothing polls.
Threads: the loop's only.
Units: *_ns monotonic nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from runtimes.batching.batch import Batch
from runtimes.batching.policy import Choice, choose
from runtimes.batching.queue import Queue
from runtimes.clock import Scheduler, Timer
from runtimes.instance import InstancePool
from runtimes.spec import BatchLimits


class Pump:
    """`running` are the batches that the pool has, in the order it got them; `is_due`: a turn is asked for."""

    __slots__ = (
        "_capacity",
        "_finished",
        "_growing",
        "_home",
        "_now_ns",
        "_pool",
        "_queue",
        "_rows_max",
        "_scheduler",
        "_turn",
        "_wake",
        "_wake_ns",
        "batches",
        "delay_ns",
        "is_due",
        "running",
    )

    def __init__(
        self,
        *,
        queue: Queue,
        pool: InstancePool,
        limits: BatchLimits,
        scheduler: Scheduler,
        home: Callable[[Batch], None],
    ) -> None:
        self.delay_ns = limits.queue_delay_ns
        self.running: dict[Batch, None] = {}
        self.batches = 0
        self.is_due = False
        self._queue = queue
        self._pool = pool
        self._capacity = pool.capacity
        self._rows_max = limits.batch_rows_max
        self._scheduler = scheduler
        self._now_ns = scheduler.now_ns
        self._home = home
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

    def hurry(self) -> None:
        """Hold no item back any more."""
        self.delay_ns = 0
        self.ask()

    def close(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    def _take_turn(self) -> None:
        self.is_due = False
        self._send(self._now_ns())

    def _send(self, now_ns: int) -> None:
        queue = self._queue
        if self._growing:
            self._grow(now_ns)
        # Counted once: an inline pool finishes a batch inside `start`, and is to have one batch in a tick.
        for _ in range(self._capacity - len(self.running)):
            oldest = queue.oldest()
            if oldest is None:
                return
            choice = choose(oldest.enqueued_ns, queue.has_full, self.delay_ns, now_ns)
            if choice is Choice.WAIT:
                self._wake_at(oldest.enqueued_ns + self.delay_ns)
                return
            self._start(oldest.key if choice is Choice.OLDEST else queue.full_key(), now_ns)

    def _start(self, key: Hashable, now_ns: int) -> None:
        batch = Batch(key, self._rows_max)
        batch.fill(self._queue, now_ns)
        self.batches += 1
        self.running[batch] = None
        self._growing[key] = batch
        self._pool.start(batch, self._finished)

    def _grow(self, now_ns: int) -> None:
        # Only the last batch of a key grows, so no item overtakes one of its own key.
        for key, batch in tuple(self._growing.items()):
            if not batch.fill(self._queue, now_ns):
                del self._growing[key]

    def _take_home(self, batch: Batch) -> None:
        del self.running[batch]
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

"""A virtual clock, event loop and instances: the batcher's whole world without a thread, socket or sleep.

Units: *_ns virtual nanoseconds, from a start that is not zero.
Source of the turns: like asyncio's loop, one tick makes the due timers ready and then runs what was ready when it
began; what that asks for runs in the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush

import numpy as np

from runtimes.batching.batch import Batch
from runtimes.batching.collate import Collator
from runtimes.batching.item import WorkItem
from runtimes.clock import Timer
from runtimes.errors import RuntimeFault
from runtimes.instance import Finished, check_shrink, execute
from runtimes.observer import Observer
from runtimes.runtime import Runtime
from runtimes.session import Session
from runtimes.simulated import Behaviour, SimulatedSession, simulated_signature
from runtimes.spec import BatchLimits
from runtimes.tensor import Array, Tensors

START_NS = 1_000_000_000
MS = 1_000_000


class VirtualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualScheduler:
    """The Scheduler protocol on a clock that only `advance` and `spend` move."""

    def __init__(self) -> None:
        self._now_ns = START_NS
        self._ready: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[int, int, VirtualTimer]] = []
        self._serial = 0

    def now_ns(self) -> int:
        return self._now_ns

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._ready.append(callback)

    def call_from_thread(self, callback: Callable[[], None]) -> None:
        # Appending to a deque is atomic, so this is safe from any thread, as promised.
        self._ready.append(callback)

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        timer = VirtualTimer(callback)
        self._serial += 1
        heappush(self._timers, (when_ns, self._serial, timer))
        return timer

    @property
    def armed(self) -> int:
        """How many timers are waiting."""
        return sum(1 for _, _, timer in self._timers if timer.callback is not None)

    def spend(self, ns: int) -> None:
        """Time passes inside a callback: the loop is blocked meanwhile."""
        self._now_ns += ns

    def tick(self) -> bool:
        """One turn of the loop; whether there was anything to do."""
        while self._timers and self._timers[0][0] <= self._now_ns:
            timer = heappop(self._timers)[2]
            if timer.callback is not None:
                self._ready.append(timer.callback)
                timer.callback = None
        count = len(self._ready)
        for _ in range(count):
            self._ready.popleft()()
        return count > 0

    def settle(self) -> None:
        """Turn until there is nothing left to do at this moment."""
        for _ in range(100_000):
            if not self.tick():
                return
        raise AssertionError("the loop never rests: something asks for a turn in every turn")

    def advance(self, ns: int) -> None:
        """Move on by so many nanoseconds and stop at each timer on the way."""
        end_ns = self._now_ns + ns
        self.settle()
        while (when_ns := self._next_ns()) is not None and when_ns <= end_ns:
            self._now_ns = max(self._now_ns, when_ns)
            self.settle()
        self._now_ns = max(self._now_ns, end_ns)

    def run_out(self) -> None:
        """Move on until no timer is left."""
        self.settle()
        while (when_ns := self._next_ns()) is not None:
            self._now_ns = max(self._now_ns, when_ns)
            self.settle()

    def _next_ns(self) -> int | None:
        while self._timers and self._timers[0][2].callback is None:
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None


class _Hung(BaseException):
    """Thrown out of a session that never comes back."""


class VirtualPool:
    """Instances that take batches like threads do and hold them for as long as their sessions say they ran.

    A session is made with the pool's `pause` and `hang`. `wake_ns` is how long an idle instance takes to wake up.
    `taken` records every batch's items at the moment an instance took it. One that is let go takes its leave in the
    order of what is staged, as a thread does, and closes its session.
    """

    def __init__(self, scheduler: VirtualScheduler, *, instances: int = 1, wake_ns: int = 0) -> None:
        self.instances = instances
        self.capacity = 2 * instances
        self.sessions: Sequence[Session] = ()
        self.taken: list[tuple[int, list[WorkItem]]] = []
        self.outstanding = 0
        self.most_outstanding = 0
        self.hung = 0
        self.is_closed = False
        self._collator = Collator(simulated_signature())
        self._scheduler = scheduler
        self._wake_ns = wake_ns
        self._staged: deque[tuple[Batch, Finished] | None] = deque()
        self._idle = list(range(instances))
        self._spent_ns = 0
        self._is_hanging = False

    def pause(self, ns: int) -> None:
        self._spent_ns += ns

    def hang(self) -> None:
        self._is_hanging = True
        raise _Hung

    def start(self, batch: Batch, finished: Finished) -> None:
        self.outstanding += 1
        self.most_outstanding = max(self.most_outstanding, self.outstanding)
        self._staged.append((batch, finished))
        self._scheduler.call_at(self._scheduler.now_ns() + self._wake_ns, self._work)

    def grow(self, sessions: Sequence[Session]) -> None:
        first = len(self.sessions)
        self.sessions = (*self.sessions, *sessions)
        self._idle += range(first, len(self.sessions))
        self._count(self.instances + len(sessions))

    def shrink(self, count: int) -> None:
        check_shrink(self.instances, count)
        self._count(self.instances - count)
        self._staged += [None] * count

    def _count(self, instances: int) -> None:
        self.instances = instances
        self.capacity = 2 * instances
        self._scheduler.call_at(self._scheduler.now_ns() + self._wake_ns, self._work)

    def close(self, timeout_s: float) -> bool:
        self.is_closed = True
        return not self.hung

    def _work(self) -> None:
        while self._staged and self._idle:
            instance = self._idle.pop()
            staged = self._staged.popleft()
            if staged is None:
                self.sessions[instance].close()
                continue
            batch, finished = staged
            self._spent_ns = 0
            self.taken.append((self._scheduler.now_ns(), list(batch.items)))
            self._run(instance, batch, finished)

    def _run(self, instance: int, batch: Batch, finished: Finished) -> None:
        execute(self.sessions[instance], self._collator, batch, self.now_ns)
        if self._is_hanging:
            self._is_hanging = False
            self.hung += 1
            return
        done = partial(self._done, instance, batch, finished)
        self._scheduler.call_at(self.now_ns(), done)

    def _done(self, instance: int, batch: Batch, finished: Finished) -> None:
        # The instance goes on with the next staged batch before the loop hears of this one, as a thread does.
        self.outstanding -= 1
        self._idle.append(instance)
        self._work()
        self._scheduler.call_from_thread(partial(finished, batch))

    def now_ns(self) -> int:
        """The time on the instance that is at work."""
        return self._scheduler.now_ns() + self._spent_ns


class WatchedSession(SimulatedSession):
    """Also keeps which rows ran when: (now_ns, x) for each run."""

    ran: list[tuple[int, Array]]
    now_ns: Callable[[], int]

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        assert not self.is_closed, "a session that is closed was run"
        self.ran.append((self.now_ns(), inputs["x"]))
        return super().run(inputs, outputs)


class RecordingObserver:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int, int, bool]] = []
        self.positions: list[tuple[int, int]] = []
        self.expired_items = 0
        self.cancelled_items = 0

    def ran(self, rows: int, items: int, run_ns: int, failed: bool) -> None:
        self.runs.append((rows, items, run_ns, failed))

    def padded(self, positions: int, padding: int) -> None:
        self.positions.append((positions, padding))

    def expired(self, items: int) -> None:
        self.expired_items += items

    def cancelled(self, items: int) -> None:
        self.cancelled_items += items


class World:
    """A runtime on a virtual clock, with simulated sessions and a record of every reply.

    `kind` is "inline" (runs block the loop) or "virtual" (instances beside the loop).
    """

    def __init__(
        self,
        *,
        kind: str = "virtual",
        instances: int = 1,
        behaviour: Behaviour | None = None,
        limits: BatchLimits | None = None,
        batched: bool = True,
        observer: Observer | None = None,
        seed: int = 0,
        wake_ns: int = 0,
        run_times: Mapping[int, int] | None = None,
    ) -> None:
        self.scheduler = VirtualScheduler()
        self.observer = RecordingObserver()
        self.pool = VirtualPool(self.scheduler, instances=instances, wake_ns=wake_ns)
        self.kind, self._seed, self._behaviour, self._batched = kind, seed, behaviour, batched
        self.ran: list[tuple[int, Array]] = []
        self.sessions = [self.session() for _ in range(instances)]
        self.pool.sessions = self.sessions
        self.runtime = Runtime(
            name="blue",
            sessions=tuple(self.sessions),
            signature=simulated_signature(batched=batched),
            limits=limits or BatchLimits(),
            dispatch="inline" if kind == "inline" else "thread",
            scheduler=self.scheduler,
            observer=observer or self.observer,
            pool=None if kind == "inline" else self.pool,
            run_times=run_times,
        )
        self.replies: list[tuple[int, WorkItem]] = []

    def session(self) -> WatchedSession:
        """One more session of this world."""
        is_inline = self.kind == "inline"
        pause = self.scheduler.spend if is_inline else self.pool.pause
        made = WatchedSession(self._seed, self._behaviour, pause=pause, hang=self.pool.hang, batched=self._batched)
        made.ran = self.ran
        made.now_ns = self.scheduler.now_ns if is_inline else self.pool.now_ns
        return made

    def resize(self, instances: int) -> None:
        """Have so many instances from now on."""
        missing = instances - self.runtime.instances
        if missing < 0:
            self.runtime.shrink(-missing)
        else:
            more = [self.session() for _ in range(missing)]
            self.sessions += more
            self.runtime.grow(more)

    def item(
        self,
        x: Array | float = 1.0,
        *,
        within_ns: int = 0,
        start_within_ns: int = 0,
        reply: Callable[[WorkItem], None] | None = None,
    ) -> WorkItem:
        """A request of rows x (or of one row that holds x); its deadlines are counted from now."""
        rows = np.full((1, 2), x, dtype=np.float32) if isinstance(x, float) else x
        now_ns = self.scheduler.now_ns()
        return WorkItem(
            inputs={"x": rows},
            rows=len(rows),
            key=(None, rows.shape[1:]),
            outputs=None,
            deadline_ns=now_ns + within_ns if within_ns else 0,
            start_by_ns=now_ns + start_within_ns if start_within_ns else 0,
            reply=reply or self.record,
        )

    def submit(self, item: WorkItem) -> WorkItem:
        self.runtime.submit(item)
        return item

    def send(self, x: Array | float = 1.0, *, within_ns: int = 0, start_within_ns: int = 0) -> WorkItem:
        return self.submit(self.item(x, within_ns=within_ns, start_within_ns=start_within_ns))

    def record(self, item: WorkItem) -> None:
        self.replies.append((self.scheduler.now_ns(), item))

    def replied(self, item: WorkItem) -> int:
        """How often the item was replied to."""
        return sum(1 for _, replied in self.replies if replied is item)

    def is_right(self, item: WorkItem) -> bool:
        """Whether the item came back with exactly the rows that are its own."""
        if item.results is None or item.fault is not None:
            return False
        return bool(np.array_equal(item.results["y"], self.sessions[0].answer(item.inputs["x"])))

    def fault(self, item: WorkItem) -> type[RuntimeFault] | None:
        return None if item.fault is None else type(item.fault)

    @property
    def batch_rows(self) -> list[int]:
        """The rows of each run, in order."""
        return [rows for rows, _, _, _ in self.observer.runs]

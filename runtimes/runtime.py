"""Runtime: one deployment's instances behind submit, cancel, grow, shrink, drain, close and status.

Ownership: a runtime owns its sessions from the moment it is made or grown; each is closed after its last run.
Threads: every method is for the loop's thread; replies and callbacks are made on it.
Units: *_ns monotonic nanoseconds; items are requests, rows lie along the batch axis.
Errors: `submit` raises Overloaded, TooLate, Unavailable or DeadlineExceeded at once, and the item stays the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from runtimes.batching.batcher import Batcher
from runtimes.batching.buckets import collator_for, within
from runtimes.batching.item import WorkItem
from runtimes.clock import Scheduler
from runtimes.instance import InlinePool, InstancePool, ThreadPool
from runtimes.lifecycle import Lifecycle, State
from runtimes.observer import Observer
from runtimes.session import Session
from runtimes.signature import Signature
from runtimes.spec import BatchLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeStatus:
    """A runtime at one moment. accepted = succeeded + failed + expired + cancelled + closed + queued + in flight.

    `rows_cap` is how many rows a batch may have now; `waiting_runs`: how many runs what waits for an instance makes.
    `longest_run_ns` is how long the slowest batch has been running: it grows without end when an instance hangs.
    `oldest_wait_ns` is how long the item that waits longest has waited, in the queue or in a staged batch; 0: none.
    """

    name: str
    state: str
    reason: str
    batched: bool
    dispatch: str
    rows_cap: int
    instances: int
    busy: int
    queued_items: int
    queued_rows: int
    waiting_runs: int
    oldest_wait_ns: int
    in_flight_items: int
    longest_run_ns: int
    batches: int
    accepted: int
    refused: int
    succeeded: int
    failed: int
    expired: int
    cancelled: int
    closed: int


class Runtime:
    """A loaded deployment that takes work until it is drained or closed."""

    def __init__(
        self,
        *,
        name: str,
        sessions: tuple[Session, ...],
        signature: Signature,
        limits: BatchLimits,
        dispatch: Literal["inline", "thread"],
        scheduler: Scheduler,
        observer: Observer,
        pool: InstancePool | None = None,
        run_times: Mapping[int, int] | None = None,
    ) -> None:
        """`pool` replaces the instances that `dispatch` would make; it then brings its own sessions. `run_times`:
        what a run takes by rows, in nanoseconds, as far as it was measured before."""
        if limits.batch_rows_max < 1 or limits.queue_items_max < 1 or limits.queue_delay_ns < 0:
            raise ValueError(
                f"runtime {name!r} was given {limits}; a batch and a queue hold at least 1, and no delay is negative"
            )
        self.name = name
        self.signature = signature
        self.batched = signature.batched
        self.dispatch = dispatch
        collator = collator_for(signature, limits)
        limits = within(limits) if signature.batched else limits
        if pool is None:
            if not sessions:
                raise ValueError(f"runtime {name!r} was given no session; it takes at least one")
            pool = (
                InlinePool(sessions, collator, scheduler)
                if dispatch == "inline"
                else ThreadPool(sessions, collator, scheduler, name)
            )
        self._pool = pool
        self._scheduler = scheduler
        self._lifecycle = Lifecycle()
        self._batcher = Batcher(
            pool=pool,
            collator=collator,
            limits=limits,
            merges=signature.batched,
            scheduler=scheduler,
            observer=observer,
            run_times=run_times,
        )

    def submit(self, item: WorkItem) -> None:
        """Take the item. Its reply is called once, later on the loop, with `results` or `fault` set."""
        self._batcher.submit(item)

    def check_room(self, deadline_ns: int, now_ns: int) -> None:
        """Whether a request may still be in time, before its inputs are known. Errors: TooLate."""
        batcher = self._batcher
        pump, queue = batcher.pump, batcher.queue
        if now_ns >= pump.catch_up_ns and (pump.running or queue.has_full):
            pump.catch_up(now_ns)
        work_ns = queue.work_ns + pump.work_ns
        if work_ns * batcher.forecast.pace > deadline_ns - now_ns:
            batcher.check_room(deadline_ns - now_ns, now_ns)

    def cancel(self, item: WorkItem) -> None:
        """The caller is gone: no reply any more; its seat is free at once. Harmless to an item that is done."""
        self._batcher.cancel(item)

    @property
    def instances(self) -> int:
        """How many run its batches; those that were let go are not counted, though they may still finish one."""
        return self._pool.instances

    def grow(self, sessions: Sequence[Session]) -> None:
        """Run batches in these as well; what is queued begins at once. Where runs are inline one session is enough,
        and these are closed. Errors: ValueError when it is closed; the sessions stay the caller's."""
        if self._lifecycle.state is State.CLOSED:
            raise ValueError(f"{self._lifecycle.reason}, and no sessions")
        self._pool.grow(sessions)
        self._batcher.resized(self._pool.instances)

    def shrink(self, count: int) -> None:
        """Let so many instances go, after the batches that they run. Nothing that was accepted is lost.
        Errors: ValueError where none would stay."""
        self._pool.shrink(count)
        self._batcher.resized(self._pool.instances)

    def observe(self, observer: Observer) -> None:
        """Tell this observer of what happens from now on, instead of the one before."""
        self._batcher.observe(observer)

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Refuse new items and call back once the accepted ones have their answers; may be asked for again.

        An instance that hangs does not hold up a drain for longer than its items' deadlines.
        """
        if self._lifecycle.state is State.READY:
            self._lifecycle.move(State.DRAINING, f"deployment {self.name!r} is draining; it takes no new requests")
        self._batcher.drain(self._lifecycle.reason, on_drained)

    def close(self, timeout_s: float = 0.0) -> bool:
        """Answer what is left with Unavailable and end the instances; drain first to lose nothing.

        Waits (the loop too) at most `timeout_s` for running sessions and returns whether all ended. One that has not
        is abandoned: its thread is a daemon and closes its session if it ever comes back. May be called again.
        """
        if self._lifecycle.state is not State.CLOSED:
            self._lifecycle.move(State.CLOSED, f"deployment {self.name!r} is closed; it takes no new requests")
            self._batcher.close(self._lifecycle.reason)
        return self._pool.close(timeout_s)

    def status(self) -> RuntimeStatus:
        batcher = self._batcher
        counts = batcher.counts
        running = batcher.pump.running
        now_ns = self._scheduler.now_ns()
        oldest_ns = batcher.oldest_ns()
        taken_ns = min((batch.taken_ns for batch in running if batch.is_taken), default=0)
        return RuntimeStatus(
            name=self.name,
            state=self._lifecycle.state.value,
            reason=self._lifecycle.reason,
            batched=self.batched,
            dispatch=self.dispatch,
            rows_cap=batcher.table.rows_cap,
            instances=self._pool.instances,
            busy=min(len(running), self._pool.instances),
            queued_items=batcher.queue.waiting,
            queued_rows=batcher.queue.rows,
            waiting_runs=batcher.waiting_runs(),
            oldest_wait_ns=now_ns - oldest_ns if oldest_ns else 0,
            in_flight_items=batcher.live - batcher.queue.waiting,
            longest_run_ns=now_ns - taken_ns if taken_ns else 0,
            batches=batcher.pump.batches,
            accepted=counts.accepted,
            refused=counts.refused,
            succeeded=counts.succeeded,
            failed=counts.failed,
            expired=counts.expired,
            cancelled=counts.cancelled,
            closed=counts.closed,
        )

    def __repr__(self) -> str:
        batcher = self._batcher
        busy = min(len(batcher.pump.running), self._pool.instances)
        return (
            f"<Runtime {self.name} {self._lifecycle.state.value} {busy}/{self._pool.instances} busy, "
            f"{batcher.queue.waiting} queued>"
        )

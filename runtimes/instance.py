"""Instances: what runs batches. One session each; inline on the loop, or on a thread of its own.

Why: a model of microseconds loses more to a hand-over than it computes, a longer one must not hold the loop; the
batcher sees one small seam, `InstancePool`, and both kinds run a batch with the same code.
Threads: all instances of a pool take from one hand-over queue, so a free one takes the next staged batch whichever
it is. A pool's methods are for the loop; `finished` is called on the loop, once for each started batch.
Errors: what a session raises becomes the fault of the item that causes it: a failed batch is halved until the
culprit is alone. Nothing a session does can end an instance.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

from runtimes.batching.batch import Batch, Run
from runtimes.batching.collate import Collator
from runtimes.batching.item import WorkItem
from runtimes.clock import Scheduler
from runtimes.errors import ModelFailed, RuntimeFault
from runtimes.session import Session

logger = logging.getLogger(__name__)

Finished = Callable[[Batch], None]


class InstancePool(Protocol):
    """Instances that take batches. `capacity` is how many batches may be started and not finished; after a `shrink`
    there may be more for a while."""

    @property
    def instances(self) -> int: ...

    @property
    def capacity(self) -> int: ...

    def start(self, batch: Batch, finished: Finished) -> None:
        """Run the batch soon, or within this call; the pool owns it until it calls `finished`."""
        ...

    def grow(self, sessions: Sequence[Session]) -> None:
        """Take these in as further instances; they are the pool's from now on."""
        ...

    def shrink(self, count: int) -> None:
        """Let so many instances go: each finishes the batch that it runs and closes its session. What was started
        before is run by those that go and those that stay. Errors: ValueError where none would stay."""
        ...

    def close(self, timeout_s: float) -> bool:
        """Take no more batches, end the instances and close their sessions; whether all ended in time."""
        ...


def check_shrink(instances: int, count: int) -> None:
    """Errors: ValueError where a pool of so many cannot let this many go."""
    if not 0 <= count < instances:
        raise ValueError(f"{count} of {instances} instances cannot be taken away; at least one stays")


def execute(session: Session, collator: Collator, batch: Batch, now_ns: Callable[[], int]) -> None:
    """Take a batch and run it to the end, in whatever thread this is. What came of it is in `batch`."""
    try:
        _run_and_bisect(session, collator, batch, now_ns)
    except BaseException as error:
        # Sessions raise Exceptions and those are handled below: this is our bug, or the end of the process.
        batch.fault = _model_failed(error)
        logger.error("an instance failed outside its session", exc_info=error)
        if isinstance(error, KeyboardInterrupt):
            raise


def _run_and_bisect(session: Session, collator: Collator, batch: Batch, now_ns: Callable[[], int]) -> None:
    now = now_ns()
    items = batch.take(now)
    if not items:
        return
    run = _run(session, collator, items, now, now_ns)
    batch.runs.append(run)
    pending = _halves(run)
    while pending:
        now = now_ns()
        part = [item for item in pending.pop() if not item.done and not 0 < item.deadline_ns <= now]
        if part:
            run = _run(session, collator, part, now, now_ns)
            batch.runs.append(run)
            pending += _halves(run)


def _halves(run: Run) -> list[list[WorkItem]]:
    """What must be run again after a fault that several items share. The earlier half is last, as it is popped first,
    so that items of one key keep their order."""
    items = run.items
    if run.fault is None or len(items) == 1:
        return []
    half = len(items) // 2
    return [items[half:], items[:half]]


def _run(
    session: Session, collator: Collator, items: list[WorkItem], started_ns: int, now_ns: Callable[[], int]
) -> Run:
    run = Run(items, started_ns)
    try:
        outputs = session.run(collator.join(items), items[0].outputs)
        run.results = collator.part(outputs, items)
    except RuntimeFault as fault:
        # Without its traceback, whose frames would keep the whole batch's arrays alive.
        run.fault = fault.with_traceback(None)
    except Exception as error:
        run.fault = _model_failed(error)
        if len(items) == 1:
            logger.error("a session raised something other than a fault", exc_info=error)
    run.finished_ns = now_ns()
    return run


def _model_failed(error: BaseException) -> ModelFailed:
    text = " ".join(str(error).split())[:300] or "it gives no reason"
    return ModelFailed(f"the model raised {type(error).__name__} while it ran this request: {text}")


class InlinePool:
    """One instance on the loop itself: a batch is run and finished inside `start`.

    One thread has use for one session: the first runs, any others are only closed with it, and further ones at once.
    """

    instances = 1
    capacity = 1

    def __init__(self, sessions: Sequence[Session], collator: Collator, scheduler: Scheduler) -> None:
        self._sessions = tuple(sessions)
        self._collator = collator
        self._now_ns = scheduler.now_ns

    def start(self, batch: Batch, finished: Finished) -> None:
        try:
            execute(self._sessions[0], self._collator, batch, self._now_ns)
        finally:
            finished(batch)

    def grow(self, sessions: Sequence[Session]) -> None:
        for session in sessions:
            _close(session)

    def shrink(self, count: int) -> None:
        check_shrink(self.instances, count)

    def close(self, timeout_s: float) -> bool:
        for session in self._sessions:
            _close(session)
        return True


class ThreadPool:
    """One thread a session. One batch runs and one is staged for each, in one queue for all.

    The threads are daemons: one that hangs inside its session is abandoned by `close`, and neither holds up the
    process's end nor has its session closed under it. A thread closes its own session, after its last run.
    Who goes is whoever comes first to the mark that `shrink` leaves behind what is staged: never one that hangs.
    """

    def __init__(self, sessions: Sequence[Session], collator: Collator, scheduler: Scheduler, name: str) -> None:
        self.instances = 0
        self.capacity = 0
        self._name = name
        self._collator = collator
        self._scheduler = scheduler
        self._staged: SimpleQueue[tuple[Batch, Finished] | None] = SimpleQueue()
        self._numbers = itertools.count()
        self._threads: list[Thread] = []
        self.grow(sessions)

    def start(self, batch: Batch, finished: Finished) -> None:
        self._staged.put((batch, finished))

    def grow(self, sessions: Sequence[Session]) -> None:
        # Those that were let go and have gone.
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for session in sessions:
            name = f"{self._name}-instance-{next(self._numbers)}"
            thread = Thread(target=self._work, args=(session,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._count(self.instances + len(sessions))

    def shrink(self, count: int) -> None:
        check_shrink(self.instances, count)
        self._count(self.instances - count)
        for _ in range(count):
            self._staged.put(None)

    def close(self, timeout_s: float) -> bool:
        for _ in range(self.instances):
            self._staged.put(None)
        now_ns = self._scheduler.now_ns
        give_up_ns = now_ns() + int(timeout_s * 1e9)
        for thread in self._threads:
            thread.join(max(0, give_up_ns - now_ns()) / 1e9)
        return not any(thread.is_alive() for thread in self._threads)

    def _count(self, instances: int) -> None:
        self.instances = instances
        self.capacity = 2 * instances

    def _work(self, session: Session) -> None:
        while (staged := self._staged.get()) is not None:
            batch, finished = staged
            execute(session, self._collator, batch, self._scheduler.now_ns)
            batch.is_finished = True
            self._scheduler.call_from_thread(partial(finished, batch))
            # Let go of the batch now, not when the next one comes.
            del staged, batch, finished
        _close(session)


def _close(session: Session) -> None:
    try:
        session.close()
    except Exception:
        # The others must still be closed; there is nobody to tell but the log.
        logger.exception("a session failed to close")

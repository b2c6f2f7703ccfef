"""The batcher: owns every item from submit to its one reply, and counts what became of it.

Why callbacks: it is a state machine driven by calls on one thread, so a front door without tasks can use it, and a
test drives it on a virtual clock. The queue holds who waits, the pump decides what runs, the timeouts say who is
late; here every item gets exactly one end: results, a fault, or silence when its caller has gone.
Threads: the loop's only.
Units: *_ns monotonic nanoseconds; items are requests.
Errors: submit raises Unavailable, DeadlineExceeded, Overloaded or TooLate, and the item stays the caller's.
Afterwards a fault arrives in `item.fault`. A reply or an observer that raises is logged and stops nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from runtimes.batching.batch import Batch, Run
from runtimes.batching.buckets import PaddingCollator
from runtimes.batching.collate import Collator
from runtimes.batching.forecast import Forecast
from runtimes.batching.item import WorkItem
from runtimes.batching.latency import LatencyTable
from runtimes.batching.policy import weigh
from runtimes.batching.pump import Pump
from runtimes.batching.queue import Queue
from runtimes.batching.split import Split
from runtimes.batching.timeouts import Timeouts
from runtimes.clock import Scheduler
from runtimes.errors import DeadlineExceeded, Overloaded, QueueWaitExceeded, RuntimeFault, TooLate, Unavailable
from runtimes.instance import InstancePool
from runtimes.observer import Observer
from runtimes.spec import BatchLimits
from runtimes.tensor import Array

logger = logging.getLogger(__name__)


class Counts:
    """What became of every item: accepted = succeeded + failed + expired + cancelled + closed + those still live."""

    __slots__ = ("accepted", "cancelled", "closed", "expired", "failed", "refused", "succeeded")

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.succeeded = 0
        self.failed = 0
        self.expired = 0
        self.cancelled = 0
        self.closed = 0


class Batcher:
    """One deployment's queue in front of one pool of instances. `live` items are accepted and have no end yet."""

    __slots__ = (
        "_collator",
        "_merges",
        "_now_ns",
        "_observer",
        "_on_drained",
        "_padder",
        "_refusal",
        "_rows_max",
        "_scheduler",
        "_timeouts",
        "counts",
        "forecast",
        "live",
        "pump",
        "queue",
        "table",
    )

    def __init__(
        self,
        *,
        pool: InstancePool,
        collator: Collator,
        limits: BatchLimits,
        merges: bool,
        scheduler: Scheduler,
        observer: Observer,
        run_times: Mapping[int, int] | None = None,
    ) -> None:
        self.counts = Counts()
        self.live = 0
        rows_max = limits.batch_rows_max
        # A run that is not shared takes a whole batch's room, so its time stands for that of so many rows.
        seed = run_times if merges or not run_times else {rows_max: run_times[1]}
        padder = collator if isinstance(collator, PaddingCollator) else None
        rows_max_of = padder.rows_max if padder is not None else None
        self.table = LatencyTable(rows_max, seed, limits.slo_ns, rows_max_of)
        preferred = limits.preferred if merges else ()
        self.queue: Queue[WorkItem] = Queue(
            items_max=limits.queue_items_max,
            rows_max=rows_max,
            table=self.table,
            enough=preferred[0] if preferred else 0,
        )
        self.pump = Pump(
            queue=self.queue,
            pool=pool,
            limits=replace(limits, preferred=preferred),
            scheduler=scheduler,
            home=self._come_home,
            late=self._drop_early,
        )
        self.forecast = Forecast(self.queue, self.pump, pool.instances)
        self._timeouts = Timeouts(scheduler, self._due)
        self._collator = collator
        self._padder = padder
        self._merges = merges
        self._rows_max = rows_max
        self._scheduler = scheduler
        self._now_ns = scheduler.now_ns
        self._observer = observer
        self._refusal = ""
        self._on_drained: list[Callable[[], None]] = []

    # The caller's verbs.

    def submit(self, item: WorkItem) -> None:
        now_ns = self._now_ns()
        try:
            self._admit(item, now_ns)
        except RuntimeFault:
            self.counts.refused += 1
            # The item is the caller's again, who may try it elsewhere.
            item.split = None
            raise
        item.enqueued_ns = now_ns
        self.live += 1
        self.counts.accepted += 1
        when_ns = item.deadline_ns
        if item.start_by_ns and not 0 < when_ns <= item.start_by_ns:
            when_ns = item.start_by_ns
        if when_ns:
            self._timeouts.add(when_ns, item)
        if not self.pump.is_due:
            self.pump.ask()

    def check_room(self, left_ns: int, now_ns: int) -> None:
        """Refuse before the item is known, by what is ahead of it. Errors: TooLate."""
        try:
            self.forecast.check_room(left_ns, now_ns)
        except TooLate:
            self.counts.refused += 1
            raise

    def cancel(self, item: WorkItem) -> None:
        """The caller is gone: no reply, and no run if there was none yet. Nothing happens to an item that is done."""
        if item.done or not item.enqueued_ns:
            return
        is_unstarted = self._withdraw(item)
        self.counts.cancelled += 1
        self.live -= 1
        item.split = None
        if is_unstarted:
            self._tell(self._observer.cancelled)
        self._check_drained()

    def resized(self, instances: int) -> None:
        """The pool has so many instances now."""
        self.forecast.resized(instances)
        self.pump.resized()

    def observe(self, observer: Observer) -> None:
        """Tell this one from now on, and the one before nothing more."""
        self._observer = observer

    def waiting_runs(self) -> int:
        """How many runs it takes to run what waits for an instance, staged or queued."""
        queue = self.queue
        staged = sum(not batch.is_taken for batch in self.pump.running)
        queued = max(-(-queue.rows // self.table.rows_cap), bool(queue.waiting)) if self._merges else queue.waiting
        return staged + queued

    def drain(self, reason: str, on_drained: Callable[[], None]) -> None:
        """Refuse new items; call back, never from inside this call, once each accepted one has its end."""
        self._refusal = reason
        self._on_drained.append(on_drained)
        self.pump.hurry()
        self._check_drained()

    def close(self, reason: str) -> None:
        """Refuse new items and answer all live ones now, from inside this call, with Unavailable."""
        self._refusal = reason
        self._timeouts.close()
        self.pump.close()
        for item in self._live_items():
            if not item.done:
                self._withdraw(item)
                self.counts.closed += 1
                self._answer(item, None, Unavailable(reason))
        self._check_drained()

    def oldest_ns(self) -> int:
        """When the item came that has waited longest for an instance, in the queue or staged; 0 when none waits."""
        waiting = [self.queue.oldest(), *(batch.oldest() for batch in self.pump.running)]
        return min((_whole(item).enqueued_ns for item in waiting if item is not None), default=0)

    # Coming in.

    def _admit(self, item: WorkItem, now_ns: int) -> None:
        """Every refusal is made here, cheapest first; a refusal by prediction has its place before the queue's."""
        if self._refusal:
            raise Unavailable(self._refusal)
        rows = item.rows
        rows_max = self._rows_max if self._padder is None else self._padder.rows_max(item.key)
        # The usual item weighs what it has in rows, and brings that with it.
        if not (self._merges and 0 < rows <= rows_max):
            item.weight = weigh(rows, rows_max, self._merges)
        if item.deadline_ns:
            left_ns = item.deadline_ns - now_ns
            if left_ns <= 0:
                raise DeadlineExceeded("the request's deadline had passed before it was submitted; allow more time")
            forecast = self.forecast
            if (self.queue.work_ns + self.pump.work_ns) * forecast.pace + forecast.ceiling_ns > left_ns:
                forecast.check(item.key, item.weight, left_ns, now_ns)
        if rows > rows_max and self._merges:
            item.split = Split(item, rows_max, self._collator)
        try:
            self.queue.put(item)
        except Overloaded as fault:
            fault.retry_after_s = self.forecast.drain_s(now_ns)
            raise

    # Coming home.

    def _come_home(self, batch: Batch) -> None:
        for run in batch.runs:
            self._tell_run(batch, run)
            if run.results is not None:
                self._hand_back(run, run.results)
            elif len(run.items) == 1:
                # A fault shared by several was bisected: their own runs are further on in the list.
                self._fail(run.items[0], run.fault, run)
        self._sweep(batch)
        if self.forecast.is_busy or self.queue.waiting or self.pump.running:
            self.forecast.came_home(batch)
        batch.let_go()
        if self._on_drained:
            self._check_drained()

    def _hand_back(self, run: Run, results: list[dict[str, Array]]) -> None:
        finished_ns = run.finished_ns
        for item, result in zip(run.items, results, strict=True):
            if item.done:
                continue
            if 0 < item.deadline_ns <= finished_ns:
                self._expire(_whole(item), finished_ns)
            elif item.part_of is not None:
                self._finish_part(item.part_of, item, run, result)
            else:
                item.started_ns = run.started_ns
                item.finished_ns = finished_ns
                self.counts.succeeded += 1
                self._answer(item, result, None)

    def _finish_part(self, split: Split, part: WorkItem, run: Run, result: dict[str, Array]) -> None:
        split.finish(part, result)
        parent = split.parent
        parent.batched_ns = parent.batched_ns or part.batched_ns
        parent.started_ns = parent.started_ns or run.started_ns
        if not split.is_complete:
            return
        parent.finished_ns = run.finished_ns
        try:
            results = split.results()
        except RuntimeFault as fault:
            self._fail(parent, fault, run)
            return
        self.counts.succeeded += 1
        self._answer(parent, results, None)

    def _fail(self, item: WorkItem, fault: RuntimeFault | None, run: Run | None) -> None:
        if item.done:
            return
        whole = _whole(item)
        if run is not None:
            whole.started_ns = whole.started_ns or run.started_ns
            whole.finished_ns = run.finished_ns
        self._withdraw(whole)
        self.counts.failed += 1
        self._answer(whole, None, fault)

    def _sweep(self, batch: Batch) -> None:
        """End the items that no run ended: too late when the batch was taken, or the instance itself failed."""
        for item in batch.items:
            if item.done:
                continue
            now_ns = self._now_ns()
            if batch.fault is None:
                self._expire(_whole(item), now_ns)
            else:
                self._fail(item, batch.fault, None)

    def _answer(self, item: WorkItem, results: dict[str, Array] | None, fault: RuntimeFault | None) -> None:
        item.done = True
        item.results = results
        item.fault = fault
        item.split = None
        self.live -= 1
        try:
            item.reply(item)
        except BaseException:
            # Whatever it was, the other items of the batch want their answers, and the batcher its life.
            logger.exception("a reply raised; its request may have no answer")

    # Being late.

    def _due(self, item: WorkItem, now_ns: int) -> None:
        if not 0 < item.deadline_ns <= now_ns and _is_started(item):
            # It has an instance, so from now on only its deadline counts.
            if item.deadline_ns:
                self._timeouts.add(item.deadline_ns, item)
            return
        self._expire(item, now_ns)
        self._check_drained()

    def _drop_early(self, item: WorkItem, now_ns: int) -> None:
        self._expire(item, now_ns)
        self._check_drained()

    def _expire(self, item: WorkItem, now_ns: int) -> None:
        is_unstarted = self._withdraw(item)
        item.finished_ns = now_ns
        self.counts.expired += 1
        if is_unstarted:
            self._tell(self._observer.expired)
        elif not item.started_ns:
            # One that is split has no batch of its own; its first part has, and is not done.
            item.started_ns = item.batch.taken_ns if item.batch is not None else now_ns
        self._answer(item, None, self._lateness(item, now_ns, is_unstarted))

    def _lateness(self, item: WorkItem, now_ns: int, is_unstarted: bool) -> RuntimeFault:
        after_ms = (now_ns - item.enqueued_ns) // 1_000_000
        if 0 < item.deadline_ns <= now_ns:
            where = "while it waited for an instance" if is_unstarted else "while an instance ran it"
            return DeadlineExceeded(
                f"the request's deadline passed {after_ms} ms after it was submitted, {where}; allow more time"
            )
        if 0 < item.start_by_ns <= now_ns:
            return QueueWaitExceeded(
                f"the request waited {after_ms} ms for an instance and may wait no longer; try again later"
            )
        return TooLate(
            f"the request waited {after_ms} ms for an instance and its run would have ended after its deadline, "
            f"so {'it' if is_unstarted else 'the rest of it'} was not run; try again later, or allow more time",
            retry_after_s=self.forecast.drain_s(now_ns),
        )

    def _withdraw(self, item: WorkItem) -> bool:
        """Take an item out of wherever it is, done; whether it was never started."""
        item.done = True
        if not item.taken:
            self.queue.discard(item)
        split = item.split
        if split is None:
            return item.batch is None or item.batch.withdraw(item)
        is_unstarted = not split.is_started
        for part in split.running:
            part.done = True
            assert part.batch is not None, "a part is cut for a batch that has room"
            part.batch.withdraw(part)
        return is_unstarted

    def _live_items(self) -> list[WorkItem]:
        items = self.queue.items()
        for batch in self.pump.running:
            items += [_whole(item) for item in batch.items if not item.done]
        return items

    # Telling others, who may raise.

    def _tell_run(self, batch: Batch, run: Run) -> None:
        rows = 0
        for item in run.items:
            rows += item.rows
        run_ns = run.finished_ns - run.started_ns
        # A run of no rows tells nothing; one that is not shared takes a whole batch's room.
        if run.fault is None and rows:
            high_ns = batch.cost.learn(rows if self._merges else self._rows_max, run_ns or 1)
            forecast = self.forecast
            if high_ns > forecast.ceiling_ns:
                forecast.ceiling_ns = high_ns
            if self.queue.waiting:
                self.queue.reprice(batch.key)
        try:
            self._observer.ran(rows, len(run.items), run_ns, run.fault is not None)
            if self._padder is not None and run.fault is None:
                self._observer.padded(*self._padder.positions(run.items))
        except Exception:
            logger.exception("an observer raised")

    def _tell(self, verb: Callable[[int], None]) -> None:
        try:
            verb(1)
        except Exception:
            logger.exception("an observer raised")

    def _check_drained(self) -> None:
        if self._on_drained and not self.live:
            self._scheduler.call_soon(self._tell_drained)

    def _tell_drained(self) -> None:
        callbacks, self._on_drained = self._on_drained, []
        for callback in callbacks:
            try:
                callback()
            except Exception:
                logger.exception("the callback of a drain raised")


def _whole(item: WorkItem) -> WorkItem:
    """The caller's request that an item is, or is a part of."""
    return item if item.part_of is None else item.part_of.parent


def _is_started(item: WorkItem) -> bool:
    if item.split is not None:
        return item.split.is_started
    return item.batch is not None and item.batch.has_started(item)

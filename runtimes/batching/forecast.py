"""The forecast: how long what is ahead of a request will take, and whether the request can be in time behind it.

Why: a request that cannot be answered before its deadline is worth more refused on arrival, with the time after which
to try again, than queued, run and answered too late.
How: work is reckoned in nanoseconds of running, kept up to date by the queue and the pump, so that the usual arrival
costs one sum and one comparison. Between two runs an instance also waits for the loop, for Python's lock or for its
rows; that share is measured whenever batches follow each other without a gap.
Promise: a runtime with an instance idle and nothing waiting takes whatever comes. So a table that is wrong, however
wrong, goes on being corrected by the runs of what was taken.
Threads: the loop's only.
Units: *_ns nanoseconds of the monotonic clock or of running; drain seconds are whole, as Retry-After is.
Errors: TooLate.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from runtimes.batching.batch import Batch
from runtimes.batching.item import WorkItem
from runtimes.batching.pump import Pump
from runtimes.batching.queue import Queue
from runtimes.errors import TooLate

# A wait is reckoned a quarter longer than it looks, for what nobody foresees: answers are to be in time, and a queue
# that is never empty loses nothing by being shorter.
_MARGIN = 1.25
_RATE = 1 / 8
# A false alarm lowers what a run is thought to take at most by so much.
_CALM = 15 / 16
_DRAIN_MAX_S = 60


class Forecast:
    """`pace`: how long the instances together take for a nanosecond of work, with a margin.

    `ceiling_ns`: no run takes longer, as far as is known; it makes the first look at an arrival cheap. `is_busy`:
    there was work left when the last batch came home.
    """

    __slots__ = ("_busy_since_ns", "_instances", "_pump", "_queue", "_slack", "ceiling_ns", "is_busy", "pace")

    def __init__(self, queue: Queue[WorkItem], pump: Pump, instances: int) -> None:
        self._queue = queue
        self._pump = pump
        self._instances = instances
        self._slack = 1.0
        self._busy_since_ns = 0
        self.is_busy = False
        self.pace = _MARGIN / instances
        self.ceiling_ns = 0.0

    def check(self, key: Hashable, weight: int, left_ns: int, now_ns: int) -> None:
        """The closer look: whether an item of this weight can be done in the time left. Errors: TooLate."""
        queue, pump = self._queue, self._pump
        if not queue.waiting and len(pump.running) < self._instances:
            return
        wait_ns, run_ns = self._outlook(key, weight, now_ns)
        if wait_ns + run_ns > left_ns:
            raise self._too_late(wait_ns + run_ns, left_ns, now_ns)
        self.ceiling_ns = max(run_ns, self.ceiling_ns * _CALM)

    def check_room(self, left_ns: int, now_ns: int) -> None:
        """The same before the item is known: whether what is ahead alone takes too long. Errors: TooLate."""
        queue, pump = self._queue, self._pump
        if not queue.waiting and len(pump.running) < self._instances:
            return
        wait_ns = (queue.work_ns + pump.ahead_ns(now_ns)) * self.pace
        if wait_ns > left_ns:
            raise self._too_late(wait_ns, left_ns, now_ns)

    def came_home(self, batch: Batch) -> None:
        """Measure what passes beside running, between the ends of two batches with no gap for want of work."""
        runs = batch.runs
        if not runs:
            return
        finished_ns = runs[-1].finished_ns
        if self.is_busy:
            ran_ns = 0
            for run in runs:
                ran_ns += run.finished_ns - run.started_ns
            passed_ns = (finished_ns - self._busy_since_ns) * self._instances
            slack = self._slack
            if ran_ns > 0:
                # As with runs, one that was held up counts for no more than twice what was expected.
                slack += (min(max(passed_ns / ran_ns, 1.0), 2.0 * slack) - slack) * _RATE
                self._slack = slack
                self.pace = _MARGIN * slack / self._instances
        self._busy_since_ns = finished_ns
        self.is_busy = bool(self._queue.waiting or self._pump.running)

    def resized(self, instances: int) -> None:
        """So many instances run from now on."""
        self._instances = instances
        self.pace = _MARGIN * self._slack / instances
        # What passes until the next batch comes home passes with as many as before and as many as now.
        self.is_busy = False

    def drain_s(self, now_ns: int) -> int:
        """Whole seconds until all that is ahead now will be done; at least one."""
        work_ns = self._queue.work_ns + self._pump.ahead_ns(now_ns)
        seconds = math.ceil(work_ns * self._slack / self._instances / 1e9)
        return min(max(seconds, 1), _DRAIN_MAX_S)

    def _outlook(self, key: Hashable, weight: int, now_ns: int) -> tuple[float, float]:
        """How long the item will wait for its run, and how long nearly no such run takes longer.

        It shares its run with what waits of its key and does not fill a batch; that is no wait.
        """
        queue, pump = self._queue, self._pump
        cost, load = queue.cost_and_load(key)
        cap = cost.rows_cap
        work_ns = queue.work_ns + pump.ahead_ns(now_ns)
        growing = pump.growing(key)
        if growing is not None and load + weight <= growing.room:
            high_ns = cost.predict(growing.used + load + weight)[1]
            # It does not join where that would make the first of them late.
            if not 0 < growing.deadline_ns < max(now_ns, growing.starts_ns) + high_ns:
                return max(work_ns - growing.run_ns - load * cost.row_ns, 0.0) * self.pace, high_ns
        shared = load % cap
        rows = min(shared + weight, max(cap, weight))
        return max(work_ns - shared * cost.row_ns, 0.0) * self.pace, cost.predict(rows)[1]

    def _too_late(self, needed_ns: float, left_ns: int, now_ns: int) -> TooLate:
        queue = self._queue
        return TooLate(
            f"the request would be answered in about {math.ceil(needed_ns / 1e6)} ms, behind the {queue.waiting} "
            f"that wait, and its deadline is in {left_ns // 1_000_000} ms; try again later, or allow more time",
            retry_after_s=self.drain_s(now_ns),
        )

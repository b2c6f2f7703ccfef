"""How many rows a new batch should have for its first item's deadline: a decision over a lane and the time.

Units: *_ns monotonic nanoseconds; rows along the batch axis.
Errors: none; items that are too late for their run leave the queue, to `Queue.late`.
Source: a batch is made smaller, or its first item dropped early, for those behind it to be in time (Nexus).
"""

from __future__ import annotations

from runtimes.batching.queue import Lane, Queue, T

# A run may be expected to take so much of the time that is left; the rest is for the answer, and for surprises.
DEADLINE_SHARE = 0.9
# A smaller batch must keep so much of a larger one's pace, in rows a second.
PACE_KEPT = 0.75


def fit(
    queue: Queue[T], lane: Lane[T], starts_ns: int, rows_max: int = 0, pace_kept: float = PACE_KEPT
) -> tuple[int, int]:
    """How many rows a new batch of this lane may have (0: any) that starts then, and when its run will end.

    It has no more than `rows_max` in any case, where that is given. It stays as small as its first item's deadline
    asks, where that keeps so much of the pace; else that item is dropped, and the next is the first. The last that
    waits is never dropped.
    """
    cost = lane.cost
    while True:
        rows = min(lane.load, rows_max or cost.rows_cap)
        run_ns = cost.run_ns(rows)
        first = lane.first()
        left_ns = DEADLINE_SHARE * (first.deadline_ns - starts_ns)
        if run_ns <= left_ns or not first.deadline_ns or lane.waiting == 1:
            return 0, starts_ns + int(run_ns)
        fitting = cost.rows_within(left_ns)
        if fitting >= first.weight:
            fitting_ns = cost.run_ns(fitting)
            if fitting * run_ns >= pace_kept * rows * fitting_ns:
                return fitting, starts_ns + int(fitting_ns)
        queue.drop(lane, first)

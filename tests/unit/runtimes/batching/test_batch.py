"""A batch grows until it is taken, and only what is still wanted is run."""

from __future__ import annotations

import numpy as np

from runtimes.batching.batch import Batch
from runtimes.batching.item import WorkItem
from runtimes.batching.queue import Queue

ROWS_MAX = 4


def item(rows: int = 1, deadline_ns: int = 0, start_by_ns: int = 0) -> WorkItem:
    return WorkItem(
        inputs={"x": np.zeros((rows, 1))},
        rows=rows,
        key="a",
        outputs=None,
        deadline_ns=deadline_ns,
        start_by_ns=start_by_ns,
        reply=lambda _: None,
    )


def queue_of(*items: WorkItem) -> Queue[WorkItem]:
    queue: Queue[WorkItem] = Queue(items_max=10_000, rows_max=ROWS_MAX)
    for one in items:
        queue.put(one)
    return queue


def test_it_grows_until_it_is_taken() -> None:
    a, b, c = item(), item(), item()
    batch, queue = Batch("a", ROWS_MAX), queue_of(a)
    assert batch.fill(queue)
    queue.put(b)
    assert batch.fill(queue)
    assert batch.take(1) == [a, b]
    queue.put(c)
    assert not batch.fill(queue)
    assert queue.oldest() is c


def test_it_never_holds_more_than_its_rows() -> None:
    batch, queue = Batch("a", ROWS_MAX), queue_of(item(3), item(2))
    batch.fill(queue)
    batch.fill(queue)
    assert [one.rows for one in batch.items] == [3]


def test_room_of_those_who_left_is_given_to_others() -> None:
    gone, stays, later = item(2), item(2), item(2)
    batch, queue = Batch("a", ROWS_MAX), queue_of(gone, stays, later)
    batch.fill(queue)
    gone.done = True
    assert batch.withdraw(gone)
    batch.fill(queue)
    assert batch.take(1) == [stays, later]


def test_nobody_is_withdrawn_from_a_batch_that_runs() -> None:
    one = item()
    batch = Batch("a", ROWS_MAX)
    batch.fill(queue_of(one))
    batch.take(1)
    one.done = True
    assert not batch.withdraw(one)


def test_what_came_too_late_is_not_run_and_counts_as_never_started() -> None:
    late, waited, good = item(deadline_ns=10), item(start_by_ns=10), item(deadline_ns=11, start_by_ns=11)
    batch = Batch("a", ROWS_MAX)
    batch.fill(queue_of(late, waited, good))
    assert batch.take(10) == [good]
    assert [batch.has_started(one) for one in (late, waited, good)] == [False, False, True]
    late.done = True
    assert batch.withdraw(late)


def test_those_who_left_a_staged_batch_are_let_go() -> None:
    batch, queue = Batch("a", ROWS_MAX), queue_of()
    for _ in range(1000):
        gone = item()
        queue.put(gone)
        batch.fill(queue)
        gone.done = True
        batch.withdraw(gone)
    assert len(batch.items) < 50

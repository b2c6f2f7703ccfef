"""One suite for every InstancePool: inline, threads, and the virtual one that the other tests rest on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
import pytest

from runtimes.batching.batch import Batch
from runtimes.batching.collate import Collator
from runtimes.batching.item import WorkItem
from runtimes.batching.queue import Queue
from runtimes.clock import Timer
from runtimes.instance import InlinePool, InstancePool, ThreadPool
from runtimes.simulated import Behaviour, SimulatedSession, simulated_signature
from tests.support.virtual import VirtualPool, VirtualScheduler

COLLATOR = Collator(simulated_signature())
BEHAVIOUR = Behaviour(poison=-1.0, hang_on=-2.0)
KINDS = ("inline", "thread", "virtual")


class ThreadScheduler:
    """What threads post, to be run where the test waits for it."""

    def __init__(self) -> None:
        self.posted: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def now_ns(self) -> int:
        return 1

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.posted.put(callback)

    def call_from_thread(self, callback: Callable[[], None]) -> None:
        self.posted.put(callback)

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        raise AssertionError("a pool needs no timers")


class Rig:
    """A pool of one kind with two sessions where it can have them."""

    def __init__(self, kind: str) -> None:
        self.finished: list[Batch] = []
        self.release = threading.Event()
        self.virtual = VirtualScheduler()
        self.threads = ThreadScheduler()
        self.sessions = tuple(SimulatedSession(1, BEHAVIOUR, hang=self._hang) for _ in range(2))
        self.pool = self._pool(kind)

    def more(self, count: int) -> list[SimulatedSession]:
        made = [SimulatedSession(1, BEHAVIOUR, hang=self._hang) for _ in range(count)]
        self.sessions += tuple(made)
        return made

    @property
    def closed(self) -> int:
        return sum(session.is_closed for session in self.sessions)

    def _hang(self) -> None:
        assert self.release.wait(30)

    def _pool(self, kind: str) -> InstancePool:
        if kind == "inline":
            return InlinePool(self.sessions, COLLATOR, self.virtual)
        if kind == "thread":
            return ThreadPool(self.sessions, COLLATOR, self.threads, "test")
        pool = VirtualPool(self.virtual, instances=2)
        pool.sessions = self.sessions
        return pool

    def start(self, batch: Batch) -> None:
        self.pool.start(batch, self.finished.append)

    def wait(self, batches: int) -> None:
        self.virtual.run_out()
        while len(self.finished) < batches:
            self.threads.posted.get(timeout=30)()


def batch_of(*values: float) -> Batch:
    queue: Queue[WorkItem] = Queue(items_max=100, rows_max=100)
    for value in values:
        queue.put(
            WorkItem(
                inputs={"x": np.full((1, 2), value, dtype=np.float32)},
                rows=1,
                key=None,
                outputs=None,
                deadline_ns=0,
                reply=lambda _: None,
            )
        )
    batch = Batch(None, 100)
    batch.fill(queue)
    return batch


@pytest.mark.parametrize("kind", KINDS)
def test_every_started_batch_is_finished_once(kind: str) -> None:
    rig = Rig(kind)
    batches = [batch_of(float(n)) for n in range(rig.pool.capacity)]
    for batch in batches:
        rig.start(batch)
    rig.wait(len(batches))
    assert sorted(map(id, rig.finished)) == sorted(map(id, batches))
    assert all(len(batch.runs) == 1 and batch.runs[0].fault is None for batch in batches)
    assert rig.pool.close(30.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_batch_is_bisected_and_the_instance_lives_on(kind: str) -> None:
    rig = Rig(kind)
    bad, good = batch_of(1.0, -1.0), batch_of(2.0)
    rig.start(bad)
    rig.wait(1)
    rig.start(good)
    rig.wait(2)
    assert [(len(run.items), run.fault is None) for run in bad.runs] == [(2, False), (1, True), (1, False)]
    assert good.runs[0].results is not None
    assert rig.pool.close(30.0)


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_how_much_it_takes(kind: str) -> None:
    rig = Rig(kind)
    assert 1 <= rig.pool.instances <= rig.pool.capacity <= 2 * rig.pool.instances
    assert rig.pool.close(30.0)


@pytest.mark.parametrize("kind", ["inline", "thread"])
def test_close_closes_every_session(kind: str) -> None:
    rig = Rig(kind)
    assert rig.pool.close(30.0)
    assert all(session.is_closed for session in rig.sessions)


def test_a_thread_that_hangs_is_abandoned_and_closes_its_session_when_it_comes_back() -> None:
    rig = Rig("thread")
    rig.start(batch_of(-2.0))
    assert not rig.pool.close(0.0)
    rig.release.set()
    rig.wait(1)
    assert rig.pool.close(30.0)
    assert all(session.is_closed for session in rig.sessions)


@pytest.mark.parametrize("kind", ["thread", "virtual"])
def test_a_pool_that_grows_takes_more_batches_at_once(kind: str) -> None:
    rig = Rig(kind)
    before = rig.pool.capacity
    rig.pool.grow(rig.more(2))
    assert (rig.pool.instances, rig.pool.capacity) == (4, 2 * before)
    batches = [batch_of(float(n)) for n in range(rig.pool.capacity)]
    for batch in batches:
        rig.start(batch)
    rig.wait(len(batches))
    assert sorted(map(id, rig.finished)) == sorted(map(id, batches))
    assert rig.pool.close(30.0)


@pytest.mark.parametrize("kind", ["thread", "virtual"])
def test_what_was_started_before_a_pool_shrinks_is_finished_once_and_who_goes_closes_its_session(kind: str) -> None:
    rig = Rig(kind)
    rig.pool.grow(rig.more(1))
    batches = [batch_of(float(n)) for n in range(rig.pool.capacity)]
    for batch in batches:
        rig.start(batch)
    rig.pool.shrink(2)
    assert (rig.pool.instances, rig.pool.capacity) == (1, 2)
    rig.wait(len(batches))
    last = batch_of(100.0)
    rig.start(last)
    rig.wait(len(batches) + 1)
    assert sorted(map(id, rig.finished)) == sorted(map(id, [*batches, last]))
    assert all(batch.runs[0].fault is None for batch in rig.finished)
    assert rig.pool.close(30.0)
    assert rig.closed == (3 if kind == "thread" else 2)


def test_an_instance_that_goes_closes_its_session_and_leaves_the_others_alone() -> None:
    rig = Rig("thread")
    assert isinstance(rig.pool, ThreadPool)
    threads = list(rig.pool._threads)
    rig.pool.shrink(1)
    while all(thread.is_alive() for thread in threads):
        threads[0].join(0.001)
    assert rig.closed == 1
    # The one that went is not waited for any more.
    rig.pool.grow(rig.more(1))
    assert len(rig.pool._threads) == 2
    assert len({thread.name for thread in [*threads, *rig.pool._threads]}) == 3
    assert rig.pool.close(30.0)
    assert rig.closed == 3


def test_an_instance_that_hangs_does_not_keep_another_from_going_or_coming() -> None:
    rig = Rig("thread")
    rig.start(batch_of(-2.0))
    rig.pool.grow(rig.more(1))
    rig.pool.shrink(1)
    rig.start(batch_of(1.0))
    rig.wait(1)
    assert rig.pool.instances == 2
    rig.release.set()
    rig.wait(2)
    assert rig.pool.close(30.0)
    assert rig.closed == 3


def test_inline_one_session_is_enough() -> None:
    rig = Rig("inline")
    more = rig.more(2)
    rig.pool.grow(more)
    assert (rig.pool.instances, rig.pool.capacity, rig.closed) == (1, 1, 2)
    rig.start(batch_of(1.0))
    assert rig.finished[0].runs[0].fault is None
    rig.pool.shrink(0)
    assert rig.pool.close(30.0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_instance_cannot_be_taken_away(kind: str) -> None:
    rig = Rig(kind)
    instances = rig.pool.instances
    with pytest.raises(ValueError, match=f"{instances} of {instances} instances cannot be taken away"):
        rig.pool.shrink(instances)
    assert rig.pool.instances == instances
    assert rig.pool.close(30.0)

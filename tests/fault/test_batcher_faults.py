"""The bugs that users of other batching servers hit, each with its number in the list of our design notes.

On a virtual clock, except for the last part: real threads on a real loop, with events and never a sleep.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Literal

import numpy as np
import pytest

from runtimes.batching.item import WorkItem
from runtimes.clock import LoopScheduler
from runtimes.errors import DeadlineExceeded, ModelFailed, Overloaded, TooLate, Unavailable
from runtimes.observer import NullObserver
from runtimes.runtime import Runtime
from runtimes.simulated import Behaviour, SimulatedSession, simulated_signature
from runtimes.spec import BatchLimits
from runtimes.tensor import Array
from tests.support.virtual import MS, World

SLOW = Behaviour(run_ns=10 * MS, poison=-1.0, hang_on=-2.0)


def matrix(rows: int, width: int = 2, start: int = 0) -> Array:
    return np.arange(start, start + rows * width, dtype=np.float32).reshape(rows, width)


def test_bug_1_requests_of_different_lengths_need_no_padding_by_the_client() -> None:
    world = World(kind="inline")
    items = [world.send(matrix(1, width)) for width in (2, 5, 2, 3, 5)]
    world.scheduler.run_out()
    assert all(world.is_right(item) for item in items)
    assert world.batch_rows == [2, 2, 1]


def test_bug_5_when_the_client_is_gone_its_work_does_not_go_on() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=1))
    for n in range(2):
        world.send(float(n))
    staged, queued = world.send(50.0), world.send(60.0)
    world.scheduler.settle()
    world.runtime.cancel(staged)
    world.runtime.cancel(queued)
    world.scheduler.run_out()
    assert [x[0, 0] for _, x in world.ran] == [0.0, 1.0]


def test_bug_6_a_request_cancelled_at_any_moment_wedges_nothing() -> None:
    for moment_us in range(0, 25_000, 500):
        world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=2))
        gone, batchmate, *others = [world.send(float(n)) for n in range(6)]
        world.scheduler.advance(moment_us * 1000)
        world.runtime.cancel(gone)
        world.scheduler.run_out()
        assert all(world.is_right(item) for item in [batchmate, *others])
        assert world.replied(gone) == (1 if moment_us >= 10_000 else 0)


def test_bug_7_a_deadline_acts_when_promised_while_every_instance_hangs() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=1))
    world.send(-2.0)
    world.scheduler.settle()
    late = [world.send(float(n), within_ns=(5 + n) * MS) for n in range(4)]
    world.scheduler.run_out()
    answered = [(when, item) for when, item in world.replies if item in late]
    assert answered == [(item.deadline_ns, item) for item in late]
    assert all(world.fault(item) is DeadlineExceeded for item in late)


def test_bug_7_throughput_does_not_decay_when_deadlines_are_set() -> None:
    world = World(behaviour=Behaviour(run_ns=1 * MS), limits=BatchLimits(batch_rows_max=8))
    refused = 0
    for _ in range(2000):
        for n in range(8):
            # Every fourth cannot be in time, which is what makes the counters of others drift.
            try:
                world.send(float(n), within_ns=(1 if n % 4 == 0 else 100) * MS)
            except TooLate:
                refused += 1
        world.scheduler.advance(1 * MS)
    world.scheduler.run_out()
    assert world.runtime.status().succeeded + world.runtime.status().expired + refused == 16_000
    assert world.runtime.status().succeeded >= 12_000
    assert world.pool.most_outstanding <= 2
    assert world.pool.outstanding == 0


def test_bug_8_overload_is_refused_at_once_and_the_accepted_are_served() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=1, queue_items_max=10))
    accepted = []
    refused = 0
    for n in range(1000):
        try:
            accepted.append(world.send(float(n)))
        except Overloaded:
            refused += 1
    assert len(accepted) == 10
    assert refused == 990
    world.scheduler.run_out()
    assert all(world.is_right(item) for item in accepted)


def test_bug_9_a_batch_is_limited_in_rows_and_not_in_requests() -> None:
    world = World(kind="inline", limits=BatchLimits(batch_rows_max=16))
    for _ in range(20):
        world.send(matrix(5))
    world.send(matrix(100))
    world.scheduler.run_out()
    assert max(world.batch_rows) <= 16
    assert sum(world.batch_rows) == 200


def test_bug_10_a_response_that_cannot_be_split_is_never_split_wrongly() -> None:
    world = World(behaviour=Behaviour(loses_rows=True))
    items = [world.send(matrix(1, start=10 * n)) for n in range(5)]
    world.scheduler.run_out()
    assert all(world.is_right(item) for item in items)


def test_bug_12_gauges_return_to_zero_whatever_callers_do() -> None:
    world = World(behaviour=SLOW, instances=2, limits=BatchLimits(batch_rows_max=2))
    items = [world.send(matrix(1 + n % 5), within_ns=(n % 7) * 9 * MS) for n in range(40)]
    for n, item in enumerate(items):
        if n % 3 == 0:
            world.runtime.cancel(item)
            world.scheduler.advance(2 * MS)
    world.scheduler.run_out()
    status = world.runtime.status()
    assert (status.queued_items, status.queued_rows, status.in_flight_items, status.busy) == (0, 0, 0, 0)
    assert status.accepted == status.succeeded + status.failed + status.expired + status.cancelled == 40


# Real threads on a real loop.


class Real:
    """A runtime with threads on the running loop; a session hangs until `release` is set."""

    def __init__(
        self,
        *,
        instances: int = 1,
        behaviour: Behaviour = SLOW,
        limits: BatchLimits | None = None,
        dispatch: Literal["inline", "thread"] = "thread",
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.release = threading.Event()
        self.hanging = threading.Semaphore(0)
        self.sessions = tuple(SimulatedSession(3, behaviour, hang=self._hang) for _ in range(instances))
        self.runtime = Runtime(
            name="green",
            sessions=self.sessions,
            signature=simulated_signature(),
            limits=limits or BatchLimits(batch_rows_max=4),
            dispatch=dispatch,
            scheduler=LoopScheduler(self.loop),
            observer=NullObserver(),
        )

    def _hang(self) -> None:
        self.hanging.release()
        assert self.release.wait(30)

    async def until_hanging(self) -> None:
        assert await asyncio.to_thread(self.hanging.acquire, timeout=30)

    def send(self, x: Array, *, within_ns: int = 0) -> tuple[WorkItem, asyncio.Future[WorkItem]]:
        future: asyncio.Future[WorkItem] = self.loop.create_future()
        now_ns = LoopScheduler(self.loop).now_ns()
        item = WorkItem(
            inputs={"x": x},
            rows=len(x),
            key=x.shape[1:],
            outputs=None,
            deadline_ns=now_ns + within_ns if within_ns else 0,
            reply=future.set_result,
        )
        self.runtime.submit(item)
        return item, future

    def is_right(self, item: WorkItem) -> bool:
        assert item.results is not None
        return bool(np.array_equal(item.results["y"], self.sessions[0].answer(item.inputs["x"])))

    async def drained(self) -> None:
        done = asyncio.Event()
        self.runtime.drain(done.set)
        await asyncio.wait_for(done.wait(), 30)


HANG = np.full((1, 2), -2.0, dtype=np.float32)
POISON = np.full((1, 2), -1.0, dtype=np.float32)


def on_a_loop(story: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a coroutine function to its end, and no longer than half a minute."""

    async def bounded() -> None:
        await asyncio.wait_for(story(), 30)

    asyncio.run(bounded())


@pytest.mark.parametrize("instances", [1, 3])
def test_on_threads_every_request_gets_its_own_rows(instances: int) -> None:
    async def story() -> None:
        real = Real(instances=instances)
        sent = []
        for n in range(300):
            sent.append(real.send(matrix(1 + n % 6, 2 + n % 2, start=n)))
            if n % 10 == 0:
                sent.append(real.send(POISON))
                await asyncio.sleep(0)
        for item, future in sent:
            assert await future is item
            if item.inputs["x"] is POISON:
                assert isinstance(item.fault, ModelFailed)
            else:
                assert real.is_right(item)
        await real.drained()
        assert real.runtime.close(timeout_s=30)
        assert all(session.is_closed for session in real.sessions)

    on_a_loop(story)


def test_on_a_thread_that_hangs_deadlines_are_kept_and_close_does_not_wait() -> None:
    async def story() -> None:
        real = Real()
        _, hung = real.send(HANG, within_ns=50 * MS)
        await real.until_hanging()
        _, waiting = real.send(matrix(1), within_ns=50 * MS)
        forever, left = real.send(matrix(1))
        for future in (hung, waiting):
            assert isinstance((await future).fault, DeadlineExceeded)
        assert not left.done()
        assert real.runtime.status().longest_run_ns > 0
        assert real.runtime.close() is False
        assert isinstance((await left).fault, Unavailable)
        closed = [real.sessions[0].is_closed]
        real.release.set()
        assert real.runtime.close(timeout_s=30)
        closed.append(real.sessions[0].is_closed)
        assert closed == [False, True]
        assert forever.results is None

    on_a_loop(story)


def test_while_one_thread_hangs_the_other_serves() -> None:
    async def story() -> None:
        real = Real(instances=2)
        _, hung = real.send(HANG)
        await real.until_hanging()
        sent = [real.send(matrix(3, start=n)) for n in range(50)]
        for item, future in sent:
            await future
            assert real.is_right(item)
        assert not hung.done()
        real.release.set()
        await hung
        await real.drained()
        assert real.runtime.close(timeout_s=30)

    on_a_loop(story)


def test_a_staged_batch_grows_while_the_thread_is_busy_and_cancelled_items_never_run() -> None:
    async def story() -> None:
        real = Real()
        _, hung = real.send(HANG)
        await real.until_hanging()
        gone, never = real.send(matrix(1))
        await asyncio.sleep(0)
        sent = [real.send(matrix(1, start=n)) for n in range(4)]
        real.runtime.cancel(gone)
        await asyncio.sleep(0)
        assert real.runtime.status().queued_items == 0
        real.release.set()
        await hung
        for item, future in sent:
            await future
            assert real.is_right(item)
        assert not never.done()
        assert real.runtime.status().batches == 2
        assert real.runtime.close(timeout_s=30)

    on_a_loop(story)


def test_a_batch_that_ends_after_the_loop_has_closed_troubles_nobody() -> None:
    kept: list[Real] = []

    async def story() -> None:
        real = Real()
        kept.append(real)
        real.send(HANG)
        await real.until_hanging()

    on_a_loop(story)
    kept[0].release.set()
    assert kept[0].runtime._pool.close(30)
    assert kept[0].sessions[0].is_closed


def test_inline_on_a_real_loop_gives_the_same_answers() -> None:
    async def story() -> None:
        real = Real(dispatch="inline")
        sent = [real.send(matrix(1 + n % 6, start=n), within_ns=10_000 * MS) for n in range(100)]
        for item, future in sent:
            await future
            assert real.is_right(item)
        assert real.runtime.close()

    on_a_loop(story)

"""A loop that reads from thousands of sockets in one tick still feeds its instances, and hands their answers back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from runtimes.batching.batch import Batch
from runtimes.batching.collate import Collator
from runtimes.batching.item import WorkItem
from runtimes.instance import Finished, execute
from runtimes.observer import NullObserver
from runtimes.runtime import Runtime
from runtimes.session import Session
from runtimes.simulated import SimulatedSession
from runtimes.spec import BatchLimits
from tests.support.virtual import MS, VirtualScheduler, World


class BusyLoopPool:
    """One instance, whose finished batches the loop is told of in its next tick: which never comes by itself."""

    instances = 1
    capacity = 2

    def __init__(self, session: SimulatedSession, scheduler: VirtualScheduler) -> None:
        self.session = session
        self.waiting: list[tuple[Batch, Finished]] = []
        self.told: list[Callable[[], None]] = []
        self._collator = Collator(session.signature)
        self._scheduler = scheduler

    def start(self, batch: Batch, finished: Finished) -> None:
        self.waiting.append((batch, finished))

    def run(self) -> None:
        """The instance takes the next batch and is through with it."""
        batch, finished = self.waiting.pop(0)
        execute(self.session, self._collator, batch, self._scheduler.now_ns)
        batch.is_finished = True
        self.told.append(lambda: finished(batch))

    def grow(self, sessions: Sequence[Session]) -> None:
        raise AssertionError("it keeps its one instance")

    def shrink(self, count: int) -> None:
        raise AssertionError("it keeps its one instance")

    def close(self, timeout_s: float) -> bool:
        return True


class Story:
    def __init__(self) -> None:
        self.scheduler = VirtualScheduler()
        session = SimulatedSession(1)
        self.pool = BusyLoopPool(session, self.scheduler)
        self.answered: list[int] = []
        self.runtime = Runtime(
            name="story",
            sessions=(session,),
            signature=session.signature,
            limits=BatchLimits(batch_rows_max=2),
            dispatch="thread",
            scheduler=self.scheduler,
            observer=NullObserver(),
            pool=self.pool,
        )

    def send(self, number: int) -> None:
        inputs = {"x": np.full((1, 2), number, np.float32)}
        self.runtime.submit(
            WorkItem(
                inputs=inputs,
                rows=1,
                key=self.runtime.signature.key(inputs, None),
                outputs=None,
                deadline_ns=self.scheduler.now_ns() + 500 * MS,
                reply=lambda _: self.answered.append(number),
            )
        )

    def arrive(self) -> None:
        """A request comes whose body is not there yet."""
        now_ns = self.scheduler.now_ns()
        self.runtime.check_room(now_ns + 500 * MS, now_ns)


def test_an_arrival_in_a_long_tick_feeds_the_instance_and_hands_back_what_it_did() -> None:
    story = Story()
    for number in range(8):
        story.send(number)
    story.scheduler.settle()
    assert len(story.pool.waiting) == 2
    story.pool.run()
    # Within the same millisecond an arrival looks at nothing.
    story.arrive()
    assert (story.answered, len(story.pool.waiting)) == ([], 1)
    story.scheduler.spend(2 * MS)
    story.arrive()
    assert (story.answered, len(story.pool.waiting)) == ([0, 1], 2)
    # The loop comes to it at last, and finds it done.
    for tell in story.pool.told:
        tell()
    assert story.answered == [0, 1]
    while story.pool.waiting:
        story.pool.run()
        story.pool.told.pop()()
        story.scheduler.settle()
    assert story.answered == list(range(8))


def test_an_idle_runtime_waits_for_its_tick_so_that_requests_share_a_run() -> None:
    story = Story()
    story.scheduler.spend(50 * MS)
    for number in range(2):
        story.arrive()
        story.send(number)
    assert story.pool.waiting == []
    story.scheduler.settle()
    assert [len(batch.items) for batch, _ in story.pool.waiting] == [2]


def test_an_inline_model_runs_full_batches_within_a_long_tick() -> None:
    world = World(kind="inline", limits=BatchLimits(batch_rows_max=2))
    world.scheduler.settle()
    for number in range(5):
        world.send(float(number))
    world.scheduler.spend(2 * MS)
    now_ns = world.scheduler.now_ns()
    world.runtime.check_room(now_ns + 500 * MS, now_ns)
    assert len(world.replies) == 5
    # What the loop's own turn finds afterwards is nothing.
    world.scheduler.run_out()
    assert len(world.replies) == 5

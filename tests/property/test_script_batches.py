"""Batches for run_batch(), whatever callers, deadlines and workers do: none is lost, doubled, swapped or run in vain.

The workers are played as real ones behave: each takes one frame at a time, answers its requests one by one, tells
some that they are too late, drops an answer that its scorer does not read, or dies at any moment, also before it has
said what it took.
"""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtimes.errors import Overloaded
from runtimes.script.client import LOST_AFTER_NS, RECYCLE_AFTER_NS
from runtimes.script.request import ScriptRequest
from runtimes.script.worker_lib.igw_worker import wire
from runtimes.script.worker_lib.igw_worker.parcel import Part, unpack
from runtimes.spec import BatchLimits
from tests.support.script_room import Room
from tests.support.virtual import MS

ROWS_MAX = 4
DELAY_MS = 5
WORKERS = 2
LONGEST_MS = 1000


class Played:
    """A worker: what it has, and how much of it is answered."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.frame: wire.Frame | None = None
        self.parts: list[Part] = []
        # Whether each request in it has a deadline, as all of a gateway have.
        self.is_bounded = False


class World:
    def __init__(self, limits: BatchLimits) -> None:
        self.room = Room(workers=WORKERS, batching=limits, queue_items_max=12)
        self.requests: list[ScriptRequest] = []
        self.gone_before: set[bytes] = set()
        self.workers = [Played(number) for number in range(WORKERS)]
        self.next_worker = WORKERS
        self.run: list[bytes] = []
        # What a worker took with it and had not announced.
        self.swallowed: set[bytes] = set()
        # Whose answer was dropped.
        self.unheard: set[bytes] = set()

    def send(self, method: str, within_ms: int) -> None:
        request = self.room.request(within_ms, body=b"%d" % len(self.requests), method=method)
        try:
            self.room.client.submit(request)
        except Overloaded:
            return
        self.requests.append(request)

    def cancel(self, which: int) -> None:
        if self.requests:
            request = self.requests[which % len(self.requests)]
            if not (request.done or request.is_sent):
                self.gone_before.add(request.body)
            self.room.client.cancel(request)

    def advance(self, ms: int) -> None:
        waiting = [one for one in self.requests if not (one.done or one.is_sent)]
        self.room.scheduler.advance(ms * MS)
        self.gone_before |= {one.body for one in waiting if one.done and not one.is_sent}

    def take(self, which: int) -> None:
        worker = self.workers[which % WORKERS]
        if worker.frame is not None:
            return
        frame = worker.frame = self.room.receive()
        if frame is None:
            return
        now_ns = self.room.scheduler.now_ns()
        if frame.kind == wire.REQUEST:
            worker.parts = [Part(frame.request_id, frame.deadline_ns, frame.head, frame.body)]
        else:
            worker.parts = unpack(frame.body)
            assert 1 <= len(worker.parts) <= ROWS_MAX
        worker.is_bounded = all(part.deadline_ns for part in worker.parts)
        for part in [one for one in worker.parts if 0 < one.due_ns <= now_ns]:
            worker.parts.remove(part)
            self.room.say(wire.EXPIRED, part.request_id, worker.number)
        if not worker.parts:
            worker.frame = None
            return
        self.run += [bytes(part.body) for part in worker.parts]
        self.room.say(wire.TAKEN, frame.request_id, worker.number)
        if frame.kind == wire.PARCEL:
            self.room.ran(frame.request_id, len(worker.parts))

    def answer(self, which: int, is_late: bool = False) -> None:
        """The next of what a worker has; or it is too late for it, as in a failed batch that is run one by one."""
        worker = self.workers[which % WORKERS]
        if not worker.parts:
            return
        part = worker.parts.pop(0)
        if is_late:
            self.room.say(wire.EXPIRED, part.request_id, worker.number)
        else:
            head = {"status": 200, "headers": [], "failed": False, "ms": 2.0}
            wire.send(
                self.room.replies,
                wire.ANSWER,
                request_id=part.request_id,
                worker=worker.number,
                head=head,
                body=bytes(part.body),
            )
            self.room.client.read()
        if not worker.parts:
            worker.frame = None

    def drop(self, which: int) -> None:
        """The next answer of a worker is lost."""
        worker = self.workers[which % WORKERS]
        if worker.parts and worker.is_bounded:
            self.unheard.add(bytes(worker.parts.pop(0).body))
            if not worker.parts:
                worker.frame = None

    def die(self, which: int, in_silence: bool) -> None:
        """A worker ends, perhaps before it could say what it took; another one takes its place."""
        worker = self.workers[which % WORKERS]
        if in_silence and worker.frame is None and (frame := self.room.receive()) is not None:
            bodies = [part.body for part in unpack(frame.body)] if frame.kind == wire.PARCEL else [frame.body]
            self.swallowed |= {bytes(body) for body in bodies}
        self.room.client.worker_gone(worker.number)
        self.workers[which % WORKERS] = Played(self.next_worker)
        self.next_worker += 1

    def finish(self) -> None:
        """Workers that live go on until nothing is left. What is lost holds up nothing, and is told soon after; whose
        answer is lost holds back others until his deadline."""
        self.work_on()
        if self.unheard:
            self.advance(LONGEST_MS + RECYCLE_AFTER_NS // MS)
            self.work_on()
        probe = self.room.send(200, body=b"probe")
        self.work_on()
        assert probe.answer is not None
        assert all(one.done or one.body in self.swallowed | self.unheard for one in self.requests)
        assert 40 * DELAY_MS * MS < LOST_AFTER_NS
        self.advance(3 * LOST_AFTER_NS // MS)

    def work_on(self) -> None:
        for _ in range(20):
            self.room.scheduler.settle()
            for which in range(WORKERS):
                self.take(which)
                while self.workers[which].parts:
                    self.answer(which)
            self.advance(DELAY_MS)

    def check(self) -> None:
        self.room.check_account()
        for request in self.room.replied:
            if request.answer is not None:
                assert bytes(request.answer.body) == request.body
            assert (request.answer is None) == (request.fault is not None)
        assert len(self.run) == len(set(self.run))
        assert not self.gone_before & set(self.run)


STEPS = st.one_of(
    st.tuples(
        st.just("send"), st.sampled_from(["POST", "POST", "POST", "GET"]), st.sampled_from([0, 3, 20, LONGEST_MS])
    ),
    st.tuples(st.just("cancel"), st.integers(0, 40)),
    st.tuples(st.just("advance"), st.integers(0, 12)),
    st.tuples(st.just("take"), st.integers(0, 1)),
    st.tuples(st.just("answer"), st.integers(0, 1), st.sampled_from([False, False, False, True])),
    st.tuples(st.just("drop"), st.integers(0, 1)),
    st.tuples(st.just("die"), st.integers(0, 1), st.booleans()),
)
LIMITS = st.builds(
    BatchLimits,
    batch_rows_max=st.integers(1, ROWS_MAX),
    queue_delay_ns=st.sampled_from([0, 0, DELAY_MS * MS]),
    slo_ns=st.sampled_from([0, 10 * MS]),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(limits=LIMITS, steps=st.lists(STEPS, max_size=80))
@example(
    limits=BatchLimits(batch_rows_max=ROWS_MAX),
    steps=[("send", "POST", 20), ("take", 0), ("send", "POST", 20), ("take", 1), ("drop", 0), ("drop", 1)],
)
def test_nothing_is_lost_doubled_swapped_or_run_in_vain(limits: BatchLimits, steps: list[tuple[Any, ...]]) -> None:
    world = World(limits)
    try:
        for name, *how in steps:
            getattr(world, name)(*how)
            world.room.scheduler.settle()
            world.check()
        world.finish()
        world.check()
        status = world.room.client.status()
        assert (status.queued_items, status.in_flight_items, status.busy) == (0, 0, 0)
        assert all(one.done for one in world.requests)
        assert world.room.client._out.untaken == len(world.room.client._out) == 0
    finally:
        world.room.close()

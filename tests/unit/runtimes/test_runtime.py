"""A runtime's front door: submit, cancel, drain, close and what it says of itself."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.batching.item import WorkItem
from runtimes.errors import TooLate, Unavailable
from runtimes.observer import NullObserver
from runtimes.runtime import Runtime
from runtimes.simulated import Behaviour, simulated_signature
from runtimes.spec import BatchLimits
from tests.support.virtual import MS, RecordingObserver, VirtualScheduler, World

SLOW = Behaviour(run_ns=10 * MS, hang_on=-2.0)


def test_its_repr_tells_the_operators_truth() -> None:
    world = World(behaviour=SLOW, instances=2, limits=BatchLimits(batch_rows_max=1))
    for n in range(9):
        world.send(float(n))
    world.scheduler.settle()
    assert repr(world.runtime) == "<Runtime blue ready 2/2 busy, 5 queued>"
    world.runtime.drain(lambda: None)
    assert repr(world.runtime) == "<Runtime blue draining 2/2 busy, 5 queued>"


def test_its_status_adds_up() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=2))
    for n in range(5):
        world.send(float(n))
    world.scheduler.advance(3 * MS)
    status = world.runtime.status()
    assert (status.name, status.state, status.reason) == ("blue", "ready", "loaded and warm")
    assert (status.queued_items, status.queued_rows, status.in_flight_items) == (1, 1, 4)
    assert (status.busy, status.instances, status.batches) == (1, 1, 2)
    assert status.longest_run_ns == 3 * MS
    world.scheduler.run_out()
    assert world.runtime.status().succeeded == 5
    assert world.runtime.status().longest_run_ns == 0


def test_a_drain_refuses_the_new_and_finishes_the_old() -> None:
    world = World(behaviour=SLOW)
    old = world.send(1.0)
    drained: list[int] = []
    world.runtime.drain(lambda: drained.append(1))
    with pytest.raises(Unavailable, match="deployment 'blue' is draining"):
        world.send(2.0)
    world.scheduler.advance(9 * MS)
    assert drained == []
    world.scheduler.run_out()
    assert drained == [1]
    assert world.is_right(old)


def test_a_drain_of_an_idle_runtime_calls_back_later_and_never_at_once() -> None:
    world = World()
    drained: list[int] = []
    world.runtime.drain(lambda: drained.append(1))
    assert drained == []
    world.scheduler.settle()
    assert drained == [1]


def test_a_drain_may_be_asked_for_twice_and_after_close() -> None:
    world = World(behaviour=SLOW)
    world.send()
    drained: list[str] = []
    world.runtime.drain(lambda: drained.append("first"))
    world.runtime.drain(lambda: drained.append("second"))
    world.scheduler.run_out()
    assert drained == ["first", "second"]
    world.runtime.close()
    world.runtime.drain(lambda: drained.append("closed"))
    world.scheduler.settle()
    assert drained[-1] == "closed"


def test_a_drain_ends_when_the_last_caller_hangs_up() -> None:
    world = World(behaviour=SLOW)
    item = world.send()
    drained: list[int] = []
    world.runtime.drain(lambda: drained.append(1))
    world.scheduler.advance(1 * MS)
    world.runtime.cancel(item)
    world.scheduler.settle()
    assert drained == [1]


def test_a_drain_whose_callback_raises_still_tells_the_others(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    drained: list[int] = []

    def rude() -> None:
        raise RuntimeError("no")

    world.runtime.drain(rude)
    world.runtime.drain(lambda: drained.append(1))
    world.scheduler.settle()
    assert drained == [1]
    assert "the callback of a drain raised" in caplog.text


def test_close_answers_what_is_left_wherever_it_is() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=2, queue_delay_ns=0))
    items = [world.send(float(n), within_ns=500 * MS) for n in range(9)]
    world.scheduler.advance(1 * MS)
    assert world.runtime.close()
    assert [world.fault(item) for item in items] == [Unavailable] * 9
    assert [world.replied(item) for item in items] == [1] * 9
    world.scheduler.run_out()
    assert len(world.replies) == 9
    status = world.runtime.status()
    assert (status.closed, status.queued_items, status.queued_rows, status.in_flight_items) == (9, 0, 0, 0)
    with pytest.raises(Unavailable, match="deployment 'blue' is closed"):
        world.send()


def test_close_answers_a_large_request_once() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=2))
    large = world.send(np.ones((9, 2), dtype=np.float32))
    world.scheduler.advance(1 * MS)
    world.runtime.close()
    world.scheduler.run_out()
    assert world.replied(large) == 1
    assert world.runtime.status().closed == 1


def test_close_forgets_its_timers() -> None:
    world = World(limits=BatchLimits(queue_delay_ns=50 * MS))
    world.send(1.0, within_ns=500 * MS)
    world.scheduler.settle()
    world.runtime.close()
    assert world.scheduler.armed == 0


def test_close_says_whether_all_instances_ended() -> None:
    world = World(behaviour=SLOW)
    world.send(-2.0)
    world.scheduler.run_out()
    assert world.runtime.close() is False


def test_close_may_come_from_a_reply() -> None:
    world = World(kind="inline", limits=BatchLimits(batch_rows_max=1))

    def close(_: WorkItem) -> None:
        world.runtime.close()

    world.submit(world.item(1.0, reply=close))
    other = world.send(2.0)
    world.scheduler.run_out()
    assert world.fault(other) is Unavailable
    assert all(session.is_closed for session in world.sessions)


def test_closing_twice_is_harmless() -> None:
    world = World()
    assert world.runtime.close()
    assert world.runtime.close()


def test_a_runtime_without_a_session_is_refused() -> None:
    with pytest.raises(ValueError, match="takes at least one"):
        Runtime(
            name="blue",
            sessions=(),
            signature=simulated_signature(),
            limits=BatchLimits(),
            dispatch="inline",
            scheduler=VirtualScheduler(),
            observer=NullObserver(),
        )


def test_it_says_whether_it_batches() -> None:
    assert World().runtime.batched
    assert not World(batched=False).runtime.batched


def test_what_waits_begins_at_once_when_a_runtime_grows() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=1))
    items = [world.send(float(n)) for n in range(8)]
    world.scheduler.settle()
    assert world.runtime.status().queued_items == 6
    world.resize(4)
    world.scheduler.settle()
    status = world.runtime.status()
    assert (status.instances, status.busy, status.queued_items, status.waiting_runs) == (4, 4, 0, 4)
    world.scheduler.advance(20 * MS)
    assert all(world.is_right(item) for item in items)


def test_a_runtime_that_shrinks_loses_nothing_and_predicts_with_what_is_left() -> None:
    world = World(behaviour=SLOW, instances=4, limits=BatchLimits(batch_rows_max=1), run_times={1: 10 * MS})
    items = [world.send(float(n)) for n in range(12)]
    world.scheduler.settle()
    world.resize(1)
    # One instance needs 120 ms for what four do in 30.
    with pytest.raises(TooLate, match="behind the"):
        world.send(99.0, within_ns=60 * MS)
    world.scheduler.run_out()
    assert all(world.is_right(item) for item in items)
    assert [session.is_closed for session in world.sessions].count(True) == 3
    assert world.runtime.status().instances == 1


def test_a_closed_runtime_takes_no_sessions() -> None:
    world = World()
    world.runtime.close()
    session = world.session()
    with pytest.raises(ValueError, match="takes no new requests, and no sessions"):
        world.runtime.grow([session])
    assert not session.is_closed


def test_waiting_requests_count_as_the_runs_they_make() -> None:
    shared = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=8))
    alone = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=8), batched=False)
    for world, expected in ((shared, [1, 2, 3]), (alone, [7, 15, 23])):
        seen = []
        # One runs from the first moment on.
        world.send()
        world.scheduler.settle()
        for count in (7, 8, 8):
            for n in range(count):
                world.send(float(n))
            world.scheduler.settle()
            seen.append(world.runtime.status().waiting_runs)
        assert seen == expected


def test_requests_without_rows_still_need_a_run() -> None:
    world = World(behaviour=SLOW)
    for _ in range(3):
        world.send(np.zeros((0, 2), np.float32))
    assert world.runtime.status().waiting_runs == 1
    world.scheduler.run_out()
    assert world.runtime.status().waiting_runs == 0


def test_another_observer_hears_of_what_happens_from_then_on() -> None:
    first, second = RecordingObserver(), RecordingObserver()
    world = World(observer=first)
    world.send()
    world.scheduler.run_out()
    world.runtime.observe(second)
    world.send()
    world.scheduler.run_out()
    assert (len(first.runs), len(second.runs)) == (1, 1)

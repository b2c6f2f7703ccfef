"""Who is refused on arrival, who is dropped early, and what is told them; on a virtual clock."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.errors import Overloaded, TooLate
from runtimes.simulated import Behaviour
from runtimes.spec import BatchLimits
from tests.support.virtual import MS, World

RUN = Behaviour(run_ns=100 * MS)
ONE_BY_ONE = BatchLimits(batch_rows_max=1)


def world_of(*, instances: int = 1, kind: str = "virtual", limits: BatchLimits = ONE_BY_ONE) -> World:
    sizes = [1 << power for power in range(limits.batch_rows_max.bit_length())]
    times = dict.fromkeys(sizes, 100 * MS)
    return World(kind=kind, instances=instances, behaviour=RUN, limits=limits, run_times=times)


def busy_world(waiting: int, *, instances: int = 1, limits: BatchLimits = ONE_BY_ONE) -> World:
    """Every instance has begun a run, and `waiting` requests are behind, in staged batches or in the queue."""
    world = world_of(instances=instances, limits=limits)
    for _ in range(instances):
        world.send()
    world.scheduler.settle()
    for _ in range(waiting):
        world.send()
    world.scheduler.settle()
    return world


def test_what_cannot_be_in_time_is_refused_with_the_time_that_the_backlog_takes() -> None:
    world = busy_world(waiting=24)
    with pytest.raises(TooLate) as caught:
        world.send(within_ns=2_000 * MS)
    assert str(caught.value) == (
        "the request would be answered in about 3263 ms, behind the 23 that wait, and its deadline is in 2000 ms; "
        "try again later, or allow more time"
    )
    assert caught.value.retry_after_s == 3
    assert world.runtime.status().refused == 1


def test_what_can_be_in_time_is_accepted_and_is() -> None:
    world = busy_world(waiting=4)
    item = world.send(within_ns=800 * MS)
    world.scheduler.run_out()
    assert world.is_right(item)


def test_nobody_is_refused_while_an_instance_is_idle() -> None:
    world = world_of(instances=2)
    world.send()
    world.scheduler.settle()
    hopeless = world.send(within_ns=50 * MS)
    world.scheduler.run_out()
    assert hopeless.fault is not None
    assert not isinstance(hopeless.fault, TooLate)
    assert world.ran[-1][1] is hopeless.inputs["x"]


def test_two_instances_take_half_the_time() -> None:
    for instances, is_refused in ((1, True), (2, False)):
        world = busy_world(waiting=6, instances=instances)
        if is_refused:
            with pytest.raises(TooLate):
                world.send(within_ns=700 * MS)
        else:
            world.send(within_ns=700 * MS)


def test_a_request_that_shares_the_next_batch_does_not_wait_for_it() -> None:
    world = busy_world(waiting=10, limits=BatchLimits(batch_rows_max=64))
    item = world.send(within_ns=290 * MS)
    world.scheduler.run_out()
    assert world.is_right(item)
    assert world.batch_rows == [1, 11]


def test_before_its_inputs_are_known_a_request_is_refused_for_what_is_ahead_alone() -> None:
    world = busy_world(waiting=24)
    now_ns = world.scheduler.now_ns()
    world.runtime.check_room(now_ns + 4_000 * MS, now_ns)
    with pytest.raises(TooLate, match="would be answered in about 3125 ms"):
        world.runtime.check_room(now_ns + 2_000 * MS, now_ns)
    assert world.runtime.status().refused == 1


def test_before_its_inputs_are_known_nobody_is_refused_by_an_idle_runtime() -> None:
    world = world_of()
    now_ns = world.scheduler.now_ns()
    world.runtime.check_room(now_ns + 1, now_ns)
    world.send()
    world.scheduler.settle()
    # What is left of the run is less than what it takes from its beginning.
    world.scheduler.advance(90 * MS)
    now_ns = world.scheduler.now_ns()
    world.runtime.check_room(now_ns + 60 * MS, now_ns)
    with pytest.raises(TooLate):
        world.runtime.check_room(now_ns + 10 * MS, now_ns)


def test_a_full_queue_says_when_it_will_have_drained() -> None:
    world = busy_world(waiting=29, limits=BatchLimits(batch_rows_max=1, queue_items_max=29))
    world.send()
    with pytest.raises(Overloaded) as caught:
        world.send()
    assert not isinstance(caught.value, TooLate)
    assert caught.value.retry_after_s == 4


def test_retry_after_is_bounded() -> None:
    world = busy_world(waiting=2000)
    with pytest.raises(TooLate) as caught:
        world.send(within_ns=1_000 * MS)
    assert caught.value.retry_after_s == 60


def test_who_would_be_late_is_dropped_at_once_for_those_behind() -> None:
    world = world_of(limits=BatchLimits(batch_rows_max=2))
    patient = [world.send()]
    world.scheduler.settle()
    patient += [world.send() for _ in range(4)]
    hasty = world.send(within_ns=600 * MS)
    patient += [world.send(within_ns=9_000 * MS) for _ in range(2)]
    world.scheduler.settle()
    # The staged batch takes longer than any run before.
    world.sessions[0]._behaviour = Behaviour(run_ns=290 * MS)
    world.scheduler.run_out()
    assert all(world.is_right(item) for item in patient)
    assert isinstance(hasty.fault, TooLate)
    assert str(hasty.fault).endswith("so it was not run; try again later, or allow more time")
    assert hasty.finished_ns == world.ran[2][0]
    assert world.observer.expired_items == 1


def test_time_beside_runs_is_counted_into_waits() -> None:
    slack = Behaviour(run_ns=10 * MS)
    world = World(kind="inline", behaviour=slack, limits=ONE_BY_ONE, run_times={1: 10 * MS})
    spend, scheduler = world.scheduler.spend, world.scheduler

    def busy_loop() -> None:
        spend(10 * MS)
        if world.runtime.status().queued_items:
            scheduler.call_soon(busy_loop)

    for _ in range(60):
        world.send()
    scheduler.call_soon(busy_loop)
    for _ in range(40):
        scheduler.tick()
    pace = world.runtime._batcher.forecast.pace
    assert 1.25 * 1.9 <= pace <= 1.25 * 2.05


def test_a_request_partly_run_hears_that_its_rest_was_not() -> None:
    world = world_of()
    large = world.submit(world.item(np.ones((8, 2), dtype=np.float32), within_ns=2_000 * MS))
    world.scheduler.settle()
    world.sessions[0]._behaviour = Behaviour(run_ns=600 * MS)
    behind = world.send()
    world.scheduler.run_out()
    assert isinstance(large.fault, TooLate)
    assert "so the rest of it was not run" in str(large.fault)
    assert world.is_right(behind)

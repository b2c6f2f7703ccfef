"""More load than there is capacity: what is accepted is in time, what is refused is refused at once, nothing is lost.

On a virtual clock, with Poisson arrivals at a multiple of the capacity: the figures are the model's and the policy's
own, without the noise of a machine.
"""

from __future__ import annotations

import math
import statistics

import pytest

from runtimes.errors import TooLate
from runtimes.simulated import Behaviour
from runtimes.spec import BatchLimits
from tests.support.overload import OpenLoop, Window, capacity
from tests.support.virtual import MS, World

DEADLINE_NS = 250 * MS
# Models by what a run costs and what a row adds, with the batch limit that they are given.
FIXED = Behaviour(run_ns=20 * MS, row_ns=MS * 2 // 5), 64
BY_ROW = Behaviour(run_ns=5 * MS, row_ns=2 * MS), 32
SLOW = Behaviour(run_ns=80 * MS, row_ns=3 * MS // 10), 64
UNBATCHED = Behaviour(run_ns=10 * MS), 1


def world_of(model: tuple[Behaviour, int], kind: str, instances: int, is_measured: bool) -> World:
    behaviour, rows_max = model
    sizes = [1 << power for power in range(rows_max.bit_length())]
    times = {rows: behaviour.run_ns + rows * behaviour.row_ns for rows in sizes}
    return World(
        kind=kind,
        instances=instances,
        behaviour=behaviour,
        limits=BatchLimits(batch_rows_max=rows_max),
        run_times=times if is_measured else None,
    )


@pytest.mark.parametrize("overload", [2, 3])
@pytest.mark.parametrize(
    ("model", "kind", "instances", "is_measured"),
    [
        (FIXED, "virtual", 1, True),
        (FIXED, "virtual", 2, True),
        (FIXED, "inline", 1, True),
        (BY_ROW, "virtual", 1, True),
        (BY_ROW, "virtual", 1, False),
        (SLOW, "virtual", 1, True),
        (SLOW, "virtual", 1, False),
        (UNBATCHED, "virtual", 1, True),
    ],
    ids=[
        "fixed cost",
        "two instances",
        "inline",
        "cost by row",
        "cost by row, never measured",
        "a third of the deadline",
        "a third of the deadline, never measured",
        "no batches",
    ],
)
def test_at_twice_and_thrice_the_capacity(
    model: tuple[Behaviour, int], kind: str, instances: int, is_measured: bool, overload: int
) -> None:
    world = world_of(model, kind, instances, is_measured)
    most = capacity(*model, instances)
    load = OpenLoop(world, deadline_ns=DEADLINE_NS)
    before = load.run(most / 2, 1)
    during = load.run(most * overload, 2)
    load.run(most / 2, 1)
    after = load.run(most / 2, 1)
    load.check_nothing_is_lost()

    assert load.finished_between(during) >= 0.95 * most * 2
    in_time(before, after)
    # Of those accepted, next to none is too late: what cannot be in time was refused.
    assert len(during.good) >= 0.99 * len(during.accepted)
    assert during.latency_ns(0.99) <= DEADLINE_NS
    assert not before.refused and not after.refused
    assert after.latency_ns(0.99) <= 1.5 * before.latency_ns(0.99)
    for one in during.refused:
        assert isinstance(one.refusal, TooLate)
        assert one.refusal.retry_after_s == 1


def in_time(*windows: Window) -> None:
    for window in windows:
        assert len(window.good) >= 0.99 * len(window.sent)


def test_a_model_that_becomes_slower_under_overload_keeps_its_promises_soon_after() -> None:
    world = world_of(FIXED, "virtual", 1, True)
    load = OpenLoop(world, deadline_ns=DEADLINE_NS)
    most = capacity(*FIXED)
    load.run(most * 2, 1)
    for session in world.sessions:
        session._behaviour = Behaviour(run_ns=40 * MS, row_ns=8 * MS // 10)
    load.run(most, 2)
    settled = load.run(most, 2)
    load.check_nothing_is_lost()
    assert load.finished_between(settled) >= 0.95 * (most / 2) * 2
    assert len(settled.good) >= 0.99 * len(settled.accepted)


def test_an_instance_that_is_held_up_once_is_forgiven() -> None:
    world = world_of(FIXED, "virtual", 1, True)
    load = OpenLoop(world, deadline_ns=DEADLINE_NS)
    most = capacity(*FIXED)
    load.run(most / 2, 1)
    plain, held_up = world.sessions[0]._behaviour, Behaviour(run_ns=200 * MS)
    world.sessions[0]._behaviour = held_up
    world.scheduler.call_at(
        world.scheduler.now_ns() + 5 * MS, lambda: setattr(world.sessions[0], "_behaviour", plain)
    )
    load.run(most / 2, 0.5)
    after = load.run(most / 2, 1)
    load.check_nothing_is_lost()
    assert not after.refused
    assert len(after.good) == len(after.sent)


@pytest.mark.parametrize("kind", ["virtual", "inline"])
def test_a_table_that_is_a_thousand_times_too_high_starves_nobody(kind: str) -> None:
    behaviour, rows_max = FIXED
    world = World(
        kind=kind,
        behaviour=behaviour,
        limits=BatchLimits(batch_rows_max=rows_max),
        run_times={1 << power: 10_000 * MS for power in range(7)},
    )
    load = OpenLoop(world, deadline_ns=DEADLINE_NS)
    most = capacity(*FIXED)
    load.run(most / 2, 2)
    settled = load.run(most / 2, 1)
    load.check_nothing_is_lost()
    assert len(settled.good) == len(settled.sent)


def test_deadlines_that_no_run_can_meet_do_not_end_the_learning() -> None:
    world = world_of(FIXED, "virtual", 1, True)
    hopeless = OpenLoop(world, deadline_ns=5 * MS)
    hopeless.run(100, 1)
    hopeless.check_nothing_is_lost()
    assert world.batch_rows
    for session in world.sessions:
        session._behaviour = Behaviour(run_ns=MS)
    quicker = OpenLoop(world, deadline_ns=5 * MS)
    quicker.run(100, 2)
    last = quicker.run(100, 1)
    world.scheduler.run_out()
    assert len(last.good) == len(last.sent)


def test_a_goal_keeps_latencies_within_it_where_larger_batches_would_not() -> None:
    behaviour, rows_max = BY_ROW
    p99 = []
    for slo_ns in (0, 80 * MS):
        limits = BatchLimits(batch_rows_max=rows_max, slo_ns=slo_ns)
        world = World(behaviour=behaviour, limits=limits, run_times={1: 7 * MS, 32: 69 * MS})
        load = OpenLoop(world, deadline_ns=2_000 * MS)
        load.run(300, 2)
        p99.append(load.run(300, 4).latency_ns(0.99))
        load.check_nothing_is_lost()
        # A run takes at most half of the goal.
        assert not slo_ns or max(world.batch_rows[-100:]) <= 17
    assert p99[1] <= 80 * MS


def test_mixed_deadlines_at_overload_lose_nothing_and_serve_the_patient() -> None:
    world = world_of(FIXED, "virtual", 1, True)
    most = capacity(*FIXED)
    patient, hasty = OpenLoop(world, deadline_ns=800 * MS, seed=2), OpenLoop(world, deadline_ns=40 * MS, seed=3)
    served = []
    for _ in range(20):
        windows = patient.run(most, 0.05), hasty.run(most, 0.05)
        served.append([len(window.good) for window in windows])
    world.scheduler.run_out()
    for load in (patient, hasty):
        for one in load.sent:
            assert one.refusal is not None or one.item.done
    assert statistics.mean(good[0] for good in served) >= 0
    status = world.runtime.status()
    assert status.succeeded >= 0.9 * most


def test_retry_after_says_how_long_the_backlog_takes() -> None:
    world = World(
        behaviour=Behaviour(run_ns=1_000 * MS), limits=BatchLimits(batch_rows_max=1), run_times={1: 1000 * MS}
    )
    load = OpenLoop(world, deadline_ns=5_500 * MS)
    window = load.run(20, 2)
    load.check_nothing_is_lost()
    waits = [one.refusal.retry_after_s for one in window.refused if isinstance(one.refusal, TooLate)]
    assert waits
    assert all(wait == math.ceil(wait) and 3 <= wait <= 5 for wait in waits)

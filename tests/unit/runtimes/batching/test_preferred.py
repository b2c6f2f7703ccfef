"""Preferred sizes: a batch of one goes before its delay is over, and holds no more than that; on a virtual clock."""

from __future__ import annotations

import pytest

from runtimes.batching.policy import preferred_rows
from runtimes.simulated import Behaviour
from runtimes.spec import BatchLimits
from tests.support.virtual import MS, START_NS, World

HELD = BatchLimits(batch_rows_max=8, queue_delay_ns=10 * MS, preferred=(4, 6))


def ended_ns(world: World) -> list[int]:
    return [when - START_NS for when, _ in world.replies]


@pytest.mark.parametrize(("load", "rows"), [(0, 0), (3, 0), (4, 4), (5, 4), (6, 6), (99, 6)])
def test_the_largest_size_that_is_filled_is_preferred(load: int, rows: int) -> None:
    assert preferred_rows(load, (4, 6)) == rows
    assert preferred_rows(load, ()) == 0


def test_a_preferred_size_goes_at_once_and_fewer_are_held() -> None:
    world = World(limits=HELD)
    for _ in range(3):
        world.send(1.0)
    world.scheduler.advance(5 * MS)
    assert world.batch_rows == []
    world.send(1.0)
    world.scheduler.advance(0)
    assert world.batch_rows == [4]
    world.scheduler.run_out()
    assert ended_ns(world) == [5 * MS] * 4


def test_what_is_beyond_a_preferred_size_waits_for_the_next_or_for_its_time() -> None:
    world = World(limits=HELD)
    for _ in range(5):
        world.send(1.0)
    world.scheduler.advance(0)
    assert world.batch_rows == [4]
    world.scheduler.run_out()
    assert world.batch_rows == [4, 1]
    assert ended_ns(world)[-1] == 10 * MS


def test_what_is_due_goes_whole() -> None:
    """Held for as long as it may be: no preferred size holds it any longer."""
    world = World(limits=BatchLimits(batch_rows_max=8, queue_delay_ns=10 * MS, preferred=(4,)))
    for _ in range(3):
        world.send(1.0)
    world.scheduler.run_out()
    assert world.batch_rows == [3]


def test_without_a_delay_a_batch_is_cut_to_a_preferred_size() -> None:
    slow = Behaviour(run_ns=10 * MS)
    world = World(behaviour=slow, limits=BatchLimits(batch_rows_max=8, preferred=(4,)))
    for _ in range(7):
        world.send(1.0)
    world.scheduler.run_out()
    assert world.batch_rows == [4, 3]


def test_preferred_sizes_say_nothing_of_a_model_that_does_not_batch() -> None:
    world = World(limits=HELD, batched=False)
    for _ in range(2):
        world.send(1.0)
    world.scheduler.advance(0)
    assert world.batch_rows == [1, 1]

"""How long the request that waits longest has waited: in the queue, or staged in a batch that nobody has taken."""

from __future__ import annotations

import numpy as np

from runtimes.simulated import Behaviour
from runtimes.spec import BatchLimits
from tests.support.virtual import MS, World

SLOW = Behaviour(run_ns=10 * MS)
ONE_ROW = BatchLimits(batch_rows_max=1)


def _oldest_ms(world: World) -> float:
    return world.runtime.status().oldest_wait_ns / MS


def test_when_nothing_waits_nothing_is_old() -> None:
    world = World(behaviour=SLOW)
    assert _oldest_ms(world) == 0
    world.send(1.0)
    world.scheduler.advance(4 * MS)
    assert _oldest_ms(world) == 0


def test_a_staged_request_waits_and_one_that_runs_does_not() -> None:
    world = World(behaviour=SLOW, limits=ONE_ROW)
    for n in range(3):
        world.send(float(n))
        world.scheduler.advance(1 * MS)
    # The first runs, the second is staged since 1 ms, the third is in the queue since 2 ms.
    assert world.runtime.status().queued_items == 1
    assert _oldest_ms(world) == 2
    world.scheduler.advance(8 * MS)
    assert _oldest_ms(world) == 9
    world.scheduler.run_out()
    assert _oldest_ms(world) == 0


def test_one_that_left_does_not_wait_any_more() -> None:
    world = World(behaviour=SLOW, limits=ONE_ROW)
    items = []
    for n in range(4):
        items.append(world.send(float(n)))
        world.scheduler.advance(1 * MS)
    assert _oldest_ms(world) == 3
    world.runtime.cancel(items[1])
    assert _oldest_ms(world) == 2
    world.runtime.cancel(items[2])
    world.runtime.cancel(items[3])
    assert _oldest_ms(world) == 0


def test_a_request_that_runs_in_parts_waits_until_the_last_is_taken() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=2))
    world.send(np.zeros((6, 2), np.float32))
    world.scheduler.advance(5 * MS)
    assert _oldest_ms(world) == 5
    world.scheduler.advance(10 * MS)
    assert _oldest_ms(world) == 15
    world.scheduler.advance(10 * MS)
    assert _oldest_ms(world) == 0


def test_one_that_is_held_for_others_waits() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(queue_delay_ns=8 * MS))
    world.send(1.0)
    world.scheduler.advance(3 * MS)
    assert _oldest_ms(world) == 3

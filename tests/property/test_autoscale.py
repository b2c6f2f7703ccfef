"""Whatever the load does: bounds are kept, a load that stays has its instances, and nothing flaps."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.controlplane.autoscale import LOOKS_BELOW, ScaleState, Utilisation, decide
from gateway.resources import Scale

PROFILE = settings(max_examples=200, deadline=None, derandomize=True)

scales = st.builds(
    lambda fewest, more, target: Scale(min_instances=fewest, max_instances=fewest + more, target_percent=target),
    st.integers(1, 5),
    st.integers(0, 20),
    st.integers(1, 100),
)
loads = st.integers(0, 40)


def look(scale: Scale, state: ScaleState, load: int, scorers: int, now: float) -> tuple[int, ScaleState, str]:
    """So many runs are asked for at once: as many run as there are instances, which scorers round up."""
    instances = -(-state.instances // scorers) * scorers
    busy = min(load, instances)
    return decide(scale, state, Utilisation(instances=instances, busy=busy, waiting=load - busy), now)


def needed(scale: Scale, load: int) -> int:
    return min(max(-(-100 * load // scale.target_percent), scale.min_instances), scale.max_instances)


@PROFILE
@given(scale=scales, begin=st.integers(0, 60), over=st.lists(st.tuples(loads, st.floats(-5, 5)), max_size=120))
def test_bounds_are_kept_and_every_change_has_a_reason(
    scale: Scale, begin: int, over: list[tuple[int, float]]
) -> None:
    state, now = ScaleState(instances=begin), 0.0
    for load, passed in over:
        before = state.instances
        now += passed
        instances, state, why = look(scale, state, load, 1, now)
        assert scale.min_instances <= instances <= scale.max_instances
        assert instances == state.instances
        assert bool(why) == (instances != before)
        assert state.below < LOOKS_BELOW


@PROFILE
@given(scale=scales, before=st.lists(loads, max_size=60), load=loads, scorers=st.integers(1, 4))
def test_a_load_that_stays_gets_what_it_needs_and_keeps_it(
    scale: Scale, before: list[int], load: int, scorers: int
) -> None:
    state, now = ScaleState(instances=scale.min_instances), 0.0
    for earlier in before:
        now += 1
        _, state, _ = look(scale, state, earlier, scorers, now)
    seen = []
    for _ in range(3 * LOOKS_BELOW):
        now += 1
        instances, state, _ = look(scale, state, load, scorers, now)
        seen.append(instances)
    # What was high before may keep it up for a while; then it is what is needed, and that for good.
    assert set(seen[2 * LOOKS_BELOW :]) == {needed(scale, load)}
    changes = sum(one != other for one, other in itertools.pairwise(seen))
    assert changes <= 2
    assert all(instances >= needed(scale, load) for instances in seen)


@PROFILE
@given(scale=scales, low=loads, high=loads, period=st.integers(1, LOOKS_BELOW - 1))
def test_a_load_that_swings_faster_than_it_waits_is_followed_up_and_never_down(
    scale: Scale, low: int, high: int, period: int
) -> None:
    state = ScaleState(instances=scale.min_instances)
    seen = []
    for number in range(10 * period):
        load = high if number % (period + 1) == 0 else low
        instances, state, _ = look(scale, state, load, 1, float(number))
        seen.append(instances)
    assert seen == sorted(seen)

"""Rollouts under any load, behaviour, command and mishap: traffic is whole and moves one way."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.controlplane.rollout.decide import decide
from gateway.controlplane.rollout.observe import Observation, Seen, quantile_s, slower
from gateway.controlplane.rollout.runner import Rollouts
from gateway.controlplane.rollout.state import (
    Move,
    RolloutState,
    RolloutStatus,
    Worst,
    back,
    first_step,
    shares,
    state_from_builtins,
    state_to_builtins,
)
from gateway.errors import Code, Problem
from gateway.telemetry.record import DURATION_EDGES_NS
from tests.support.rollouts import Behaviour, SimulatedWorld, rollout

BUCKETS = len(DURATION_EDGES_NS) + 1

steps = st.sets(st.integers(1, 99), max_size=4).map(lambda some: (*sorted(some), 100))
traffics = st.tuples(st.integers(1, 100), st.integers(0, 100), st.integers(0, 100)).map(
    lambda cut: {"blue": cut[0], "green": min(cut[1], 100 - cut[0]), "red": max(0, 100 - cut[0] - cut[1])}
)
durations = st.lists(st.integers(0, 1000), min_size=BUCKETS, max_size=BUCKETS).map(tuple)
ratios = st.floats(0, 1)
seens = st.builds(
    lambda counts, left, part: Seen(
        requests=sum(counts) + left, failures=left + int(part * sum(counts)), durations=counts
    ),
    durations,
    st.integers(0, 50),
    ratios,
)
behaviours = st.builds(
    Behaviour, fails=st.sampled_from([0.0, 0.0, 0.02, 1.0]), slow=st.sampled_from([0.0, 0.0, 0.02, 1.0])
)
actions = st.lists(
    st.sampled_from(
        [
            "live",
            "live",
            "live",
            "pause",
            "resume",
            "promote",
            "cancel",
            "restart",
            "refuse",
            "allow",
            "busy",
            "foreign",
        ]
    ),
    max_size=25,
)


@given(traffics, steps)
def test_a_step_divides_what_both_have_and_nothing_else(traffic: dict[str, int], wanted: tuple[int, ...]) -> None:
    moved = rollout(steps=wanted)
    for percent in wanted:
        after = shares(moved, traffic, percent)
        assert sum(after.values()) == 100
        assert after.get("red", 0) == traffic["red"]
        assert 1 <= after.get("green", 0) <= percent
    assert shares(moved, traffic, 100).get("blue", 0) == 0
    step = first_step(moved, traffic)
    assert shares(moved, traffic, wanted[step]).get("green", 0) >= traffic["green"]


@given(traffics, traffics)
def test_a_roll_back_gives_the_new_one_no_more_than_it_had(traffic: dict[str, int], before: dict[str, int]) -> None:
    after = back(rollout(), traffic, before)
    assert sum(after.values()) == 100
    assert after.get("red", 0) == traffic["red"]
    assert after.get("green", 0) <= before["green"]
    assert back(rollout(), shares(rollout(), traffic, 37), traffic) == {k: v for k, v in traffic.items() if v}


@given(durations, st.floats(0.001, 1))
def test_a_percentile_and_what_lies_above_it_agree(counts: tuple[int, ...], part: float) -> None:
    total = sum(counts)
    value = quantile_s(counts, part)
    assert 0 <= value <= 10
    if total and value < 10:
        assert abs(slower(counts, value) - (1 - part) * total) < 1e-6 * max(1, total)


@given(seens, seens, ratios, st.integers(0, 3), st.floats(-10, 500), st.sampled_from(["roll_back", "pause"]))
def test_every_observation_has_a_decision(
    old: Seen, new: Seen, worst: float, step: int, after: float, failure: str
) -> None:
    state = RolloutState(
        step_since=0.0,
        started_at=0.0,
        traffic_before={"blue": 100},
        traffic=shares(rollout(), {"blue": 100}, rollout().steps[step]),
        step=step,
        worst=Worst(failure_ratio=worst, p99_s=worst) if worst > 0.5 else None,
    )
    wanted = rollout(on_failure=failure)
    decided = decide(wanted, state, Observation(old=old, new=new), after)
    # What is no worse in any way is never turned down, whatever the numbers.
    same = decide(wanted, state, Observation(old=new, new=new), after)
    assert type(same).__name__ != "RollBack" or new.requests < wanted.guards.requests_min
    assert type(decided).__name__ != ("RollBack" if failure == "pause" else "")


@given(traffics, traffics, st.sampled_from(RolloutStatus), st.sampled_from(Move), ratios)
def test_a_state_survives_the_store(
    traffic: dict[str, int], before: dict[str, int], status: RolloutStatus, move: Move, number: float
) -> None:
    state = RolloutState(
        status=status,
        step=2,
        step_since=number,
        started_at=number,
        traffic_before=before,
        traffic=traffic,
        move=move,
        reason="why",
        worst=Worst(failure_ratio=number, p99_s=number),
    )
    assert state_from_builtins(state_to_builtins(state)) == state


async def act(world: SimulatedWorld, rollouts: Rollouts, action: str) -> Rollouts:
    """One thing that happens."""
    match action:
        case "live":
            await world.live(rollouts, 24, every=3)
        case "restart":
            return await world.restarted()
        case "refuse":
            world.refuse = Problem(Code.CONFLICT, "busy")
        case "allow":
            world.refuse = None
        case "busy":
            world.broken_saves += 1
        case "foreign":
            if not world.state().status.is_over:
                world.traffic = {"blue": 55, "green": 45}
        case _:
            try:
                await getattr(rollouts, action)("e1", "r1", "ann")
            except (Problem, OSError):
                return rollouts
    return rollouts


def watch(world: SimulatedWorld, is_foreign: bool) -> None:
    """Every change of traffic that was ever made."""
    for before, after, _ in world.moves:
        assert sum(after.values()) == 100
        assert after.get("red", 0) == before.get("red", 0)
        assert after != before
        # From the old one to the new one, or back to no more than the new one had in the beginning.
        goes_back = after.get("green", 0) < before.get("green", 0)
        assert not goes_back or after.get("green", 0) <= world.first.get("green", 0)
        assert not goes_back or is_foreign or after == world.first


@settings(max_examples=100, deadline=None)
@given(traffics, steps, behaviours, behaviours, actions, st.integers(0, 100))
def test_traffic_is_whole_moves_one_way_and_ends_somewhere(
    traffic: dict[str, int],
    wanted: tuple[int, ...],
    blue: Behaviour,
    green: Behaviour,
    story: list[str],
    seed: int,
) -> None:
    async def scene() -> None:
        first = {name: percent for name, percent in traffic.items() if percent}
        world = SimulatedWorld(
            traffic=dict(first), deployments={"blue": "", "green": "", "red": ""}, seed=seed, rate=15
        )
        world.behaviours.update(blue=blue, green=green)
        rollouts = world.rollouts()
        await rollouts.start(rollout(steps=wanted), "ann")
        for action in story:
            rollouts = await act(world, rollouts, action)
            state = world.state()
            if state.move is Move.NONE and state.status is RolloutStatus.RUNNING and "foreign" not in story:
                assert world.traffic.get("green", 0) <= wanted[state.step]
        world.refuse, world.broken_saves = None, 0
        # Whatever happened: it is over, or paused with a reason, once every step has had its longest time.
        await world.live(rollouts, 102 * len(wanted) + 120, every=6)
        state = world.state()
        assert state.status is not RolloutStatus.RUNNING
        assert state.reason
        watch(world, "foreign" in story)
        if state.status is RolloutStatus.SUCCEEDED:
            assert world.traffic.get("blue", 0) == 0

    asyncio.run(scene())

"""Decisions of a running rollout, from plain numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.controlplane.rollout.decide import Advance, Finish, Hold, Pause, RollBack, decide, remember
from gateway.controlplane.rollout.observe import Observation, Seen
from gateway.controlplane.rollout.state import Move, RolloutState, RolloutStatus, Worst
from gateway.telemetry.record import DURATION_EDGES_NS
from tests.support.rollouts import rollout

STATE = RolloutState(
    step_since=1000.0, started_at=0.0, traffic_before={"blue": 100}, traffic={"blue": 90, "green": 10}, step=1
)
LAST = replace(STATE, step=3, traffic={"green": 100})
BUCKETS = len(DURATION_EDGES_NS) + 1


def seen(requests: int, failures: int = 0, slow: int = 0, left: int = 0) -> Seen:
    """Answers of 2.5 to 5 ms, some of them of 30 to 35 ms."""
    durations = [0] * BUCKETS
    durations[3], durations[9] = requests - slow - left, slow
    return Seen(requests=requests, failures=failures + left, durations=tuple(durations))


def decided(old: Seen, new: Seen, *, after: float = 50.0, state: RolloutState = STATE, **more: Any) -> object:
    return decide(rollout(**more), state, Observation(old=old, new=new), 1000.0 + after)


def test_a_good_step_is_held_and_then_left() -> None:
    assert decided(seen(900), seen(100), after=9.9) == Hold("at 10 % for 9 of 10 s")
    assert decided(seen(900), seen(100), after=10) == Advance(50)
    assert decided(seen(900), seen(100), state=LAST) == Finish()


def test_a_clock_that_was_put_back_only_holds() -> None:
    assert decided(seen(900), seen(100), after=-5) == Hold("at 10 % for 0 of 10 s")


def test_too_few_requests_hold_and_then_pause() -> None:
    assert decided(seen(900), seen(49)) == Hold("at 10 %; green had 49 of 50 requests in 50 s")
    assert decided(seen(900), seen(49), after=100) == Pause(
        "no progress: at 10 %; green had 49 of 50 requests in 100 s"
    )


def test_failures_that_cannot_be_chance_roll_back_at_once() -> None:
    assert decided(seen(900), seen(10, failures=3), after=1) == RollBack(
        "green failed 3 of 10 requests (30 %); accepted: at most 1 %, as Blue failed 0 %"
    )
    assert isinstance(decided(seen(900), seen(2000, failures=60), after=1), RollBack)
    assert isinstance(decided(seen(900), seen(10, left=10), after=1), RollBack)


def test_the_first_few_failures_condemn_nobody() -> None:
    assert isinstance(decided(seen(900), seen(9, failures=9), after=1), Hold)


def test_a_lower_minimum_judges_earlier() -> None:
    guards = rollout().guards
    sooner = type(guards)(requests_min=3)
    assert isinstance(decided(seen(900), seen(3, failures=3), after=1, guards=sooner), RollBack)


def test_failures_that_may_be_chance_hold_and_then_pause() -> None:
    said = "green failed 1 of 60 requests (1.67 %); accepted: at most 1 %, as Blue failed 0 %"
    assert decided(seen(900), seen(60, failures=1)) == Hold(f"{said}, which may be chance so far")
    assert isinstance(decided(seen(900), seen(60, failures=1), after=100), Pause)
    assert decided(seen(900), seen(101, failures=1)) == Advance(50)


def test_failures_count_against_those_of_the_old_one() -> None:
    assert decided(seen(1000, failures=300), seen(100, failures=31)) == Advance(50)
    assert isinstance(decided(seen(1000, failures=300), seen(1000, failures=500)), RollBack)


def test_no_accepted_failures_means_none() -> None:
    none = type(rollout().guards)(error_ratio_increase_max=0)
    assert isinstance(decided(seen(1000), seen(1000, failures=1), guards=none), RollBack)
    assert decided(seen(1000, failures=1), seen(1000, failures=1), guards=none) == Advance(50)


def test_all_failures_accepted_means_no_guard() -> None:
    every = type(rollout().guards)(error_ratio_increase_max=1)
    assert decided(seen(1000), seen(1000, failures=1000), guards=every) == Advance(50)


def test_slowness_that_cannot_be_chance_rolls_back() -> None:
    assert decided(seen(900), seen(100, slow=50), after=1) == RollBack(
        "p99 of green is 34.9 ms over 100 answers; accepted: at most 10.0 ms, as that of Blue is 5.0 ms"
    )


def test_one_slow_answer_among_few_is_waited_for() -> None:
    assert isinstance(decided(seen(900), seen(60, slow=1)), Hold)
    assert decided(seen(900), seen(101, slow=1)) == Advance(50)


def test_a_difference_below_the_floor_is_none() -> None:
    floor = type(rollout().guards)(p99_floor_ms=40)
    assert decided(seen(900), seen(100, slow=50), guards=floor) == Advance(50)


def test_slowness_is_not_judged_by_an_old_one_that_is_not_known() -> None:
    assert decided(seen(49), seen(100, slow=50)) == Advance(50)


def test_pausing_can_be_what_failure_does() -> None:
    decision = decided(seen(900), seen(100, failures=50), after=1, on_failure="pause")
    assert isinstance(decision, Pause)
    assert decision.reason.startswith("green failed 50 of 100 requests")


def test_at_the_last_step_the_old_one_is_remembered() -> None:
    state = replace(LAST, worst=Worst(failure_ratio=0.2, p99_s=0.005))
    assert decided(seen(0), seen(1000, failures=200), state=state) == Finish()
    assert isinstance(decided(seen(0), seen(1000, failures=400), state=state), RollBack)
    assert isinstance(decided(seen(0), seen(1000, slow=500), state=state), RollBack)
    assert decided(seen(0), seen(1000, slow=500), state=LAST) == Finish()


def test_where_the_old_one_has_less_traffic_the_worse_of_both_counts() -> None:
    state = replace(STATE, traffic={"blue": 10, "green": 90}, worst=Worst(failure_ratio=0.2, p99_s=0.03))
    assert decided(seen(100), seen(1000, failures=200, slow=500), state=state) == Advance(50)
    even = replace(state, traffic={"blue": 50, "green": 50})
    assert isinstance(decided(seen(1000), seen(1000, failures=200), state=even), RollBack)
    assert isinstance(decided(seen(1000), seen(1000, slow=500), state=even), RollBack)


def test_only_a_well_known_step_is_remembered() -> None:
    first = remember(rollout(), None, Observation(old=seen(100, failures=10)))
    assert first is not None
    assert first.failure_ratio == 0.1
    assert remember(rollout(), first, Observation(old=seen(49, failures=49))) is first
    second = remember(rollout(), first, Observation(old=seen(100, slow=100)))
    assert second is not None
    assert second.failure_ratio == 0.1
    assert second.p99_s > first.p99_s


@pytest.mark.parametrize(
    "state",
    [
        replace(STATE, status=RolloutStatus.PAUSED, reason="paused by ann"),
        replace(STATE, move=Move.STEP, reason="paused by ann"),
    ],
)
def test_nothing_is_decided_in_a_pause_or_a_move(state: RolloutState) -> None:
    assert decided(seen(900), seen(100, failures=100), state=state) == Hold("paused by ann")

"""What a running rollout does next: a decision over what was seen in its step, and the time. Pure.

A guard has three answers. Broken: what was seen cannot be chance (Chernoff's bound gives it less than one in a
thousand), so the rollout fails at once. In doubt: worse than accepted, but perhaps by chance, so the step does not
end. Kept: the step ends once it has lasted long enough and seen enough. So one slow or failed request among few rolls
nothing back, a deployment that fails everything goes back after its tenth request, and what is a little worse than
accepted never gets on.
The old deployment is seen in the same window, under the same load and weather. Where it has less traffic than the new
one, and so an easier time or none to be seen, the worst that it showed in an earlier step counts as well.
Units: *_s seconds; now seconds since 1970.
Source: Chernoff and Hoeffding's bound on the tail of a binomial, in the form exp(-n KL(k/n, p)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gateway.controlplane.rollout.document import RolloutYaml
from gateway.controlplane.rollout.observe import Observation, Seen, slower
from gateway.controlplane.rollout.state import Move, RolloutState, RolloutStatus, Worst

# Nothing is condemned on fewer requests: the first few after a change of traffic may meet cold caches.
_JUDGED_MIN = 10
_CHANCE = 0.001
_SLOWEST = 0.01


@dataclass(frozen=True, slots=True)
class Hold:
    reason: str


@dataclass(frozen=True, slots=True)
class Advance:
    percent: int


@dataclass(frozen=True, slots=True)
class RollBack:
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    pass


@dataclass(frozen=True, slots=True)
class Pause:
    reason: str


Decision = Hold | Advance | RollBack | Finish | Pause


@dataclass(frozen=True, slots=True)
class _Doubt:
    """What is worse than a guard accepts, and whether that cannot be chance."""

    reason: str
    is_sure: bool


def decide(rollout: RolloutYaml, state: RolloutState, seen: Observation, now: float) -> Decision:
    """`seen` is what happened since the step began."""
    if state.status is not RolloutStatus.RUNNING or state.move is not Move.NONE:
        return Hold(state.reason or "the traffic is being changed")
    doubts = [doubt for doubt in _doubts(rollout, state, seen) if doubt is not None]
    for doubt in doubts:
        if doubt.is_sure:
            return RollBack(doubt.reason) if rollout.on_failure == "roll_back" else Pause(doubt.reason)
    waited_s, needed = now - state.step_since, rollout.guards.requests_min
    if waited_s < rollout.hold_s:
        return Hold(f"{_step(rollout, state)} for {max(0, int(waited_s))} of {rollout.hold_s} s")
    if seen.new.requests < needed:
        had = f"{rollout.to} had {seen.new.requests} of {needed} requests in {int(waited_s)} s"
        return _wait(rollout, waited_s, f"{_step(rollout, state)}; {had}")
    if doubts:
        return _wait(rollout, waited_s, f"{doubts[0].reason}, which may be chance so far")
    return Finish() if state.step + 1 >= len(rollout.steps) else Advance(rollout.steps[state.step + 1])


def remember(rollout: RolloutYaml, worst: Worst | None, seen: Observation) -> Worst | None:
    """The worst of the old deployment, with this step's window if it had enough requests to count."""
    if not _is_known(rollout, seen.old):
        return worst
    if worst is None:
        return Worst(failure_ratio=seen.old.failure_ratio, p99_s=seen.old.p99_s)
    return Worst(
        failure_ratio=max(worst.failure_ratio, seen.old.failure_ratio), p99_s=max(worst.p99_s, seen.old.p99_s)
    )


def _step(rollout: RolloutYaml, state: RolloutState) -> str:
    return f"at {rollout.steps[state.step]} %"


def _wait(rollout: RolloutYaml, waited_s: float, reason: str) -> Decision:
    return Hold(reason) if waited_s < rollout.stall_s else Pause(f"no progress: {reason}")


def _doubts(rollout: RolloutYaml, state: RolloutState, seen: Observation) -> tuple[_Doubt | None, _Doubt | None]:
    judged_from = min(_JUDGED_MIN, rollout.guards.requests_min)
    if seen.new.requests < judged_from:
        return (None, None)
    carries_more = state.traffic.get(rollout.new, 0) > state.traffic.get(rollout.old, 0)
    worst = state.worst if carries_more else None
    return (_errors(rollout, worst, seen), _slowness(rollout, worst, seen))


def _is_known(rollout: RolloutYaml, old: Seen) -> bool:
    return old.requests >= rollout.guards.requests_min


def _errors(rollout: RolloutYaml, worst: Worst | None, seen: Observation) -> _Doubt | None:
    """A baseline without requests has failed none."""
    old, new = seen.old.failure_ratio, seen.new
    if worst is not None:
        old = max(old, worst.failure_ratio) if _is_known(rollout, seen.old) else worst.failure_ratio
    allowed = old + rollout.guards.error_ratio_increase_max
    if new.failure_ratio <= allowed:
        return None
    reason = (
        f"{rollout.to} failed {new.failures} of {new.requests} requests ({_percent(new.failure_ratio)}); "
        f"accepted: at most {_percent(allowed)}, as {rollout.from_} failed {_percent(old)}"
    )
    return _Doubt(reason, _is_beyond_chance(new.failures, new.requests, allowed))


def _slowness(rollout: RolloutYaml, worst: Worst | None, seen: Observation) -> _Doubt | None:
    """Not judged where too little is known of the old one."""
    old_s = seen.old.p99_s if _is_known(rollout, seen.old) else 0.0
    old_s = max(old_s, worst.p99_s) if worst is not None else old_s
    if not old_s:
        return None
    guards, durations = rollout.guards, seen.new.durations
    limit_s = max(old_s * guards.p99_ratio_max, old_s + guards.p99_floor_ms / 1e3)
    count, answers = slower(durations, limit_s), seen.new.answers
    if count <= _SLOWEST * answers:
        return None
    reason = (
        f"p99 of {rollout.to} is {_ms(seen.new.p99_s)} over {answers} answers; "
        f"accepted: at most {_ms(limit_s)}, as that of {rollout.from_} is {_ms(old_s)}"
    )
    return _Doubt(reason, _is_beyond_chance(count, answers, _SLOWEST))


def _is_beyond_chance(count: float, total: int, allowed: float) -> bool:
    """Whether so many, more than the `allowed` share of the total, have a chance below one in 1000 at that share."""
    share = min(1.0, count / total)
    if allowed <= 0.0:
        return True
    distance = share * math.log(share / allowed)
    if share < 1.0:
        distance += (1 - share) * math.log((1 - share) / (1 - allowed))
    return total * distance > -math.log(_CHANCE)


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.3g} %"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"

"""A rollout as people and programs are shown it: where it is, what it waits for, what it saw.

Units: *_at and step_since seconds since 1970, p99_ms milliseconds, traffic in percent; steps count from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.controlplane.rollout.document import RolloutYaml
from gateway.controlplane.rollout.observe import Observation, Seen
from gateway.controlplane.rollout.state import RolloutState


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """`seen` is None until the window of the step has begun; `doing` is one sentence."""

    rollout: RolloutYaml
    state: RolloutState
    seen: Observation | None
    doing: str


def describe(rollout: RolloutYaml, state: RolloutState, seen: Observation | None, doing: str) -> dict[str, Any]:
    """`seen` and `doing` are those of a View; None and "" of a rollout that is over."""
    tree: dict[str, Any] = {
        "name": rollout.name,
        "endpoint_name": rollout.endpoint_name,
        "from": rollout.from_,
        "to": rollout.to,
        "status": str(state.status),
        "step": state.step + 1,
        "steps": list(rollout.steps),
        "percent": rollout.steps[state.step],
        "step_since": state.step_since,
        "started_at": state.started_at,
        "ended_at": state.ended_at,
        "traffic": dict(state.traffic),
        "reason": state.reason or doing,
    }
    if seen is not None:
        tree["seen"] = {rollout.from_: _figures(seen.old), rollout.to: _figures(seen.new)}
    return tree


def _figures(seen: Seen) -> dict[str, Any]:
    return {"requests": seen.requests, "failures": seen.failures, "p99_ms": round(seen.p99_s * 1e3, 3)}

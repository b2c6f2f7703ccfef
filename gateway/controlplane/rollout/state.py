"""Where a rollout is, as plain data that the store keeps, and how traffic is divided in a step. Pure.

Why a move is part of the state: it is written before the traffic is touched, so that after a crash it is known
whether traffic that is not as it was is the rollout's own work or somebody else's.
Units: *_at and step_since are seconds since 1970; traffic in percent, by lower-cased deployment, zeros left out.
Laws: `shares` and `back` keep the sum, and touch nothing but the rollout's two deployments (tests/property).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from gateway.controlplane.rollout.document import RolloutYaml

Traffic = dict[str, int]


class RolloutStatus(StrEnum):
    RUNNING = "Running"
    PAUSED = "Paused"
    SUCCEEDED = "Succeeded"
    ROLLED_BACK = "RolledBack"
    CANCELLED = "Cancelled"
    FAILED = "Failed"

    @property
    def is_over(self) -> bool:
        return self not in (RolloutStatus.RUNNING, RolloutStatus.PAUSED)


class Move(StrEnum):
    """A change of traffic that is under way, and why; all but STEP go back and end the rollout."""

    NONE = ""
    STEP = "step"
    ROLL_BACK = "roll_back"
    CANCEL = "cancel"
    FAIL = "fail"

    @property
    def is_back(self) -> bool:
        return self not in (Move.NONE, Move.STEP)

    @property
    def ends_as(self) -> RolloutStatus:
        """What a rollout is once this move back has been made."""
        match self:
            case Move.ROLL_BACK:
                return RolloutStatus.ROLLED_BACK
            case Move.CANCEL:
                return RolloutStatus.CANCELLED
            case _:
                return RolloutStatus.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """The worst that the old deployment showed in a step of this rollout."""

    failure_ratio: float
    p99_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutState:
    """`traffic` is what the rollout set last, or with a `move` is about to set, when it found `traffic_from`.

    `moved_by` is who asked for the last move. `reason` says why it is paused or over.
    """

    status: RolloutStatus = RolloutStatus.RUNNING
    step: int = 0
    step_since: float
    started_at: float
    ended_at: float | None = None
    reason: str = ""
    traffic_before: Traffic
    traffic: Traffic
    traffic_from: Traffic = field(default_factory=dict)
    move: Move = Move.NONE
    moved_by: str = ""
    worst: Worst | None = None


def state_to_builtins(state: RolloutState) -> dict[str, Any]:
    """The state as JSON types."""
    tree = msgspec.to_builtins(state)
    assert isinstance(tree, dict)
    return tree


def state_from_builtins(tree: Mapping[str, Any]) -> RolloutState:
    """What `state_to_builtins` gave. Errors: msgspec.ValidationError for anything else."""
    return msgspec.convert(dict(tree), RolloutState)


def normal(traffic: Mapping[str, int]) -> Traffic:
    """The same shares under lower-cased names and without zeros, so that equal ones compare equal."""
    return {name.lower(): percent for name, percent in traffic.items() if percent}


def pool(rollout: RolloutYaml, traffic: Mapping[str, int]) -> int:
    """What the rollout's two deployments have together."""
    return traffic.get(rollout.old, 0) + traffic.get(rollout.new, 0)


def shares(rollout: RolloutYaml, traffic: Mapping[str, int], percent: int) -> Traffic:
    """The traffic of a step: `percent` of what both have together is the new one's, rounded down, but at least 1."""
    whole = pool(rollout, traffic)
    return _divided(rollout, traffic, max(1, whole * percent // 100) if whole else 0)


def back(rollout: RolloutYaml, traffic: Mapping[str, int], before: Mapping[str, int]) -> Traffic:
    """The traffic after a roll back: the new one has what it had before, the old one the rest of both."""
    return _divided(rollout, traffic, min(before.get(rollout.new, 0), pool(rollout, traffic)))


def _divided(rollout: RolloutYaml, traffic: Mapping[str, int], new: int) -> Traffic:
    return normal({**traffic, rollout.old: pool(rollout, traffic) - new, rollout.new: new})


def first_step(rollout: RolloutYaml, traffic: Mapping[str, int]) -> int:
    """The first step that takes nothing away from what the new deployment has already."""
    has = traffic.get(rollout.new, 0)
    steps = (shares(rollout, traffic, percent).get(rollout.new, 0) for percent in rollout.steps)
    return next((index for index, share in enumerate(steps) if share >= has), len(rollout.steps) - 1)

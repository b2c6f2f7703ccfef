"""A simulated world for rollouts: deployments that answer as they are told to, on a clock that only tests move.

The counters are the gateway's own records, so what a rollout reads is what a scorer would report.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.controlplane.rollout.document import RolloutYaml
from gateway.controlplane.rollout.runner import Rollouts
from gateway.controlplane.rollout.state import (
    Move,
    RolloutState,
    normal,
    state_from_builtins,
    state_to_builtins,
)
from gateway.controlplane.rollout.world import EndpointNow
from gateway.errors import Code, Problem
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import ScorerTotals

START_S = 1_700_000_000.0
MS = 1_000_000


@dataclass
class Behaviour:
    """How a deployment answers: the share that fails, hangs up or is slow, and how long that takes."""

    fails: float = 0.0
    code: int = 424
    hangs_up: float = 0.0
    ms: float = 4.0
    slow: float = 0.0
    slow_ms: float = 400.0


@dataclass
class SimulatedWorld:
    """One endpoint, e1, with blue and green. `refuse` makes the next traffic changes fail, `broken_saves` so many
    saves."""

    traffic: dict[str, int] = field(default_factory=lambda: {"blue": 100})
    deployments: dict[str, str] = field(default_factory=lambda: {"blue": "", "green": ""})
    rate: int = 100
    seed: int = 0
    now: float = START_S
    exists: bool = True
    refuse: BaseException | None = None
    broken_saves: int = 0
    broken_events: bool = False
    broken_collects: int = 0

    def __post_init__(self) -> None:
        self.behaviours = {name: Behaviour() for name in self.deployments}
        self.first = dict(self.traffic)
        self.record = ScorerRecord()
        self.moves: list[tuple[dict[str, int], dict[str, int], str]] = []
        self.events: list[tuple[str, str]] = []
        self.saved: dict[str, tuple[RolloutYaml, dict[str, Any]]] = {}
        self._random = random.Random(self.seed)

    # ---- what the rollouts ask ----

    async def look(self, endpoint: str) -> EndpointNow | None:
        assert endpoint == "e1"
        return EndpointNow(traffic=dict(self.traffic), deployments=dict(self.deployments)) if self.exists else None

    async def collect(self) -> ScorerTotals:
        if self.broken_collects:
            self.broken_collects -= 1
            raise OSError("no answer")
        return self.record.snapshot()

    async def set_traffic(
        self, endpoint: str, shares: dict[str, int], *, expected: dict[str, int], actor_name: str, reason: str
    ) -> None:
        self._check_written_down(shares, expected, reason)
        if self.refuse is not None:
            raise self.refuse
        if normal(self.traffic) != expected:
            raise Problem(Code.PRECONDITION_FAILED, "the traffic is not as expected")
        self.moves.append((dict(self.traffic), dict(shares), actor_name))
        self.traffic = dict(shares)

    def _check_written_down(self, shares: dict[str, int], expected: dict[str, int], reason: str) -> None:
        """Before the traffic is touched, the saved state says what is about to be done; a step is never exceeded."""
        wanted, state = self.saved["r1"][0], self.state()
        assert reason.startswith("rollout r1: ")
        assert state.move is not Move.NONE
        assert (shares, expected) == (state.traffic, state.traffic_from)
        if state.move is Move.STEP:
            assert shares.get("green", 0) <= wanted.steps[state.step]

    async def save(self, rollout: RolloutYaml, state: RolloutState) -> None:
        if self.broken_saves:
            self.broken_saves -= 1
            raise OSError("the store is busy")
        self.saved[rollout.name] = (rollout, state_to_builtins(state))

    async def event(self, endpoint: str, deployment: str, name: str, message: str) -> None:
        assert (endpoint, deployment) == ("e1", "green")
        if self.broken_events:
            raise OSError("the store is full")
        self.events.append((name, message))

    # ---- what tests do ----

    def rollouts(self) -> Rollouts:
        return Rollouts(self, lambda: self.now)

    async def restarted(self) -> Rollouts:
        """As after a crash: only what was saved is known, and the scorers count from zero."""
        self.record = ScorerRecord()
        rollouts = self.rollouts()
        await rollouts.restore([(rollout, state_from_builtins(tree)) for rollout, tree in self.saved.values()])
        return rollouts

    def state(self, name: str = "r1") -> RolloutState:
        """The state as it was saved last."""
        return state_from_builtins(self.saved[name][1])

    @property
    def event_names(self) -> list[str]:
        return [name for name, _ in self.events]

    def serve(self, seconds: int) -> None:
        """Requests as the traffic divides them."""
        shares = {name: percent for name, percent in self.traffic.items() if percent}
        count = self.rate * seconds
        for name in self._random.choices(list(shares), list(shares.values()), k=count) if shares else ():
            self.answer(name)

    def answer(self, name: str) -> None:
        """One request of a deployment."""
        does, record = self.behaviours[name], self.record.deployment("e1", name)
        turn = self._random.random()
        if turn < does.hangs_up:
            record.hung_up()
            return
        code = does.code if turn < does.hangs_up + does.fails else 200
        ms = does.slow_ms if self._random.random() < does.slow else does.ms
        record.answered(code, int(ms * MS))

    async def live(self, rollouts: Rollouts, seconds: int, every: int = 1) -> None:
        """Time passes, with requests and a look every so many seconds."""
        for _ in range(seconds // every):
            self.serve(every)
            self.now += every
            await rollouts.tick()


def rollout(**more: Any) -> RolloutYaml:
    """From blue to green on e1, with short steps."""
    given: Mapping[str, Any] = {"hold_s": 10, "stall_s": 100, **more}
    return RolloutYaml(name="r1", endpoint_name="E1", from_="Blue", to="green", **given)

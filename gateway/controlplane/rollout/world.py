"""What the rollouts need of the rest of the control plane, and what it may say against them.

Units: traffic in percent, by lower-cased deployment.
Errors: `obstacles` and `lost` give sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.controlplane.rollout.document import RolloutYaml
from gateway.controlplane.rollout.state import RolloutState, normal, pool
from gateway.telemetry.totals import ScorerTotals


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointNow:
    """An endpoint as it is served. `deployments`: by key, "" or the reason why the deployment has failed."""

    traffic: Mapping[str, int]
    deployments: Mapping[str, str]


class World(Protocol):
    """What the rollouts need of the rest of the control plane. All endpoints are named by key."""

    async def look(self, endpoint: str) -> EndpointNow | None:
        """None: there is no such endpoint."""
        ...

    async def collect(self) -> ScorerTotals:
        """What all scorers have counted together."""
        ...

    async def set_traffic(
        self, endpoint: str, shares: dict[str, int], *, expected: dict[str, int], actor_name: str, reason: str
    ) -> None:
        """Publish these shares, which take the mirror away from whoever gets a share. Returns when every scorer has
        them. Raises Problem where the traffic is not `expected` any more, the endpoint is being changed, or the
        change fails."""
        ...

    async def save(self, rollout: RolloutYaml, state: RolloutState) -> None:
        """Durable when it returns."""
        ...

    async def event(self, endpoint: str, deployment: str, name: str, message: str) -> None: ...


def obstacles(rollout: RolloutYaml, now: EndpointNow) -> list[str]:
    """Why traffic cannot be moved, in sentences."""
    sentences = []
    for key, name in (("from", rollout.old), ("to", rollout.new)):
        if name not in now.deployments:
            there = ", ".join(sorted(now.deployments)) or "none"
            sentences.append(f"{key}: endpoint {rollout.endpoint_name!r} has no deployment {name!r}; it has: {there}")
        elif key == "to" and now.deployments[name]:
            sentences.append(f"to: deployment {name!r} failed: {now.deployments[name]}")
    traffic = normal(now.traffic)
    if not sentences and not pool(rollout, traffic):
        both = f"{rollout.from_} and {rollout.to}"
        sentences.append(f"from: {both} have no traffic to divide; the traffic is {said_of(traffic)}")
    return sentences


def lost(rollout: RolloutYaml, now: EndpointNow | None) -> str:
    """Why there is nothing to go on with; "" if there is."""
    if now is None:
        return "the endpoint was deleted"
    if rollout.new not in now.deployments:
        return f"deployment {rollout.to} was deleted"
    if now.deployments[rollout.new]:
        return f"deployment {rollout.to} failed: {now.deployments[rollout.new]}"
    return f"deployment {rollout.from_} was deleted" if rollout.old not in now.deployments else ""


def said_of(traffic: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {percent}" for name, percent in sorted(traffic.items())) or "none"

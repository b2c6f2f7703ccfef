"""The control plane as rollouts see it: looking at an endpoint, moving its traffic, saving where they are.

Errors: Problem: PRECONDITION_FAILED where the traffic is not as expected, CONFLICT while the endpoint is changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec

from gateway.controlplane.authorize import Actor, Role
from gateway.controlplane.control import Control
from gateway.controlplane.documents import from_builtins, to_builtins
from gateway.controlplane.matching import Match, etag_of
from gateway.controlplane.rollout.document import RolloutYaml
from gateway.controlplane.rollout.state import RolloutState, state_from_builtins, state_to_builtins
from gateway.controlplane.rollout.world import EndpointNow
from gateway.controlplane.store.records import Event, Kind, Ref, Resource, State, Status
from gateway.controlplane.store.transaction import Transaction
from gateway.controlplane.yaml_types import OnlineEndpointYaml
from gateway.errors import Code, Problem
from gateway.telemetry.totals import ScorerTotals


class RolloutWorld:
    """`collect` asks all scorers for their counters."""

    def __init__(self, control: Control, collect: Callable[[], Awaitable[ScorerTotals]]) -> None:
        self._control = control
        self._collect = collect

    async def look(self, endpoint: str) -> EndpointNow | None:
        served = self._control.publisher.desired.endpoints.get(endpoint)
        if served is None:
            return None
        resources = await self._control.store.read(lambda tx: tx.find(Kind.ONLINE_DEPLOYMENT, endpoint))
        failures = self._control.publisher.applied.failures
        return EndpointNow(
            traffic=served.traffic,
            deployments={one.ref.key: _failure(one, failures.get(f"{endpoint}/{one.ref.key}")) for one in resources},
        )

    async def collect(self) -> ScorerTotals:
        return await self._collect()

    async def set_traffic(
        self, endpoint: str, shares: dict[str, int], *, expected: dict[str, int], actor_name: str, reason: str
    ) -> None:
        found = await self._control.get(Ref(kind=Kind.ONLINE_ENDPOINT, key=endpoint))
        served = self._control.publisher.desired.endpoints.get(endpoint)
        if found is None or served is None:
            raise Problem(Code.NOT_FOUND, f"there is no online endpoint {endpoint}")
        now = {name: percent for name, percent in served.traffic.items() if percent}
        if now != expected:
            raise Problem(Code.PRECONDITION_FAILED, f"the traffic of {endpoint} is {now}; {expected} was expected")
        document = from_builtins(Kind.ONLINE_ENDPOINT, found.document)
        assert isinstance(document, OnlineEndpointYaml)
        mirror = {name: percent for name, percent in document.mirror_traffic.items() if name not in shares}
        wanted = msgspec.structs.replace(document, traffic=shares, mirror_traffic=mirror)
        actor = Actor(name=actor_name, role=Role.OPERATOR, source=f"rollout: {reason}"[:200])
        accepted = await self._control.put(
            Kind.ONLINE_ENDPOINT, "", found.name, wanted, actor, match=Match(if_match=etag_of(found.version))
        )
        if accepted.operation is not None:
            ended = await self._control.ended(accepted.operation)
            if ended.status is not Status.SUCCEEDED:
                raise Problem(Code.CONFLICT, f"the traffic could not be moved: {ended.error_message}")

    async def save(self, rollout: RolloutYaml, state: RolloutState) -> None:
        await self._control.write_until_done(lambda tx: self._save(tx, rollout, state))

    async def event(self, endpoint: str, deployment: str, name: str, message: str) -> None:
        event = Event(at=self._control.now(), endpoint=endpoint, deployment=deployment, name=name, message=message)
        await self._control.write_until_done(lambda tx: tx.add_event(event))

    async def saved(self) -> list[tuple[RolloutYaml, RolloutState]]:
        """All that are stored, also those that are over."""
        found = await self._control.store.read(lambda tx: tx.find(Kind.ROLLOUT))
        return [
            (msgspec.convert(one.document, RolloutYaml), state_from_builtins(one.served))
            for one in found
            if one.served is not None
        ]

    def _save(self, tx: Transaction, rollout: RolloutYaml, state: RolloutState) -> None:
        ref = Ref(kind=Kind.ROLLOUT, parent=rollout.endpoint, key=rollout.name.lower())
        existing, now = tx.get(ref), self._control.now()
        before = existing or Resource(
            ref=ref,
            name=rollout.name,
            parent_name=rollout.endpoint_name,
            document={},
            created_at=now,
            created_by="gateway",
            modified_at=now,
            modified_by="gateway",
        )
        moved = replace(
            before,
            document=to_builtins(rollout),
            served=state_to_builtins(state),
            state=State.SUCCEEDED,
            modified_at=now,
        )
        tx.put(moved, expected=existing.version if existing is not None else None)


def _failure(resource: Resource, failure: str | None) -> str:
    """Why a deployment takes no traffic; "" where it does."""
    if failure:
        return failure
    return "" if resource.served is not None else resource.reason or f"its state is {resource.state}"

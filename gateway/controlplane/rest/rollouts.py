"""Rollouts over REST: begun with PUT, looked at with GET, told what to do with POST, forgotten with DELETE.

A stored rollout's `document` is what was asked for, its `served` where it is. What goes on is the runner's to say.
Shapes: `{"id", "name", "type", "etag", "properties"}`; properties are the rollout's keys, then how it goes.
Errors: Problem: 404, 409 where another one runs, 400.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.controlplane.arm.envelope import list_body, resource_body
from gateway.controlplane.arm.ids import resource_id, resource_type
from gateway.controlplane.matching import etag_of
from gateway.controlplane.rest.context import Call, Reply
from gateway.controlplane.rest.endpoints import ONLINE_ENDPOINTS
from gateway.controlplane.rest.own import audited
from gateway.controlplane.rollout.document import rollout_of
from gateway.controlplane.rollout.state import RolloutState, state_from_builtins
from gateway.controlplane.rollout.view import describe
from gateway.controlplane.store.records import Kind, Ref, Resource
from gateway.controlplane.store.transaction import Transaction
from gateway.errors import Code, Problem


async def list_(call: Call) -> Reply:
    """GET .../onlineEndpoints/{e}/rollouts"""
    endpoint = await ONLINE_ENDPOINTS.need(call)
    found = await call.read(lambda tx: tx.find(Kind.ROLLOUT, endpoint.ref.key))
    return Reply(body=list_body([_body(call, one) for one in found]))


async def get(call: Call) -> Reply:
    """GET .../rollouts/{r}"""
    return _shown(call, await _need(call))


async def put(call: Call) -> Reply:
    """PUT .../rollouts/{r}: begin. The same again is no mistake while it goes on."""
    body = await call.json()
    endpoint = await ONLINE_ENDPOINTS.need(call)
    properties = body.get("properties", body)
    if not isinstance(properties, dict):
        raise Problem(Code.INVALID_INPUT, f"properties is {properties!r:.60}; accepted: an object")
    rollout = rollout_of(endpoint.name, call.params["rollout"], properties)
    ref = _ref(call)
    existing = await call.read(lambda tx: tx.get(ref))
    call.match.check(existing, f"rollout {rollout.name}")
    await call.services.rollouts.start(rollout, call.actor.name)
    return _shown(call, await _need(call), 200 if existing is not None else 201)


def command(name: str) -> Callable[[Call], Awaitable[Reply]]:
    """The handler of POST .../rollouts/{r}/{name}"""

    async def handler(call: Call) -> Reply:
        resource = await _need(call)
        act = getattr(call.services.rollouts, name)
        await act(resource.ref.parent, resource.name, call.actor.name)
        return _shown(call, await _need(call))

    return handler


async def delete(call: Call) -> Reply:
    """DELETE .../rollouts/{r}: forget one that is over."""
    ref = _ref(call)
    await ONLINE_ENDPOINTS.need(call)

    def work(tx: Transaction) -> bool:
        resource = tx.get(ref)
        if resource is None:
            return False
        call.match.check(resource, f"rollout {resource.name}")
        state = _state(resource)
        if state is not None and not state.status.is_over:
            raise Problem(
                Code.CONFLICT, f"rollout {resource.name!r} is {state.status}; cancel it, or wait for its end"
            )
        tx.add_audit(audited(call, "delete", f"rollout {ref.parent}/{resource.name}", {}))
        return tx.delete(ref, expected=resource.version)

    was_there = await call.control.store.write(work)
    return Reply(status=200 if was_there else 204)


def _ref(call: Call) -> Ref:
    return Ref(kind=Kind.ROLLOUT, parent=call.params["endpoint"].lower(), key=call.params["rollout"].lower())


async def _need(call: Call) -> Resource:
    ref = _ref(call)
    found = await call.read(lambda tx: tx.get(ref))
    if found is None:
        await ONLINE_ENDPOINTS.need(call)
        raise Problem(
            Code.NOT_FOUND, f"there is no rollout {call.params['rollout']!r} on endpoint {call.params['endpoint']!r}"
        )
    return found


def _shown(call: Call, resource: Resource, status: int = 200) -> Reply:
    return Reply(status=status, body=_body(call, resource), headers={"etag": etag_of(resource.version)})


def _body(call: Call, resource: Resource) -> dict[str, Any]:
    id_ = resource_id(call.workspace, Kind.ROLLOUT, resource.name, resource.parent_name)
    properties = dict(resource.document) | _progress(call, resource)
    return resource_body(resource, id_=id_, type_=resource_type(Kind.ROLLOUT), properties=properties)


def _progress(call: Call, resource: Resource) -> dict[str, Any]:
    view = call.services.rollouts.view(resource.ref.parent)
    if view is not None and view.rollout.name.lower() == resource.ref.key:
        return describe(view.rollout, view.state, view.seen, view.doing)
    state = _state(resource)
    rollout = rollout_of(resource.parent_name, resource.name, resource.document)
    return describe(rollout, state, None, "") if state is not None else {}


def _state(resource: Resource) -> RolloutState | None:
    return state_from_builtins(resource.served) if resource.served is not None else None

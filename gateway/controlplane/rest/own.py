"""The gateway's own routes, beside ARM's: status, reload, apply, export, the audit log, management tokens, documents.

Shapes: lists are `{"value": [...], "nextLink": null}` as everywhere; times are RFC 3339.
Errors: Problem.
"""

from __future__ import annotations

import math
from typing import Any

from gateway.controlplane.arm.envelope import list_body, timestamp
from gateway.controlplane.authorize import Role, make_token
from gateway.controlplane.rest.context import Call, Reply
from gateway.controlplane.rest.endpoints import ONLINE_ENDPOINTS
from gateway.controlplane.rest.paging import encoded
from gateway.controlplane.rest.query import BEFORE, DEPLOYMENT, LIMIT, TARGET, WHO
from gateway.controlplane.store.database import VersionConflict
from gateway.controlplane.store.records import AuditEntry, Event, ManagementToken
from gateway.controlplane.store.transaction import Transaction
from gateway.errors import Code, Problem

LIMIT_DEFAULT = 100


async def index(call: Call) -> Reply:
    """GET /"""
    body = {
        "name": "inference-gateway",
        "version": call.services.version,
        "openapi": f"{call.base}/openapi.json",
        "status": f"{call.base}/status",
    }
    return Reply(body=body)


async def openapi(call: Call) -> Reply:
    """GET /openapi.json"""
    return Reply(body=call.services.openapi())


async def status(call: Call) -> Reply:
    """GET /status"""
    return Reply(body=call.services.operator.status())


async def reload(call: Call) -> Reply:
    """POST /reload"""
    answer = await call.services.operator.reload()
    return Reply(status=200 if answer.ok else 409, body=answer.as_json())


async def apply(call: Call) -> Reply:
    """POST /apply"""
    return Reply(body=await call.services.apply(await call.json(), call.actor))


async def export(call: Call) -> Reply:
    """GET /export"""
    return Reply(body=await call.services.export())


# The audit log and events.


async def audit(call: Call) -> Reply:
    """GET /audit: the newest first."""
    query = call.query
    limit, before = query.number(LIMIT) or LIMIT_DEFAULT, query.number(BEFORE)
    who, target = query.text(WHO), query.text(TARGET)
    found = await call.read(lambda tx: tx.audits(before=before, limit=limit + 1, who=who, target=target))
    entries = found[:limit]
    following = None
    if len(found) > limit:
        following = f"{call.base}{call.path}?{encoded({**query.given, BEFORE.name: str(entries[-1].id)})}"
    return Reply(body=list_body([_entry(one) for one in entries], following))


async def events(call: Call) -> Reply:
    """GET .../onlineEndpoints/{e}/events: the last ones, the oldest first."""
    endpoint = await ONLINE_ENDPOINTS.need(call)
    deployment = call.query.text(DEPLOYMENT).lower() or None
    limit = call.query.number(LIMIT) or LIMIT_DEFAULT
    found = await call.read(lambda tx: tx.events(endpoint.ref.key, deployment, limit))
    return Reply(body=list_body([_event(one) for one in found]))


def _entry(entry: AuditEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "time": timestamp(entry.at),
        "who": entry.who,
        "role": entry.role,
        "source": entry.source,
        "requestId": entry.request_id,
        "action": entry.action,
        "target": entry.target,
        "outcome": entry.outcome,
        "detail": entry.detail,
    }


def _event(event: Event) -> dict[str, Any]:
    return {
        "time": timestamp(event.at),
        "deployment": event.deployment,
        "name": event.name,
        "message": event.message,
    }


# Management tokens.


async def tokens(call: Call) -> Reply:
    """GET /tokens: what there is, never the tokens themselves."""
    found = await call.read(lambda tx: tx.tokens())
    return Reply(body=list_body([_token(one) for one in found]))


async def add_token(call: Call) -> Reply:
    """POST /tokens: the one answer that has the token's text."""
    body = await call.json()
    name, role, lifetime_s = _token_asked(body)
    text, record = make_token(name, role, lifetime_s, call.actor.name, call.services.now())

    def work(tx: Transaction) -> None:
        tx.add_token(record)
        tx.add_audit(audited(call, "create", f"management token {name}", {"role": role.text}))

    try:
        await call.control.store.write(work)
    except VersionConflict:
        raise Problem(Code.CONFLICT, f"there is a management token {name!r} already; delete it first") from None
    return Reply(status=201, body=_token(record) | {"token": text})


async def delete_token(call: Call) -> Reply:
    """DELETE /tokens/{token}: it stops working at once."""
    name = call.params["token"]

    def work(tx: Transaction) -> bool:
        was_there = tx.delete_token(name)
        if was_there:
            tx.add_audit(audited(call, "delete", f"management token {name}", {}))
        return was_there

    was_there = await call.control.store.write(work)
    call.services.doorkeeper.forget()
    return Reply(status=200 if was_there else 204)


def _token_asked(body: dict[str, Any]) -> tuple[str, Role, int | None]:
    name, text, lifetime = body.get("name"), body.get("role"), body.get("lifetimeSeconds")
    role = Role.of(text.lower()) if isinstance(text, str) else None
    if role is None:
        accepted = ", ".join(one.text for one in Role)
        raise Problem(Code.INVALID_INPUT, f"role is {text!r:.60}; accepted: {accepted}")
    if not isinstance(name, str):
        raise Problem(Code.INVALID_INPUT, f"name is {name!r:.60}; accepted: a name for the token")
    is_whole = (
        isinstance(lifetime, int | float) and not isinstance(lifetime, bool) and math.floor(lifetime) == lifetime
    )
    if lifetime is not None and not is_whole:
        raise Problem(
            Code.INVALID_INPUT, f"lifetimeSeconds is {lifetime!r:.60}; accepted: whole seconds, or none for no end"
        )
    return name, role, None if lifetime is None else int(lifetime)


def _token(record: ManagementToken) -> dict[str, Any]:
    return {
        "name": record.name,
        "role": record.role,
        "createdAt": timestamp(record.created_at),
        "createdBy": record.created_by,
        "expiresAt": timestamp(record.expires_at) if record.expires_at is not None else None,
    }


def audited(call: Call, action: str, target: str, detail: dict[str, Any]) -> AuditEntry:
    actor = call.actor
    return AuditEntry(
        at=call.services.now(),
        who=actor.name,
        role=actor.role.text,
        source=actor.source,
        request_id=actor.request_id,
        action=action,
        target=target,
        outcome="succeeded",
        detail=detail,
    )

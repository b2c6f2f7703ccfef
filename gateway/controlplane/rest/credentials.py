"""Credentials of endpoints: keys told, keys replaced, tokens made.

Shapes: ARM's listKeys, regenerateKeys and token. No answer here is kept by a cache (app.py says so for all).
Errors: Problem: 404, and 400 where the endpoint's auth mode has no such credential.
"""

from __future__ import annotations

from gateway.controlplane.keyring import Which
from gateway.controlplane.rest import lro
from gateway.controlplane.rest.context import Call, Reply
from gateway.controlplane.rest.endpoints import BATCH_ENDPOINTS, ONLINE_ENDPOINTS
from gateway.controlplane.store.records import Status
from gateway.errors import Code, Problem


async def keys(call: Call) -> Reply:
    """POST .../onlineEndpoints/{e}/listKeys"""
    endpoint = await ONLINE_ENDPOINTS.need(call)
    found = await call.control.keys(endpoint.ref.key)
    return Reply(body={"primaryKey": found.primary, "secondaryKey": found.secondary})


async def regenerate(call: Call) -> Reply:
    """POST .../onlineEndpoints/{e}/regenerateKeys. A keyValue that is the current key means: make one."""
    body = await call.json()
    endpoint = await ONLINE_ENDPOINTS.need(call)
    which, value = _which(body.get("keyType")), body.get("keyValue")
    if value is not None and not isinstance(value, str):
        raise Problem(Code.INVALID_INPUT, "keyValue is no text; accepted: a key, or nothing for a new one")
    operation = await call.control.regenerate(endpoint.ref.key, which, value or None, call.actor)
    if operation.status is Status.SUCCEEDED:
        return Reply(status=200)
    return Reply(status=202, headers=lro.headers(call, operation, result=True))


def _which(given: object) -> Which:
    match given.lower() if isinstance(given, str) else None:
        case "primary":
            return "primary"
        case "secondary":
            return "secondary"
        case _:
            raise Problem(Code.INVALID_INPUT, f"keyType is {given!r:.60}; accepted: Primary or Secondary")


async def token(call: Call) -> Reply:
    """POST .../onlineEndpoints/{e}/token"""
    endpoint = await ONLINE_ENDPOINTS.need(call)
    return Reply(body=await call.control.token(endpoint.ref.key))


async def batch_keys(call: Call) -> Reply:
    """POST .../batchEndpoints/{e}/listkeys"""
    endpoint = await BATCH_ENDPOINTS.need(call)
    raise Problem(
        Code.NOT_FOUND,
        f"batch endpoint {endpoint.name} has no keys: its auth mode is aad_token; send a management token",
    )

"""Members that bodies of several kinds share: tags, free properties and what is echoed there, identity, references.

Echoes: clients send back in `properties.properties` what answers put there; those names are left out when reading.
Our block `gateway:` travels there as JSON text. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.controlplane.arm import ids
from gateway.controlplane.arm.bodies import (
    Member,
    Wrong,
    is_word,
    names,
    object_of,
    pascal,
    shown,
    text_of,
    texts,
)
from gateway.controlplane.arm.ids import Workspace
from gateway.controlplane.documents import to_builtins
from gateway.controlplane.store.records import Kind

ENDPOINT_ID = "azureml.onlineendpointid"
OPERATION_URI = "AzureAsyncOperationUri"
GATEWAY = "gateway"
FAULT = "gateway.fault"
# What answers put into properties.properties, and what clients add there of their own.
ECHOES = frozenset(
    {
        ENDPOINT_ID,
        OPERATION_URI,
        GATEWAY,
        FAULT,
        "createdBy",
        "createdAt",
        "lastModifiedAt",
        "private-network-connection",
    }
)
# The gateway's own interpreter, which is no registered environment.
LOCAL = "local"
_LOCAL_REFERENCE = f"azureml:{LOCAL}@latest"
# There is no managed identity; clients expect to find these two.
_NOBODY = "00000000-0000-0000-0000-000000000000"


def free_properties(value: Any) -> dict[str, Any]:
    """Free names and values without what is echoed."""
    return {name: one for name, one in texts(value).items() if name not in ECHOES}


def free_outward(value: Any, _: Workspace) -> dict[str, Any]:
    """What is called as our block is, is not shown: it would be read as the block."""
    return {name: one for name, one in value.items() if name != GATEWAY}


def reference(kind: Kind) -> Callable[[Any], str | None]:
    """An asset as clients name it, in stored form."""
    return lambda value: ids.asset_reference(text_of(value), kind) if value != "" else None


def identified(kind: Kind) -> Callable[[Any, Workspace], str | None]:
    """An asset in stored form, as its id. An inline one has no id: its path."""

    def outward(value: Any, workspace: Workspace) -> str | None:
        text = getattr(value, "path", "") if isinstance(value, msgspec.Struct) else value
        return ids.asset_id(workspace, kind, text) if text else None

    return outward


def environment_inward(value: Any) -> str | None:
    """An environment; the gateway's own by the id that answers give it, or by its name."""
    found = text_of(value) if value != "" else ""
    if not found or found.lower() == LOCAL:
        return found.lower() or None
    stored = ids.asset_reference(found, Kind.ENVIRONMENT)
    return LOCAL if stored.lower() == _LOCAL_REFERENCE else stored


def environment_outward(value: Any, workspace: Workspace) -> str | None:
    if isinstance(value, str) and value.lower() == LOCAL:
        # Clients take nothing but ids, and send back what they were given.
        value = _LOCAL_REFERENCE
    return identified(Kind.ENVIRONMENT)(value, workspace)


def model_inward(value: Any) -> str | None:
    """A model as online deployments give it (an id) or as batch deployments do (an object with one)."""
    if isinstance(value, dict):
        value = next((one for name, one in value.items() if is_word(name, "assetId")), None)
    return None if value in (None, "") else ids.asset_reference(text_of(value), Kind.MODEL)


def gateway_inward(value: Any) -> dict[str, Any]:
    """Our block from its JSON text; an object is taken too."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Wrong(f"found {shown(value)}; accepted: JSON text of an object ({error})") from error
    return object_of(value)


def gateway_outward(value: Any, _: Workspace) -> str | None:
    given = to_builtins(value)
    return msgspec.json.encode(given).decode() if given else None


def compute_outward(value: Any, workspace: Workspace) -> str | None:
    return ids.compute_id(workspace, value) or None


def identity_inward(value: Any) -> dict[str, Any] | None:
    given = object_of(value)
    kind = given.get("type")
    if kind is None:
        return None
    if isinstance(kind, str) and "userassigned" in kind.lower().replace("_", ""):
        kind = "user_assigned"  # ARM has one for both kinds at once
    users = object_of(given.get("userAssignedIdentities") or {})
    return {"type": kind, "user_assigned_identities": [{"resource_id": one} for one in users]}


def identity_outward(value: Any, _: Workspace) -> dict[str, Any]:
    """`value` is the default where nothing was given."""
    body: dict[str, Any] = {"type": pascal(value.type, _), "principalId": None, "tenantId": None}
    if value.type == "system_assigned":
        body |= {"principalId": _NOBODY, "tenantId": _NOBODY}
    if value.user_assigned_identities:
        body["userAssignedIdentities"] = {
            one.resource_id: {"principalId": _NOBODY, "clientId": _NOBODY} for one in value.user_assigned_identities
        }
    return body


DESCRIPTION = Member(arm="properties.description", document="description")
TAGS = Member(arm="tags", document="tags", inward=texts, outward=names)
PROPERTIES = Member(arm="properties.properties", document="properties", inward=free_properties, outward=free_outward)
GATEWAY_BLOCK = Member(
    arm="properties.properties.gateway",
    document="gateway",
    inward=gateway_inward,
    outward=gateway_outward,
    is_optional=True,
)
IDENTITY = Member(
    arm="identity",
    document="identity",
    inward=identity_inward,
    outward=identity_outward,
    words={"user_assigned_identities": "userAssignedIdentities", "resource_id": "resourceId"},
)
ENVIRONMENT = Member(
    arm="properties.environmentId",
    document="environment",
    inward=environment_inward,
    outward=environment_outward,
)
VARIABLES = Member(
    arm="properties.environmentVariables", document="environment_variables", inward=texts, outward=names
)
CODE = (
    Member(
        arm="properties.codeConfiguration.codeId",
        document="code_configuration.code",
        inward=reference(Kind.CODE),
        outward=identified(Kind.CODE),
        is_optional=True,
    ),
    Member(
        arm="properties.codeConfiguration.scoringScript",
        document="code_configuration.scoring_script",
        is_optional=True,
    ),
)


def code_or_null(properties: dict[str, Any]) -> None:
    """`codeConfiguration` is null, never an empty object, where there is no script."""
    properties.setdefault("codeConfiguration", None)


def echo(properties: dict[str, Any], operation_uri: str, online_id: str = "") -> None:
    """What answers put into properties.properties beside what was given."""
    free = properties["properties"]
    if online_id:
        free[ENDPOINT_ID] = online_id.lower()
    if operation_uri:
        free[OPERATION_URI] = operation_uri


def has_gateway(body: Any) -> bool:
    """Whether a body speaks of our block at all."""
    for name in ("properties", "properties"):
        body = body.get(name) if isinstance(body, dict) else None
    return isinstance(body, dict) and body.get(GATEWAY) is not None

"""The schemas of the management listener's bodies: what is accepted, and what every answer has.

Requests: only what is refused is forbidden. Clients of many versions send much that is ignored, null where something
is absent, and choices in any case; so a request's schema names the objects in it and leaves the rest to the sentences
of the refusal. Answers: what a client may rely on is required.
Source: contract/azure-ml-endpoints.md sections 3 and 4.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.controlplane.apply_bundle import Applied, Bundle
from gateway.controlplane.export import Exported

Schema = dict[str, Any]


def _text(description: str = "") -> Schema:
    return {"type": "string"} | ({"description": description} if description else {})


def _nullable(schema: Schema) -> Schema:
    return schema | {"type": [schema["type"], "null"]}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(properties: Schema, *optional: str) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_SHARES: Schema = {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 100}}
_WHOLE: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_FLAG: Schema = {"type": "boolean"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_FREE: Schema = {"type": "object"}
_STATES = ["Creating", "Updating", "Scaling", "Deleting", "Succeeded", "Failed", "Canceled"]
_STATE: Schema = {"type": "string", "enum": _STATES}


def schemas() -> Schema:
    """All, by the names that the route table gives."""
    _, made = msgspec.json.schema_components((Bundle, Applied, Exported), ref_template="#/components/schemas/{name}")
    return {**made, **_shared(), **_own(), **_workspace(), **_online(), **_rollouts(), **_batch(), **_assets()}


def _shared() -> Schema:
    detail = _object({"code": _text(), "message": _text(), "target": _nullable(_text())})
    error = _object(
        {
            "code": _text("What clients branch on: ResourceNotFound, InvalidInput ..."),
            "message": _text("Sentences for a person."),
            "target": _nullable(_text()),
            "details": _list(detail),
            "additionalInfo": _list({}),
        }
    )
    operation = {
        "id": _text(),
        "name": _text(),
        "status": {"type": "string", "enum": ["InProgress", "Succeeded", "Failed", "Canceled"]},
        "startTime": _TIME,
        "endTime": _nullable(_TIME),
        "percentComplete": _NUMBER,
        "error": {"anyOf": [error, {"type": "null"}]},
    }
    return {
        "EventStream": {
            "description": "Server-sent events: `data` lines are lines of the log, `id` goes back as Last-Event-ID; "
            "`event: lost` tells of lines that are not kept any more, `event: end` why there are no more.",
            "type": "string",
        },
        "Anything": {"description": "Any JSON object.", "type": "object"},
        "Error": _object({"error": error}),
        "Operation": _object(operation),
        "Resource": _resource(_FREE),
        "ResourceList": _page("Resource"),
        "SystemData": _object(
            {
                "createdAt": _TIME,
                "createdBy": _text(),
                "createdByType": _text(),
                "lastModifiedAt": _TIME,
                "lastModifiedBy": _text(),
                "lastModifiedByType": _text(),
            }
        ),
    }


def _resource(properties: Schema, **more: Schema) -> Schema:
    members = {"id": _text("An ARM id."), "name": _text(), "type": _text(), "properties": properties}
    return _object(members | more)


def _stored(properties: Schema, **more: Schema) -> Schema:
    """A resource of the store."""
    return _resource(properties, etag=_text("As the header ETag."), systemData=_ref("SystemData"), **more)


def _page(name: str) -> Schema:
    following = _nullable(_text("The URL of the next page; null at the end."))
    return _object({"value": _list(_ref(name)), "nextLink": following})


# ---- the gateway's own -----------------------------------------------------------------------------------------


def _own() -> Schema:
    token = {
        "name": _text(),
        "role": {"type": "string", "enum": ["reader", "operator", "admin"]},
        "createdAt": _TIME,
        "createdBy": _text(),
        "expiresAt": _nullable(_TIME),
    }
    entry = {
        "id": _WHOLE,
        "time": _TIME,
        "who": _text(),
        "role": _text(),
        "source": _text("The address that the request came from."),
        "requestId": _text(),
        "action": _text(),
        "target": _text(),
        "outcome": _text(),
        "detail": _FREE,
    }
    event = {"time": _TIME, "deployment": _text(), "name": _text(), "message": _text()}
    return {
        "Index": _object({"name": _text(), "version": _text(), "openapi": _text(), "status": _text()}),
        "Status": {"type": "object", "description": "What is served, by endpoint and deployment, and by whom."},
        "Answer": _object({"ok": _FLAG, "message": _text(), "data": {}}),
        "AuditList": _object({"value": _list(_object(entry)), "nextLink": _nullable(_text())}),
        "EventList": _object({"value": _list(_object(event)), "nextLink": _nullable(_text())}),
        "TokenList": _object({"value": _list(_object(token)), "nextLink": _nullable(_text())}),
        "NewToken": _object(token | {"token": _text("The token itself. It is not told again.")}),
        "TokenRequest": _object(
            {
                "name": {"type": "string", "pattern": "^[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?$"},
                "role": {"type": "string", "enum": ["reader", "operator", "admin"]},
                "lifetimeSeconds": {
                    "type": ["integer", "null"],
                    "minimum": 1,
                    "maximum": 315_532_800,
                    "description": "Not given: it has no end.",
                },
            },
            "lifetimeSeconds",
        ),
    }


def _workspace() -> Schema:
    services = ("api", "catalog", "experimentation", "history", "modelmanagement", "studio")
    cloud = {
        "name": _text(),
        "portal": _text(),
        "resourceManager": _text(),
        "authentication": _object({"loginEndpoint": _text(), "audiences": _list(_text())}),
        "suffixes": _object({"storage": _text()}),
    }
    properties = {
        "friendlyName": _text(),
        "discoveryUrl": _text(),
        "workspaceId": _text(),
        "mlFlowTrackingUri": _text(),
        "provisioningState": _text(),
    }
    return {
        "Workspace": _resource(_object(properties), location=_text(), tags=_TEXTS),
        "Discovery": _object({name: _text() for name in services}),
        "Clouds": _list(_object(cloud)),
        "DatastoreSecrets": _object({"secretsType": _text(), "sasToken": _text("A query string.")}),
    }


# ---- online ----------------------------------------------------------------------------------------------------


def _online() -> Schema:
    endpoint = {
        "authMode": {"type": "string", "enum": ["Key", "AMLToken", "AADToken"]},
        "description": _nullable(_text()),
        "properties": _TEXTS,
        "traffic": _SHARES,
        "mirrorTraffic": _SHARES,
        "publicNetworkAccess": {"type": "string", "enum": ["Enabled", "Disabled"]},
        "scoringUri": _text(),
        "swaggerUri": _text(),
        "provisioningState": _STATE,
    }
    deployment = {
        "endpointComputeType": {"type": "string", "enum": ["Managed", "Kubernetes"]},
        "scaleSettings": _object({"scaleType": {"type": "string", "enum": ["Default", "TargetUtilization"]}}),
        "requestSettings": _object({"requestTimeout": _text("ISO 8601.")}),
        "environmentVariables": _TEXTS,
        "description": _nullable(_text()),
        "properties": _TEXTS,
        "provisioningState": _STATE,
    }
    sku = _object({"name": _text(), "capacity": _WHOLE})
    online = {"location": _text(), "tags": _TEXTS}
    capacity = _object({"minimum": _WHOLE, "maximum": _WHOLE, "default": _WHOLE, "scaleType": _text()})
    skus = _object(
        {"resourceType": _text(), "sku": _object({"name": _text(), "tier": _text()}), "capacity": capacity}
    )
    return {
        "OnlineEndpoint": _stored(_object(endpoint), identity=_object({"type": _text()}), **online),
        "OnlineEndpointList": _page("OnlineEndpoint"),
        "OnlineEndpointRequest": _request("traffic", "mirrorTraffic", "properties", top=("tags", "identity")),
        "OnlineDeployment": _stored(_object(deployment), sku=sku, **online),
        "OnlineDeploymentList": _page("OnlineDeployment"),
        "OnlineDeploymentRequest": _request(
            *("codeConfiguration", "environmentVariables", "scaleSettings", "requestSettings", "livenessProbe"),
            *("readinessProbe", "properties"),
            top=("tags", "sku"),
        ),
        "Keys": _object({"primaryKey": _text(), "secondaryKey": _text()}),
        "RegenerateRequest": _object(
            {
                "keyType": {"type": "string", "enum": ["Primary", "Secondary"]},
                "keyValue": _nullable(_text("The key; not given, or the current one: a new one is made.")),
            },
            "keyValue",
        ),
        "Token": _object(
            {
                "accessToken": _text(),
                "expiryTimeUtc": _WHOLE,
                "refreshAfterTimeUtc": _WHOLE,
                "tokenType": {"type": "string", "enum": ["Bearer"]},
            }
        ),
        "LogsRequest": _object(
            {"tail": {"type": ["integer", "null"], "minimum": 0}, "containerType": _nullable(_text())},
            *("tail", "containerType"),
        ),
        "Logs": _object({"content": _text()}),
        "Skus": _object({"value": _list(skus), "nextLink": {"type": "null"}}),
    }


def _request(*objects: str, top: tuple[str, ...] = ("tags",)) -> Schema:
    """A body whose members of these names, and whose `properties`, are objects where they are given."""
    inside = {name: _nullable(_FREE) for name in objects}
    members = {name: _nullable(_FREE) for name in top}
    return {"type": "object", "properties": members | {"properties": _nullable(_FREE) | {"properties": inside}}}


def _rollouts() -> Schema:
    properties = {
        "name": _text(),
        "endpoint_name": _text(),
        "from": _text(),
        "to": _text(),
        "status": _text("Running, Paused, Succeeded, RolledBack, Cancelled or Failed."),
        "step": _WHOLE,
        "steps": _list(_WHOLE),
        "percent": _WHOLE,
        "step_since": _NUMBER,
        "started_at": _NUMBER,
        "ended_at": _nullable(_NUMBER),
        "traffic": _SHARES,
        "reason": _text("Why it is where it is, or what it does."),
    }
    asked = {"type": "object", "required": ["from", "to"], "properties": {"from": _text(), "to": _text()}}
    return {
        "Rollout": _stored(_object(properties)),
        "RolloutList": _page("Rollout"),
        # With or without ARM's envelope.
        "RolloutRequest": {"anyOf": [_object({"properties": asked}), asked]},
    }


# ---- batch and assets ------------------------------------------------------------------------------------------


def _batch() -> Schema:
    endpoint = {
        "authMode": _text(),
        "defaults": _FREE,
        "description": _nullable(_text()),
        "properties": _TEXTS,
        "scoringUri": _text(),
        "swaggerUri": _text(),
        "provisioningState": _STATE,
    }
    deployment = {
        "description": _nullable(_text()),
        "environmentVariables": _TEXTS,
        "properties": _TEXTS,
        "provisioningState": _STATE,
    }
    batch = {"location": _text(), "tags": _TEXTS}
    return {
        "BatchEndpoint": _stored(_object(endpoint), **batch),
        "BatchEndpointList": _page("BatchEndpoint"),
        "BatchEndpointRequest": _request("defaults", "properties"),
        "BatchDeployment": _stored(_object(deployment), **batch),
        "BatchDeploymentList": _page("BatchDeployment"),
        "BatchDeploymentRequest": _request(
            "codeConfiguration", "environmentVariables", "retrySettings", "resources", "properties"
        ),
    }


def _assets() -> Schema:
    common = {
        "description": _nullable(_text()),
        "tags": _TEXTS,
        "properties": _TEXTS,
        "isAnonymous": _FLAG,
        "isArchived": _FLAG,
        "provisioningState": _STATE,
    }
    container = {"latestVersion": _text(), "nextVersion": _text(), "isArchived": _FLAG, "provisioningState": _text()}
    kinds: dict[str, Schema] = {
        "ModelVersion": {"modelUri": _text(), "modelType": _text(), "flavors": _FREE},
        "EnvironmentVersion": {},
        "CodeVersion": {"codeUri": _text()},
        "DataVersion": {"dataUri": _text(), "dataType": _text()},
    }
    found: Schema = {
        "AssetContainer": _stored(_object(container)),
        "AssetContainerList": _page("AssetContainer"),
        "PendingUploadRequest": _object({"pendingUploadType": _nullable(_text())}, "pendingUploadType"),
        "PendingUpload": _object(
            {
                "pendingUploadId": _text(),
                "pendingUploadType": _text(),
                "blobReferenceForConsumption": _object(
                    {
                        "blobUri": _text(),
                        "storageAccountArmId": _text(),
                        "credential": _object({"credentialType": _text(), "sasUri": _text()}),
                    }
                ),
            }
        ),
    }
    for name, own in kinds.items():
        found[name] = _stored(_object(common | own))
        found[f"{name}List"] = _page(name)
        found[f"{name}Request"] = _request("tags", "properties", top=())
    return found

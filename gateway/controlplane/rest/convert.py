"""Between ARM bodies and what is stored, by kind: the one place where REST names the converters of controlplane/arm.

Errors: Problem(INVALID_INPUT) with all mistakes of a body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from gateway.controlplane.arm import assets, batch, online
from gateway.controlplane.arm.members import FAULT
from gateway.controlplane.documents import DocumentError, from_builtins, legible, to_builtins
from gateway.controlplane.rest.context import Call
from gateway.controlplane.rest.lro import LOCATION
from gateway.controlplane.store.records import Kind, Resource, State
from gateway.controlplane.yaml_types import (
    BatchDeploymentYaml,
    BatchEndpointYaml,
    OnlineDeploymentYaml,
    OnlineEndpointYaml,
)


def document_of(
    kind: Kind, body: dict[str, Any], names: tuple[str, str], existing: Resource | None
) -> msgspec.Struct:
    """The document of a PUT. `names`: the parent's ("" for none) and its own; of assets, the name and the version."""
    parent, name = names
    before = legible(kind, existing.document)[0] if existing is not None else None
    match kind:
        case Kind.ONLINE_ENDPOINT:
            assert before is None or isinstance(before, OnlineEndpointYaml)
            return online.read_endpoint(body, name, before)
        case Kind.ONLINE_DEPLOYMENT:
            assert before is None or isinstance(before, OnlineDeploymentYaml)
            return online.read_deployment(body, name, parent, before)
        case Kind.BATCH_ENDPOINT:
            return batch.read_endpoint(body, name)
        case Kind.BATCH_DEPLOYMENT:
            return batch.read_deployment(body, name, parent)
        case _:
            return assets.read_version(body, kind, parent, name)


def patched(existing: Resource, body: dict[str, Any]) -> msgspec.Struct:
    """The document after a PATCH."""
    match from_builtins(existing.ref.kind, existing.document):
        case OnlineEndpointYaml() as before:
            return online.patch_endpoint(before, body)
        case OnlineDeploymentYaml() as before:
            return online.patch_deployment(before, body)
        case BatchEndpointYaml() as before:
            return batch.patch_endpoint(before, body)
        case BatchDeploymentYaml() as before:
            return batch.patch_deployment(before, body)
        case _:
            raise AssertionError(f"{existing.ref.kind} has no PATCH")


def body_of(call: Call, resource: Resource, operation_uri: str = "") -> dict[str, Any]:
    """The ARM body of a resource. One that this version cannot read is Failed, and says why in its properties."""
    try:
        return _body(call, resource, operation_uri)
    except DocumentError:
        document, fault = legible(resource.ref.kind, resource.document)
        shown = replace(resource, document=to_builtins(document), state=State.FAILED)
        body = _body(call, shown, operation_uri)
        body["properties"]["properties"][FAULT] = f"{fault}; give it again"
        return body


def _body(call: Call, resource: Resource, operation_uri: str) -> dict[str, Any]:
    place = call.workspace
    match resource.ref.kind:
        case Kind.ONLINE_ENDPOINT:
            base = f"{call.scoring}/endpoints/{resource.name}"
            uris = {"scoring_uri": f"{base}/score", "swagger_uri": f"{base}/swagger.json"}
            return online.endpoint_body(resource, place, location=LOCATION, operation_uri=operation_uri, **uris)
        case Kind.ONLINE_DEPLOYMENT:
            instances = call.control.instances(resource.ref.parent, resource.ref.key)
            return online.deployment_body(
                resource, place, location=LOCATION, instances=instances, operation_uri=operation_uri
            )
        case Kind.BATCH_ENDPOINT:
            base = f"{call.base}/batchEndpoints/{resource.name}"
            uris = {"scoring_uri": f"{base}/jobs", "swagger_uri": f"{base}/swagger.json"}
            return batch.endpoint_body(resource, place, location=LOCATION, operation_uri=operation_uri, **uris)
        case Kind.BATCH_DEPLOYMENT:
            return batch.deployment_body(resource, place, location=LOCATION, operation_uri=operation_uri)
        case _:
            return assets.version_body(resource, place)


def container_body(call: Call, versions: Sequence[Resource]) -> dict[str, Any]:
    """The ARM body of an asset's name; `versions` in the order in which they were made, at least one."""
    following = assets.next_version(one.name for one in versions)
    is_archived = all(one.document.get("is_archived", False) for one in versions)
    latest = versions[-1]
    latest = replace(latest, document=to_builtins(legible(latest.ref.kind, latest.document)[0]))
    return assets.container_body(latest, call.workspace, following, is_archived)

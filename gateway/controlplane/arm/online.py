"""Online endpoints and deployments: ARM bodies to documents, and resources to ARM bodies.

A PUT replaces the whole, so that absent mirror traffic is none; only what ARM has no word for is kept of what there
was: our block `gateway:` where the body does not speak of it, and the count of instances where `sku` has no capacity.
So are times below a second that `requestSettings` leaves out: the client library reads whole seconds, sends no zero,
and would take them away by changing something else. A PATCH is a JSON merge patch of the body that a GET shows.
Errors: Problem(INVALID_INPUT) with all mistakes. Pure.
Source: contract/azure-ml-endpoints.md sections 3.4 and 8.4.
"""

from __future__ import annotations

from typing import Any

from gateway.controlplane.arm import ids, members
from gateway.controlplane.arm.bodies import (
    Member,
    Wrong,
    choice,
    is_word,
    merge,
    names,
    object_of,
    pascal,
    read,
    shown,
    spelled,
    write,
)
from gateway.controlplane.arm.envelope import resource_body
from gateway.controlplane.arm.ids import Workspace
from gateway.controlplane.documents import from_builtins, to_builtins
from gateway.controlplane.store.records import Kind, Resource
from gateway.controlplane.yaml_types import OnlineDeploymentYaml, OnlineEndpointYaml, ScaleYaml

_SECOND_MS = 1000


def _shares(value: Any) -> dict[str, Any]:
    """Percent by lower-cased name; what is null has none."""
    shares: dict[str, Any] = {}
    for name, percent in object_of(value).items():
        if name.lower() in shares:
            raise Wrong(f"deployment {name!r} is named twice; names are equal whatever their case")
        if percent is not None:
            shares[name.lower()] = percent
    return shares


# ---- endpoints -------------------------------------------------------------------------------------------------

_ENDPOINT = (
    members.TAGS,
    members.IDENTITY,
    members.DESCRIPTION,
    members.PROPERTIES,
    members.GATEWAY_BLOCK,
    Member(
        arm="properties.authMode",
        document="auth_mode",
        inward=choice,
        outward=spelled({"key": "Key", "aml_token": "AMLToken", "aad_token": "AADToken"}),
    ),
    Member(arm="properties.traffic", document="traffic", inward=_shares, outward=names),
    Member(arm="properties.mirrorTraffic", document="mirror_traffic", inward=_shares, outward=names),
    Member(arm="properties.compute", document="compute", outward=members.compute_outward),
    Member(arm="properties.publicNetworkAccess", document="public_network_access", inward=choice, outward=pascal),
)


def read_endpoint(body: object, name: str, existing: OnlineEndpointYaml | None = None) -> OnlineEndpointYaml:
    """The document of a PUT. Errors: Problem."""
    given: dict[str, Any] = {"name": name}
    if existing is not None and not members.has_gateway(body):
        given |= {"gateway": to_builtins(existing.gateway)}
    return read(body, _ENDPOINT, OnlineEndpointYaml, given, f"endpoint {name}")


def patch_endpoint(document: OnlineEndpointYaml, body: object) -> OnlineEndpointYaml:
    """The document after a PATCH. Errors: Problem."""
    return read_endpoint(merge(write(document, _ENDPOINT), body), document.name)


def endpoint_body(
    resource: Resource,
    workspace: Workspace,
    *,
    location: str,
    scoring_uri: str,
    swagger_uri: str,
    operation_uri: str = "",
) -> dict[str, Any]:
    """The whole resource. `operation_uri`: the URL of the operation under way."""
    document = from_builtins(Kind.ONLINE_ENDPOINT, resource.document)
    assert isinstance(document, OnlineEndpointYaml)
    said = write(document, _ENDPOINT, workspace)
    id_ = ids.resource_id(workspace, Kind.ONLINE_ENDPOINT, resource.name)
    properties = said["properties"] | {
        "scoringUri": scoring_uri,
        "swaggerUri": swagger_uri,
        "provisioningState": str(resource.state),
    }
    members.echo(properties, operation_uri, id_)
    body = resource_body(resource, id_=id_, type_=ids.resource_type(Kind.ONLINE_ENDPOINT), properties=properties)
    more = {name: said[name] for name in ("tags", "identity")}
    return body | more | {"location": location, "kind": "K8S" if document.compute else "Managed", "sku": None}


# ---- deployments -----------------------------------------------------------------------------------------------


def _probe(arm: str, document: str) -> tuple[Member, ...]:
    times = tuple(
        Member(arm=f"properties.{arm}.{there}", document=f"{document}.{here}", unit_ms=_SECOND_MS)
        for there, here in (("initialDelay", "initial_delay"), ("period", "period"), ("timeout", "timeout"))
    )
    counts = tuple(
        Member(arm=f"properties.{arm}.{there}", document=f"{document}.{here}")
        for there, here in (("successThreshold", "success_threshold"), ("failureThreshold", "failure_threshold"))
    )
    return (*times, *counts)


def _amounts(arm: str, side: str) -> tuple[Member, ...]:
    above = f"properties.containerResourceRequirements.{arm}"
    return tuple(
        Member(arm=f"{above}.{name}", document=f"resources.{side}.{name}", is_optional=True)
        for name in ("cpu", "memory", "gpu")
    )


def _enabled(value: Any) -> bool:
    for word, is_enabled in (("enabled", True), ("disabled", False)):
        if is_word(value, word):
            return is_enabled
    raise Wrong(f"dataCollectionMode: found {shown(value)}; accepted: Enabled or Disabled")


def _collector_inward(value: Any) -> dict[str, Any]:
    given = object_of(value)
    collections = object_of(given.get("collections") or {})
    logging = object_of(given.get("requestLogging") or {})
    said = {
        "rolling_rate": given.get("rollingRate") or None,
        "request_logging": {"capture_headers": logging["captureHeaders"]} if logging.get("captureHeaders") else None,
        "collections": {name: _collection_inward(one) for name, one in collections.items() if one is not None},
    }
    return {name: one for name, one in said.items() if one is not None}


def _collection_inward(value: Any) -> dict[str, Any]:
    given = object_of(value)
    said = {
        "enabled": _enabled(given.get("dataCollectionMode") or "Disabled"),
        "sampling_rate": given.get("samplingRate"),
        "data": given.get("dataId") or None,
        "client_id": given.get("clientId") or None,
    }
    return {name: one for name, one in said.items() if one is not None}


def _collector_outward(value: Any, workspace: Workspace) -> dict[str, Any] | None:
    """`value` is the default where nothing was given, and then there is nothing to say."""
    if not value.collections and value.request_logging is None and value.rolling_rate == "hour":
        return None
    headers = value.request_logging.capture_headers if value.request_logging else ()
    return {
        "collections": {
            name: {
                "dataCollectionMode": "Enabled" if one.enabled else "Disabled",
                "samplingRate": value.sampling_rate if one.sampling_rate is None else one.sampling_rate,
                "dataId": members.identified(Kind.DATA)(one.data, workspace),
                "clientId": one.client_id or None,
            }
            for name, one in value.collections.items()
        },
        "rollingRate": pascal(value.rolling_rate, workspace),
        "requestLogging": {"captureHeaders": list(headers)},
    }


_COLLECTOR_WORDS = {
    "rolling_rate": "rollingRate",
    "request_logging": "requestLogging",
    "capture_headers": "captureHeaders",
    "sampling_rate": "samplingRate",
    "data": "dataId",
    "client_id": "clientId",
}

_DEPLOYMENT = (
    members.TAGS,
    Member(arm="sku.capacity", document="instance_count"),
    members.DESCRIPTION,
    members.PROPERTIES,
    members.GATEWAY_BLOCK,
    Member(
        arm="properties.endpointComputeType",
        document="type",
        inward=choice,
        outward=lambda value, _: "Kubernetes" if value == "kubernetes" else "Managed",
    ),
    Member(arm="properties.instanceType", document="instance_type"),
    Member(
        arm="properties.model",
        document="model",
        inward=members.model_inward,
        outward=members.identified(Kind.MODEL),
    ),
    Member(arm="properties.modelMountPath", document="model_mount_path"),
    *members.CODE,
    members.ENVIRONMENT,
    members.VARIABLES,
    Member(arm="properties.appInsightsEnabled", document="app_insights_enabled"),
    Member(arm="properties.scaleSettings.scaleType", document="scale_settings.type", inward=choice, outward=pascal),
    Member(arm="properties.scaleSettings.minInstances", document="scale_settings.min_instances"),
    Member(arm="properties.scaleSettings.maxInstances", document="scale_settings.max_instances"),
    Member(
        arm="properties.scaleSettings.targetUtilizationPercentage",
        document="scale_settings.target_utilization_percentage",
    ),
    Member(
        arm="properties.scaleSettings.pollingInterval",
        document="scale_settings.polling_interval",
        unit_ms=_SECOND_MS,
    ),
    Member(
        arm="properties.requestSettings.requestTimeout", document="request_settings.request_timeout_ms", unit_ms=1
    ),
    Member(
        arm="properties.requestSettings.maxConcurrentRequestsPerInstance",
        document="request_settings.max_concurrent_requests_per_instance",
        is_optional=True,
    ),
    Member(
        arm="properties.requestSettings.maxQueueWait",
        document="request_settings.max_queue_wait_ms",
        unit_ms=1,
        is_optional=True,
    ),
    *_probe("livenessProbe", "liveness_probe"),
    *_probe("readinessProbe", "readiness_probe"),
    *_probe("startupProbe", "startup_probe"),
    Member(
        arm="properties.egressPublicNetworkAccess",
        document="egress_public_network_access",
        inward=choice,
        outward=pascal,
    ),
    Member(arm="properties.privateNetworkConnection", document="private_network_connection"),
    Member(
        arm="properties.dataCollector",
        document="data_collector",
        inward=_collector_inward,
        outward=_collector_outward,
        words=_COLLECTOR_WORDS,
    ),
    *_amounts("containerResourceRequests", "requests"),
    *_amounts("containerResourceLimits", "limits"),
)


def read_deployment(
    body: object, name: str, endpoint_name: str, existing: OnlineDeploymentYaml | None = None
) -> OnlineDeploymentYaml:
    """The document of a PUT. Errors: Problem."""
    given: dict[str, Any] = {"name": name, "endpoint_name": endpoint_name}
    if existing is not None:
        given |= {"instance_count": existing.instance_count, "request_settings": _short_times(body, existing)}
        if not members.has_gateway(body):
            given["gateway"] = to_builtins(existing.gateway)
    return read(body, _DEPLOYMENT, OnlineDeploymentYaml, given, f"deployment {endpoint_name}/{name}")


def _short_times(body: object, existing: OnlineDeploymentYaml) -> dict[str, int]:
    """What a client that reads whole seconds cannot send back."""
    properties = body.get("properties") if isinstance(body, dict) else None
    if not isinstance(properties, dict) or not isinstance(properties.get("requestSettings"), dict):
        return {}
    settings = existing.request_settings
    times = {"request_timeout_ms": settings.request_timeout_ms, "max_queue_wait_ms": settings.max_queue_wait_ms}
    return {name: value for name, value in times.items() if value is not None and value < _SECOND_MS}


def patch_deployment(document: OnlineDeploymentYaml, body: object) -> OnlineDeploymentYaml:
    """The document after a PATCH. Errors: Problem."""
    return read_deployment(merge(_said(document), body), document.name, document.endpoint_name)


def deployment_body(
    resource: Resource,
    workspace: Workspace,
    *,
    location: str,
    instances: int | None = None,
    operation_uri: str = "",
) -> dict[str, Any]:
    """The whole resource. `instances`: how many run now, where that is not as the document says."""
    document = from_builtins(Kind.ONLINE_DEPLOYMENT, resource.document)
    assert isinstance(document, OnlineDeploymentYaml)
    said = _said(document, workspace)
    id_ = ids.resource_id(workspace, Kind.ONLINE_DEPLOYMENT, resource.name, resource.parent_name)
    properties = said["properties"] | {"provisioningState": str(resource.state)}
    members.code_or_null(properties)
    members.echo(properties, operation_uri, workspace.child("onlineEndpoints", resource.parent_name))
    body = resource_body(resource, id_=id_, type_=ids.resource_type(Kind.ONLINE_DEPLOYMENT), properties=properties)
    capacity = document.instance_count if instances is None else instances
    sku = {"name": "Default", "tier": "Standard", "capacity": capacity}
    return body | {"location": location, "tags": said["tags"], "sku": sku, "kind": properties["endpointComputeType"]}


def _said(document: OnlineDeploymentYaml, *workspace: Workspace) -> dict[str, Any]:
    said = write(document, _DEPLOYMENT, *workspace)
    if document.scale_settings == ScaleYaml():
        said["properties"]["scaleSettings"] = {"scaleType": "Default"}
    if document.type == "kubernetes":
        said["properties"].setdefault("containerResourceRequirements", {})  # clients look into it unasked
    return said

"""Batch endpoints and deployments: ARM bodies to documents, and resources to ARM bodies.

A PUT replaces the whole; a PATCH is a JSON merge patch of the body that a GET shows. There is no `sku`; a model is an
object with its id, unlike that of online deployments. Pipelines are refused.
Errors: Problem(INVALID_INPUT) with all mistakes. Pure.
Source: contract/azure-ml-endpoints.md section 3.4.
"""

from __future__ import annotations

from typing import Any

from gateway.controlplane.arm import ids, members
from gateway.controlplane.arm.bodies import Member, choice, is_word, merge, names, object_of, pascal, read, write
from gateway.controlplane.arm.envelope import resource_body
from gateway.controlplane.arm.ids import Workspace
from gateway.controlplane.documents import from_builtins
from gateway.controlplane.store.records import Kind, Resource
from gateway.controlplane.yaml_types import BatchDeploymentYaml, BatchEndpointYaml

_ENDPOINT = (
    members.TAGS,
    members.IDENTITY,
    members.DESCRIPTION,
    members.PROPERTIES,
    Member(arm="properties.authMode", document="auth_mode", inward=choice, outward=lambda *_: "aadToken"),
    Member(arm="properties.defaults.deploymentName", document="defaults.deployment_name"),
)


def read_endpoint(body: object, name: str) -> BatchEndpointYaml:
    """The document of a PUT. Errors: Problem."""
    return read(body, _ENDPOINT, BatchEndpointYaml, {"name": name}, f"batch endpoint {name}")


def patch_endpoint(document: BatchEndpointYaml, body: object) -> BatchEndpointYaml:
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
    document = from_builtins(Kind.BATCH_ENDPOINT, resource.document)
    said = write(document, _ENDPOINT, workspace)
    properties = said["properties"] | {
        "scoringUri": scoring_uri,
        "swaggerUri": swagger_uri,
        "provisioningState": str(resource.state),
    }
    members.echo(properties, operation_uri)
    id_ = ids.resource_id(workspace, Kind.BATCH_ENDPOINT, resource.name)
    body = resource_body(resource, id_=id_, type_=ids.resource_type(Kind.BATCH_ENDPOINT), properties=properties)
    more = {name: said[name] for name in ("tags", "identity")}
    return body | more | {"location": location, "kind": None, "sku": None}


def _configuration(value: Any) -> str | None:
    """Pipelines are told by the type of their configuration."""
    kind = object_of(value).get("deploymentConfigurationType")
    return None if kind is None or is_word(kind, "Model") else "pipeline"


def _model_outward(value: Any, workspace: Workspace) -> dict[str, Any] | None:
    id_ = members.identified(Kind.MODEL)(value, workspace)
    return {"referenceType": "Id", "assetId": id_} if id_ else None


_DEPLOYMENT = (
    members.TAGS,
    members.DESCRIPTION,
    members.PROPERTIES,
    Member(arm="properties.model", document="model", inward=members.model_inward, outward=_model_outward),
    *members.CODE,
    members.ENVIRONMENT,
    members.VARIABLES,
    Member(arm="properties.compute", document="compute", outward=members.compute_outward),
    Member(arm="properties.resources.instanceCount", document="resources.instance_count"),
    Member(arm="properties.resources.instanceType", document="resources.instance_type"),
    Member(arm="properties.resources.properties", document="resources.properties", inward=object_of, outward=names),
    Member(arm="properties.miniBatchSize", document="settings.mini_batch_size"),
    Member(arm="properties.maxConcurrencyPerInstance", document="settings.max_concurrency_per_instance"),
    Member(arm="properties.errorThreshold", document="settings.error_threshold"),
    Member(arm="properties.retrySettings.maxRetries", document="settings.retry_settings.max_retries"),
    Member(arm="properties.retrySettings.timeout", document="settings.retry_settings.timeout", unit_ms=1000),
    Member(arm="properties.outputAction", document="settings.output_action", inward=choice, outward=pascal),
    Member(arm="properties.outputFileName", document="settings.output_file_name"),
    Member(arm="properties.loggingLevel", document="settings.logging_level", inward=choice, outward=pascal),
    Member(
        arm="properties.deploymentConfiguration",
        document="type",
        inward=_configuration,
        outward=lambda *_: None,
    ),
)


def read_deployment(body: object, name: str, endpoint_name: str) -> BatchDeploymentYaml:
    """The document of a PUT. Errors: Problem."""
    given = {"name": name, "endpoint_name": endpoint_name}
    return read(body, _DEPLOYMENT, BatchDeploymentYaml, given, f"batch deployment {endpoint_name}/{name}")


def patch_deployment(document: BatchDeploymentYaml, body: object) -> BatchDeploymentYaml:
    """The document after a PATCH. Errors: Problem."""
    return read_deployment(merge(write(document, _DEPLOYMENT), body), document.name, document.endpoint_name)


def deployment_body(
    resource: Resource, workspace: Workspace, *, location: str, operation_uri: str = ""
) -> dict[str, Any]:
    """The whole resource. `operation_uri`: the URL of the operation under way."""
    document = from_builtins(Kind.BATCH_DEPLOYMENT, resource.document)
    said = write(document, _DEPLOYMENT, workspace)
    properties = said["properties"] | {"provisioningState": str(resource.state)}
    members.code_or_null(properties)
    members.echo(properties, operation_uri)
    id_ = ids.resource_id(workspace, Kind.BATCH_DEPLOYMENT, resource.name, resource.parent_name)
    body = resource_body(resource, id_=id_, type_=ids.resource_type(Kind.BATCH_DEPLOYMENT), properties=properties)
    return body | {"location": location, "tags": said["tags"], "kind": None}

"""Models, environments, code and data: ARM bodies to documents, and resources to ARM bodies.

A version is a resource of its own; the container around its versions is made of the latest. `path` of a document is
the address as it was given. A model's `flavors` is an object in every answer, because clients walk through it.
Errors: Problem(INVALID_INPUT) with all mistakes. Pure.
Source: contract/azure-ml-endpoints.md section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gateway.controlplane.arm import ids
from gateway.controlplane.arm.bodies import Member, choice, names, object_of, pascal, read, texts, write
from gateway.controlplane.arm.envelope import resource_body
from gateway.controlplane.arm.ids import Workspace
from gateway.controlplane.arm.members import DESCRIPTION
from gateway.controlplane.documents import document_type, from_builtins
from gateway.controlplane.store.records import Kind, Resource
from gateway.controlplane.yaml_types import BuildYaml, InferenceYaml

_COMMON = (
    DESCRIPTION,
    Member(arm="properties.tags", document="tags", inward=texts, outward=names),
    Member(arm="properties.properties", document="properties", inward=texts, outward=names),
    Member(arm="properties.isAnonymous", document="is_anonymous"),
    Member(arm="properties.isArchived", document="is_archived"),
)


def _flavors_inward(value: Any) -> dict[str, Any]:
    return {name: one.get("data") or {} if isinstance(one, dict) else one for name, one in object_of(value).items()}


def _flavors_outward(value: Mapping[str, Any], _: Workspace) -> dict[str, Any]:
    return {name: {"data": one if isinstance(one, dict) else {}} for name, one in value.items()}


_MODEL = (
    *_COMMON,
    Member(arm="properties.modelUri", document="path"),
    Member(arm="properties.modelType", document="type", inward=choice),
    Member(arm="properties.flavors", document="flavors", inward=_flavors_inward, outward=_flavors_outward),
    Member(arm="properties.stage", document="stage"),
    Member(arm="properties.jobName", document="job_name"),
)


def conda_text(conda_file: Any) -> str | None:
    """The packages as YAML text; a mapping as JSON, which is YAML too."""
    if isinstance(conda_file, dict | list):
        return msgspec.json.format(msgspec.json.encode(conda_file), indent=2).decode()
    return conda_file or None


def _build_inward(value: Any) -> dict[str, Any]:
    given = object_of(value)
    said = {"path": given.get("contextUri"), "dockerfile_path": given.get("dockerfilePath")}
    return {name: one for name, one in said.items() if one is not None}


def _build_outward(value: BuildYaml, _: Workspace) -> dict[str, Any] | None:
    """`value` is the default where nothing was given."""
    return None if value == BuildYaml() else {"contextUri": value.path, "dockerfilePath": value.dockerfile_path}


_ROUTES = (
    ("livenessRoute", "liveness_route"),
    ("readinessRoute", "readiness_route"),
    ("scoringRoute", "scoring_route"),
)


def _inference_inward(value: Any) -> dict[str, Any]:
    given = object_of(value)
    return {here: given[there] for there, here in _ROUTES if given.get(there) is not None}


def _inference_outward(value: InferenceYaml, _: Workspace) -> dict[str, Any] | None:
    """`value` is the default where nothing was given."""
    if value == InferenceYaml():
        return None
    routes = {there: getattr(value, here) for there, here in _ROUTES}
    return {there: one and {"port": one.port, "path": one.path} for there, one in routes.items()}


_ENVIRONMENT = (
    *_COMMON,
    Member(arm="properties.image", document="image"),
    Member(arm="properties.condaFile", document="conda_file", outward=lambda value, _: conda_text(value)),
    Member(
        arm="properties.build",
        document="build",
        inward=_build_inward,
        outward=_build_outward,
        words={"path": "contextUri", "dockerfile_path": "dockerfilePath"},
    ),
    Member(arm="properties.osType", document="os_type", inward=choice, outward=pascal),
    Member(
        arm="properties.inferenceConfig",
        document="inference_config",
        inward=_inference_inward,
        outward=_inference_outward,
        words={here: there for there, here in _ROUTES},
    ),
)
_CODE = (*_COMMON, Member(arm="properties.codeUri", document="path"))
_DATA = (
    *_COMMON,
    Member(arm="properties.dataUri", document="path"),
    Member(arm="properties.dataType", document="type", inward=choice),
)
_MEMBERS = {Kind.MODEL: _MODEL, Kind.ENVIRONMENT: _ENVIRONMENT, Kind.CODE: _CODE, Kind.DATA: _DATA}


def read_version(body: object, kind: Kind, name: str, version: str) -> msgspec.Struct:
    """The document of a PUT of one version. Errors: Problem."""
    given = {"name": name, "version": version}
    return read(body, _MEMBERS[kind], document_type(kind), given, f"{kind} {name} version {version}")


def version_body(resource: Resource, workspace: Workspace) -> dict[str, Any]:
    """One version, whole."""
    kind = resource.ref.kind
    said = write(from_builtins(kind, resource.document), _MEMBERS[kind], workspace)
    properties = said["properties"] | {"provisioningState": str(resource.state)}
    if kind is Kind.ENVIRONMENT:
        properties["environmentType"] = "UserCreated"
    id_ = ids.resource_id(workspace, kind, resource.name, resource.parent_name)
    return resource_body(resource, id_=id_, type_=ids.resource_type(kind), properties=properties)


def container_body(
    latest: Resource, workspace: Workspace, next_version: str, is_archived: bool = False
) -> dict[str, Any]:
    """What is around the versions of one name. `latest` is its newest version."""
    kind = latest.ref.kind
    said = write(from_builtins(kind, latest.document), _MEMBERS[kind], workspace)["properties"]
    properties = {name: said[name] for name in ("description", "tags", "properties", "dataType") if name in said}
    properties |= {
        "latestVersion": latest.name,
        "nextVersion": next_version,
        "isArchived": is_archived,
        "provisioningState": "Succeeded",
    }
    id_ = workspace.child(ids.COLLECTIONS[kind], latest.parent_name)
    type_ = ids.resource_type(kind).removesuffix("/versions")
    return resource_body(latest, id_=id_, type_=type_, properties=properties) | {"name": latest.parent_name}


def next_version(versions: Iterable[str]) -> str:
    """One more than the largest number among the versions; "1" where there is none."""
    numbers = [int(one) for one in versions if one.isascii() and one.isdigit() and len(one) <= 18]
    return str(max(numbers, default=0) + 1)

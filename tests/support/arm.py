"""ARM resources for tests: a workspace, rows of the store, and what a client reads of them."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.controlplane.arm import assets, batch, online
from gateway.controlplane.arm.ids import Workspace
from gateway.controlplane.documents import to_builtins
from gateway.controlplane.store.records import Kind, Ref, Resource, State

WORKSPACE = Workspace("00000000-0000-0000-0000-00000000000a", "Group", "Work")


def row(
    kind: Kind, document: msgspec.Struct, name: str, parent_name: str = "", state: State = State.SUCCEEDED
) -> Resource:
    """What the store would give back for a document."""
    return Resource(
        ref=Ref(kind=kind, parent=parent_name.lower(), key=name.lower()),
        name=name,
        parent_name=parent_name,
        document=to_builtins(document),
        state=state,
        version=7,
        created_at=1_900_000_000.25,
        created_by="ann",
        modified_at=1_900_000_001.5,
        modified_by="bob",
    )


def body_of(kind: Kind, document: msgspec.Struct, name: str, parent_name: str = "") -> dict[str, Any]:
    """The whole resource as a client gets it."""
    resource = row(kind, document, name, parent_name)
    uris = {"scoring_uri": "https://g/score", "swagger_uri": "https://g/swagger.json"}
    match kind:
        case Kind.ONLINE_ENDPOINT:
            return online.endpoint_body(resource, WORKSPACE, location="local", **uris)
        case Kind.ONLINE_DEPLOYMENT:
            return online.deployment_body(resource, WORKSPACE, location="local")
        case Kind.BATCH_ENDPOINT:
            return batch.endpoint_body(resource, WORKSPACE, location="local", **uris)
        case Kind.BATCH_DEPLOYMENT:
            return batch.deployment_body(resource, WORKSPACE, location="local")
        case _:
            return assets.version_body(resource, WORKSPACE)


def read_back(kind: Kind, body: dict[str, Any], name: str, parent_name: str = "") -> msgspec.Struct:
    """The document of a PUT of that body."""
    match kind:
        case Kind.ONLINE_ENDPOINT:
            return online.read_endpoint(body, name)
        case Kind.ONLINE_DEPLOYMENT:
            return online.read_deployment(body, name, parent_name)
        case Kind.BATCH_ENDPOINT:
            return batch.read_endpoint(body, name)
        case Kind.BATCH_DEPLOYMENT:
            return batch.read_deployment(body, name, parent_name)
        case _:
            return assets.read_version(body, kind, parent_name, name)

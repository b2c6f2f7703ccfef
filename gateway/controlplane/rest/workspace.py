"""The workspace and what stands in it without being stored: its datastore, computes, and what clients discover.

There is one workspace; whatever a path calls it, it is that one. There is one datastore, whose account name is made
so that the unmodified SDK, which builds `https://{account}.blob.{suffix}`, comes back to this listener. Any compute
that is asked for exists, for work runs here whatever it is called.
Errors: Problem.
"""

from __future__ import annotations

import uuid
from typing import Any

from gateway.controlplane.arm.envelope import list_body
from gateway.controlplane.arm.ids import PROVIDER
from gateway.controlplane.assets import CONTAINER, DATASTORE
from gateway.controlplane.rest.assets import ACCOUNT
from gateway.controlplane.rest.context import Call, Reply
from gateway.controlplane.rest.lro import LOCATION
from gateway.controlplane.rest.query import IS_DEFAULT, NAME
from gateway.errors import Code, Problem

SUFFIX = "core.windows.net"
UPLOAD_PERMISSIONS = "racwl"


async def get(call: Call) -> Reply:
    """GET {ws}"""
    workspace = call.workspace
    body = {
        "id": workspace.id,
        "name": workspace.name,
        "type": f"{PROVIDER}/workspaces",
        "location": LOCATION,
        "tags": {},
        "identity": {"type": "SystemAssigned"},
        "kind": "Default",
        "sku": {"name": "Basic", "tier": "Basic"},
        "properties": {
            "friendlyName": workspace.name,
            "description": "",
            "discoveryUrl": f"{call.base}/discovery",
            # The same for the same names, so that a client that keeps it finds it again.
            "workspaceId": str(uuid.uuid5(uuid.NAMESPACE_URL, workspace.id.lower())),
            "mlFlowTrackingUri": "",
            "provisioningState": "Succeeded",
        },
    }
    return Reply(body=body)


async def discovery(call: Call) -> Reply:
    """GET /discovery: where each service is; all are here. No credentials are sent with it."""
    names = ("api", "catalog", "experimentation", "history", "modelmanagement", "studio")
    return Reply(body=dict.fromkeys(names, call.base))


async def clouds(call: Call) -> Reply:
    """GET /metadata/endpoints: this gateway as a cloud, for clients that ask what clouds there are."""
    cloud = {
        "name": "InferenceGateway",
        "portal": call.base,
        "resourceManager": call.base,
        "authentication": {"loginEndpoint": call.base, "audiences": [call.base]},
        "suffixes": {"storage": SUFFIX},
    }
    return Reply(body=[cloud])


# The datastore.


async def datastores(call: Call) -> Reply:
    """GET {ws}/datastores"""
    wants_default, name = call.query.flag(IS_DEFAULT), call.query.text(NAME).lower()
    is_shown = wants_default is not False and name in ("", DATASTORE)
    return Reply(body=list_body([_datastore(call)] if is_shown else []))


async def datastore(call: Call) -> Reply:
    """GET {ws}/datastores/{d}"""
    _need_datastore(call)
    return Reply(body=_datastore(call))


async def datastore_secrets(call: Call) -> Reply:
    """POST {ws}/datastores/{d}/listSecrets: a link that may read and write there for a while."""
    await call.json()
    _need_datastore(call)
    return Reply(body={"secretsType": "Sas", "sasToken": call.services.link(CONTAINER, UPLOAD_PERMISSIONS)})


def _need_datastore(call: Call) -> None:
    name = call.params["datastore"]
    if name.lower() != DATASTORE:
        raise Problem(Code.NOT_FOUND, f"there is no datastore {name!r}; there is {DATASTORE}")


def _datastore(call: Call) -> dict[str, Any]:
    # Without the scheme: clients put one before it.
    account = f"{call.base.partition('://')[2]}/blob/{ACCOUNT}"
    return {
        "id": call.workspace.child("datastores", DATASTORE),
        "name": DATASTORE,
        "type": f"{PROVIDER}/workspaces/datastores",
        "properties": {
            "datastoreType": "AzureBlob",
            "accountName": account,
            "containerName": CONTAINER,
            "endpoint": SUFFIX,
            "protocol": "https",
            "isDefault": True,
            "credentials": {"credentialsType": "Sas"},
            "serviceDataAccessAuthIdentity": "None",
            "description": "",
            "tags": {},
            "properties": {},
        },
    }


# Computes.


async def compute(call: Call) -> Reply:
    """GET {ws}/computes/{c}"""
    name = call.params["compute"]
    body = {
        "id": call.workspace.child("computes", name),
        "name": name,
        "type": f"{PROVIDER}/workspaces/computes",
        "location": LOCATION,
        "tags": {},
        "properties": {
            "computeType": "AmlCompute",
            "computeLocation": LOCATION,
            "provisioningState": "Succeeded",
            "description": "this machine",
            "properties": {},
        },
    }
    return Reply(body=body)


# What there is not yet.


async def no_jobs(call: Call) -> Reply:
    """Every route of jobs and of their history."""
    raise Problem(
        Code.NOT_FOUND, "batch jobs do not run here yet; batch endpoints and deployments are kept and checked"
    )

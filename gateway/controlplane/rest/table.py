"""The route table: every operation of the management listener, with who may do it and what it answers.

The OpenAPI document is made from it, and so are the tests of who may do what. Statuses that any route may give (401,
403, 500, 503 ...) are added there; here stands what is the route's own.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.controlplane.apply_bundle import BODY_BYTES_MAX
from gateway.controlplane.authorize import Role
from gateway.controlplane.rest import assets, credentials, endpoints, logs, lro, own, rollouts, workspace
from gateway.controlplane.rest.query import (
    BEFORE,
    COMPUTE_TYPE,
    COUNT,
    DEPLOYMENT,
    ENDPOINT_ORDER,
    FOLLOW,
    HASH,
    HASH_VERSION,
    IS_DEFAULT,
    LIMIT,
    NAME,
    ORDER,
    PROPERTIES,
    SKIP,
    TAGS,
    TAIL,
    TARGET,
    TOP,
    VIEW,
    WHO,
    Parameter,
)
from gateway.controlplane.rest.router import FRONT_END, HISTORY, WORKSPACE, Route

READER, OPERATOR, ADMIN = Role.READER, Role.OPERATOR, Role.ADMIN

_PAGE = (COUNT, TOP, SKIP)
_LOCATION = "/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}"


def _own() -> Iterator[Route]:
    tag = "Gateway"
    yield Route("GET", "/", own.index, None, "What this is", tag, {200: "Index"})
    yield Route("GET", "/openapi.json", own.openapi, None, "This document", tag, {200: "Anything"})
    yield Route("GET", "/status", own.status, READER, "What is served now", tag, {200: "Status"})
    reload = {200: "Answer", 409: "Answer"}
    yield Route("POST", "/reload", own.reload, OPERATOR, "Read the folder that is served again", tag, reload)
    yield Route(
        *("POST", "/apply", own.apply, OPERATOR, "Make what a folder says true, all or nothing", tag),
        {200: "Applied"},
        body="Bundle",
        needs_body=True,
        body_bytes_max=BODY_BYTES_MAX,
        refusals=(409,),
    )
    yield Route("GET", "/export", own.export, READER, "All that is stored, as YAML", tag, {200: "Exported"})
    yield Route(
        *("GET", "/audit", own.audit, ADMIN, "Who changed what, the newest first", tag, {200: "AuditList"}),
        query=(LIMIT, BEFORE, WHO, TARGET),
    )
    yield Route("GET", "/tokens", own.tokens, ADMIN, "The management tokens there are", tag, {200: "TokenList"})
    yield Route(
        *("POST", "/tokens", own.add_token, ADMIN, "Make a management token; its text is told once", tag),
        {201: "NewToken"},
        body="TokenRequest",
        needs_body=True,
        refusals=(409,),
    )
    removed = {200: "", 204: ""}
    yield Route("DELETE", "/tokens/{token}", own.delete_token, ADMIN, "End a management token", tag, removed)


def _workspace() -> Iterator[Route]:
    tag, ws = "Workspace", WORKSPACE
    yield Route("GET", "/discovery", workspace.discovery, None, "Where services are", tag, {200: "Discovery"})
    clouds = {200: "Clouds"}
    yield Route("GET", "/metadata/endpoints", workspace.clouds, None, "This gateway as a cloud", tag, clouds)
    yield Route("GET", ws, workspace.get, READER, "The workspace", tag, {200: "Workspace"})
    stores = f"{ws}/datastores"
    yield Route(
        *("GET", stores, workspace.datastores, READER, "The datastores", tag, {200: "ResourceList"}),
        query=(IS_DEFAULT, NAME, COUNT, SKIP),
    )
    one = f"{stores}/{{datastore}}"
    yield Route("GET", one, workspace.datastore, READER, "A datastore", tag, {200: "Resource"})
    yield Route(
        *("POST", f"{one}/listSecrets", workspace.datastore_secrets, OPERATOR, "A link to upload with", tag),
        {200: "DatastoreSecrets"},
        body="Anything",
    )
    computes = f"{ws}/computes/{{compute}}"
    yield Route(
        "GET", computes, workspace.compute, READER, "A compute; there is one of any name", tag, {200: "Resource"}
    )


def _operations() -> Iterator[Route]:
    tag = "Operations"
    for name, word in (("mfeOperationsStatus", ""), ("operationsStatus", "Plain")):
        yield Route(
            *("GET", f"{_LOCATION}/{name}/{{operation}}", lro.status, READER, "How an operation goes", tag),
            {200: "Operation"},
            headers=("retry",),
            operation_id=f"operationStatus{word}",
        )
    for name, word in (("mfeOperationResults", ""), ("operationResults", "Plain")):
        yield Route(
            *("GET", f"{_LOCATION}/{name}/{{operation}}", lro.result, READER, "What came of an operation", tag),
            {202: "", 204: ""},
            headers=("operation",),
            operation_id=f"operationResult{word}",
        )


def _family(
    family: endpoints.Family,
    path: str,
    parameter: str,
    tag: str,
    word: str,
    schema: str,
    listing: tuple[Parameter, ...],
) -> Iterator[Route]:
    """List, get, put, patch and delete of endpoints or deployments."""
    one = f"{path}/{{{parameter}}}"
    yield Route(
        *("GET", path, family.list, READER, f"The {word}s", tag, {200: f"{schema}List"}),
        query=(*listing, *_PAGE),
    )
    get = {200: schema, 304: ""}
    yield Route("GET", one, family.get, READER, f"One {word}", tag, get, headers=("etag",), refusals=(412,))
    yield Route(
        *("PUT", one, family.put, OPERATOR, f"Make or replace a {word}", tag, {200: schema, 201: schema}),
        body=f"{schema}Request",
        needs_body=True,
        refusals=(409, 412),
        headers=("etag", "operation"),
    )
    yield Route(
        *("PATCH", one, family.patch, OPERATOR, f"Change a {word}", tag, {200: schema, 202: schema}),
        body=f"{schema}Request",
        needs_body=True,
        refusals=(409, 412),
        headers=("etag", "operation"),
    )
    yield Route(
        *("DELETE", one, family.delete, OPERATOR, f"Delete a {word}", tag, {200: "", 202: "", 204: ""}),
        refusals=(409, 412),
        headers=("operation",),
    )


def _online() -> Iterator[Route]:
    tag = "Online endpoints"
    path = f"{WORKSPACE}/onlineEndpoints"
    listing = (NAME, COMPUTE_TYPE, TAGS, PROPERTIES, ENDPOINT_ORDER)
    yield from _family(
        endpoints.ONLINE_ENDPOINTS, path, "endpoint", tag, "online endpoint", "OnlineEndpoint", listing
    )
    one = f"{path}/{{endpoint}}"
    yield Route("POST", f"{one}/listKeys", credentials.keys, OPERATOR, "Both keys", tag, {200: "Keys"})
    yield Route(
        *("POST", f"{one}/regenerateKeys", credentials.regenerate, OPERATOR, "A new key", tag, {200: "", 202: ""}),
        body="RegenerateRequest",
        needs_body=True,
        refusals=(409,),
        headers=("operation",),
    )
    yield Route("POST", f"{one}/token", credentials.token, OPERATOR, "A token to score with", tag, {200: "Token"})
    yield Route(
        *("GET", f"{one}/events", own.events, READER, "What happened, the oldest first", tag, {200: "EventList"}),
        query=(DEPLOYMENT, LIMIT),
    )
    path = f"{one}/deployments"
    yield from _family(
        *(endpoints.ONLINE_DEPLOYMENTS, path, "deployment", "Online deployments", "deployment", "OnlineDeployment"),
        (ORDER, NAME, TAGS, PROPERTIES),
    )
    tag, one = "Online deployments", f"{path}/{{deployment}}"
    yield Route(
        *("POST", f"{one}/getLogs", endpoints.logs, READER, "What happened to it", tag, {200: "Logs"}),
        body="LogsRequest",
    )
    yield Route(
        *("GET", f"{one}/logs", logs.follow, READER, "Its log as it grows, as server-sent events", tag),
        {200: "EventStream"},
        query=(TAIL, FOLLOW),
        refusals=(429,),
        media_type="text/event-stream",
    )
    yield Route("GET", f"{one}/skus", endpoints.skus, READER, "How many instances it may have", tag, {200: "Skus"})


def _rollouts() -> Iterator[Route]:
    tag = "Rollouts"
    path = f"{WORKSPACE}/onlineEndpoints/{{endpoint}}/rollouts"
    one = f"{path}/{{rollout}}"
    yield Route("GET", path, rollouts.list_, READER, "The rollouts of an endpoint", tag, {200: "RolloutList"})
    yield Route("GET", one, rollouts.get, READER, "One rollout", tag, {200: "Rollout"}, headers=("etag",))
    yield Route(
        *("PUT", one, rollouts.put, OPERATOR, "Begin a rollout", tag, {200: "Rollout", 201: "Rollout"}),
        body="RolloutRequest",
        needs_body=True,
        refusals=(409, 412),
        headers=("etag",),
    )
    yield Route(
        *("DELETE", one, rollouts.delete, OPERATOR, "Forget a rollout that is over", tag, {200: "", 204: ""}),
        refusals=(409, 412),
    )
    for name in ("pause", "resume", "promote", "cancel"):
        summary = f"{name.capitalize()} a rollout"
        yield Route(
            *("POST", f"{one}/{name}", rollouts.command(name), OPERATOR, summary, tag, {200: "Rollout"}),
            refusals=(409,),
            headers=("etag",),
        )


def _batch() -> Iterator[Route]:
    tag = "Batch endpoints"
    path = f"{WORKSPACE}/batchEndpoints"
    yield from _family(
        *(endpoints.BATCH_ENDPOINTS, path, "endpoint", tag, "batch endpoint", "BatchEndpoint"),
        (NAME, TAGS, PROPERTIES, ENDPOINT_ORDER),
    )
    one = f"{path}/{{endpoint}}"
    yield Route("POST", f"{one}/listkeys", credentials.batch_keys, OPERATOR, "There are none", tag, {})
    yield from _family(
        *(endpoints.BATCH_DEPLOYMENTS, f"{one}/deployments", "deployment", tag, "batch deployment"),
        "BatchDeployment",
        (ORDER, NAME, TAGS, PROPERTIES),
    )


def _assets() -> Iterator[Route]:
    families = (
        ("models", "Models", assets.MODELS, "ModelVersion"),
        ("environments", "Environments", assets.ENVIRONMENTS, "EnvironmentVersion"),
        ("codes", "Code", assets.CODES, "CodeVersion"),
        ("data", "Data", assets.DATA, "DataVersion"),
    )
    for collection, tag, family, schema in families:
        path = f"{WORKSPACE}/{collection}"
        yield from _containers(family, path, tag)
        yield from _versions(family, f"{path}/{{asset}}/versions", tag, schema)
    upload = f"{WORKSPACE}/codes/{{asset}}/versions/{{version}}/startPendingUpload"
    yield Route(
        *("POST", upload, assets.start_upload, OPERATOR, "A place to upload code to", "Code"),
        {200: "PendingUpload"},
        body="PendingUploadRequest",
    )


def _containers(family: assets.Family, path: str, tag: str) -> Iterator[Route]:
    listed = {200: "AssetContainerList"}
    query = (NAME, VIEW, *_PAGE)
    yield Route("GET", path, family.containers, READER, f"{tag}, by name", tag, listed, query=query)
    one = f"{path}/{{asset}}"
    yield Route(
        "GET", one, family.container, READER, "One name, with its latest version", tag, {200: "AssetContainer"}
    )


def _versions(family: assets.Family, path: str, tag: str, schema: str) -> Iterator[Route]:
    extra = (HASH, HASH_VERSION) if family is assets.CODES else ()
    yield Route(
        *("GET", path, family.list, READER, "The versions of a name", tag, {200: f"{schema}List"}),
        query=(ORDER, TAGS, PROPERTIES, VIEW, *extra, *_PAGE),
    )
    one = f"{path}/{{version}}"
    get = {200: schema, 304: ""}
    yield Route("GET", one, family.get, READER, "One version", tag, get, headers=("etag",), refusals=(412,))
    yield Route(
        *("PUT", one, family.put, OPERATOR, "Register a version", tag, {200: schema, 201: schema}),
        body=f"{schema}Request",
        needs_body=True,
        refusals=(409, 412),
        headers=("etag",),
    )
    yield Route(
        *("DELETE", one, family.delete, OPERATOR, "Delete a version that nothing uses", tag, {200: "", 204: ""}),
        refusals=(409, 412),
    )


def _jobs() -> Iterator[Route]:
    """Not there yet; each says so."""
    paths = (
        ("GET", f"{WORKSPACE}/jobs/{{job}}", "job"),
        ("POST", f"{WORKSPACE}/jobs/{{job}}/cancel", "cancelJob"),
        ("GET", f"{WORKSPACE}/batchEndpoints/{{endpoint}}/jobs", "batchJobs"),
        ("GET", f"{WORKSPACE}/batchEndpoints/{{endpoint}}/deployments/{{deployment}}/jobs", "deploymentJobs"),
        ("GET", f"{FRONT_END}/batchEndpoints/{{endpoint}}/jobs", "batchJobsFrontEnd"),
        ("GET", f"{FRONT_END}/batchEndpoints/{{endpoint}}/deployments/{{deployment}}/jobs", "deploymentJobsFrontEnd"),
        ("GET", f"{HISTORY}/runs/{{job}}/children", "runChildren"),
        ("GET", f"{HISTORY}/runs/{{job}}/details", "runDetails"),
        ("POST", f"{HISTORY}/rundata", "runData"),
        ("POST", "/batchEndpoints/{endpoint}/jobs", "invokeBatch"),
    )
    for method, path, name in paths:
        role = READER if method == "GET" else OPERATOR
        yield Route(
            *(method, path, workspace.no_jobs, role, "Batch jobs do not run yet", "Jobs", {}), operation_id=name
        )


ROUTES: tuple[Route, ...] = (
    *_own(),
    *_workspace(),
    *_operations(),
    *_online(),
    *_rollouts(),
    *_batch(),
    *_assets(),
    *_jobs(),
)

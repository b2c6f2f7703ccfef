"""From what shall be served to a snapshot's plain data. Pure: secrets, model files and seats come in as arguments.

Units: milliseconds of the YAML become nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from gateway.controlplane.model_store import StoredModel
from gateway.resources import AssetModel, Deployment, Desired, Endpoint, LocalModel, Oidc
from gateway.snapshot import AuthSpec, DeploymentSpec, EndpointSpec, OidcSpec, SnapshotSpec
from runtimes import RuntimeSpec, ScriptSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Settings of the process that a deployment inherits where its YAML says nothing."""

    body_bytes_max: int
    cache_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What proves callers of one endpoint: digests of its keys, and the secret that signs its tokens."""

    key_digests: tuple[bytes, ...] = ()
    token_secret: bytes = b""


def plan(
    desired: Desired,
    *,
    revision: int,
    secrets: Mapping[str, Secrets],
    models: Mapping[AssetModel | LocalModel, StoredModel],
    seats: Mapping[str, int],
    defaults: Defaults,
    scripts: Mapping[str, ScriptSpec | str] | None = None,
) -> SnapshotSpec:
    """`seats` gives the row of each deployment that has a bound on its pending requests, by "endpoint/deployment";
    `scripts` the workers of each script, or why it has none."""
    endpoints = {
        name: _endpoint(name, endpoint, desired, secrets[name], models, seats, defaults, scripts or {})
        for name, endpoint in desired.endpoints.items()
    }
    return SnapshotSpec(revision=revision, endpoints=endpoints)


def with_instances(desired: Desired, instances: Mapping[str, int]) -> Desired:
    """The same with these numbers of instances, by "endpoint/deployment"."""
    deployments = {
        key: replace(deployment, instance_count=instances.get("/".join(key), deployment.instance_count))
        for key, deployment in desired.deployments.items()
    }
    return replace(desired, deployments=deployments)


def bounded(desired: Desired) -> Iterator[str]:
    """The deployments that need a seat row, as "endpoint/deployment"."""
    for (endpoint, name), deployment in desired.deployments.items():
        if deployment.max_pending is not None:
            yield f"{endpoint}/{name}"


def _endpoint(
    name: str,
    endpoint: Endpoint,
    desired: Desired,
    secrets: Secrets,
    models: Mapping[AssetModel | LocalModel, StoredModel],
    seats: Mapping[str, int],
    defaults: Defaults,
    scripts: Mapping[str, ScriptSpec | str],
) -> EndpointSpec:
    deployments = {
        key: deployment_spec(
            deployment,
            models[deployment.model] if deployment.model is not None else None,
            seats.get(f"{name}/{key}", -1),
            defaults,
            scripts.get(f"{name}/{key}"),
        )
        for (owner, key), deployment in desired.deployments.items()
        if owner == name
    }
    return EndpointSpec(
        name=endpoint.name,
        auth=AuthSpec(
            mode=endpoint.auth_mode.value,
            key_digests=secrets.key_digests,
            token_secret=secrets.token_secret,
            oidc=_oidc(endpoint.oidc) if endpoint.oidc is not None else None,
        ),
        traffic={key.lower(): weight for key, weight in endpoint.traffic.items()},
        mirror={key.lower(): percent for key, percent in endpoint.mirror_traffic.items()},
        deployments=deployments,
        # Metrics are exact to a microsecond.
        slo_ns=round((endpoint.slo_ms or 0) * 1_000) * 1_000,
    )


def deployment_spec(
    deployment: Deployment,
    model: StoredModel | None,
    seat: int,
    defaults: Defaults,
    script: ScriptSpec | str | None = None,
) -> DeploymentSpec:
    """`seat` is the row in the table of pending requests, -1 for none. `script`: its workers, or why it has none."""
    return DeploymentSpec(
        name=deployment.name,
        runtime=_runtime(deployment, model, defaults) if model is not None else RuntimeSpec(path="", sha256=""),
        script=script if isinstance(script, ScriptSpec) else None,
        collector=deployment.collector.payloads() if deployment.collector is not None else None,
        failure=script if isinstance(script, str) else "",
        request_timeout_ns=deployment.request_timeout_ms * 1_000_000,
        queue_wait_ns=round((deployment.max_queue_wait_ms or 0) * 1_000_000),
        pending_max=_pending_max(deployment, script),
        seat=seat,
        body_bytes_max=deployment.max_body_bytes or defaults.body_bytes_max,
        model_name=deployment.triton.name if deployment.triton is not None else "",
        model_version=deployment.triton.version if deployment.triton is not None else "",
    )


def _pending_max(deployment: Deployment, script: ScriptSpec | str | None) -> int:
    """A script that batches has no use for Azure's default of one request at a time, as a model has none."""
    batches = isinstance(script, ScriptSpec) and script.batching is not None
    if batches and deployment.max_concurrent_requests_per_instance is None:
        return 0
    return deployment.max_pending or 0


def _runtime(deployment: Deployment, model: StoredModel, defaults: Defaults) -> RuntimeSpec:
    return RuntimeSpec(
        path=str(model.path),
        sha256=model.sha256,
        origin=model.origin,
        provider=deployment.provider,
        allow_cpu_fallback=deployment.allow_cpu_fallback,
        device_ids=deployment.device_ids,
        gpu_memory_bytes=deployment.gpu_memory_bytes,
        cache_dir=defaults.cache_dir,
        instance_count=deployment.instance_count * deployment.sessions,
        instances=deployment.instances,
        threads=deployment.threads,
        dispatch=deployment.dispatch,
        batching=deployment.batching,
        graph_level=deployment.graph_level,
        declared=deployment.declared,
    )


def _oidc(oidc: Oidc) -> OidcSpec:
    return OidcSpec(
        issuer=oidc.issuer,
        audience=oidc.audience,
        jwks_uri=oidc.jwks_uri,
        algorithms=oidc.algorithms,
        required_roles=oidc.required_roles,
    )

"""Everything on the scoring listener that does not score: V2 metadata, statistics and health, swagger, "Healthy".

Documents about an endpoint ask for the same credentials as scoring it; documents about several show those that the
caller's credentials open. Health routes are open. V2 routes speak V2's error shape, the others ours.
Statistics are of the whole gateway: the counters of all scorers, summed by the supervisor.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.channel import Collected
from gateway.dataplane import v2_documents as v2
from gateway.dataplane.live import LiveDeployment, LiveEndpoint, SnapshotCell
from gateway.dataplane.oidc import KeysNeeded
from gateway.dataplane.score import Scoring
from gateway.dataplane.swagger import VERSIONS, swagger
from gateway.errors import Code, Problem, retry_after
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import ScorerTotals
from runtimes import now_ns

Handler = Callable[[Request], Awaitable[Response]]
Gather = Callable[[], Awaitable[Collected]]

# Routes of V2 extensions that this gateway does not have, each with the reason.
NOT_OFFERED = {
    "/v2/systemsharedmemory": "shared memory is not offered to clients; send tensors in the body",
    "/v2/cudasharedmemory": "shared memory is not offered to clients; send tensors in the body",
    "/v2/trace": "trace settings are not offered",
    "/v2/logging": "log settings are not offered on this listener; they are settings of the gateway",
}


def documents(cell: SnapshotCell, scoring: Scoring, record: ScorerRecord, gather: Gather, version: str) -> Starlette:
    """The application behind the scoring paths. `gather` asks for the counters of all scorers."""
    pages = _Documents(cell, scoring, record, gather, version)
    model = "/v2/models/{model}"
    versioned = "/v2/models/{model}/versions/{version}"
    routes = [
        Route("/v2", pages.server),
        Route("/v2/", pages.server),
        Route("/v2/health/live", pages.live),
        Route("/v2/health/ready", pages.ready),
        Route("/v2/models", pages.index),
        Route("/v2/models/stats", pages.all_statistics),
        Route("/v2/repository/index", pages.index, methods=["POST"]),
        Route("/v2/repository/{repository}/index", pages.index, methods=["POST"]),
        Route("/endpoints/{model}/", pages.healthy),
        Route("/endpoints/{model}/swagger.json", pages.swagger),
    ]
    for base in (model, versioned):
        routes += [
            Route(base, pages.metadata),
            Route(f"{base}/config", pages.config),
            Route(f"{base}/ready", pages.model_ready),
            Route(f"{base}/stats", pages.model_statistics),
        ]
    return Starlette(
        routes=routes,
        exception_handlers={Problem: pages.on_problem, 404: pages.on_not_found, 405: pages.on_not_allowed},  # type: ignore[dict-item]
    )


class _Documents:
    def __init__(
        self, cell: SnapshotCell, scoring: Scoring, record: ScorerRecord, gather: Gather, version: str
    ) -> None:
        self._cell = cell
        self._record = record
        self._scoring = scoring
        self._gather = gather
        self._version = version

    # The server.

    async def server(self, request: Request) -> Response:
        return _json(v2.server_metadata(self._version))

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        if self._cell.current.revision == 0:
            raise Problem(Code.UNAVAILABLE, "nothing is served yet", headers=(retry_after(1),))
        return _json({"ready": True})

    async def index(self, request: Request) -> Response:
        entries = [entry for endpoint in await self._open_endpoints(request) for entry in _index(endpoint)]
        return _json(v2.repository_index(entries))

    async def all_statistics(self, request: Request) -> Response:
        totals = (await self._gather()).totals
        endpoints = await self._open_endpoints(request)
        return _json(
            v2.statistics_document(
                [_statistics(e, d, totals) for e in endpoints for d in e.deployments.values()],
            )
        )

    # One endpoint or one of its deployments.

    async def metadata(self, request: Request) -> Response:
        endpoint, deployment = await self._chosen(request)
        signature = deployment.live.runtime.signature
        versions = [found.name for found in endpoint.deployments.values()]
        return _json(v2.model_metadata(endpoint.name, versions, signature))

    async def config(self, request: Request) -> Response:
        endpoint, deployment = await self._chosen(request)
        runtime = deployment.spec.runtime
        signature = deployment.live.runtime.signature
        limits = runtime.batching.limits
        document = v2.model_config(
            endpoint.name,
            signature,
            batch_rows_max=limits.batch_rows_max,
            queue_delay_ns=limits.queue_delay_ns,
            instance_count=runtime.instance_count,
            device_ids=runtime.device_ids,
        )
        return _json(document)

    async def model_ready(self, request: Request) -> Response:
        endpoint, _ = await self._chosen(request)
        return _json({"name": endpoint.name, "ready": True})

    async def model_statistics(self, request: Request) -> Response:
        endpoint = await self._endpoint(request)
        wanted = request.path_params.get("version")
        found = [endpoint.choose(wanted)[0]] if wanted else list(endpoint.deployments.values())
        totals = (await self._gather()).totals
        return _json(v2.statistics_document([_statistics(endpoint, deployment, totals) for deployment in found]))

    async def healthy(self, request: Request) -> Response:
        _, deployment = await self._chosen(request)
        return PlainTextResponse("Healthy", headers={"azureml-model-deployment": deployment.name})

    async def swagger(self, request: Request) -> Response:
        endpoint, deployment = await self._chosen(request)
        version = request.query_params.get("version", "2")
        if version not in VERSIONS:
            raise Problem(Code.NOT_FOUND, f"there is no swagger version {version!r}; there are {', '.join(VERSIONS)}")
        document = swagger(
            deployment.live.runtime.signature,
            endpoint=endpoint.name,
            base_uri=str(request.url.replace(query="")).removesuffix("/swagger.json"),
            version=version,
        )
        return _json(document, {"azureml-model-deployment": deployment.name})

    # Refusals.

    async def on_problem(self, request: Request, problem: Problem) -> Response:
        reply = self._scoring.refuse(None, problem, is_v2=request.url.path.startswith("/v2"))
        headers = {name.decode(): value.decode() for name, value in reply.headers}
        return Response(reply.body, reply.status, headers)

    async def on_not_found(self, request: Request, _: Exception) -> Response:
        path = request.url.path
        for prefix, reason in NOT_OFFERED.items():
            if path.startswith(prefix):
                return await self.on_problem(request, Problem(Code.NOT_IMPLEMENTED, reason))
        if path.startswith("/v2/repository/"):
            reason = "models are loaded and unloaded by changing what the gateway serves, not by clients"
            return await self.on_problem(request, Problem(Code.NOT_IMPLEMENTED, reason))
        self._record.unknown(404)
        return await self.on_problem(request, Problem(Code.NOT_FOUND, _where(path, self._cell)))

    async def on_not_allowed(self, request: Request, error: Exception) -> Response:
        allowed = (getattr(error, "headers", None) or {}).get("Allow", "another method")
        problem = Problem(
            Code.METHOD_NOT_ALLOWED,
            f"{request.method} is not allowed on {request.url.path}; allowed: {allowed}",
            headers=((b"allow", allowed.encode()),),
        )
        return await self.on_problem(request, problem)

    # Who may see what.

    async def _endpoint(self, request: Request) -> LiveEndpoint:
        name = request.path_params["model"]
        endpoint = self._cell.current.endpoints.get(name.lower())
        if endpoint is None:
            raise Problem(Code.NOT_FOUND, f"there is no endpoint {name!r}", reason="not_found")
        await _authenticate(endpoint, request)
        return endpoint

    async def _chosen(self, request: Request) -> tuple[LiveEndpoint, LiveDeployment]:
        endpoint = await self._endpoint(request)
        wanted = request.path_params.get("version") or request.headers.get("azureml-model-deployment", "")
        if wanted:
            return endpoint, endpoint.choose(wanted)[0]
        return endpoint, endpoint.heaviest()

    async def _open_endpoints(self, request: Request) -> list[LiveEndpoint]:
        """The endpoints that the caller's credentials open; 401 when there are endpoints and none opens."""
        endpoints = list(self._cell.current.endpoints.values())
        opened = []
        refusal: Problem | None = None
        for endpoint in endpoints:
            try:
                await _authenticate(endpoint, request)
                opened.append(endpoint)
            except Problem as problem:
                refusal = problem
        if refusal is not None and not opened:
            raise refusal
        return opened


async def _authenticate(endpoint: LiveEndpoint, request: Request) -> None:
    given = request.headers.get("authorization")
    authorization = given.encode("latin-1") if given is not None else None
    try:
        endpoint.authenticator.authenticate(authorization, time.time())
    except KeysNeeded:
        await endpoint.authenticator.refresh()
        endpoint.authenticator.authenticate(authorization, time.time())


def _index(endpoint: LiveEndpoint) -> list[v2.IndexEntry]:
    ready = [
        v2.IndexEntry(name=endpoint.name, version=deployment.name, state="READY")
        for deployment in endpoint.deployments.values()
    ]
    failed = [
        v2.IndexEntry(name=endpoint.name, version=name, state="UNAVAILABLE", reason=reason)
        for name, reason in endpoint.failed.items()
    ]
    return ready + failed


def _statistics(endpoint: LiveEndpoint, deployment: LiveDeployment, totals: ScorerTotals) -> v2.ModelStatistics:
    found = totals.endpoints.get(endpoint.name.lower())
    counted = found.deployments.get(deployment.name.lower()) if found is not None else None
    counts = counted or deployment.record.snapshot()
    return v2.statistics_of(endpoint.name, deployment.name, counts, now_ns(), time.time())


def _where(path: str, cell: SnapshotCell) -> str:
    parts = path.strip("/").split("/")
    if len(parts) >= 2 and parts[0] == "endpoints" and parts[1].lower() not in cell.current.endpoints:
        return f"there is no endpoint {parts[1]!r}"
    if len(parts) >= 3 and parts[:2] == ["v2", "models"]:
        name = parts[2].lower()
        if name not in cell.current.endpoints:
            return f"there is no model {parts[2]!r}: a model is an endpoint"
        if len(parts) >= 5 and parts[3] == "versions":
            return f"model {parts[2]!r} has no version {parts[4]!r}, or no such route"
    return f"there is no {path}; scoring is POST /endpoints/{{endpoint}}/score or /v2/models/{{endpoint}}/infer"


def _json(value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), 200, headers, "application/json")

"""Everything on the scoring listener that does not score: V2 metadata, statistics and health, swagger, "Healthy".

Documents about an endpoint ask for the same credentials as scoring it; documents about several show those that the
caller's credentials open. Health routes are open. V2 routes speak V2's error shape, the others ours.
Statistics are of the whole gateway: the counters of all scorers, summed by the supervisor.
Errors: Problem, as on scoring paths; what nobody foresaw is a 500 in the same shape. Nothing redirects.
Source: Open Inference Protocol, and Triton's model repository and statistics extensions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.channel import ChannelClosed, Collected, RemoteFailed
from gateway.dataplane import v2_documents as v2
from gateway.dataplane.body import Disconnected, read_body
from gateway.dataplane.live import LiveDeployment, LiveEndpoint, SnapshotCell, Target, no_tensors
from gateway.dataplane.openapi import PATH as OPENAPI_PATH
from gateway.dataplane.openapi import scoring_openapi
from gateway.dataplane.paths import BASES, called, check_model, deployment_of
from gateway.dataplane.score import Scoring
from gateway.dataplane.swagger import VERSIONS, swagger
from gateway.errors import Code, Problem, retry_after
from gateway.oidc import KeysNeeded
from gateway.problem import internal
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import ScorerTotals
from runtimes import ScriptSpec, now_ns

Handler = Callable[[Request], Awaitable[Response]]
Gather = Callable[[], Awaitable[Collected]]

log = logging.getLogger(__name__)

# A question about the repository is a few bytes long.
QUESTION_BYTES_MAX = 4096

# Routes of V2 extensions that this gateway does not have, each with the reason.
NOT_OFFERED = {
    "/v2/repository": "models are loaded and unloaded by changing what the gateway serves, not by clients",
    "/v2/systemsharedmemory": "shared memory is not offered to clients; send tensors in the body",
    "/v2/cudasharedmemory": "shared memory is not offered to clients; send tensors in the body",
    "/v2/trace": "trace settings are not offered",
    "/v2/logging": "log settings are not offered on this listener; they are settings of the gateway",
}
# The same for routes of one model, by how they end.
MODEL_NOT_OFFERED = {
    "/generate": "the generate extension is not offered; send V2 tensors to /infer",
    "/generate_stream": "the generate extension is not offered; send V2 tensors to /infer",
    "/trace/setting": "trace settings are not offered",
}


def documents(cell: SnapshotCell, scoring: Scoring, record: ScorerRecord, gather: Gather, version: str) -> Starlette:
    """The application behind the scoring paths. `gather` asks for the counters of all scorers."""
    pages = _Documents(cell, scoring, record, gather, version)
    model = "/v2/models/{model}"
    versioned = "/v2/models/{model}/versions/{version}"
    routes = [
        Route(OPENAPI_PATH, pages.openapi),
        Route("/v2", pages.server),
        Route("/v2/", pages.server),
        Route("/v2/health/live", pages.live),
        Route("/v2/health/ready", pages.ready),
        Route("/v2/models", pages.index),
        Route("/v2/models/stats", pages.all_statistics),
        Route("/v2/repository/index", pages.index, methods=["POST"]),
        Route("/v2/repository/{repository}/index", pages.index, methods=["POST"]),
        Route("/endpoints/{model}", pages.healthy),
        Route("/endpoints/{model}/", pages.healthy),
        Route("/endpoints/{model}/swagger.json", pages.swagger),
    ]
    bases = [model, versioned]
    for end in BASES:
        root = f"/endpoints/{{endpoint}}{end}/v2"
        routes += [
            Route(root, pages.endpoint_server),
            Route(f"{root}/health/live", pages.endpoint_ready),
            Route(f"{root}/health/ready", pages.endpoint_ready),
            Route(f"{root}/models/stats", pages.model_statistics),
            Route(f"{root}/repository/index", pages.endpoint_index, methods=["POST"]),
        ]
        bases += [f"{root}/models/{{model}}", f"{root}/models/{{model}}/versions/{{version}}"]
    for base in bases:
        routes += [
            Route(base, pages.metadata),
            Route(f"{base}/config", pages.config),
            Route(f"{base}/ready", pages.model_ready),
            Route(f"{base}/stats", pages.model_statistics),
        ]
    handlers: dict[Any, Any] = {
        Problem: pages.on_problem,
        404: pages.on_not_found,
        405: pages.on_not_allowed,
        Exception: pages.on_error,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    # A redirect would repeat the caller's Host header, without a request id, to clients that do not follow it.
    app.router.redirect_slashes = False
    return app


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

    async def openapi(self, request: Request) -> Response:
        return _json(scoring_openapi())

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        if self._cell.current.revision == 0:
            raise Problem(Code.UNAVAILABLE, "nothing is served yet", headers=(retry_after(1),))
        return _json({"ready": True})

    async def index(self, request: Request) -> Response:
        entries = [entry for endpoint in await self._open_endpoints(request) for entry in _index(endpoint)]
        if request.method == "POST" and await _asks_for_ready(request):
            entries = [entry for entry in entries if entry.state == "READY"]
        return _json(v2.repository_index(entries))

    async def all_statistics(self, request: Request) -> Response:
        endpoints = await self._open_endpoints(request)
        totals = await self._totals()
        return _json(
            v2.statistics_document(
                [_statistics(e, d, totals) for e in endpoints for d in e.deployments.values()],
            )
        )

    # One endpoint or one of its deployments.

    async def metadata(self, request: Request) -> Response:
        endpoint, deployment = await self._chosen(request)
        signature = deployment.model.signature
        model = _model_in(request)
        name, _ = called(deployment, model)
        there = [called(one, model) for one in endpoint.deployments.values() if one.live.model is not None]
        versions = dict.fromkeys(version for other, version in there if other == name)
        return _json(v2.model_metadata(name, list(versions), signature))

    async def config(self, request: Request) -> Response:
        _, deployment = await self._chosen(request)
        runtime = deployment.spec.runtime
        signature = deployment.model.signature
        limits = runtime.batching.limits
        name, version = called(deployment, _model_in(request))
        document = v2.model_config(
            name,
            signature,
            batch_rows_max=limits.batch_rows_max,
            queue_delay_ns=limits.queue_delay_ns,
            preferred=limits.preferred,
            instance_count=runtime.instance_count,
            device_ids=runtime.device_ids,
            declared=runtime.declared,
            version=version if version == deployment.spec.model_version else "",
        )
        return _json(document)

    async def model_ready(self, request: Request) -> Response:
        _, deployment = await self._chosen(request)
        if deployment.live.model is None:
            raise no_tensors(deployment)
        return _json({"name": called(deployment, _model_in(request))[0], "ready": True})

    async def model_statistics(self, request: Request) -> Response:
        endpoint = await self._endpoint(request)
        model = _model_in(request)
        wanted = deployment_of(endpoint, model, request.path_params.get("version", ""))
        found = [endpoint.choose(wanted)[0]] if wanted else list(endpoint.deployments.values())
        if model:
            found = [deployment for deployment in found if _serves(deployment, model)]
        totals = await self._totals()
        return _json(
            v2.statistics_document([_statistics(endpoint, deployment, totals, model) for deployment in found])
        )

    async def endpoint_server(self, request: Request) -> Response:
        await self._endpoint(request)
        return await self.server(request)

    async def endpoint_ready(self, request: Request) -> Response:
        """As the endpoint's own health: the deployment with most traffic, or the one that is asked for."""
        await self._chosen(request)
        return _json({"live": True} if request.scope["path"].endswith("/live") else {"ready": True})

    async def endpoint_index(self, request: Request) -> Response:
        # Deployments of one version are one entry here.
        entries = list(dict.fromkeys(_index(await self._endpoint(request), is_own=True)))
        if await _asks_for_ready(request):
            entries = [entry for entry in entries if entry.state == "READY"]
        return _json(v2.repository_index(entries))

    async def healthy(self, request: Request) -> Response:
        _, deployment = await self._chosen(request)
        return PlainTextResponse("Healthy", headers={"azureml-model-deployment": deployment.name})

    async def swagger(self, request: Request) -> Response:
        endpoint, deployment = await self._chosen(request)
        version = request.query_params.get("version", "2")
        if version not in VERSIONS:
            raise Problem(Code.NOT_FOUND, f"there is no swagger version {version!r}; there are {', '.join(VERSIONS)}")
        named = {"azureml-model-deployment": deployment.name}
        if deployment.spec.script is not None:
            return _swagger_of_script(deployment.spec.script, version, named)
        document = swagger(
            deployment.model.signature,
            endpoint=endpoint.name,
            base_uri=str(URL(scope={**request.scope, "query_string": b""})).removesuffix("/swagger.json"),
            version=version,
        )
        return _json(document, named)

    async def _totals(self) -> ScorerTotals:
        try:
            return (await self._gather()).totals
        except (ChannelClosed, RemoteFailed, TimeoutError) as error:
            log.warning("the counters of all scorers could not be gathered: %s: %s", type(error).__name__, error)
            raise Problem(
                Code.UNAVAILABLE,
                "the counters of all scorers could not be gathered now; ask again",
                headers=(retry_after(1),),
            ) from error

    # Refusals. The path is the scope's: a request's URL is put together from its Host header.

    async def on_problem(self, request: Request, problem: Problem) -> Response:
        return self._refuse(request, problem)

    async def on_error(self, request: Request, error: Exception) -> Response:
        """Our own bug. The server logs the traceback; this line says which request it was."""
        response = self._refuse(request, internal())
        log.error("request %s failed: %s", response.headers["x-request-id"], type(error).__name__)
        return response

    async def on_not_found(self, request: Request, _: Exception) -> Response:
        path = request.scope["path"]
        reason = _not_offered(_v2_in(path))
        if reason:
            return self._refuse(request, Problem(Code.NOT_IMPLEMENTED, reason))
        endpoint = _endpoint_of(path, self._cell)
        if endpoint is None:
            self._record.unknown(404)
            return self._refuse(request, Problem(Code.NOT_FOUND, _where(path)))
        # What an endpoint has and has not is for its callers only, as on its scoring paths.
        problem = Problem(Code.NOT_FOUND, _where_below(path, endpoint), reason="not_found")
        try:
            await _authenticate(endpoint, request)
        except Problem as refusal:
            problem = refusal
        target = Target(path=path, endpoint=endpoint, deployment="", is_v2=_is_v2(request))
        return self._refuse(request, problem, target)

    async def on_not_allowed(self, request: Request, error: Exception) -> Response:
        allowed = (getattr(error, "headers", None) or {}).get("Allow", "another method")
        problem = Problem(
            Code.METHOD_NOT_ALLOWED,
            f"{request.method} is not allowed on {request.scope['path']}; allowed: {allowed}",
            headers=((b"allow", allowed.encode()),),
        )
        return self._refuse(request, problem)

    def _refuse(self, request: Request, problem: Problem, target: Target | None = None) -> Response:
        reply = self._scoring.refuse(target, problem, is_v2=_is_v2(request))
        headers = {name.decode(): value.decode() for name, value in reply.headers}
        return Response(reply.body, reply.status, headers)

    # Who may see what.

    async def _endpoint(self, request: Request) -> LiveEndpoint:
        name = request.path_params.get("endpoint") or request.path_params["model"]
        endpoint = self._cell.current.endpoints.get(name.lower())
        if endpoint is None:
            self._record.unknown(404)
            raise Problem(Code.NOT_FOUND, _where(request.scope["path"]), reason="not_found")
        await _authenticate(endpoint, request)
        return endpoint

    async def _chosen(self, request: Request) -> tuple[LiveEndpoint, LiveDeployment]:
        endpoint = await self._endpoint(request)
        model = _model_in(request)
        wanted = deployment_of(endpoint, model, request.path_params.get("version", ""))
        wanted = wanted or request.headers.get("azureml-model-deployment", "")
        deployment = endpoint.choose(wanted)[0] if wanted else endpoint.heaviest(model)
        check_model(deployment, model)
        return endpoint, deployment

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


def _model_in(request: Request) -> str:
    """The model that a path below an endpoint's address names; "" for the endpoint itself."""
    return request.path_params.get("model", "") if "endpoint" in request.path_params else ""


def _serves(deployment: LiveDeployment, model: str) -> bool:
    return model.lower() in (deployment.endpoint_name.lower(), deployment.spec.model_name.lower())


def _index(endpoint: LiveEndpoint, *, is_own: bool = False) -> list[v2.IndexEntry]:
    """`is_own`: below the endpoint's address, where models have their repository's names."""
    ready = [_entry(deployment, is_own) for deployment in endpoint.deployments.values()]
    failed = [_failed(endpoint, key, reason, is_own) for key, reason in endpoint.failed.items()]
    return ready + failed


def _failed(endpoint: LiveEndpoint, key: str, reason: str, is_own: bool) -> v2.IndexEntry:
    spec = endpoint.spec.deployments[key]
    name, version = (
        (spec.model_name, spec.model_version) if is_own and spec.model_name else (endpoint.name, spec.name)
    )
    return v2.IndexEntry(name=name, version=version, state="UNAVAILABLE", reason=reason)


def _entry(deployment: LiveDeployment, is_own: bool) -> v2.IndexEntry:
    """What V2 clients may use is ready; a script answers, but not to them."""
    name, version = called(deployment, deployment.spec.model_name if is_own else "")
    if deployment.live.model is not None:
        return v2.IndexEntry(name=name, version=version, state="READY")
    return v2.IndexEntry(name=name, version=version, state="UNAVAILABLE", reason=no_tensors(deployment).message)


def _swagger_of_script(script: ScriptSpec, version: str, headers: dict[str, str]) -> Response:
    """As the user's file has it, or as the worker made it of the script's decorators."""
    document = script.swagger.get(version)
    if document is None:
        there = ", ".join(sorted(script.swagger)) or "none"
        raise Problem(Code.NOT_FOUND, f"the scoring script has no swagger of version {version!r}; there are: {there}")
    return Response(document, 200, headers, "application/json")


def _statistics(
    endpoint: LiveEndpoint, deployment: LiveDeployment, totals: ScorerTotals, model: str = ""
) -> v2.ModelStatistics:
    found = totals.endpoints.get(endpoint.name.lower())
    counted = found.deployments.get(deployment.name.lower()) if found is not None else None
    counts = counted or deployment.record.snapshot()
    return v2.statistics_of(*called(deployment, model), counts, now_ns(), time.time())


async def _asks_for_ready(request: Request) -> bool:
    """The body of a repository index: nothing, or `{"ready": true}` for what is ready only."""
    try:
        body = await read_body(request.receive, QUESTION_BYTES_MAX)
        question = orjson.loads(body or b"{}")
    except Disconnected:
        return False
    except orjson.JSONDecodeError as error:
        raise Problem(Code.INVALID_INPUT, f"the body is not JSON: {error}") from error
    ready = question.get("ready", False) if isinstance(question, dict) else None
    if not isinstance(ready, bool):
        raise Problem(Code.INVALID_INPUT, 'the body is not {"ready": true}, {"ready": false} or empty')
    return ready


def _is_v2(request: Request) -> bool:
    return bool(_v2_in(request.scope["path"]))


def _v2_in(path: str) -> str:
    """A path from "/v2" on, at the root or below an endpoint's address; "" for any other."""
    match path.split("/"):
        case ["", "v2", *rest] | ["", "endpoints", _, "v2", *rest] | ["", "endpoints", _, "score", "v2", *rest]:
            return "/".join(["", "v2", *rest])
        case _:
            return ""


def _not_offered(path: str) -> str:
    """Why a route of a V2 extension is not there; "" for any other path."""
    for prefix, reason in NOT_OFFERED.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            return reason
    is_model = path.startswith("/v2/models/")
    return next((reason for end, reason in MODEL_NOT_OFFERED.items() if is_model and path.endswith(end)), "")


def _name_in(path: str) -> str:
    """The endpoint that a path names, "" for none."""
    match path.strip("/").split("/"):
        case ["endpoints", name, *_] | ["v2", "models", name, *_]:
            return name
        case _:
            return ""


def _endpoint_of(path: str, cell: SnapshotCell) -> LiveEndpoint | None:
    return cell.current.endpoints.get(_name_in(path).lower())


def _where(path: str) -> str:
    """What is said about a path that leads to no endpoint."""
    name = _name_in(path)
    if not name:
        return f"there is no {path}; scoring is POST /endpoints/{{endpoint}}/score or /v2/models/{{endpoint}}/infer"
    if path.startswith("/v2"):
        return f"there is no model {name!r}: a model is an endpoint"
    return f"there is no endpoint {name!r}"


def _has_model(endpoint: LiveEndpoint, model: str) -> bool:
    return any(_serves(one, model) for one in endpoint.deployments.values())


def _has_version(endpoint: LiveEndpoint, model: str, version: str, is_root: bool) -> bool:
    return deployment_of(endpoint, "" if is_root else model, version).lower() in endpoint.spec.deployments


def _where_below(path: str, endpoint: LiveEndpoint) -> str:
    """What is said about a path that is not there, to a caller of its endpoint."""
    is_root = path.startswith("/v2")
    match _v2_in(path).strip("/").split("/"):
        case ["v2", "models", model, *_] if not is_root and not _has_model(endpoint, model):
            there = sorted({called(one, one.spec.model_name)[0] for one in endpoint.deployments.values()})
            return f"endpoint {endpoint.name!r} has no model {model!r}; it has: {', '.join(there) or 'none'}"
        case ["v2", "models", model, "versions", version, *_] if not _has_version(endpoint, model, version, is_root):
            name = "" if is_root else model
            there = sorted({called(one, name)[1] for one in endpoint.deployments.values()})
            said = endpoint.name if is_root else model
            return f"model {said!r} has no version {version!r}; it has: {', '.join(there) or 'none'}"
        case ["v2", *_] if is_root:
            return f"there is no {path}; scoring is POST /v2/models/{endpoint.name}/infer"
        case _:
            return f"there is no {path}; scoring is POST /endpoints/{endpoint.name}/score"


def _json(value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), 200, headers, "application/json")

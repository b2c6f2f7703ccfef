"""The management listener's application: a request to its route's handler, and whatever happens to an answer.

Every answer but a success is the ARM error body, our own bugs included. Order of refusals: a path that cannot be
read (400), no such route (404), another method (405), no or bad credentials (401), not allowed (403), then what the
request itself says wrong. `/blob` is the asset storage's application and speaks its own language.
Units: *_bytes bytes. Errors: none leave; what nobody foresaw is a 500 whose cause the log has under its request id.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from gateway.controlplane.arm.envelope import error_body
from gateway.controlplane.authorize import Actor, require
from gateway.controlplane.documents import DocumentError
from gateway.controlplane.rest.context import Call, Reply, Services, Stream
from gateway.controlplane.rest.query import Query
from gateway.controlplane.rest.router import WORKSPACE, Found, Router, check_names
from gateway.controlplane.rest.table import ROUTES
from gateway.controlplane.rest.urls import Urls
from gateway.controlplane.store.database import StoreBusy, VersionConflict
from gateway.errors import Code, Problem, retry_after
from gateway.identity import RequestIds, clean_client_id
from gateway.problem import internal
from gateway.telemetry.control import DoorRecord

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BLOB_PREFIX = b"/blob"
# What decides about a request is said once.
_SINGLE = frozenset({"authorization", "content-type", "content-length", "host", "if-match", "if-none-match"})
_CORRELATION = re.compile(r"[0-9A-Za-z-]{1,64}")


class Disconnected(Exception):
    """The caller has gone; nobody reads an answer."""


class ManagementApp:
    """An ASGI application. `record` counts answers, for whoever watches the door."""

    def __init__(
        self, services: Services, urls: Urls, blobs: App | None = None, record: DoorRecord | None = None
    ) -> None:
        self._services = services
        self._urls = urls
        self._blobs = blobs
        self._router = Router(ROUTES)
        self._ids = RequestIds()
        self.record = record or DoorRecord()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = _raw_path(scope)
        if self._blobs is not None and (path == BLOB_PREFIX or path.startswith(BLOB_PREFIX + b"/")):
            await self._blobs(scope, receive, self._counting(scope, send))
            return
        request_id = self._ids.next()
        try:
            reply = await self._answer(scope, receive, path, request_id)
        except Disconnected:
            return
        self.record.answered(scope["method"], reply.status)
        if reply.stream is not None:
            await _send_stream(scope, receive, send, reply, reply.stream, request_id)
        else:
            await _send(scope, send, reply, request_id)

    def _counting(self, scope: Scope, send: Send) -> Send:
        async def counted(event: MutableMapping[str, Any]) -> None:
            if event["type"] == "http.response.start":
                self.record.answered(scope["method"], event["status"], is_blob=True)
            await send(event)

        return counted

    async def _answer(self, scope: Scope, receive: Receive, path: bytes, request_id: str) -> Reply:
        try:
            return await self._handled(scope, receive, path, request_id)
        except Disconnected:
            raise
        except Problem as problem:
            return self._refusal(problem, scope, request_id)
        except Exception as error:
            found = _problem_of(error)
            if found.code is Code.INTERNAL:
                log.exception("request %s failed", request_id)
            return self._refusal(found, scope, request_id)

    async def _handled(self, scope: Scope, receive: Receive, path: bytes, request_id: str) -> Reply:
        headers = _headers(scope)
        found = self._find(scope["method"], path)
        if found is None:
            return Reply(status=204, headers={"allow": self._router.methods(path)})
        caller = await self._caller(found, headers, scope, request_id)
        check_names(found)
        host = headers.get("host", "")
        call = Call(
            services=self._services,
            method=scope["method"],
            path=path.decode("latin-1"),
            params=found.params,
            query=Query(scope.get("query_string", b""), found.route.query),
            headers=headers,
            caller=caller,
            request_id=request_id,
            base=self._urls.management(host),
            scoring=self._urls.scoring(host),
            needs_body=found.route.needs_body,
            read_body=lambda: _read_body(headers, receive, found.route.body_bytes_max),
        )
        return await found.route.handler(call)

    def _find(self, method: str, path: bytes) -> Found | None:
        """None for OPTIONS of a path that there is."""
        if method == "OPTIONS" and self._router.methods(path):
            return None
        return self._router.find(method, path)

    async def _caller(self, found: Found, headers: dict[str, str], scope: Scope, request_id: str) -> Actor | None:
        """Who asks, where the route asks for somebody; refusals are logged here, with no credential in them."""
        role = found.route.role
        if role is None:
            return None
        source = _source(scope)
        try:
            actor = await self._services.doorkeeper.identify(headers.get("authorization"), source, request_id)
            require(actor, role)
        except Problem as problem:
            at = f"{found.route.method} {found.route.template.removeprefix(WORKSPACE)}"
            log.warning("refused %s from %s at %s: %s", problem.code.status, source, at, problem.message)
            raise
        return actor

    def _refusal(self, problem: Problem, scope: Scope, request_id: str) -> Reply:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in problem.headers}
        if problem.code.may_retry and problem.code is not Code.CONFLICT:
            headers.setdefault("retry-after", "1")
        return Reply(status=problem.code.status, body=error_body(problem), headers=headers)


def _problem_of(error: Exception) -> Problem:
    match error:
        case StoreBusy():
            return Problem(Code.UNAVAILABLE, str(error), headers=(retry_after(1),))
        case DocumentError():
            return Problem(Code.CONFLICT, f"{error}; give it again with PUT or apply, or delete it")
        case VersionConflict():
            return Problem(Code.CONFLICT, "it was changed by someone else meanwhile; read it and try again")
        case _:
            return internal()


def _raw_path(scope: Scope) -> bytes:
    raw = scope.get("raw_path")
    return raw if isinstance(raw, bytes) else scope["path"].encode()


def _headers(scope: Scope) -> dict[str, str]:
    """By lower-cased name; of those that may be repeated, the last. Errors: Problem."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        if name in headers and name in _SINGLE:
            raise Problem(Code.INVALID_INPUT, f"header {name} is given more than once; it is taken once")
        headers[name] = raw_value.decode("latin-1").strip()
    return headers


def _source(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


async def _read_body(headers: dict[str, str], receive: Receive, bytes_max: int) -> bytes:
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > bytes_max:
        raise _too_large(bytes_max)
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Disconnected
        body += event.get("body", b"")
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        if not event.get("more_body", False):
            return bytes(body)


def _too_large(bytes_max: int) -> Problem:
    return Problem(Code.PAYLOAD_TOO_LARGE, f"the body has more than {bytes_max} bytes; that many are accepted")


async def _send(scope: Scope, send: Send, reply: Reply, request_id: str) -> None:
    content = msgspec.json.encode(reply.body) if reply.body is not None else b""
    lines = _lines(scope, reply, request_id)
    if reply.body is not None:
        lines.append((b"content-type", b"application/json"))
    if reply.status not in (204, 304):
        lines.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": lines})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})


async def _send_stream(
    scope: Scope, receive: Receive, send: Send, reply: Reply, stream: Stream, request_id: str
) -> None:
    """Until the stream ends or the caller hangs up."""

    async def push() -> None:
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": _lines(scope, reply, request_id)}
        )
        if scope["method"] != "HEAD":
            async for chunk in stream.chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def until_gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(push()), asyncio.create_task(until_gone())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        stream.close()


def _lines(scope: Scope, reply: Reply, request_id: str) -> list[tuple[bytes, bytes]]:
    headers = [*_traces(scope, request_id), *reply.headers.items()]
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _traces(scope: Scope, request_id: str) -> list[tuple[str, str]]:
    given = {name.lower(): value for name, value in scope["headers"]}
    correlation = given.get(b"x-ms-correlation-request-id", b"").decode("latin-1")
    client_id = clean_client_id(given.get(b"x-ms-client-request-id", b""))
    traces = [
        ("x-ms-request-id", request_id),
        ("x-ms-correlation-request-id", correlation if _CORRELATION.fullmatch(correlation) else request_id),
        # Nothing here is for a cache on the way.
        ("cache-control", "no-store"),
    ]
    return [*traces, ("x-ms-client-request-id", client_id.decode())] if client_id else traces

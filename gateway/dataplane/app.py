"""The ASGI door: scoring paths go straight to `score`, everything else to the documents' Starlette application.

Why raw ASGI for scoring: a Starlette route costs more than the whole scoring path of a small model. One dictionary
look-up decides. A server that offers `gateway.connection` in the scope (listener.py) tells of hang-ups by a callback;
under any other server a task waits for the disconnect message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.dataplane.body import Disconnected, body_is_late, read_body
from gateway.dataplane.head import Head
from gateway.dataplane.live import SnapshotCell, Target
from gateway.dataplane.paths import MODELS, endpoint_in_host, path_at_host, suffix_of
from gateway.dataplane.score import Call, Reply, Scoring, not_allowed
from gateway.dataplane.script import METHODS
from gateway.errors import Problem
from gateway.oidc import KeysNeeded
from gateway.problem import internal
from runtimes import now_ns

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class ScoringApp:
    """The scoring listener's application. `domain` is the suffix of host-name routing, "" for none."""

    def __init__(self, cell: SnapshotCell, scoring: Scoring, documents: App, domain: str) -> None:
        self._cell = cell
        self._scoring = scoring
        self._documents = documents
        self._suffix = suffix_of(domain)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrived_ns = now_ns()
        path = scope["path"]
        target = self._cell.current.targets.get(path)
        if target is None or (self._suffix and path.startswith(MODELS)):
            path = self._path_of_host(scope, path)
            target = self._cell.current.targets.get(path.lower())
        if target is None:
            await self._documents({**scope, "path": path, "raw_path": path.encode()}, receive, send)
            return
        reply: Reply | None
        methods = METHODS if target.endpoint.has_scripts and not target.is_v2 else ("POST",)
        if scope["method"] not in methods:
            reply = self._scoring.refuse(target, not_allowed(scope["method"], methods))
        elif scope["method"] == "OPTIONS" and (found := self._scoring.preflight(target, scope["headers"])):
            reply = found
        else:
            reply = await self._score(target, scope, receive, arrived_ns)
        if reply is not None:
            await _send(reply, send)

    async def _score(self, target: Target, scope: Scope, receive: Receive, arrived_ns: int) -> Reply | None:
        try:
            call = await self._open(target, Head(scope["headers"]), arrived_ns, scope)
        except Problem as problem:
            return self._scoring.refuse(target, problem)
        except Exception:
            log.exception("a scoring request failed before its body")
            return self._scoring.refuse(target, internal())
        try:
            self._scoring.admit(call)
            body = await _body(call, scope.get("gateway.connection"), receive)
            return await self._answer(call, body, scope.get("gateway.connection"), receive)
        except Problem as problem:
            return self._scoring.fail(call, problem)
        except (Disconnected, asyncio.CancelledError) as error:
            self._scoring.cancel(call)
            if isinstance(error, asyncio.CancelledError):
                raise
            return None
        except Exception:
            log.exception("request %s failed", call.request_id)
            return self._scoring.fail(call, internal())

    async def _open(self, target: Target, head: Head, arrived_ns: int, scope: Scope) -> Call:
        method, query = scope["method"], scope.get("query_string", b"")
        try:
            return self._scoring.open(target, head, arrived_ns, method, query)
        except KeysNeeded:
            # A token signed by a key that is not known yet: fetch the issuer's keys once, then decide.
            await target.endpoint.authenticator.refresh()
            # What is served may have changed meanwhile.
            target = self._cell.current.targets.get(target.path, target)
            return self._scoring.open(target, head, arrived_ns, method, query)

    async def _answer(self, call: Call, body: bytes, connection: Any, receive: Receive) -> Reply | None:
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def on_reply(value: Reply) -> None:
            if not reply.done():
                reply.set_result(value)

        if connection is not None and connection.transport.is_closing():
            # Of several pipelined requests, the server tells only the newest that the caller is gone.
            raise Disconnected
        self._scoring.submit(call, body, on_reply)
        if connection is None:
            return await _reply_or_disconnect(reply, receive)

        def on_lost() -> None:
            if not reply.done():
                reply.set_exception(Disconnected())

        connection.on_lost = on_lost
        try:
            return await reply
        finally:
            connection.on_lost = None

    def _path_of_host(self, scope: Scope, path: str) -> str:
        host = endpoint_in_host(scope["headers"], self._suffix) if self._suffix else ""
        served = self._cell.current
        return path_at_host(path, host, served.endpoints, served.targets) if host else path


async def _body(call: Call, connection: Any, receive: Receive) -> bytes:
    limit = call.deployment.spec.body_bytes_max
    if connection is not None and not connection.in_body:
        return await read_body(receive, limit)
    # The body is still on its way: the request's deadline counts from its head.
    try:
        async with asyncio.timeout(max(0.0, (call.deadline_ns - now_ns()) / 1e9)):
            return await read_body(receive, limit)
    except TimeoutError as error:
        raise body_is_late() from error


async def _reply_or_disconnect(reply: asyncio.Future[Reply], receive: Receive) -> Reply:
    waiting = asyncio.ensure_future(receive())
    try:
        both: set[asyncio.Future[Any]] = {reply, waiting}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            raise Disconnected
        return reply.result()
    finally:
        waiting.cancel()


async def _send(reply: Reply, send: Send) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
    await send({"type": "http.response.body", "body": reply.body})

"""What an operator asks of a running gateway: status and reload, over the control socket and over HTTPS.

The control socket lies in the state folder (mode 0600): who may use that folder may use the gateway. The management
listener asks for the management token. Both answer `{"ok": bool, "message": str, "data": ...}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.errors import Code, Problem
from gateway.identity import RequestIds
from gateway.problem import azure_body

log = logging.getLogger(__name__)

LINE_BYTES_MAX = 64 * 1024


class Operator(Protocol):
    """The supervisor as an operator sees it."""

    async def reload(self) -> Answer: ...

    def status(self) -> dict[str, Any]: ...


class Answer:
    """What came of a command; `message` is one or more sentences for a person."""

    __slots__ = ("data", "message", "ok")

    def __init__(self, ok: bool, message: str, data: Any = None) -> None:
        self.ok = ok
        self.message = message
        self.data = data

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "message": self.message, "data": self.data}


async def answer(operator: Operator, command: str) -> Answer:
    match command:
        case "reload":
            return await operator.reload()
        case "status":
            return Answer(True, "", operator.status())
        case _:
            return Answer(False, f"there is no command {command!r}; there are: reload, status")


async def serve_control(operator: Operator, path: Path) -> asyncio.Server:
    """Listen on the control socket: one JSON line in, one out, then the connection is closed."""

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            reply = await answer(operator, str(json.loads(line).get("command")))
        except (ValueError, AttributeError) as error:
            reply = Answer(False, f"the command is not a JSON object with a command: {error}")
        except Exception as error:
            log.exception("a command on the control socket failed")
            reply = Answer(False, f"the gateway failed: {type(error).__name__}")
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(reply.as_json()).encode() + b"\n")
            await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240 - a socket file, once, at start
    server = await asyncio.start_unix_server(on_connection, path=path, limit=LINE_BYTES_MAX)
    path.chmod(0o600)  # noqa: ASYNC240
    return server


def management_app(operator: Operator, token: str) -> Starlette:
    """The management listener's routes; every one but `/` needs `Authorization: Bearer <management token>`."""
    ids = RequestIds()

    def refuse(problem: Problem) -> Response:
        body = azure_body(problem, ids.next())
        headers = {name.decode(): value.decode() for name, value in problem.headers}
        return Response(body, problem.code.status, headers, "application/json")

    def guarded(
        handler: Callable[[Request], Awaitable[Response]],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, b"Bearer " + token.encode()):
                headers = ((b"www-authenticate", b"Bearer"),)
                return refuse(Problem(Code.UNAUTHENTICATED, "the management token is needed", headers=headers))
            return await handler(request)

        return checked

    async def index(_: Request) -> Response:
        return JSONResponse({"name": "inference-gateway", "routes": ["GET /status", "POST /reload"]})

    async def status(_: Request) -> Response:
        return JSONResponse(operator.status())

    async def reload(_: Request) -> Response:
        reply = await operator.reload()
        return JSONResponse(reply.as_json(), 200 if reply.ok else 409)

    async def not_found(request: Request, _: Exception) -> Response:
        return refuse(Problem(Code.NOT_FOUND, f"there is no {request.url.path}; there are GET /status, POST /reload"))

    async def not_allowed(request: Request, _: Exception) -> Response:
        return refuse(Problem(Code.METHOD_NOT_ALLOWED, f"{request.method} is not allowed on {request.url.path}"))

    return Starlette(
        routes=[
            Route("/", index),
            Route("/status", guarded(status)),
            Route("/reload", guarded(reload), methods=["POST"]),
        ],
        exception_handlers={404: not_found, 405: not_allowed},
    )

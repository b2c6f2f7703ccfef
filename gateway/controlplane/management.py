"""What an operator asks of a running gateway: status and reload, over the control socket and over HTTPS.

The control socket lies in the state folder (mode 0600): who may use that folder may use the gateway. The management
listener asks for the management token. A command's answer is `{"ok": bool, "message": str, "data": ...}` on both;
`GET /status` is its `data` alone.
Units: *_bytes bytes.
Errors: on the socket an answer with `ok` false; over HTTPS the error shape of scoring paths, and 409 for a
reload that is refused.
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
from gateway.problem import azure_body, internal
from gateway.unix_address import unix_address

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
        with contextlib.suppress(ConnectionError):
            writer.write(await _answer_line(operator, reader))
            await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240 - a socket file, once, at start
    with unix_address(path) as address:
        server = await asyncio.start_unix_server(on_connection, path=address, limit=LINE_BYTES_MAX)
    path.chmod(0o600)  # noqa: ASYNC240
    return server


async def _answer_line(operator: Operator, reader: asyncio.StreamReader) -> bytes:
    """The answer to the line that comes next, whatever it is."""
    try:
        command = _command(await _line(reader))
    except _BadCommand as error:
        return _as_line(Answer(False, str(error)))
    try:
        return _as_line(await answer(operator, command))
    except Exception as error:
        log.exception("a command on the control socket failed")
        return _as_line(Answer(False, f"the gateway failed: {type(error).__name__}; its log has the cause"))


class _BadCommand(Exception):
    """What came over the control socket is no command; the text says why."""


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError as error:
        raise _BadCommand(f"the command is longer than {LINE_BYTES_MAX} bytes") from error


def _command(line: bytes) -> str:
    shape = 'a command is one line of JSON, such as {"command": "status"}'
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _BadCommand(f"{shape}; {len(line)} bytes came that are not JSON") from error
    command = found.get("command") if isinstance(found, dict) else None
    if not isinstance(command, str):
        raise _BadCommand(f"{shape}; what came has no command")
    return command


def _as_line(reply: Answer) -> bytes:
    return json.dumps(reply.as_json()).encode() + b"\n"


def management_app(operator: Operator, token: str) -> Starlette:
    """The management listener's routes; every one but `/` needs `Authorization: Bearer <management token>`."""
    ids = RequestIds()

    def refuse(problem: Problem) -> Response:
        request_id = ids.next()
        body = azure_body(problem, request_id)
        headers = {name.decode(): value.decode() for name, value in problem.headers} | {"x-request-id": request_id}
        return Response(body, problem.code.status, headers, "application/json")

    def guarded(
        handler: Callable[[Request], Awaitable[Response]],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
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
        path = request.scope["path"]
        return refuse(Problem(Code.NOT_FOUND, f"there is no {path}; there are GET /status, POST /reload"))

    async def not_allowed(request: Request, error: Exception) -> Response:
        allowed = (getattr(error, "headers", None) or {}).get("Allow", "another method")
        message = f"{request.method} is not allowed on {request.scope['path']}; allowed: {allowed}"
        return refuse(Problem(Code.METHOD_NOT_ALLOWED, message, headers=((b"allow", allowed.encode()),)))

    async def failed(_: Request, error: Exception) -> Response:
        """Our own bug. The server logs the traceback; this line says which request it was."""
        response = refuse(internal())
        log.error("request %s failed: %s", response.headers["x-request-id"], type(error).__name__)
        return response

    handlers: dict[Any, Any] = {404: not_found, 405: not_allowed, Exception: failed}
    app = Starlette(
        routes=[
            Route("/", index),
            Route("/status", guarded(status)),
            Route("/reload", guarded(reload), methods=["POST"]),
        ],
        exception_handlers=handlers,
    )
    app.router.redirect_slashes = False
    return app

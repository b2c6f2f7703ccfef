"""TLS, sockets and HTTP/1.1: the only file that names the server.

Why: uvicorn's httptools protocol is the strictest parser of those tried, but has no limits and no deadlines of its
own; this subclass adds the rules of strict framing, so that every door behind it is covered. Its methods are not
public API, so the server is pinned to a minor version.
Units: *_s seconds, *_bytes bytes.
Errors: a request that breaks a rule gets 400, 408, 413, 414, 431, 501 or 505 with the one JSON shape and the
connection is closed; a connection over the limit gets 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.errors import Code, Problem, retry_after
from gateway.identity import RequestIds
from gateway.problem import azure_body

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]

SWEEP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds on what one connection may cost. The discard bound is on the body of a refused request."""

    headers_max: int = 100
    header_bytes_max: int = 16 * 1024
    uri_bytes_max: int = 8 * 1024
    body_bytes_max: int = 10 * 1024 * 1024
    header_timeout_s: float = 10.0
    body_grace_s: float = 5.0
    body_bytes_per_s_min: int = 1024
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 30.0
    connections_max: int = 10_000
    discard_bytes_max: int = 64 * 1024 * 1024


class Edge(ServerState):
    """What the connections of one listener share: limits, counters, and whether it drains."""

    def __init__(self, limits: HttpLimits) -> None:
        super().__init__()
        self.limits = limits
        self.ids = RequestIds()
        self.draining = False
        self.refused: dict[str, int] = {}

    def count_refusal(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `due_s` is when the sweep closes it unless it moves on; 0 while the application answers."""

    server_state: Edge

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.edge = self.server_state
        self.limits = self.edge.limits
        self.now = self.loop.time
        self.head_bytes = 0
        self.partial_bytes = 0
        self.in_head = False
        self.in_body = False
        self.expects_continue = False
        self.body_began_s = 0.0
        self.body_bytes = 0
        self.write_paused_s = 0.0
        self.broken: Problem | None = None
        # Set by the application while it waits for an answer: called when the caller hangs up.
        self.on_lost: Callable[[], None] | None = None
        self.due_s = self.now() + self.limits.header_timeout_s
        if len(self.connections) > self.limits.connections_max:
            self.edge.count_refusal("connections")
            self._break(_too_many_connections(self.limits.connections_max))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.due_s = 0.0
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        if self.broken is not None:
            return
        if self.in_head:
            self.partial_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._break(cause if isinstance(cause, Problem) else _malformed(cause or error))
            if not isinstance(cause, Problem):
                log.error("the HTTP callbacks failed", exc_info=cause)
        except httptools.HttpParserUpgrade:
            self._break(Problem(Code.NOT_IMPLEMENTED, "Upgrade and CONNECT are not supported; send HTTP/1.1"))
        except httptools.HttpParserError as error:
            self._break(_malformed(error))
        else:
            limits = self.limits
            if self.in_head and self.partial_bytes > limits.header_bytes_max + limits.uri_bytes_max:
                self._break(_head_too_large(limits))

    # Parser callbacks: a Problem raised here reaches data_received through the parser.
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["gateway.connection"] = self  # type: ignore[typeddict-unknown-key]
        self.in_head = True
        self.head_bytes = 0
        self.partial_bytes = 0
        self.hosts = 0
        self.host = b""
        if self.cycle is None or self.cycle.response_complete:
            self.due_s = self.now() + self.limits.header_timeout_s

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.uri_bytes_max:
            raise Problem(
                Code.URI_TOO_LONG,
                f"the request target is over {self.limits.uri_bytes_max} bytes (setting max_uri_bytes)",
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        limits = self.limits
        self.head_bytes += len(name) + len(value)
        if b"_" in name:
            # Proxies and CGI-like programs read X_User as X-User: such a header is dropped, never trusted.
            self.edge.count_refusal("underscore_header")
            return
        super().on_header(name, value)
        if len(self.headers) > limits.headers_max:
            raise _head_too_large(limits)
        if len(name) == 4 and name.lower() == b"host":
            self.hosts += 1
            self.host = value

    def on_headers_complete(self) -> None:
        self.in_head = False
        self._check_head()
        super().on_headers_complete()
        if self.edge.draining:
            self.cycle.keep_alive = False
        self.expects_continue = self.expect_100_continue
        self.in_body = True
        self.body_bytes = 0
        self.body_began_s = self.now()
        self.due_s = self.body_began_s + self.limits.body_grace_s

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        if self.cycle.response_complete and self.body_bytes > self.limits.discard_bytes_max:
            # The request was refused long ago, and its body still comes.
            self.transport.close()
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.in_body = False
        if self.cycle is not None and self.cycle.response_complete:
            self._idle()
        else:
            self.due_s = 0.0

    def on_response_complete(self) -> None:
        if self.broken is not None and not self.pipeline:
            self._close_broken(self.broken)
            return
        super().on_response_complete()
        # The sweep closes idle connections; a timer per response would cost more than the response.
        self._unset_keepalive_if_required()
        if self.in_body and self.expects_continue and not self.body_bytes:
            # Refused before 100 Continue: the body may or may not follow, so the connection cannot go on.
            self.transport.close()
        elif not self.in_body and not self.in_head and not self.pipeline:
            self._idle()

    def shutdown(self) -> None:
        """Close when idle; a request that has begun is still answered, with Connection: close."""
        if not self.in_head:
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.write_paused_s = self.now()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_paused_s = 0.0

    def sweep(self, now_s: float) -> None:
        """Called every second: closes what is stalled."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.write_paused_s and now_s - self.write_paused_s > self.limits.write_timeout_s:
            self.edge.count_refusal("slow_write")
            self.transport.abort()
        elif self.due_s and now_s > self.due_s:
            self._overdue(now_s)

    def _overdue(self, now_s: float) -> None:
        if self.in_body:
            elapsed = now_s - self.body_began_s
            if self.flow.read_paused or self.body_bytes >= elapsed * self.limits.body_bytes_per_s_min:
                self.due_s = now_s + SWEEP_S
                return
            self.edge.count_refusal("slow_body")
            self._break(Problem(Code.DEADLINE_EXCEEDED, "the body arrives too slowly", reason="deadline"))
        elif self.in_head:
            self.edge.count_refusal("slow_head")
            self._break(
                Problem(
                    Code.DEADLINE_EXCEEDED,
                    f"the request head did not arrive within {self.limits.header_timeout_s:g} s",
                    reason="deadline",
                )
            )
        else:
            self.transport.close()

    def _idle(self) -> None:
        self.due_s = self.now() + self.limits.idle_timeout_s

    def _check_head(self) -> None:
        limits = self.limits
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Problem(Code.VERSION_NOT_SUPPORTED, f"HTTP/{version} is not supported; send HTTP/1.1 or HTTP/1.0")
        if self.parser.should_upgrade():
            raise Problem(Code.NOT_IMPLEMENTED, "Upgrade and CONNECT are not supported; send HTTP/1.1")
        if self.head_bytes > limits.header_bytes_max + len(self.url):
            raise _head_too_large(limits)
        if self.hosts > 1 or (self.hosts == 0 and version == "1.1"):
            raise Problem(Code.INVALID_INPUT, f"a request has exactly one Host header; this one has {self.hosts}")
        if version == "1.0" and any(name == b"transfer-encoding" for name, _ in self.headers):
            raise Problem(Code.INVALID_INPUT, "HTTP/1.0 has no Transfer-Encoding; send Content-Length")
        if self.url[:1] != b"/" and self.url != b"*":
            self._check_absolute_target()

    def _check_absolute_target(self) -> None:
        try:
            target = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError as error:
            raise Problem(Code.INVALID_INPUT, "the request target is not a URL") from error
        wanted = target.host or b""
        if target.port:
            wanted += b":%d" % target.port
        if wanted.lower() != self.host.lower():
            raise Problem(Code.INVALID_INPUT, "the host of the request target is not the one of the Host header")

    def _break(self, problem: Problem) -> None:
        """Answer with the problem and close; after the answers that are still owed, never between them.

        A request whose own body breaks is told so at once: it will never be whole.
        """
        if self.broken is not None or self.transport.is_closing():
            return
        self.broken = problem
        self.in_head = self.in_body = False
        self.due_s = 0.0
        if self.cycle is None or self.cycle.response_complete:
            self._close_broken(problem)
        elif not self.cycle.more_body:
            self.flow.pause_reading()
        elif self.pipeline:
            # The broken request waits behind another: it is forgotten, the other is answered first.
            self.pipeline.popleft()
            self.flow.pause_reading()
        else:
            self._fail_cycle(problem)

    def _fail_cycle(self, problem: Problem) -> None:
        cycle = self.cycle
        cycle.disconnected = True
        cycle.message_event.set()
        if not cycle.response_started:
            self._write_problem(problem)
        self.transport.close()

    def _close_broken(self, problem: Problem) -> None:
        if not self.transport.is_closing():
            self._write_problem(problem)
            self.transport.close()

    def _write_problem(self, problem: Problem) -> None:
        request_id = self.edge.ids.next()
        body = azure_body(problem, request_id)
        lines = [STATUS_LINE[problem.code.status]]
        headers = [
            *self.edge.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
            *problem.headers,
        ]
        lines += [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([*lines, b"\r\n", body]))


def _malformed(error: BaseException) -> Problem:
    return Problem(Code.INVALID_INPUT, f"the bytes are not an HTTP/1.1 request: {error}")


def _head_too_large(limits: HttpLimits) -> Problem:
    return Problem(
        Code.HEADERS_TOO_LARGE,
        f"the headers are over {limits.headers_max} lines or {limits.header_bytes_max} bytes "
        "(settings max_headers, max_header_bytes)",
    )


def _too_many_connections(bound: int) -> Problem:
    return Problem(
        Code.UNAVAILABLE,
        f"{bound} connections are open already (setting max_connections)",
        headers=(retry_after(1),),
    )


class HttpServer:
    """One listening socket with its connections."""

    def __init__(self, app: App, limits: HttpLimits, context: ssl.SSLContext | None) -> None:
        self.edge = Edge(limits)
        self._context = context
        self._config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._config.load()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        return len(self.edge.connections)

    async def start(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        handshake = self.edge.limits.header_timeout_s if self._context else None
        self._server = await loop.create_server(
            lambda: GuardedProtocol(self._config, self.edge, {}, loop),
            sock=sock,
            ssl=self._context,
            backlog=2048,
            ssl_handshake_timeout=handshake,
        )
        self._tick()
        self._sweeper = loop.create_task(self._sweep())

    async def drain(self, timeout_s: float) -> bool:
        """Stop accepting, let every request in flight finish; True when none had to be cut off."""
        self.edge.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.edge.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(timeout_s):
                while self.edge.connections or self.edge.tasks:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Cut what is left."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        if self._server is not None:
            self._server.close()
        for connection in list(self.edge.connections):
            connection.transport.abort()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            self._tick()
            now_s = loop.time()
            for connection in list(self.edge.connections):
                assert isinstance(connection, GuardedProtocol)
                connection.sweep(now_s)

    def _tick(self) -> None:
        self.edge.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]


class PortInUse(Exception):
    """The address cannot be listened on; the text says why."""


def bind(host: str, port: int, *, shared: int = 1) -> list[socket.socket]:
    """`shared` listening sockets on one address (SO_REUSEPORT); port 0 takes a free one, the same for all.

    Errors: PortInUse. A port that another program listens on is refused, though the kernel would share it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sockets: list[socket.socket] = []
    try:
        if port:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        for _ in range(shared):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, port))
            sock.listen(2048)
            sock.setblocking(False)
            port = sock.getsockname()[1]
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise PortInUse(_cannot_listen(host, port, error)) from error
    return sockets


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {host}:{port}: another program listens there; choose another port, or 0"
    return f"cannot listen on {host}:{port}: {error.strerror or error}"

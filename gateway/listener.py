"""TLS, sockets and HTTP/1.1: the only file that names the server.

Why: uvicorn's httptools protocol is the strictest parser of those tried, but has no limits and no deadlines of its
own; this subclass adds the rules of strict framing, so that every door behind it is covered. Its methods are not
public API, so the server is pinned to a minor version.
Units: *_s seconds, *_bytes bytes.
Errors: a request that breaks a rule gets 400, 408, 413, 414, 431, 501 or 505 with the one JSON shape and the
connection is closed; a connection over the limit gets 503. Each is counted in `Edge.refused`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.errors import Code, Problem, retry_after
from gateway.exchange import Exchange, Lane
from gateway.identity import RequestIds
from gateway.problem import azure_body, internal

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]

# Host is reflected nowhere, but read by routing and redirects: a name, an IPv4 or an IPv6 address, with a port.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
# What follows it is a client's own name for its own data, such as upload_status, and trusted by nobody.
_METADATA = b"x-ms-meta-"
# Begins the head of an answer; 100 Continue stands alone.
_ANSWER_HEAD = (b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 5")
# How many heads a connection remembers, and how long one may be: clients send the same ones over and over.
_REMEMBERED_MAX = 32
_REMEMBERED_BYTES_MAX = 2048
# How long requests that are cut off may take to notice.
CUT_OFF_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds on what one connection may cost. The discard bound is on the body of a refused request.

    `write_timeout_s`: how long a peer may read next to nothing; `linger_s`: how long it may go on sending after the
    last answer; `sweep_s`: how often deadlines are looked at, and so how late they may be.
    """

    headers_max: int = 100
    header_bytes_max: int = 16 * 1024
    uri_bytes_max: int = 8 * 1024
    header_timeout_s: float = 10.0
    body_grace_s: float = 5.0
    body_bytes_per_s_min: int = 1024
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 30.0
    connections_max: int = 10_000
    discard_bytes_max: int = 64 * 1024 * 1024
    linger_s: float = 2.0
    sweep_s: float = 1.0


class Edge(ServerState):
    """What the connections of one listener share: limits, counters, and whether it drains."""

    def __init__(self, limits: HttpLimits) -> None:
        super().__init__()
        self.limits = limits
        self.ids = RequestIds()
        self.draining = False
        self.date_line = b""
        self.refused: dict[str, int] = {}

    def count_refusal(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `due_s` is when the sweep closes it unless it moves on; 0 while the application answers.

    `in_head` and `in_body` say what of the newest request is still to come. `broken` is the reason to end the
    connection once the answers that are owed are given; `is_parting`: the last answer is given.
    """

    server_state: Edge
    lane: Lane | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.edge = self.server_state
        self.limits = self.edge.limits
        self.now = self.loop.time
        self.outlet = Outlet(self)
        # The newest request, where it is on the lane; and the one of the lane that is not answered yet. The newest
        # may be the application's, and wait for that answer.
        self.exchange: Exchange | None = None
        self.owed: Exchange | None = None
        # What the lane answered on this connection, by its head.
        self.heads: dict[bytes, Exchange] = {}
        self.head_lines = 0
        self.head_bytes = 0
        # Received since the last sign of progress: what the parser may be holding.
        self.partial_bytes = 0
        self.in_head = False
        self.in_body = False
        self.hosts = 0
        self.host = b""
        self.good_host = b""
        self.expects_continue = False
        self.keeps_alive = False
        self.body_began_s = 0.0
        self.body_bytes = 0
        self.unread_since_s = 0.0
        self.closing_since_s = 0.0
        self.unread_bytes = 0
        self.broken: Problem | None = None
        self.is_parting = False
        # Set by the application while it waits for an answer: called when the caller hangs up.
        self.on_lost: Callable[[], None] | None = None
        self.due_s = self.now() + self.limits.header_timeout_s
        if len(self.connections) > self.limits.connections_max:
            self._break(_too_many_connections(self.limits.connections_max))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.due_s = 0.0
        # The connection and its exchanges name each other.
        self.heads.clear()
        if self.exchange is not None:
            self.exchange = self.cycle = None  # type: ignore[assignment]
        owed, self.owed = self.owed, None
        if owed is not None:
            owed.lost()
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        if self.broken is not None or self.is_parting:
            self._discard(len(data))
            return
        limits = self.limits
        is_fresh = self._is_fresh()
        if is_fresh and self.heads and self._answer_again(data):
            return
        self.partial_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._break(_problem_of(error.__context__))
        except httptools.HttpParserUpgrade:
            self._break(Problem(Code.NOT_IMPLEMENTED, "Upgrade and CONNECT are not supported; send HTTP/1.1"))
        except httptools.HttpParserError as error:
            self._break(_malformed(error))
        else:
            if self.partial_bytes > limits.header_bytes_max + limits.uri_bytes_max:
                self._break(_head_too_large(limits))
            if self.in_body:
                if self.exchange is not None:
                    self.exchange.wait()
            elif is_fresh:
                self._remember(data)

    # Parser callbacks: a Problem raised here reaches data_received through the parser.
    def on_message_begin(self) -> None:
        # The scope is made when it is known that the application is asked (`_begin_cycle`).
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self.in_head = True
        self.head_lines = 0
        self.head_bytes = 0
        self.partial_bytes = 0
        self.hosts = 0
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
        self.head_lines += 1
        self.head_bytes += len(name) + len(value)
        if self.head_lines > limits.headers_max or self.head_bytes > limits.header_bytes_max:
            raise _head_too_large(limits)
        if not self.in_head:
            # A trailer, after a chunked body: it must never be taken for a header that was there from the start.
            return
        if b"_" in name and not name.lower().startswith(_METADATA):
            # Proxies and CGI-like programs read X_User as X-User: such a header is dropped, never trusted.
            self.edge.count_refusal("underscore_header")
            return
        # The parser leaves the blanks after a value, which do not belong to it.
        value = value.rstrip(b" \t")
        super().on_header(name, value)
        if len(name) == 4 and name.lower() == b"host":
            self.hosts += 1
            self.host = value
        elif len(name) == 17 and name.lower() == b"transfer-encoding" and value.lower() != b"chunked":
            raise Problem(Code.INVALID_INPUT, "the only Transfer-Encoding that is accepted is chunked")

    def on_headers_complete(self) -> None:
        self.in_head = False
        self.partial_bytes = 0
        if self.is_parting:
            return
        self._check_head()
        if not self._enter_lane():
            self._begin_cycle()

    def _enter_lane(self) -> bool:
        """Whether the request is answered without the application. One that waits behind another is not."""
        cycle = self.cycle
        if (
            self.lane is None
            or self.expect_100_continue
            or (cycle is not None and not cycle.response_complete)
            or self.transport.is_closing()
        ):
            return False
        exchange = self.lane.exchange(self, self.parser.get_method(), self.url, self.headers)
        if exchange is None:
            return False
        exchange.keep_alive = (
            not self.edge.draining and self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        )
        self._expect_body()
        return self._begin(exchange)

    def _begin(self, exchange: Exchange) -> bool:
        before = self.exchange, self.cycle
        self.exchange = self.owed = self.cycle = exchange  # type: ignore[assignment]
        if exchange.begin():
            return True
        self.owed = None
        self.exchange, self.cycle = before
        return False

    def _is_fresh(self) -> bool:
        """Whether data begins a request: nothing of one has come, and none waits for its answer."""
        if self.lane is None or self.partial_bytes or self.in_body or self.in_head:
            return False
        return self.cycle is None or self.cycle.response_complete

    def _answer_again(self, data: bytes) -> bool:
        """Take a whole request whose head is, byte for byte, one that the parser has accepted on this connection.

        The same bytes would be parsed to the same head, so they are not parsed; the parser never sees the request and
        stays where it is, before the next one.
        """
        end = data.find(b"\r\n\r\n") + 4
        before = self.heads.get(data[:end])
        if (
            before is None
            or before.body_bytes != len(data) - end
            or self.edge.draining
            or self.transport.is_closing()
        ):
            return False
        assert self.lane is not None
        exchange = self.lane.again(self, before)
        if exchange is None:
            return False
        exchange.keep_alive = True
        exchange.body_bytes = before.body_bytes
        if not self._begin(exchange):
            return False
        self.due_s = 0.0
        if not exchange.response_started:
            exchange.take(data[end:])
        if not exchange.response_started:
            exchange.more_body = False
            exchange.end()
        return True

    def _remember(self, data: bytes) -> None:
        """Keep the head of a request that came whole, in one piece of data, and was not refused for it."""
        exchange = self.exchange
        if exchange is None or exchange.more_body or exchange.response_started or not exchange.keep_alive:
            return
        end = data.find(b"\r\n\r\n") + 4
        is_whole = end + self.body_bytes == len(data) and self.head_lines == len(self.headers)
        if is_whole and end <= _REMEMBERED_BYTES_MAX:
            if len(self.heads) >= _REMEMBERED_MAX:
                # The oldest goes: heads differ by their Content-Length at least, and come and go with it.
                del self.heads[next(iter(self.heads))]
            exchange.body_bytes = self.body_bytes
            self.heads[data[:end]] = exchange

    def _begin_cycle(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        self.scope["gateway.connection"] = self  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        self.exchange = None
        cycle = self.cycle
        cycle.transport = self.outlet  # type: ignore[assignment]
        if self.edge.draining:
            cycle.keep_alive = False
        self.expects_continue = self.expect_100_continue
        if self.expects_continue:
            # Refused before 100 Continue, the body may follow or not: then the connection cannot go on.
            self.keeps_alive = cycle.keep_alive
            cycle.keep_alive = False
        self._expect_body()

    def _expect_body(self) -> None:
        self.in_body = True
        self.body_bytes = 0
        self.body_began_s = self.now()
        self.due_s = self.body_began_s + self.limits.body_grace_s

    def on_body(self, body: bytes) -> None:
        self.partial_bytes = 0
        self.body_bytes += len(body)
        exchange = self.exchange
        if exchange is not None and not exchange.response_started:
            exchange.take(body)
            return
        if self.expects_continue:
            self._body_follows()
        if self.cycle.response_complete and self.body_bytes > self.limits.discard_bytes_max:
            # The request was refused long ago, and its body still comes.
            self.transport.abort()
        if exchange is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        exchange = self.exchange
        if exchange is not None and not exchange.response_started:
            self.in_body = exchange.more_body = False
            self.due_s = 0.0
            exchange.end()
            return
        if self.expects_continue:
            self._body_follows()
        if exchange is None:
            super().on_message_complete()
        self.in_body = False
        self.partial_bytes = 0
        if self.cycle.response_complete:
            self._idle()
        else:
            self.due_s = 0.0

    def on_response_complete(self) -> None:
        self.unread_since_s = 0.0
        if self.is_parting:
            return
        if self.broken is not None and not self.pipeline:
            self._close_broken(self.broken)
            return
        # As the server does, but for its timer: the sweep closes idle connections.
        self.edge.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self.in_head:
            self.due_s = self.now() + self.limits.header_timeout_s
        elif self.cycle.response_complete and not self.in_body:
            self._idle()

    def shutdown(self) -> None:
        """Close when idle; a request that has begun is still answered, with Connection: close."""
        if not self.in_head:
            super().shutdown()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread_since_s = 0.0
        if self.owed is not None and self.owed.response_started:
            self._complete(self.owed)

    def answer(self, exchange: Exchange, status: int, lines: bytes, body: bytes) -> None:
        """Write the answer of an exchange, with one call of the kernel. `lines` are its headers as they are sent."""
        if self.transport.is_closing():
            return
        exchange.response_started = True
        last = b"\r\n" if exchange.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((STATUS_LINE[status], self.edge.date_line, lines, last, body)))
        if not self.flow.write_paused:
            self._complete(exchange)

    def _complete(self, exchange: Exchange) -> None:
        """The answer is with the kernel, so far that the next one may follow."""
        self.owed = None
        exchange.response_complete = True
        if not exchange.keep_alive:
            self.close_after_answer()
        self.on_response_complete()

    def sweep(self, now_s: float) -> None:
        """Called every second or so: ends what is stalled."""
        self._check_reader(now_s)
        if self.transport.is_closing():
            self._check_closing(now_s)
        elif self.due_s and now_s > self.due_s:
            self._overdue(now_s)

    def close_after_answer(self) -> None:
        """The answer was the connection's last one."""
        if self.in_body or self.in_head or self.pipeline:
            self._part()
        else:
            self.transport.close()

    def _check_reader(self, now_s: float) -> None:
        """Abort a peer that does not read what it is sent, also while the transport waits for it to close."""
        left = self.transport.get_write_buffer_size()
        if not left or not self.unread_since_s:
            self.unread_since_s = now_s if left else 0.0
            self.unread_bytes = left
        elif now_s - self.unread_since_s > self.limits.write_timeout_s:
            if self.unread_bytes - left < self.limits.write_timeout_s * self.limits.body_bytes_per_s_min:
                self.edge.count_refusal("slow_read")
                self.transport.abort()
            self.unread_since_s = now_s
            self.unread_bytes = left

    def _check_closing(self, now_s: float) -> None:
        """Abort a peer that was sent everything and does not close its end.

        TLS waits for the peer's farewell. A client that keeps a connection for later does not read it, and would
        hold up a drain.
        """
        if self.transport.get_write_buffer_size() or not self.closing_since_s:
            self.closing_since_s = now_s
        elif now_s - self.closing_since_s > self.limits.linger_s:
            self.transport.abort()

    def _overdue(self, now_s: float) -> None:
        if self.is_parting:
            self.transport.abort()
        elif self.in_body:
            elapsed = now_s - self.body_began_s
            if not self.flow.read_paused and self.body_bytes < elapsed * self.limits.body_bytes_per_s_min:
                self._break(Problem(Code.DEADLINE_EXCEEDED, "the body arrives too slowly", reason="slow_body"))
        elif self.in_head:
            if self.flow.read_paused:
                # An earlier request of the same connection is being answered; this one is not slow, it waits.
                self.due_s = now_s + self.limits.header_timeout_s
            else:
                text = f"the request head did not arrive within {self.limits.header_timeout_s:g} s"
                self._break(Problem(Code.DEADLINE_EXCEEDED, text, reason="slow_head"))
        else:
            self.transport.close()

    def _idle(self) -> None:
        self.due_s = self.now() + self.limits.idle_timeout_s

    def _body_follows(self) -> None:
        self.expects_continue = False
        self.cycle.keep_alive = self.keeps_alive and not self.edge.draining

    def _check_head(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            code = Code.INVALID_INPUT if version == "0.9" else Code.VERSION_NOT_SUPPORTED
            raise Problem(code, f"HTTP/{version} is not supported; send HTTP/1.1 or HTTP/1.0")
        if self.parser.should_upgrade():
            raise Problem(Code.NOT_IMPLEMENTED, "Upgrade and CONNECT are not supported; send HTTP/1.1")
        if self.hosts > 1 or (self.hosts == 0 and version == "1.1"):
            raise Problem(Code.INVALID_INPUT, f"a request has exactly one Host header; this one has {self.hosts}")
        if self.hosts and self.host != self.good_host:
            self._check_host()
        if version == "1.0":
            self._check_old()
        if b"#" in self.url:
            raise Problem(Code.INVALID_INPUT, "the request target has a fragment; leave out # and what follows it")
        if self.url[:1] != b"/" and self.url != b"*":
            self._check_absolute_target()

    def _check_old(self) -> None:
        # HTTP/1.0 knows no interim answers: one would be taken for the final one.
        self.expect_100_continue = False
        if any(name == b"transfer-encoding" for name, _ in self.headers):
            raise Problem(Code.INVALID_INPUT, "HTTP/1.0 has no Transfer-Encoding; send Content-Length")

    def _check_host(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise Problem(Code.INVALID_INPUT, "the Host header is not a host name or address with an optional port")
        self.good_host = self.host

    def _check_absolute_target(self) -> None:
        """`http://host/path` is `/path` where the host is the Host header's."""
        try:
            target = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError as error:
            raise Problem(Code.INVALID_INPUT, "the request target is not a URL") from error
        if (target.schema or b"").lower() not in (b"http", b"https") or target.userinfo is not None:
            raise Problem(Code.INVALID_INPUT, "the request target is not an http or https URL without user name")
        wanted = target.host or b""
        if b":" in wanted:
            wanted = b"[" + wanted + b"]"
        if target.port:
            wanted += b":%d" % target.port
        if self.hosts and wanted.lower() != self.host.lower():
            raise Problem(Code.INVALID_INPUT, "the host of the request target is not the one of the Host header")
        self.url = (target.path or b"/") + (b"?" + target.query if target.query else b"")

    def _break(self, problem: Problem) -> None:
        """Answer with the problem and close; after the answers that are still owed, never between them.

        A request whose own body breaks is told so at once, for it will never be whole; unless it has been refused
        already: a second answer would be taken for the next request's.
        """
        if self.broken is not None or self.is_parting or self.transport.is_closing():
            return
        self.edge.count_refusal(problem.reason or problem.code.text)
        self.broken = problem
        is_answered = self.cycle is None or self.cycle.response_complete
        is_refused = self.in_body and is_answered
        self.in_head = self.in_body = False
        self.due_s = 0.0
        if is_refused:
            self._part()
        elif is_answered:
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
        if self.exchange is not None:
            self.exchange.lost()
        cycle.disconnected = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        if cycle.response_started:
            self.transport.close()
        else:
            self._close_broken(problem)

    def _close_broken(self, problem: Problem) -> None:
        if not self.transport.is_closing():
            self._write_problem(problem)
            self._part()

    def _part(self) -> None:
        """Close in two steps: send no more, then read on until the peer closes too, or for `linger_s`.

        To close a socket with bytes unread resets the connection, and the answer may be lost with it. TLS has a
        closing handshake of its own, which reads on.
        """
        self.is_parting = True
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.body_bytes = 0
        self.due_s = self.now() + self.limits.linger_s
        self.transport.write_eof()
        self.flow.resume_reading()

    def _discard(self, size: int) -> None:
        self.body_bytes += size
        if self.body_bytes > self.limits.discard_bytes_max:
            self.transport.abort()

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


class Outlet:
    """What a request's cycle has of the transport; its `close` is the connection's, in two steps where it must be.

    The head of an answer is held until its first bytes follow, at the latest to the end of the loop's turn: one call
    of the kernel for an answer instead of two.
    """

    __slots__ = ("_close", "_head", "_loop", "_write", "is_closing")

    def __init__(self, connection: GuardedProtocol) -> None:
        transport = connection.transport
        self.is_closing = transport.is_closing
        self._write = transport.write
        self._close = connection.close_after_answer
        self._loop = connection.loop
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_ANSWER_HEAD):
            self._head = data
            self._loop.call_soon(self.flush)
            return
        self._write(data)

    def flush(self) -> None:
        if self._head:
            self._write(self._head)
            self._head = b""

    def close(self) -> None:
        self.flush()
        self._close()


def _problem_of(cause: BaseException | None) -> Problem:
    """What a parser callback raised."""
    if isinstance(cause, Problem):
        return cause
    if isinstance(cause, httptools.HttpParserError):
        return _malformed(cause)
    log.error("the HTTP callbacks failed", exc_info=cause)
    return internal()


def _malformed(error: BaseException) -> Problem:
    text = str(error)
    if text == "Invalid HTTP version" or "PRI" in text:
        return Problem(Code.VERSION_NOT_SUPPORTED, "that version is not supported; send HTTP/1.1 or HTTP/1.0")
    return Problem(Code.INVALID_INPUT, f"the bytes are not an HTTP/1.1 request: {text}")


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
        reason="connections",
    )


class HttpServer:
    """One listening socket with its connections."""

    def __init__(
        self, app: App, limits: HttpLimits, context: ssl.SSLContext | None, lane: Lane | None = None
    ) -> None:
        self.edge = Edge(limits)
        self._lane = lane
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
        self._covering: dict[int, asyncio.Server] = {}
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        return len(self.edge.connections)

    async def start(self, sock: socket.socket) -> None:
        """Accept connections from this socket, which is closed with the server."""
        self._tick()
        self._server = await self._accept(sock)
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def cover(self, sockets: Mapping[int, socket.socket]) -> None:
        """Accept from these sockets as well, by their numbers, and from no others of this kind any more.

        The sockets stay open: they belong to other processes too.
        """
        for number in self._covering.keys() - sockets.keys():
            self._covering.pop(number).close()
        for number in sockets.keys() - self._covering.keys():
            self._covering[number] = await self._accept(sockets[number].dup())

    async def _accept(self, sock: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        handshake = self.edge.limits.header_timeout_s if self._context else None
        return await loop.create_server(
            lambda: self._connection(loop),
            sock=sock,
            ssl=self._context,
            backlog=2048,
            ssl_handshake_timeout=handshake,
        )

    def _connection(self, loop: asyncio.AbstractEventLoop) -> GuardedProtocol:
        connection = GuardedProtocol(self._config, self.edge, {}, loop)
        connection.lane = self._lane
        return connection

    async def drain(self, timeout_s: float) -> bool:
        """Stop accepting, let every request in flight finish; True when none had to be cut off."""
        self.edge.draining = True
        self._stop_accepting()
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
        self._stop_accepting()
        for connection in list(self.edge.connections):
            connection.transport.abort()
        if self.edge.tasks:
            # Requests end by themselves when their connection is lost; the end of the loop would cancel them, and
            # the server take that for a failure of the application.
            await asyncio.wait(self.edge.tasks, timeout=CUT_OFF_S)

    def _stop_accepting(self) -> None:
        for server in (self._server, *self._covering.values()):
            if server is not None:
                server.close()
        self._covering = {}

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.edge.limits.sweep_s)
            self._tick()
            now_s = loop.time()
            for connection in list(self.edge.connections):
                assert isinstance(connection, GuardedProtocol)
                try:
                    connection.sweep(now_s)
                except Exception:
                    # One odd connection must not end the watch over all the others.
                    log.exception("a connection could not be checked for slowness")

    def _tick(self) -> None:
        date = formatdate(time.time(), usegmt=True).encode()
        self.edge.default_headers = [(b"date", date)]
        self.edge.date_line = b"date: " + date + b"\r\n"


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

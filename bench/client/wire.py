"""One keep-alive HTTP/1.1 connection of a generator: at most one request in flight, its bytes made before.

Why: an HTTP library would cost more than the server does; this reads bytes with httptools and does little else.
Who owns what: a connection belongs to its Owner, who gives it one request at a time and is told its one end:
`answered` (`keep` is whether the connection may be used again), or `broken` with a word for the counts. `broken`
also tells that an idle connection was closed.
Units: *_ns monotonic nanoseconds. `due_ns` is when a request was meant to be sent, `sent_ns` when it was.
"""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import Protocol, cast

import httptools

from bench.client.ends import LOST, NO_HTTP


class Owner(Protocol):
    """What a connection tells, always on the loop."""

    def answered(self, connection: Connection, status: int, keep: bool) -> None: ...

    def broken(self, connection: Connection, why: str) -> None: ...


class Connection(asyncio.Protocol):
    """`index` names the request in flight; `body` is the last answer's, where bodies are kept."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.busy = False
        self.index = 0
        self.due_ns = 0
        self.sent_ns = 0
        self.body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's TLS transport is one by its methods, not by its class.
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, index: int, due_ns: int) -> None:
        """`due_ns` 0 means now."""
        assert self._transport is not None
        self.busy = True
        self.index = index
        self.sent_ns = now_ns = monotonic_ns()
        self.due_ns = due_ns or now_ns
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._break(NO_HTTP)

    def on_message_complete(self) -> None:
        if not self.busy:
            self._break(NO_HTTP)
            return
        self.busy = False
        self._owner.answered(self, self._parser.get_status_code(), self._parser.should_keep_alive())

    def connection_lost(self, error: Exception | None) -> None:
        self._break(LOST if self.busy else "closed")

    def abandon(self) -> None:
        """Closed at once, and its owner is not told."""
        transport, self._transport = self._transport, None
        self.busy = False
        if transport is not None:
            transport.abort()

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def _break(self, why: str) -> None:
        if self._transport is None:
            return
        was_busy = self.busy
        self.abandon()
        # Its owner asks whether a request was lost with it.
        self.busy = was_busy
        self._owner.broken(self, why)


class KeepingConnection(Connection):
    """Keeps the body of an answer until the next one; the parser only calls what is there."""

    def on_message_begin(self) -> None:
        self.body = []

    def on_body(self, part: bytes) -> None:
        self.body.append(part)

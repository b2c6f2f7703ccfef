"""A closed loop of keep-alive connections: each sends its next request when the last one is answered.

Why: an HTTP library would cost more than the gateway does; this reads bytes with httptools and does little else.
Units: *_ns monotonic nanoseconds. Latency is from the first byte handed to the socket to the last byte of the answer.
Errors: none are raised for answers; a status other than 200 and a lost connection are counted.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

import httptools


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send, over how many connections, for how long. The warm-up comes first and is not counted."""

    host: str
    port: int
    requests: tuple[bytes, ...]
    connections: int
    warm_up_s: float
    seconds: float
    tls: ssl.SSLContext | None = None


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What was seen between the warm-up and the end."""

    seconds: float = 0.0
    latencies_ns: array[int] = field(default_factory=lambda: array("q"))
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0


class _Loop:
    """What the connections share: the requests in turn, the clock's marks and the counts."""

    def __init__(self, plan: Plan) -> None:
        self._requests = itertools.cycle(plan.requests)
        self.begin_ns = time.monotonic_ns() + int(plan.warm_up_s * 1e9)
        self.end_ns = self.begin_ns + int(plan.seconds * 1e9)
        self.outcome = Outcome()

    def next_request(self) -> bytes:
        return next(self._requests)

    def answered(self, sent_ns: int, status: int) -> bool:
        """Counts an answer; whether the connection shall go on."""
        now_ns = time.monotonic_ns()
        if self.begin_ns <= now_ns < self.end_ns:
            self.outcome.latencies_ns.append(now_ns - sent_ns)
            self.outcome.statuses[status] += 1
        elif status != 200:
            # An error is never warm-up.
            self.outcome.statuses[status] += 1
        return now_ns < self.end_ns


class _Connection(asyncio.Protocol):
    def __init__(self, loop: _Loop, done: asyncio.Future[None]) -> None:
        self._loop = loop
        self._done = done
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sent_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's TLS transport is one by its methods, not by its class.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._lose()

    def on_message_complete(self) -> None:
        if self._loop.answered(self._sent_ns, self._parser.get_status_code()):
            self._send()
        else:
            self._finish()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._lose()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_ns = time.monotonic_ns()
        self._transport.write(self._loop.next_request())

    def _lose(self) -> None:
        self._loop.outcome.lost += 1
        self._finish()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
        if self._transport is not None:
            self._transport.close()


async def run(plan: Plan) -> Outcome:
    """Errors: OSError where a connection cannot be opened at all."""
    events = asyncio.get_running_loop()
    loop = _Loop(plan)
    ends = [events.create_future() for _ in range(plan.connections)]
    await asyncio.gather(
        *(
            events.create_connection(
                lambda end=end: _Connection(loop, end),
                plan.host,
                plan.port,
                ssl=plan.tls,
                server_hostname="localhost" if plan.tls else None,
            )
            for end in ends
        )
    )
    # A server that goes silent must not hang the run: what is open a while after the end counts as lost.
    limit_s = plan.warm_up_s + plan.seconds + 10.0
    _, silent = await asyncio.wait(ends, timeout=limit_s)
    loop.outcome.lost += len(silent)
    loop.outcome.seconds = plan.seconds
    return loop.outcome

"""A closed loop over many connections, as quick as Python can: each sends again when it has its answer.

Why another one: beside a server that does nearly nothing, a generator on an event loop measures itself. This reads
whole answers straight from epoll, at little more than the cost of the system calls.
Bounds: the connections; one request in flight on each; `DRAIN_S` for answers that are out when time is up.
Units: *_ns monotonic nanoseconds; latency is from one answer to the next, so it holds the send.
Errors: OSError where a connection cannot be opened at all; a connection that breaks is counted and opened again.
"""

from __future__ import annotations

import itertools
import select
import socket
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

READ_BYTES = 16384
DRAIN_S = 10.0
CONNECT_WITHIN_S = 10.0
# So many connections may break before a run is given up: a server that is gone must not be knocked at for ever.
LOST_MAX = 10_000
LENGTH = (b"\r\ncontent-length: ", b"\r\nContent-Length: ", b"\r\nContent-length: ")
MAY_CLOSE = b"onnection: "
GOOD = b"HTTP/1.1 200"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The warm-up comes first and is not counted."""

    port: int
    requests: Sequence[bytes]
    connections: int
    warm_up_s: float
    seconds: float


@dataclass(slots=True, kw_only=True)
class Outcome:
    """`latencies_ns`: one array a connection, good answers in the counted time only; `answers` counts all."""

    latencies_ns: list[array[int]] = field(default_factory=list)
    answers: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    reopened: int = 0


def answer_end(data: bytes) -> int:
    """Where an answer that has begun ends: its length; 0 while unknown, -1 where only the end of file says."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return 0
    for name in LENGTH:
        at = data.find(name, 0, head)
        if at >= 0:
            begin = at + len(name)
            end = data.find(b"\r", begin)
            return head + 4 + int(data[begin:end])
    if b"chunked" in data[:head].lower():
        # One answer at a time, so the last chunk is the end of what was read.
        return len(data) if data.endswith(b"\r\n0\r\n\r\n") else 0
    return -1


def will_close(data: bytes) -> bool:
    """Whether the head says that the connection ends after this answer."""
    return b"\r\nconnection: close" in data[: data.find(b"\r\n\r\n") + 4].lower()


def _nothing(_count: int) -> bytes:
    return b""


def _nowhere(_data: bytes) -> int:
    return 0


class Connection:
    """One socket, what has come of an answer, and when its request was sent."""

    __slots__ = ("buffer", "latencies", "read", "sent_ns", "socket", "write")

    def __init__(self) -> None:
        self.buffer = b""
        self.read: Callable[[int], bytes] = _nothing
        self.write: Callable[[bytes], int] = _nowhere
        self.latencies = array("q")
        self.sent_ns = 0
        self.socket: socket.socket | None = None


class ClosedLoop:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._next: Iterator[bytes] = itertools.cycle(plan.requests)
        self._poll = select.epoll()
        self._by_number: dict[int, Connection] = {}
        self._connections = [Connection() for _ in range(plan.connections)]
        self._outcome = Outcome()
        self._begin_ns = self._end_ns = 0
        # As this server spells it.
        self._length = LENGTH[0]

    def run(self) -> Outcome:
        for connection in self._connections:
            self._open(connection)
        self._begin_ns = time.monotonic_ns() + int(self._plan.warm_up_s * 1e9)
        self._end_ns = self._begin_ns + int(self._plan.seconds * 1e9)
        for connection in self._connections:
            connection.sent_ns = time.monotonic_ns()
            self._send(connection)
        try:
            self._turn()
        finally:
            self._outcome.lost += len(self._by_number)
            for connection in list(self._by_number.values()):
                self._close(connection)
            self._poll.close()
        self._outcome.latencies_ns = [connection.latencies for connection in self._connections]
        return self._outcome

    def _turn(self) -> None:
        last_ns = self._end_ns + int(DRAIN_S * 1e9)
        poll, by_number, received = self._poll.poll, self._by_number, self._received
        quick = self._quick_answer
        while by_number and time.monotonic_ns() < last_ns and self._outcome.lost < LOST_MAX:
            for number, _events in poll(0.5):
                connection = by_number[number]
                try:
                    data = connection.read(READ_BYTES)
                except ConnectionError:
                    data = b""
                if not quick(connection, data):
                    received(connection, data)

    def _quick_answer(self, connection: Connection, data: bytes) -> bool:
        """The usual case without a step too many: one read is one whole good answer, and its connection stays.

        False, and nothing done, where it is not.
        """
        head = data.find(b"\r\n\r\n")
        found = data.find(self._length, 0, head)
        if found < 0 or connection.buffer or not data.startswith(GOOD) or MAY_CLOSE in data:
            return False
        at = found + len(self._length)
        if head + 4 + int(data[at : data.find(b"\r", at)]) != len(data):
            return False
        now_ns = time.monotonic_ns()
        if not self._begin_ns <= now_ns < self._end_ns:
            return False
        self._outcome.answers += 1
        connection.latencies.append(now_ns - connection.sent_ns)
        connection.sent_ns = now_ns
        self._send(connection)
        return True

    def _received(self, connection: Connection, data: bytes) -> None:
        """Any case."""
        whole = connection.buffer + data
        end = answer_end(whole) if whole else 0
        if end == len(whole) and end > 0:
            self._length = next((name for name in LENGTH if name in whole), self._length)
            self._answered(connection, whole)
        elif data:
            connection.buffer = whole
        elif end == -1:
            self._answered(connection, whole, closed=True)
        else:
            self._lose(connection)

    def _answered(self, connection: Connection, whole: bytes, closed: bool = False) -> None:
        now_ns = time.monotonic_ns()
        self._outcome.answers += 1
        connection.buffer = b""
        if not whole.startswith(GOOD):
            # An error is never warm-up.
            self._outcome.refused[whole[9:12].decode(errors="replace")] += 1
        elif self._begin_ns <= now_ns < self._end_ns:
            connection.latencies.append(now_ns - connection.sent_ns)
        if now_ns >= self._end_ns:
            self._close(connection)
            return
        connection.sent_ns = now_ns
        if closed or will_close(whole):
            # Its latency counts from before the new handshake: whoever asks next waits for that, too.
            self._outcome.reopened += 1
            self._close(connection)
            self._open(connection)
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        request = next(self._next)
        try:
            sent = connection.write(request)
            if sent < len(request):
                assert connection.socket is not None
                connection.socket.setblocking(True)
                connection.socket.sendall(request[sent:])
                connection.socket.setblocking(False)
        except ConnectionError:
            self._lose(connection)

    def _lose(self, connection: Connection) -> None:
        """The server closed before it answered."""
        self._outcome.lost += 1
        connection.buffer = b""
        self._close(connection)
        if time.monotonic_ns() < self._end_ns and self._outcome.lost < LOST_MAX:
            self._open(connection)
            connection.sent_ns = time.monotonic_ns()
            self._send(connection)

    def _open(self, connection: Connection) -> None:
        opened = socket.create_connection(("127.0.0.1", self._plan.port), timeout=CONNECT_WITHIN_S)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setblocking(False)
        connection.socket, connection.read, connection.write = opened, opened.recv, opened.send
        self._by_number[opened.fileno()] = connection
        self._poll.register(opened.fileno(), select.EPOLLIN)

    def _close(self, connection: Connection) -> None:
        if connection.socket is not None:
            del self._by_number[connection.socket.fileno()]
            connection.socket.close()
            connection.socket = None

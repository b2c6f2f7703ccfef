"""Raw bytes to a real HttpServer on a loopback socket, and an event loop whose clock only moves when it must.

`serving` gives a server in the running loop; `talk` sends pieces of bytes and gives all that came back; `parse` reads
it as strictly as a suspicious client would. `VirtualLoop` and `FakeTransport` drive one connection without a socket.
Units: *_s seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import orjson
import uvloop

from gateway.exchange import Lane
from gateway.listener import App, HttpLimits, HttpServer, bind
from tests.support.waiting import PATIENCE_S

# No exchange of a test may take longer: what does is a hang. The real timeouts, from 10 s on, are all longer.

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


def run(main: Coroutine[Any, Any, None], loop: str = "uvloop") -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main)


@contextlib.asynccontextmanager
async def serving(app: App, limits: HttpLimits | None = None, lane: Lane | None = None) -> AsyncIterator[HttpServer]:
    """A listening server; `port_of` says where."""
    server = HttpServer(app, limits or HttpLimits(), None, lane)
    listening = bind("127.0.0.1", 0)[0]
    await server.start(listening)
    try:
        yield server
    finally:
        await server.close()
        while server.connections or server.edge.tasks:
            await asyncio.sleep(0)
        listening.close()


def port_of(server: HttpServer) -> int:
    assert server._server is not None
    port: int = server._server.sockets[0].getsockname()[1]
    return port


class Peer:
    """A client of few words: it sends bytes as they are, and reads what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a packet of its own, as far as the other side still listens."""
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(0)

    async def read_until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(mark)

    async def read_all(self) -> bytes:
        """Everything until the other side closes. A reset ends it, too: what came before it counts."""
        found = b""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(65536):
                    found += piece
        return found

    def half_close(self) -> None:
        self.writer.write_eof()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def cut(self) -> None:
        """Vanish with a reset."""
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def connected(port: int, *, receive_bytes: int = 0) -> AsyncIterator[Peer]:
    """`receive_bytes` bounds what the kernel takes in for a client that does not read."""
    sock = socket.socket()
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**16)
    peer = Peer(reader, writer)
    try:
        yield peer
    finally:
        await peer.close()


async def talk(port: int, *pieces: bytes) -> bytes:
    """Send the pieces, read until the other side closes. Sending and reading go on side by side."""
    async with connected(port) as peer:
        sending = asyncio.ensure_future(peer.send(*pieces))
        found = await peer.read_all()
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer; names of headers are lower-case, and each occurs once."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


def parse(data: bytes, methods: Iterable[str] = ()) -> list[Answer]:
    """All answers in the bytes. `methods` of the requests matter for HEAD only, whose answer has no body."""
    asked = iter(methods)
    answers = []
    while data:
        head, mark, data = data.partition(b"\r\n\r\n")
        assert mark, f"an answer's head is cut off: {head[:200]!r}"
        first, *lines = head.split(b"\r\n")
        version, status, _ = first.split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers = _headers(lines)
        if status == b"100":
            answers.append(Answer(status=100, headers=headers, body=b""))
            continue
        size = 0 if next(asked, "") == "HEAD" else int(headers["content-length"])
        assert len(data) >= size, "an answer's body is cut off"
        answers.append(Answer(status=int(status), headers=headers, body=data[:size]))
        data = data[size:]
    return answers


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, mark, value = line.partition(b": ")
        assert mark, f"an answer has the header line {line!r}"
        assert name.decode() not in headers, f"an answer has {name!r} twice"
        headers[name.decode()] = value.decode()
    return headers


class _Selector:
    """Nothing to select from: waiting moves the clock instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        assert timeout is not None, "the loop would wait for ever"
        self._loop.now_s += timeout
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without sockets, whose time passes only when all have nothing to do but wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self._selector = _Selector(self)

    def time(self) -> float:
        return self.now_s

    def _process_events(self, events: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody calls from another thread."""

    def settle(self) -> None:
        """Run until everyone waits, without letting time pass."""
        for _ in range(20):
            self.run_until_complete(asyncio.sleep(0))

    def advance(self, seconds: float) -> None:
        self.run_until_complete(asyncio.sleep(seconds))


class FakeTransport(asyncio.Transport):
    """What a connection writes is in `sent`; with `reads_on` False nothing of it leaves the buffer."""

    def __init__(self, protocol: asyncio.Protocol | None = None, *, is_tls: bool = False) -> None:
        super().__init__()
        self.sent = b""
        self.protocol = protocol
        self.buffered = 0
        self.reads_on = True
        self.is_paused = False
        self.is_ended = False
        self.is_closed = False
        self.is_aborted = False
        self._is_tls = is_tls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.is_ended, "written after the end was sent"
        if self.is_closed:
            return
        self.sent += data
        if not self.reads_on:
            self.buffered += len(data)

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def can_write_eof(self) -> bool:
        return not self._is_tls

    def write_eof(self) -> None:
        self.is_ended = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    @property
    def answers(self) -> list[Answer]:
        return parse(self.sent)

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]

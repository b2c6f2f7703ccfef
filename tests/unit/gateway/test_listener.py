"""One connection on a virtual clock: when it is closed, by whom, and after which answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from gateway.listener import Edge, GuardedProtocol, HttpLimits, HttpServer, PortInUse, bind
from tests.support.wire import FakeTransport, VirtualLoop

HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\n"
WHOLE = HEAD + b"Content-Length: 3\r\n\r\nabc"
LIMITS = HttpLimits()


class App:
    """Answers when it is told to; keeps what it was asked and what became of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.left: list[str] = []
        self.reads = True
        self.fails = False
        self.size = 2
        # How many more answers may be given; None for any number.
        self.gate: asyncio.Semaphore | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        while self.reads:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.append(scope["path"])
                return
            if not message["more_body"]:
                break
        scope["gateway.connection"].on_lost = lambda: self.left.append(scope["path"])
        if self.gate is not None:
            await self.gate.acquire()
        scope["gateway.connection"].on_lost = None
        headers = [(b"content-length", b"%d" % self.size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if self.fails:
            raise ValueError("halfway through")
        await send({"type": "http.response.body", "body": b"x" * self.size})


class Connection:
    """A protocol between a fake transport and an application that answers when it is told to."""

    def __init__(
        self, loop: VirtualLoop, limits: HttpLimits = LIMITS, *, is_tls: bool = False, others: int = 0
    ) -> None:
        self.loop = loop
        self.app = App()
        self.edge = Edge(limits)
        self.edge.connections.update(object() for _ in range(others))  # type: ignore[misc]
        config = uvicorn.Config(self.app, interface="asgi3", lifespan="off", log_config=None, proxy_headers=False)
        config.load()
        self.protocol = GuardedProtocol(config, self.edge, {}, loop)
        self.transport = FakeTransport(is_tls=is_tls)
        self.protocol.connection_made(self.transport)

    def send(self, data: bytes) -> Connection:
        self.protocol.data_received(data)
        self.loop.settle()
        return self

    def wait(self, seconds: float) -> Connection:
        """Time passes, with the sweep that the server makes."""
        end_s = self.loop.time() + seconds
        while self.loop.time() < end_s:
            self.loop.advance(min(1.0, end_s - self.loop.time() + 1e-6))
            self.protocol.sweep(self.loop.time())
        return self

    def hold(self) -> None:
        self.app.gate = asyncio.Semaphore(0)

    def answer(self, requests: int = 1) -> None:
        """Let the application answer so many."""
        assert self.app.gate is not None
        for _ in range(requests):
            self.app.gate.release()
        self.loop.settle()

    def lose(self) -> None:
        self.transport.is_closed = True
        self.protocol.connection_lost(None)
        self.loop.settle()

    def has(self, what: str) -> bool:
        """Whether the transport is paused, ended, closed or aborted by now."""
        found: bool = getattr(self.transport, f"is_{what}")
        return found

    @property
    def is_open(self) -> bool:
        return not (self.transport.is_closing() or self.transport.is_ended)

    @property
    def statuses(self) -> list[int]:
        return self.transport.statuses


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    asyncio.set_event_loop(made)
    yield made
    made.settle()
    for task in asyncio.all_tasks(made):
        task.cancel()
    made.settle()
    asyncio.set_event_loop(None)
    made.close()


@pytest.fixture
def connection(loop: VirtualLoop) -> Connection:
    return Connection(loop)


# Deadlines.


def test_a_connection_that_never_speaks_is_closed_after_the_header_timeout(connection: Connection) -> None:
    connection.wait(9)
    assert connection.is_open
    connection.wait(2)
    assert connection.has("closed")
    assert connection.transport.sent == b""


def test_an_idle_connection_is_closed_after_the_idle_timeout(connection: Connection) -> None:
    connection.send(WHOLE).wait(74)
    assert connection.is_open
    connection.wait(2)
    assert connection.has("closed")
    assert connection.statuses == [200]


def test_each_request_starts_the_idle_time_anew(connection: Connection) -> None:
    for _ in range(3):
        connection.send(WHOLE).wait(70)
    assert connection.is_open
    assert connection.statuses == [200] * 3


def test_a_head_has_the_header_timeout_however_often_it_moves(connection: Connection) -> None:
    connection.send(WHOLE).wait(50).send(HEAD)
    for _ in range(9):
        connection.wait(1).send(b"A: b\r\n")
    assert connection.is_open
    connection.wait(2)
    assert connection.statuses == [200, 408]
    assert connection.edge.refused == {"slow_head": 1}


def test_no_deadline_runs_while_the_application_answers(connection: Connection) -> None:
    connection.hold()
    connection.send(WHOLE).wait(200)
    connection.answer()
    assert connection.statuses == [200]


def test_no_deadline_runs_while_a_pipelined_request_is_answered(connection: Connection) -> None:
    connection.hold()
    connection.send(WHOLE + WHOLE).wait(200)
    connection.answer()
    connection.wait(200)
    connection.answer()
    assert connection.statuses == [200, 200]
    assert connection.is_open


def test_a_second_head_that_stalls_behind_an_answer_is_not_forgotten(connection: Connection) -> None:
    connection.hold()
    connection.send(WHOLE + HEAD)
    connection.answer()
    connection.wait(11)
    assert connection.statuses == [200, 408]


def test_a_head_is_not_slow_while_we_do_not_read(connection: Connection) -> None:
    connection.hold()
    connection.send(WHOLE).send(WHOLE + HEAD)
    assert connection.has("paused")
    connection.wait(60)
    connection.answer(3)
    assert not connection.has("paused")
    connection.wait(9).send(b"Content-Length: 0\r\n\r\n")
    assert connection.statuses == [200, 200, 200]


def test_a_body_must_keep_its_rate_after_a_grace(connection: Connection) -> None:
    connection.send(HEAD + b"Content-Length: 99999\r\n\r\n")
    for _ in range(20):
        connection.send(b"x" * 1100).wait(1)
    assert connection.is_open
    connection.wait(3)
    assert connection.statuses == [408]
    assert connection.edge.refused == {"slow_body": 1}
    assert connection.app.left == ["/a"]


def test_a_body_that_waits_for_us_is_not_slow(connection: Connection) -> None:
    connection.app.reads = False
    connection.hold()
    connection.send(HEAD + b"Content-Length: 999999\r\n\r\n" + b"x" * 70_000)
    assert connection.has("paused")
    connection.wait(100)
    connection.answer()
    assert connection.statuses == [200]


def test_a_refused_body_that_stalls_ends_the_connection_without_a_second_answer(connection: Connection) -> None:
    connection.app.reads = False
    connection.send(HEAD + b"Content-Length: 99999\r\n\r\nabc").wait(7)
    assert connection.statuses == [200]
    assert connection.has("ended")
    connection.wait(3)
    assert connection.has("aborted")


# Peers that do not read.


def test_a_peer_that_reads_nothing_is_aborted(connection: Connection) -> None:
    connection.transport.reads_on = False
    connection.send(WHOLE).wait(30)
    assert not connection.has("aborted")
    connection.wait(3)
    assert connection.has("aborted")
    assert connection.edge.refused == {"slow_read": 1}


def test_a_peer_that_reads_nothing_is_aborted_while_the_connection_closes(connection: Connection) -> None:
    connection.transport.reads_on = False
    connection.send(WHOLE.replace(b"Host: a", b"Host: a\r\nConnection: close")).wait(33)
    assert connection.has("closed")
    assert connection.has("aborted")


def test_a_peer_that_reads_slowly_is_left_alone(connection: Connection) -> None:
    connection.app.size = 1_000_000
    connection.transport.reads_on = False
    connection.hold()
    connection.send(WHOLE)
    connection.answer()
    for _ in range(100):
        connection.wait(1)
        connection.transport.buffered -= 2000
        connection.protocol.due_s = 0.0
    assert connection.is_open


def test_a_peer_that_reads_a_little_is_not_left_alone(connection: Connection) -> None:
    connection.app.size = 1_000_000
    connection.transport.reads_on = False
    connection.send(WHOLE)
    for _ in range(40):
        connection.wait(1)
        connection.transport.buffered -= 500
    assert connection.has("aborted")


def test_writing_that_goes_on_starts_the_time_anew(connection: Connection) -> None:
    connection.transport.reads_on = False
    connection.send(WHOLE)
    connection.protocol.pause_writing()
    for _ in range(3):
        connection.wait(25)
        connection.protocol.resume_writing()
    assert connection.is_open


# The end of a connection.


def test_a_refusal_is_sent_and_the_rest_is_read_until_the_peer_closes(connection: Connection) -> None:
    connection.send(b"GET / HTTP/7.7\r\n\r\n")
    assert connection.statuses == [505]
    assert connection.has("ended")
    connection.send(b"x" * 1000)
    assert not connection.transport.is_closing()
    connection.wait(4)
    assert connection.has("aborted")


def test_the_rest_is_not_read_without_end(loop: VirtualLoop) -> None:
    connection = Connection(loop, HttpLimits(discard_bytes_max=1000)).send(b"nonsense\r\n")
    connection.send(b"x" * 900)
    assert not connection.has("aborted")
    connection.send(b"x" * 200)
    assert connection.has("aborted")


def test_a_refused_body_is_not_read_without_end(loop: VirtualLoop) -> None:
    connection = Connection(loop, HttpLimits(discard_bytes_max=1000))
    connection.app.reads = False
    connection.send(HEAD + b"Content-Length: 99999\r\n\r\n").send(b"x" * 1001)
    assert connection.statuses == [200]
    assert connection.has("aborted")


def test_TLS_is_closed_by_its_own_handshake(loop: VirtualLoop) -> None:
    connection = Connection(loop, is_tls=True).send(b"nonsense\r\n")
    assert connection.statuses == [400]
    assert connection.has("closed")
    assert not connection.has("ended")


def test_TLS_that_gets_no_farewell_is_aborted(loop: VirtualLoop) -> None:
    connection = Connection(loop, is_tls=True).send(b"nonsense\r\n")
    connection.wait(2)
    assert not connection.has("aborted")
    connection.wait(2)
    assert connection.has("aborted")


def test_a_closing_connection_is_left_alone_while_it_still_sends(loop: VirtualLoop) -> None:
    connection = Connection(loop, is_tls=True)
    connection.transport.reads_on = False
    connection.send(b"nonsense\r\n").wait(20)
    assert not connection.has("aborted")


def test_an_announced_body_of_nothing_keeps_the_connection(connection: Connection) -> None:
    connection.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n")
    assert connection.statuses[-1] == 200
    assert connection.is_open


def test_an_old_client_that_was_read_whole_is_closed_at_once(connection: Connection) -> None:
    connection.send(WHOLE.replace(b"1.1", b"1.0"))
    assert connection.statuses == [200]
    assert connection.has("closed")


def test_an_answer_that_breaks_off_is_not_completed_by_another(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    connection.app.fails = True
    connection.send(HEAD + b"Content-Length: 99\r\n\r\nabc")
    connection.app.reads = False
    connection.send(b"x" * 96)
    assert connection.has("closed")
    assert connection.transport.sent.startswith(b"HTTP/1.1 200")
    assert connection.transport.sent.endswith(b"\r\n\r\n")


def test_a_body_that_breaks_within_an_answer_ends_it(connection: Connection) -> None:
    connection.app.reads = False
    connection.app.size = 100_000
    connection.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    cycle = connection.protocol.cycle
    cycle.response_complete = False
    connection.send(b"no chunk\r\n")
    assert connection.has("closed")
    assert cycle.disconnected


def test_the_application_hears_of_a_caller_that_leaves(connection: Connection) -> None:
    connection.hold()
    connection.send(WHOLE)
    connection.lose()
    assert connection.app.left == ["/a"]
    assert connection.edge.connections == set()


def test_a_broken_request_behind_others_waits_for_their_answers(connection: Connection) -> None:
    connection.hold()
    connection.send(WHOLE + WHOLE.replace(b"/a", b"/b") + HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\n")
    assert connection.statuses == []
    connection.answer(2)
    assert connection.statuses == [200, 200, 400]
    assert connection.app.asked == ["/a", "/b"]
    assert connection.has("ended")


def test_a_request_whose_own_body_breaks_is_told_at_once(connection: Connection) -> None:
    connection.send(HEAD + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
    assert connection.statuses == [400]
    assert connection.app.left == ["/a"]


def test_a_bug_of_ours_is_logged_and_not_shown(
    connection: Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(GuardedProtocol, "_check_host", broken)
    connection.send(WHOLE)
    assert connection.statuses == [500]
    assert b"secret" not in connection.transport.sent
    assert "the HTTP callbacks failed" in caplog.text


def test_a_host_is_looked_at_once_while_it_stays_the_same(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bytes] = []
    check = GuardedProtocol._check_host

    def watched(protocol: GuardedProtocol) -> None:
        looked.append(protocol.host)
        check(protocol)

    monkeypatch.setattr(GuardedProtocol, "_check_host", watched)
    for host in (b"a", b"a", b"b", b"a"):
        connection.send(WHOLE.replace(b"Host: a", b"Host: " + host))
    assert looked == [b"a", b"b", b"a"]


# Draining, and the limit of connections.


def test_a_draining_connection_answers_and_says_that_it_closes(connection: Connection) -> None:
    connection.edge.draining = True
    connection.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n").send(b"abc")
    assert [answer.headers.get("connection") for answer in connection.transport.answers] == [None, "close"]
    assert connection.has("closed")


def test_shutdown_closes_an_idle_connection_and_waits_for_a_head(connection: Connection) -> None:
    connection.send(HEAD)
    connection.protocol.shutdown()
    assert connection.is_open
    connection.edge.draining = True
    connection.send(b"Content-Length: 0\r\n\r\n")
    assert connection.statuses == [200]
    assert connection.has("closed")


def test_shutdown_closes_a_connection_that_never_spoke(connection: Connection) -> None:
    connection.protocol.shutdown()
    assert connection.has("closed")


def test_a_connection_over_the_limit_is_answered_without_being_asked(loop: VirtualLoop) -> None:
    connection = Connection(loop, HttpLimits(connections_max=3), others=3)
    assert connection.statuses == [503]
    connection.send(WHOLE)
    assert connection.statuses == [503]
    assert connection.app.asked == []
    assert connection.edge.refused == {"connections": 1}


# The server around them.


def test_a_connection_that_cannot_be_checked_does_not_end_the_sweep(
    loop: VirtualLoop, caplog: pytest.LogCaptureFixture
) -> None:
    server = HttpServer(App(), HttpLimits(), None)
    odd, slow = Connection(loop), Connection(loop)
    odd.protocol.sweep = None  # type: ignore[assignment,method-assign]
    server.edge.connections.update((odd.protocol, slow.protocol))
    sweeping = loop.create_task(server._sweep())
    loop.advance(12)
    assert "could not be checked" in caplog.text
    assert slow.has("closed")
    assert server.edge.default_headers[0][0] == b"date"
    sweeping.cancel()


def test_a_server_that_never_started_can_be_drained_and_closed(loop: VirtualLoop) -> None:
    async def main() -> bool:
        server = HttpServer(App(), HttpLimits(), None)
        drained = await server.drain(1)
        await server.close()
        return drained

    assert loop.run_until_complete(main())


class FakeSocket:
    """A socket whose `bind` fails as it is told."""

    error: OSError | None = None

    def __init__(self, *_: object) -> None:
        self.is_closed = False

    def setsockopt(self, *_: object) -> None:
        """Nothing to set."""

    def bind(self, address: tuple[str, int]) -> None:
        if self.error is not None:
            raise self.error

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(98, "Address already in use"), "another program listens there; choose another port, or 0"),
        (OSError(13, "Permission denied"), "cannot listen on ::1:80: Permission denied"),
    ],
)
def test_an_address_that_cannot_be_had_is_named_with_the_reason(
    error: OSError, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSocket, "error", error)
    monkeypatch.setattr(socket, "socket", FakeSocket)
    with pytest.raises(PortInUse, match=text):
        bind("::1", 80)

"""HTTP/1.1 as hostile, sloppy and slow clients speak it, byte for byte, to the real server on a loopback socket.

Every refusal is one JSON answer with the status that the rule gives, a closed connection, and no hang; a good
request on a new connection works afterwards. Sources: RFC 9110 and 9112, and the lists of request smuggling tools.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import orjson
import pytest

from gateway.exchange import NOBODY_WAITS, Exchange, Lane
from gateway.listener import GuardedProtocol, HttpLimits, HttpServer
from tests.support.waiting import PATIENCE_S
from tests.support.wire import LOOPS, Peer, connected, parse, port_of, run, serving, talk

GOOD = b"GET /good HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
HEAD = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
MB = 1_000_000


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_inside(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client sends is its own fault, not an error in our log."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Echoes what it was asked. `/refuse` answers without reading; `/large` answers much; `/wait/...` waits."""
    path = scope["path"]
    size = 0
    if path.startswith("/refuse"):
        await _reply(send, 401, {"error": "refused"})
        return
    while True:
        message: MutableMapping[str, Any] = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        if not message.get("more_body"):
            break
    if path.startswith("/wait"):
        await asyncio.sleep(0.05)
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    document = {"method": scope["method"], "path": path, "size": size, "headers": headers}
    if path == "/large":
        document["much"] = "x" * 20 * MB
    await _reply(send, 200, document)


async def _reply(send: Callable[[Any], Awaitable[None]], status: int, document: Any) -> None:
    body = orjson.dumps(document)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class EchoLane:
    """What `app` does, by callbacks."""

    def exchange(
        self, connection: GuardedProtocol, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]
    ) -> Echo | None:
        if method == b"HEAD" or b"%" in url or b"?" in url:
            return None
        return Echo(connection, method.decode(), url.decode(), headers)

    def again(self, connection: GuardedProtocol, before: Exchange) -> Echo | None:
        assert isinstance(before, Echo)
        return Echo(connection, before.document["method"], before.document["path"], before.headers)


class Echo:
    message_event = NOBODY_WAITS

    def __init__(
        self, connection: GuardedProtocol, method: str, path: str, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.connection = connection
        self.body_bytes = 0
        self.more_body = True
        self.keep_alive = self.disconnected = self.waiting_for_100_continue = False
        self.response_started = self.response_complete = False
        self.headers = headers
        self.document: dict[str, Any] = {"method": method, "path": path, "size": 0}
        self.waiting: asyncio.TimerHandle | None = None

    def begin(self) -> bool:
        path: str = self.document["path"]
        self.document["headers"] = {name.decode(): value.decode("latin-1") for name, value in self.headers}
        if path.startswith("/refuse"):
            self._answer(401, {"error": "refused"})
        # Some requests are handed back to the application after a look at them.
        return path != "/wait/3"

    def take(self, body: bytes) -> None:
        self.document["size"] += len(body)

    def wait(self) -> None:
        """Nothing is late here; the connection's own deadlines hold."""

    def end(self) -> None:
        if self.document["path"].startswith("/wait"):
            self.waiting = self.connection.loop.call_later(0.05, self._answer, 200, self.document)
            return
        if self.document["path"] == "/large":
            self.document["much"] = "x" * 20 * MB
        self._answer(200, self.document)

    def lost(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()

    def _answer(self, status: int, document: Any) -> None:
        body = orjson.dumps(document)
        lines = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        self.connection.answer(self, status, lines, body)


@pytest.fixture(params=["application", "lane"])
def lane(request: pytest.FixtureRequest) -> Lane | None:
    """Every rule of the wire holds for both ways to an answer."""
    return EchoLane() if request.param == "lane" else None


def is_working(server: HttpServer) -> bool:
    """Whether a request has begun that is not answered."""
    cycles = [connection.cycle for connection in server.edge.connections if isinstance(connection, GuardedProtocol)]
    return any(cycle is not None and not bool(cycle.response_complete) for cycle in cycles)


def head(*lines: bytes, target: bytes = b"/echo", method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join([method + b" " + target + b" " + version, *lines, b"", b""])


def length(value: bytes) -> bytes:
    return HEAD + b"Content-Length: " + value + b"\r\n\r\nabc"


def coded(*values: bytes) -> bytes:
    return HEAD + b"".join(b"Transfer-Encoding: " + value + b"\r\n" for value in values) + b"\r\n3\r\nabc\r\n" + END


HOSTILE: dict[str, tuple[bytes, int]] = {
    # How long is the body? Two answers are the root of request smuggling.
    "length and chunked": (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + END, 400),
    "chunked and length": (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + END, 400),
    "two lengths that differ": (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
    "one length twice": (HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "a list of lengths": (length(b"3, 3"), 400),
    "length +3": (length(b"+3"), 400),
    "length -1": (length(b"-1"), 400),
    "length 0x3": (length(b"0x3"), 400),
    "length 1_0": (length(b"1_0"), 400),
    "length 3.0": (length(b"3.0"), 400),
    "length 3 x": (length(b"3 x"), 400),
    "length of 23 digits": (length(b"1" * 23), 400),
    "length 2**64 + 3": (length(b"18446744073709551619"), 400),
    "empty length": (length(b""), 400),
    "length in Arabic digits": (length("٣".encode()), 400),
    "gzip before chunked": (coded(b"gzip, chunked"), 400),
    "chunked before gzip": (coded(b"chunked, gzip"), 400),
    "chunked twice in one line": (coded(b"chunked, chunked"), 400),
    "chunked in two lines": (coded(b"chunked", b"chunked"), 400),
    "chunked and identity in two lines": (coded(b"chunked", b"identity"), 400),
    "an unknown coding": (coded(b"xchunked"), 400),
    "gzip alone": (coded(b"gzip"), 400),
    "identity": (coded(b"identity"), 400),
    "chunked with a parameter": (coded(b"chunked;q=1"), 400),
    "chunked in quotes": (coded(b'"chunked"'), 400),
    "chunked after a comma": (coded(b",chunked"), 400),
    "chunked after a vertical tab": (coded(b"\x0bchunked"), 400),
    "an empty coding": (coded(b""), 400),
    "chunked in HTTP/1.0": (CHUNKED.replace(b"1.1", b"1.0") + b"3\r\nabc\r\n" + END, 400),
    # Chunks.
    "chunk size +3": (CHUNKED + b"+3\r\nabc\r\n" + END, 400),
    "chunk size 0x3": (CHUNKED + b"0x3\r\nabc\r\n" + END, 400),
    "chunk size -3": (CHUNKED + b"-3\r\nabc\r\n" + END, 400),
    "chunk size g": (CHUNKED + b"g\r\nabc\r\n" + END, 400),
    "no chunk size": (CHUNKED + b"\r\nabc\r\n" + END, 400),
    "chunk size 3 with a space before it": (CHUNKED + b" 3\r\nabc\r\n" + END, 400),
    "chunk size 3 with a tab after it": (CHUNKED + b"3\t\r\nabc\r\n" + END, 400),
    "a chunk larger than all memory": (CHUNKED + b"FFFFFFFFFFFFFFFF0\r\nabc\r\n" + END, 400),
    "a chunk shorter than it says": (CHUNKED + b"5\r\nabc\r\n" + END, 400),
    "a chunk longer than it says": (CHUNKED + b"2\r\nabc\r\n" + END, 400),
    "a line feed in a chunk extension": (CHUNKED + b"3;a\nb\r\nabc\r\n" + END, 400),
    "a NUL in a chunk extension": (CHUNKED + b"3;a\x00b\r\nabc\r\n" + END, 400),
    "a line feed after a chunk size": (CHUNKED + b"3\nabc\r\n" + END, 400),
    "a line feed after a chunk": (CHUNKED + b"3\r\nabc\n" + END, 400),
    "a carriage return after a chunk size": (CHUNKED + b"3\rabc\r\n" + END, 400),
    "a trailer with a space before its colon": (CHUNKED + b"3\r\nabc\r\n0\r\nA : b\r\n\r\n", 400),
    "101 trailers": (CHUNKED + b"0\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(101)) + b"\r\n", 431),
    "a trailer of 20 kB": (CHUNKED + b"0\r\nA: " + b"b" * 20_000 + b"\r\n\r\n", 431),
    "a trailer of 1 MB": (CHUNKED + b"0\r\nA: " + b"b" * MB + b"\r\n\r\n", 431),
    "a chunk extension of 1 MB": (CHUNKED + b"3;" + b"a" * MB + b"\r\nabc\r\n" + END, 431),
    # Lines.
    "line feeds only": (head(b"Host: a").replace(b"\r\n", b"\n"), 400),
    "one bare line feed": (b"GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n", 400),
    "a bare carriage return in a value": (head(b"Host: a", b"A: b\rC: d"), 400),
    "a folded header": (head(b"Host: a", b"A: b", b" c"), 400),
    "a first header that is indented": (head(b" Host: a"), 400),
    "a space before the colon": (head(b"Host : a"), 400),
    "a tab before the colon": (head(b"Host\t: a"), 400),
    "a NUL in a value": (head(b"Host: a", b"A: b\x00c"), 400),
    "a control character in a value": (head(b"Host: a", b"A: b\x01c"), 400),
    "a vertical tab in a name": (head(b"Host: a", b"A\x0b: b"), 400),
    "a DEL in a name": (head(b"Host: a", b"A\x7f: b"), 400),
    "brackets in a name": (head(b"Host: a", b"A(b): c"), 400),
    "a name in UTF-8": (head(b"Host: a", "Ä: b".encode()), 400),
    "no name": (head(b"Host: a", b": b"), 400),
    "no colon": (head(b"Host: a", b"nothing"), 400),
    # The request line.
    "HTTP/0.9, spelled out": (head(b"Host: a", version=b"HTTP/0.9"), 400),
    "HTTP/0.9, as it was": (b"GET /echo\r\n\r\n", 400),
    "HTTP/1.9": (head(b"Host: a", version=b"HTTP/1.9"), 505),
    "HTTP/2.0": (head(b"Host: a", version=b"HTTP/2.0"), 505),
    "HTTP/3.0": (head(b"Host: a", version=b"HTTP/3.0"), 505),
    "HTTP/2 without asking": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1.10": (head(b"Host: a", version=b"HTTP/1.10"), 400),
    "HTTP/11": (head(b"Host: a", version=b"HTTP/11"), 400),
    "http/1.1": (head(b"Host: a", version=b"http/1.1"), 400),
    "another protocol": (head(b"Host: a", version=b"HTCPCP/1.0"), 400),
    "a space in the target": (head(b"Host: a", target=b"/ec ho"), 400),
    "a tab instead of a space": (b"GET\t/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a method in lower case": (head(b"Host: a", method=b"get"), 400),
    "an unknown method": (head(b"Host: a", method=b"BREW"), 400),
    "no method": (head(b"Host: a", method=b""), 400),
    "a target without a slash": (head(b"Host: a", target=b"echo"), 400),
    "a target that is a query": (head(b"Host: a", target=b"?a"), 400),
    "a target with a fragment": (head(b"Host: a", target=b"/echo#a"), 400),
    "a target in UTF-8": (head(b"Host: a", target="/é".encode()), 400),
    "a NUL in the target": (head(b"Host: a", target=b"/a\x00b"), 400),
    "a URL of another host": (head(b"Host: a", target=b"http://b/echo"), 400),
    "a URL of another port": (head(b"Host: a:80", target=b"http://a:81/echo"), 400),
    "a URL of another scheme": (head(b"Host: a", target=b"ftp://a/echo"), 400),
    "a URL with a user": (head(b"Host: a", target=b"http://u@a/echo"), 400),
    "a URL with an impossible port": (head(b"Host: a", target=b"http://a:99999999/echo"), 400),
    "a proxy's request": (head(b"Host: a:443", target=b"a:443", method=b"CONNECT"), 501),
    "an upgrade to HTTP/2": (head(b"Host: a", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"), 501),
    "an upgrade to a WebSocket": (head(b"Host: a", b"Connection: upgrade", b"Upgrade: websocket"), 501),
    "a TLS hello": (bytes.fromhex("16030100c8010000c40303") + bytes(100), 400),
    "noise": (bytes(range(128, 256)) * 4, 400),
    # Host.
    "no Host": (head(), 400),
    "two Hosts": (head(b"Host: a", b"Host: b"), 400),
    "one Host twice": (head(b"Host: a", b"Host: a"), 400),
    "a Host with a space": (head(b"Host: a b"), 400),
    "a Host with a path": (head(b"Host: a/b"), 400),
    "a Host with a user": (head(b"Host: u@a"), 400),
    "a list of Hosts": (head(b"Host: a,b"), 400),
    "half an IPv6 Host": (head(b"Host: [::1"), 400),
    "a Host with a long port": (head(b"Host: a:99999999"), 400),
    "two Hosts in HTTP/1.0": (head(b"Host: a", b"Host: a", version=b"HTTP/1.0"), 400),
    # Sizes.
    "101 headers": (head(b"Host: a", *(b"A%d: b" % n for n in range(100))), 431),
    "20,000 headers": (head(b"Host: a", *(b"A: b" for _ in range(20_000))), 431),
    "20,000 headers that are dropped": (head(b"Host: a", *(b"A_: b" for _ in range(20_000))), 431),
    "headers of 17 kB": (head(b"Host: a", *(b"A: " + b"b" * 999 for _ in range(17))), 431),
    "a header of 1 MB": (head(b"Host: a", b"A: " + b"b" * MB), 431),
    "a name of 1 MB": (head(b"Host: a", b"A" * MB + b": b"), 431),
    "a header without an end": (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * MB, 431),
    "a target of 9 kB": (head(b"Host: a", target=b"/" + b"a" * 9000), 414),
    "a target of 1 MB": (head(b"Host: a", target=b"/" + b"a" * MB), 414),
    "1 MB of empty lines": (b"\r\n" * (MB // 2), 431),
}

SLICES = {"in one piece": 10**9, "in pieces of 7": 7, "in pieces of 1,000": 1000}


def sliced(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("slices", SLICES.values(), ids=SLICES.keys())
@pytest.mark.parametrize(("request_bytes", "status"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_request_that_breaks_a_rule_gets_one_refusal_and_a_closed_connection(
    request_bytes: bytes, status: int, slices: int, lane: Lane | None
) -> None:
    if slices == 7 and len(request_bytes) > 2000:
        # The same as in pieces of 1,000, at a hundred times the cost.
        return

    async def main() -> None:
        async with serving(app, None, lane) as server:
            answers = parse(await talk(port_of(server), *sliced(request_bytes, slices)))
            assert [answer.status for answer in answers] == [status]
            answer = answers[0]
            assert answer.headers["connection"] == "close"
            assert answer.headers["content-type"] == "application/json"
            error = answer.json["error"]
            assert error.keys() == {"code", "message", "details", "request_id"}
            assert error["request_id"] == answer.headers["x-request-id"]
            assert sum(server.edge.refused.values()) >= 1
            assert [good.status for good in parse(await talk(port_of(server), GOOD))] == [200]

    run(main())


FRIENDLY: dict[str, tuple[bytes, dict[str, Any]]] = {
    "a plain request": (head(b"Host: a"), {"path": "/echo", "size": 0}),
    "a URL of the right host": (head(b"Host: a", target=b"http://A/echo"), {"path": "/echo"}),
    "a URL without a path": (head(b"Host: a:80", target=b"http://a:80"), {"path": "/"}),
    "a URL with a query only": (head(b"Host: a", target=b"https://a?x=1"), {"path": "/"}),
    "a URL of an IPv6 host": (head(b"Host: [::1]:80", target=b"http://[::1]:80/echo"), {"path": "/echo"}),
    "a URL in HTTP/1.0": (head(target=b"http://a/echo", version=b"HTTP/1.0"), {"path": "/echo"}),
    "empty lines before the request": (b"\r\n\r\n" + head(b"Host: a"), {"path": "/echo"}),
    "an empty Host": (head(b"Host:"), {"path": "/echo"}),
    "two spaces after the target": (head(b"Host: a", target=b"/echo "), {"path": "/echo"}),
    "two slashes": (head(b"Host: a", target=b"//evil/echo"), {"path": "//evil/echo"}),
    "a target of all": (head(b"Host: a", target=b"*", method=b"OPTIONS"), {"path": "*"}),
    "percent signs": (head(b"Host: a", target=b"/%65cho%zz%ff%0d%0a"), {"path": "/echo%zz\ufffd\r\n"}),
    "a body": (length(b"3"), {"size": 3}),
    "a body with GET": (length(b"3").replace(b"POST", b"GET"), {"size": 3}),
    "a length with zeros": (length(b"0000000003"), {"size": 3}),
    "chunks": (CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n" + END, {"size": 5}),
    "a chunk size with zeros": (CHUNKED + b"00003\r\nabc\r\n000\r\n\r\n", {"size": 3}),
    "an upper-case chunk size": (CHUNKED + b"A\r\n0123456789\r\n" + END, {"size": 10}),
    "chunk extensions": (CHUNKED + b'3;a;b=c;d="e f"\r\nabc\r\n0;z\r\n\r\n', {"size": 3}),
    "Chunked in capitals": (coded(b"Chunked"), {"size": 3}),
    "a value in Latin-1": (head(b"Host: a", b"A: \xe9"), {"headers": {"host": "a", "a": "é"}}),
    "an empty value": (head(b"Host: a", b"A:"), {"headers": {"host": "a", "a": ""}}),
    "spaces around a value": (head(b"Host: a", b"A: \t b \t"), {"headers": {"host": "a", "a": "b"}}),
    "an unknown expectation": (head(b"Host: a", b"Expect: more"), {"path": "/echo"}),
    "an upgrade that nobody insists on": (head(b"Host: a", b"Upgrade: h2c"), {"path": "/echo"}),
    "100 headers": (head(b"Host: a", *(b"A: b" for _ in range(99))), {"path": "/echo"}),
    "a name with an underscore": (
        head(b"Host: a", b"X_User: root", b"X-B: c"),
        {"headers": {"host": "a", "x-b": "c"}},
    ),
    "metadata whose name has an underscore": (
        head(b"Host: a", b"X-Ms-Meta-upload_status: completed", b"X_Ms-Meta-a: b"),
        {"headers": {"host": "a", "x-ms-meta-upload_status": "completed"}},
    ),
    "a trailer is no header": (
        CHUNKED + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\nHost: b\r\n\r\n",
        {"size": 3, "headers": {"host": "a", "transfer-encoding": "chunked"}},
    ),
}


@pytest.mark.parametrize("slices", SLICES.values(), ids=SLICES.keys())
@pytest.mark.parametrize(("request_bytes", "found"), FRIENDLY.values(), ids=FRIENDLY.keys())
def test_an_odd_but_lawful_request_is_served(
    request_bytes: bytes, found: dict[str, Any], slices: int, lane: Lane | None
) -> None:
    async def main() -> None:
        async with serving(app, None, lane) as server:
            answers = parse(await talk(port_of(server), *sliced(request_bytes, slices), GOOD))
            expected = [200] if b"HTTP/1.0" in request_bytes else [200, 200]
            assert [answer.status for answer in answers] == expected
            assert {key: answers[0].json[key] for key in found} == found

    run(main())


def test_a_dropped_header_is_counted(lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, None, lane) as server:
            await talk(port_of(server), head(b"Host: a", b"X_User: root", b"Y_: z"), GOOD)
            assert server.edge.refused == {"underscore_header": 2}

    run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_pipelined_requests_are_answered_in_order(loop: str, lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, None, lane) as server:
            requests = b"".join(head(b"Host: a", target=b"/wait/%d" % n) for n in range(5))
            answers = parse(await talk(port_of(server), requests + GOOD))
            assert [answer.json["path"] for answer in answers] == [*(f"/wait/{n}" for n in range(5)), "/good"]

    run(main(), loop)


ALIKE = head(b"Host: a", b"Content-Length: 3", target=b"/wait/1", method=b"POST")
# After a request whose head was read, one that begins with the same bytes: it may go on as it likes.
AFTERWARDS: dict[str, tuple[bytes, list[tuple[int, int]]]] = {
    "the same": (ALIKE + b"xyz", [(200, 3)]),
    "the same, and the beginning of another": (ALIKE + b"xyzGE", [(200, 3)]),
    "the same, and another": (ALIKE + b"xyz" + length(b"3"), [(200, 3), (200, 3)]),
    "the same three times": ((ALIKE + b"xyz") * 3, [(200, 3)] * 3),
    "the same, and rubbish": (ALIKE + b"xyz\0\0\0\0", [(200, 3), (400, -1)]),
    "half of its body": (ALIKE + b"x", []),
    "a head with one header more": (ALIKE[:-2] + b"A: b\r\n\r\nxyz", [(200, 3)]),
    "a head with another length": (ALIKE.replace(b"3", b"5") + b"vwxyz", [(200, 5)]),
    "empty lines before it": (b"\r\n\r\n" + ALIKE + b"xyz", [(200, 3)]),
    "one that wants the last word": (ALIKE.replace(b"Host", b"Connection: close\r\nHost") + b"xyz", [(200, 3)]),
}


@pytest.mark.parametrize("slices", SLICES.values(), ids=SLICES.keys())
@pytest.mark.parametrize(("data", "answers"), AFTERWARDS.values(), ids=AFTERWARDS.keys())
def test_a_head_that_was_read_before_changes_nothing(
    data: bytes, answers: list[tuple[int, int]], slices: int, lane: Lane | None
) -> None:
    async def main() -> None:
        async with serving(app, None, lane) as server, connected(port_of(server)) as peer:
            for _ in range(3):
                await peer.send(ALIKE + b"abc")
                first = parse(await peer.read_until(b"}}"))
                assert [(answer.status, answer.json["size"]) for answer in first] == [(200, 3)]
            await peer.send(*sliced(data, slices))
            peer.half_close() if not answers else None
            found = b""
            while found.count(b"HTTP/1.1 ") < len(answers) or not found.endswith(b"}"):
                if not answers:
                    break
                found += await peer.read_until(b"}}")
            shown = [(answer.status, answer.json.get("size", -1)) for answer in parse(found)]
            assert shown == answers

    run(main())


def test_only_so_many_heads_are_remembered_and_none_that_is_long(lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, None, lane) as server, connected(port_of(server)) as peer:
            for n in [*range(80), *range(80)]:
                await peer.send(head(b"Host: a", b"N: %d" % n, b"Long: " + b"x" * 4000 * (n % 2)))
                (answer,) = parse(await peer.read_until(b"}}"))
                assert answer.json["headers"]["n"] == str(n)
            (connection,) = server.edge.connections
            assert isinstance(connection, GuardedProtocol)
            assert len(connection.heads) <= 32
            assert sum(map(len, connection.heads)) < 32 * 2048

    run(main())


BROKEN_LATER = {
    "its head": (b"GET /2 HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    "its body": (CHUNKED + b"x\r\n", 400),
    "its size": (b"GET /2 HTTP/1.1\r\nA: " + b"b" * MB, 431),
}


@pytest.mark.parametrize("first", [b"/1", b"/wait/1"])
@pytest.mark.parametrize(("second", "status"), BROKEN_LATER.values(), ids=BROKEN_LATER.keys())
def test_a_pipelined_request_that_breaks_is_refused_after_the_answers_before_it(
    first: bytes, second: bytes, status: int, lane: Lane | None
) -> None:
    async def main() -> None:
        async with serving(app, None, lane) as server:
            data = head(b"Host: a", target=first) + head(b"Host: a", target=b"/wait/b") + second
            answers = parse(await talk(port_of(server), data))
            assert [answer.status for answer in answers] == [200, 200, status]
            assert answers[0].json["path"] == first.decode()

    run(main())


def test_requests_after_the_last_one_are_not_served(lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, None, lane) as server:
            answers = parse(await talk(port_of(server), GOOD + head(b"Host: a", target=b"/after")))
            assert [answer.json["path"] for answer in answers] == ["/good"]

    run(main())


REFUSED_BODIES = {
    "declared": HEAD.replace(b"/echo", b"/refuse") + b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000,
    "chunked": CHUNKED.replace(b"/echo", b"/refuse") + b"2DC6C0\r\n" + b"x" * 3_000_000 + b"\r\n" + END,
}


@pytest.mark.parametrize("data", REFUSED_BODIES.values(), ids=REFUSED_BODIES.keys())
def test_a_connection_goes_on_after_a_refusal_whose_body_was_not_read(data: bytes, lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, None, lane) as server:
            answers = parse(await talk(port_of(server), data, GOOD))
            assert [answer.status for answer in answers] == [401, 200]

    run(main())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
def test_a_last_answer_arrives_though_the_body_was_not_read(version: bytes, loop: str, lane: Lane | None) -> None:
    # A server that closed at once would reset the connection, and the answer would be lost on many a client.
    data = (
        REFUSED_BODIES["declared"].replace(b"Host: a", b"Host: a\r\nConnection: close").replace(b"HTTP/1.1", version)
    )

    async def main() -> None:
        async with serving(app, None, lane) as server, connected(port_of(server)) as peer:
            peer.writer.write(data)
            await peer.writer.drain()
            assert [answer.status for answer in parse(await peer.read_all())] == [401]

    run(main(), loop)


def test_a_refused_body_that_breaks_gets_no_second_answer(lane: Lane | None) -> None:
    data = CHUNKED.replace(b"/echo", b"/refuse") + b"3\r\nabc\r\n"

    async def main() -> None:
        async with serving(app, None, lane) as server, connected(port_of(server)) as peer:
            await peer.send(data)
            first = await peer.read_until(b'"refused"}')
            await peer.send(b"no chunk\r\n")
            assert [answer.status for answer in parse(first + await peer.read_all())] == [401]

    run(main())


def test_a_refused_body_is_not_read_without_end(lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, HttpLimits(discard_bytes_max=MB), lane) as server:
            data = await talk(port_of(server), REFUSED_BODIES["declared"], GOOD)
            assert [answer.status for answer in parse(data)] == [401]

    run(main())


def test_a_client_that_asks_first_is_told_to_go_on(lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, None, lane) as server, connected(port_of(server)) as peer:
            await peer.send(HEAD + b"Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
            assert await peer.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await peer.send(b"abc" + GOOD)
            first, second = parse(await peer.read_all())
            assert (first.status, first.json["size"], second.status) == (200, 3, 200)
            assert "connection" not in first.headers

    run(main())


@pytest.mark.parametrize("is_sent", [False, True], ids=["waits", "does not wait"])
def test_a_client_that_asks_first_and_is_refused_is_told_that_the_connection_ends(
    is_sent: bool, lane: Lane | None
) -> None:
    # Whether the body follows is up to the client, so what came next could be either.
    data = HEAD.replace(b"/echo", b"/refuse") + b"Expect: 100-continue\r\nContent-Length: 300000\r\n\r\n"

    async def main() -> None:
        async with serving(app, None, lane) as server, connected(port_of(server)) as peer:
            await peer.send(data)
            first = await peer.read_until(b"refused")
            assert b"connection: close" in first
            await peer.send(b"x" * 300_000 if is_sent else b"", GOOD)
            assert [answer.status for answer in parse(first + await peer.read_all())] == [401]

    run(main())


def test_old_clients_are_never_sent_an_interim_answer(lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, None, lane) as server:
            data = HEAD.replace(b"1.1", b"1.0") + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
            (answer,) = parse(await talk(port_of(server), data))
            assert (answer.status, answer.headers["connection"]) == (200, "close")

    run(main())


def test_a_HEAD_request_gets_a_head(lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, None, lane) as server:
            data = await talk(port_of(server), head(b"Host: a", method=b"HEAD") + GOOD)
            first, second = parse(data, ["HEAD", "GET"])
            assert (first.status, first.body, second.status) == (200, b"", 200)

    run(main())


LEFT_EARLY: dict[str, tuple[bytes, ...]] = {
    "without a word": (),
    "in the head": (b"POST /echo HTTP/1.1\r\nHost",),
    "in the body": (length(b"3000"),),
    "in a chunk": (CHUNKED + b"FFFF\r\nabc",),
    "in the upload that is refused": (REFUSED_BODIES["declared"][:100_000],),
    "while it is answered": (head(b"Host: a", target=b"/wait/1"),),
    "while several are answered": (head(b"Host: a", target=b"/wait/1") * 3,),
    "before reading": (head(b"Host: a", target=b"/large"),),
}


@pytest.mark.parametrize("how", ["closes", "resets", "half-closes"])
@pytest.mark.parametrize("pieces", LEFT_EARLY.values(), ids=LEFT_EARLY.keys())
def test_a_client_that_leaves_leaves_nothing_behind(pieces: tuple[bytes, ...], how: str, lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, HttpLimits(write_timeout_s=0.1, sweep_s=0.01), lane) as server:
            async with connected(port_of(server)) as peer:
                await peer.send(*pieces)
                await _leave(peer, how)
                await _until(lambda: not server.connections and not server.edge.tasks)
            assert [good.status for good in parse(await talk(port_of(server), GOOD))] == [200]

    run(main())


async def _leave(peer: Peer, how: str) -> None:
    await asyncio.sleep(0.005)
    if how == "closes":
        await peer.close()
    elif how == "resets":
        peer.cut()
    else:
        # Who sends no more is taken for gone: nothing tells it from a client that closed.
        peer.half_close()


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.002)


# Slow clients, at a twentieth of the real times.
QUICK = HttpLimits(
    header_timeout_s=0.15,
    body_grace_s=0.15,
    idle_timeout_s=0.3,
    write_timeout_s=0.15,
    linger_s=0.1,
    sweep_s=0.01,
)


async def _drip(peer: Peer, data: bytes) -> None:
    while True:
        for at in range(len(data)):
            await peer.send(data[at : at + 1])
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("start", "drip", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: ", b"b", "slow_head"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"A: b\r\n", "slow_head"),
        (head(b"Host: a", target=b"/wait/1") + b"GET / HTTP/1.1\r\n", b"A: b\r\n", "slow_head"),
        (HEAD + b"Content-Length: 9999\r\n\r\n", b"b", "slow_body"),
        (CHUNKED, b"1\r\na\r\n", "slow_body"),
        (CHUNKED + b"3;", b"a", "slow_body"),
        (CHUNKED + b"0\r\n", b"A: b\r\n", "slow_body"),
    ],
    ids=["header", "headers", "second head", "body", "chunks", "chunk extension", "trailers"],
)
def test_a_client_that_drips_is_told_and_cut_off(
    start: bytes, drip: bytes, reason: str, loop: str, lane: Lane | None
) -> None:
    async def main() -> None:
        async with serving(app, QUICK, lane) as server, connected(port_of(server)) as peer:
            await peer.send(start)
            dripping = asyncio.ensure_future(_drip(peer, drip))
            answers = parse(await peer.read_all())
            dripping.cancel()
            assert [answer.status for answer in answers if answer.status != 200] == [408]
            assert server.edge.refused == {reason: 1}
            await _until(lambda: not server.connections)

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "data", [b"", b"\r\n", head(b"Host: a")], ids=["never spoke", "an empty line", "has an answer"]
)
def test_an_idle_connection_is_closed_without_a_word(data: bytes, loop: str, lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, QUICK, lane) as server, connected(port_of(server)) as peer:
            await peer.send(data)
            assert [answer.status for answer in parse(await peer.read_all())] == ([200] if len(data) > 2 else [])

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_does_not_read_is_cut_off(loop: str, lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, QUICK, lane) as server, connected(port_of(server), receive_bytes=4096) as peer:
            await peer.send(head(b"Host: a", target=b"/large"))
            await _until(lambda: not server.connections)
            assert server.edge.refused == {"slow_read": 1}

    run(main(), loop)


def test_a_connection_over_the_limit_is_refused(lane: Lane | None) -> None:
    async def main() -> None:
        limits = HttpLimits(connections_max=2)
        async with serving(app, limits, lane) as server, connected(port_of(server)), connected(port_of(server)):
            await _until(lambda: server.connections == 2)
            (answer,) = parse(await talk(port_of(server), GOOD))
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.json["error"]["code"] == "unavailable"
            assert server.edge.refused == {"connections": 1}

    run(main())


def test_a_drain_finishes_what_was_asked_and_closes_the_idle(lane: Lane | None) -> None:
    async def main() -> None:
        async with (
            serving(app, None, lane) as server,
            connected(port_of(server)) as busy,
            connected(port_of(server)) as idle,
        ):
            await idle.send(head(b"Host: a"))
            await idle.read_until(b"}}")
            await busy.send(head(b"Host: a", target=b"/wait/1"))
            await _until(lambda: is_working(server))
            assert await server.drain(2)
            assert await idle.read_all() == b""
            (answer,) = parse(await busy.read_all())
            assert (answer.status, answer.headers["connection"]) == (200, "close")

    run(main())


def test_a_drain_that_takes_too_long_says_so(lane: Lane | None) -> None:
    async def main() -> None:
        async with serving(app, None, lane) as server, connected(port_of(server)) as peer:
            await peer.send(length(b"3000"))
            await _until(lambda: is_working(server))
            assert not await server.drain(0.05)

    run(main())

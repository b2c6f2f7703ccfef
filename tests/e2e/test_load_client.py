"""The load tool's client and generator, against a tiny server of the test: they count what really came back."""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import httptools
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.load.client import Outcome, Plan, run
from bench.load.measure import GeneratorFailed, run_generator

REQUEST = b"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
# What the server does with its n-th request: an answer, or None to hang up.
Answer = Callable[[int], bytes | None]


class _Server(asyncio.Protocol):
    """Answers each whole request once; `seen` counts them over all connections."""

    def __init__(self, answer: Answer, seen: list[int]) -> None:
        self._answer, self._seen = answer, seen
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._seen[0] += 1
        answer = self._answer(self._seen[0])
        if answer is None:
            self._transport.abort()
        else:
            self._transport.write(answer)


async def _drive(answer: Answer, connections: int, seconds: float) -> tuple[Outcome, int]:
    seen = [0]
    server = await asyncio.get_running_loop().create_server(lambda: _Server(answer, seen), "127.0.0.1", 0)
    plan = Plan(
        host="127.0.0.1",
        port=server.sockets[0].getsockname()[1],
        requests=(REQUEST,),
        connections=connections,
        warm_up_s=0.0,
        seconds=seconds,
    )
    outcome = await run(plan)
    server.close()
    await server.wait_closed()
    return outcome, seen[0]


def test_every_answer_is_counted_and_every_connection_has_one_request_in_flight() -> None:
    outcome, seen = asyncio.run(_drive(lambda n: OK, connections=4, seconds=0.2))
    assert outcome.lost == 0
    assert set(outcome.statuses) == {200}
    # Those in flight at the end are answered, but no longer counted.
    assert seen - 4 <= outcome.statuses[200] == len(outcome.latencies_ns) <= seen
    assert all(latency_ns > 0 for latency_ns in outcome.latencies_ns)


def test_refusals_are_counted_by_status() -> None:
    outcome, _ = asyncio.run(_drive(lambda n: BUSY if n <= 3 else OK, connections=1, seconds=0.1))
    assert outcome.statuses[429] == 3


def test_a_connection_that_the_server_drops_is_lost_and_the_others_go_on() -> None:
    outcome, _ = asyncio.run(_drive(lambda n: None if n == 2 else OK, connections=3, seconds=0.1))
    assert outcome.lost == 1
    assert outcome.statuses[200] > 0


def _make_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


@contextmanager
def _serving_in_a_thread(tls: ssl.SSLContext | None) -> Iterator[int]:
    """A server for a generator that is a process of its own."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: _Server(lambda n: OK, [0]), "127.0.0.1", 0, ssl=tls))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_generator_process_reports_rates_and_percentiles(scheme: str, tmp_path: Path) -> None:
    tls, ca = None, ""
    if scheme == "https":
        certificate, key = _make_certificate(tmp_path)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        ca = str(certificate)
    with _serving_in_a_thread(tls) as port:
        result = run_generator(_job(port=port, ca=ca))
    assert result["statuses"] == {"200": result["answers"]}
    assert result["lost"] == 0
    assert result["rate"] == pytest.approx(result["answers"] / 0.2)
    assert 0 < result["p50_us"] <= result["p99_us"]


def test_a_generator_that_cannot_connect_says_why() -> None:
    with pytest.raises(GeneratorFailed, match="Connect"):
        run_generator(_job(port=1, ca=""))


def _job(port: int, ca: str) -> dict[str, object]:
    return {
        "host": "127.0.0.1",
        "port": port,
        "ca": ca,
        "requests": [base64.b64encode(REQUEST).decode()],
        "connections": 2,
        "warm_up_s": 0.05,
        "seconds": 0.2,
        "cores": [],
    }

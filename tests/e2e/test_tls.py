"""TLS as a stranger's client meets it: verified strictly, old versions refused, certificates replaced under load."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography import x509

from tests.support.handshake import serial_of, trusting_nobody, write_pair
from tests.support.load import Hammer
from tests.support.models import double
from tests.support.process import (
    GatewayProcess,
    deployment_yaml,
    endpoint_yaml,
    replace_file,
    replace_scorers,
    write_folder,
)
from tests.support.waiting import eventually

FILES: dict[str, str | bytes] = {
    "endpoint.yml": endpoint_yaml(traffic={"blue": 100}),
    "blue.yml": deployment_yaml("blue", "blue.onnx"),
    "blue.onnx": double(),
}
BODY = {"input_data": [[1, 2, 3, 4]]}
ALERT_RECORD = 21
# A server that refuses a handshake may say why in an alert, or just close.
REFUSED = (ssl.SSLError, ConnectionError)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _handshake(url: str, context: ssl.SSLContext, name: str = "127.0.0.1") -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(_address(url), 20), server_hostname=name)


def _serial(url: str) -> int:
    with _handshake(url, trusting_nobody()) as connection:
        return _serial_of_peer(connection)


def _serial_of_peer(connection: ssl.SSLSocket | ssl.SSLObject) -> int:
    der = connection.getpeercert(True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def _score(client: httpx.Client) -> httpx.Response:
    return client.post("/endpoints/digits/score", json=BODY)


# The gateway's own CA.


@pytest.mark.parametrize("listener", ["scoring", "management"])
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "::1"])
def test_the_own_ca_verifies_strictly(gateway: GatewayProcess, listener: str, name: str) -> None:
    context = gateway.trust()
    assert context.verify_flags & ssl.VERIFY_X509_STRICT
    with _handshake(gateway.urls[listener], context, name) as connection:
        assert connection.version() == "TLSv1.3"


def test_another_name_and_another_ca_are_not_trusted(gateway: GatewayProcess) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _handshake(gateway.urls["scoring"], gateway.trust(), "models.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        _handshake(gateway.urls["scoring"], ssl.create_default_context())


def test_tls_1_2_is_spoken_with_forward_secrecy_only(gateway: GatewayProcess) -> None:
    context = gateway.trust()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    with _handshake(gateway.urls["scoring"], context) as connection:
        assert connection.version() == "TLSv1.2"
        cipher = connection.cipher()
        assert cipher is not None
        assert cipher[0].startswith("ECDHE-")
        assert connection.selected_alpn_protocol() == "http/1.1"
    context.set_ciphers("AES128-GCM-SHA256")
    with pytest.raises(REFUSED):
        _handshake(gateway.urls["scoring"], context)


@pytest.mark.parametrize("version", [b"\x03\x01", b"\x03\x02"], ids=["TLS 1.0", "TLS 1.1"])
def test_older_versions_are_refused(gateway: GatewayProcess, version: bytes) -> None:
    # By hand: a modern client library cannot be talked into it without warnings.
    ciphers = b"\xc0\x09\xc0\x13\x00\x2f\x00\x35"
    hello = version + os.urandom(32) + b"\0" + len(ciphers).to_bytes(2, "big") + ciphers + b"\x01\0"
    message = b"\x01" + len(hello).to_bytes(3, "big") + hello
    with socket.create_connection(_address(gateway.urls["scoring"]), 20) as connection:
        connection.sendall(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
        answer = connection.recv(1000)
    # Nothing, or an alert: never the server's half of a handshake.
    assert not answer or answer[0] == ALERT_RECORD


def test_the_modern_profile_is_tls_1_3_only_and_plain_http_is_a_matter_of_the_scheme(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "models", FILES)
    arguments = ("--tls-profile", "modern", "--scoring", "http://127.0.0.1:0")
    with GatewayProcess(folder, tmp_path / "state", *arguments, scorers=1) as gateway:
        assert gateway.urls["scoring"].startswith("http://")
        with gateway.client("digits") as client:
            assert _score(client).json() == [[2, 4, 6, 8]]
        with _handshake(gateway.urls["management"], gateway.trust()) as connection:
            assert connection.version() == "TLSv1.3"
        context = gateway.trust()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(REFUSED):
            _handshake(gateway.urls["management"], context)


def test_a_gateway_without_tls_has_no_ca_and_no_expiry(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "models", FILES)
    with GatewayProcess(folder, tmp_path / "state", scheme="http", scorers=1) as gateway:
        assert gateway.ready_line.endswith(" ca=\n")
        assert not (gateway.state / "tls").exists()
        names = {sample.name for sample in gateway.metrics().samples}
        assert "gateway_config_last_reload_success" in names
        assert "gateway_tls_certificate_expiry_timestamp_seconds" not in names
        with gateway.client("digits") as client:
            assert _score(client).json() == [[2, 4, 6, 8]]


def test_plain_http_on_a_tls_listener_is_cut_off_and_harms_nobody(gateway: GatewayProcess) -> None:
    with socket.create_connection(_address(gateway.urls["scoring"]), 20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        # At most an alert comes back, never an answer.
        answer = connection.recv(1000)
        assert not answer or answer[0] == ALERT_RECORD
    with gateway.client("digits") as client:
        assert client.get("/v2/health/live").status_code == 200


# Given certificates, replaced while they serve.


class Rotation:
    """A gateway on a given certificate, and the way to put another in its place."""

    def __init__(self, gateway: GatewayProcess, cert: Path, key: Path, spare: Path) -> None:
        self.gateway, self.cert, self.key = gateway, cert, key
        self._spare = spare
        self._made = 0

    def make(self, days: int = 30) -> tuple[Path, Path]:
        self._made += 1
        return write_pair(self._spare, f"pair-{self._made}", days=days)

    def put(self, cert: Path, key: Path) -> None:
        """As a deployer would: one file after the other, each replaced whole."""
        replace_file(self.key, key.read_bytes())
        replace_file(self.cert, cert.read_bytes())

    def client(self) -> httpx.Client:
        # A certificate that signs itself; what counts here is which one it is.
        return self.gateway.client("digits", verify=trusting_nobody())

    def is_served(self, serial: int) -> bool:
        """Whether every listener and every scorer shows this certificate."""
        urls = self.gateway.urls
        return all(_serial(urls[name]) == serial for name in ["management", *["scoring"] * 10])


@pytest.fixture(scope="module")
def rotation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotation]:
    place = tmp_path_factory.mktemp("rotation")
    (place / "spare").mkdir()
    cert, key = write_pair(place, "first")
    given = ("--tls-cert", str(cert), "--tls-key", str(key))
    with GatewayProcess(write_folder(place / "models", FILES), place / "state", *given) as gateway:
        # The gateway's own `status` is asked with the CA that the ready line names.
        assert gateway.urls["ca"] == str(cert)
        yield Rotation(gateway, cert, key, place / "spare")


def test_new_handshakes_get_a_replaced_certificate_and_open_connections_go_on(rotation: Rotation) -> None:
    first = serial_of(rotation.cert)
    assert rotation.is_served(first)
    with rotation.client() as patient, Hammer(rotation.client, _score) as hammer:
        assert _serial_of_answer(_score(patient)) == first
        for days in (100, 200):
            cert, key = rotation.make(days)
            rotation.put(cert, key)
            eventually(partial(rotation.is_served, serial_of(cert)), "the new certificate is served", 10)
            # The very connection that was opened under the first certificate.
            assert _serial_of_answer(_score(patient)) == first
            hammer.go_on()
    assert hammer.broken == []
    assert set(hammer.since()) == {(200, "blue")}


def test_a_pair_that_does_not_fit_is_refused_and_the_old_one_served_on(rotation: Rotation) -> None:
    gateway = rotation.gateway
    good = rotation.make(days=300)
    rotation.put(*good)
    eventually(lambda: rotation.is_served(serial_of(good[0])), "the good certificate is served", 10)
    expiry = gateway.metrics().value("gateway_tls_certificate_expiry_timestamp_seconds")

    since = len(gateway.stderr)
    (cert, _), (_, key) = rotation.make(days=20), rotation.make()
    rotation.put(cert, key)
    assert "the old one is served on" in gateway.await_log("the new certificate is refused", since)
    assert rotation.is_served(serial_of(good[0]))
    # Also by a scorer that is replaced while the bad pair lies there.
    replace_scorers(gateway)
    assert rotation.is_served(serial_of(good[0]))
    # What is told is what is served, not what lies in the file.
    assert gateway.metrics().value("gateway_tls_certificate_expiry_timestamp_seconds") == expiry

    cert, key = rotation.make(days=40)
    rotation.put(cert, key)
    eventually(lambda: rotation.is_served(serial_of(cert)), "the mended certificate is served", 10)
    assert gateway.metrics().value("gateway_tls_certificate_expiry_timestamp_seconds") < expiry


def test_a_certificate_replaced_while_the_gateway_starts_is_served(tmp_path: Path) -> None:
    (tmp_path / "spare").mkdir()
    cert, key = write_pair(tmp_path, "early")
    given = ("--tls-cert", str(cert), "--tls-key", str(key))
    folder = write_folder(tmp_path / "models", FILES)
    with GatewayProcess(folder, tmp_path / "state", *given, scorers=1) as gateway:
        # At once: the files may not be watched yet.
        late_cert, late_key = write_pair(tmp_path / "spare", "late")
        replace_file(key, late_key.read_bytes())
        replace_file(cert, late_cert.read_bytes())
        serial = serial_of(late_cert)
        eventually(lambda: _serial(gateway.urls["scoring"]) == serial, "the new certificate is served", 10)


def test_a_certificate_that_is_gone_is_refused_and_the_old_one_served_on(rotation: Rotation) -> None:
    served, since = serial_of(rotation.cert), len(rotation.gateway.stderr)
    kept = rotation.cert.read_bytes()
    rotation.cert.unlink()
    assert "first.pem" in rotation.gateway.await_log("the new certificate is refused", since)
    assert rotation.is_served(served)
    replace_file(rotation.cert, kept)


def _serial_of_answer(reply: httpx.Response) -> int:
    """Of the certificate under which the answer's connection was opened."""
    assert reply.status_code == 200
    connection = reply.extensions["network_stream"].get_extra_info("ssl_object")
    return _serial_of_peer(connection)

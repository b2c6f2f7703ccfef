"""The private CA and its server certificates: strict clients accept them, and they change only when they must."""

from __future__ import annotations

import datetime as dt
import ipaddress
import shutil
import socket
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.controlplane import certificates
from gateway.controlplane.certificates import CertificateError, CertPaths, ensure_certificates
from gateway.tls import make_context, read_pair
from tests.support.handshake import serial_of, shake_hands, trusting, write_pair

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DAY = dt.timedelta(days=1)
NAMES = ("Gateway.Example", "*.score.example", "10.1.2.3", "[2001:db8::1]")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tls"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def loaded(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_first_call_makes_a_ca_and_a_certificate_in_private_files(folder: Path) -> None:
    paths = ensure_certificates(folder, NAMES, now=NOW)
    assert paths == CertPaths(ca=folder / "ca.pem", cert=folder / "server.pem", key=folder / "server.key")
    assert sorted(contents(folder)) == ["ca.key", "ca.pem", "server.key", "server.pem"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    read_pair(paths.cert, paths.key)


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1", "::1", "gateway.example", "digits.score.example", "10.1.2.3", "2001:db8::1"]
)
def test_a_strict_client_that_trusts_the_ca_accepts_every_name(folder: Path, name: str) -> None:
    paths = ensure_certificates(folder, NAMES)
    shake_hands(make_context(read_pair(paths.cert, paths.key)), trusting(paths.ca), name)


@pytest.mark.parametrize("name", ["elsewhere.example", "score.example", "a.b.score.example", "10.1.2.4"])
def test_a_client_refuses_a_name_that_was_not_asked_for(folder: Path, name: str) -> None:
    paths = ensure_certificates(folder, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(make_context(read_pair(paths.cert, paths.key)), trusting(paths.ca), name)


def test_a_client_that_trusts_another_ca_refuses_it(tmp_path: Path) -> None:
    paths = ensure_certificates(tmp_path / "one", NAMES)
    other = ensure_certificates(tmp_path / "two", NAMES)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(make_context(read_pair(paths.cert, paths.key)), trusting(other.ca))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_openssl_verifies_it_strictly(folder: Path) -> None:
    paths = ensure_certificates(folder, NAMES)
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-CAfile",
        str(paths.ca),
        str(paths.cert),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


def test_the_ca_is_a_ca_for_servers_only_and_lives_ten_years(folder: Path) -> None:
    ca = loaded(ensure_certificates(folder, (), now=NOW).ca)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    assert ca.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert ca.not_valid_after_utc - NOW == certificates.CA_LIFE
    key = ca.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


def test_the_server_certificate_is_for_servers_lives_397_days_and_names_its_issuers_key(folder: Path) -> None:
    paths = ensure_certificates(folder, (), now=NOW)
    ca, cert = loaded(paths.ca), loaded(paths.cert)
    extensions = cert.extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert authority == ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert cert.not_valid_after_utc - cert.not_valid_before_utc <= 397 * DAY
    assert cert.not_valid_before_utc < NOW


def test_names_are_there_once_and_this_host_is_among_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Worker-7")
    cert = loaded(ensure_certificates(folder, ("LOCALHOST", "127.0.0.1", "a.example", "A.example")).cert)
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "worker-7", "a.example"]
    addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    assert names.get_values_for_type(x509.IPAddress) == addresses


def test_a_host_name_that_is_none_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "my host!")
    cert = loaded(ensure_certificates(folder, ()).cert)
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]


@pytest.mark.parametrize(
    "name", ["", "a b", "*", "a.*.b", "**.a", "bücher.example", "a..b", "-a", "x" * 64, "a.\n", "1.2.3.4/8"]
)
def test_a_name_that_cannot_be_in_a_certificate_is_refused_and_nothing_is_made(folder: Path, name: str) -> None:
    with pytest.raises(CertificateError, match="accepted are host names"):
        ensure_certificates(folder, (name,))
    assert not folder.exists()


def test_a_second_call_changes_nothing(folder: Path) -> None:
    ensure_certificates(folder, NAMES, now=NOW)
    before = contents(folder)
    ensure_certificates(folder, tuple(reversed(NAMES)), now=NOW + 300 * DAY)
    assert contents(folder) == before


@pytest.mark.parametrize("now", [NOW + 367 * DAY, NOW + 500 * DAY, NOW - DAY])
def test_a_certificate_near_its_end_or_before_its_time_is_renewed_and_the_ca_is_kept(
    folder: Path, now: dt.datetime
) -> None:
    paths = ensure_certificates(folder, NAMES, now=NOW)
    before, serial = contents(folder), serial_of(paths.cert)
    ensure_certificates(folder, NAMES, now=now)
    after = contents(folder)
    assert serial_of(paths.cert) != serial
    assert loaded(paths.cert).not_valid_before_utc <= now
    assert (after["ca.pem"], after["ca.key"]) == (before["ca.pem"], before["ca.key"])
    read_pair(paths.cert, paths.key)


def test_other_names_make_a_new_certificate(folder: Path) -> None:
    paths = ensure_certificates(folder, NAMES)
    serial, ca = serial_of(paths.cert), paths.ca.read_bytes()
    ensure_certificates(folder, (*NAMES, "new.example"))
    assert serial_of(paths.cert) != serial
    assert paths.ca.read_bytes() == ca
    shake_hands(make_context(read_pair(paths.cert, paths.key)), trusting(paths.ca), "new.example")


@pytest.mark.parametrize("name", ["server.pem", "server.key"])
@pytest.mark.parametrize("damage", ["gone", "empty", "junk", "another", "another kind", "encrypted"])
def test_a_damaged_server_certificate_is_made_anew(folder: Path, tmp_path: Path, name: str, damage: str) -> None:
    paths = ensure_certificates(folder, NAMES)
    ca = paths.ca.read_bytes()
    other = {
        "another": write_pair(tmp_path, "other"),
        "another kind": write_pair(tmp_path, "rsa", kind="rsa"),
        "encrypted": write_pair(tmp_path, "locked", password=b"secret"),
    }
    match damage:
        case "gone":
            (folder / name).unlink()
        case "empty" | "junk":
            (folder / name).write_bytes(b"" if damage == "empty" else b"junk")
        case _:
            (folder / name).write_bytes(other[damage][name.endswith(".key")].read_bytes())
    ensure_certificates(folder, NAMES)
    assert paths.ca.read_bytes() == ca
    shake_hands(make_context(read_pair(paths.cert, paths.key)), trusting(paths.ca))


def test_a_certificate_of_another_ca_or_without_names_is_made_anew(folder: Path, tmp_path: Path) -> None:
    paths = ensure_certificates(folder, NAMES)
    other = ensure_certificates(tmp_path / "other", NAMES)
    for cert, key in ((other.cert, other.key), write_pair(tmp_path, "own")):
        paths.cert.write_bytes(cert.read_bytes())
        paths.key.write_bytes(key.read_bytes())
        ensure_certificates(folder, NAMES)
        shake_hands(make_context(read_pair(paths.cert, paths.key)), trusting(paths.ca))


@pytest.mark.parametrize("damage", ["no key", "junk key", "junk certificate"])
def test_a_damaged_ca_is_never_replaced_in_silence(folder: Path, damage: str) -> None:
    ensure_certificates(folder, NAMES)
    name = "ca.pem" if damage == "junk certificate" else "ca.key"
    if damage == "no key":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(b"canary")
    before = contents(folder)
    with pytest.raises(CertificateError, match=r"is damaged: .*; restore them, or delete ca\.pem") as caught:
        ensure_certificates(folder, NAMES)
    assert "canary" not in str(caught.value)
    assert contents(folder) == before
    (folder / "ca.pem").unlink()
    paths = ensure_certificates(folder, NAMES)
    shake_hands(make_context(read_pair(paths.cert, paths.key)), trusting(paths.ca))


def test_a_ca_at_its_end_is_made_anew_and_no_certificate_outlives_its_ca(folder: Path) -> None:
    paths = ensure_certificates(folder, NAMES, now=NOW)
    before = paths.ca.read_bytes()
    late = NOW + certificates.CA_LIFE - 100 * DAY
    ensure_certificates(folder, NAMES, now=late)
    assert paths.ca.read_bytes() == before
    assert loaded(paths.cert).not_valid_after_utc == loaded(paths.ca).not_valid_after_utc
    ensure_certificates(folder, NAMES, now=NOW + certificates.CA_LIFE - 29 * DAY)
    assert paths.ca.read_bytes() != before


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CertificateError, match=r"no certificate can be made in .*file/tls: Not a directory"):
        ensure_certificates(tmp_path / "file" / "tls", ())

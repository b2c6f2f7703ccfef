"""A listener's TLS: modern protocols only, a new certificate for new handshakes, and bad pairs change nothing."""

from __future__ import annotations

import datetime as dt
import logging
import ssl
import warnings
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519

from gateway import tls
from gateway.tls import TlsError, make_context, read_pair
from tests.support.handshake import serial_of, shake_hands, trusting_nobody, write_pair

Pair = tuple[Path, Path]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return write_pair(tmp_path, "first")


def client_of(version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that speaks this version only, however old."""
    context = trusting_nobody()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        # Naming an old version is deprecated, and here the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.parametrize("profile", ["intermediate", "modern"])
def test_old_protocols_are_refused(pair: Pair, version: ssl.TLSVersion, profile: tls.Profile) -> None:
    with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE|unsupported protocol"):
        shake_hands(make_context(read_pair(*pair), profile), client_of(version))


def test_intermediate_speaks_1_2_and_1_3_with_forward_secret_ciphers(pair: Pair) -> None:
    context = make_context(read_pair(*pair))
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        assert shake_hands(context, client_of(version)).server.version() == name
    for cipher in context.get_ciphers():
        assert cipher["protocol"] == "TLSv1.3" or cipher["name"].startswith("ECDHE-")
        assert cipher["aead"]


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "AES128-GCM-SHA256"])
def test_a_client_with_weak_ciphers_only_is_refused(pair: Pair, cipher: str) -> None:
    client = client_of(ssl.TLSVersion.TLSv1_2)
    client.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"NO_SHARED_CIPHER|no shared cipher"):
        shake_hands(make_context(read_pair(*pair)), client)


def test_modern_speaks_1_3_only(pair: Pair) -> None:
    context = make_context(read_pair(*pair), "modern")
    assert shake_hands(context, client_of(ssl.TLSVersion.TLSv1_3)).server.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        shake_hands(context, client_of(ssl.TLSVersion.TLSv1_2))


def test_http_1_1_is_agreed_on_and_nothing_is_compressed(pair: Pair) -> None:
    client = trusting_nobody()
    client.set_alpn_protocols(["h2", "http/1.1"])
    end = shake_hands(make_context(read_pair(*pair)), client).server
    assert end.selected_alpn_protocol() == "http/1.1"
    assert end.compression() is None


@pytest.mark.parametrize("name", ["localhost", None])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("old", "new"), [("ec", "ec"), ("ec", "rsa"), ("rsa", "ec")])
def test_after_a_reload_new_handshakes_get_the_new_certificate_and_open_connections_go_on(
    tmp_path: Path, old: str, new: str, version: ssl.TLSVersion, name: str | None
) -> None:
    first, second = write_pair(tmp_path, "first", kind=old), write_pair(tmp_path, "second", kind=new)
    context = make_context(read_pair(*first))
    client = client_of(version)
    before = shake_hands(context, client, name)
    assert before.serial == serial_of(first[0])
    tls.reload(context, read_pair(*second))
    after = shake_hands(context, client, name)
    assert after.serial == serial_of(second[0])
    # A client that knows the old kind of key only does not get the old certificate either.
    assert before.echo(b"still here") == b"still here"
    assert after.echo(b"here too") == b"here too"
    tls.reload(context, read_pair(*first))
    assert shake_hands(context, client, name).serial == serial_of(first[0])


def test_the_profile_and_protocol_hold_after_a_reload(tmp_path: Path, pair: Pair) -> None:
    context = make_context(read_pair(*pair), "modern")
    tls.reload(context, read_pair(*write_pair(tmp_path, "second")))
    client = client_of(ssl.TLSVersion.TLSv1_3)
    client.set_alpn_protocols(["http/1.1"])
    assert shake_hands(context, client).client.selected_alpn_protocol() == "http/1.1"
    with pytest.raises(ssl.SSLError):
        shake_hands(context, client_of(ssl.TLSVersion.TLSv1_2))


def bad_pairs(folder: Path) -> dict[str, tuple[Path, Path, str]]:
    cert, key = write_pair(folder, "good")
    other_cert, other_key = write_pair(folder, "other", kind="rsa")
    weak = write_pair(folder, "weak", kind="rsa", bits=1024)
    locked = write_pair(folder, "locked", password=b"canary-passphrase")
    expired = write_pair(folder, "expired", days=-1)
    junk, empty, huge, nowhere = (folder / name for name in ("junk", "empty", "huge", "nowhere"))
    junk.write_bytes(b"-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n")
    empty.write_bytes(b"")
    huge.write_bytes(b"x" * ((1 << 20) + 1))
    return {
        "no certificate": (nowhere, key, "nowhere cannot be read: No such file"),
        "no key": (cert, nowhere, "TLS key .*nowhere cannot be read: No such file"),
        "a folder": (folder, key, "cannot be read: Is a directory"),
        "junk for a certificate": (junk, key, "does not hold a certificate in PEM form"),
        "junk for a key": (cert, junk, "does not hold a private key in PEM form"),
        "empty certificate": (empty, key, "does not hold a certificate"),
        "empty key": (cert, empty, "does not hold a private key"),
        "exchanged": (key, cert, "does not hold a certificate"),
        "huge": (huge, key, "larger than 1048576 bytes"),
        "another key": (cert, other_key, "does not belong to the certificate"),
        "another certificate": (other_cert, key, "does not belong to the certificate"),
        "an encrypted key": (locked[0], locked[1], "is encrypted; a key without a passphrase"),
        "too short": (weak[0], weak[1], "cannot be served: .*(KEY_TOO_SMALL|key too small)"),
        "expired": (expired[0], expired[1], "expired on .*; the one in use is kept"),
    }


def test_a_bad_pair_is_refused_with_a_reason_and_the_old_one_is_kept(tmp_path: Path, pair: Pair) -> None:
    context = make_context(read_pair(*pair))
    for name, (cert, key, said) in bad_pairs(tmp_path).items():
        with pytest.raises(TlsError, match=said) as caught:
            tls.reload(context, read_pair(cert, key))
        assert "canary" not in str(caught.value), name
        assert shake_hands(context, trusting_nobody()).serial == serial_of(pair[0]), name


def test_a_context_is_not_made_from_a_bad_pair(tmp_path: Path) -> None:
    for name, (cert, key, said) in bad_pairs(tmp_path).items():
        if name != "expired":
            with pytest.raises(TlsError, match=said):
                make_context(read_pair(cert, key))


def test_an_expired_certificate_is_served_at_start_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = write_pair(tmp_path, "expired", days=-1)
    context = make_context(read_pair(cert, key))
    assert shake_hands(context, trusting_nobody()).serial == serial_of(cert)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "expired on" in record.getMessage()


def test_a_chain_is_taken_by_its_first_certificate(tmp_path: Path, pair: Pair) -> None:
    cert, key = pair
    other, _ = write_pair(tmp_path, "other", days=300)
    ends = read_pair(cert, key).expires
    cert.write_bytes(cert.read_bytes() + other.read_bytes())
    assert read_pair(cert, key).expires == ends
    assert ends.tzinfo is dt.UTC
    cert.write_bytes(other.read_bytes())
    with pytest.raises(TlsError, match="does not belong"):
        read_pair(cert, key)


def test_a_key_that_cannot_sign_is_not_a_pair(tmp_path: Path, pair: Pair) -> None:
    path = tmp_path / "exchange.key"
    path.write_bytes(
        x25519.X25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(TlsError, match="does not belong"):
        read_pair(pair[0], path)


def test_a_certificate_for_an_unknown_kind_of_key_is_refused(pair: Pair) -> None:
    cert, key = pair
    der = ssl.PEM_cert_to_DER_cert(cert.read_text())
    elliptic, unknown = bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0209")
    assert elliptic in der
    cert.write_text(ssl.DER_cert_to_PEM_cert(der.replace(elliptic, unknown)))
    with pytest.raises(TlsError, match="kind of key that is not supported"):
        read_pair(cert, key)

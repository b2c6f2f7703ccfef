"""The private CA and the server certificate that a gateway makes when it is given none.

    tls/ca.pem      what clients trust; stays the same when the server certificate is renewed
    tls/ca.key      signs server certificates; leaves this folder never
    tls/server.pem  for localhost, 127.0.0.1, ::1, this host's name and the names asked for
    tls/server.key

The server certificate is made anew when it ends within 30 days, when the names changed, or when it does not fit its
key or the CA. A CA that is damaged, or lost half of itself, is never replaced in silence: clients trust it.
Errors: CertificateError, one sentence.
Source: RFC 5280 as strict verifiers (OpenSSL's X509_V_FLAG_X509_STRICT) read it; 397 days as browsers allow.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.controlplane.state import make_private_folder, write_private

CA_LIFE = dt.timedelta(days=3652)
SERVER_LIFE = dt.timedelta(days=397)
RENEW_BEFORE = dt.timedelta(days=30)
# Certificates begin a little in the past, for clients whose clock is behind.
_BACKDATED = dt.timedelta(hours=1)
_ALWAYS = ("localhost", "127.0.0.1", "::1")
_LABEL = r"[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?"
_DNS_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")


class CertificateError(Exception):
    """No certificate could be made, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertPaths:
    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_certificates(tls_dir: Path, names: Sequence[str], *, now: dt.datetime | None = None) -> CertPaths:
    """Makes what is missing or due, keeps the rest. `names`: host names, `*.domain`, IP addresses."""
    now = now or dt.datetime.now(dt.UTC)
    wanted = _general_names(names)
    paths = CertPaths(ca=tls_dir / "ca.pem", cert=tls_dir / "server.pem", key=tls_dir / "server.key")
    try:
        make_private_folder(tls_dir)
        ca = _read_ca(tls_dir)
        if ca is None or ca.cert.not_valid_after_utc - now < RENEW_BEFORE:
            ca = _make_ca(now)
            _write_pair(ca, paths.ca, tls_dir / "ca.key")
        if not _is_good(_read_pair(paths.cert, paths.key), ca.cert, wanted, now):
            _write_pair(_make_server(ca, wanted, now), paths.cert, paths.key)
    except OSError as error:
        raise CertificateError(f"no certificate can be made in {tls_dir}: {error.strerror}") from error
    return paths


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    """Each name once, in a fixed order. A host name of this machine that is not one for DNS is left out."""
    host = socket.gethostname().lower()
    own = [host] if _DNS_NAME.fullmatch(host) else []
    unique = dict.fromkeys([*_ALWAYS, *own, *(name.lower() for name in names)])
    return [_general_name(name) for name in unique]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        if len(name) > 253 or not _DNS_NAME.fullmatch(name):
            raise CertificateError(
                f"{name!r} cannot be in a certificate; accepted are host names (international ones as xn--...), "
                "*.domain and IP addresses"
            ) from None
    return x509.DNSName(name)


def _read_ca(tls_dir: Path) -> _Pair | None:
    """None where there is none yet. A key alone is one: the certificate is written last."""
    if not (tls_dir / "ca.pem").exists():
        return None
    pair = _read_pair(tls_dir / "ca.pem", tls_dir / "ca.key")
    if pair is None:
        raise CertificateError(
            f"the private CA in {tls_dir} is damaged: ca.pem and ca.key are not a certificate and its key; "
            "restore them, or delete ca.pem to have a new CA made (clients must then trust the new one)"
        )
    return pair


def _read_pair(cert: Path, key: Path) -> _Pair | None:
    """None where one is missing or damaged, or they do not belong together."""
    try:
        found = x509.load_pem_x509_certificate(cert.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or found.public_key() != private.public_key():
        return None
    return _Pair(cert=found, key=private)


def _is_good(pair: _Pair | None, ca: x509.Certificate, wanted: list[x509.GeneralName], now: dt.datetime) -> bool:
    if pair is None:
        return False
    try:
        pair.cert.verify_directly_issued_by(ca)
        names = pair.cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    is_in_time = pair.cert.not_valid_before_utc <= now <= pair.cert.not_valid_after_utc - RENEW_BEFORE
    return is_in_time and set(names) == set(wanted)


def _make_ca(now: dt.datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Inference Gateway private CA")
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _builder(name, name, key, now, now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _Pair(cert=builder.sign(key, hashes.SHA256()), key=key)


def _make_server(ca: _Pair, names: list[x509.GeneralName], now: dt.datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now - _BACKDATED + SERVER_LIFE, ca.cert.not_valid_after_utc)
    issuer_key = ca.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key)
    builder = (
        _builder(_name("Inference Gateway"), ca.cert.subject, key, now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(authority, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return _Pair(cert=builder.sign(ca.key, hashes.SHA256()), key=key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: dt.datetime, end: dt.datetime
) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _write_pair(pair: _Pair, cert: Path, key: Path) -> None:
    """The key first: who watches the certificate finds both."""
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    write_private(key, pair.key.private_bytes(pem, *plain))
    write_private(cert, pair.cert.public_bytes(pem))

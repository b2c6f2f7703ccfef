"""TLS for a listener: a server context from a certificate and its key, checked, and replaced while it serves.

A Pair is read from its files once, by the supervisor, and travels to the scorers as bytes: all serve the same one,
and a scorer that is replaced while a refused pair lies on disk serves the one that was good.
A ServerContext is what the server is given once. At every new handshake it hands over to the context made last, so a
reload is one assignment: the new pair is loaded whole into a context of its own or not at all, and an old certificate
of another key type does not linger. Open connections go on as they are.
Errors: TlsError, one sentence that names the file and what was found.
Source: Mozilla's server-side TLS recommendations, profiles intermediate (without DHE) and modern.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

Profile = Literal["intermediate", "modern"]

_CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)
_FILE_BYTES_MAX = 1 << 20
_log = logging.getLogger(__name__)


class TlsError(Exception):
    """A certificate or key that cannot be served, and why."""


class ServerContext(ssl.SSLContext):
    """The context that the server holds. `current` is the one that new handshakes get."""

    profile: Profile
    current: ssl.SSLContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate, its chain behind it, and the private key that belongs to it, as PEM. Names are the files'."""

    cert: bytes
    key: bytes = field(repr=False)
    cert_name: str
    key_name: str

    @property
    def leaf(self) -> str:
        """The certificate itself, without its chain, as PEM."""
        return _leaf(self).public_bytes(serialization.Encoding.PEM).decode()

    @property
    def expires(self) -> dt.datetime:
        """When the certificate ends, UTC."""
        return _leaf(self).not_valid_after_utc


def read_pair(cert: Path, key: Path) -> Pair:
    """TlsError unless both files can be read and hold a certificate and the private key that belongs to it."""
    pair = Pair(cert=_read(cert, "certificate"), key=_read(key, "key"), cert_name=str(cert), key_name=str(key))
    leaf = _leaf(pair)
    private = _private_key(pair)
    der = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        certified = leaf.public_key().public_bytes(*der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsError(f"the TLS certificate {cert} has a kind of key that is not supported: {error}") from error
    if certified != private.public_key().public_bytes(*der):
        raise TlsError(
            f"the TLS key {key} does not belong to the certificate {cert} (its first, if it holds several)"
        )
    return pair


def make_context(pair: Pair, profile: Profile = "intermediate") -> ServerContext:
    """A context for the server. An expired certificate is served with a warning: the operator's clients see it."""
    if pair.expires <= _now():
        _log.warning("the TLS certificate %s expired on %s; clients will refuse it", pair.cert_name, _day(pair))
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, profile)
    _load(context, pair)
    context.profile = profile
    context.current = context
    context.sni_callback = _hand_over
    return context


def reload(context: ServerContext, pair: Pair) -> None:
    """New handshakes get this pair. One that cannot be served is refused with TlsError, and the old one goes on."""
    if pair.expires <= _now():
        raise TlsError(f"the TLS certificate {pair.cert_name} expired on {_day(pair)}; the one in use is kept")
    fresh = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(fresh, context.profile)
    _load(fresh, pair)
    context.current = fresh


def _hand_over(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, context: ssl.SSLContext) -> None:
    """Called by OpenSSL in every handshake, with or without a server name, before the certificate is chosen."""
    if isinstance(context, ServerContext) and context.current is not context:
        connection.context = context.current


def _harden(context: ssl.SSLContext, profile: Profile) -> None:
    modern = profile == "modern"
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if modern else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    try:
        # Key and chain as one file in memory: OpenSSL takes them from a path only, and a key is never put on a disk.
        with os.fdopen(os.memfd_create("tls"), "wb") as file:
            file.write(pair.key + b"\n" + pair.cert)
            file.flush()
            # The password is never asked for on a terminal; `read_pair` has refused encrypted keys.
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=lambda: "")
    except (OSError, ValueError) as error:
        # ssl.SSLError is an OSError: such as a key that OpenSSL's security level finds too short.
        raise TlsError(
            f"the TLS certificate {pair.cert_name} with key {pair.key_name} cannot be served: {error}"
        ) from error


def _leaf(pair: Pair) -> Certificate:
    # The supervisor looks into certificates; a scorer, whose start it would prolong, does not.
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pair.cert)[0]
    except ValueError as error:
        raise TlsError(f"the TLS certificate {pair.cert_name} does not hold a certificate in PEM form") from error


def _private_key(pair: Pair) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pair.key, password=None)
    except TypeError:
        raise TlsError(f"the TLS key {pair.key_name} is encrypted; a key without a passphrase is needed") from None
    except (ValueError, UnsupportedAlgorithm):
        # Without the cause: what could not be parsed may be a secret.
        raise TlsError(f"the TLS key {pair.key_name} does not hold a private key in PEM form") from None


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise TlsError(f"the TLS {what} {path} cannot be read: {error.strerror}") from error
    if len(data) > _FILE_BYTES_MAX:
        raise TlsError(f"the TLS {what} {path} is larger than {_FILE_BYTES_MAX} bytes")
    return data


def _day(pair: Pair) -> str:
    return pair.expires.date().isoformat()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)

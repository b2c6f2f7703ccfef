"""Secrets at rest: sealed under a master key that is never in the database; and the keys of endpoints, sealed so.

The master key is 32 random bytes. GATEWAY_MASTER_KEY gives it as base64url text; without that variable it lies in the
file master.key of the state folder (mode 0600), made at the first start. To change it, the old one is given as
GATEWAY_MASTER_KEY_OLD: it opens what it sealed and seals nothing, and `needs_resealing` finds what is left of it.
A sealed secret is bytes:

    1   format, 1
    8   key id: the first bytes of the master key's SHA-256
    12  nonce, random each time
    n   AES-256-GCM: the data encrypted, and 16 bytes that prove it, the format, the key id and the secret's name
    8   the first bytes of the SHA-256 of all before: tells damage from another master key; proves nothing

Random nonces bound a master key to 2^32 seals, which a gateway never comes near.
Errors: KeyringError where there is no usable master key; WrongMasterKey for what an unknown one sealed; Damaged. All
one sentence. No message, repr or log line holds a secret.
Source: NIST SP 800-38D; RFC 4648 section 5 for the text form.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.controlplane.state import Keys, StateError, make_private_folder, write_private
from gateway.credentials import SECRET_BYTES, key_fault, make_key
from gateway.errors import Code, Problem

MASTER_KEY, MASTER_KEY_OLD = "GATEWAY_MASTER_KEY", "GATEWAY_MASTER_KEY_OLD"
# What no process that runs models needs to inherit.
VARIABLES = (MASTER_KEY, MASTER_KEY_OLD)
FILE_NAME = "master.key"
FORMAT = 1
_ID_BYTES, _NONCE_BYTES, _TAG_BYTES, _SUM_BYTES = 8, 12, 16, 8
_HEAD_BYTES = 1 + _ID_BYTES
_SEALED_BYTES_MIN = _HEAD_BYTES + _NONCE_BYTES + _TAG_BYTES + _SUM_BYTES
_FILE_BYTES_MAX = 4096
_BASE64URL = re.compile(r"[A-Za-z0-9_-]{43}=?")

Which = Literal["primary", "secondary"]


class KeyringError(StateError):
    """There is no usable master key, or a secret cannot be opened; the message says why."""


class WrongMasterKey(KeyringError):
    """The secret is whole, and was sealed under a master key that is not known here."""


class Damaged(KeyringError):
    """The bytes are not what was sealed under this name."""


class Keyring:
    """Seals and opens secrets by name. The current master key seals; the old one, if any, only opens."""

    __slots__ = ("_ciphers", "_current")

    def __init__(self, master: bytes, old: bytes | None = None) -> None:
        self._current = _key_id(master)
        self._ciphers = {_key_id(key): AESGCM(key) for key in (old, master) if key is not None}

    def __repr__(self) -> str:
        return f"<Keyring {self._current.hex()}, {len(self._ciphers) - 1} old>"

    def seal(self, name: str, data: bytes) -> bytes:
        head = bytes([FORMAT]) + self._current
        nonce = secrets.token_bytes(_NONCE_BYTES)
        proven = self._ciphers[self._current].encrypt(nonce, data, head + name.encode())
        return _with_sum(head + nonce + proven)

    def open(self, name: str, sealed: bytes) -> bytes:
        """The data that was sealed under this name; or WrongMasterKey, or Damaged."""
        _check_whole(name, sealed)
        head, nonce = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES]
        cipher = self._ciphers.get(head[1:])
        if cipher is None:
            known = ", ".join(sorted(one.hex() for one in self._ciphers))
            raise WrongMasterKey(
                f"the secret {name!r} was sealed under the master key with id {head[1:].hex()}, and here is {known}; "
                f"give the key that it was sealed under as {MASTER_KEY}, or as {MASTER_KEY_OLD} beside a new one"
            )
        try:
            return cipher.decrypt(nonce, sealed[_HEAD_BYTES + _NONCE_BYTES : -_SUM_BYTES], head + name.encode())
        except InvalidTag:
            raise Damaged(
                f"the secret {name!r} was altered, or sealed under another name; restore the database from a backup"
            ) from None

    def needs_resealing(self, sealed: bytes) -> bool:
        """Whether an older master key sealed it: `reseal` it, and that key can be forgotten."""
        return sealed[1:_HEAD_BYTES] != self._current

    def reseal(self, name: str, sealed: bytes) -> bytes:
        return self.seal(name, self.open(name, sealed))


def open_keyring(state_folder: Path, environ: Mapping[str, str], *, may_make: bool = True) -> Keyring:
    """The keyring of a gateway. `may_make` False: secrets were sealed before; a new master key would open none."""
    old = _from_variable(environ, MASTER_KEY_OLD)
    master = _from_variable(environ, MASTER_KEY)
    if master is None:
        master = _from_file(state_folder.absolute() / FILE_NAME, may_make=may_make)
    return Keyring(master, old)


def _key_id(master: bytes) -> bytes:
    if len(master) != SECRET_BYTES:
        raise KeyringError(f"a master key has {len(master)} bytes; accepted: {SECRET_BYTES}")
    return hashlib.sha256(master).digest()[:_ID_BYTES]


def _with_sum(data: bytes) -> bytes:
    return data + hashlib.sha256(data).digest()[:_SUM_BYTES]


def _check_whole(name: str, sealed: bytes) -> None:
    if len(sealed) < _SEALED_BYTES_MIN:
        raise Damaged(f"the secret {name!r} has {len(sealed)} bytes; a sealed one has {_SEALED_BYTES_MIN} or more")
    if not hmac.compare_digest(_with_sum(sealed[:-_SUM_BYTES]), sealed):
        raise Damaged(f"the secret {name!r} is damaged; restore the database from a backup")
    if sealed[0] != FORMAT:
        raise Damaged(f"the secret {name!r} has format {sealed[0]}; this version reads format {FORMAT}")


def _from_variable(environ: Mapping[str, str], variable: str) -> bytes | None:
    text = environ.get(variable)
    if text is None:
        return None
    return _master_key_of(text.strip(), f"the environment variable {variable}", "set it so, or unset it")


def _from_file(path: Path, *, may_make: bool) -> bytes:
    # A link that leads nowhere counts as there: what it should lead to is missing, and must not be made anew.
    if not os.path.lexists(path):
        if not may_make:
            raise KeyringError(
                f"there is no master key: {MASTER_KEY} is not set and {path} does not exist, but secrets were sealed "
                "before; restore the file, or set the variable"
            )
        _write_file(path)
    # Whatever a bad file holds is not shown, as it may be a key all the same.
    text = _read_file(path).decode("latin-1").strip()
    return _master_key_of(text, f"the file {path}", "restore it; without it nothing that it sealed can be opened")


def _write_file(path: Path) -> None:
    text = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).rstrip(b"=")
    try:
        make_private_folder(path.parent)
        write_private(path, text + b"\n")
    except OSError as error:
        raise KeyringError(f"the master key cannot be written to {path}: {error.strerror}") from error


def _read_file(path: Path) -> bytes:
    """At most `_FILE_BYTES_MAX` bytes, after a look at who else may read or replace them."""
    try:
        # Without waiting: a pipe of that name would hold up the start for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check_private(path, os.fstat(descriptor))
            return os.read(descriptor, _FILE_BYTES_MAX)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyringError(f"the master key cannot be read from {path}: {error.strerror}") from error


def _check_private(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeyringError(f"the master key cannot be read: {path} is not a plain file")
    if found.st_uid not in (os.geteuid(), 0):
        raise KeyringError(
            f"the master key {path} belongs to user {found.st_uid}, and the gateway runs as {os.geteuid()}; "
            "its owner could read and replace it"
        )
    if found.st_mode & 0o077:
        raise KeyringError(
            f"other users may use the master key {path}: its mode is {stat.S_IMODE(found.st_mode):04o}; "
            "give it mode 0600, and a new key if someone may have read it"
        )


def _master_key_of(text: str, what: str, remedy: str) -> bytes:
    """Base64url in its one spelling, so that a key that was copied wrongly is noticed; with padding or without."""
    data = base64.urlsafe_b64decode(text.rstrip("=") + "=") if _BASE64URL.fullmatch(text) else b""
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != text.rstrip("=") or len(data) != SECRET_BYTES:
        raise KeyringError(
            f"{what} does not hold a master key: found {len(text)} characters; accepted: {SECRET_BYTES} bytes as "
            f"base64url text of 43 characters; {remedy}"
        )
    return data


class _KeysRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    primary: str
    secondary: str


class EndpointSecrets:
    """The two keys of an endpoint as one sealed record, `{"primary", "secondary"}`. The caller stores the bytes."""

    __slots__ = ("_keyring",)

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    @staticmethod
    def name(endpoint_key: str) -> str:
        """The name that the record is sealed and stored under."""
        return f"keys/{endpoint_key}"

    def seal(self, endpoint_key: str, keys: Keys) -> bytes:
        record = _KeysRecord(primary=keys.primary, secondary=keys.secondary)
        return self._keyring.seal(self.name(endpoint_key), msgspec.json.encode(record))

    def open(self, endpoint_key: str, sealed: bytes) -> Keys:
        name = self.name(endpoint_key)
        try:
            record = msgspec.json.decode(self._keyring.open(name, sealed), type=_KeysRecord)
        except msgspec.DecodeError:
            # Without the cause: its text may quote the keys.
            raise Damaged(f"the secret {name!r} does not hold a primary and a secondary key") from None
        return Keys(primary=record.primary, secondary=record.secondary)


def make_keys() -> Keys:
    return Keys(primary=make_key(), secondary=make_key())


def generate(keys: Keys, which: Which) -> Keys:
    """The keys with a new one in place of `which`; the other stays good."""
    return _with(keys, which, make_key())


def set_key(keys: Keys, which: Which, value: str) -> Keys:
    """The keys with the given one in place of `which`. Errors: Problem 400, which does not show it."""
    fault = key_fault(value)
    if fault:
        raise Problem(Code.INVALID_INPUT, f"the {which} key cannot be set: the value given {fault}")
    return _with(keys, which, value)


def regenerate(keys: Keys, which: Which, value: str | None) -> Keys:
    """As clients ask for it: no value, or the key that is there now (which the SDK sends along), means a new one."""
    now = keys.primary if which == "primary" else keys.secondary
    # As bytes: text that is not ASCII cannot be compared in constant time.
    if value is None or hmac.compare_digest(value.encode("utf-8", "surrogatepass"), now.encode()):
        return generate(keys, which)
    return set_key(keys, which, value)


def _with(keys: Keys, which: Which, value: str) -> Keys:
    if which == "primary":
        return Keys(primary=value, secondary=keys.secondary)
    return Keys(primary=keys.primary, secondary=value)

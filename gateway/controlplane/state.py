"""The state folder: one gateway's keys, secrets and lock, private to the user who runs it.

    gateway.lock       held while a gateway runs; its text is the process id
    token.key          the secret that signs aml tokens, as base64url text
    management.token   the credential of the management listener
    keys/NAME.json     one file an endpoint: its auth mode, the keys made for it, and where given keys come from
    tls/               controlplane/certificates.py
    models/            controlplane/model_store.py

A given key's value is never written: only the file or variable that it comes from, so that `gateway keys` finds it.
Every file is written whole (a new file, flushed to the disk, renamed) with mode 0600 in folders of mode 0700. The
functions that read (`read_keys`, `issue_token`) take no lock and may be used while a gateway runs.
The lock ends with the process; a process that was forked, without exec, from the one that holds it keeps it held.
Units: *_s seconds (since 1970, where they are times).
Errors: StateError, one sentence. No message, repr or log line holds a secret.
"""

from __future__ import annotations

import base64
import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from gateway.credentials import SECRET_BYTES, make_key, sign_token
from gateway.resources import AuthMode, KeySources, SecretSource

KEY_LENGTH_MIN = 16
KEY_LENGTH_MAX = 4096
_FILE_BYTES_MAX = 1 << 16
_NAME = re.compile(r"[A-Za-z]([-A-Za-z0-9]{0,62}[A-Za-z0-9])?")
_LOCK, _TOKEN_KEY, _MANAGEMENT_TOKEN = "gateway.lock", "token.key", "management.token"
_DEFAULT_LIFETIME_S = 3600


class StateError(Exception):
    """The state folder, or a key that was given, cannot be used; the message says why."""


class UnknownEndpoint(StateError, LookupError):
    """No endpoint of that name was ever served from the folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The two keys of an endpoint; either opens it."""

    primary: str = field(repr=False)
    secondary: str = field(repr=False)


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a given key comes from: exactly one of the two."""

    file: str | None = None
    env: str | None = None


class Record(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"
):
    """A file of keys/. A made key stays when the operator gives one, and counts again when he takes it back."""

    name: str
    auth_mode: Literal["key", "aml_token", "aad_token"] = "key"
    token_lifetime_s: int = _DEFAULT_LIFETIME_S
    primary_key: str | None = None
    secondary_key: str | None = None
    primary_source: Source | None = None
    secondary_source: Source | None = None

    def __repr__(self) -> str:
        return f"<Record {self.name} {self.auth_mode}>"


class State:
    """A state folder that this process holds. Made by `open_state`; `close` gives it up."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.tls = path / "tls"
        self._lock = lock

    def __repr__(self) -> str:
        return f"<State {self.path}>"

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def keys_for(self, endpoint: str, sources: KeySources, env: Mapping[str, str]) -> Keys:
        """The endpoint's keys: the given ones where there are any, else those kept here, made at first need."""
        known = _read_record(self.path, endpoint) or Record(name=endpoint)
        record = msgspec.structs.replace(
            known,
            name=endpoint,
            primary_key=known.primary_key or (None if sources.primary else make_key()),
            secondary_key=known.secondary_key or (None if sources.secondary else make_key()),
            primary_source=_source_of(sources.primary),
            secondary_source=_source_of(sources.secondary),
        )
        keys = _resolve(record, env)
        self._write_record(known, record)
        return keys

    def record_endpoint(self, endpoint: str, mode: AuthMode, token_lifetime_s: int) -> None:
        """Notes how a served endpoint is opened, for `read_keys` and `issue_token`."""
        known = _read_record(self.path, endpoint) or Record(name=endpoint)
        self._write_record(
            known,
            msgspec.structs.replace(known, name=endpoint, auth_mode=mode.value, token_lifetime_s=token_lifetime_s),
        )

    def token_secret(self) -> bytes:
        """The secret that signs aml tokens of all endpoints, made at first need."""
        return _decode_secret(self.path / _TOKEN_KEY, self._text_of(_TOKEN_KEY))

    def management_token(self) -> str:
        """The credential of the management listener, made at first need."""
        token = self._text_of(_MANAGEMENT_TOKEN)
        _check_key(token, f"the management token in {self.path / _MANAGEMENT_TOKEN}")
        return token

    def _text_of(self, name: str) -> str:
        path = self.path / name
        if not _exists(path):
            _write(path, f"{make_key()}\n".encode())
        return _read_text(path, f"the file {path}")

    def _write_record(self, known: Record, record: Record) -> None:
        path = _record_path(self.path, record.name)
        if record != known or not _exists(path):
            _write(path, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def open_state(path: Path) -> State:
    """Takes the folder for this process, making it where it is missing."""
    path = path.absolute()
    try:
        make_private_folder(path)
        _check_folder(path)
        return State(path, _take_lock(path / _LOCK))
    except FileExistsError as error:
        raise StateError(f"the state folder {path} cannot be used: a file of that name is in the way") from error
    except OSError as error:
        raise StateError(f"the state folder {path} cannot be used: {error.strerror}") from error


def read_keys(state: Path, endpoint: str, env: Mapping[str, str] | None = None) -> Keys:
    """The keys of an endpoint that was served from this folder. `env` is needed for keys given by a variable."""
    record = _need_record(state, endpoint)
    if record.auth_mode != "key":
        raise StateError(f"endpoint {record.name} has no keys: its auth_mode is {record.auth_mode}")
    return _resolve(record, env or {})


def issue_token(
    state: Path, endpoint: str, lifetime_s: int | None = None, now_s: float | None = None
) -> dict[str, str | int]:
    """A token as the contract's `token` operation answers it. The lifetime is the endpoint's own where not given."""
    record = _need_record(state, endpoint)
    if record.auth_mode != "aml_token":
        raise StateError(f"endpoint {record.name} takes no tokens of ours: its auth_mode is {record.auth_mode}")
    path = state.absolute() / _TOKEN_KEY
    secret = _decode_secret(path, _read_text(path, f"the file {path}"))
    lifetime_s = record.token_lifetime_s if lifetime_s is None else lifetime_s
    if lifetime_s < 1:
        raise StateError(f"a token must live at least 1 second, not {lifetime_s}")
    token = sign_token(record.name, secret, lifetime_s, time.time() if now_s is None else now_s)
    return {
        "accessToken": token.access_token,
        "expiryTimeUtc": token.expires_s,
        "refreshAfterTimeUtc": token.refresh_after_s,
        "tokenType": "Bearer",
    }


def make_private_folder(path: Path) -> None:
    """Makes the folder with mode 0700; one that exists keeps its mode."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_private(path: Path, data: bytes) -> None:
    """Replaces the file whole, mode 0600: a crash leaves the old one or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """The rename itself reaches the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_folder(path: Path) -> None:
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0):
        raise StateError(
            f"the state folder {path} belongs to user {found.st_uid}, and the gateway runs as {os.geteuid()}; "
            "its owner could read and replace the keys"
        )
    if found.st_mode & stat.S_IWOTH:
        raise StateError(f"every user may write to the state folder {path}; give it mode 0700")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise StateError(f"the state folder {path} is not writable for user {os.geteuid()}")


def _take_lock(path: Path) -> int:
    """An exclusive lock that ends with the process. Not inherited by programs that are started."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise StateError(
            f"the state folder {path.parent} is in use by the gateway with process id {holder}; "
            "stop it, or give this one another folder with --state"
        ) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _record_path(state: Path, endpoint: str) -> Path:
    if not _NAME.fullmatch(endpoint):
        raise StateError(f"{endpoint!r} is not an endpoint's name: letters, digits and '-', a letter first")
    return state.absolute() / "keys" / f"{endpoint.lower()}.json"


def _read_record(state: Path, endpoint: str) -> Record | None:
    path = _record_path(state, endpoint)
    if not _exists(path):
        return None
    try:
        return msgspec.json.decode(_read_bytes(path, f"the file {path}"), type=Record)
    except msgspec.DecodeError:
        # Without the cause: its text may quote the file.
        raise StateError(f"the file {path} is damaged; restore it, or delete it to have new keys made") from None


def _need_record(state: Path, endpoint: str) -> Record:
    record = _read_record(state, endpoint)
    if record is not None:
        return record
    known = sorted(path.stem for path in (state.absolute() / "keys").glob("*.json"))
    found = f"it knows {', '.join(known)}" if known else "no endpoint was ever served from it"
    raise UnknownEndpoint(f"the state folder {state.absolute()} has nothing of endpoint {endpoint}; {found}")


def _source_of(source: SecretSource | None) -> Source | None:
    if source is None:
        return None
    return Source(file=None if source.file is None else str(source.file.absolute()), env=source.env)


def _resolve(record: Record, env: Mapping[str, str]) -> Keys:
    return Keys(
        primary=_key_of(record.primary_source, record.primary_key, f"the primary key of {record.name}", env),
        secondary=_key_of(record.secondary_source, record.secondary_key, f"the secondary key of {record.name}", env),
    )


def _key_of(source: Source | None, made: str | None, what: str, env: Mapping[str, str]) -> str:
    if source is None:
        if made is None:
            raise StateError(f"{what} has not been made yet; start the gateway once")
        return made
    if source.env is not None:
        found = env.get(source.env)
        if found is None:
            raise StateError(f"{what} comes from the environment variable {source.env}, which is not set here")
        what = f"{what}, from the environment variable {source.env},"
    elif source.file is not None:
        found = _read_text(Path(source.file), what)
        what = f"{what}, from the file {source.file},"
    else:
        raise StateError(f"{what} comes from neither a file nor an environment variable; name one of them")
    found = found.strip()
    _check_key(found, what)
    return found


def _check_key(key: str, what: str) -> None:
    """Says what is wrong with a key, and never shows it."""
    if not key:
        raise StateError(f"{what} is empty")
    if not KEY_LENGTH_MIN <= len(key) <= KEY_LENGTH_MAX:
        raise StateError(f"{what} has {len(key)} characters; {KEY_LENGTH_MIN} to {KEY_LENGTH_MAX} are accepted")
    if not all("!" <= character <= "~" for character in key):
        raise StateError(f"{what} has characters other than printable ASCII without spaces")


def _read_text(path: Path, what: str) -> str:
    """The file's text, stripped. Bytes that are not ASCII stay visible as such, so that a check can refuse them."""
    return _read_bytes(path, what).decode("latin-1").strip()


def _read_bytes(path: Path, what: str) -> bytes:
    try:
        # Not a pipe or a device, on which reading might never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise StateError(f"{what} cannot be read: {path} is not a plain file")
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise StateError(f"{what} cannot be read from {path}: {error.strerror}") from error
    if len(data) > _FILE_BYTES_MAX:
        raise StateError(f"{what} cannot be read: {path} has more than {_FILE_BYTES_MAX} bytes")
    return data


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from error
    return True


def _write(path: Path, data: bytes) -> None:
    try:
        make_private_folder(path.parent)
        write_private(path, data)
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}") from error


def _decode_secret(path: Path, text: str) -> bytes:
    try:
        secret = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise StateError(
            f"the file {path} does not hold {SECRET_BYTES} bytes as base64url text; restore it, or delete it to "
            "have a new secret made (tokens that were issued stop working)"
        )
    return secret

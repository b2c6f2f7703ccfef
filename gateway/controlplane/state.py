"""The state folder: one gateway's database, secrets and lock, private to the user who runs it.

    gateway.lock       held while a gateway runs; its text is the process id
    gateway.db         the store, where it is not elsewhere (controlplane/store)
    master.key         what seals the secrets in the store (controlplane/keyring.py)
    management.token   the first credential of the management listener, an admin's
    management.json    where the management listener is, for the commands
    assets/            uploaded and registered content, by its hash (controlplane/blobs)
    models/            controlplane/model_store.py
    tls/               controlplane/certificates.py

Every file is written whole (a new file, flushed to the disk, renamed) with mode 0600 in folders of mode 0700.
The lock ends with the process; a process that was forked, without exec, from the one that holds it keeps it held.
Errors: StateError, one sentence. No message, repr or log line holds a secret.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from gateway.credentials import key_fault, make_key

_FILE_BYTES_MAX = 1 << 16
_LOCK, _MANAGEMENT_TOKEN = "gateway.lock", "management.token"


class StateError(Exception):
    """The state folder, or a key that was given, cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The two keys of an endpoint; either opens it."""

    primary: str = field(repr=False)
    secondary: str = field(repr=False)


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


def read_secret_file(path: Path, what: str) -> str:
    """The text of a file that holds a secret, stripped. `what` names it in the message of a StateError."""
    return _read_text(path, what)


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


def _check_key(key: str, what: str) -> None:
    """Says what is wrong with a key, and never shows it."""
    fault = key_fault(key)
    if fault:
        raise StateError(f"{what} {fault}")


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

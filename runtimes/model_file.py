"""A model's file before onnxruntime opens it: there, unchanged, and reading nothing that it should not.

Why a stamp: to hash a file and to search it for the names of others costs more than to open it, and every scorer
opens what another process has checked already. What tells one state of a file from the next is compared instead: the
kernel changes it with every write, and with every link made or taken away.
Errors: LoadFailed, one sentence that names the path.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from runtimes.errors import LoadFailed
from runtimes.onnx import external

# Device, inode, bytes, nanoseconds of the last write and of the last change of the inode; () for none.
Stamp = tuple[int, ...]


def check(path: Path, sha256: str, stamp: Stamp = ()) -> Stamp:
    """A regular, readable file that is not empty and has this hash (any, where none is given), and that reads nothing
    but what it may. `stamp`: its state when that was found out before.

    Returns its stamp, with which it need not be found out again: () where it must, as it has no hash or reads its
    weights from other files."""
    now = _stamp(path)
    if stamp and stamp == now:
        return now
    _check_hash(path, sha256)
    reads_others = external.check(path.resolve())
    # What was written to meanwhile is in no known state.
    return now if sha256 and not reads_others and _stamp(path) == now else ()


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError as fault:
        raise LoadFailed(f"the model file {path} cannot be opened: {os.strerror(fault.errno or 0)}") from None
    if not stat.S_ISREG(found.st_mode):
        raise LoadFailed(f"the model file {path} is not a regular file; a path to one .onnx file is needed")
    if found.st_size == 0:
        raise LoadFailed(f"the model file {path} is empty; a path to one .onnx file is needed")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _check_hash(path: Path, sha256: str) -> None:
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest() if sha256 else sha256
    except OSError as fault:
        raise LoadFailed(f"the model file {path} cannot be read: {os.strerror(fault.errno or 0)}") from None
    if actual != sha256.lower():
        raise LoadFailed(f"the model file {path} changed: its SHA-256 is {actual}, {sha256.lower()} was expected")

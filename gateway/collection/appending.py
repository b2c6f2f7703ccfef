"""Lines to the ends of files: `FOLDER/{instance}.jsonl`, and what is too large for a line in files beside them.

Promise: a line is there whole or not at all. Lines are written by one call; where less than all went in, the file is
cut to what it was. Nobody else writes to an instance's files; what a crash left of a line is cut off when this
process first opens the file. A file that is full is followed by `{instance}.1.jsonl`, so that old ones can go.
Files are opened for each write and closed, so whoever removes one removes all that is in it and nothing later.
Units: bytes. Threads: one at a time.
Errors: OSError; ENOSPC also where less than `reserve_bytes` of the disk would stay free.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDERS_REMEMBERED = 1024
_TAIL_BYTES = 64 * 1024
FILE_BYTES_MAX = 64 * 1024 * 1024


class Appender:
    """The files of one instance below one folder."""

    def __init__(
        self, root: Path, instance: str, *, file_bytes_max: int = FILE_BYTES_MAX, reserve_bytes: int = 0
    ) -> None:
        self._root = root
        self._instance = instance
        self._file_bytes_max = file_bytes_max
        self._reserve_bytes = reserve_bytes
        # The number of the file that is written to, by folder; those that are here were looked at.
        self._parts: dict[str, int] = {}

    def append(self, folder: str, lines: bytes) -> None:
        """All of them, or none."""
        self._check_room(len(lines))
        descriptor, size = self._open(folder, len(lines))
        try:
            _write_all(descriptor, lines, size)
        except OSError:
            # What could not be cut off now is cut off when the file is opened next.
            self._parts.pop(folder, None)
            raise
        finally:
            os.close(descriptor)

    def put(self, folder: str, name: str, content: bytes) -> None:
        """A file of its own. One that could not be written whole is removed."""
        self._check_room(len(content))
        path = self._root / folder / name
        descriptor = _open(path, _NEW)
        try:
            _write_all(descriptor, content, 0)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def _open(self, folder: str, more_bytes: int) -> tuple[int, int]:
        """The file that has room for so many bytes more, and its size."""
        if len(self._parts) >= _FOLDERS_REMEMBERED and folder not in self._parts:
            self._parts.clear()
        is_known, part = folder in self._parts, self._parts.get(folder, 0)
        while True:
            name = f"{self._instance}.{part}.jsonl" if part else f"{self._instance}.jsonl"
            descriptor = _open(self._root / folder / name, _FLAGS)
            size = os.fstat(descriptor).st_size if is_known else repair(descriptor)
            if not size or size + more_bytes <= self._file_bytes_max:
                self._parts[folder] = part
                return descriptor, size
            os.close(descriptor)
            is_known, part = False, part + 1

    def _check_room(self, size_bytes: int) -> None:
        if not self._reserve_bytes:
            return
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.statvfs(self._root)
        if found.f_bavail * found.f_frsize - size_bytes < self._reserve_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._root))


def repair(descriptor: int) -> int:
    """Cut off what follows the last end of a line; the size that is left."""
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - _TAIL_BYTES)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, flags, 0o600)


def _write_all(descriptor: int, content: bytes, size: int) -> None:
    """Behind the first `size` bytes, or the file is as it was."""
    try:
        written = os.write(descriptor, content) if content else 0
        if written < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise

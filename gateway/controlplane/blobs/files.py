"""The files behind blobs and assets: each kept once, under the hash of what it holds.

    STATE/assets/sha256/ab/abcd...    the content whose SHA-256 is abcd...
    STATE/assets/blocks/12/1234...    a part of a blob that is still uploaded, under a name of its own
    STATE/assets/unfinished/...       what is being written; emptied at start

A file is written beside, hashed on the way, flushed to the disk, and renamed last: what has its name is whole, also
after a power cut. Folders and files are opened relative to each other and never through a link. Files are 0600.
What is kept and what is being written counts towards `bytes_max`; `reserve_bytes` of the disk stay free, for the
gateway's store lies on it as well.
Units: bytes. Threads: coroutines are the loop's, and do their work on a few threads of these files. Plain methods may
be called on any thread; on the loop's by `run`, for they wait for the disk.
Errors: Problem INSUFFICIENT_STORAGE, PAYLOAD_TOO_LARGE; Damaged for content that is missing or has another length.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, ParamSpec, TypeVar

from gateway.errors import Code, Problem
from gateway.scheduling import yield_at_once

Shelf = Literal["sha256", "blocks"]
SHELVES: tuple[Shelf, ...] = ("sha256", "blocks")
# Written and read in pieces of this size: a call to a thread each.
PIECE_BYTES = 256 * 1024
_UNFINISHED = "unfinished"
_LEFTOVER = re.compile(r"upload-[0-9a-f]{32}")
_NAME = re.compile(r"[0-9a-f]{64}")
_FOLDER = re.compile(r"[0-9a-f]{2}")
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

P = ParamSpec("P")
R = TypeVar("R")


class Damaged(Exception):
    """Content that should be kept is missing, or is not what was kept; the text names its hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a finished upload holds."""

    sha256: str
    md5: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A file as collection sees it. `modified_at`: when it was last written or held, in seconds since 1970."""

    name: str
    size_bytes: int
    modified_at: float


class Files:
    """Two shelves of files in one folder; one process has it."""

    def __init__(self, folder: Path, *, bytes_max: int, reserve_bytes: int = 0) -> None:
        """Makes the folders, and removes what an interrupted upload left. OSError where that cannot be done."""
        self._path = folder
        self._bytes_max = bytes_max
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()
        self._folders = {name: _own_folder(folder, name) for name in (*SHELVES, _UNFINISHED)}
        # They hash and copy whole models.
        self._pool = ThreadPoolExecutor(4, "assets", yield_at_once)
        self._remove_leftovers()
        self._used = sum(kept.size_bytes for shelf in SHELVES for kept in self.kept(shelf))

    @property
    def used_bytes(self) -> int:
        """Everything that is kept or being written."""
        return self._used

    def close(self) -> None:
        """After the last upload has ended."""
        self._pool.shutdown()
        for folder in self._folders.values():
            os.close(folder)
        self._folders = {}

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """On a thread of these files. A cancelled task waits for it: no file is closed under its writer."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, lambda: work(*args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()
            raise

    @contextlib.asynccontextmanager
    async def upload(self, *, bytes_max: int, credit_bytes: int = 0) -> AsyncIterator[Upload]:
        """A file to write; it is kept when it was finished inside the block, and gone when it was not.

        `credit_bytes`: how much of what is kept will be removed once this is, and so is not counted twice.
        """
        upload = Upload(self, bytes_max, credit_bytes)
        try:
            await self.run(upload.open)
            yield upload
        finally:
            await self.run(upload.close)

    def path_of(self, sha256: str) -> Path:
        """Where the content lies, or would lie."""
        return self._path / "sha256" / sha256[:2] / sha256

    def add_file(self, source: Path) -> tuple[str, int]:
        """Keep a copy of a local file; its SHA-256 and bytes. Errors: OSError where it cannot be read, Problem."""
        upload = Upload(self, self._bytes_max, 0)
        try:
            with source.open("rb") as file:
                upload.open()
                return upload.copy(file)
        finally:
            upload.close()

    def find(self, sha256: str) -> Kept | None:
        """The content of this hash, where it is kept."""
        try:
            with self._folder_of("sha256", sha256) as folder:
                found = os.stat(sha256, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return Kept(name=sha256, size_bytes=found.st_size, modified_at=found.st_mtime)

    def open(self, sha256: str, size_bytes: int, shelf: Shelf = "sha256") -> int:
        """A file descriptor to read the content from; the caller closes it. Errors: Damaged."""
        try:
            with self._folder_of(shelf, sha256) as folder:
                descriptor = os.open(sha256, _READ_FLAGS, dir_fd=folder)
        except OSError as error:
            raise Damaged(f"the content {sha256} cannot be read: {error.strerror}") from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size_bytes:
            os.close(descriptor)
            raise Damaged(f"the content {sha256} has {found.st_size} bytes; {size_bytes} were kept")
        return descriptor

    def verify(self, sha256: str) -> bool:
        """Whether the content is there and is what its name says."""
        try:
            with self._folder_of("sha256", sha256) as folder:
                descriptor = os.open(sha256, _READ_FLAGS, dir_fd=folder)
        except OSError:
            return False
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256

    def hold(self, sha256: str) -> bool:
        """Keep the content from being collected for the grace time from now; False where it is not there.

        For whoever is about to write into the store that something refers to it.
        """
        with self._lock:
            try:
                with self._folder_of("sha256", sha256) as folder:
                    os.utime(sha256, dir_fd=folder, follow_symlinks=False)
            except OSError:
                return False
        return True

    def remove(self, name: str, shelf: Shelf = "sha256", *, unless_since: float | None = None) -> bool:
        """Whether it was removed. `unless_since`: it stays when it was written or held since (seconds since 1970)."""
        with self._lock:
            try:
                with self._folder_of(shelf, name) as folder:
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if unless_since is not None and found.st_mtime >= unless_since:
                        return False
                    os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                return False
            self._used -= found.st_size
        return True

    def kept(self, shelf: Shelf = "sha256") -> Iterator[Kept]:
        """Everything on a shelf that has a name as files there have it."""
        for name in _names_in(self._folders[shelf]):
            if not _FOLDER.fullmatch(name):
                continue
            try:
                folder = os.open(name, _FOLDER_FLAGS, dir_fd=self._folders[shelf])
            except OSError:
                # A link or a file, which nobody here made: it is left alone.
                continue
            try:
                yield from _files_of(folder)
            finally:
                os.close(folder)

    @contextlib.contextmanager
    def _folder_of(self, shelf: Shelf, name: str, *, make: bool = False) -> Iterator[int]:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a file on a shelf: 64 digits of a hash")
        parent = self._folders[shelf]
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name[:2], 0o700, dir_fd=parent)
                os.fsync(parent)
        folder = os.open(name[:2], _FOLDER_FLAGS, dir_fd=parent)
        try:
            yield folder
        finally:
            os.close(folder)

    def _remove_leftovers(self) -> None:
        folder = self._folders[_UNFINISHED]
        for name in _names_in(folder):
            if _LEFTOVER.fullmatch(name):
                os.unlink(name, dir_fd=folder)

    def _reserve(self, size_bytes: int, credit_bytes: int) -> None:
        """Count bytes that are about to be written, or refuse them. Called on any thread."""
        free_bytes = _free_bytes(self._folders[_UNFINISHED])
        with self._lock:
            if self._used + size_bytes - credit_bytes > self._bytes_max:
                raise _over_quota(self._bytes_max)
            if free_bytes - size_bytes < self._reserve_bytes:
                raise _disk_full()
            self._used += size_bytes

    def _release(self, size_bytes: int) -> None:
        with self._lock:
            self._used -= size_bytes

    def _place(self, unfinished: str, shelf: Shelf, name: str) -> None:
        """Give a whole file its name. It replaces one that is there, which may have been damaged since."""
        with self._lock, self._folder_of(shelf, name, make=True) as folder:
            try:
                before = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
            except FileNotFoundError:
                before = 0
            source = self._folders[_UNFINISHED]
            os.rename(unfinished, name, src_dir_fd=source, dst_dir_fd=folder)
            self._used -= before

    def _sync(self, shelf: Shelf, name: str) -> None:
        """The name is on the disk, too, when this returns."""
        with self._folder_of(shelf, name) as folder:
            os.fsync(folder)


class Upload:
    """A file that is being written. Pieces are handed to `write`; `finish` gives the file its name."""

    def __init__(self, files: Files, bytes_max: int, credit_bytes: int) -> None:
        self._files = files
        self._bytes_max = bytes_max
        self._credit_bytes = credit_bytes
        self._name = f"upload-{secrets.token_hex(16)}"
        self._descriptor = -1
        self._is_placed = False
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._waiting = bytearray()
        self._reserved = 0

    @property
    def size_bytes(self) -> int:
        """What was handed over so far."""
        return self._reserved + len(self._waiting)

    def open(self) -> None:
        with _told():
            self._descriptor = os.open(self._name, _NEW_FLAGS, 0o600, dir_fd=self._files._folders[_UNFINISHED])

    async def write(self, piece: bytes) -> None:
        if self.size_bytes + len(piece) > self._bytes_max:
            raise Problem(Code.PAYLOAD_TOO_LARGE, f"more than {self._bytes_max} bytes came; at most so many are kept")
        self._waiting += piece
        if len(self._waiting) >= PIECE_BYTES:
            await self._files.run(self._flush)

    async def written(self) -> Written:
        """What the file holds, now that nothing follows: to be compared before it is kept."""
        await self._files.run(self._flush)
        return Written(sha256=self._sha256.hexdigest(), md5=self._md5.digest(), size_bytes=self._reserved)

    async def finish(self, shelf: Shelf = "sha256", name: str = "") -> None:
        """Keep it, on the disk for good, under this name; under its SHA-256 where none is given."""
        await self._files.run(self._finish, shelf, name or self._sha256.hexdigest())

    def copy(self, file: BinaryIO) -> tuple[str, int]:
        """All of a file, kept under its SHA-256. Waits for the disk."""
        while piece := file.read(PIECE_BYTES):
            self._waiting += piece
            self._flush()
        digest = self._sha256.hexdigest()
        self._finish("sha256", digest)
        return digest, self._reserved

    def close(self) -> None:
        """Remove what was not finished."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if not self._is_placed:
                os.unlink(self._name, dir_fd=self._files._folders[_UNFINISHED])
                self._files._release(self._reserved)

    def _flush(self) -> None:
        data = memoryview(bytes(self._waiting))
        if not data:
            return
        self._files._reserve(len(data), self._credit_bytes)
        self._reserved += len(data)
        self._waiting.clear()
        with _told():
            while data:
                sent = os.write(self._descriptor, data)
                self._sha256.update(data[:sent])
                self._md5.update(data[:sent])
                data = data[sent:]

    def _finish(self, shelf: Shelf, name: str) -> None:
        with _told():
            os.fsync(self._descriptor)
            self._files._place(self._name, shelf, name)
            self._is_placed = True
            self._files._sync(shelf, name)


def _own_folder(parent: Path, name: str) -> int:
    """Made where it is missing, and opened; the parent may be reached through links, what is in it may not."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
            os.fsync(folder)
        return os.open(name, _FOLDER_FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


def _names_in(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)


def _files_of(folder: int) -> Iterator[Kept]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _NAME.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                yield Kept(name=entry.name, size_bytes=found.st_size, modified_at=found.st_mtime)


def _free_bytes(folder: int) -> int:
    found = os.fstatvfs(folder)
    return found.f_bavail * found.f_frsize


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """A disk without room is told as a Problem; anything else that fails there is a bug or a broken disk."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full() from error
        raise


def _disk_full() -> Problem:
    return Problem(Code.INSUFFICIENT_STORAGE, "the disk of the state folder is full; nothing was kept")


def _over_quota(bytes_max: int) -> Problem:
    return Problem(
        Code.INSUFFICIENT_STORAGE,
        f"assets may take {bytes_max} bytes (setting assets_max_bytes), and this would be more; nothing was kept",
        reason="quota",
    )


def read_piece(descriptor: int, offset: int, size_bytes: int) -> bytes:
    """Up to so many bytes from there; fewer only at the end of the file."""
    pieces = []
    while size_bytes > 0 and (piece := os.pread(descriptor, size_bytes, offset)):
        pieces.append(piece)
        offset += len(piece)
        size_bytes -= len(piece)
    return b"".join(pieces)

"""The files of all collections, looked at from outside: found, listed, read, repaired, and the oldest removed.

Why apart from appending.py: whoever writes knows one file; this is for the one process that shows and tidies them.
Paths are relative to the root, with slashes, as blobs of the default datastore are called; links are not followed.
Units: bytes; times in seconds since 1970.
Threads: any; every call reads the disk. Errors: OSError of the root; what vanishes meanwhile is not there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.collection.appending import repair

# Not a character of any path, and behind all that are.
_LAST = "\U0010ffff"
# How much of its bounds is left when there is too much: tidying by single files would never end.
KEPT_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    path: str
    size_bytes: int
    modified_at: float


class Tree:
    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, path: str) -> Found | None:
        try:
            found = os.lstat(self._root / path)
        except OSError:
            return None
        return _found(path, found) if stat.S_ISREG(found.st_mode) else None

    def open(self, path: str) -> int:
        """A descriptor to read from. Errors: OSError."""
        return os.open(self._root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    def remove(self, path: str) -> None:
        """The file, and the folders that it leaves empty."""
        (self._root / path).unlink(missing_ok=True)
        self._prune((self._root / path).parent)

    def below(self, prefix: str, after: str, limit: int) -> list[Found]:
        """Those whose paths begin so and come behind `after`, in the order of their characters."""
        found: list[Found] = []
        for one in self._walk("", prefix, after):
            if len(found) == limit:
                break
            found.append(one)
        return found

    def repair(self) -> int:
        """Cut off what a crash has left of lines; how many files had some. Nobody may be writing."""
        repaired = 0
        for one in self._walk("", "", ""):
            if not one.path.endswith(".jsonl"):
                continue
            descriptor = os.open(self._root / one.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                repaired += repair(descriptor) < one.size_bytes
            finally:
                os.close(descriptor)
        return repaired

    def trim(self, bytes_max: int, files_max: int) -> list[Found]:
        """Where there is more than this, remove those that were written to longest ago; which they were."""
        files = sorted(self._walk("", "", ""), key=lambda one: one.modified_at)
        size, count = sum(one.size_bytes for one in files), len(files)
        if size <= bytes_max and count <= files_max:
            return []
        removed = []
        for one in files:
            if size <= KEPT_SHARE * bytes_max and count <= KEPT_SHARE * files_max:
                break
            self.remove(one.path)
            removed.append(one)
            size, count = size - one.size_bytes, count - 1
        return removed

    def _walk(self, folder: str, prefix: str, after: str) -> Iterator[Found]:
        """In order: a folder stands where its name and a slash would."""
        try:
            with os.scandir(self._root / folder) as entries:
                named = sorted((f"{one.name}/" if one.is_dir(follow_symlinks=False) else one.name) for one in entries)
        except OSError:
            return
        for name in named:
            path = f"{folder}{name}"
            if name.endswith("/"):
                may_hold = path.startswith(prefix) or prefix.startswith(path)
                if may_hold and path + _LAST > after:
                    yield from self._walk(path, prefix, after)
            elif path.startswith(prefix) and path > after:
                one = self.find(path)
                if one is not None:
                    yield one

    def _prune(self, folder: Path) -> None:
        while folder != self._root and self._root in folder.parents:
            try:
                folder.rmdir()
            except OSError:
                # Not empty, or a writer made something in it this moment.
                return
            folder = folder.parent


def _found(path: str, found: os.stat_result) -> Found:
    return Found(path=path, size_bytes=found.st_size, modified_at=found.st_mtime)

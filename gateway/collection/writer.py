"""Records of one process on their way to the disk: a bounded queue, and the thread that empties it.

Promise: `put` takes a microsecond and never waits, whatever the disk does. Each record that was put has one end,
which is counted: stored, or dropped for one reason. What a process that is killed had in its queue (a tenth of a
second of records where the disk keeps up) is lost uncounted.
Why the thread looks ten times a second and is not told: a wake-up for each record would take the interpreter's lock
from the loop that answers requests.
Memory: what is queued, or has its room reserved, as it is counted; BATCH_BYTES of lines that were made of it, and one
record more. A payload that was compressed is inflated on the thread, so lines are written as soon as so much has
gathered.
Units: bytes that a record holds, with RECORD_BYTES for itself; *_s seconds.
Threads: `put`, `reserve`, `release` and `close` are the loop's; everything below `_run` is the thread's. What both
need is written by one.
Errors: none.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from gateway.collection.appending import FILE_BYTES_MAX, Appender
from gateway.collection.records import Record, line_of, rolled
from gateway.collection.spec import Rolling
from gateway.telemetry.collection import CollectionRecord
from runtimes import now_ns

log = logging.getLogger(__name__)

EVERY_S = 0.1
RECORD_BYTES = 1024
# A pair of header name and value, beside their characters.
HEADER_BYTES = 128
# Lines that have gathered are written when they are so many bytes.
BATCH_BYTES = 4 * 1024 * 1024
# How much of the disk stays free, for what must be written.
RESERVE_BYTES = 256 * 1024 * 1024
FILE_BYTES_MIN = 64 * 1024
# A disk that is nearly full takes some and refuses some: that it fails is told at most once in so long.
TELL_EVERY_S = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Files(Protocol):
    """Where lines go (appending.py). Errors: OSError, and then nothing of it is there."""

    def append(self, folder: str, lines: bytes) -> None: ...

    def put(self, folder: str, name: str, content: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """One collection of a deployment as a process collects it."""

    folder: str
    rolling_rate: Rolling
    source: str
    counts: CollectionRecord


def writer_of(folder: Path, instance: str, bytes_max: int, queue_bytes_max: int) -> Writer:
    """The writer of one process. Files are so small that of all that may be kept a sixteenth goes at once."""
    file_bytes_max = max(FILE_BYTES_MIN, min(FILE_BYTES_MAX, bytes_max // 16))
    files = Appender(folder, instance, file_bytes_max=file_bytes_max, reserve_bytes=RESERVE_BYTES)
    return Writer(files, queue_bytes_max)


def size_of_headers(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """What header lines hold that wait with their record."""
    return sum([HEADER_BYTES + len(name) + len(value) for name, value in headers])


class _Put(NamedTuple):
    collection: Collection
    held_bytes: int
    time_s: float
    make: Callable[[], Record]


class _Line(NamedTuple):
    counts: CollectionRecord
    held_bytes: int
    line: bytes


class Writer:
    """Belongs to one loop."""

    def __init__(self, files: Files, queue_bytes_max: int, clock: Callable[[], int] = now_ns) -> None:
        self._files = files
        self._queue_bytes_max = queue_bytes_max
        self._queue: deque[_Put] = deque()
        # Of all that was ever put, and of all that has ended: two counters with one writer each.
        self._put_bytes = self._ended_bytes = 0
        self._reserved_bytes = 0
        self._clock = clock
        # Whether it was told that the disk fails, and not yet that it works again; and from when on it may be told.
        self._is_told_failing = False
        self._tell_from_ns = 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, collection: Collection, size_bytes: int, time_s: float, make: Callable[[], Record]) -> bool:
        """Whether there was room. `make` is called on the thread; `size_bytes`: what it holds until then."""
        held_bytes = size_bytes + RECORD_BYTES
        if not self._has_room(held_bytes):
            collection.counts.dropped("queue_full")
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="collection", daemon=True)
            self._thread.start()
        self._put_bytes += held_bytes
        self._queue.append(_Put(collection, held_bytes, time_s, make))
        return True

    def reserve(self, size_bytes: int) -> bool:
        """Whether there was room for something that is on its way to `put`. It is the caller's until `release`."""
        if not self._has_room(size_bytes):
            return False
        self._reserved_bytes += size_bytes
        return True

    def release(self, size_bytes: int) -> None:
        self._reserved_bytes -= size_bytes

    def _has_room(self, size_bytes: int) -> bool:
        held_bytes = self._put_bytes - self._ended_bytes + self._reserved_bytes
        return held_bytes + size_bytes <= self._queue_bytes_max

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what waits; whether the disk took it in that time. Waits for the thread. From here on there is room
        for nothing more. May be called again."""
        self._queue_bytes_max = 0
        self._closing.set()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            # What was put before the closing is written after it.
            is_last = self._closing.wait(EVERY_S)
            self._write()

    def _write(self) -> None:
        """What is in the queue now. Lines of one folder go there by one write, unless they are many."""
        lines: dict[str, list[_Line]] = {}
        gathered_bytes = 0
        for _ in range(len(self._queue)):
            gathered_bytes += self._gather(lines)
            if gathered_bytes >= BATCH_BYTES:
                self._append_all(lines)
                gathered_bytes = 0
        self._append_all(lines)

    def _gather(self, lines: dict[str, list[_Line]]) -> int:
        """Add the line of the next record, of which nothing else is kept; how long it is."""
        one = self._queue.popleft()
        counts = one.collection.counts
        try:
            folder, line = self._line(one)
        except OSError as error:
            self._failed([counts], error)
        except Exception:
            log.exception("a record of %s could not be made", one.collection.folder)
            counts.dropped("error")
        else:
            lines.setdefault(folder, []).append(_Line(counts, one.held_bytes, line))
            return len(line)
        self._ended_bytes += one.held_bytes
        return 0

    def _append_all(self, lines: dict[str, list[_Line]]) -> None:
        for folder, found in lines.items():
            self._append(folder, found)
            self._ended_bytes += sum([one.held_bytes for one in found])
        lines.clear()

    def _line(self, one: _Put) -> tuple[str, bytes]:
        """Its folder and line; what does not fit on the line is in its file then."""
        folder = rolled(one.collection.folder, one.collection.rolling_rate, one.time_s)
        line, name, beside = line_of(one.make(), one.collection.source, folder)
        if name:
            self._files.put(folder, name, beside)
        return folder, line

    def _append(self, folder: str, found: list[_Line]) -> None:
        try:
            self._files.append(folder, b"".join([one.line for one in found]))
        except OSError as error:
            self._failed([one.counts for one in found], error)
            return
        except Exception:
            # The thread goes on, whatever this was.
            log.exception("collected data could not be written to %s", folder)
            for one in found:
                one.counts.dropped("error")
            return
        for one in found:
            one.counts.stored()
        if self._is_told_failing:
            self._is_told_failing = False
            log.info("collected data can be written again")

    def _failed(self, dropped: list[CollectionRecord], error: OSError) -> None:
        if not self._is_told_failing and self._clock() >= self._tell_from_ns:
            # Once, until it works again: there may be thousands a second.
            self._is_told_failing = True
            self._tell_from_ns = self._clock() + int(TELL_EVERY_S * 1e9)
            log.error("collected data cannot be written and is dropped: %s", error)
        for counts in dropped:
            counts.dropped("disk_full" if error.errno in _FULL else "disk_error")

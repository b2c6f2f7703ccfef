"""What the workers of a deployment write, as it comes, for whoever follows it: the last lines, numbered.

Why: a build or an `init()` takes minutes, and those are what people watch. Followers keep nothing here: each has the
number of the line that it wants next, and one that reads slowly finds that the oldest are gone, and how many.
Units: at most BYTES_MAX bytes of text a deployment; the lines of a stream count from 0, and its `run` tells it from
the one before: a deployment that is made anew has a new one. `at` is the system's time in seconds.
Threads: one loop. Errors: none.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

BYTES_MAX = 256 * 1024
LINE_BYTES_MAX = 16 * 1024


class Lines:
    """Bytes as they are read, into whole lines; a line that does not end is cut where it gets too long."""

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, data: bytes) -> bytes:
        """The lines that are whole now, each with its end."""
        whole, end, begun = (self._begun + data).rpartition(b"\n")
        if len(begun) > LINE_BYTES_MAX:
            whole, end, begun = whole + end + begun, b"\n", b""
        self._begun = begun
        return whole + end

    def rest(self) -> bytes:
        """What was begun, as the last line: nothing follows."""
        begun, self._begun = self._begun, b""
        return begun + b"\n" if begun else b""


@dataclass(frozen=True, slots=True)
class _Part:
    source: str
    data: bytes
    count: int
    at: float

    def lines(self) -> Iterator[str]:
        text = self.data.decode("utf-8", "replace")
        # Of a line that is written over again and again, a bar of progress, what a terminal shows in the end.
        shown = (line.rstrip("\r").rpartition("\r")[2] for line in text.removesuffix("\n").split("\n"))
        return (f"[{self.source}] {line}" for line in shown)


class LogStream:
    """Of one deployment. `first` is the number of the oldest line that is kept, `end` that of the next to come."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self.run = secrets.token_hex(4)
        self.first = 0
        self.end = 0
        self._parts: deque[_Part] = deque()
        self._bytes = 0
        self._grown = asyncio.Event()

    def add(self, source: str, data: bytes) -> None:
        """Whole lines; who wrote them."""
        if not data:
            return
        # The newest of what is too much at once.
        count = data.count(b"\n", max(0, len(data) - BYTES_MAX)) or 1
        part = _Part(source, data[-BYTES_MAX:], count, self._now())
        self._parts.append(part)
        self._bytes += len(part.data)
        self.end += part.count
        while self._bytes > BYTES_MAX:
            oldest = self._parts.popleft()
            self._bytes -= len(oldest.data)
            self.first += oldest.count
        self.wake()

    def since(self, number: int) -> list[str]:
        """The lines from this one on, as far as they are kept."""
        return [line for _, line in self.timed_since(number)]

    def timed_since(self, number: int) -> list[tuple[float, str]]:
        """The same, each with when it came."""
        wanted: list[_Part] = []
        at = self.end
        for part in reversed(self._parts):
            if at <= number:
                break
            at -= part.count
            wanted.append(part)
        return [(part.at, line) for part in reversed(wanted) for line in part.lines()][max(0, number - at) :]

    async def grown(self, number: int, within_s: float) -> None:
        """Returns once there is a line from this one on, at a `wake`, or when the time is over."""
        if self.end > number:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._grown.wait()

    def wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


class LogStreams:
    """All of a gateway's, by "endpoint/deployment"."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self.is_closed = False
        # How many read them now.
        self.followers = 0
        self._streams: dict[str, LogStream] = {}

    def of(self, name: str) -> LogStream:
        return self._streams.setdefault(name, LogStream(self._now))

    def keep_only(self, names: Collection[str]) -> None:
        self._streams = {name: one for name, one in self._streams.items() if name in names}

    def close(self) -> None:
        """The gateway ends: whoever follows is told."""
        self.is_closed = True
        for one in self._streams.values():
            one.wake()

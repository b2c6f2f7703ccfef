"""Connections and the discipline that feeds them: the part of a generator that runs for every request.

Closed loop: a connection sends again when it has its answer. Open loop: requests go at their scheduled times over
whichever connection is free; while none is, they wait in order, and their latency counts from the scheduled time.
Bounds: the connections; one request in flight on each; waiting requests, by the rate and length of a step; a wait
for an answer, by `timeout_ns`; the wait at the end, by `drain_s`. What is open then is counted as unanswered.
Units: *_ns monotonic nanoseconds.
Errors: none for requests, they are counted; a connection that breaks is opened again, later and later while it
fails.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from time import monotonic_ns
from typing import Protocol

from bench.client.alarm import Alarm, make_alarm
from bench.client.ends import CONNECT, FOREVER_NS, TIMEOUT, UNANSWERED
from bench.client.wire import Connection, KeepingConnection

# So many handshakes at a time: a flood of them would measure the listener's queue.
OPENING_MAX = 32
OPEN_TIMEOUT_S = 10.0
REOPEN_AFTER_S, REOPEN_AFTER_MAX_S = 0.05, 1.0
LAG_EVERY_S = 0.01
DIGEST_BYTES = 16


class Recorder(Protocol):
    """Where an engine's figures go; it decides which requests count."""

    def answered(self, due_ns: int, now_ns: int, status: int) -> None: ...

    def failed(self, due_ns: int, why: str) -> None: ...

    def sent_late(self, due_ns: int, now_ns: int) -> None: ...

    def held_up(self, due_ns: int, now_ns: int) -> None: ...

    def differs(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """Where connections go. `server_name` is whom the certificate must name."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None


class Engine:
    """One step: `connect`, `go`, any number of `end_at`, and `finished`; then `close`.

    `picks` gives the number of the next request. With `schedule`, offsets from the start in ns, the loop is open.
    `references` holds digests of first answers by number of request; with it, bodies are compared.
    """

    def __init__(
        self,
        dial: Dial,
        requests: Sequence[bytes],
        picks: Iterator[int],
        record: Recorder,
        *,
        timeout_ns: int,
        schedule: Iterator[int] | None = None,
        references: MutableMapping[int, bytes] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._dial = dial
        self._requests = requests
        self._picks = picks
        self._record = record
        self._timeout_ns = timeout_ns
        self._sweep_s = max(0.01, min(0.5, timeout_ns / 4e9))
        self._lag_due_ns = 0
        self._schedule = schedule
        self._references = references
        self._make = Connection if references is None else KeepingConnection
        self._all: set[Connection] = set()
        self._free: deque[Connection] = deque()
        self._waiting: deque[tuple[int, int]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._alarm: Alarm | None = None
        self._start_ns = self._end_ns = FOREVER_NS
        self._next_ns: int | None = None
        self._drained = asyncio.Event()
        self._closed = False
        self.in_flight = 0
        self.first_error = ""

    @property
    def waiting(self) -> int:
        """Requests whose time has come, but for which no connection is free."""
        return len(self._waiting)

    async def connect(self, connections: int) -> int:
        """How many of the connections are open; `first_error` says why one is not."""
        room = asyncio.Semaphore(OPENING_MAX)

        async def open_one() -> None:
            async with room:
                if not await self._open():
                    self._reopen()

        await asyncio.gather(*(open_one() for _ in range(connections)))
        return len(self._all)

    def go(self, start_ns: int, end_ns: int) -> None:
        self._start_ns = start_ns
        self._sweep()
        self._measure_lag()
        if self._schedule is None:
            self._at("start", start_ns, self._start_all)
        else:
            self._alarm = make_alarm(self._loop, self._ring)
            self._next_ns = self._after(self._schedule)
            self._set_alarm()
        self.end_at(end_ns)

    def end_at(self, end_ns: int) -> None:
        """No request that is meant to be sent later is sent."""
        self._end_ns = end_ns
        if end_ns < FOREVER_NS:
            self._at("end", end_ns, self._ended)

    async def finished(self, drain_s: float) -> None:
        """Waits for the end, then for what is not answered by then; the rest is counted as unanswered."""
        while monotonic_ns() < self._end_ns:
            await asyncio.sleep(max(0.001, min(0.05, (self._end_ns - monotonic_ns()) / 1e9)))
        self._note_drained()
        try:
            await asyncio.wait_for(self._drained.wait(), drain_s)
        except TimeoutError:
            for connection in self._all:
                if connection.busy:
                    self._record.failed(connection.due_ns, UNANSWERED)
            for due_ns, _ in self._waiting:
                self._record.failed(due_ns, UNANSWERED)

    async def close(self) -> None:
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        if self._alarm is not None:
            self._alarm.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._all:
            connection.abandon()
        self._all.clear()

    # What connections tell.

    def answered(self, connection: Connection, status: int, keep: bool) -> None:
        now_ns = monotonic_ns()
        self.in_flight -= 1
        self._record.answered(connection.due_ns, now_ns, status)
        if self._references is not None and 200 <= status < 300:
            self._compare(connection, self._references)
        if keep:
            self._use(connection, now_ns)
        else:
            connection.abandon()
            self._replace(connection)

    def broken(self, connection: Connection, why: str) -> None:
        if connection.busy:
            connection.busy = False
            self.in_flight -= 1
            self._record.failed(connection.due_ns, why)
        self._replace(connection)

    # The two disciplines.

    def _use(self, connection: Connection, now_ns: int) -> None:
        if self._schedule is None:
            if self._start_ns <= now_ns < self._end_ns:
                index = next(self._picks)
                self.in_flight += 1
                connection.send(self._requests[index], index, 0)
                return
        elif self._waiting:
            due_ns, index = self._waiting.popleft()
            self.in_flight += 1
            connection.send(self._requests[index], index, due_ns)
            return
        # In turn, so that connections, and with them the server's processes, are used alike.
        self._free.append(connection)
        if not self.in_flight and now_ns >= self._end_ns:
            self._note_drained()

    def _start_all(self) -> None:
        now_ns = monotonic_ns()
        for _ in range(len(self._free)):
            self._use(self._free.popleft(), now_ns)

    def _ring(self) -> None:
        assert self._schedule is not None
        # The clock is read for each: sending takes time, too.
        while self._next_ns is not None and self._next_ns <= (now_ns := monotonic_ns()):
            due_ns, index = self._next_ns, next(self._picks)
            if self._free:
                self.in_flight += 1
                self._free.popleft().send(self._requests[index], index, due_ns)
                # How late this process is, for a free connection was there to be used.
                self._record.sent_late(due_ns, now_ns)
            else:
                self._waiting.append((due_ns, index))
            self._next_ns = self._after(self._schedule)
        self._set_alarm()

    def _after(self, schedule: Iterator[int]) -> int | None:
        """When the next request is meant to be sent; None where none is before the end."""
        offset_ns = next(schedule, None)
        if offset_ns is None or self._start_ns + offset_ns >= self._end_ns:
            return None
        return self._start_ns + offset_ns

    def _set_alarm(self) -> None:
        if self._next_ns is not None and self._alarm is not None:
            self._alarm.set(self._next_ns)

    def _ended(self) -> None:
        # What was planned before the end was moved forward.
        if self._next_ns is not None and self._next_ns >= self._end_ns:
            self._next_ns = None
        while self._waiting and self._waiting[-1][0] >= self._end_ns:
            self._waiting.pop()
        self._note_drained()

    def _note_drained(self) -> None:
        if not self.in_flight and not self._waiting and monotonic_ns() >= self._end_ns:
            self._drained.set()

    # Connections come and go.

    async def _open(self) -> bool:
        dial = self._dial
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                _, connection = await self._loop.create_connection(
                    lambda: self._make(self), dial.host, dial.port, ssl=dial.tls, server_hostname=dial.server_name
                )
        except (OSError, TimeoutError) as error:
            self.first_error = self.first_error or f"{type(error).__name__}: {error}"
            return False
        if connection.is_open:
            self._all.add(connection)
            self._use(connection, monotonic_ns())
        return connection.is_open

    def _replace(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if monotonic_ns() >= self._end_ns:
            self._note_drained()
        if not self._drained.is_set():
            self._reopen()

    def _reopen(self) -> None:
        if not self._closed:
            task = self._loop.create_task(self._keep_opening())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _keep_opening(self) -> None:
        wait_s = REOPEN_AFTER_S
        while not await self._open():
            self._record.failed(monotonic_ns(), CONNECT)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, REOPEN_AFTER_MAX_S)

    # Once in a while.

    def _sweep(self) -> None:
        """Requests that have waited too long are given up, with their connections."""
        late_ns = monotonic_ns() - self._timeout_ns
        for connection in [one for one in self._all if one.busy and one.sent_ns < late_ns]:
            connection.abandon()
            self.in_flight -= 1
            self._record.failed(connection.due_ns, TIMEOUT)
            self._replace(connection)
        self._timers["sweep"] = self._loop.call_later(self._sweep_s, self._sweep)

    def _measure_lag(self) -> None:
        """How late a turn of the loop comes is what a request waits for this process, beside the server."""
        now_ns = monotonic_ns()
        if self._lag_due_ns:
            self._record.held_up(self._lag_due_ns, now_ns)
        self._lag_due_ns = now_ns + int(LAG_EVERY_S * 1e9)
        self._timers["lag"] = self._loop.call_later(LAG_EVERY_S, self._measure_lag)

    def _compare(self, connection: Connection, references: MutableMapping[int, bytes]) -> None:
        digest = blake2b(b"".join(connection.body), digest_size=DIGEST_BYTES).digest()
        if references.setdefault(connection.index, digest) != digest:
            self._record.differs()

    def _at(self, name: str, at_ns: int, call: Callable[[], None]) -> None:
        if name in self._timers:
            self._timers[name].cancel()

        def ring() -> None:
            # The loop's clock is coarse, and may be early.
            if monotonic_ns() < at_ns:
                self._timers[name] = self._loop.call_later(0.0005, ring)
            else:
                call()

        self._timers[name] = self._loop.call_later(max(0.0, (at_ns - monotonic_ns()) / 1e9), ring)

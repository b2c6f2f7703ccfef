"""One scoring process: its listener, its snapshot, its runtimes. Started by the supervisor, never by hand.

The process inherits descriptors: the channel, the listening sockets of all scorers and the shared table of seats.
It accepts from its own socket, which outlives it, so that waiting connections are not reset, and from those of others
for as long as they cannot.
It ends when it has drained, or when the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
from pathlib import Path

import uvloop

from gateway.channel import (
    Abort,
    Channel,
    ChannelClosed,
    Collect,
    Collected,
    Commit,
    Cover,
    Done,
    Drain,
    Failed,
    Gather,
    Load,
    Message,
    Opening,
    Prepare,
    Recycle,
    ReloadTls,
    RemoteFailed,
    ScorerSettings,
    Start,
    Unload,
    WorkerGone,
)
from gateway.collection.writer import Writer, writer_of
from gateway.dataplane.app import ScoringApp
from gateway.dataplane.capture import Captures
from gateway.dataplane.documents import documents
from gateway.dataplane.lane import ScoringLane
from gateway.dataplane.live import SnapshotCell
from gateway.dataplane.load import WorkerPools
from gateway.dataplane.prepare import Preparer
from gateway.dataplane.score import Scoring, ScoringOptions
from gateway.fd_channel import FdInbox
from gateway.listener import HttpServer
from gateway.seats import SeatTable
from gateway.telemetry.logs import configure
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import ScorerTotals
from gateway.tls import ServerContext, make_context, reload
from runtimes import LoadFailed, LoopScheduler

log = logging.getLogger(__name__)

# Objects made since the last look before the collector looks at the youngest. A request leaves no cycles behind, so
# the default of 700 would only cost time.
GC_THRESHOLD = 50_000
# How long a thread may hold Python's lock while the event loop waits for it. The default of 5 ms would add that
# much to a request whenever an instance thread is between two runs.
SWITCH_INTERVAL_S = 1e-4
# The supervisor sends a pool's sockets before it asks for what needs them.
SOCKETS_TIMEOUT_S = 10.0
RECYCLE_TIMEOUT_S = 10.0


class Scorer:
    """Answers the supervisor's messages."""

    def __init__(
        self, listening: list[socket.socket], seats_fd: int, descriptors: socket.socket | None = None
    ) -> None:
        """`descriptors`: where the sockets of script workers come from; without, no script can be loaded."""
        self._listening = listening
        self._seats_fd = seats_fd
        self._inbox = FdInbox(descriptors) if descriptors is not None else None
        self._recycling: set[asyncio.Task[None]] = set()
        self._is_listening = False
        self._preparing = asyncio.Lock()
        self._settings: ScorerSettings | None = None
        self._context: ServerContext | None = None
        self._writer: Writer | None = None

    async def run(self, channel_socket: socket.socket) -> None:
        """Serve until the supervisor closes the channel: after a drain, or because it is gone."""
        self._channel = await Channel.over(channel_socket, self._handle)
        if self._inbox is not None:
            self._inbox.attach(asyncio.get_running_loop())
        await self._channel.serve()
        if self._inbox is not None:
            self._inbox.close()
        if self._settings is not None:
            await self._server.close()
            self._preparer.close()
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)

    async def _handle(self, message: Message) -> Message:
        match message:
            case Start():
                await self._start(message)
            case Prepare():
                async with self._preparing:
                    return await self._preparer.prepare(message.spec, message.learned)
            case Load():
                return await self._load(message)
            case Unload():
                self._preparer.unload(message.name)
            case Commit():
                self._preparer.commit(message.revision)
                if not self._is_listening:
                    self._is_listening = True
                    await self._server.start(self._listening[self._index].dup())
                _settle_memory()
            case Abort():
                self._preparer.abort(message.revision)
            case Collect():
                return Collected(totals=self._totals())
            case ReloadTls():
                if self._context is not None:
                    reload(self._context, message.pair)
            case Cover():
                await self._server.cover({index: self._listening[index] for index in message.scorers})
            case WorkerGone():
                self._preparer.worker_gone(message.pool, message.worker)
            case Drain():
                await self._drain(message)
            case _:
                raise ValueError(f"a scorer does not answer {type(message).__name__}")
        return Done()

    async def _start(self, start: Start) -> None:
        settings = start.settings
        self._settings = settings
        self._index = start.index
        configure(settings.log_level, settings.log_format)
        loop = asyncio.get_running_loop()
        scheduler = LoopScheduler(loop)
        self._record = ScorerRecord()
        cell = SnapshotCell()
        self._preparer = Preparer(
            cell=cell,
            record=self._record,
            seats=SeatTable(self._seats_fd, settings.scorers),
            index=start.index,
            scorers=settings.scorers,
            scheduler=scheduler,
            pools=WorkerPools(sockets=self._sockets, recycle=self._recycle) if self._inbox is not None else None,
            captures=self._captures(settings),
            opening=self._tell_opening,
        )
        if settings.tls is not None:
            self._context = make_context(settings.tls, settings.tls_profile)
        options = ScoringOptions(
            gzip=settings.gzip,
            timeout_status=settings.timeout_status,
            mirror_in_flight_max=settings.mirror_in_flight_max,
        )
        scoring = Scoring(options, scheduler)
        pages = documents(cell, scoring, self._record, self._gather, settings.version)
        app = ScoringApp(cell, scoring, pages, settings.domain)
        self._server = HttpServer(app, settings.http, self._context, ScoringLane(cell, scoring, settings.domain))

    def _captures(self, settings: ScorerSettings) -> Captures | None:
        given = settings.collection
        if given is None:
            return None
        self._writer = writer_of(Path(given.folder), f"scorer-{self._index}", given.bytes_max, given.queue_bytes_max)
        return Captures(self._writer, f"inference-gateway/{settings.version}")

    async def _load(self, load: Load) -> Message:
        """Beside whatever change is under way: only the loader's thread is shared."""
        try:
            return await self._preparer.load(load.name, load.deployment, load.learned)
        except LoadFailed as error:
            return Failed(str(error))

    def _totals(self) -> ScorerTotals:
        """The counters, with the gauges as they are now."""
        self._preparer.measure()
        self._record.connections_open = self._server.connections
        self._record.edge_refused(self._server.edge.refused)
        return self._record.snapshot()

    async def _sockets(self, pool: str) -> tuple[socket.socket, socket.socket]:
        """Where a pool's work goes to and its replies come from. Errors: TimeoutError."""
        assert self._inbox is not None
        work, replies = await self._inbox.wait_for(pool, SOCKETS_TIMEOUT_S)
        return work, replies

    async def _tell_opening(self, name: str) -> None:
        """Returns once the supervisor knows: from then on it allows for silence."""
        await self._channel.call(Opening(name=name))

    def _recycle(self, pool: str, worker: int, request: int) -> None:
        """Tell the supervisor of a worker that hangs."""
        telling = asyncio.create_task(self._tell(Recycle(pool=pool, worker=worker, request=request)))
        self._recycling.add(telling)
        telling.add_done_callback(self._recycling.discard)

    async def _tell(self, message: Recycle) -> None:
        try:
            await self._channel.call(message, RECYCLE_TIMEOUT_S)
        except (ChannelClosed, RemoteFailed, TimeoutError) as error:
            # The supervisor looks after hung workers by itself too.
            log.warning("the supervisor did not hear of a hung worker of %s: %s", message.pool, error)

    async def _gather(self) -> Collected:
        """All scorers' counters, summed by the supervisor."""
        answer = await self._channel.call(Gather(), timeout_s=5)
        assert isinstance(answer, Collected)
        return answer

    async def _drain(self, drain: Drain) -> None:
        self._server.edge.draining = True
        await asyncio.sleep(drain.grace_s)
        finished = await self._server.drain(drain.timeout_s)
        if not finished:
            log.warning("requests were cut off: they were still running %g s after the drain", drain.timeout_s)
        if self._writer is not None:
            # An answer is queued in the turn after it has left. Once this is answered the process may be killed.
            await asyncio.sleep(0)
            if not await asyncio.to_thread(self._writer.close, drain.flush_s):
                log.warning("collected data is lost: the disk did not take it within %g s", drain.flush_s)


def _settle_memory() -> None:
    """What is loaded stays: the collector need not look at it again, which would stall requests for milliseconds."""
    gc.collect()
    gc.freeze()


async def _main(fds: list[int]) -> None:
    seats_fd, *rest = fds
    channel, descriptors, *listening = [socket.socket(fileno=fd) for fd in rest]
    for sock in (channel, *listening):
        sock.setblocking(False)
    await Scorer(listening, seats_fd, descriptors).run(channel)


def main(_: dict[str, str], fds: list[int]) -> None:
    """As child.py calls it. Descriptors: the table of seats, the channel, what the sockets of script workers come
    through, and the listening socket of each scorer."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GC_THRESHOLD)
    uvloop.run(_main(fds))
    # A loader or instance thread may be inside a run that never ends; the interpreter would wait for it.
    logging.shutdown()
    os._exit(0)

"""The messages between the supervisor and a scorer, and the Unix socket they travel over.

Why: a change is two-phase (prepare, commit) and metrics are summed in one place; both need typed messages, and live
runtimes never travel. Either side calls the other: a call carries a number, its answer repeats it.
Units: frames of a 4-byte big-endian length and that many bytes of MessagePack; at most FRAME_BYTES_MAX.
Errors: ChannelClosed when the other side is gone; RemoteFailed when it answered with a failure; TooLarge for what the
other side would not read, which is not sent.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from gateway.listener import HttpLimits
from gateway.snapshot import DeploymentSpec, LearnedByName, SnapshotSpec
from gateway.telemetry.totals import ScorerTotals
from gateway.tls import Pair, Profile
from runtimes import Learned

log = logging.getLogger(__name__)

FRAME_BYTES_MAX = 64 * 1024 * 1024


class CollectionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process puts what it collects, and how much of it may wait, and lie on the disk."""

    folder: str
    bytes_max: int
    queue_bytes_max: int


class ScorerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What of the process's settings a scorer needs. No `tls` means plain http; no `collection`, that nothing is
    collected."""

    scorers: int
    http: HttpLimits
    tls: Pair | None
    tls_profile: Profile
    domain: str
    gzip: bool
    timeout_status: int
    mirror_in_flight_max: int
    version: str
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["text", "json"]
    collection: CollectionSettings | None = None


class Start(msgspec.Struct, frozen=True, tag=True):
    """First message to a scorer: who it is and how it runs."""

    index: int
    settings: ScorerSettings


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """Load what the snapshot names, with what is known already; publish nothing yet."""

    spec: SnapshotSpec
    learned: LearnedByName


class Loaded(msgspec.Struct, frozen=True):
    """Facts about one loaded deployment, for status and metrics."""

    load_s: float
    provider: str
    sha256: str


class Prepared(msgspec.Struct, frozen=True, tag=True):
    """`failures` names each deployment that could not be loaded, with one sentence why."""

    revision: int
    learned: LearnedByName
    failures: dict[str, str]
    loaded: dict[str, Loaded]


class Load(msgspec.Struct, frozen=True, tag=True):
    """Load the runtime of "endpoint/deployment", with what is known already, and hold it aside until a snapshot with
    it is prepared. One name is loaded or held once: a later load of it takes the place of the earlier. Answered with
    LoadDone, or Failed with the reason."""

    name: str
    deployment: DeploymentSpec
    learned: Learned | None


class LoadDone(msgspec.Struct, frozen=True, tag=True):
    """It is held aside, proven and warm; or it is served already."""

    learned: Learned
    loaded: Loaded


class Unload(msgspec.Struct, frozen=True, tag=True):
    """Forget what is loaded or held aside under this name; what is served stays."""

    name: str


class Commit(msgspec.Struct, frozen=True, tag=True):
    """Publish the prepared snapshot and drain what it no longer names."""

    revision: int


class Abort(msgspec.Struct, frozen=True, tag=True):
    """Forget the prepared snapshot; what is served stays."""

    revision: int


class Collect(msgspec.Struct, frozen=True, tag=True):
    """Ask for the scorer's counters."""


class Collected(msgspec.Struct, frozen=True, tag=True):
    totals: ScorerTotals


class Gather(msgspec.Struct, frozen=True, tag=True):
    """A scorer asks the supervisor for the counters of all scorers, summed."""


class ReloadTls(msgspec.Struct, frozen=True, tag=True):
    """Give new handshakes this certificate; open connections go on."""

    pair: Pair


class Cover(msgspec.Struct, frozen=True, tag=True):
    """Accept connections for these scorers as well, and for no others any more: they cannot do so themselves now."""

    scorers: tuple[int, ...]


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Go on accepting for `grace_s`, then stop, finish within `timeout_s`, write what was collected within `flush_s`,
    answer, and exit."""

    grace_s: float
    timeout_s: float
    flush_s: float = 5.0


class WorkerGone(msgspec.Struct, frozen=True, tag=True):
    """A worker of a script's pool has ended: what it had taken fails."""

    pool: str
    worker: int


class Recycle(msgspec.Struct, frozen=True, tag=True):
    """A scorer tells the supervisor of a worker that still runs this request, long after its deadline."""

    pool: str
    worker: int
    request: int


class Opening(msgspec.Struct, frozen=True, tag=True):
    """A scorer tells the supervisor, before it answers a Prepare, that it now opens what is missing of
    "endpoint/deployment". Until it tells of the next or answers, it may be silent."""

    name: str


class Done(msgspec.Struct, frozen=True, tag=True):
    """It is done."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """It is not done, and why."""

    reason: str


Message = (
    Start
    | Prepare
    | Prepared
    | Load
    | LoadDone
    | Unload
    | Commit
    | Abort
    | Collect
    | Collected
    | Gather
    | ReloadTls
    | Cover
    | Drain
    | WorkerGone
    | Recycle
    | Opening
    | Done
    | Failed
)


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """`answer_to` is the number of the call this answers, 0 for a call."""

    number: int
    answer_to: int
    message: Message


class ChannelClosed(Exception):
    """The process at the other end is gone."""


class RemoteFailed(Exception):
    """The other end answered with a failure; the text is its reason."""


class TooLarge(RemoteFailed):
    """The message has more bytes than a frame may have: nothing was sent, and the other end goes on."""


class ScorerDied(Exception):
    """A scorer process ended while it was needed."""


class LoadOverdue(RemoteFailed):
    """A scorer was opening this deployment's model for too long, and its process was ended."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"deployment {name}: {reason}")
        self.name = name
        self.reason = reason


Handler = Callable[[Message], Awaitable[Message]]


class Channel:
    """One end. `serve` reads until the other end closes; `call` may be used meanwhile from the same loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._handling: set[asyncio.Task[None]] = set()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Frame)
        self._closed = False

    @classmethod
    async def over(cls, sock: socket.socket, handler: Handler) -> Channel:
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=FRAME_BYTES_MAX)
        return cls(reader, writer, handler)

    async def call(self, message: Message, timeout_s: float | None = None) -> Message:
        """Send and wait for the answer. Errors: ChannelClosed, RemoteFailed, TooLarge, TimeoutError."""
        if self._closed:
            raise ChannelClosed("the channel is closed")
        number = next(self._numbers)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._send(Frame(number, 0, message))
            async with asyncio.timeout(timeout_s):
                reply = await answer
        finally:
            self._waiting.pop(number, None)
        if isinstance(reply, Failed):
            raise RemoteFailed(reply.reason)
        return reply

    async def serve(self) -> None:
        """Read frames until the other end closes; every open call then fails with ChannelClosed."""
        try:
            while True:
                header = await self._reader.readexactly(4)
                size = int.from_bytes(header, "big")
                if size > FRAME_BYTES_MAX:
                    raise ChannelClosed(f"a frame of {size} bytes; at most {FRAME_BYTES_MAX} are accepted")
                self._receive(self._decoder.decode(await self._reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        except (ChannelClosed, msgspec.DecodeError):
            log.exception("what the other process sent cannot be read; its channel is closed")
        finally:
            self.close()

    def close(self) -> None:
        self._closed = True
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ChannelClosed("the process at the other end is gone"))
        self._writer.close()

    def _receive(self, frame: Frame) -> None:
        if frame.answer_to:
            answer = self._waiting.get(frame.answer_to)
            # A call that timed out has nobody waiting any more: its late answer is dropped.
            if answer is not None and not answer.done():
                answer.set_result(frame.message)
            return
        task = asyncio.create_task(self._handle(frame))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    async def _handle(self, frame: Frame) -> None:
        try:
            reply = await self._handler(frame.message)
        except Exception as error:
            log.exception("%s failed", type(frame.message).__name__)
            reply = Failed(f"{type(error).__name__}: {error}")
        if self._closed:
            return
        try:
            self._send(Frame(next(self._numbers), frame.number, reply))
        except TooLarge as error:
            log.error("an answer is not sent: %s", error)
            self._send(Frame(next(self._numbers), frame.number, Failed(str(error))))

    def _send(self, frame: Frame) -> None:
        payload = self._encoder.encode(frame)
        if len(payload) > FRAME_BYTES_MAX:
            name = type(frame.message).__name__
            raise TooLarge(
                f"{name} of {len(payload)} bytes; a message between processes has at most {FRAME_BYTES_MAX}"
            )
        self._writer.write(len(payload).to_bytes(4, "big") + payload)

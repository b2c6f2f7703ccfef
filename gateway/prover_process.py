"""The way to the prover (prover.py): started when a model is to be proven, ended when none is for a while.

Promise: one model at a time. A process that dies, outstays its time, or runs what nobody waits for any more is
ended, and the next model gets a new one.
Units: *_s seconds.
Errors: RemoteFailed with the reason why a model cannot be loaded.
"""

from __future__ import annotations

import asyncio
import logging
import socket

from gateway.channel import Channel, ChannelClosed, Load, LoadDone, Message, RemoteFailed
from gateway.child import Child
from gateway.snapshot import DeploymentSpec

log = logging.getLogger(__name__)

IDLE_S = 30.0


class Prover:
    """One gateway's."""

    def __init__(self, log_level: str, log_format: str, *, limit_s: float, idle_s: float = IDLE_S) -> None:
        """`limit_s`: how long one model may take."""
        self._told = {"log_level": log_level, "log_format": log_format}
        self._limit_s = limit_s
        self._idle_s = idle_s
        self._turn = asyncio.Lock()
        self._process: Child | None = None
        self._channel: Channel | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._dying: set[asyncio.Task[int]] = set()

    @property
    def pid(self) -> int:
        """0 where no process runs."""
        process = self._process
        return process.pid if process is not None and not process.has_ended else 0

    async def prove(self, name: str, deployment: DeploymentSpec) -> LoadDone | None:
        """What there is to know of a model; None: its process died meanwhile. Errors: RemoteFailed, OSError."""
        async with self._turn:
            self._stay()
            if not self.pid:
                # It may have been ended while it had nothing to do.
                self._end()
            try:
                channel = self._channel or await self._start()
                answer = await channel.call(Load(name=name, deployment=deployment, learned=None), self._limit_s)
            except RemoteFailed:
                raise
            except ChannelClosed:
                log.warning("the prover ended while it proved %s", name)
                self._end()
                return None
            except TimeoutError as error:
                self._end()
                text = f"it was not loaded within {self._limit_s:g} s (setting load_timeout_s)"
                raise RemoteFailed(text) from error
            except BaseException:
                # Nobody waits for it any more, and nothing but its end ends a run.
                self._end()
                raise
            finally:
                self._ending = asyncio.get_running_loop().call_later(self._idle_s, self._end)
        assert isinstance(answer, LoadDone)
        return answer

    async def close(self) -> None:
        """End the process, and wait until it and those before it have ended."""
        self._stay()
        self._end()
        await asyncio.gather(*self._dying)

    async def _start(self) -> Channel:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = Child.begin("gateway.prover")
            self._process.tell(self._told, (theirs.fileno(),))
        ours.setblocking(False)
        self._channel = await Channel.over(ours, _asks_nothing)
        self._reading = asyncio.create_task(self._channel.serve())
        return self._channel

    def _stay(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _end(self) -> None:
        process, self._process = self._process, None
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        if process is not None and not process.has_ended:
            process.kill()
            dying = asyncio.create_task(process.wait())
            self._dying.add(dying)
            dying.add_done_callback(self._dying.discard)


async def _asks_nothing(message: Message) -> Message:
    raise ValueError(f"the prover asks for nothing, and not for {type(message).__name__}")

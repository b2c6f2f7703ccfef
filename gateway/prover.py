"""The prover: a process that opens, proves and measures models before any scorer does. Started by the supervisor.

Why: that is most of the work of a load, and a scorer that did it would answer meanwhile with what processor time is
left. This process runs after everybody else, so that scores are not slower for it; and a model that ends processes
ends this one. The scorers then open what is known already.
It ends when its channel is closed, whatever it runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path

import uvloop

from gateway.channel import Channel, Failed, Load, Message
from gateway.dataplane.load import prove
from gateway.scheduling import yield_at_once
from gateway.telemetry.logs import configure
from runtimes import LoadFailed

log = logging.getLogger(__name__)

# Low enough that the kernel lets whoever scores go first as soon as there is something to score.
NICE = 10
# Where memory runs out, the kernel shall end this and not what serves.
OOM_SCORE = 500


async def handle(message: Message) -> Message:
    """Beside the loop, so that the end of the channel is seen while a model runs."""
    if not isinstance(message, Load):
        raise ValueError(f"the prover does not answer {type(message).__name__}")
    try:
        return await asyncio.to_thread(prove, message.name, message.deployment)
    except LoadFailed as error:
        return Failed(str(error))


def _go_last() -> None:
    os.nice(NICE)
    yield_at_once(heirs=True)
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    except OSError as error:
        log.debug("the kernel takes no wish for who ends first when memory runs out: %s", error)


async def _main(channel_fd: int) -> None:
    sock = socket.socket(fileno=channel_fd)
    sock.setblocking(False)
    await (await Channel.over(sock, handle)).serve()


def main(told: dict[str, str], fds: list[int]) -> None:
    """As child.py calls it. Told: log_level and log_format; the one descriptor is the channel."""
    configure(told["log_level"], told["log_format"])
    _go_last()
    uvloop.run(_main(*fds))
    # A model may be inside a run that never ends; the interpreter would wait for it.
    logging.shutdown()
    os._exit(0)

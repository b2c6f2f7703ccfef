"""The processes of ours that run models: begun early, told later what they are to be.

Why: an interpreter with all that such a process imports takes longer to begin than anything else of a start. Begun
before the supervisor has imported itself, it does so on another core meanwhile.
How: `python -m gateway.child MODULE FD` imports the module, waits on the socket for what it is told and for the
descriptors that come with it, and calls the module's `main(told, fds)`. One that is told nothing ends when the other
side of the socket is gone.
Units: none.
Errors: OSError where a process cannot be started, or has ended before it was told.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

MASTER_KEYS = ("GATEWAY_MASTER_KEY", "GATEWAY_MASTER_KEY_OLD")
# A Ctrl-C in the terminal reaches the whole group; only the supervisor decides what it means.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STDERR_FD = 2
# The kernel passes at most 253 at once.
_FDS_AT_ONCE = 200
_TOLD_BYTES_MAX = 4096


def environment() -> dict[str, str]:
    """The supervisor's own; what runs models has no use for what seals the store's secrets."""
    return {name: value for name, value in os.environ.items() if name not in MASTER_KEYS}


class Child:
    """One process; `begin` it, then `tell` it once."""

    def __init__(self, process: subprocess.Popen[bytes], way: socket.socket) -> None:
        self._process = process
        self._way = way

    @classmethod
    def begin(cls, module: str) -> Child:
        """Start it, and go on at once. Errors: OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # It is born with these held back, until it has said that it leaves them alone.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            process = subprocess.Popen(
                # -P: the folder that the gateway was started in is no place to import from.
                (sys.executable, "-P", "-m", "gateway.child", module, str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                # stdout is the supervisor's alone; whatever a native library prints is a log.
                stdout=_STDERR_FD,
                env=environment(),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            theirs.close()
        return cls(process, ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def tell(self, told: Mapping[str, str], fds: Sequence[int]) -> None:
        """What it is to be; it gets copies of the descriptors. Errors: OSError where it has ended."""
        text = json.dumps({"told": dict(told), "fds": len(fds)}).encode()
        with self._way as way:
            try:
                for at in range(0, max(len(fds), 1), _FDS_AT_ONCE):
                    socket.send_fds(way, [text], list(fds[at : at + _FDS_AT_ONCE]))
            except OSError as error:
                raise ChildProcessError(f"process {self.pid} ended as it began") from error

    def kill(self) -> None:
        """End it now; harmless where it has ended. `wait` for it."""
        self._way.close()
        self._process.kill()

    async def wait(self) -> int:
        """Its exit status once it has ended, a signal's number as a negative one."""
        while (status := self._process.poll()) is None:
            await _ended(self._process.pid)
        return status


async def _ended(pid: int) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    # Readable once it has ended. Nobody but `poll` takes its number from it, so it is there until then.
    fd = os.pidfd_open(pid)
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


# What runs in the process.


def main() -> None:
    """Never told: returns."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    module, fd = sys.argv[1], int(sys.argv[2])
    # Nothing that is imported is garbage, and looking for some takes a tenth of the time.
    gc.disable()
    run = importlib.import_module(module).main
    gc.enable()
    told = _heard(socket.socket(fileno=fd))
    if told is not None:
        run(*told)


def _heard(way: socket.socket) -> tuple[dict[str, str], list[int]] | None:
    """None: nobody is there who would tell."""
    found: list[int] = []
    with way:
        while True:
            text, fds, _, _ = socket.recv_fds(way, _TOLD_BYTES_MAX, _FDS_AT_ONCE)
            if not text:
                return None
            for fd in fds:
                os.set_inheritable(fd, False)
            found += fds
            message = json.loads(text)
            if len(found) >= message["fds"]:
                return message["told"], found


if __name__ == "__main__":
    main()

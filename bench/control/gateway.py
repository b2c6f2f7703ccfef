"""The gateway as a process that is started, killed and started again on the same state and the same addresses.

Each start is a session of its own, so that what it leaves behind can be told from everything else on the machine.
The addresses are chosen once: a supervisor that is restarted meets the sockets of the scorers it left.
Units: seconds. Errors: StartFailed with the end of the log.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0
LOG_END_BYTES = 3000
# Below the ports that the kernel gives to clients.
PORTS = (20_000, 30_000)


class StartFailed(Exception):
    """The gateway did not become ready."""


class Gateway:
    """One state folder. `urls` are those of the ready line, by name; with `ca`."""

    def __init__(
        self,
        work: Path,
        *,
        scorers: int = 2,
        options: Sequence[str] = (),
        cores: Sequence[int] = (),
    ) -> None:
        self.state = work / "state"
        self.log = work / "gateway.log"
        self.urls: dict[str, str] = {}
        self._cores = list(cores)
        scoring, management, telemetry = free_ports(3)
        self._command = [
            *(sys.executable, "-m", "gateway", "serve", "--state", str(self.state), "--scorers", str(scorers)),
            *("--scoring", f"https://127.0.0.1:{scoring}", "--management", f"https://127.0.0.1:{management}"),
            *("--telemetry", f"http://127.0.0.1:{telemetry}", "--drain-grace-s", "0", *options),
        ]
        self._process: asyncio.subprocess.Process | None = None
        self._began_s = 0.0
        self._sessions: list[int] = []

    @property
    def token(self) -> str:
        return (self.state / "management.token").read_text().strip()

    async def spawn(self) -> None:
        clean = {name: text for name, text in os.environ.items() if not name.startswith("GATEWAY_")}
        self._began_s = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=clean,
                start_new_session=True,
            )
        if self._cores:
            os.sched_setaffinity(self._process.pid, self._cores)
        self._sessions.append(self._process.pid)

    async def ready(self) -> float:
        """Seconds from the start of the process to its ready line. Errors: StartFailed."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), READY_WITHIN_S)
        except TimeoutError:
            line = b""
        took_s = time.monotonic() - self._began_s
        words = line.decode().split()
        if words[:1] != ["ready"]:
            await self.kill()
            raise StartFailed(f"not ready after {took_s:.1f} s; the log ends:\n{self.log_end()}")
        self.urls = dict(word.split("=", 1) for word in words[1:])
        return took_s

    async def start(self) -> float:
        await self.spawn()
        return await self.ready()

    async def kill(self) -> None:
        """SIGKILL to the supervisor alone; its scorers are left to themselves."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """By its own verb. The exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self._process.wait(), STOP_WITHIN_S)
        except TimeoutError:
            await self.kill()
            raise

    def left_behind(self) -> list[int]:
        """Living processes of starts before the present one."""
        return _members(set(self._sessions[:-1]))

    def family(self) -> list[int]:
        """Living processes of all starts."""
        return _members(set(self._sessions))

    def end_family(self) -> None:
        """Nothing that was started here outlives the proof."""
        for pid in self.family():
            os.kill(pid, signal.SIGKILL)

    def log_end(self) -> str:
        return self.log.read_bytes()[-LOG_END_BYTES:].decode(errors="replace")


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now, the same for every start that follows."""
    found: list[int] = []
    chance = random.SystemRandom()
    while len(found) < count:
        port = chance.randrange(*PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def _members(sessions: set[int]) -> list[int]:
    """Processes of these sessions that are not only waiting to be forgotten."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) in sessions and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return found

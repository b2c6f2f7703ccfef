"""A peer's processes: started on given cores, found again whatever they fork, paused, counted and ended, by pid.

Why: some peers start daemons that leave their parent. Each start carries a mark in its environment, which every
descendant inherits, so that all of them are found in /proc.
Units: seconds of processor time. Source: /proc; Linux only.
Errors: NotReady with the last line of the peer's log.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "BENCH_PEER_MARK"
STOP_WITHIN_S = 8.0
POLL_S = 0.1
ERROR_WORDS = ("Error", "error:", "ERROR", "Exception", "failed", "not found", "No such")
REASON_CHARACTERS = 300


class NotReady(Exception):
    """A peer that ended, or gave no right answer in time; the message is the reason that is listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    process: subprocess.Popen[bytes]
    mark: str
    log: Path

    def pids(self) -> list[int]:
        """Every living process of this start."""
        wanted = f"{MARK}={self.mark}".encode()
        return [pid for pid in _all_pids() if pid == self.process.pid or wanted in _environment(pid)]

    def cpu_s(self) -> float:
        """What the living ones have used so far."""
        return sum(_used_s(pid) for pid in self.pids())

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def ask_to_end(self) -> None:
        self.go_on()
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        """Asks the first process, waits, then ends what is left."""
        self.ask_to_end()
        deadline = time.monotonic() + STOP_WITHIN_S
        while self.pids() and time.monotonic() < deadline:
            self.process.poll()
            time.sleep(POLL_S)
        self._signal(signal.SIGKILL)
        self.process.wait(timeout=STOP_WITHIN_S)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                # It ended since it was listed.
                continue


def start(
    command: Sequence[str], environment: Mapping[str, str], *, cores: Sequence[int], cwd: Path, log: Path
) -> Running:
    """Errors: NotReady where the program cannot be executed."""
    mark = secrets.token_hex(8)
    wanted = set(cores)
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment, MARK: mark},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, wanted),
            )
    except OSError as error:
        raise NotReady(f"{command[0]}: {error.strerror}") from error
    return Running(process=process, mark=mark, log=log)


def await_ready(running: Running, within_s: float, probe: Callable[[], str]) -> None:
    """`probe` says what is amiss, or nothing. Errors: NotReady."""
    deadline = time.monotonic() + within_s
    amiss = "it was never asked"
    while time.monotonic() < deadline:
        amiss = probe()
        if not amiss:
            return
        if running.process.poll() is not None and len(running.pids()) == 0:
            raise NotReady(f"ended with {running.process.returncode}: {reason_of(running.log)}")
        time.sleep(POLL_S)
    raise NotReady(f"not ready within {within_s:.0f} s ({amiss}): {reason_of(running.log)}")


def reason_of(log: Path) -> str:
    return last_error(log.read_text(errors="replace")) if log.exists() else "it wrote nothing"


def last_error(text: str) -> str:
    """The last line that speaks of an error, else the last line at all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in ERROR_WORDS)]
    return (telling or lines or ["it wrote nothing"])[-1][:REASON_CHARACTERS]


def free_ports(count: int) -> tuple[int, ...]:
    """Ports that nobody listens on now; they are given back all at once, so that none comes twice."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)
    finally:
        for one in sockets:
            one.close()


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        # It ended, or belongs to somebody else.
        return b""


def _used_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""The real gateway as a child process: started, asked for its keys, and stopped.

Errors: StartFailed with the end of the gateway's log where it does not become ready.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from examples.digits.run import parse_ready

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0
LOG_END_BYTES = 4000
COMMAND = (sys.executable, "-m", "gateway")


class StartFailed(Exception):
    """The gateway did not become ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    pid: int
    host: str
    port: int
    ca: str
    state: Path

    def key(self, endpoint: str) -> str:
        answer = subprocess.run(
            [*COMMAND, "keys", endpoint, "--state", str(self.state)], check=True, stdout=subprocess.PIPE
        )
        return str(json.loads(answer.stdout)["primaryKey"])


@contextmanager
def serving(apply: Path, work: Path, *, tls: bool, scorers: int, cores: list[int]) -> Iterator[Running]:
    """Serves a folder on free ports until the block ends; `cores` empty means all."""
    state = work / "state"
    scheme = "https" if tls else "http"
    command = [*COMMAND, "serve", "--apply", str(apply), "--state", str(state), "--scorers", str(scorers)]
    command += ["--scoring", f"{scheme}://127.0.0.1:0", "--management", "https://127.0.0.1:0"]
    command += ["--telemetry", "http://127.0.0.1:0"]
    log = work / "gateway.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )
    with process:
        try:
            yield _await_ready(process, state, log)
        finally:
            _stop(process)


def _await_ready(process: subprocess.Popen[str], state: Path, log: Path) -> Running:
    # The line is read without a bound; the timer ends a gateway that never says it.
    timer = threading.Timer(READY_WITHIN_S, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            ready = parse_ready(line)
            if ready is not None:
                url = urlsplit(ready.scoring)
                assert url.hostname is not None and url.port is not None
                ca = ready.ca if url.scheme == "https" else ""
                return Running(pid=process.pid, host=url.hostname, port=url.port, ca=ca, state=state)
    finally:
        timer.cancel()
    end = log.read_bytes()[-LOG_END_BYTES:].decode(errors="replace")
    raise StartFailed(f"the gateway ended or was not ready within {READY_WITHIN_S:.0f} s; its log ends:\n{end}")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()

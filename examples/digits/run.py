"""Starts the gateway with the digits and prints how to score: `make run`.

Why: the ready line of `gateway serve` is for programs; a person wants a line that can be pasted.
What is printed goes to stdout; the gateway's own log stays on stderr. Arguments are handed to `gateway serve`.
The gateway runs in a process group of its own, so that Ctrl-C reaches it once, through us, and it can drain.
Errors: the gateway's own exit status is ours; it has said why on stderr.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ENDPOINT = "digits"
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
READY = re.compile(
    r"ready scoring=(?P<scoring>\S+) management=(?P<management>\S+) telemetry=(?P<telemetry>\S+) ca=(?P<ca>.*)"
)


class Ready(NamedTuple):
    """The ready line in parts; `ca` is empty where the scoring listener has no TLS."""

    scoring: str
    management: str
    telemetry: str
    ca: str


def parse_ready(line: str) -> Ready | None:
    match = READY.fullmatch(line.rstrip("\n"))
    return Ready(**match.groupdict()) if match else None


def curl_line(ready: Ready, key: str, body: Path) -> str:
    """One line for a shell, with whole paths: it works wherever it is pasted."""
    words = ["curl"]
    if ready.scoring.startswith("https:"):
        words += ["--cacert", str(Path(ready.ca).absolute())]
    words += ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
    words += ["--data", f"@{body.absolute()}", f"{ready.scoring}/endpoints/{ENDPOINT}/score"]
    return shlex.join(words)


def instructions(ready: Ready, key: str) -> str:
    ca = f"CA file      {Path(ready.ca).absolute()}\n" if ready.ca else ""
    return (
        f"\nThe demo is ready. Ctrl-C stops it.\n\n"
        f"Scoring URI  {ready.scoring}/endpoints/{ENDPOINT}/score\n"
        f"Key          {key}\n"
        f"{ca}"
        f"Metrics      {ready.telemetry}/metrics\n\n"
        f"Paste this into another terminal:\n\n"
        f"{curl_line(ready, key, HERE / 'sample-request.json')}\n"
    )


def primary_key(gateway: Sequence[str], state: str | None) -> str:
    where = ["--state", state] if state else []
    command = [*gateway, "keys", ENDPOINT, *where]
    answer = subprocess.run(command, check=False, stdout=subprocess.PIPE, process_group=0)
    if answer.returncode != 0:
        sys.exit(f"{shlex.join(command)} gave no key (exit status {answer.returncode}); the demo is stopped")
    return str(json.loads(answer.stdout)["primaryKey"])


def state_of(arguments: Sequence[str]) -> str | None:
    """The value of --state among the arguments; None where the gateway takes its own default."""
    for i, argument in enumerate(arguments):
        if argument == "--state" and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith("--state="):
            return argument.removeprefix("--state=")
    return None


def run(gateway: Sequence[str], arguments: Sequence[str]) -> int:
    """Serve until the gateway ends; its exit status, as a shell counts it."""
    command = [*gateway, "serve", "--apply", str(HERE), *arguments]
    signals = _Signals()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, process_group=0
    ) as process:
        signals.forward_to(process)
        try:
            _tell(process, lambda: primary_key(gateway, state_of(arguments)))
        finally:
            # Nothing to end where it has ended; else the reading failed, and nobody else would end it.
            process.terminate()
        status = process.wait()
    return 128 - status if status < 0 else status


def _tell(process: subprocess.Popen[str], key: Callable[[], str]) -> None:
    """Passes on what the gateway prints until it ends, with the ready line told for people."""
    assert process.stdout is not None
    for line in process.stdout:
        ready = parse_ready(line)
        print(instructions(ready, key()) if ready else line.rstrip("\n"), flush=True)


class _Signals:
    """Hands signals on to the gateway; one that comes before it has started is kept for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._early: list[int] = []
        for number in FORWARDED:
            signal.signal(number, self._on_signal)

    def forward_to(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        for number in self._early:
            process.send_signal(number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)


def main() -> None:
    # The gateway of this interpreter's environment: the one `make` has just installed, whatever PATH says.
    gateway = [sys.executable, "-m", "gateway"]
    sys.exit(run(gateway, sys.argv[1:]))


if __name__ == "__main__":
    main()

"""A real script worker for tests: a process over real sockets, and the test in the place of scorer and crew."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from runtimes.script.worker_lib.igw_worker import wire
from runtimes.script.worker_lib.igw_worker.parcel import Part, pack
from tests.support.waiting import PATIENCE_S

WORKER_LIB = Path(wire.__file__).parent.parent
_COMMAND = "import sys; sys.path.insert(0, {!r}); from igw_worker.main import main; main()"


def write_script(folder: Path, text: str, name: str = "score.py") -> Path:
    """The text as a script in a folder; init() is added where the text has none."""
    text = textwrap.dedent(text)
    if "def init" not in text:
        text += "\ndef init():\n    pass\n"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def head(method: str = "POST", target: str = "/score", headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    lines = [["host", "localhost"], *([name, value] for name, value in (headers or {}).items())]
    return {"method": method, "target": target, "headers": lines, "request_id": "r", "client_request_id": ""}


def sockets(kind: int) -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, kind)


class Worker:
    """One worker of a pool, with the sockets of one scorer and its crew."""

    def __init__(
        self,
        folder: Path,
        *,
        number: int = 0,
        script: str = "score.py",
        environment: Mapping[str, str] | None = None,
        pool: Worker | None = None,
        python: str = sys.executable,
        pass_fds: Sequence[int] = (),
        **config: Any,
    ) -> None:
        self.number = number
        self.work: socket.socket
        self.work_end: socket.socket
        self.replies: socket.socket
        self.replies_end: socket.socket
        self.work, self.work_end = (pool.work, pool.work_end) if pool else sockets(socket.SOCK_SEQPACKET)
        self.replies, self.replies_end = (pool.replies, pool.replies_end) if pool else sockets(socket.SOCK_SEQPACKET)
        self.control, control_end = sockets(socket.SOCK_STREAM)
        self.control.settimeout(PATIENCE_S)
        self.log = folder / f"worker-{number}.log"
        ends = (self.work_end, self.replies_end, control_end)
        values = {
            "work_fd": self.work_end.fileno(),
            "reply_fds": [self.replies_end.fileno()],
            "control_fd": control_end.fileno(),
            "worker": number,
            "code_dir": str(folder),
            "scoring_script": script,
            "server_version": "test/1",
        }
        inherited = {name: os.environ[name] for name in ("PATH", "COVERAGE_PROCESS_START") if name in os.environ}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, "-c", _COMMAND.format(str(WORKER_LIB))],
                env={
                    **inherited,
                    **(environment or {}),
                    "IGW_WORKER_CONFIG": json.dumps(values | config),
                },
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[*(end.fileno() for end in ends), *pass_fds],
            )
        control_end.close()
        self._events = self.control.makefile("rb")

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._events.close()
        for sock in (self.control, self.work, self.work_end, self.replies, self.replies_end):
            sock.close()

    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self._events.readline())
        return event

    def ready(self) -> Worker:
        event = self.event()
        assert event["event"] == "ready", event
        return self

    def ask(self, body: bytes = b"", *, request_id: int = 1, deadline_ns: int = 0, **what: Any) -> None:
        wire.send(
            self.work, wire.REQUEST, request_id=request_id, deadline_ns=deadline_ns, head=head(**what), body=body
        )

    def ask_parcel(self, *parts: Part, request_id: int = 1) -> None:
        wire.send(self.work, wire.PARCEL, request_id=request_id, body=pack(parts))

    def next(self) -> wire.Frame:
        assert select.select([self.replies], [], [], PATIENCE_S)[0], f"no reply; log:\n{self.logged()}"
        frame = wire.receive(self.replies)
        assert frame is not None
        return frame

    def answer(self) -> wire.Frame:
        """The answer to the request that was asked last, after its `taken`."""
        taken = self.next()
        assert taken.kind == wire.TAKEN
        frame = self.next()
        assert frame.kind == wire.ANSWER
        assert frame.request_id == taken.request_id
        return frame

    def call(self, body: bytes = b"", **what: Any) -> wire.Frame:
        self.ask(body, **what)
        return self.answer()

    def stop(self) -> int:
        self.control.sendall(b'{"command": "stop"}\n')
        return self.process.wait(PATIENCE_S)

    def close_control(self) -> None:
        """As if the supervisor were gone."""
        self._events.close()
        self.control.close()

    def logged(self) -> str:
        return self.log.read_text()

    def wait_for_log(self, text: str) -> str:
        until = time.monotonic() + PATIENCE_S
        while text not in self.logged():
            assert time.monotonic() < until, f"{text!r} is not in the log:\n{self.logged()}"
            time.sleep(0.01)
        return self.logged()


def headers_of(frame: wire.Frame) -> dict[str, str]:
    lines: Sequence[tuple[str, str]] = frame.head["headers"]
    return dict(lines)


def value_of(frame: wire.Frame) -> Any:
    """An answer's body, as JSON."""
    return json.loads(bytes(frame.body))

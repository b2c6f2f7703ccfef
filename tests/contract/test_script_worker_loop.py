"""A worker's start and loop in the test's own process: what it is told stands in its sockets before it begins."""

from __future__ import annotations

import builtins
import io
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runtimes.script.worker_lib.igw_worker import main, state, wire
from runtimes.script.worker_lib.igw_worker.host import ScriptHost
from runtimes.script.worker_lib.igw_worker.logs import Prints
from runtimes.script.worker_lib.igw_worker.script import UserScript
from tests.support.waiting import PATIENCE_S

HEAD = {"method": "POST", "target": "/score", "headers": []}
STOP = b'{"command": "stop"}\n'


class Crew:
    """The other ends of a worker's sockets, and the worker."""

    def __init__(self, run: Any) -> None:
        self.state = os.memfd_create("state")
        os.ftruncate(self.state, state.RECORD_BYTES * 5)
        self.work, work = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.replies, replies = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control, control = socket.socketpair()
        config = main.Config(
            {
                "worker": 4,
                "state_fd": os.dup(self.state),
                "state_at": state.RECORD_BYTES * 4,
                "code_dir": ".",
                "scoring_script": "score.py",
                "work_fd": work.detach(),
                "control_fd": control.detach(),
                "reply_fds": [replies.detach()],
            }
        )
        module = ModuleType("entry_module")
        vars(module).update(init=lambda: None, run=run)
        self.ending = main.Ending(config.control)
        host = ScriptHost(UserScript("score.py", module), max_result_bytes=1000)
        self.worker = main.Worker(config, host, Prints(), self.ending)
        self.config = config

    def ask(self, body: bytes = b"", **frame: Any) -> None:
        wire.send(self.work, wire.REQUEST, request_id=7, head=HEAD, body=body, **frame)

    def replied(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        while True:
            try:
                frame = wire.receive(self.replies)
            except BlockingIOError:
                return found
            assert frame is not None
            assert (frame.request_id, frame.worker) == (7, 4)
            found.append((frame.kind, frame.head.get("status", 0)))

    def close(self) -> None:
        for sock in (self.work, self.replies, self.control):
            sock.close()
        self.config.close()
        self.ending.close()
        os.close(self.state)


@pytest.fixture
def crews() -> Iterator[list[Crew]]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGIO, signal.SIGALRM)}
    made: list[Crew] = []
    yield made
    for crew in made:
        crew.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def crew_of(crews: list[Crew], run: Any) -> Crew:
    crews.append(Crew(run))
    return crews[-1]


def test_requests_are_answered_until_a_stop(crews: list[Crew]) -> None:
    crew: Crew

    def run(raw: str) -> str:
        if raw == "last":
            crew.control.sendall(b"nonsense\n[]\n" + STOP)
        return raw

    crew = crew_of(crews, run)
    crew.ask(b"first")
    crew.ask(b"late", deadline_ns=time.monotonic_ns())
    wire.send(crew.work, wire.TAKEN, request_id=7)
    crew.ask(b"to nobody", scorer=1)
    crew.ask(b"last", deadline_ns=time.monotonic_ns() + 10**12)
    crew.ask(b"not taken")
    assert crew.worker.serve() == 0
    served = [(wire.TAKEN, 0), (wire.ANSWER, 200)]
    assert crew.replied() == [*served, (wire.EXPIRED, 0), *served]


def test_who_cannot_read_what_it_was_handed_over_ends(crews: list[Crew]) -> None:
    crew = crew_of(crews, lambda raw: raw)
    crew.work.send(b"nonsense")
    crew.ask()
    assert crew.worker.serve() == main.UNREADABLE
    assert crew.replied() == []


def test_what_runs_is_noted_for_the_crew_while_it_runs(crews: list[Crew]) -> None:
    crew: Crew
    noted = []

    def run(raw: str) -> None:
        noted.append(state.read(crew.state, state.RECORD_BYTES * 4))

    crew = crew_of(crews, run)
    crew.ask(deadline_ns=2**62)
    crew.work.shutdown(socket.SHUT_WR)
    assert crew.worker.serve() == 0
    assert noted == [(7, 2**62, 0)]
    assert state.read(crew.state, state.RECORD_BYTES * 4) == (0, 0, 0)


def test_a_stop_may_come_in_pieces_and_among_other_commands(crews: list[Crew]) -> None:
    crew: Crew

    def run(raw: str) -> str:
        crew.control.sendall(b'": "stop"}\n')
        return raw

    crew = crew_of(crews, run)
    crew.control.sendall(b'{"command": "other"}\n{"command')
    crew.ask()
    assert crew.worker.serve() == 0
    assert crew.replied() == [(wire.TAKEN, 0), (wire.ANSWER, 200)]


@pytest.mark.parametrize("gone", ["control", "work"])
def test_a_supervisor_that_is_gone_ends_the_worker(crews: list[Crew], gone: str) -> None:
    crew = crew_of(crews, lambda raw: raw)
    getattr(crew, gone).close()
    assert crew.worker.serve() == 0


def test_sigterm_lets_the_request_that_runs_be_answered(crews: list[Crew]) -> None:
    def run(raw: str) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return raw

    crew = crew_of(crews, run)
    crew.ending.watch()
    crew.ask()
    crew.ask()
    assert crew.worker.serve() == 0
    assert crew.replied() == [(wire.TAKEN, 0), (wire.ANSWER, 200)]


def test_an_orphan_gets_a_last_alarm_and_a_command_does_not_ring_it(
    crews: list[Crew], monkeypatch: pytest.MonkeyPatch
) -> None:
    alarms: list[float] = []
    monkeypatch.setattr(signal, "setitimer", lambda which, seconds: alarms.append(seconds))
    crew: Crew

    def run(raw: str) -> str:
        if raw == "command":
            crew.control.sendall(b"{}\n")
        else:
            crew.control.close()
            until = time.monotonic() + PATIENCE_S
            while not alarms and time.monotonic() < until:
                pass
        return raw

    crew = crew_of(crews, run)
    crew.ending.watch()
    crew.ask(b"command")
    crew.ask(b"gone")
    assert crew.worker.serve() == 0
    assert alarms == [main._ORPHAN_S]


def test_an_exit_of_the_script_is_the_workers(crews: list[Crew]) -> None:
    def run(raw: str) -> None:
        raise SystemExit(9)

    crew = crew_of(crews, run)
    crew.ask()
    assert crew.worker.serve() == 9
    assert crew.replied() == [(wire.TAKEN, 0), (wire.ANSWER, 500)]


def test_an_answer_that_cannot_be_handed_over_is_told(crews: list[Crew], monkeypatch: pytest.MonkeyPatch) -> None:
    crew = crew_of(crews, lambda raw: raw)
    send = wire.send

    def refuse(sock: socket.socket, kind: int, **frame: Any) -> None:
        if kind == wire.ANSWER and frame["head"]["status"] == 200:
            raise OSError(27, "File too large")
        send(sock, kind, **frame)

    monkeypatch.setattr(wire, "send", refuse)
    crew.ask()
    crew.control.sendall(b"{}\n")
    crew.work.shutdown(socket.SHUT_WR)
    assert crew.worker.serve() == 0
    assert crew.replied() == [(wire.TAKEN, 0), (wire.ANSWER, 500)]


def test_a_scorer_that_is_gone_or_never_reads_holds_nobody(
    crews: list[Crew], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "_REPLY_S", 0.01)
    crew = crew_of(crews, lambda raw: raw)
    with pytest.raises(BlockingIOError):
        while True:
            wire.send(crew.config.replies[0], wire.TAKEN, request_id=7, worker=4, body=b"x" * 16_000)
    crew.ask()
    crew.work.shutdown(socket.SHUT_WR)
    assert crew.worker.serve() == 0
    assert all(kind == wire.TAKEN for kind, _ in crew.replied())

    other = crew_of(crews, lambda raw: raw)
    other.replies.close()
    other.ask()
    other.control.sendall(STOP)
    other.work.shutdown(socket.SHUT_WR)
    assert other.worker.serve() == 0


@pytest.fixture
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a start changes in its process, as it was before."""
    monkeypatch.setattr("faulthandler.enable", lambda: None)
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(builtins, "print", builtins.print)
    for name in ("meta_path", "path", "argv"):
        monkeypatch.setattr(sys, name, list(getattr(sys, name)))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    loggers = [logging.getLogger(name) for name in ("", "azmlinfsrv")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGIO)}
    yield
    for logger, (found, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = found, propagate
        logger.setLevel(level)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def started(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, dict[str, Any], str]:
    """Exit code, first event and log of a worker that is told to stop before it begins."""
    text = io.StringIO()
    monkeypatch.setattr(sys, "stderr", text)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    for name in ("AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT"):
        monkeypatch.setenv(name, "given")
    work, work_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control, control_end = socket.socketpair()
    with work, control:
        config = {
            "worker": 0,
            "code_dir": str(folder),
            "scoring_script": "score.py",
            "reply_fds": [],
            "work_fd": work_end.detach(),
            "control_fd": control_end.detach(),
        }
        monkeypatch.setenv("IGW_WORKER_CONFIG", json.dumps(config))
        control.sendall(STOP)
        with pytest.raises(SystemExit) as ended:
            main.main()
        with control.makefile("rb") as events:
            return int(str(ended.value.code)), json.loads(events.readline()), text.getvalue()


@pytest.mark.usefixtures("own_process")
def test_a_start_tells_that_the_script_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "score.py").write_text("def init(): print('made')\ndef run(raw): pass")
    code, event, log = started(tmp_path, monkeypatch)
    assert (code, event["event"], event["pid"]) == (0, "ready", os.getpid())
    assert set(event["swagger"]) == {"2", "3", "3.1"}
    assert "azmlinfsrv.print - made" in log


@pytest.mark.usefixtures("own_process")
@pytest.mark.parametrize(
    ("script", "environment", "logging_json", "code"),
    [
        ("def init(): 1 / 0\ndef run(raw): pass", {}, "", "UserScriptInitFailed"),
        ("1 / 0", {}, "", "UserScriptImportError"),
        ("", {}, "", "UserScriptFunctionNotFound"),
        ("", {"SCORING_TIMEOUT_MS": "0"}, "", "BadArgument"),
        ("", {}, "[", "BadArgument"),
    ],
)
def test_a_start_that_fails_tells_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    environment: dict[str, str],
    logging_json: str,
    code: str,
) -> None:
    (tmp_path / "score.py").write_text(script)
    if logging_json:
        (tmp_path / "logging.json").write_text(logging_json)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ended, event, _ = started(tmp_path, monkeypatch)
    assert (ended, event["event"], event["code"]) == (3, "failed", code)

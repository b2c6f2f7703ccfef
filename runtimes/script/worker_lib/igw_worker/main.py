"""A worker process from its start to its end: load the script, tell the crew, answer requests.

Why: this is all that a crew starts. Requests come from a socket that all workers of the pool read; who reads one
first says so, runs it, answers on the socket of the scorer that asked. Nothing else runs meanwhile, so a script sees
one request at a time, or one batch where it has run_batch().
Units: *_ns monotonic nanoseconds, the same in all processes.
Ends: code 0 after "stop", SIGTERM or the supervisor's end, once the request that runs is answered; code 3 when the
script cannot serve; code 4 when it could not read what it was handed over, for only its end tells the scorer that
nobody runs that; the script's own code when it calls sys.exit(). A worker whose supervisor is gone while it runs has
_ORPHAN_S left.
Errors: BadFrame is logged; an answer that its scorer does not take in _REPLY_S is dropped.
"""

import contextlib
import faulthandler
import fcntl
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Dict, List, Optional

from . import logs, state, swagger, wire
from .batch import Batches
from .forms import Answer, refusal
from .host import Leave, ScriptHost, event_line, head_of, origins_of, timeout_of
from .parcel import unpack
from .round import Round
from .script import StartFailed, UserScript, load, log_model_folder
from .shims import finder

START_FAILED = 3
UNREADABLE = 4
_REPLY_S = 5.0
_ORPHAN_S = 10.0


class Config:
    """What the crew tells a worker, in the environment variable IGW_WORKER_CONFIG."""

    def __init__(self, values: Dict[str, Any]) -> None:
        self.worker = int(values["worker"])
        self.code_dir = str(values["code_dir"])
        self.scoring_script = str(values["scoring_script"])
        self.server_version = str(values.get("server_version") or "")
        self.log_level = str(values.get("log_level") or os.environ.get("AZUREML_LOG_LEVEL") or "INFO")
        self.max_result_bytes = int(values.get("max_result_bytes") or wire.RESULT_BYTES_MAX)
        self.work = _socket(values["work_fd"])
        self.control = _socket(values["control_fd"])
        self.replies = [_socket(number) for number in values["reply_fds"]]
        # Where to note what runs, for the crew; none where nobody watches.
        self.record = _record(values["state_fd"], values["state_at"]) if "state_fd" in values else None

    def close(self) -> None:
        for sock in (self.work, self.control, *self.replies):
            sock.close()


def _socket(number: int) -> socket.socket:
    # The processes that a script starts shall not have them.
    os.set_inheritable(number, False)
    return socket.socket(fileno=number)


def _record(descriptor: int, offset: int) -> state.Record:
    record = state.Record(descriptor, offset)
    os.close(descriptor)
    return record


class Ending:
    """Whether this worker shall end: told by the control socket's input, by its end, or by SIGTERM.

    Signals only write into a pipe that the loop watches, so none is lost between a look and a wait.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lines = b""
        self._watched, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        self.descriptors = (control.fileno(), self._watched)

    def watch(self) -> None:
        """From here on SIGTERM lets a request that runs be answered, and the supervisor's end is seen meanwhile."""
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGIO, self._on_input)
        fcntl.fcntl(self._control, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(self._control, fcntl.F_GETFL)
        fcntl.fcntl(self._control, fcntl.F_SETFL, flags | os.O_ASYNC)

    def _on_term(self, number: int, frame: Optional[FrameType]) -> None:
        with contextlib.suppress(BlockingIOError):  # It rings already.
            os.write(self._bell, b"x")

    def _on_input(self, number: int, frame: Optional[FrameType]) -> None:
        poll = select.poll()
        poll.register(self._control.fileno(), 0)
        if any(event & select.POLLHUP for _, event in poll.poll(0)):
            # Nobody is left who would recycle this worker: the kernel ends it, unless it is done before.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, _ORPHAN_S)

    def close(self) -> None:
        os.close(self._watched)
        os.close(self._bell)

    def is_told(self, ready: List[int]) -> bool:
        """Whether what can be read says to end. `ready`: the descriptors that have something."""
        return self._watched in ready or (self._control.fileno() in ready and self._is_stop())

    def _is_stop(self) -> bool:
        try:
            data = self._control.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        *lines, self._lines = (self._lines + data).split(b"\n")
        commands = [_command(line) for line in lines]
        if "ping" in commands:
            self._control.sendall(event_line({"event": "alive"}))
        return not data or "stop" in commands


def _command(line: bytes) -> Any:
    try:
        return json.loads(line).get("command")
    except (ValueError, AttributeError):
        return None


class Worker:
    """Takes requests and answers them, until it is told to end."""

    def __init__(
        self,
        config: Config,
        host: ScriptHost,
        prints: logs.Prints,
        ending: Ending,
        batches: Optional[Batches] = None,
    ) -> None:
        """`batches`: for a script that takes many requests at once."""
        self._config = config
        self._host = host
        self._prints = prints
        self._ending = ending
        self._batches = batches
        self._logger = logging.getLogger("azmlinfsrv")

    def serve(self) -> int:
        """The exit code."""
        work = self._config.work
        poll = select.poll()
        for descriptor in (work.fileno(), *self._ending.descriptors):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._ending.is_told(ready):
                return 0
            if work.fileno() not in ready:
                continue
            try:
                frame = wire.receive(work)
            except BlockingIOError:
                continue  # Another worker was faster.
            except wire.BadFrame as exc:
                return self._unreadable(exc)
            if frame is None:
                return 0
            code = self._serve_one(frame)
            del frame  # And with it the mapped memory of a large body.
            if code is not None:
                return code

    def _serve_one(self, frame: wire.Frame) -> Optional[int]:
        """An exit code where the worker is to end."""
        kinds = (wire.REQUEST, wire.PARCEL) if self._batches is not None else (wire.REQUEST,)
        if frame.kind not in kinds or frame.scorer >= len(self._config.replies):
            self._logger.error("Dropped %r: it is no request of a scorer that this worker knows", frame)
            return None
        if frame.kind == wire.PARCEL:
            return self._serve_parcel(frame)
        if frame.deadline_ns and time.monotonic_ns() >= frame.deadline_ns:
            self._reply(frame, wire.EXPIRED)
            return None
        self._note(frame)
        self._reply(frame, wire.TAKEN)
        started = time.perf_counter()
        code: Optional[int] = None
        try:
            answer = self._host.handle(frame.head, frame.body)
        except Leave as leave:
            answer, code = leave.answer, leave.code
        self._note(None)
        self._answer(frame, answer)
        self._host.log_access(frame.head, answer, (time.perf_counter() - started) * 1000)
        self._prints.flush()
        return code

    def _serve_parcel(self, frame: wire.Frame) -> Optional[int]:
        """An exit code where the worker is to end. What is too late in it is not run."""
        try:
            parts = unpack(frame.body)
        except wire.BadFrame as exc:
            return self._unreadable(exc)
        told = Round(
            self._host,
            note=partial(self._note, frame),
            reply=partial(self._reply, frame),
            answer=partial(self._answer, frame),
        )
        live = told.live(parts)
        if not live:
            return None
        # Those that were too late have been told so before: nobody took them.
        self._reply(frame, wire.TAKEN)
        assert self._batches is not None
        code = self._batches.serve(live, told)
        self._note(None)
        self._prints.flush()
        return code

    def _unreadable(self, exc: wire.BadFrame) -> int:
        """A large body comes as a descriptor, and a script may have left none free; a new process has."""
        self._logger.error("The worker ends, as it cannot read what it was handed over: %s", exc)
        return UNREADABLE

    def _note(self, frame: Optional[wire.Frame], deadline_ns: Optional[int] = None) -> None:
        """What runs now, and until when. A request's head has the deadline of the answer, its frame that of its
        beginning."""
        record = self._config.record
        if record is None:
            return
        if frame is None:
            record.clear()
            return
        if deadline_ns is None:
            deadline_ns = int(frame.head.get("deadline_ns") or frame.deadline_ns)
        record.note(frame.request_id, deadline_ns, frame.scorer)

    def _answer(self, frame: wire.Frame, answer: Answer, request_id: int = 0) -> None:
        try:
            self._reply(frame, wire.ANSWER, head_of(answer), answer.body, request_id)
        except (OSError, ValueError, MemoryError) as exc:
            # Too many or too long headers, or no memory for the body: that much can be told.
            self._logger.error("The answer of run() cannot be handed over: %s", exc)
            told = refusal(500, "The result of the scoring script could not be handed over.", failed=True)
            self._reply(frame, wire.ANSWER, head_of(told), told.body, request_id)

    def _reply(
        self,
        frame: wire.Frame,
        kind: int,
        head: Optional[Dict[str, Any]] = None,
        body: bytes = b"",
        request_id: int = 0,
    ) -> None:
        """About the frame, or about one request of it."""
        replies = self._config.replies[frame.scorer]
        until = time.monotonic() + _REPLY_S
        while True:
            try:
                wire.send(
                    replies,
                    kind,
                    request_id=request_id or frame.request_id,
                    worker=self._config.worker,
                    scorer=frame.scorer,
                    head=head,
                    body=body,
                )
                return
            except (BrokenPipeError, ConnectionResetError):
                return  # Nobody is there who waits for it.
            except BlockingIOError:
                left = until - time.monotonic()
                if left <= 0 or not select.select((), (replies,), (), left)[1]:
                    self._logger.error("Scorer %d does not read its answers; one was dropped", frame.scorer)
                    return


def main() -> None:
    """Never returns: ends the process."""
    config = Config(json.loads(os.environ.pop("IGW_WORKER_CONFIG")))
    faulthandler.enable()
    # Our folder was on the path to find us; the script's imports shall not meet it.
    ours = Path(__file__).resolve().parent.parent
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != ours]
    sys.argv[:] = [str(Path(config.code_dir) / config.scoring_script)]
    try:
        worker = _start(config)
    except StartFailed as failed:
        _tell_failure(config, failed)
    code = worker.serve()
    config.close()
    sys.exit(code)


def _start(config: Config) -> Worker:
    os.environ.setdefault("AML_APP_ROOT", config.code_dir)
    if config.scoring_script:
        os.environ.setdefault("AZUREML_ENTRY_SCRIPT", config.scoring_script)
    finder.install()
    script_dir = str((Path(config.code_dir) / config.scoring_script).parent)
    try:
        logs.configure(config.log_level, dict.fromkeys((config.code_dir, script_dir)))
    except ValueError as exc:
        raise StartFailed("BadArgument", str(exc), exc) from exc
    try:
        timeout_ms = timeout_of(os.environ.get("SCORING_TIMEOUT_MS", ""))
    except ValueError as exc:
        raise StartFailed("BadArgument", f"SCORING_TIMEOUT_MS must be milliseconds above 0: {exc}") from exc
    prints = logs.Prints()
    prints.install()
    script = _ready_script(config)
    prints.flush()
    ending = Ending(config.control)
    ending.watch()
    host = ScriptHost(
        script,
        server_version=config.server_version,
        timeout_ms=timeout_ms,
        max_result_bytes=config.max_result_bytes,
        cors_origins=origins_of(os.environ.get("AML_CORS_ORIGINS", "")),
    )
    documents = swagger.documents(config.code_dir, script.run, script.schemas, os.environ)
    batches = None if script.batch is None else Batches(script.batch, host)
    event = {"event": "ready", "pid": os.getpid(), "swagger": documents, "batches": batches is not None}
    config.control.sendall(event_line(event))
    logging.getLogger("azmlinfsrv").info("Worker with pid %d ready for serving traffic", os.getpid())
    return Worker(config, host, prints, ending, batches)


def _ready_script(config: Config) -> UserScript:
    logger = logging.getLogger("azmlinfsrv.user_script")
    script = load(config.code_dir, config.scoring_script)
    batches = "" if script.batch is None else ", run_batch() many at once"
    found = config.scoring_script or config.code_dir
    logger.info("Found user script at %s, run() takes %s%s", found, script.form.kind, batches)
    logger.info("Invoking user's init function")
    script.init()
    logger.info("User's init has completed successfully")
    return script


def _tell_failure(config: Config, failed: StartFailed) -> None:
    """At once and without the interpreter's tidying up: threads that a script left would hold it."""
    logger = logging.getLogger("azmlinfsrv")
    logger.error("%s%s%s", failed.message, "\n" if failed.trace else "", failed.trace)
    if failed.code == "UserScriptInitFailed":
        log_model_folder(logger)
    event = {"event": "failed", "code": failed.code, "message": failed.message, "traceback": failed.trace}
    try:
        config.control.sendall(event_line(event))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        config.close()
        os._exit(START_FAILED)

"""Crew: the worker processes of one script deployment, started, bounded, watched and replaced by the supervisor.

Promise: a worker that ends is replaced, with a growing pause when it ends again. One that still runs a request long
after that request's deadline, stands still or holds more memory than it may is ended; nothing else is. All sockets of
the pool are made here and kept open, so workers and scorers may come and go in any order.
How a hung worker is found: each worker notes what it runs, with its deadline, in the pool's table (`worker_state`);
it is stopped before the table is believed, so that no request is ended that began in between.
Isolation: `launcher.py` bounds the process before the user's interpreter starts. It inherits no variable and no
descriptor but its own sockets; its folders for temporary files and home are its own; `sandbox.py` shuts it in where
that is asked for. Where the gateway runs as root, the kernel does not enforce the limit on processes.
Units: *_s seconds, *_bytes bytes; 0 for no such bound. A worker's `number` is never used again; its `slot` is.
Errors: CrewFailed with the code and one sentence; the traceback is beside it and in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import itertools
import json
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import launcher, proc, sandbox
from gateway.liveness import Liveness, Move, Probe
from gateway.log_stream import Lines
from gateway.worker_log import WorkerLog
from runtimes import WORKER_LIB, now_ns, worker_state, worker_swagger

log = logging.getLogger(__name__)

MAIN = "import sys; sys.path.insert(0, {lib!r}); from igw_worker.main import main; main()"
SLOTS_MAX = 1024
LOOK_EVERY_S = 0.25
# The scorer reports a hung worker half a second after its deadline; this is for those whose scorer died.
HUNG_AFTER_S = 0.75
STILL_AFTER_S = 1.0
FREEZE_LOOKS = 50
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 10.0
STEADY_AFTER_S = 3.0
# A worker that holds this share of its memory, or has used it of its CPU time, is replaced between two requests.
FULL_AT = 0.8
WELL = "exit status 0"
SHELL_SIGNALS = 128
# bwrap, its own first process, and the worker.
SANDBOX_GENERATIONS = 2
SOCKET_BYTES = 1024 * 1024
EVENT_BYTES_MAX = 16 * 1024 * 1024
# What a worker writes within this time is read together, for a look at each line would cost more than the line; and
# no more than so much of it, which slows a flood down.
OUTPUT_EVERY_S = 0.02
OUTPUT_CHUNK = 64 * 1024
EVENT_PAUSE_S = 0.05
EVENT_CHUNK = 4096
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
LAST_WORDS_S = 0.5


class CrewFailed(Exception):
    """The workers could not be made ready. `code` is one of the host's (UserScriptInitFailed, UserScriptImportError,
    UserScriptFunctionNotFound, BadArgument) or WorkerEnded, InitTimedOut, SandboxFailed; `log` its last lines."""

    def __init__(self, code: str, message: str, traceback: str = "", log: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.traceback = traceback
        self.log = log


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewSpec:
    """One pool of workers. `environment`: the variables that a worker sees beside PATH, HOME, TMPDIR and LANG.

    `folder`: where its logs and temporary files are kept; it is made, and removed with the crew. `hidden`: folders
    that a sandboxed worker must not read, `hidden_files` files, with whatever may take their place; `readable`: what
    it must read, wherever it lies. `on_output` is
    given the whole lines that a slot writes, as they come.
    """

    pool: str
    python: str | Path
    code_dir: Path
    scoring_script: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    workers: int = 1
    memory_bytes: int = 0
    cpu_seconds: int = 0
    files_max: int = 1024
    processes_max: int = 0
    init_timeout_s: float = 310.0
    sandbox: str = "none"
    hidden: tuple[Path, ...] = ()
    hidden_files: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    liveness: Probe = field(default_factory=Probe)
    on_output: Callable[[int, bytes], None] = lambda slot, data: None
    worker_lib: Path = WORKER_LIB
    server_version: str = "igw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """`swagger`: the documents that describe the script, as JSON text, by version. `batches`: it has run_batch()."""

    swagger: dict[str, str]
    batches: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    slot: int
    number: int
    pid: int
    is_ready: bool
    restarts: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewStatus:
    pool: str
    workers: tuple[WorkerStatus, ...]

    @property
    def ready(self) -> int:
        return sum(worker.is_ready for worker in self.workers)


class Sockets:
    """Those of one pool: work goes from any scorer to any worker, replies from any worker to one scorer."""

    def __init__(self, scorers: int) -> None:
        self.work, self.work_end = _pair()
        pairs = [_pair() for _ in range(scorers)]
        self.replies = [ours for ours, _ in pairs]
        self.reply_ends = [theirs for _, theirs in pairs]
        self.state_fd = os.memfd_create("workers", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.state_fd, SLOTS_MAX * worker_state.RECORD_BYTES)
        # Workers write to it, and have it no other size.
        fcntl.fcntl(self.state_fd, fcntl.F_ADD_SEALS, _SEALS)

    def of_scorer(self, scorer: int) -> tuple[int, int]:
        """The descriptors that a scorer sends work to and reads replies from."""
        return self.work.fileno(), self.replies[scorer].fileno()

    def of_worker(self) -> tuple[int, ...]:
        return (self.work_end.fileno(), *(sock.fileno() for sock in self.reply_ends), self.state_fd)

    def close(self) -> None:
        for sock in (self.work, self.work_end, *self.replies, *self.reply_ends):
            sock.close()
        os.close(self.state_fd)


class Worker:
    """One slot of a crew, over the lives of the processes that play it."""

    def __init__(self, slot: int, spec: CrewSpec, sockets: Sockets, numbers: itertools.count[int]) -> None:
        self.slot = slot
        self.number = -1
        self.restarts = 0
        self.reason = "is starting"
        self.is_ready = False
        self.is_leaving = False
        self.log = WorkerLog(spec.folder / "logs" / f"worker-{slot}.log")
        self._spec = spec
        self._sockets = sockets
        self._numbers = numbers
        self._state_at = slot * worker_state.RECORD_BYTES
        self._tmp = spec.folder / "tmp" / str(slot)
        self._process: asyncio.subprocess.Process | None = None
        self._control: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._pipe: io.FileIO | None = None
        self._still_since_s = 0.0
        self._liveness = Liveness(spec.liveness, 0.0)
        self._hearing: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()

    @property
    def pid(self) -> int:
        """0 where no process runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    @property
    def _script_pid(self) -> int:
        """The process that runs the script, which a sandbox stands around."""
        pid = self.pid
        return proc.descendant(pid, SANDBOX_GENERATIONS) if pid and self._is_sandboxed else pid

    @property
    def _is_sandboxed(self) -> bool:
        return self._spec.sandbox == "bwrap"

    async def start(self) -> Ready:
        """A new process that is through with init(). Errors: CrewFailed, and then there is none."""
        self.number = next(self._numbers)
        self.is_leaving = False
        self._still_since_s = 0.0
        self._liveness = Liveness(self._spec.liveness, asyncio.get_running_loop().time())
        worker_state.clear(self._sockets.state_fd, self._state_at)
        try:
            async with asyncio.timeout(self._spec.init_timeout_s):
                await asyncio.to_thread(self._make_tmp)
                events = await self._spawn()
                ready = await self._hear(events)
        except TimeoutError:
            await self.end()
            text = f"init() of the scoring script was not through after {self._spec.init_timeout_s:g} s"
            raise CrewFailed("InitTimedOut", text, log=self._tail()) from None
        except OSError as error:
            await self.end()
            text = f"a worker process could not be started: {error}"
            raise CrewFailed("WorkerEnded", text, log=self._tail()) from error
        except BaseException:
            await self.end()
            raise
        self.is_ready = True
        self.reason = "is ready"
        self._hearing = asyncio.create_task(self._hear_on(events))
        return ready

    async def wait(self) -> str:
        """Until the process has ended, and everything that it started; how it ended."""
        assert self._process is not None
        status = await self._process.wait()
        self.is_ready = False
        await self._bury()
        return self._how(status)

    def stop_soon(self) -> None:
        """Finish the current request, then end."""
        self.is_leaving = True
        self._tell("stop")

    def signal(self, number: signal.Signals) -> None:
        """To the process and all that it started."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def end(self) -> None:
        """End the process now, and wait until it has."""
        self.is_ready = False
        self.signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()
        await self._bury()

    async def look(self, hung_after_s: float) -> None:
        """End it if it hangs, stands still or holds too much. One look at a time."""
        if self._looking.locked():
            return
        async with self._looking:
            if self._has_stopped():
                self._end_because("it stands still")
            elif self._is_overdue(hung_after_s):
                await self._end_if_overdue(hung_after_s)
            elif not self._is_silent():
                self._look_at_use()

    def running(self) -> tuple[int, int, int]:
        """What it runs: the request's number, its deadline, and whose it is."""
        return worker_state.read(self._sockets.state_fd, self._state_at)

    def status(self) -> WorkerStatus:
        return WorkerStatus(
            slot=self.slot,
            number=self.number,
            pid=self.pid,
            is_ready=self.is_ready,
            restarts=self.restarts,
            reason=self.reason,
        )

    # The process.

    async def _spawn(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        with contextlib.ExitStack() as given:
            given.enter_context(theirs)
            events, self._control = await asyncio.open_unix_connection(sock=ours, limit=EVENT_BYTES_MAX)
            plan_fd = os.memfd_create("plan", os.MFD_CLOEXEC)
            given.callback(os.close, plan_fd)
            # Not asyncio's own pipe: with that, a process has not ended before everything that it started has.
            read_fd, output_fd = os.pipe()
            given.callback(os.close, output_fd)
            self._pipe = io.FileIO(read_fd)
            os.set_blocking(read_fd, False)
            self._reading = asyncio.create_task(self._keep_output(self._pipe))
            os.write(plan_fd, json.dumps(self._plan(theirs.fileno())).encode())
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(Path(launcher.__file__)), str(plan_fd)),
                pass_fds=(*self._sockets.of_worker(), theirs.fileno(), plan_fd),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output_fd,
                stderr=output_fd,
                env={},
                start_new_session=True,
            )
        return events

    def _plan(self, control_fd: int) -> dict[str, Any]:
        spec = self._spec
        environment = worker_environment(spec, self._tmp) | {
            "IGW_WORKER_CONFIG": json.dumps(self._config(control_fd))
        }
        command = [str(spec.python), "-c", MAIN.format(lib=str(spec.worker_lib))]
        if self._is_sandboxed:
            readable = (spec.code_dir, spec.worker_lib, *spec.readable)
            room = sandbox.Room(
                own=self._tmp,
                folder=spec.code_dir,
                readable=readable,
                hidden=spec.hidden,
                hidden_files=spec.hidden_files,
            )
            try:
                command, environment = sandbox.sandboxed(room, Path(spec.python), command, environment)
            except sandbox.CannotHide as error:
                raise CrewFailed("SandboxFailed", str(error)) from error
        return {
            "parent": os.getpid(),
            "memory_bytes": spec.memory_bytes,
            "cpu_seconds": spec.cpu_seconds,
            "files_max": spec.files_max,
            "processes_max": spec.processes_max,
            "folder": str(spec.code_dir),
            "command": command,
            "environment": environment,
        }

    def _config(self, control_fd: int) -> dict[str, Any]:
        spec, sockets = self._spec, self._sockets
        return {
            "work_fd": sockets.work_end.fileno(),
            "reply_fds": [sock.fileno() for sock in sockets.reply_ends],
            "control_fd": control_fd,
            "state_fd": sockets.state_fd,
            "state_at": self._state_at,
            "worker": self.number,
            "code_dir": str(spec.code_dir),
            "scoring_script": spec.scoring_script,
            "server_version": spec.server_version,
            "log_level": spec.environment.get("AZUREML_LOG_LEVEL", "INFO"),
        }

    async def _hear(self, events: asyncio.StreamReader) -> Ready:
        """Its first word. The script may write to this socket too, so nothing of it is believed unseen."""
        is_told = False
        while line := await self._line(events):
            match _first_word(line):
                case Ready() as ready:
                    return ready
                case CrewFailed() as failed:
                    await self._last_words()
                    failed.log = self._tail()
                    raise failed
            if not is_told:
                is_told = True
                text = "%s worker %d wrote to its control socket what is no word of its host"
                log.warning(text, self._spec.pool, self.slot)
            # A host says nothing else; whoever does is not read any faster than its output.
            await asyncio.sleep(OUTPUT_EVERY_S * (1 + len(line) // OUTPUT_CHUNK))
        assert self._process is not None
        status = await self._process.wait()
        await self._last_words()
        complaint = sandbox.complaint(self.log.tail(50)) if self._is_sandboxed else ""
        if complaint:
            raise CrewFailed("SandboxFailed", complaint)
        text = f"the worker process ended with {self._how(status)} before init() of the scoring script was through"
        raise CrewFailed("WorkerEnded", text, log=self._tail())

    async def _line(self, events: asyncio.StreamReader) -> bytes:
        try:
            return await events.readline()
        except ValueError as error:
            text = f"the worker process wrote more than {EVENT_BYTES_MAX} bytes in a line to its control socket"
            raise CrewFailed("WorkerEnded", text, log=self._tail()) from error

    async def _hear_on(self, events: asyncio.StreamReader) -> None:
        """What it says once it serves: that it is alive."""
        with contextlib.suppress(OSError):  # It has ended.
            while await events.read(EVENT_CHUNK):
                self._liveness.answered()
                await asyncio.sleep(EVENT_PAUSE_S)

    def _tell(self, command: str) -> None:
        if self._control is not None and not self._control.is_closing():
            self._control.write(json.dumps({"command": command}).encode() + b"\n")

    def _how(self, status: int) -> str:
        """How it ended. bwrap tells a signal as a shell does."""
        if self._is_sandboxed and status > SHELL_SIGNALS:
            status = SHELL_SIGNALS - status
        if status == -signal.SIGXCPU:
            return f"signal {-status}: it had used its {self._spec.cpu_seconds} s of CPU time"
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    async def _keep_output(self, output: io.FileIO) -> None:
        """What it prints, no faster than a disk should have to take it: a flood slows its writer down, for what is
        not read stays in the pipe."""
        lines = Lines()
        try:
            while True:
                await _readable(output.fileno())
                data = output.read(OUTPUT_CHUNK)
                if data == b"":
                    return
                if data:
                    self.log.write(data)
                    self._spec.on_output(self.slot, lines.feed(data))
                    await asyncio.sleep(OUTPUT_EVERY_S)
        finally:
            self._spec.on_output(self.slot, lines.rest())

    async def _last_words(self) -> None:
        """What it printed last is read, unless somebody that it started holds the pipe open."""
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=LAST_WORDS_S)

    async def _bury(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            # Whatever it started and left behind.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        await self._last_words()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._hearing is not None:
            self._hearing.cancel()
        if self._pipe is not None:
            self._pipe.close()
        if self._control is not None:
            self._control.close()

    def _tail(self) -> str:
        return "\n".join(self.log.tail(50))

    def _make_tmp(self) -> None:
        _make_empty(self._tmp)
        if self._is_sandboxed:
            sandbox.make_scratch(self._tmp)

    # Looks.

    def _is_overdue(self, hung_after_s: float) -> bool:
        request, deadline_ns, _ = self.running()
        return bool(request and deadline_ns and now_ns() > deadline_ns + hung_after_s * 1e9)

    async def _end_if_overdue(self, hung_after_s: float) -> None:
        """Between the look and the end it must not begin with another request: it is stopped, and looked at again."""
        pid, script_pid = self.pid, self._script_pid
        self.signal(signal.SIGSTOP)
        for _ in range(FREEZE_LOOKS):
            if proc.state_of(script_pid) in "TX":
                break
            await asyncio.sleep(0.001)
        if self.pid == pid and self._is_overdue(hung_after_s):
            self._end_because("it still ran a request long after its deadline")
        elif self.pid == pid:
            self.signal(signal.SIGCONT)

    def _has_stopped(self) -> bool:
        now_s = asyncio.get_running_loop().time()
        if not self.pid or proc.state_of(self._script_pid) != "T":
            self._still_since_s = 0.0
            return False
        self._still_since_s = self._still_since_s or now_s
        return now_s - self._still_since_s > STILL_AFTER_S

    def _is_silent(self) -> bool:
        """Whether it was ended because it did not answer; asks it where that is due."""
        if not self.is_ready or self.is_leaving:
            return False
        move = self._liveness.look(asyncio.get_running_loop().time(), is_running=bool(self.running()[0]))
        if move is Move.ASK:
            self._tell("ping")
        elif move is Move.END:
            probe = self._spec.liveness
            self._end_because(
                f"it ran no request and did not answer {probe.failure_threshold} times within {probe.timeout_s:g} s"
            )
        return move is Move.END

    def _look_at_use(self) -> None:
        """One that is nearly through with what it may have is replaced between two requests, so that none is lost."""
        spec = self._spec
        held = proc.resident_bytes(self._script_pid) if spec.memory_bytes and self.pid else 0
        used_s = proc.cpu_seconds(self._script_pid) if spec.cpu_seconds and self.pid else 0.0
        if held > spec.memory_bytes:
            self._end_because(f"it holds {held} bytes of memory and may hold {spec.memory_bytes}")
        elif not self.is_ready or self.is_leaving:
            return
        elif held > FULL_AT * spec.memory_bytes:
            self._replace_soon(f"holds {held} of {spec.memory_bytes} bytes")
        elif used_s > FULL_AT * spec.cpu_seconds:
            self._replace_soon(f"has used {used_s:.1f} of {spec.cpu_seconds} s of CPU time")

    def _replace_soon(self, why: str) -> None:
        log.warning("%s worker %d %s and is replaced", self._spec.pool, self.slot, why)
        self.stop_soon()

    def _end_because(self, why: str) -> None:
        self.reason = f"was ended, for {why}"
        log.error("%s worker %d (pid %d) is ended: %s", self._spec.pool, self.slot, self.pid, why)
        self.signal(signal.SIGKILL)


class Crew:
    """All workers of one pool. `on_gone(number)` is called for each that ended, before its successor starts."""

    def __init__(self, spec: CrewSpec, on_gone: Callable[[int], None]) -> None:
        self.spec = spec
        self._on_gone = on_gone
        self._numbers = itertools.count()
        self._sockets: Sockets | None = None
        # Those that are wanted; and, by slot, all that are watched, also those that are to end.
        self._workers: list[Worker] = []
        self._kept: dict[int, Worker] = {}
        self._keeping: dict[int, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def start(self, scorers: int) -> Ready:
        """All workers are through with init(). Errors: CrewFailed; then nothing of it is left."""
        self._sockets = Sockets(scorers)
        if self.spec.sandbox == "bwrap" and not sandbox.is_installed():
            await self.stop(0.0)
            raise CrewFailed(
                "SandboxFailed",
                "the sandbox bwrap was asked for (setting script_sandbox) and is not installed (package bubblewrap)",
            )
        await asyncio.to_thread((self.spec.folder / "logs").mkdir, 0o700, True, True)
        try:
            first, *_ = await self._add(self.spec.workers)
        except BaseException:
            await self.stop(0.0)
            raise
        self._looking = asyncio.create_task(self._keep_looking())
        return first

    def sockets(self, scorer: int) -> tuple[int, int]:
        """The descriptors of a scorer: work and replies. They stay the crew's."""
        assert self._sockets is not None
        return self._sockets.of_scorer(scorer)

    async def resize(self, workers: int) -> None:
        """Have so many workers. Those that are too many finish what they run. Errors: CrewFailed; then it is as
        large as before."""
        if workers < 1:
            raise ValueError(f"a pool of {workers} workers; it has at least 1")
        surplus = self._workers[workers:]
        del self._workers[workers:]
        for worker in surplus:
            worker.stop_soon()
        if workers > len(self._workers):
            await self._add(workers - len(self._workers))

    async def recycle(self, number: int, request: int) -> None:
        """A scorer says that this worker hangs in this request: it is ended if it still runs it."""
        for worker in list(self._kept.values()):
            if worker.number == number and worker.running()[0] == request:
                await worker.look(0.0)

    async def stop(self, grace_s: float) -> None:
        """End all workers, those that run a request after it or after the grace. May be called again."""
        if self._looking is not None:
            self._looking.cancel()
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.stop_soon()
        keeping = set(self._keeping.values())
        if keeping and grace_s:
            await asyncio.wait(keeping, timeout=grace_s)
        for slot, task in self._keeping.items():
            # One that serves ends with its process; one that starts, or waits to, is told so.
            if self._kept[slot].is_ready:
                self._kept[slot].signal(signal.SIGKILL)
            else:
                task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None
        await asyncio.to_thread(shutil.rmtree, self.spec.folder, True)

    def tail(self, lines: int) -> str:
        """The last lines of each worker."""
        workers = self._workers
        if len(workers) == 1:
            return "\n".join(workers[0].log.tail(lines))
        return "\n".join(f"[worker {one.slot}] {line}" for one in workers for line in one.log.tail(lines))

    def status(self) -> CrewStatus:
        return CrewStatus(pool=self.spec.pool, workers=tuple(worker.status() for worker in self._workers))

    async def _add(self, count: int) -> list[Ready]:
        """So many workers more, ready; or none. Errors: CrewFailed of the first that failed."""
        assert self._sockets is not None
        slots = self._free_slots(count)
        workers = [Worker(slot, self.spec, self._sockets, self._numbers) for slot in slots]
        starting = [asyncio.create_task(worker.start()) for worker in workers]
        try:
            ready = list(await asyncio.gather(*starting))
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            await asyncio.gather(*(worker.end() for worker in workers))
            raise
        for worker in workers:
            self._workers.append(worker)
            self._kept[worker.slot] = worker
            self._keeping[worker.slot] = asyncio.create_task(self._keep(worker))
        return ready

    def _free_slots(self, count: int) -> list[int]:
        free = [slot for slot in range(SLOTS_MAX) if slot not in self._kept]
        if count > len(free):
            raise ValueError(f"{count} workers more than {len(self._kept)}; a pool has at most {SLOTS_MAX}")
        return free[:count]

    async def _keep(self, worker: Worker) -> None:
        """Replace it for as long as it is wanted."""
        try:
            await self._replace(worker)
        finally:
            await worker.end()
            del self._kept[worker.slot], self._keeping[worker.slot]

    async def _replace(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        pause_s = PAUSE_MIN_S
        while True:
            began_s = loop.time()
            if worker.is_ready:
                how = await worker.wait()
                self._on_gone(worker.number)
                if worker not in self._workers:
                    return
                if not worker.is_leaving or how != WELL:
                    log.error("%s worker %d ended with %s and is replaced", self.spec.pool, worker.slot, how)
            pause_s = PAUSE_MIN_S if loop.time() - began_s > STEADY_AFTER_S else min(pause_s * 2, PAUSE_MAX_S)
            await asyncio.sleep(pause_s)
            if worker not in self._workers:
                return
            worker.restarts += 1
            try:
                await worker.start()
                if worker not in self._workers:
                    # It became one too many before there was a process to be told.
                    worker.stop_soon()
            except CrewFailed as error:
                worker.reason = str(error)
                log.error("%s worker %d could not be replaced: %s", self.spec.pool, worker.slot, error)
            except Exception as error:
                worker.reason = f"could not be replaced, for {type(error).__name__}"
                log.exception("%s worker %d could not be replaced", self.spec.pool, worker.slot)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for worker in list(self._kept.values()):
                try:
                    await worker.look(HUNG_AFTER_S)
                except Exception:
                    log.exception("%s worker %d could not be looked at", self.spec.pool, worker.slot)


def _first_word(line: bytes) -> Ready | CrewFailed | None:
    """None for what no host would say."""
    try:
        event = json.loads(line)
        kind = event["event"]
        if kind == "failed":
            return CrewFailed(str(event.get("code")), str(event.get("message")), str(event.get("traceback", "")))
        if kind != "ready":
            return None
        swagger = event.get("swagger")
        documents = swagger if isinstance(swagger, dict) else {}
        return Ready(
            swagger={version: text for version, text in documents.items() if _is_document(version, text)},
            batches=event.get("batches") is True,
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _is_document(version: str, text: Any) -> bool:
    """As its host writes them: of a known version, in ASCII, and not too large."""
    is_known = version in worker_swagger.VERSIONS and isinstance(text, str)
    return is_known and text.isascii() and len(text) <= worker_swagger.DOCUMENT_BYTES_MAX


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, tell)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def worker_environment(spec: CrewSpec, tmp: Path) -> dict[str, str]:
    """All that a worker sees; nothing of the gateway's own."""
    programs = Path(spec.python).parent
    return {
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp),
        "TMPDIR": str(tmp),
        "LANG": "C.UTF-8",
        # The code's folder is not the worker's to write to.
        "PYTHONPYCACHEPREFIX": str(tmp / "pycache"),
        **spec.environment,
    }


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    return ours, theirs


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)

"""A crew of real worker processes: its start, its ends, its bounds, and what it leaves behind."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import io
import itertools
import json
import os
import signal
import struct
import sys
import termios
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import crew
from gateway.crew import Crew, CrewFailed, CrewSpec, Ready, Sockets, Worker
from gateway.crews import Crews
from gateway.liveness import Probe
from runtimes import worker_swagger
from tests.support.crews import ECHO, Pool, crew_spec, pool, until
from tests.support.waiting import PATIENCE_S

LOOK = """
import json, os, resource, sys, tempfile
def init():
    print("this is init")
def run(raw):
    return {
        "environment": dict(os.environ),
        "limits": {name: resource.getrlimit(getattr(resource, name))
                   for name in ("RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_DATA", "RLIMIT_CPU", "RLIMIT_NPROC")},
        "session": os.getsid(0) == os.getpid(),
        "fds": sorted(os.readlink("/proc/self/fd/" + one) for one in os.listdir("/proc/self/fd")
                      if os.path.exists("/proc/self/fd/" + one)),
        "status": open("/proc/self/status").read(),
        "nice": os.nice(0),
        "cwd": os.getcwd(),
        "tmp": tempfile.mkdtemp(),
        "umask": os.umask(0),
    }
"""


def breakable(flag: Path, then: str) -> str:
    """A script whose init() fails while there is such a file."""
    return (
        f"import os\ndef init():\n    assert not os.path.exists({str(flag)!r}), 'broken'\ndef run(raw):\n    {then}\n"
    )


def told(spec: CrewSpec, story: Callable[[Pool], Awaitable[None]], scorers: int = 1) -> None:
    async def run() -> None:
        async with pool(spec, scorers) as made:
            await story(made)

    asyncio.run(run())


def failure(spec: CrewSpec) -> CrewFailed:
    """How its start fails; nothing of it is left."""

    async def run() -> CrewFailed:
        with pytest.raises(CrewFailed) as failed:
            await Crew(spec, lambda _: None).start(1)
        return failed.value

    found = asyncio.run(run())
    assert not spec.folder.exists()
    return found


def test_any_scorer_reaches_any_idle_worker(tmp_path: Path) -> None:
    async def story(made: Pool) -> None:
        values = [made.send(number, scorer=number % 2) for number in range(40)]
        found = [await one.value() for one in values]
        assert [one["got"] for one in found] == list(range(40))
        assert {one["pid"] for one in found} <= set(made.pids)
        assert made.crew.status().ready == 2

    told(crew_spec(tmp_path, ECHO, workers=2), story, scorers=2)


def test_a_worker_sees_nothing_of_the_gateway_and_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_MASTER_KEY", "secret")
    spec = crew_spec(
        tmp_path,
        LOOK,
        environment={"AZUREML_MODEL_DIR": "/models", "MINE": "1"},
        memory_bytes=1 << 30,
        cpu_seconds=600,
        files_max=99,
        processes_max=500,
    )

    async def story(made: Pool) -> None:
        seen = await made.value({})
        environment: dict[str, str] = seen["environment"]
        assert "secret" not in environment.values()
        assert environment["MINE"] == "1"
        given = {"AZUREML_MODEL_DIR", "MINE", "PATH", "HOME", "TMPDIR", "LANG", "PYTHONPYCACHEPREFIX"}
        assert set(environment) <= given | {"AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT", "LC_CTYPE"}
        limits = seen["limits"]
        assert limits["RLIMIT_CORE"] == [0, 0]
        assert limits["RLIMIT_NOFILE"] == [99, 99]
        assert limits["RLIMIT_DATA"] == [1 << 30, 1 << 30]
        assert limits["RLIMIT_CPU"] == [600, 601]
        assert limits["RLIMIT_NPROC"][0] >= 500
        assert seen["session"]
        assert "NoNewPrivs:\t1" in seen["status"]
        assert seen["nice"] >= 5
        assert seen["umask"] == 0o077
        assert seen["cwd"] == str(spec.code_dir)
        assert seen["tmp"].startswith(str(spec.folder / "tmp" / "0"))
        files = [one for one in seen["fds"] if not one.startswith(("socket:", "pipe:", "/dev/null", "/memfd:"))]
        assert [one for one in files if not one.startswith("/proc/")] == []
        assert sum(one.startswith("socket:") for one in seen["fds"]) == 3
        await until(lambda: "this is init" in made.crew.tail(50), "what it wrote is kept")

    told(spec, story)
    assert not spec.folder.exists()


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("def run(raw):\n    return 1\n", "UserScriptFunctionNotFound", "init"),
        ("import nothing_like_this\n", "UserScriptImportError", "nothing_like_this"),
        (
            "def init():\n    raise OSError('no model')\ndef run(raw):\n    pass\n",
            "UserScriptInitFailed",
            "no model",
        ),
        ("def init():\n    import os\n    os._exit(9)\ndef run(raw):\n    pass\n", "WorkerEnded", "exit status 9"),
        (
            "def init():\n    import ctypes\n    ctypes.string_at(0)\ndef run(raw):\n    pass\n",
            "WorkerEnded",
            "signal 11",
        ),
    ],
    ids=["no init", "import", "init raises", "init exits", "init crashes"],
)
def test_a_script_that_cannot_start_says_why(tmp_path: Path, script: str, code: str, says: str) -> None:
    failed = failure(crew_spec(tmp_path, script, workers=2))
    assert failed.code == code
    assert says in failed.message + failed.traceback
    assert "\n" not in failed.message


def test_an_init_that_does_not_end_is_ended(tmp_path: Path) -> None:
    script = "import time\ndef init():\n    print('begun', flush=True)\n    time.sleep(60)\ndef run(raw):\n    pass\n"
    failed = failure(crew_spec(tmp_path, script, init_timeout_s=3.0))
    assert failed.code == "InitTimedOut"
    assert "3 s" in failed.message
    assert "begun" in failed.log


def test_an_interpreter_that_is_not_there_is_said(tmp_path: Path) -> None:
    failed = failure(crew_spec(tmp_path, ECHO, python="/no/such/python"))
    assert failed.code == "WorkerEnded"
    assert "/no/such/python" in failed.log


BURN = """
import json, os, time
def init():
    pass
def run(raw):
    until = time.process_time() + json.loads(raw)
    while time.process_time() < until:
        pass
    return os.getpid()
"""


def test_a_worker_that_used_its_cpu_time_is_replaced_between_two_requests_or_in_one_that_takes_too_much(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(made: Pool) -> None:
        (before,) = made.pids
        while made.pids == [before]:
            assert await made.value(0.1) > 0
        assert "of 5 s of CPU time and is replaced" in caplog.text
        assert await made.send(60, within_s=60.0).outcome() == "ModelFailed"
        await until(lambda: "it had used its 5 s of CPU time" in caplog.text, "it is said why")
        assert await made.value(0) > 0

    told(crew_spec(tmp_path, BURN, cpu_seconds=5), story)


SILENT = """
import ctypes, json, os, threading, time
def init():
    time.sleep(0.5)
def hold():
    time.sleep(0.1)
    # Holds the interpreter's lock, as a careless extension does.
    ctypes.PyDLL(None).sleep(60)
def run(raw):
    if raw == '"silent"':
        threading.Thread(target=hold, daemon=True).start()
    elif raw == '"long"':
        time.sleep(2)
    return os.getpid()
"""


def test_an_idle_worker_that_does_not_answer_is_replaced_and_one_that_starts_or_runs_is_not(tmp_path: Path) -> None:
    probe = Probe(initial_delay_s=0.1, period_s=0.1, timeout_s=0.7, failure_threshold=2)

    async def story(made: Pool) -> None:
        (before,) = made.pids
        assert await made.value("long") == before
        assert await made.value("silent") == before
        await until(lambda: made.gone, "it is ended")
        assert "did not answer 2 times within 0.7 s" in made.crew.status().workers[0].reason
        await until(lambda: made.crew.status().ready == 1, "it is replaced")
        assert await made.value("well") != before

    told(crew_spec(tmp_path, SILENT, liveness=probe), story)


def test_a_pool_grows_and_shrinks_and_keeps_who_stays(tmp_path: Path) -> None:
    async def story(made: Pool) -> None:
        (first,) = made.pids
        await made.crew.resize(3)
        assert made.crew.status().ready == 3
        assert made.pids[0] == first
        await made.crew.resize(1)
        await until(lambda: len(made.gone) == 2, "the surplus ends")
        assert made.pids == [first]
        await made.crew.resize(2)
        assert [one.slot for one in made.crew.status().workers] == [0, 1]
        with pytest.raises(ValueError, match="at least 1"):
            await made.crew.resize(0)
        assert (await made.value(1))["got"] == 1

    told(crew_spec(tmp_path, ECHO), story)


def test_a_worker_that_is_one_too_many_before_its_process_is_there_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tmp = Worker._make_tmp
    is_making, may_make = threading.Event(), threading.Event()

    def slowly(self: Worker) -> None:
        if self.restarts:
            is_making.set()
            may_make.wait(PATIENCE_S)
        make_tmp(self)

    monkeypatch.setattr(Worker, "_make_tmp", slowly)

    async def story(made: Pool) -> None:
        stays, goes = made.pids
        os.kill(goes, signal.SIGKILL)
        await until(is_making.is_set, "it is being replaced", PATIENCE_S)
        await made.crew.resize(1)
        may_make.set()
        await until(lambda: not made.crew._keeping.get(1), "it ends", PATIENCE_S)
        assert made.pids == [stays]
        assert len(made.gone) == 2

    told(crew_spec(tmp_path, ECHO, workers=2), story)


def test_a_growth_that_fails_leaves_the_pool_as_it_was(tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    script = breakable(flag, "return 1")

    async def story(made: Pool) -> None:
        flag.touch()
        with pytest.raises(CrewFailed, match="broken"):
            await made.crew.resize(3)
        assert made.crew.status().ready == 1
        assert await made.value(1) == 1

    told(crew_spec(tmp_path, script), story)


def test_a_stop_lets_what_runs_end_and_a_grace_that_is_over_does_not(tmp_path: Path) -> None:
    script = (
        "import json, time\ndef init():\n    pass\ndef run(raw):\n    time.sleep(json.loads(raw))\n    return 1\n"
    )

    async def story(made: Pool) -> None:
        short, long = made.send(0.4), made.send(30)
        await until(lambda: all(one.request.is_taken for one in made.sent), "both run")
        began = asyncio.get_running_loop().time()
        await made.crew.stop(1.0)
        assert asyncio.get_running_loop().time() - began < 3.0
        assert await short.outcome() == 200
        assert await long.outcome() == "ModelFailed"
        await made.crew.stop(0.0)

    told(crew_spec(tmp_path, script, workers=2), story)


def test_one_that_cannot_come_back_is_tried_again_and_a_stop_does_not_wait_for_it(tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    script = breakable(flag, "os._exit(1)")

    async def story(made: Pool) -> None:
        flag.touch()
        assert await made.send(1).outcome() == "ModelFailed"
        await until(lambda: "init" in made.crew.status().workers[0].reason, "it cannot start")
        flag.unlink()
        await until(lambda: made.crew.status().ready == 1, "it is back")
        assert made.crew.status().workers[0].restarts >= 2

    told(crew_spec(tmp_path, script), story)


def test_a_flood_of_output_is_bounded_and_slows_nobody_else(tmp_path: Path) -> None:
    script = "def init():\n    pass\ndef run(raw):\n    print('x' * 1000 * int(raw))\n    return 1\n"

    async def story(made: Pool) -> None:
        flood = made.send(8000)
        others = [made.send(0) for _ in range(20)]
        assert [await one.outcome() for one in others] == [200] * 20
        assert await flood.outcome() == 200
        size = sum(path.stat().st_size for path in (made.crew.spec.folder / "logs").iterdir())
        assert size <= 2 * 5 * 1024 * 1024

    told(crew_spec(tmp_path, script, workers=2), story)


class FakeScorers:
    count = 2

    def __init__(self) -> None:
        self.given: dict[str, list[tuple[int, ...]]] = {}
        self.gone: list[tuple[str, int]] = []

    async def give(self, label: str, fds: list[tuple[int, ...]]) -> None:
        for pair in fds:
            for fd in pair:
                os.fstat(fd)
        self.given[label] = fds

    async def take_back(self, label: str) -> None:
        self.given.pop(label, None)

    def worker_gone(self, pool: str, worker: int) -> None:
        self.gone.append((pool, worker))


def test_the_crews_of_a_gateway_are_started_given_to_scorers_and_ended(tmp_path: Path) -> None:
    async def story() -> None:
        scorers = FakeScorers()
        crews = Crews(scorers)
        spec = crew_spec(tmp_path, ECHO)
        ready = await crews.start(spec)
        assert set(ready.swagger) == {"2", "3", "3.1"}
        assert json.loads(ready.swagger["2"])["swagger"] == "2.0"
        assert [len(fds) for fds in scorers.given[spec.pool]] == [2, 2]
        with pytest.raises(ValueError, match="runs already"):
            await crews.start(spec)
        await crews.resize(spec.pool, 2)
        assert crews.status()[spec.pool].ready == 2
        assert "ready for serving" in crews.tail(spec.pool, 5)
        assert crews.tail("another", 5) == ""
        crews.recycle(spec.pool, 0, 1)
        crews.recycle("another", 0, 1)
        await crews.stop("another", 0.0)
        await crews.stop(spec.pool, 0.0)
        assert scorers.given == {}
        assert len(scorers.gone) == 2
        broken = crew_spec(tmp_path, "import nothing_like_this\n")
        with pytest.raises(CrewFailed):
            await crews.start(broken)
        assert crews.status() == {}
        await crews.start(crew_spec(tmp_path, ECHO))
        await crews.close(1.0)

    asyncio.run(story())


def test_nothing_a_script_writes_to_its_control_socket_is_believed_unseen(tmp_path: Path) -> None:
    host = tmp_path / "lib" / "igw_worker"
    host.mkdir(parents=True)
    (host / "__init__.py").touch()
    (host / "main.py").write_text(
        "import json, os\n"
        "def main():\n"
        "    fd = json.loads(os.environ['IGW_WORKER_CONFIG'])['control_fd']\n"
        '    os.write(fd, b\'nonsense\\n[1]\\n{}\\n{"event": 7}\\n{"event": "ready", "swagger": 3}\\n\')\n'
        "    os.read(fd, 100)\n"
    )
    spec = crew_spec(tmp_path, ECHO, worker_lib=tmp_path / "lib")

    async def story() -> Any:
        crew = Crew(spec, lambda _: None)
        ready = await crew.start(1)
        await crew.stop(5.0)
        return ready

    assert asyncio.run(story()).swagger == {}


def test_workers_end_with_the_supervisor(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from gateway.crew import Crew\n"
        "from tests.support.crews import ECHO, crew_spec\n"
        "async def main():\n"
        "    crew = Crew(crew_spec(Path(sys.argv[1]), ECHO, workers=2), print)\n"
        "    await crew.start(1)\n"
        "    print(*[one.pid for one in crew.status().workers], flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )

    async def story() -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(tmp_path)), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        pids = [int(word) for word in (await process.stdout.readline()).split()]
        assert len(pids) == 2
        process.kill()
        await process.wait()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the workers end")

    asyncio.run(story())


# What a worker may do to its crew by the descriptors that it has.


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    sockets = Sockets(1)
    yield Worker(
        0, crew_spec(tmp_path, ECHO, on_output=lambda _, data: written.append(data)), sockets, itertools.count()
    )
    sockets.close()
    written.clear()


written: list[bytes] = []


def test_a_flood_on_the_control_socket_keeps_nobody_else_waiting(worker: Worker) -> None:
    async def story() -> None:
        events = asyncio.StreamReader()
        events.feed_data(b"\n" * 200_000)
        events.feed_eof()
        hearing = asyncio.create_task(worker._hear_on(events))
        first = asyncio.create_task(worker._hear(events))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not hearing.done()
        assert not first.done()
        for task in (hearing, first):
            task.cancel()
        await asyncio.gather(hearing, first, return_exceptions=True)

    asyncio.run(story())


@pytest.mark.parametrize("size", [0, crew.SLOTS_MAX * 64])
def test_the_table_of_what_runs_keeps_its_size(worker: Worker, size: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(worker._sockets.state_fd, size)
    assert worker.running() == (0, 0, 0)


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b"7", b"nonsense", b'{"event": "rea', b'{"event": 1%s}' % (b"0" * 9999)]
)
def test_what_is_no_word_of_a_host_is_passed_over(line: bytes) -> None:
    assert crew._first_word(line) is None


def test_words_of_no_host_are_told_once(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crew, "OUTPUT_EVERY_S", 0.0)

    async def story() -> Ready:
        events = asyncio.StreamReader()
        events.feed_data(b"nonsense\n" * 100 + b'{"event": "ready"}\n')
        return await worker._hear(events)

    assert asyncio.run(story()) == Ready(swagger={})
    assert [one.getMessage() for one in caplog.records] == [
        "blue#1 worker 0 wrote to its control socket what is no word of its host"
    ]


def test_of_the_documents_of_a_script_only_those_are_taken_that_its_host_would_send() -> None:
    largest = worker_swagger.DOCUMENT_BYTES_MAX
    documents = {"2": "x" * largest, "3": "x" * (largest + 1), "3.1": "\ud800", "4": "{}"}
    ready = crew._first_word(json.dumps({"event": "ready", "swagger": documents}).encode())
    assert isinstance(ready, Ready)
    assert set(ready.swagger) == {"2"}
    assert crew._first_word(b'{"event": "ready", "swagger": {"2": 7}}') == Ready(swagger={})


def test_a_start_for_which_descriptors_run_out_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    def open_descriptors() -> set[str]:
        return {str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()}

    monkeypatch.setattr(os, "pipe", full)
    assert "Too many open files" in failure(crew_spec(tmp_path, ECHO)).message
    assert not [one for one in open_descriptors() if "memfd:plan" in one]


def test_a_line_without_end_on_the_control_socket_is_a_worker_that_failed(worker: Worker) -> None:
    async def story() -> None:
        events = asyncio.StreamReader(limit=10)
        events.feed_data(b"x" * 100)
        with pytest.raises(CrewFailed, match="in a line to its control socket"):
            await worker._hear(events)

    asyncio.run(story())


def test_many_small_writes_wait_in_the_pipe_and_the_first_does_not(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "OUTPUT_EVERY_S", 3600.0)

    async def story() -> None:
        read_fd, write_fd = os.pipe()
        os.set_blocking(read_fd, False)
        with io.FileIO(read_fd) as output, io.FileIO(write_fd, "w") as script:
            keeping = asyncio.create_task(worker._keep_output(output))
            script.write(b"one\nbeg")
            await until(lambda: written == [b"one\n"], "a lone line is told at once")
            for _ in range(10):
                script.write(b"x\n")
                await asyncio.sleep(0)
            waiting = bytearray(4)
            fcntl.ioctl(read_fd, termios.FIONREAD, waiting)
            assert struct.unpack("i", waiting) == (20,)
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        assert written == [b"one\n", b"beg\n"], "what was begun is told at the end"

    (worker._spec.folder / "logs").mkdir(parents=True)
    asyncio.run(story())


def test_a_crew_goes_on_whatever_goes_wrong_with_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, look = Worker.start, Worker.look
    failing = {"start": True, "look": True}

    async def start_or_fail(self: Worker) -> Ready:
        if self.restarts and failing.pop("start", False):
            raise RecursionError
        return await start(self)

    async def look_or_fail(self: Worker, hung_after_s: float) -> None:
        if self.slot == 0 and failing.pop("look", False):
            raise struct.error("short")
        await look(self, hung_after_s)

    monkeypatch.setattr(Worker, "start", start_or_fail)
    monkeypatch.setattr(Worker, "look", look_or_fail)
    monkeypatch.setattr(crew, "LOOK_EVERY_S", 0.01)

    async def story(made: Pool) -> None:
        await until(lambda: "look" not in failing, "a look went wrong")
        (before,) = made.pids
        # Ended by a look; and the first that shall take its place cannot start.
        os.kill(before, signal.SIGSTOP)
        await until(lambda: "start" not in failing and made.crew.status().ready == 1, "it is replaced")
        assert made.pids != [before]

    told(crew_spec(tmp_path, ECHO), story)

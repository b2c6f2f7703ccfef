"""A real worker inside a real bwrap: what it can reach, what it cannot, and that it is watched as any other.

Where the machine has no bwrap, or forbids user namespaces, the tests that need it are skipped and say so.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import proc
from gateway.crew import Crew, CrewFailed, CrewSpec
from gateway.sandbox import Room, make_scratch, sandboxed
from tests.support.bwrap import need_bwrap
from tests.support.crews import ECHO, Pool, crew_spec, pool, until
from tests.support.nobody import another_user, give_to_him, his_python

# Each thing that it is asked to do, and what came of it: a value, or the name of an error.
TRY = """
import glob, json, multiprocessing, os, socket, subprocess, sys, tempfile, threading, time

def init():
    pass

def tried(text):
    try:
        return eval(text)
    except Exception as error:
        return type(error).__name__

def run(raw):
    asked = json.loads(raw)
    if isinstance(asked, str):
        return len(asked) * "a"
    return {text: tried(text) for text in asked}
"""
HANG = """
import json, os, signal, time
def init():
    pass
def run(raw):
    what = json.loads(raw)
    if what == "hang":
        while True: pass
    if what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "crash":
        os.abort()
    if what == "hold":
        globals()["held"] = held = bytearray(130 << 20)
        held[::4096] = bytes(len(held) // 4096)
    return os.getpid()
"""


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A state folder as a gateway has it, with another deployment's things and the gateway's secrets beside."""
    need_bwrap()
    state = tmp_path / "state"
    for name in ("master.key", "gateway.db", "management.token", "scripts/other/score.py", "workers/b/logs/worker-0"):
        path = state / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
    (tmp_path / "outside.txt").write_text("secret")
    return state


def spec_of(state: Path, script: str, **changes: Any) -> CrewSpec:
    """A deployment whose code, model and working folder lie in the state folder."""
    model = state / "scripts" / "mine" / "model"
    model.mkdir(parents=True)
    (model / "m.txt").write_text("weights")
    more = {"sandbox": "bwrap", "hidden": (state,), "readable": (model,)}
    return crew_spec(state / "scripts" / "mine", script, **(more | changes))


def told(spec: CrewSpec, story: Callable[[Pool], Awaitable[None]]) -> None:
    async def run() -> None:
        async with pool(spec) as made:
            await story(made)

    asyncio.run(run())


def outcomes(spec: CrewSpec, *tries: str) -> list[Any]:
    found: dict[str, Any] = {}

    async def story(made: Pool) -> None:
        found.update(await made.value(tries))

    told(spec, story)
    return [found[text] for text in tries]


def test_a_worker_reads_its_own_and_nothing_else_of_the_state_folder(room: Path) -> None:
    spec = spec_of(room, TRY)
    own, secrets, there, outside = outcomes(
        spec,
        f"open({str(room / 'scripts/mine/model/m.txt')!r}).read() + str(os.path.exists('score.py'))",
        f"[one for one in glob.glob({str(room)!r} + '/**', recursive=True) if os.path.isfile(one)]",
        f"sorted(os.listdir({str(room)!r}))",
        f"open({str(room.parent / 'outside.txt')!r}).read()",
    )
    assert own == "weightsTrue"
    assert {Path(one).relative_to(room).parts[:2] for one in secrets} == {("scripts", "mine")}
    assert there == ["scripts"]
    assert outside == "FileNotFoundError"


def test_a_worker_has_no_network_and_sees_no_other_process(room: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0igw-test-sandbox")
        abstract.listen()
        port = server.getsockname()[1]
        inner, outer, unix, processes, parent = outcomes(
            spec_of(room, TRY),
            f"socket.create_connection(('127.0.0.1', {port}), 2)",
            "socket.create_connection(('192.0.2.1', 80), 2)",
            "socket.socket(socket.AF_UNIX).connect('\\0igw-test-sandbox')",
            "sum(one.isdecimal() for one in os.listdir('/proc'))",
            f"os.kill({os.getpid()}, 0)",
        )
    assert inner == "ConnectionRefusedError"
    assert outer == "OSError"
    assert unix == "ConnectionRefusedError"
    assert processes <= 3
    assert parent == "ProcessLookupError"


def test_a_worker_writes_to_its_own_folder_alone(room: Path) -> None:
    spec = spec_of(room, TRY)
    places = ["/x", "/usr/x", "/etc/x", "/dev/x", f"{room}/x", f"{room}/scripts/mine/model/x", f"{spec.code_dir}/x"]
    found = outcomes(
        spec,
        *(f"open({place!r}, 'w')" for place in places),
        "open('/tmp/x', 'w').write('1')",
        "open('/dev/shm/x', 'w').write('1')",
        "open(os.path.join(os.environ['HOME'], 'x'), 'w').write('1')",
        "len(tempfile.mkdtemp()) > 0",
        "multiprocessing.Semaphore().acquire()",
        "subprocess.run(['mount', '-o', 'remount,rw', '/usr'], stderr=-3).returncode != 0",
        "[line for line in open('/proc/self/status') if line.startswith('CapEff')][0].split()[1]",
    )
    assert found[: len(places)] == ["OSError"] * len(places)
    assert found[len(places) :] == [1, 1, 1, True, True, True, "0" * 16]
    assert not (room / "x").exists()


def test_large_bodies_go_in_and_out_of_a_sandbox(room: Path) -> None:
    async def story(made: Pool) -> None:
        body = "a" * 5_000_000
        assert await made.value(body) == body

    told(spec_of(room, TRY), story)


def test_a_key_inside_of_what_is_shown_stays_hidden_when_it_is_replaced(room: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "table.csv").write_text("1,2")
    plain, live, archive = (data / name for name in ("plain", "live", "archive"))
    for folder in (plain, live, archive):
        folder.mkdir()
    for file in (plain / "tls.key", archive / "key1", archive / "key2"):
        file.write_text("secret")
    (live / "key").symlink_to("../archive/key1")
    files = (plain / "tls.key", live / "key")
    spec = spec_of(room, TRY, hidden_files=files, readable=(data,))

    async def story(made: Pool) -> None:
        (plain / "new").write_text("secret")
        (plain / "new").replace(plain / "tls.key")
        (live / "new").symlink_to("../archive/key2")
        (live / "new").replace(live / "key")
        tries = [f"open({str(one)!r}).read()" for one in (*files, *archive.iterdir(), data / "table.csv")]
        found = await made.value(tries)
        assert [found[one] for one in tries] == ["FileNotFoundError"] * 4 + ["1,2"]

    told(spec, story)


def test_a_key_among_what_scripts_need_is_no_sandbox_and_that_is_said(tmp_path: Path) -> None:
    need_bwrap()
    failed = failure(crew_spec(tmp_path, ECHO, sandbox="bwrap", hidden_files=(Path("/etc/tls.key"),)))
    assert failed.code == "SandboxFailed"
    assert "/etc/tls.key must be hidden" in failed.message


@pytest.mark.parametrize("what", ["hang", "stop", "crash", "hold"])
def test_a_worker_in_a_sandbox_is_watched_as_any_other(room: Path, what: str) -> None:
    async def story(made: Pool) -> None:
        (before,) = made.pids
        sent = made.send(what, within_s=1.0 if what == "hang" else 10.0)
        await until(lambda: made.gone and made.crew.status().ready == 1, "it is replaced")
        assert made.pids != [before]
        if what != "hold":
            assert await sent.outcome() in ("ModelFailed", "DeadlineExceeded")
        assert isinstance(await made.value("again"), int)

    told(spec_of(room, HANG, memory_bytes=150 << 20 if what == "hold" else 0), story)


def test_how_a_worker_ended_is_told_through_the_sandbox(room: Path) -> None:
    killed = "import os, signal\ndef init():\n    os.kill(os.getpid(), signal.SIGSEGV)\ndef run(raw):\n    pass\n"
    with pytest.raises(CrewFailed, match="ended with signal 11 before init"):
        asyncio.run(Crew(spec_of(room, killed), print).start(1))


def test_a_worker_in_a_sandbox_ends_with_the_supervisor(room: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from gateway.crew import Crew\n"
        "from tests.support.crews import ECHO, crew_spec\n"
        "async def main():\n"
        f"    crew = Crew(crew_spec(Path({str(room / 'mine')!r}), ECHO, sandbox='bwrap'), print)\n"
        "    await crew.start(1)\n"
        "    print(crew.status().workers[0].pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )

    async def story() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        pid = int(await process.stdout.readline())
        inner = proc.descendant(pid, 2)
        assert inner != pid
        process.kill()
        await process.wait()
        await until(lambda: proc.state_of(pid) in "XZ" and proc.state_of(inner) in "XZ", "all of it ends")

    asyncio.run(story())


def test_a_user_who_is_not_root_can_make_the_sandbox() -> None:
    need_bwrap()
    own = Path(tempfile.mkdtemp())
    try:
        make_scratch(own)
        give_to_him(own, *own.iterdir())
        python = his_python()
        tries = "import os; open('x', 'w'); print(os.path.exists('/root'), os.path.exists('/home'))"
        room = Room(own=own, folder=own)
        command, environment = sandboxed(room, python, [str(python), "-I", "-c", tries], {"PATH": "/usr/bin"})
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **another_user())
        assert (done.returncode, done.stdout) == (0, "False False\n"), done.stderr
    finally:
        shutil.rmtree(own)


# What goes wrong before there is a sandbox needs none.


def test_a_sandbox_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    failed = failure(crew_spec(tmp_path, ECHO, sandbox="bwrap"))
    assert failed.code == "SandboxFailed"
    assert "bubblewrap" in failed.message


def test_a_kernel_that_forbids_the_sandbox_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = tmp_path / "bin" / "bwrap"
    stand_in.parent.mkdir()
    stand_in.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    failed = failure(crew_spec(tmp_path, ECHO, sandbox="bwrap"))
    assert failed.code == "SandboxFailed"
    assert "No permissions to create new namespace; the kernel must let" in failed.message


def failure(spec: CrewSpec) -> CrewFailed:
    with pytest.raises(CrewFailed) as failed:
        asyncio.run(Crew(spec, print).start(1))
    assert not spec.folder.exists()
    return failed.value

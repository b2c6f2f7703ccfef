"""The bounds of a worker, by the kernel's own word, for a user who is not root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import launcher
from tests.support.nobody import another_user, his_python

FORKS = """
import os, sys, time
made = 0
try:
    for _ in range(40):
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except BlockingIOError:
    pass
print(made, flush=True)
time.sleep(60)
"""
BURN = "while True: pass"
HOARD = "bytearray(200 << 20)"
OPEN = "files = [open('/dev/null') for _ in range(100)]"


@pytest.fixture
def program() -> Iterator[Path]:
    """The launcher where every user may read it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    found = Path(shutil.copy(launcher.__file__, folder))
    found.chmod(0o644)
    yield found
    shutil.rmtree(folder)


def start(program: Path, script: str, **limits: int) -> subprocess.Popen[str]:
    python = str(his_python())
    plan: dict[str, Any] = {
        "memory_bytes": 0,
        "cpu_seconds": 0,
        "files_max": 0,
        "processes_max": 0,
        **limits,
        "parent": os.getpid(),
        "folder": "/",
        "command": [python, "-I", "-S", "-c", script],
        "environment": {},
    }
    fd = os.memfd_create("plan", 0)
    os.write(fd, json.dumps(plan).encode())
    try:
        return subprocess.Popen(
            [python, "-I", "-S", str(program), str(fd)],
            pass_fds=(fd,),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **another_user(),
        )
    finally:
        os.close(fd)


def test_a_fork_bomb_is_bounded(program: Path) -> None:
    process = start(program, FORKS, processes_max=6)
    assert process.stdout is not None
    made = process.stdout.readline()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    # Others of this user may end meanwhile and leave their places.
    assert 1 <= int(made) < 30


@pytest.mark.parametrize(
    ("script", "limits", "says"),
    [
        (HOARD, {"memory_bytes": 100 << 20}, "MemoryError"),
        (OPEN, {"files_max": 20}, "Too many open files"),
        (BURN, {"cpu_seconds": 1}, ""),
    ],
    ids=["memory", "files", "CPU time"],
)
def test_what_takes_too_much_is_told_or_ended(program: Path, script: str, limits: dict[str, int], says: str) -> None:
    process = start(program, script, **limits)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (1 if says else -signal.SIGXCPU)
    assert says in said

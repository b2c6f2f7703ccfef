"""Children: real processes that are begun, told, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway import child
from gateway.child import Child
from tests.support.waiting import PATIENCE_S

# The module that a child is to run: says what it was told through its first descriptor, and ends as it is told.
MODULE = """
import json, os, signal

def main(told, fds):
    stops = [signal.getsignal(number) == signal.SIG_IGN for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    held = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    said = {
        "told": told, "fds": len(set(fds)), "stops": stops, "held": held, "keys": "GATEWAY_MASTER_KEY" in os.environ,
        "inherits": [fd for fd in fds if os.get_inheritable(fd)],
    }
    os.write(fds[0], json.dumps(said).encode())
    os._exit(int(told["status"]))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "told_what.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("GATEWAY_MASTER_KEY", "secret")
    return "told_what"


def run(story: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await story

    uvloop.run(bounded())


@pytest.mark.parametrize("more", [0, 253])
def test_a_child_is_told_what_it_is_and_given_its_descriptors(module: str, more: int) -> None:
    async def story() -> None:
        begun = Child.begin(module)
        ours, theirs = os.pipe()
        copies = [os.dup(theirs) for _ in range(more)]
        try:
            begun.tell({"status": "7"}, (theirs, *copies))
            # Whoever waits, and however many do, is told.
            assert set(await asyncio.gather(begun.wait(), begun.wait())) == {7}
            said = os.read(ours, 4096).decode()
        finally:
            for fd in (ours, theirs, *copies):
                os.close(fd)
        assert begun.has_ended and await begun.wait() == 7
        begun.kill()
        assert said == (
            f'{{"told": {{"status": "7"}}, "fds": {1 + more}, "stops": [true, true, true], "held": [], '
            '"keys": false, "inherits": []}'
        )

    run(story())


def test_signals_of_the_terminal_do_not_end_a_child_however_young_it_is(module: str) -> None:
    async def story() -> None:
        begun = Child.begin(module)
        for number in child.STOPS:
            os.kill(begun.pid, number)
        ours, theirs = os.pipe()
        begun.tell({"status": "0"}, (theirs,))
        assert await begun.wait() == 0
        os.close(ours)
        os.close(theirs)

    run(story())
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(child.STOPS)


def test_a_child_that_is_told_nothing_ends_with_who_began_it(module: str) -> None:
    async def story() -> None:
        begun = Child.begin(module)
        begun._way.close()
        assert await begun.wait() == 0

    run(story())


def test_a_child_that_is_ended_ends(module: str) -> None:
    async def story() -> None:
        begun = Child.begin(module)
        begun.kill()
        begun.kill()
        assert await begun.wait() == -signal.SIGKILL

    run(story())


def test_a_child_that_ended_as_it_began_says_so() -> None:
    async def story() -> None:
        begun = Child.begin("gateway.no_such_module")
        assert await begun.wait() == 1
        with pytest.raises(ChildProcessError, match=f"process {begun.pid} ended as it began"):
            begun.tell({}, ())

    run(story())


def open_files() -> set[str]:
    return {one.name for one in Path("/proc/self/fd").iterdir()}


def test_where_no_process_can_be_started_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    before = open_files()
    with pytest.raises(FileNotFoundError):
        Child.begin("gateway.scorer")
    assert open_files() == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(child.STOPS)

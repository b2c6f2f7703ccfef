"""Workers that are killed, stopped, crash, leak, leave and hang under checked load: each costs its own request.

The load goes on in two scorers while it happens; each of its answers is compared with what was sent. Times are those
of the promise, a new worker within a second and one that hangs replaced within two after its deadline, on a machine
that has a core to spare. Where it has not, they are longer by as much as the start of any interpreter is (`stretch`).
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.crews import Pool, Sent, crew_spec, pool, until

SCRIPT = """
import ctypes, json, os, signal, sys, time
kept = []
def init():
    pass
def run(raw):
    asked = json.loads(raw)
    what = asked.get("what")
    if what == "segfault":
        ctypes.string_at(0)
    elif what == "exit":
        os._exit(7)
    elif what == "abort":
        os.abort()
    elif what == "hang":
        while True:
            pass
    elif what == "sleep":
        time.sleep(asked["s"])
    elif what == "hoard":
        kept.append(bytearray(asked["bytes"]))
        for at in range(0, asked["bytes"], 4096):
            kept[-1][at] = 1
    elif what == "children":
        if os.fork() == 0:
            time.sleep(60)
        os._exit(1)
    return {"n": asked["n"], "pid": os.getpid()}
"""
MIB = 1 << 20
PERIOD_S = 0.02


def stretch() -> float:
    """How many times its CPU time a process takes to start now, as far as others have the cores; at least 1."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.monotonic()
    subprocess.run(["nice", "-n", "5", sys.executable, "-c", "import logging, socket"], check=True)
    took_s = time.monotonic() - began_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return max(1.0, took_s / (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime))


class Load:
    """Requests from both scorers at a steady pace, each with a number of its own."""

    def __init__(self, made: Pool) -> None:
        self._made = made
        self._sent: list[tuple[int, Sent]] = []
        self._task = asyncio.create_task(self._go())

    async def _go(self) -> None:
        number = 0
        while True:
            number += 1
            self._sent.append((number, self._made.send({"n": number}, within_s=8.0, scorer=number % 2)))
            await asyncio.sleep(PERIOD_S)

    async def check(self, at_least: int = 20) -> None:
        """Stop, and hold every answer against what was asked."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for number, sent in self._sent:
            assert (await sent.value())["n"] == number
        assert len(self._sent) >= at_least


def under_load(folder: Path, story: Callable[[Pool], Awaitable[None]], memory_bytes: int = 0) -> None:
    async def run() -> None:
        spec = crew_spec(folder, SCRIPT, workers=2, memory_bytes=memory_bytes)
        async with pool(spec, scorers=2) as made:
            load = Load(made)
            await asyncio.sleep(0.3)
            await story(made)
            await asyncio.sleep(0.3)
            await load.check()

    asyncio.run(run())


def is_whole(made: Pool, before: list[int]) -> bool:
    """All are ready again, and one is new."""
    return made.crew.status().ready == 2 and made.pids != before


def is_taken(sent: Sent) -> bool:
    return sent.request.is_taken


@pytest.mark.parametrize("what", ["segfault", "exit", "abort"])
def test_a_worker_that_crashes_costs_the_request_that_did_it(tmp_path: Path, what: str) -> None:
    async def story(made: Pool) -> None:
        before = made.pids
        sent = made.send({"n": 0, "what": what}, scorer=1)
        assert await sent.outcome() == "ModelFailed"
        assert "ended while it ran" in sent.fault
        await until(lambda: is_whole(made, before), "a new worker")

    under_load(tmp_path, story)


def test_what_a_crashed_worker_had_started_ends_with_it_and_holds_up_nothing(tmp_path: Path) -> None:
    async def story(made: Pool) -> None:
        before = made.pids
        assert await made.send({"n": 0, "what": "children"}).outcome() == "ModelFailed"
        await until(lambda: is_whole(made, before), "a new worker")
        (gone,) = set(before) - set(made.pids)
        await until(lambda: not _in_group(gone), "the child ends")

    under_load(tmp_path, story)


def test_a_new_worker_is_there_within_a_second(tmp_path: Path) -> None:
    async def story(made: Pool) -> None:
        took, slow = [], stretch()
        for _ in range(3):
            before = made.pids
            os.kill(before[0], signal.SIGKILL)
            took.append(await until(partial(is_whole, made, before), "a new worker"))
            await asyncio.sleep(0.2)
        assert statistics.median(took) <= 1.0 * max(slow, stretch())

    async def run() -> None:
        async with pool(crew_spec(tmp_path, SCRIPT, workers=2), scorers=2) as made:
            await story(made)
            assert (await made.value({"n": 5}))["n"] == 5

    asyncio.run(run())


def test_an_idle_worker_that_is_killed_costs_nothing(tmp_path: Path) -> None:
    async def story(made: Pool) -> None:
        before = made.pids
        held = made.send({"n": 0, "what": "sleep", "s": 0.5})
        await until(lambda: held.request.is_taken, "it runs")
        number = held.request.worker
        (idle,) = [one.pid for one in made.crew.status().workers if one.number != number]
        os.kill(idle, signal.SIGKILL)
        assert (await held.value())["n"] == 0
        await until(lambda: is_whole(made, before), "a new worker")

    async def run() -> None:
        async with pool(crew_spec(tmp_path, SCRIPT, workers=2), scorers=2) as made:
            await story(made)
            assert await asyncio.gather(*(one.outcome() for one in made.sent)) == [200]

    asyncio.run(run())


def test_a_stopped_worker_is_replaced_and_costs_what_it_was_running(tmp_path: Path) -> None:
    async def story(made: Pool) -> None:
        before = made.pids
        held = made.send({"n": 0, "what": "sleep", "s": 5.0})
        await until(lambda: held.request.is_taken, "it runs")
        (pid,) = [one.pid for one in made.crew.status().workers if one.number == held.request.worker]
        os.kill(pid, signal.SIGSTOP)
        assert await held.outcome() == "ModelFailed"
        await until(lambda: is_whole(made, before), "a new worker")

    under_load(tmp_path, story)


@pytest.mark.parametrize("scorer_is_dead", [False, True])
def test_a_hung_worker_is_replaced_within_two_seconds_of_its_deadline(tmp_path: Path, scorer_is_dead: bool) -> None:
    async def story(made: Pool) -> None:
        before = made.pids
        slow = stretch()
        sent = made.send({"n": 0, "what": "hang"}, within_s=0.5, scorer=0)
        await until(lambda: sent.request.is_taken, "it runs")
        if scorer_is_dead:
            # Nobody reports it: its client is closed, as if its process were gone.
            made.clients[0].close()
        deadline_s = sent.request.deadline_ns / 1e9
        assert await sent.outcome() == ("Unavailable" if scorer_is_dead else "DeadlineExceeded")
        await until(lambda: is_whole(made, before), "a new worker")
        took_s = time.monotonic() - deadline_s
        assert took_s <= 2.0 * max(slow, stretch())

    async def run() -> None:
        async with pool(crew_spec(tmp_path, SCRIPT, workers=2), scorers=2) as made:
            others = [made.send({"n": number}, scorer=1) for number in range(20)]
            await story(made)
            assert [(await one.value())["n"] for one in others] == list(range(20))
            assert (await made.value({"n": 5}, scorer=1))["n"] == 5

    asyncio.run(run())


def test_a_run_that_ends_a_little_late_keeps_its_worker(tmp_path: Path) -> None:
    async def story(made: Pool) -> None:
        before = made.pids
        sent = made.send({"n": 0, "what": "sleep", "s": 0.6}, within_s=0.4)
        assert await sent.outcome() == "DeadlineExceeded"
        await asyncio.sleep(2.5)
        assert made.pids == before

    under_load(tmp_path, story)


def test_one_request_that_wants_more_memory_than_there_is_fails_alone(tmp_path: Path) -> None:
    async def story(made: Pool) -> None:
        before = made.pids
        assert await made.send({"n": 0, "what": "hoard", "bytes": 10_000 * MIB}).outcome() == 500
        assert made.pids == before

    under_load(tmp_path, story, memory_bytes=512 * MIB)


def test_a_worker_that_leaks_is_replaced_between_two_requests(tmp_path: Path) -> None:
    async def story(made: Pool) -> None:
        before = set(made.pids)
        for number in range(30):
            assert (await made.value({"n": number, "what": "hoard", "bytes": 40 * MIB}))["n"] == number
            if not before & set(made.pids):
                break
            await asyncio.sleep(0.3)
        assert before - set(made.pids)

    under_load(tmp_path, story, memory_bytes=512 * MIB)


@pytest.mark.parametrize("seed", [1])
def test_any_sequence_of_faults_costs_only_the_requests_that_were_hit(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    async def story(made: Pool) -> None:
        for _ in range(4):
            what = chance.choice(["segfault", "exit", "abort", "hang", "stop"])
            before = made.pids
            if what == "stop":
                held = made.send({"n": 0, "what": "sleep", "s": 5.0})
                await until(partial(is_taken, held), "it runs")
                number = held.request.worker
                os.kill(next(one.pid for one in made.crew.status().workers if one.number == number), signal.SIGSTOP)
            else:
                held = made.send({"n": 0, "what": what}, within_s=0.3, scorer=chance.randrange(2))
            assert await held.outcome() in ("ModelFailed", "DeadlineExceeded")
            await asyncio.sleep(chance.random() * 0.2)
            await until(partial(is_whole, made, before), "a new worker")

    under_load(tmp_path, story)


def _in_group(group: int) -> bool:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False

"""Workers that are killed, stopped, crash, leak, leave, hang and cut their own wires under checked load.

The load goes on in two scorers while it happens; each of its answers is compared with what was sent. Of a script that
is given one request at a time, each fault costs its own request; of one with run_batch(), what shared that run as
well, where the process is lost, and nothing else. Times are the promise's own: a new worker is there within a second,
one that hangs is replaced within two after its deadline, on a machine that has a core to spare. Where it has not, the
kernel tells how long the new worker waited for one, which is taken off; and it is the median of several that counts.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from runtimes import BatchLimits
from tests.support.crews import Pool, Sent, crew_spec, pool, until

SCRIPT = """
import ctypes, json, os, signal, sys, time
kept = []
def init():
    pass
def act(asked, size):
    what = asked.get("what")
    if what == "segfault":
        ctypes.string_at(0)
    elif what == "exit":
        os._exit(7)
    elif what == "abort":
        os.abort()
    elif what == "raise":
        raise ValueError("poisoned")
    elif what == "hang":
        while True:
            pass
    elif what == "sleep":
        time.sleep(asked["s"])
    elif what == "close":
        os.closerange(3, 4096)
    elif what == "hoard":
        kept.append(bytearray(asked["bytes"]))
        for at in range(0, asked["bytes"], 4096):
            kept[-1][at] = 1
    elif what == "children":
        if os.fork() == 0:
            time.sleep(60)
        os._exit(1)
    return {"n": asked["n"], "pid": os.getpid(), "size": size}
def run(raw):
    return act(json.loads(raw), 1)
"""
RUN_BATCH = """
def run_batch(batch):
    return [act(json.loads(one), len(batch)) for one in batch]
"""
FORMS = pytest.mark.parametrize("batches", [False, True], ids=["alone", "batches"])
MIB = 1 << 20
PERIOD_S = 0.02
RESPAWN_S, HUNG_S = 1.0, 2.0


class Load:
    """Requests from both scorers at a steady pace, some of them at one moment, each with a number of its own."""

    def __init__(self, made: Pool, within_s: float) -> None:
        self._made = made
        self._within_s = within_s
        self._sent: list[tuple[int, Sent]] = []
        self._task = asyncio.create_task(self._go())

    async def _go(self) -> None:
        number = 0
        while True:
            for _ in range(2 if number % 5 else 4):
                number += 1
                sent = self._made.send({"n": number}, within_s=self._within_s, scorer=number % 2)
                self._sent.append((number, sent))
            await asyncio.sleep(PERIOD_S)

    async def check(self, lost: list[Sent], at_least: int = 20) -> None:
        """Stop, and hold every answer against what was asked. `lost`: those whose run was lost to a fault, and with
        it whatever shared it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        runs = {run_of(one) for one in lost} - {None}
        for number, sent in self._sent:
            outcome = await sent.outcome()
            if outcome != 200:
                assert run_of(sent) in runs, (number, outcome, sent.fault)
            else:
                assert (await sent.value())["n"] == number
        assert len(self._sent) >= at_least


def run_of(sent: Sent) -> tuple[int, int] | None:
    """Which worker took it and when: what was taken with it has the same. None: nobody took it."""
    return (sent.request.worker, sent.request.taken_ns) if sent.request.is_taken else None


def batching(batches: bool) -> BatchLimits | None:
    return BatchLimits(batch_rows_max=16) if batches else None


def under_load(
    folder: Path,
    story: Callable[[Pool], Awaitable[list[Sent] | None]],
    *,
    batches: bool = False,
    memory_bytes: int = 0,
    within_s: float = 8.0,
) -> None:
    """`story` returns those whose run it gave up for lost."""

    async def run() -> None:
        script = SCRIPT + RUN_BATCH * batches
        spec = crew_spec(folder, script, workers=2, memory_bytes=memory_bytes)
        async with pool(spec, scorers=2, batching=batching(batches)) as made:
            load = Load(made, within_s)
            await asyncio.sleep(0.3)
            lost = await story(made)
            await asyncio.sleep(0.3)
            await load.check(lost or [])

    asyncio.run(run())


def is_whole(made: Pool, before: list[int]) -> bool:
    """All are ready again, and one is new."""
    pids = made.pids
    return made.crew.status().ready == len(before) and pids != before and 0 not in pids


def is_taken(sent: Sent) -> bool:
    return sent.request.is_taken


def pid_of(made: Pool, sent: Sent) -> int:
    """The process that runs it."""
    return next(one.pid for one in made.crew.status().workers if one.number == sent.request.worker)


async def hit(made: Pool, what: str, scorer: int) -> Sent:
    """A request that ends its worker, or whose worker is ended from outside."""
    if what not in ("kill", "stop"):
        return made.send({"n": 0, "what": what}, scorer=scorer)
    sent = made.send({"n": 0, "what": "sleep", "s": 5.0}, scorer=scorer)
    await until(partial(is_taken, sent), "it runs")
    os.kill(pid_of(made, sent), signal.SIGKILL if what == "kill" else signal.SIGSTOP)
    return sent


@FORMS
def test_a_worker_that_is_lost_costs_the_run_it_was_lost_in(tmp_path: Path, batches: bool) -> None:
    async def story(made: Pool) -> list[Sent]:
        lost = []
        for turn, what in enumerate(["segfault", "exit", "abort", "close", "kill", "stop"]):
            before = made.pids
            sent = await hit(made, what, turn % 2)
            assert await sent.outcome() == "ModelFailed", what
            assert "ended while it ran" in sent.fault
            await until(partial(is_whole, made, before), f"a new worker after {what}")
            lost.append(sent)
        return lost

    under_load(tmp_path, story, batches=batches)


def test_a_poisoned_request_of_a_batch_costs_itself_alone(tmp_path: Path) -> None:
    async def story(made: Pool) -> None:
        before = made.pids
        for turn in range(5):
            sent = made.send({"n": 0, "what": "raise"}, scorer=turn % 2)
            assert await sent.outcome() == 500
        assert made.pids == before
        # Many at once share runs, which shows that those of the load do.
        sizes = [await one.value() for one in [made.send({"n": number}) for number in range(40)]]
        assert max(one["size"] for one in sizes) > 1

    under_load(tmp_path, story, batches=True)


def test_what_a_crashed_worker_had_started_ends_with_it_and_holds_up_nothing(tmp_path: Path) -> None:
    async def story(made: Pool) -> list[Sent]:
        before = made.pids
        sent = made.send({"n": 0, "what": "children"})
        assert await sent.outcome() == "ModelFailed"
        await until(lambda: is_whole(made, before), "a new worker")
        (gone,) = set(before) - set(made.pids)
        await until(lambda: not _in_group(gone), "the child ends")
        return [sent]

    under_load(tmp_path, story)


def waited_s(made: Pool, before: list[int]) -> float:
    """How long the new worker was ready to run, but waited for a core that others had."""
    (pid,) = set(made.pids) - set(before)
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


# How long something took, and how much of that was waiting for a core.
Took = tuple[float, float]


async def sampled(measure: Callable[[], Awaitable[Took]], bound_s: float, least: int, most: int) -> None:
    """Measure so often that the median is within the bound; it must be, of all, in the end."""
    told: list[Took] = []
    while len(told) < most:
        told.append(await measure())
        if len(told) >= least and _median(told) <= bound_s:
            break
    seen = ", ".join(f"{took_s:.3f} ({wait_s:.3f} of it waiting for a core)" for took_s, wait_s in told)
    print(f"median {_median(told):.3f} s without waiting; {seen}")
    assert _median(told) <= bound_s, seen


def _median(told: list[Took]) -> float:
    return statistics.median(took_s - wait_s for took_s, wait_s in told)


@FORMS
def test_a_new_worker_is_there_within_a_second(
    tmp_path: Path, batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each death is the first after steady work, so no pause between deaths grows; the pauses are told elsewhere.
    monkeypatch.setattr("gateway.crew.STEADY_AFTER_S", 0.1)

    async def story(made: Pool) -> list[Sent]:
        lost: list[Sent] = []

        async def measure() -> Took:
            before = made.pids
            lost.append(await hit(made, "kill", len(lost) % 2))
            took_s = await until(partial(is_whole, made, before), "a new worker")
            wait_s = waited_s(made, before)
            await asyncio.sleep(0.15)
            return took_s, wait_s

        await sampled(measure, RESPAWN_S, least=5, most=15)
        return lost

    under_load(tmp_path, story, batches=batches)


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


@FORMS
def test_a_hung_worker_is_replaced_within_two_seconds_of_its_deadline(tmp_path: Path, batches: bool) -> None:
    """Of a batch that is the last deadline of those that share it."""

    async def story(made: Pool) -> list[Sent]:
        lost: list[Sent] = []

        async def measure() -> Took:
            before = made.pids
            sent = made.send({"n": 0, "what": "hang"}, within_s=0.4, scorer=len(lost) % 2)
            lost.append(sent)
            assert await sent.outcome() == "DeadlineExceeded"
            assert is_taken(sent)
            await until(partial(is_whole, made, before), "a new worker")
            shared = [one.request.deadline_ns for one in made.sent if run_of(one) == run_of(sent)]
            return time.monotonic() - max(shared) / 1e9, waited_s(made, before)

        await sampled(measure, HUNG_S, least=3, most=7)
        return lost

    under_load(tmp_path, story, batches=batches, within_s=2.5 if batches else 8.0)


def test_a_hung_worker_is_replaced_in_time_though_its_scorer_is_dead(tmp_path: Path) -> None:
    async def run() -> None:
        async with pool(crew_spec(tmp_path, SCRIPT, workers=2), scorers=4) as made:
            others = [made.send({"n": number}, scorer=3) for number in range(20)]
            dying = iter(range(3))

            async def measure() -> Took:
                before, scorer = made.pids, next(dying)
                sent = made.send({"n": 0, "what": "hang"}, within_s=0.5, scorer=scorer)
                await until(partial(is_taken, sent), "it runs")
                # Nobody reports it: its client is closed, as if its process were gone.
                made.clients[scorer].close()
                assert await sent.outcome() == "Unavailable"
                await until(partial(is_whole, made, before), "a new worker")
                return time.monotonic() - sent.request.deadline_ns / 1e9, waited_s(made, before)

            await sampled(measure, HUNG_S, least=1, most=3)
            assert [(await one.value())["n"] for one in others] == list(range(20))
            assert (await made.value({"n": 5}, scorer=3))["n"] == 5

    asyncio.run(run())


def test_a_run_that_ends_a_little_late_keeps_its_worker(tmp_path: Path) -> None:
    async def story(made: Pool) -> None:
        before = made.pids
        sent = made.send({"n": 0, "what": "sleep", "s": 0.6}, within_s=0.4)
        assert await sent.outcome() == "DeadlineExceeded"
        await asyncio.sleep(2.5)
        assert made.pids == before

    under_load(tmp_path, story)


@FORMS
def test_one_request_that_wants_more_memory_than_there_is_fails_alone(tmp_path: Path, batches: bool) -> None:
    async def story(made: Pool) -> None:
        before = made.pids
        assert await made.send({"n": 0, "what": "hoard", "bytes": 10_000 * MIB}).outcome() == 500
        assert made.pids == before

    under_load(tmp_path, story, batches=batches, memory_bytes=512 * MIB)


@FORMS
def test_a_worker_that_leaks_is_replaced_between_two_runs(tmp_path: Path, batches: bool) -> None:
    async def story(made: Pool) -> None:
        before = set(made.pids)
        for number in range(60):
            assert (await made.value({"n": number, "what": "hoard", "bytes": 40 * MIB}))["n"] == number
            if before - set(made.pids):
                break
            await asyncio.sleep(0.2)
        assert before - set(made.pids)

    under_load(tmp_path, story, batches=batches, memory_bytes=512 * MIB)


@pytest.mark.parametrize("seed", [1])
def test_any_sequence_of_faults_costs_only_the_requests_that_were_hit(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    async def story(made: Pool) -> list[Sent]:
        lost = []
        for _ in range(4):
            what = chance.choice(["segfault", "exit", "abort", "hang", "stop"])
            before = made.pids
            scorer = chance.randrange(2)
            if what == "hang":
                held = made.send({"n": 0, "what": what}, within_s=0.3, scorer=scorer)
            else:
                held = await hit(made, what, scorer)
            assert await held.outcome() in ("ModelFailed", "DeadlineExceeded")
            await asyncio.sleep(chance.random() * 0.2)
            await until(partial(is_whole, made, before), "a new worker")
            lost.append(held)
        return lost

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

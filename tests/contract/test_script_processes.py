"""Real scorers and real workers: who dies is replaced, and costs at most what it was doing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx

from gateway.channel import ScorerSettings
from gateway.controlplane.reconcile import change
from gateway.credentials import digest
from gateway.crews import Crews
from gateway.fleet import Fleet, ScorerProcess
from gateway.listener import HttpLimits, bind
from gateway.seats import SeatTable
from gateway.snapshot import AuthSpec, DeploymentSpec, EndpointSpec, SnapshotSpec
from runtimes import RuntimeSpec, ScriptSpec
from tests.support.crews import crew_spec, until

KEY = "k" * 43
SCRIPT = """
import json, os, time
def init():
    pass
def run(raw):
    asked = json.loads(raw)
    if asked == "exit":
        os._exit(1)
    while asked == "hang":
        pass
    return {"got": asked, "pid": os.getpid()}
"""


def snapshot(script: ScriptSpec, timeout_s: float) -> SnapshotSpec:
    blue = DeploymentSpec(
        name="blue",
        runtime=RuntimeSpec(path="", sha256=""),
        script=script,
        request_timeout_ns=int(timeout_s * 1e9),
        queue_wait_ns=0,
        pending_max=0,
        seat=-1,
        body_bytes_max=1 << 20,
    )
    auth = AuthSpec(mode="key", key_digests=(digest(KEY),))
    endpoint = EndpointSpec(name="e", auth=auth, traffic={"blue": 100}, deployments={"blue": blue})
    return SnapshotSpec(revision=1, endpoints={"e": endpoint})


class Served:
    def __init__(self, fleet: Fleet, crews: Crews, url: str) -> None:
        self.fleet = fleet
        self.crews = crews
        self._url = url

    @property
    def pids(self) -> list[int]:
        (status,) = self.crews.status().values()
        return [worker.pid for worker in status.workers if worker.is_ready]

    async def score(self, value: object) -> httpx.Response:
        # A connection of its own, which either scorer may get.
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=20) as client:
            return await client.post(self._url, json=value)

    async def all_right(self, count: int = 20) -> None:
        answers = await asyncio.gather(*(self.score(number) for number in range(count)))
        assert [answer.status_code for answer in answers] == [200] * count
        assert [answer.json()["got"] for answer in answers] == list(range(count))


@asynccontextmanager
async def served(folder: Path, timeout_s: float) -> AsyncIterator[Served]:
    settings = ScorerSettings(
        scorers=2,
        http=HttpLimits(),
        tls=None,
        tls_profile="intermediate",
        domain="",
        gzip=True,
        timeout_status=408,
        mirror_in_flight_max=4,
        version="0",
        log_level="warning",
        log_format="text",
    )
    seats_fd = SeatTable.create(2)
    sockets = bind("127.0.0.1", 0, shared=2)
    port = sockets[0].getsockname()[1]
    fleet = Fleet(settings, sockets, SeatTable(seats_fd, 2), seats_fd, lambda _: None)
    crews = Crews(fleet)
    fleet.on_recycle = crews.recycle
    try:
        await fleet.start()
        crew = crew_spec(folder, SCRIPT, workers=2)
        ready = await crews.start(crew)
        spec = snapshot(ScriptSpec(pool=crew.pool, workers=2, swagger=ready.swagger), timeout_s)
        async with fleet.changing:
            applied = await change(fleet.scorers, spec, {}, {})
            fleet.current = spec, applied.learned
        await until(lambda: fleet.serving == 2, "both serve")
        yield Served(fleet, crews, f"http://127.0.0.1:{port}/endpoints/e/score")
    finally:
        await crews.close(1.0)
        await fleet.stop()
        os.close(seats_fd)


def told(folder: Path, story: Callable[[Served], Awaitable[None]], timeout_s: float = 15.0) -> None:
    async def run() -> None:
        async with served(folder, timeout_s) as made:
            await made.all_right()
            await story(made)
            await made.all_right()

    asyncio.run(run())


def is_new(scorer: ScorerProcess, old: int) -> bool:
    return scorer.pid != old and scorer.is_serving


def test_a_worker_that_dies_costs_its_request_and_is_replaced(tmp_path: Path) -> None:
    async def story(made: Served) -> None:
        before = set(made.pids)
        answer = await made.score("exit")
        assert answer.status_code == 424
        assert "worker process ended" in answer.text
        await until(lambda: len(made.pids) == 2 and set(made.pids) != before, "a new worker")

    told(tmp_path, story)


def test_a_worker_that_hangs_is_answered_for_and_replaced(tmp_path: Path) -> None:
    async def story(made: Served) -> None:
        before = set(made.pids)
        assert (await made.score("hang")).status_code == 408
        await until(lambda: len(made.pids) == 2 and set(made.pids) != before, "a new worker")

    told(tmp_path, story, timeout_s=2.0)


def test_a_scorer_that_dies_is_replaced_and_reaches_the_same_workers(tmp_path: Path) -> None:
    async def story(made: Served) -> None:
        before = set(made.pids)
        first, second = made.fleet.scorers
        for scorer in (first, second):
            old = scorer.pid
            os.kill(old, signal.SIGKILL)
            await until(partial(is_new, scorer, old), "a new scorer")
            await made.all_right()
        assert set(made.pids) == before

    told(tmp_path, story)

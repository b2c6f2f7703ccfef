"""A scoring script in a scorer's two-phase change: a client on the pool's sockets, which stays with the pool."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256

import pytest

from gateway.channel import Prepared
from gateway.dataplane import load as loading
from gateway.dataplane.live import LiveDeployment, SnapshotCell
from gateway.dataplane.load import WorkerPools
from gateway.dataplane.prepare import Preparer
from gateway.seats import SeatTable
from gateway.snapshot import AuthSpec, DeploymentSpec, EndpointSpec, SnapshotSpec
from gateway.telemetry.record import ScorerRecord
from runtimes import (
    BatchLimits,
    LoadFailed,
    LoopScheduler,
    ModelFailed,
    RuntimeSpec,
    ScriptRequest,
    ScriptSpec,
    now_ns,
)
from tests.support.scripts import Workers, echo
from tests.support.wire import run

NAME = "e/blue"


def deployment(pool: str, workers: int = 1, name: str = "blue") -> DeploymentSpec:
    return DeploymentSpec(
        name=name,
        runtime=RuntimeSpec(path="", sha256=""),
        script=ScriptSpec(pool=pool, workers=workers, queue_items_max=9),
        request_timeout_ns=5_000_000_000,
        queue_wait_ns=0,
        pending_max=0,
        seat=-1,
        body_bytes_max=1 << 20,
    )


class World:
    """A Preparer, its pools, and what it serves."""

    def __init__(self, has_pools: bool = True) -> None:
        self.cell = SnapshotCell()
        self.record = ScorerRecord()
        self.pools: dict[str, Workers] = {}
        self.asked: list[str] = []
        self.may_send = asyncio.Event()
        self.may_send.set()
        self._seats_fd = SeatTable.create(2)
        self._seats = SeatTable(self._seats_fd, 2)
        self._revision = 0
        self.preparer = Preparer(
            cell=self.cell,
            record=self.record,
            seats=self._seats,
            index=0,
            scorers=2,
            scheduler=LoopScheduler(asyncio.get_running_loop()),
            pools=WorkerPools(sockets=self._sockets, recycle=lambda *_: None) if has_pools else None,
        )

    async def _sockets(self, pool: str) -> tuple[socket.socket, socket.socket]:
        self.asked.append(pool)
        await self.may_send.wait()
        if pool not in self.pools:
            self.pools[pool] = Workers(echo)
        return self.pools[pool].sockets()

    async def serve(self, *deployments: DeploymentSpec) -> Prepared:
        prepared = await self.prepare(*deployments)
        self.preparer.commit(prepared.revision)
        return prepared

    async def prepare(self, *deployments: DeploymentSpec) -> Prepared:
        self._revision += 1
        endpoint = EndpointSpec(
            name="e",
            auth=AuthSpec(mode="key", key_digests=(sha256(b"k").digest(),)),
            deployments={one.name: one for one in deployments},
        )
        return await self.preparer.prepare(SnapshotSpec(revision=self._revision, endpoints={"e": endpoint}), {})

    def served(self, name: str = "blue") -> LiveDeployment:
        return self.cell.current.endpoints["e"].deployments[name]

    async def close(self) -> None:
        self.preparer.unload(NAME)
        await self.serve()
        self.preparer.close()
        for workers in self.pools.values():
            workers.close()
        self._seats.close()
        os.close(self._seats_fd)


@asynccontextmanager
async def world(has_pools: bool = True) -> AsyncIterator[World]:
    one = World(has_pools)
    try:
        yield one
    finally:
        await one.close()


def submit(to: LiveDeployment) -> asyncio.Future[ScriptRequest]:
    """One request, as the scoring path gives it."""
    done: asyncio.Future[ScriptRequest] = asyncio.get_running_loop().create_future()
    request = ScriptRequest(
        method="POST",
        target="/score",
        headers=[],
        body=b"{}",
        deadline_ns=now_ns() + 2_000_000_000,
        reply=done.set_result,
    )
    assert to.live.scripts is not None
    to.live.scripts.submit(request)
    return done


def test_a_script_is_served_from_its_pools_sockets() -> None:
    async def main() -> None:
        async with world() as one:
            prepared = await one.serve(deployment("p1", workers=3))
            assert prepared.failures == {}
            assert (prepared.loaded[NAME].provider, prepared.learned[NAME].instances) == ("script", 3)
            assert (await submit(one.served())).answer is not None
            one.preparer.measure()
            counted = one.record.snapshot().endpoints["e"].deployments["blue"]
            assert (counted.instances, counted.queue_depth, counted.runs) == (3, 0, 1)
            status = one.served().live.runtime.status()
            assert (status.name, status.state) == ("blue", "ready")
            scripts = one.served().live.scripts
            assert scripts is not None
            # Two scorers share what may wait, rounded up.
            assert scripts.spec.queue_items_max == 5

    run(main())


def test_a_pool_that_stays_keeps_its_client_whatever_else_changes() -> None:
    async def main() -> None:
        async with world() as one:
            await one.serve(deployment("p1"))
            before = one.served().live
            await one.serve(replace(deployment("p1"), request_timeout_ns=1))
            assert one.served().live is before
            await one.serve(deployment("p1", workers=4))
            assert one.served().live is before
            assert before.runtime.instances == 4
            assert one.asked == ["p1"]

    run(main())


def test_other_limits_of_batches_are_told_to_the_same_client() -> None:
    async def main() -> None:
        async with world() as one:
            plain = deployment("p1")
            await one.serve(plain)
            scripts = one.served().live.scripts
            assert scripts is not None
            assert plain.script is not None
            limits = BatchLimits(batch_rows_max=5)
            batched = replace(plain, script=replace(plain.script, batching=limits, batching_reason="for a test"))
            prepared = await one.serve(batched)
            assert one.served().live.scripts is scripts
            learned = prepared.learned[NAME]
            assert (learned.batched, learned.rows_max, learned.reason) == (True, 5, "for a test")
            status = scripts.status()
            assert (status.batched, status.rows_cap, scripts.spec.queue_items_max) == (True, 5, 5)
            await one.serve(plain)
            assert (await submit(one.served())).answer is not None
            assert one.asked == ["p1"]

    run(main())


def test_another_pool_is_joined_beside_and_the_old_one_drained() -> None:
    async def main() -> None:
        async with world() as one:
            await one.serve(deployment("p1"))
            before = one.served().live
            done = await one.preparer.load(NAME, deployment("p2"), None)
            assert done.loaded.provider == "script"
            assert one.served().live is before
            await one.serve(deployment("p2"))
            assert one.asked == ["p1", "p2"]
            assert one.served().live is not before
            await asyncio.sleep(0)
            assert before.runtime.status().state == "closed"
            assert (await submit(one.served())).answer is not None

    run(main())


def test_a_change_that_is_aborted_leaves_what_is_served() -> None:
    async def main() -> None:
        async with world() as one:
            await one.serve(deployment("p1"))
            before = one.served().live
            prepared = await one.prepare(deployment("p2"))
            one.preparer.abort(prepared.revision)
            assert one.served().live is before
            assert (await submit(one.served())).answer is not None

    run(main())


def test_the_request_of_a_worker_that_died_fails_also_while_its_deployment_drains() -> None:
    async def main() -> None:
        async with world() as one:
            one.pools["p1"] = Workers(echo, is_held=True)
            await one.serve(deployment("p1"))
            old = one.served()
            old.live.lease()
            waiting = submit(old)
            await asyncio.sleep(0.01)
            await one.serve(deployment("p2"))
            one.preparer.worker_gone("unknown", 0)
            one.preparer.worker_gone("p1", 0)
            assert isinstance((await waiting).fault, ModelFailed)
            old.live.release()
            await asyncio.sleep(0.01)
            assert old.live.runtime.status().state == "closed"
            one.preparer.worker_gone("p1", 0)

    run(main())


def test_sockets_that_do_not_come_fail_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with world() as one:
            one.may_send.clear()
            with pytest.raises(LoadFailed, match="did not arrive within"):
                await one.preparer.load(NAME, deployment("p1"), None)

    monkeypatch.setattr(loading, "SOCKETS_TIMEOUT_S", 0.01)
    run(main())


def test_a_load_that_nobody_wants_any_more_gives_its_sockets_back() -> None:
    async def main() -> None:
        async with world() as one:
            one.may_send.clear()
            under_way = asyncio.ensure_future(one.preparer.load(NAME, deployment("p1"), None))
            await asyncio.sleep(0)
            one.preparer.unload(NAME)
            one.may_send.set()
            with pytest.raises(LoadFailed, match="not wanted any more"):
                await under_way

    run(main())


def test_a_process_without_a_way_to_workers_says_so() -> None:
    async def main() -> None:
        async with world(has_pools=False) as one:
            prepared = await one.serve(deployment("p1"))
            assert "no way to its workers" in prepared.failures[NAME]

    run(main())


def test_a_deployment_may_become_a_script_and_keeps_nothing_of_what_it_was() -> None:
    async def main() -> None:
        async with world() as one:
            await one.serve(deployment("p1"))
            before = one.served().live
            prepared = await one.serve(replace(deployment("p1"), script=None))
            # The runtime of the test's spec names no model.
            assert NAME in prepared.failures
            assert before.runtime.status().state == "draining"

    run(main())

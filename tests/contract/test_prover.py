"""The prover as a process: what it finds out, and that whatever a model does to it, the next one is proven.

The process is real; models that never end are ended with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.channel import LoadDone, RemoteFailed
from gateway.prover import NICE
from gateway.prover_process import Prover
from gateway.snapshot import DeploymentSpec
from runtimes import RuntimeSpec
from runtimes.loader import open_model
from tests.support import models
from tests.support.waiting import PATIENCE_S

NAME = "e/blue"


@pytest.fixture
def good(tmp_path: Path) -> DeploymentSpec:
    return _deployment(models.write(tmp_path, models.double(), "good.onnx"))


@pytest.fixture
def endless(tmp_path: Path) -> DeploymentSpec:
    return _deployment(models.write(tmp_path, models.endless(), "endless.onnx"))


def _deployment(path: Path) -> DeploymentSpec:
    return DeploymentSpec(
        name="blue",
        runtime=RuntimeSpec(path=str(path), sha256="", instance_count=4),
        request_timeout_ns=5_000_000_000,
        queue_wait_ns=0,
        pending_max=0,
        seat=-1,
        body_bytes_max=1 << 20,
    )


@asynccontextmanager
async def prover(*, limit_s: float = 60.0, idle_s: float = 60.0) -> AsyncIterator[Prover]:
    made = Prover("warning", "text", limit_s=limit_s, idle_s=idle_s)
    try:
        yield made
    finally:
        await made.close()


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await story()

    asyncio.run(bounded())


async def proven(by: Prover, deployment: DeploymentSpec) -> LoadDone:
    done = await by.prove(NAME, deployment)
    assert done is not None
    return done


async def under_way(by: Prover, proving: asyncio.Task[LoadDone | None]) -> int:
    """The process, once it is there and has had time to hear of the model."""
    while not by.pid and not proving.done():
        await asyncio.sleep(0.01)
    return by.pid


async def gone(pid: int) -> None:
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.01)


def test_it_finds_out_what_a_scorer_would_and_goes_after_everybody_else(good: DeploymentSpec) -> None:
    async def story() -> None:
        async with prover() as one:
            found = (await proven(one, good)).learned
            here = open_model(good.runtime).learned
            assert (found.batched, found.reason, found.output_axes) == (True, here.reason, here.output_axes)
            assert found.run_times.keys() == here.run_times.keys()
            assert all(took_ns > 0 for took_ns in found.run_times.values())
            assert os.getpriority(os.PRIO_PROCESS, one.pid) == os.getpriority(os.PRIO_PROCESS, 0) + NICE

    run(story)


def test_a_model_that_cannot_be_loaded_costs_no_process(good: DeploymentSpec, tmp_path: Path) -> None:
    async def story() -> None:
        async with prover() as one:
            await proven(one, good)
            pid = one.pid
            with pytest.raises(RemoteFailed, match=r"^the model file .*none\.onnx cannot be opened: No such file"):
                await one.prove(NAME, _deployment(tmp_path / "none.onnx"))
            await proven(one, good)
            assert one.pid == pid

    run(story)


def test_a_process_that_dies_proves_nothing_and_the_next_model_gets_another(
    good: DeploymentSpec, endless: DeploymentSpec
) -> None:
    async def story() -> None:
        async with prover() as one:
            proving = asyncio.create_task(one.prove(NAME, endless))
            pid = await under_way(one, proving)
            os.kill(pid, signal.SIGKILL)
            assert await proving is None
            await proven(one, good)
            assert one.pid not in (0, pid)

    run(story)


def test_a_process_that_ended_while_it_was_idle_is_replaced_before_the_next_model(good: DeploymentSpec) -> None:
    async def story() -> None:
        async with prover() as one:
            await proven(one, good)
            pid = one.pid
            os.kill(pid, signal.SIGKILL)
            while one.pid:
                await asyncio.sleep(0.01)
            await proven(one, good)
            assert one.pid not in (0, pid)

    run(story)


def test_a_model_that_never_ends_is_refused_after_its_time_and_its_process_ended(
    good: DeploymentSpec, endless: DeploymentSpec
) -> None:
    async def story() -> None:
        async with prover(limit_s=2) as one:
            proving = asyncio.create_task(one.prove(NAME, endless))
            pid = await under_way(one, proving)
            with pytest.raises(RemoteFailed, match=r"^it was not loaded within 2 s \(setting load_timeout_s\)$"):
                await proving
            await gone(pid)

    run(story)


def test_what_nobody_waits_for_any_more_is_ended_and_what_waited_behind_it_is_proven(
    good: DeploymentSpec, endless: DeploymentSpec
) -> None:
    async def story() -> None:
        async with prover() as one:
            proving = asyncio.create_task(one.prove(NAME, endless))
            pid = await under_way(one, proving)
            behind = asyncio.create_task(one.prove("e/green", good))
            proving.cancel()
            assert await behind is not None
            await gone(pid)

    run(story)


def test_it_ends_by_itself_when_there_is_nothing_to_prove(good: DeploymentSpec) -> None:
    async def story() -> None:
        async with prover(idle_s=0.01) as one:
            done = await one.prove(NAME, good)
            assert done is not None
            while one.pid:
                await asyncio.sleep(0.01)

    run(story)


def test_it_ends_with_the_supervisor_whatever_it_runs(endless: DeploymentSpec) -> None:
    async def story() -> None:
        async with prover() as one:
            proving = asyncio.create_task(one.prove(NAME, endless))
            pid = await under_way(one, proving)
        assert await proving is None
        await gone(pid)

    run(story)

"""A deployment is loaded ahead of the change that serves it, and grows and shrinks while it serves.

The Preparer loads tiny real models on its own thread; where a moment matters, the model's opening waits for the test.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.channel import (
    Channel,
    Commit,
    Done,
    Load,
    LoadDone,
    Message,
    Prepare,
    Prepared,
    RemoteFailed,
    ScorerSettings,
    Start,
    Unload,
)
from gateway.controlplane.reconcile import change, load
from gateway.credentials import digest
from gateway.dataplane import load as loading
from gateway.dataplane.live import SnapshotCell
from gateway.dataplane.prepare import Preparer
from gateway.fleet import Fleet
from gateway.listener import HttpLimits, bind
from gateway.scorer import Scorer
from gateway.seats import SeatTable
from gateway.snapshot import AuthSpec, DeploymentSpec, EndpointSpec, SnapshotSpec
from gateway.telemetry.record import ScorerRecord
from runtimes import Learned, LoadFailed, LoopScheduler, RuntimeSpec, WorkItem
from runtimes.onnx.session import OnnxSession
from runtimes.runtime import Runtime
from tests.support import models
from tests.support.waiting import PATIENCE_S

NAME = "e/blue"


def deployment(path: Path, **runtime: Any) -> DeploymentSpec:
    return DeploymentSpec(
        name=path.stem,
        runtime=RuntimeSpec(path=str(path), sha256="", **{"dispatch": "thread", **runtime}),
        request_timeout_ns=5_000_000_000,
        queue_wait_ns=0,
        pending_max=0,
        seat=-1,
        body_bytes_max=1 << 20,
    )


def snapshot(revision: int, *deployments: DeploymentSpec) -> SnapshotSpec:
    endpoint = EndpointSpec(
        name="e",
        auth=AuthSpec(mode="key", key_digests=(digest("k" * 43),)),
        deployments={one.name: one for one in deployments},
    )
    return SnapshotSpec(revision=revision, endpoints={"e": endpoint})


class Gate:
    """Holds up the loader's thread: each opening is counted, and waits while the gate is shut for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.open.set()
        self.lets_through = ""
        self.opened: list[str] = []
        self.sessions: list[OnnxSession] = []
        for name in ("open_model", "open_more"):
            monkeypatch.setattr(loading, name, self._watched(name, getattr(loading, name)))

    def _watched(self, name: str, really: Callable[..., Any]) -> Callable[..., Any]:
        def watched(spec: RuntimeSpec, *args: Any, **more: Any) -> Any:
            self.opened.append(f"{name} {Path(spec.path).stem}")
            assert Path(spec.path).stem == self.lets_through or self.open.wait(PATIENCE_S)
            opened = really(spec, *args, **more)
            self.sessions += opened.sessions if name == "open_model" else opened
            return opened

        return watched

    @property
    def living(self) -> int:
        """Sessions that were opened and are not closed."""
        return sum("closed" not in repr(session) for session in self.sessions)

    def has(self, living: int) -> bool:
        return self.living == living


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


class World:
    """A Preparer, with what it serves."""

    def __init__(self, scorers: int = 1) -> None:
        self.cell = SnapshotCell()
        self.record = ScorerRecord()
        self._seats_fd = SeatTable.create(scorers)
        self._seats = SeatTable(self._seats_fd, scorers)
        self.preparer = Preparer(
            cell=self.cell,
            record=self.record,
            seats=self._seats,
            index=0,
            scorers=scorers,
            scheduler=LoopScheduler(asyncio.get_running_loop()),
            opening=self._tell,
        )
        self._revision = 0
        # What prepares went on to open, in order.
        self.told: list[str] = []

    async def serve(self, *deployments: DeploymentSpec) -> Prepared:
        prepared = await self.prepare(*deployments)
        self.preparer.commit(prepared.revision)
        return prepared

    async def prepare(self, *deployments: DeploymentSpec) -> Prepared:
        self._revision += 1
        return await self.preparer.prepare(snapshot(self._revision, *deployments), {})

    async def _tell(self, name: str) -> None:
        # Others have their turn meanwhile.
        await asyncio.sleep(0)
        self.told.append(name)

    def runtime(self, name: str = "blue") -> Runtime:
        return self.cell.current.endpoints["e"].deployments[name].model

    async def close(self) -> None:
        self.preparer.unload(NAME)
        await self.serve()
        self.preparer.close()
        self._seats.close()
        os.close(self._seats_fd)


@asynccontextmanager
async def world(scorers: int = 1) -> AsyncIterator[World]:
    made = World(scorers)
    try:
        yield made
    finally:
        await made.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread makes true."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


async def ask(runtime: Runtime, x: float = 1.0) -> float:
    """One row through the runtime; the sum of its answer."""
    answer: asyncio.Future[WorkItem] = asyncio.get_running_loop().create_future()
    inputs = {"x": np.full((1, 4), x, np.float32)}
    runtime.submit(
        WorkItem(
            inputs=inputs,
            rows=1,
            key=runtime.signature.key(inputs, None),
            outputs=None,
            deadline_ns=0,
            reply=answer.set_result,
        )
    )
    item = await answer
    assert item.results is not None
    return float(item.results["y"].sum())


@pytest.fixture
def blue(tmp_path: Path) -> Path:
    return models.write(tmp_path, models.linear(), "blue.onnx")


@pytest.fixture
def green(tmp_path: Path) -> Path:
    return models.write(tmp_path, models.linear(seed=1), "green.onnx")


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await story()

    asyncio.run(bounded())


# Loading ahead.


def test_what_was_loaded_ahead_is_what_the_change_serves(blue: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            done = await here.preparer.load(NAME, deployment(blue), None)
            assert done.learned.batched
            prepared = await here.serve(deployment(blue))
            assert prepared.learned[NAME] == done.learned
            assert prepared.loaded[NAME] == done.loaded
            assert gate.opened == ["open_model blue"]
            await ask(here.runtime())
            # It counts for the deployment from its first run on.
            assert here.record.snapshot().endpoints["e"].deployments["blue"].runs == 1

    run(story)
    # Threads close their sessions behind the last run.
    asyncio.run(until(partial(gate.has, 0)))


def test_nothing_is_seen_of_what_is_held_aside(blue: Path, green: Path) -> None:
    async def story() -> None:
        async with world() as here:
            await here.serve(deployment(green))
            await here.preparer.load(NAME, deployment(blue), None)
            assert set(here.record.snapshot().endpoints["e"].deployments) == {"green"}
            assert set(here.cell.current.endpoints["e"].deployments) == {"green"}

    run(story)


def test_a_load_holds_up_neither_a_change_nor_a_request(blue: Path, green: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            await here.serve(deployment(green))
            gate.open.clear()
            ahead = asyncio.create_task(here.preparer.load(NAME, deployment(blue), None))
            await until(lambda: gate.opened == ["open_model green", "open_model blue"])
            await here.serve(replace(deployment(green), request_timeout_ns=1_000_000_000))
            await here.serve(replace(deployment(green), request_timeout_ns=2_000_000_000))
            await ask(here.runtime("green"))
            assert not ahead.done()
            gate.open.set()
            await ahead
            await here.serve(deployment(green), deployment(blue))
            assert len(gate.opened) == 2

    run(story)


def test_what_is_unloaded_is_closed_and_loaded_again_when_it_is_wanted(blue: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            await here.preparer.load(NAME, deployment(blue), None)
            here.preparer.unload(NAME)
            here.preparer.unload(NAME)
            await until(lambda: gate.living == 0)
            await here.serve(deployment(blue))
            assert gate.opened == ["open_model blue"] * 2
            # What is served stays.
            here.preparer.unload(NAME)
            await ask(here.runtime())

    run(story)


def test_a_load_that_is_given_up_keeps_nothing(blue: Path, green: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            gate.open.clear()
            running = asyncio.create_task(here.preparer.load(NAME, deployment(blue), None))
            queued = asyncio.create_task(here.preparer.load("e/green", deployment(green), None))
            await until(lambda: gate.opened == ["open_model blue"])
            here.preparer.unload(NAME)
            here.preparer.unload("e/green")
            gate.open.set()
            for given_up in (running, queued):
                with pytest.raises(LoadFailed, match="not wanted any more"):
                    await given_up
            # The one that had not begun never did.
            assert gate.opened == ["open_model blue"]
            await until(lambda: gate.living == 0)

    run(story)


def test_of_two_loads_of_one_name_the_later_wins(blue: Path, green: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            gate.open.clear()
            first = asyncio.create_task(here.preparer.load(NAME, deployment(blue), None))
            await until(lambda: gate.opened == ["open_model blue"])
            second = asyncio.create_task(here.preparer.load(NAME, deployment(green), None))
            await asyncio.sleep(0)
            gate.open.set()
            with pytest.raises(LoadFailed, match="not wanted any more"):
                await first
            await second
            # And one that is held is let go for one that comes after it.
            await here.preparer.load(NAME, deployment(blue), None)
            await until(lambda: gate.living == 1)

    run(story)


def test_what_cannot_be_loaded_is_said_in_one_sentence(
    tmp_path: Path, blue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with world() as here:
            with pytest.raises(LoadFailed, match=r"is empty; a path to one \.onnx file is needed"):
                await here.preparer.load(NAME, deployment(models.write(tmp_path, b"", "none.onnx")), None)

            def broken(*_: Any, **__: Any) -> Any:
                raise RuntimeError("a bug")

            monkeypatch.setattr(loading, "open_model", broken)
            with pytest.raises(LoadFailed, match="the gateway failed while loading it: RuntimeError: a bug"):
                await here.preparer.load(NAME, deployment(blue), None)
            failed = await here.prepare(deployment(blue))
            assert failed.failures == {NAME: "the gateway failed while loading it: RuntimeError: a bug"}

    run(story)


def test_a_change_that_is_aborted_leaves_what_was_loaded_ahead_of_it(blue: Path, green: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            await here.preparer.load(NAME, deployment(blue), None)
            prepared = await here.prepare(deployment(blue), deployment(green))
            here.preparer.abort(prepared.revision)
            await until(lambda: gate.living == 1)
            await here.serve(deployment(blue))
            assert gate.opened == ["open_model blue", "open_model green"]

    run(story)


def test_what_a_change_has_taken_up_is_not_unloaded_under_it(blue: Path, green: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            await here.preparer.load(NAME, deployment(blue), None)
            gate.open.clear()
            preparing = asyncio.create_task(here.prepare(deployment(blue), deployment(green)))
            await until(lambda: gate.opened[-1] == "open_model green")
            here.preparer.unload(NAME)
            gate.open.set()
            here.preparer.commit((await preparing).revision)
            await ask(here.runtime())

    run(story)


def test_a_change_that_is_cancelled_while_it_loads_keeps_nothing_of_it(blue: Path, green: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            gate.open.clear()
            gate.lets_through = "blue"
            preparing = asyncio.create_task(here.prepare(deployment(blue), deployment(green)))
            await until(lambda: gate.opened == ["open_model blue", "open_model green"])
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
            assert preparing.cancelled()
            gate.open.set()
            await until(lambda: "closed" in repr(gate.sessions[0]))

    run(story)


def test_a_load_of_what_is_served_already_is_done_at_once(blue: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            prepared = await here.serve(deployment(blue))
            done = await here.preparer.load(NAME, deployment(blue), None)
            assert done.learned == prepared.learned[NAME]
            assert gate.opened == ["open_model blue"]

    run(story)


def test_what_a_change_loaded_itself_needs_not_be_held_aside_too(blue: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            gate.open.clear()
            ahead = asyncio.create_task(here.preparer.load(NAME, deployment(blue), None))
            preparing = asyncio.create_task(here.prepare(deployment(blue)))
            await until(lambda: gate.opened == ["open_model blue"])
            gate.open.set()
            await ahead
            prepared = await preparing
            assert gate.living == 2
            here.preparer.commit(prepared.revision)
            await until(lambda: gate.living == 1)
            await ask(here.runtime())

    run(story)


# Capacity.


def test_a_deployment_grows_and_shrinks_while_it_serves_and_is_never_proven_again(blue: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            first = await here.serve(deployment(blue))
            runtime = here.runtime()
            answer = await ask(runtime)
            for instances in (3, 1, 2):
                asked = [asyncio.create_task(ask(runtime)) for _ in range(50)]
                prepared = await here.serve(deployment(blue, instance_count=instances))
                assert here.runtime() is runtime
                assert runtime.instances == prepared.learned[NAME].instances == instances
                assert prepared.loaded == first.loaded
                assert set(await asyncio.gather(*asked)) == {answer}
                # A session is closed by its thread, once that comes to it.
                await until(partial(gate.has, instances))
            assert gate.opened == ["open_model blue", "open_more blue", "open_more blue"]
            record = here.record.snapshot().endpoints["e"].deployments["blue"]
            assert record.items == 151

    run(story)
    # Threads close their sessions behind the last run.
    asyncio.run(until(partial(gate.has, 0)))


def test_more_instances_are_made_ready_ahead_and_come_with_the_change(blue: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            await here.serve(deployment(blue))
            done = await here.preparer.load(NAME, deployment(blue, instances=3), None)
            assert done.learned.instances == 3
            assert here.runtime().instances == 1
            await here.serve(deployment(blue, instances=3))
            assert here.runtime().instances == 3
            assert gate.opened == ["open_model blue", "open_more blue"]
            assert gate.living == 3

    run(story)


def test_a_change_of_capacity_that_is_aborted_or_unloaded_closes_the_sessions_it_made(blue: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            await here.serve(deployment(blue))
            prepared = await here.prepare(deployment(blue, instances=3))
            assert gate.living == 3
            here.preparer.abort(prepared.revision)
            await until(lambda: gate.living == 1)
            await here.preparer.load(NAME, deployment(blue, instances=2), None)
            assert gate.living == 2
            here.preparer.unload(NAME)
            await until(lambda: gate.living == 1)
            await ask(here.runtime())
            assert here.runtime().instances == 1

    run(story)


def test_fewer_instances_wait_for_no_other_load(blue: Path, green: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            await here.serve(deployment(blue, instances=2))
            gate.open.clear()
            ahead = asyncio.create_task(here.preparer.load("e/green", deployment(green), None))
            await until(lambda: gate.opened[-1] == "open_model green")
            await here.serve(deployment(blue, instances=1))
            assert here.runtime().instances == 1
            gate.open.set()
            await ahead
            here.preparer.unload("e/green")

    run(story)


def test_a_shared_count_is_rounded_up_and_what_it_does_not_change_opens_nothing(blue: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world(scorers=2) as here:
            for count, instances in ((1, 1), (2, 1), (3, 2), (4, 2)):
                await here.serve(deployment(blue, instance_count=count))
                assert here.runtime().instances == instances
            assert gate.opened == ["open_model blue", "open_more blue"]

    run(story)


def test_an_inline_model_has_one_session_whatever_its_capacity(blue: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            await here.serve(deployment(blue, dispatch="inline"))
            prepared = await here.serve(deployment(blue, dispatch="inline", instance_count=8))
            assert here.runtime().instances == prepared.learned[NAME].instances == 1
            assert gate.opened == ["open_model blue"]

    run(story)


def test_sessions_made_for_a_runtime_that_went_meanwhile_are_closed_and_it_is_loaded_whole(
    blue: Path, green: Path, gate: Gate
) -> None:
    async def story() -> None:
        async with world() as here:
            await here.serve(deployment(blue))
            gate.open.clear()
            ahead = asyncio.create_task(here.preparer.load(NAME, deployment(blue, instances=2), None))
            await until(lambda: gate.opened[-1] == "open_more blue")
            await here.serve()
            gate.open.set()
            await ahead
            await until(lambda: gate.living == 2)
            assert gate.opened == ["open_model blue", "open_more blue", "open_model blue"]
            await here.serve(deployment(blue, instances=2))
            assert here.runtime().instances == 2

    run(story)


def test_what_was_made_ready_for_more_instances_than_there_are_now_is_made_up_for(blue: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            await here.serve(deployment(blue, instances=3))
            await here.preparer.load(NAME, deployment(blue, instances=4), None)
            await here.serve(deployment(blue, instances=1))
            await here.serve(deployment(blue, instances=4))
            assert here.runtime().instances == 4
            await until(lambda: gate.living == 4)

    run(story)


def test_what_was_made_ready_for_fewer_instances_than_there_are_now_still_fits(blue: Path, gate: Gate) -> None:
    async def story() -> None:
        async with world() as here:
            await here.serve(deployment(blue))
            await here.preparer.load(NAME, deployment(blue, instances=2), None)
            await here.serve(deployment(blue, instances=3))
            await here.serve(deployment(blue, instances=2))
            assert here.runtime().instances == 2
            await until(lambda: gate.living == 2)

    run(story)


def test_a_session_that_fails_to_close_stops_nothing(
    blue: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with world() as here:
            await here.serve(deployment(blue))
            await here.preparer.load(NAME, deployment(blue, instances=3), None)

            def broken(_: OnnxSession) -> None:
                raise RuntimeError("it will not close")

            with monkeypatch.context() as patched:
                patched.setattr(OnnxSession, "close", broken)
                here.preparer.unload(NAME)
                await until(lambda: caplog.text.count("failed to close") >= 2)
            await ask(here.runtime())

    run(story)


def test_the_gauges_tell_how_many_instances_there_are_and_what_waits_for_them(blue: Path) -> None:
    async def story() -> None:
        async with world() as here:
            await here.serve(deployment(blue, instances=2))
            here.preparer.measure()
            totals = here.record.snapshot().endpoints["e"].deployments["blue"]
            assert (totals.instances, totals.busy, totals.waiting_runs) == (2, 0, 0)

    run(story)


# Over the channel.


def scorer_settings() -> ScorerSettings:
    return ScorerSettings(
        scorers=1,
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


async def drive(story: Callable[[Channel], Awaitable[None]]) -> None:
    async def handle(message: Message) -> Message:
        raise AssertionError(f"the scorer asks for {message}")

    (listening,) = bind("127.0.0.1", 0)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    seats_fd = SeatTable.create(1)
    scorer = asyncio.create_task(Scorer([listening], seats_fd).run(theirs))
    channel = await Channel.over(ours, handle)
    reading = asyncio.create_task(channel.serve())
    await channel.call(Start(index=0, settings=scorer_settings()))
    await story(channel)
    channel.close()
    await asyncio.gather(reading, scorer)
    os.close(seats_fd)


def test_a_scorer_loads_at_a_message_and_says_why_it_cannot(blue: Path, tmp_path: Path) -> None:
    async def talk(channel: Channel) -> None:
        loaded = await channel.call(Load(name=NAME, deployment=deployment(blue), learned=None))
        assert isinstance(loaded, LoadDone)
        assert loaded.learned.batched
        assert await channel.call(Unload(name=NAME)) == Done()
        known = Learned(batched=False, reason="known")
        again = await channel.call(Load(name=NAME, deployment=deployment(blue), learned=known))
        assert isinstance(again, LoadDone)
        assert again.learned.reason == "known"
        prepared = await channel.call(Prepare(spec=snapshot(1, deployment(blue)), learned={}))
        assert isinstance(prepared, Prepared)
        assert prepared.learned == {NAME: again.learned}
        await channel.call(Commit(revision=1))
        missing = tmp_path / "missing.onnx"
        with pytest.raises(RemoteFailed, match=f"^the model file {missing} cannot be opened: No such file"):
            await channel.call(Load(name=NAME, deployment=deployment(missing), learned=None))

    run(lambda: drive(talk))


def test_a_revision_that_was_not_prepared_is_neither_published_nor_forgotten(blue: Path) -> None:
    async def story() -> None:
        async with world() as here:
            prepared = await here.prepare(deployment(blue))
            here.preparer.abort(prepared.revision + 1)
            with pytest.raises(ValueError, match="revision 7 was not prepared here"):
                here.preparer.commit(7)
            here.preparer.commit(prepared.revision)
            await ask(here.runtime())

    run(story)


def test_a_prepare_tells_what_it_opens_before_it_does_and_of_nothing_else(
    blue: Path, green: Path, gate: Gate
) -> None:
    async def story() -> None:
        async with world() as here:
            gate.open.clear()
            serving = asyncio.create_task(here.serve(deployment(blue)))
            await until(lambda: bool(gate.opened))
            assert here.told == [NAME]
            gate.open.set()
            await serving
            await here.serve(deployment(blue))
            await here.preparer.load("e/green", deployment(green), None)
            await here.serve(deployment(blue), deployment(green))
            assert here.told == [NAME]
            # Sessions that are missing are opened too.
            await here.serve(deployment(blue, instances=3), deployment(green))
            assert here.told == [NAME, NAME]
            await here.serve(deployment(blue, instances=3), deployment(green))
            assert (here.told, len(gate.opened)) == ([NAME, NAME], 3)

    run(story)


# Real scorers.


def test_scorers_load_together_and_one_that_is_killed_meanwhile_loads_with_the_change(blue: Path) -> None:
    async def story() -> None:
        async with fleet(2) as scorers:
            first, second = scorers.scorers
            os.kill(second.pid, signal.SIGSTOP)
            ahead = asyncio.create_task(load(scorers.scorers, NAME, deployment(blue), None))
            await until(lambda: second.is_loading)
            os.kill(second.pid, signal.SIGKILL)
            learned, _ = await ahead
            await until(lambda: first.is_up and second.is_up and not scorers.changing.locked())
            async with scorers.changing:
                applied = await change(scorers.scorers, snapshot(1, deployment(blue)), {NAME: learned}, {})
            assert applied.learned == {NAME: learned}
            await until(lambda: scorers.serving == 2)
            reported = [await scorer.collect() for scorer in scorers.scorers]
            counted = [totals.endpoints["e"].deployments["blue"].instances for totals in reported if totals]
            assert counted == [learned.instances] * 2

    run(story)


@asynccontextmanager
async def fleet(scorers: int) -> AsyncIterator[Fleet]:
    seats_fd = SeatTable.create(scorers)
    settings = msgspec.structs.replace(scorer_settings(), scorers=scorers)
    sockets = bind("127.0.0.1", 0, shared=scorers)
    made = Fleet(settings, sockets, SeatTable(seats_fd, scorers), seats_fd, lambda _: None)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
        os.close(seats_fd)

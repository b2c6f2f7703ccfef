"""Copies under way: bounded until they are compared, one comparison a turn of the loop, and nothing raised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from gateway.dataplane import mirror as mirroring
from gateway.dataplane.live import LiveRuntime
from gateway.dataplane.mirror import Mirror
from gateway.errors import Code, Problem
from gateway.telemetry.record import DeploymentRecord
from gateway.telemetry.totals import ComparisonTotals
from runtimes import Array, BatchLimits, Datatype, ModelFailed, NullObserver, Signature, TensorSpec, WorkItem
from runtimes.runtime import Runtime
from runtimes.simulated import SimulatedSession
from tests.support.virtual import VirtualScheduler

OUTPUT = TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1, 2), batch_axis=0)


class Turns:
    """A scheduler whose turns the test takes."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.asked.append(callback)

    def turn(self) -> None:
        asked, self.asked = self.asked, []
        for callback in asked:
            callback()


def live_runtime() -> LiveRuntime:
    """With the outputs' names and types; nothing is run."""
    runtime = Runtime(
        name="green",
        sessions=(SimulatedSession(),),
        signature=Signature(inputs=(), outputs=(OUTPUT,)),
        limits=BatchLimits(),
        dispatch="inline",
        scheduler=VirtualScheduler(),
        observer=NullObserver(),
    )
    return LiveRuntime(runtime)


@dataclass
class FakeDeployment:
    name: str = "green"
    record: DeploymentRecord = field(default_factory=DeploymentRecord)
    live: LiveRuntime = field(default_factory=live_runtime)


class FakeCall:
    def __init__(
        self,
        target: object,
        deployment: FakeDeployment,
        head: object,
        arrived_ns: int,
        method: str = "POST",
        query: bytes = b"",
    ) -> None:
        self.request_id = ""
        self.method = method
        self.query = query
        self.target = target
        self.deployment = deployment
        self.head = head
        self.submitted_ns = arrived_ns
        self.mirror: FakeDeployment | None = None
        self.body = b""
        self.leased = False


class FakeScoring:
    """Keeps what it is given; the test replies."""

    def __init__(self) -> None:
        self.replies: list[tuple[FakeCall, Callable[[WorkItem], None]]] = []
        self.fault: Exception | None = None
        self.closed = 0

    def check_kind(self, copy: FakeCall) -> None:
        """Anything is taken."""

    def hand_over(self, copy: FakeCall, body: bytes, on_item: Callable[[WorkItem], None], queue_wait_ns: int) -> None:
        assert (body, queue_wait_ns) == (b"body", 0)
        if self.fault is not None:
            raise self.fault
        copy.submitted_ns = 1000
        self.replies.append((copy, on_item))

    def close(self, copy: FakeCall) -> None:
        self.closed += 1
        copy.deployment.live.release()


def answered(results: Mapping[str, Any] | None, took_ns: int = 0) -> WorkItem:
    item = WorkItem(inputs={}, rows=1, key=None, outputs=None, deadline_ns=0, reply=lambda _: None)
    item.results = None if results is None else {name: cast(Array, array) for name, array in results.items()}
    item.fault = ModelFailed("it failed") if results is None else None
    item.finished_ns = 1000 + took_ns
    return item


def rows(*values: float) -> dict[str, Any]:
    return {"y": np.array([values], np.float32)}


class World:
    def __init__(self, in_flight_max: int = 4) -> None:
        self.scoring = FakeScoring()
        self.turns = Turns()
        self.target = FakeDeployment()
        self.mirror = Mirror(cast(Any, self.scoring), in_flight_max, cast(Any, self.turns))

    def request(self, results: Mapping[str, Any] | None, took_ns: int = 0) -> None:
        """A live request that was answered."""
        call = FakeCall(None, FakeDeployment("blue"), None, 1000)
        call.mirror, call.body = self.target, b"body"
        self.mirror.copy(cast(Any, call), answered(results, took_ns))

    def reply(self, results: Mapping[str, Any] | None, took_ns: int = 0) -> None:
        """To the oldest copy that waits."""
        self.scoring.replies.pop(0)[1](answered(results, took_ns))

    @property
    def told(self) -> ComparisonTotals:
        return self.target.record.comparison().snapshot()

    @property
    def skipped(self) -> dict[str, int]:
        return {reason: count for reason, count in self.told.skipped.items() if count}

    def check_settled(self) -> None:
        """Nothing is held, and each copy ended in one way."""
        assert (self.mirror._in_flight, self.target.live._leases, self.turns.asked) == (0, 0, [])
        copies = self.target.record.snapshot().mirrored
        assert copies["answered"] == self.told.latency.count + self.skipped.get("live_failed", 0)


def test_a_copy_is_compared_with_the_live_answer_in_values_and_time() -> None:
    world = World()
    world.request(rows(1, 2), took_ns=3_000_000)
    world.turns.turn()
    world.reply(rows(4, 2), took_ns=9_000_000)
    assert world.told.rows == 0
    world.turns.turn()
    assert (world.told.rows, world.told.agreeing, world.told.latency.total) == (1, 0, 6000)
    assert world.target.live.largest_difference == 3.0
    world.check_settled()


def test_one_copy_is_compared_a_turn_however_many_come_back_at_once() -> None:
    world = World()
    for _ in range(3):
        world.request(rows(1, 2))
    world.turns.turn()
    for _ in range(3):
        world.reply(rows(1, 2))
    assert world.target.live._leases == 0
    for compared in (1, 2, 3):
        world.turns.turn()
        assert world.told.rows == compared
    world.check_settled()


def test_a_copy_is_under_way_until_it_is_compared() -> None:
    world = World(in_flight_max=1)
    world.request(rows(1, 2))
    world.turns.turn()
    world.reply(rows(1, 2))
    world.request(rows(1, 2))
    assert world.skipped == {"dropped": 1}
    world.turns.turn()
    world.request(rows(1, 2))
    world.turns.turn()
    world.reply(rows(1, 2))
    world.turns.turn()
    assert world.target.record.snapshot().mirrored == {"answered": 2, "dropped": 1, "failed": 0}
    world.check_settled()


def test_the_live_answer_is_looked_at_in_a_later_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Mapping[str, Array]] = []

    def look(results: Mapping[str, Array], signature: Signature) -> Mapping[str, Array]:
        looked.append(results)
        return {}

    monkeypatch.setattr(mirroring, "excerpts", look)
    world = World()
    world.request(rows(1, 2))
    assert looked == []
    world.turns.turn()
    assert len(looked) == 1


def test_without_a_live_answer_there_is_nothing_to_compare_with() -> None:
    world = World()
    world.request(None)
    world.turns.turn()
    world.reply(rows(1, 2))
    assert world.skipped == {"live_failed": 1}
    world.check_settled()


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Problem(Code.UNAVAILABLE, "it is draining"), "dropped"),
        (Problem(Code.INVALID_INPUT, "it takes another input"), "failed"),
        (RuntimeError("a mistake of the gateway"), "failed"),
    ],
)
def test_a_copy_that_is_not_taken_is_counted(fault: Exception, outcome: str) -> None:
    world = World()
    world.scoring.fault = fault
    world.request(rows(1, 2))
    world.turns.turn()
    assert world.skipped == {outcome: 1}
    assert world.target.record.snapshot().mirrored[outcome] == 1
    world.check_settled()


def test_a_copy_that_the_model_fails_is_counted() -> None:
    world = World()
    world.request(rows(1, 2))
    world.turns.turn()
    world.reply(None)
    assert world.skipped == {"failed": 1}
    world.check_settled()


@pytest.mark.parametrize("broken", ["live", "mirror"])
def test_an_answer_that_is_no_array_is_counted_and_raises_nothing(broken: str) -> None:
    world = World()
    good, bad = rows(1, 2), {"y": None}
    world.request(bad if broken == "live" else good)
    world.turns.turn()
    world.reply(bad if broken == "mirror" else good)
    world.turns.turn()
    assert world.skipped == {"error": 1}
    world.check_settled()


def test_a_comparison_that_fails_is_counted_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for _ in range(2):
        world.request(rows(1, 2))
    world.turns.turn()
    for _ in range(2):
        world.reply(rows(1, 2))
    with monkeypatch.context() as patched:
        patched.setattr(mirroring, "compare", lambda *_: 1 / 0)
        world.turns.turn()
    world.turns.turn()
    assert (world.skipped, world.told.rows) == ({"error": 1}, 1)
    world.check_settled()


def test_outputs_that_are_not_alike_are_counted_once_a_copy() -> None:
    world = World()
    world.request(rows(1, 2))
    world.turns.turn()
    world.reply({})
    world.turns.turn()
    assert world.skipped == {"names": 1}
    world.check_settled()


def test_the_largest_difference_is_of_the_target_that_answered() -> None:
    world = World()
    for mirrored in ((1.0, 5.0), (1.0, 2.5)):
        world.request(rows(1, 2))
        world.turns.turn()
        world.reply(rows(*mirrored))
        world.turns.turn()
    assert world.target.live.largest_difference == 3.0
    old = world.target.live
    world.request(rows(1, 2))
    world.turns.turn()
    # What is served changes while a copy is under way: the new one has not answered yet.
    copy = world.scoring.replies[0][0]
    copy.deployment = FakeDeployment(record=world.target.record, live=old)
    world.target.live = live_runtime()
    world.reply(rows(1, 99))
    world.turns.turn()
    assert (world.target.live.largest_difference, old.largest_difference) == (0.0, 97.0)

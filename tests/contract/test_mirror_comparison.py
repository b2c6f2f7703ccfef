"""Mirrored answers are compared with the live ones, through every door, and no caller notices anything of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.credentials import digest
from gateway.dataplane import compare as comparing
from gateway.dataplane.live import SnapshotCell
from gateway.dataplane.prepare import Preparer
from gateway.dataplane.score import ScoringOptions
from gateway.seats import SeatTable
from gateway.snapshot import AuthSpec, DeploymentSpec, EndpointSpec, SnapshotSpec
from gateway.telemetry.comparison import mirror_status
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import ComparisonTotals
from runtimes import Array, Datatype, LoopScheduler, RuntimeSpec, Signature, Tensors, TensorSpec
from runtimes.session import Session
from tests.support import models
from tests.support.door import WAYS, Door, Part, open_door

SCORE = "/endpoints/digits/score"
ROWS = {"input_data": [[1, 2, 3], [9, 5, 7]]}
RIGHT = {"label": [2, 0], "scores": [[1.0, 2.0, 3.0], [9.0, 5.0, 7.0]]}


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Classifier:
    """FP32 `scores` [N, 3] that are what `change` makes of the input, and `label` [N], the place of the largest."""

    provider = "simulated"

    def __init__(self, change: Callable[[Array], Array] = np.asarray, label: str = "label") -> None:
        x = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 3), batch_axis=0)
        scores = TensorSpec(name="scores", datatype=Datatype.FP32, shape=(-1, 3), batch_axis=0)
        labels = TensorSpec(name=label, datatype=Datatype.INT64, shape=(-1,), batch_axis=0)
        self.signature = Signature(inputs=(x,), outputs=(labels, scores), batched=True)
        self._change = change
        self._label = label

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        scores = np.asarray(self._change(inputs["x"]), np.float32)
        return {self._label: scores.argmax(axis=1), "scores": scores}

    def close(self) -> None:
        """Holds nothing."""


def parts(green: Callable[[], Session]) -> dict[str, Part]:
    return {"blue": Part(session=Classifier), "green": Part(session=green)}


def told(door: Door) -> ComparisonTotals:
    found = door.counted("green").snapshot().comparison
    assert found is not None
    return found


async def ask(door: Door, client: Any, times: int) -> None:
    for _ in range(times):
        answer = await client.post(SCORE, json=ROWS)
        assert (answer.status_code, answer.json()) == (200, RIGHT)
    await door.until(lambda: door.scoring._mirror._in_flight == 0)


def test_a_target_that_answers_the_same_agrees_in_everything(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=parts(Classifier), mirror={"green": 50}) as (door, client):
            await ask(door, client, 20)
            found = told(door)
            # Two outputs of two rows a copy: labels and scores.
            assert (found.rows, found.agreeing, found.nonfinite) == (40, 40, 0)
            assert found.difference.counts[0] == found.latency.count == 10
            assert set(found.skipped.values()) == {0}

    run(main())


def test_a_target_that_answers_otherwise_is_found_out(way: str) -> None:
    async def main() -> None:
        def otherwise(x: Array) -> Array:
            return x + np.array([7.5, 0, 0], np.float32)

        async with open_door(way, parts=parts(lambda: Classifier(otherwise)), mirror={"green": 50}) as (door, client):
            await ask(door, client, 20)
            found = told(door)
            assert (found.rows, found.agreeing) == (40, 20)
            assert door.deployments["green"].live.largest_difference == 7.5
            status = mirror_status(door.record.snapshot(), "digits", "green")
            assert status is not None
            assert (status["compared_rows"], status["top1_agreement"]) == (40, 0.5)
            assert status["copies"] == {"answered": 10, "dropped": 0, "failed": 0}
            assert status["latency_difference_ms"] is not None

    run(main())


UNLIKE: dict[str, tuple[Callable[[], Session], str, int]] = {
    "a shape": (lambda: Classifier(lambda x: x[:, :2]), "shape", 20),
    "a name": (lambda: Classifier(label="class"), "names", 20),
    "NaN": (lambda: Classifier(lambda x: np.full_like(x, np.nan)), "", 40),
}


@pytest.mark.parametrize(("green", "reason", "rows"), UNLIKE.values(), ids=UNLIKE.keys())
def test_what_is_unlike_is_counted(green: Callable[[], Session], reason: str, rows: int, way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=parts(green), mirror={"green": 50}) as (door, client):
            await ask(door, client, 20)
            found = told(door)
            assert {why: count for why, count in found.skipped.items() if count} == ({reason: 10} if reason else {})
            assert (found.rows, found.nonfinite) == (rows, 0 if reason else 10)

    run(main())


def test_a_comparison_that_breaks_reaches_nobody(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake of the gateway")

    monkeypatch.setattr(comparing, "_compare", broken)

    async def main() -> None:
        async with open_door(way, parts=parts(Classifier), mirror={"green": 50}) as (door, client):
            await ask(door, client, 20)
            assert told(door).skipped["error"] == 10
            assert door.codes("blue") == {200: 20}

    run(main())


def test_every_copy_ends_in_one_way_also_in_a_crowd(way: str) -> None:
    async def main() -> None:
        options = ScoringOptions(mirror_in_flight_max=2)
        async with open_door(way, parts=parts(Classifier), mirror={"green": 50}, options=options) as (door, client):
            await asyncio.gather(*(ask(door, client, 5) for _ in range(8)))
            found = told(door)
            assert sum(door.counted("green").snapshot().mirrored.values()) == 20
            assert found.latency.count + sum(found.skipped.values()) == 20
            assert found.rows == 4 * found.latency.count

    run(main())


def test_a_live_request_that_the_model_failed_has_nothing_to_compare(way: str) -> None:
    def fails(x: Array) -> Array:
        raise ValueError("no such rows")

    async def main() -> None:
        both = {"blue": Part(session=lambda: Classifier(fails)), "green": Part(session=Classifier)}
        async with open_door(way, parts=both, mirror={"green": 50}) as (door, client):
            for _ in range(4):
                assert (await client.post(SCORE, json=ROWS)).status_code == 424
            await door.until(lambda: told(door).skipped["live_failed"] == 2)

    run(main())


def test_a_deployment_that_gets_no_copies_counts_no_comparisons(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=parts(Classifier)) as (door, client):
            await ask(door, client, 3)
            assert [door.counted(name).snapshot().comparison for name in ("blue", "green")] == [None, None]

    run(main())


# What is served changes: the counts go on, the largest difference is the loaded model's own.


def _snapshot(revision: int, **paths: Path) -> SnapshotSpec:
    deployments = {
        name: DeploymentSpec(
            name=name,
            runtime=RuntimeSpec(path=str(path), sha256="", dispatch="inline"),
            request_timeout_ns=5_000_000_000,
            queue_wait_ns=0,
            pending_max=0,
            seat=-1,
            body_bytes_max=1 << 20,
        )
        for name, path in paths.items()
    }
    auth = AuthSpec(mode="key", key_digests=(digest("k" * 43),))
    traffic, mirror = {"blue": 100}, {"green": 10}
    endpoint = EndpointSpec(name="e", auth=auth, traffic=traffic, mirror=mirror, deployments=deployments)
    return SnapshotSpec(revision=revision, endpoints={"e": endpoint})


def test_the_largest_difference_is_that_since_the_target_was_loaded(tmp_path: Path) -> None:
    one, two = (models.write(tmp_path, models.linear(seed=seed), f"{seed}.onnx") for seed in (1, 2))

    async def main() -> None:
        cell, record, scheduler = SnapshotCell(), ScorerRecord(), LoopScheduler(asyncio.get_running_loop())
        seats_fd = SeatTable.create(1)
        seats = SeatTable(seats_fd, 1)
        preparer = Preparer(cell=cell, record=record, seats=seats, index=0, scorers=1, scheduler=scheduler)

        async def serve(revision: int, **paths: Path) -> float:
            await preparer.prepare(_snapshot(revision, **paths), {})
            preparer.commit(revision)
            preparer.measure()
            green = record.deployment("e", "green").snapshot()
            assert green.comparison is not None
            assert record.deployment("e", "blue").snapshot().comparison is None
            return green.max_abs_difference

        try:
            assert await serve(1, blue=one, green=one) == 0.0
            cell.current.endpoints["e"].deployments["green"].live.largest_difference = 2.5
            assert await serve(2, blue=two, green=one) == 2.5
            assert await serve(3, blue=two, green=two) == 0.0
        finally:
            await preparer.prepare(SnapshotSpec(revision=4), {})
            preparer.commit(4)
            preparer.close()
            seats.close()
            os.close(seats_fd)

    run(main())

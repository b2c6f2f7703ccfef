"""What is chosen for a deployment that nobody tuned, and the sentence that says why."""

from __future__ import annotations

from typing import Any

import pytest

from runtimes.choices import Choices, Measured, choose, sizes
from runtimes.spec import BatchingSpec, BatchLimits, RuntimeSpec

US, MS = 1_000, 1_000_000
ALL_SIZES = (1, 2, 4, 8, 16, 32, 64)


def times(run_ns: int, row_ns: int, *some: int) -> dict[int, int]:
    return {rows: run_ns + rows * row_ns for rows in some or ALL_SIZES}


TINY = times(6 * US, 1 * US)
FIXED_COST = times(900 * US, 70 * US)
BY_ROW = times(100 * US, 10 * MS)


def chosen(
    measured: dict[int, int],
    *,
    cores: int = 1,
    batched: bool = True,
    is_free: bool = False,
    failed_rows: int = 0,
    limits: BatchLimits | None = None,
    **fields: Any,
) -> Choices:
    spec = RuntimeSpec(path="m.onnx", sha256="", batching=BatchingSpec(limits=limits or BatchLimits()), **fields)
    return choose(spec, Measured(batched=batched, times=measured, is_free=is_free, failed_rows=failed_rows), cores)


def test_the_sizes_worth_measuring() -> None:
    assert sizes(BatchLimits()) == ALL_SIZES
    assert sizes(BatchLimits(batch_rows_max=1)) == (1,)
    assert sizes(BatchLimits(batch_rows_max=20)) == (1, 2, 4, 8, 16, 20)
    assert sizes(BatchLimits(batch_rows_max=20, sizes=(6, 12, 24))) == (1, 6, 12)


@pytest.mark.parametrize(
    ("measured", "fields", "dispatch", "reason"),
    [
        (TINY, {}, "inline", "a run of 1 row takes 7 us and one of 16 22 us: handing it"),
        (FIXED_COST, {}, "thread", "a run of 1 row takes 970 us and one of 16 2.0 ms: the event loop must not"),
        (times(100 * US, 60 * US), {}, "thread", "a run of 1 row takes 160 us and one of 16 1.1 ms: the event loop"),
        (times(100 * US, 0, 1), {"batched": False}, "inline", "a run of 1 row takes 100 us: handing it"),
        (TINY, {"is_free": True}, "thread", "a run of the sample takes 7 us, but requests may be of any size"),
        (TINY, {"provider": "cuda"}, "thread", "a run on a device is waited for"),
        (TINY, {"dispatch": "thread"}, "thread", "set by gateway.runtime.dispatch"),
        (FIXED_COST, {"dispatch": "inline"}, "inline", "set by gateway.runtime.dispatch"),
        ({}, {}, "thread", "no generated sample runs"),
    ],
)
def test_dispatch(measured: dict[int, int], fields: dict[str, Any], dispatch: str, reason: str) -> None:
    choices = chosen(measured, **fields)
    assert choices.dispatch == dispatch
    assert choices.reasons["dispatch"].startswith(reason)


@pytest.mark.parametrize(
    ("measured", "fields", "rows_max", "reason"),
    [
        (
            FIXED_COST,
            {},
            64,
            "rows a second, and more with every row so far; the most unless gateway.batching.max_rows",
        ),
        (BY_ROW, {}, 1, "98 rows a second; larger batches give at most 100"),
        (times(5 * MS, 2 * MS), {}, 32, "463 rows a second; larger batches give at most 481"),
        (times(5 * MS, 2 * MS, 1, 2), {}, 32, "463 rows a second; larger batches give at most 481"),
        (times(180 * US, 15 * US), {"failed_rows": 128}, 54, "hold the event loop for more than 1.0 ms"),
        (FIXED_COST, {"failed_rows": 128}, 64, "a run of 128 rows failed"),
        (FIXED_COST, {"batched": False}, 1, "requests share no run"),
        ({}, {}, 64, "no generated sample runs, so nothing was measured"),
        (
            BY_ROW,
            {"limits": BatchLimits(batch_rows_max=50, rows_learned=False)},
            50,
            "set by gateway.batching.max_rows",
        ),
        (FIXED_COST, {"limits": BatchLimits(sizes=(8, 16))}, 16, "the most unless gateway.batching.max_rows"),
    ],
)
def test_the_batch_limit(measured: dict[int, int], fields: dict[str, Any], rows_max: int, reason: str) -> None:
    choices = chosen(measured, **fields)
    assert choices.rows_max == rows_max
    assert reason in choices.reasons["rows_max"]


@pytest.mark.parametrize(
    ("fields", "cores", "instances", "reason"),
    [
        ({}, 1, 1, "this scorer's share of instance_count; it has 1 core"),
        ({}, 2, 1, "this scorer's share of instance_count; it has 2 cores"),
        ({}, 3, 2, "a scorer has 3 cores: one for the event loop, and more than one for runs"),
        ({"instance_count": 4}, 8, 4, "this scorer's share of instance_count"),
        ({"instances": 3}, 1, 3, "set by gateway.runtime.instances"),
        ({"provider": "cuda"}, 8, 1, "this scorer's share of instance_count"),
        ({"dispatch": "inline", "instances": 3}, 8, 1, "the event loop is one thread"),
    ],
)
def test_instances(fields: dict[str, Any], cores: int, instances: int, reason: str) -> None:
    choices = chosen(FIXED_COST, cores=cores, **fields)
    assert choices.instances == instances
    assert choices.reasons["instances"].startswith(reason)


def test_threads() -> None:
    assert chosen(TINY).threads == 1
    pinned = chosen(TINY, threads=4)
    assert (pinned.threads, pinned.reasons["threads"]) == (4, "set by gateway.runtime.threads")

"""Figure 9: what metrics and limits cost a request, in process: each part timed alone, in a loop, and added up.

Counted: everything that is only there to count or to bound. Metrics: the clock reads, the answer's record with all
its stages, the record of a run (as if each request ran alone), bytes and requests in flight. Limits: the head's
bounds (as of a head that was seen before on its connection), the seat under a bound, the look at the work ahead, the
deadline that is armed. Not counted: keys, which prove who asks, and the listener's bounds on heads and bodies, which
are comparisons inside the parser's callbacks.
Units: microseconds a request; medians of `REPEATS`. The call of each part is in it, so the sum is an upper bound.
"""

from __future__ import annotations

import itertools
import os
import timeit
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np

from bench.figures.outcome import Sample
from bench.figures.stage import Stage
from gateway.dataplane.admit import Gate
from gateway.dataplane.head import Head
from gateway.seats import SeatTable
from gateway.telemetry.record import DeploymentRecord
from runtimes import BatchLimits, Datatype, NullObserver, Signature, TensorSpec, WorkItem, now_ns
from runtimes.batching.timeouts import Timeouts
from runtimes.runtime import Runtime
from runtimes.tensor import Array, Tensors

REPEATS = 5
BOUND, COLUMNS = 400, 2
BODY_BYTES_MAX = 10 << 20
DEADLINE_NS = 5_000_000_000
CLOCK_READS = 4
FEATURES = 30
HEADERS = (
    (b"host", b"localhost"),
    (b"authorization", b"Bearer 0123456789abcdef0123456789abcdef"),
    (b"content-type", b"application/json"),
    (b"content-length", b"400"),
    (b"x-request-timeout-ms", b"250"),
)


def costs(stage: Stage) -> Mapping[str, Sample]:
    """One round, as long as any other measurement."""
    parts = measure(stage.settings.seconds)
    return {"9.cost": Sample(value=sum(parts.values()), beside={f"{name} us": cost for name, cost in parts.items()})}


def measure(seconds: float) -> dict[str, float]:
    parts = {**_metrics(), **_limits()}
    each_s = seconds / len(parts) / REPEATS
    return {name: _time_us(part, each_s) for name, part in parts.items()}


def _time_us(part: Callable[[], object], seconds: float) -> float:
    timer = timeit.Timer(part)
    once_s = timer.timeit(1000) / 1000
    number = max(100, int(seconds / max(once_s, 1e-8)))
    return median(timer.repeat(REPEATS, number)) / number * 1e6


def _metrics() -> dict[str, Callable[[], object]]:
    record = DeploymentRecord()

    def count() -> None:
        record.request_bytes += 400
        record.response_bytes += 40
        record.in_flight += 1
        record.in_flight -= 1

    def read_clocks() -> None:
        for _ in range(CLOCK_READS):
            now_ns()

    return {
        "clock reads": read_clocks,
        "answer recorded": lambda: record.answered(200, 900_000, 30_000, 40_000, 500_000, 10_000, 5_000),
        "run recorded": lambda: record.ran(1, 1, 500_000, False),
        "bytes and in flight": count,
    }


def _limits() -> dict[str, Callable[[], object]]:
    fd = SeatTable.create(COLUMNS)
    # The table keeps its memory for as long as it lives.
    seats = SeatTable(fd, COLUMNS)
    os.close(fd)
    gate = Gate("main", BOUND, seats, 0, 0)
    head = Head(HEADERS)
    head.check(BODY_BYTES_MAX, False)
    runtime, clock = _busy_runtime(), itertools.count(now_ns(), 1000)
    timeouts: Timeouts[_Done] = Timeouts(_NoTurns(), lambda item, at_ns: None)

    def seat() -> None:
        gate.check_room()
        gate.enter()
        gate.leave()

    def arm() -> None:
        item = _Done()
        timeouts.add(next(clock) + DEADLINE_NS, item)
        item.done = True

    return {
        "head's bounds": lambda: head.check(BODY_BYTES_MAX, False),
        "seat": seat,
        "work ahead": lambda: runtime.check_room(now_ns() + DEADLINE_NS, now_ns()),
        "deadline armed": arm,
    }


def _busy_runtime() -> Runtime:
    """A runtime with something waiting: its scheduler takes no turn."""
    signature = Signature(
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, FEATURES), batch_axis=0),),
        outputs=(TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1, FEATURES), batch_axis=0),),
        batched=True,
    )
    runtime = Runtime(
        name="costs",
        sessions=(_Echo(signature),),
        signature=signature,
        limits=BatchLimits(),
        dispatch="inline",
        scheduler=_NoTurns(),
        observer=NullObserver(),
    )
    inputs = {"x": np.zeros((1, FEATURES), np.float32)}
    key, deadline_ns = signature.key(inputs, None), now_ns() + DEADLINE_NS
    runtime.submit(
        WorkItem(inputs=inputs, rows=1, key=key, outputs=None, deadline_ns=deadline_ns, reply=lambda item: None)
    )
    return runtime


class _Done:
    """What a deadline needs of an item."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False


class _Echo:
    """Is never run."""

    provider = "none"

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        return {"y": inputs["x"]}

    def close(self) -> None:
        """Holds nothing."""


class _Never:
    def cancel(self) -> None:
        """Nothing was started."""


class _NoTurns:
    """A scheduler on which nothing comes due."""

    def now_ns(self) -> int:
        return now_ns()

    def call_soon(self, callback: Callable[[], Any]) -> None:
        """Never."""

    def call_at(self, when_ns: int, callback: Callable[[], Any]) -> _Never:
        return _Never()

    def call_from_thread(self, callback: Callable[[], Any]) -> None:
        """Never."""

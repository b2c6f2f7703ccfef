"""One load on one target: closed loops at the cost of their system calls, open ones timed from the intended send.

`closed` uses the generator of `bench.peers`, which knows no TLS and no schedule; `stepped` that of `gateway bench`.
Units: *_us microseconds, *_s seconds; `others` cores used by processes that are not ours.
Errors: GeneratorFailed, CannotMeasure.
"""

from __future__ import annotations

import base64
import os
import time
from dataclasses import dataclass

from bench.client.fleet import Plan, Progress
from bench.client.latency import Latencies
from bench.client.results import Step, bottlenecks
from bench.figures.cpu import used_ns
from bench.figures.stage import Stage, Target
from bench.machine import busy_s, tree_s
from bench.peers.measure import GRACE_S
from bench.peers.rounds import GENERATOR_FULL

# Between the order and the start of a step, as the fleet has it.
HEAD_START_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """`cpu_us` is the servers' processor time for an answer."""

    rate: float
    p50_us: float
    p99_us: float
    starvation: float
    cpu_us: float
    generator: float
    others: float
    unwanted: int

    @property
    def full(self) -> bool:
        return self.generator >= GENERATOR_FULL


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """`ended_s`: when the step's last request was meant to be sent, of the monotonic clock."""

    step: Step
    cpu_us: float
    others: float
    ended_s: float

    @property
    def full(self) -> bool:
        return bool(bottlenecks(self.step))

    @property
    def rate(self) -> float:
        return self.step.accepted_rate

    @property
    def unwanted(self) -> int:
        sums = self.step.sums
        return sums.failed + sum(count for status, count in sums.statuses.items() if status != 200)


class Others:
    """Processor time of processes that are neither this one nor descend from it."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._foreign_s = self._read()

    def cores(self) -> float:
        return max(0.0, self._read() - self._foreign_s) / (time.monotonic() - self._began_s)

    @staticmethod
    def _read() -> float:
        return (busy_s() or 0.0) - (tree_s(os.getpid()) or 0.0)


def closed(stage: Stage, target: Target, connections: int, seconds: float | None = None) -> Closed:
    """Each connection sends again when it has its answer. The best rate of a target is kept as its capacity."""
    settings = stage.settings
    seconds = settings.seconds if seconds is None else seconds
    job = {
        "port": target.server.port,
        "requests": [base64.b64encode(request).decode() for request in target.requests],
        "connections": connections,
        "warm_up_s": settings.warm_up_s,
        "seconds": seconds,
    }
    generator, others, served_ns = stage.generator(target.server), Others(), used_ns(target.server.pid)
    result = generator.ask(job, settings.warm_up_s + seconds + GRACE_S)
    served_ns, others_cores = used_ns(target.server.pid) - served_ns, others.cores()
    stage.best[target.label] = max(result["rate"], stage.best.get(target.label, 0.0))
    return Closed(
        rate=result["rate"],
        p50_us=result["p50_us"] or 0.0,
        p99_us=result["p99_us"] or 0.0,
        starvation=result["starvation"] or 0.0,
        cpu_us=served_ns / 1e3 / max(1, result["answers"]),
        generator=result["cpu_s"] / result["wall_s"],
        others=others_cores,
        unwanted=result["lost"] + sum(result["refused"].values()),
    )


def stepped(
    stage: Stage,
    target: Target,
    *,
    connections: int,
    rate: float | None = None,
    seconds: float | None = None,
    warm_up_s: float | None = None,
    seed: int = 0,
    drain_s: float = 2.0,
) -> Stepped:
    """A step of `gateway bench`; with `rate` an open loop of Poisson arrivals."""
    settings = stage.settings
    seconds = settings.seconds if seconds is None else seconds
    warm_up_s = settings.warm_up_s if warm_up_s is None else warm_up_s
    schedule = {"kind": "poisson", "rate": rate, "seed": seed, "index": 0, "of": 1} if rate is not None else None
    plan = Plan(
        connections=connections,
        rate=rate,
        schedules=(schedule,),
        warm_up_s=warm_up_s,
        duration_s=seconds,
        drain_s=drain_s,
    )
    generators = stage.fleet(target)
    ready: list[tuple[float, int]] = []

    def show(progress: Progress) -> None:
        # Connections are open now: what they cost is not of the requests.
        if progress.point is None:
            ready.append((time.monotonic(), used_ns(target.server.pid)))

    others = Others()
    step = stage.runner.run(generators.step(plan, show))
    ((ready_s, ready_ns),) = ready
    served_us = (used_ns(target.server.pid) - ready_ns) / 1e3
    counted = seconds / (seconds + warm_up_s)
    return Stepped(
        step=step,
        cpu_us=served_us * counted / max(1, step.sums.asked),
        others=others.cores(),
        ended_s=ready_s + HEAD_START_S + warm_up_s + seconds,
    )


def share_within(latencies: Latencies, limit_ns: float) -> float:
    """The part of the latencies that is not above a limit, to a thousandth of a hundredth; 0 where there are none."""
    if not latencies.count:
        return 0.0
    if latencies.max_ns <= limit_ns:
        return 1.0
    low, high = 0.0, 100.0
    while high - low > 0.001:
        middle = (low + high) / 2
        if latencies.percentile_ns(middle) <= limit_ns:
            low = middle
        else:
            high = middle
    return low / 100

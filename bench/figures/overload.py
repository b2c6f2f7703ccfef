"""Figure 8: more than can be served, in an open loop. One round gives the samples of all its lines.

Capacity is the highest closed-loop rate of the same target in the same run; goodput is what is accepted a second over
it. Latencies are timed from when requests were meant to be sent. So many connections that the server has to refuse:
with one request in flight on each, fewer of them would hold the load back instead.
Where the gateway itself is the limit, no generator on one core sends three times what it serves on one. There,
ballast processes take most of its core, and goodput and capacity are both counted for what it is left with.
Units: *_ms milliseconds, *_s seconds, rates a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from bench.client.bodies import Input, Model, request_bytes, v2_binary_body
from bench.client.results import Point
from bench.figures.loads import Stepped, closed, share_within, stepped
from bench.figures.outcome import Sample
from bench.figures.reach import DEADLINE_MS, FACTORS, ROWS
from bench.figures.stage import FOREST, MLP, PATHS, REQUEST_TIMEOUT_S, Stage, Target, ballast
from bench.peers import wires

# A closed loop at each; the best counts. By rows of a request: no request may run into its deadline.
CAPACITY_AT = {1: (256, 512), 64: (4, 16)}
EDGE_CONNECTIONS = 64
BASELINE_PART, BASELINE_CONNECTIONS = 0.3, 64
# Waiting requests are bounded by the deadline and by the queue; as many again are being refused.
CONNECTIONS_MIN, CONNECTIONS_MAX = 512, 6000
IN_FLIGHT_TIMES = 1.5
CONTROL_RATE = 200.0
SETTLE_S, RECOVERY_S, DRAIN_S = 0.5, 2.4, 0.5
# The baseline is back where p50 is within this much of it.
AGAIN_PART, AGAIN_MS = 1.25, 0.2
EDGE_FACTOR = 3
# What the generator surely sends in an open loop on one core.
GENERATOR_RATE = 25_000.0
DEADLINE = {"x-request-timeout-ms": str(DEADLINE_MS)}


def model_bound(stage: Stage) -> Mapping[str, Sample]:
    made: dict[str, Sample] = {}
    for name, rows in ROWS.items():
        made.update(_model_bound(stage, name, rows))
    return made


def _model_bound(stage: Stage, name: str, rows: int) -> Mapping[str, Sample]:
    target = _with_rows(stage, rows)
    capacity = _capacity(stage, target, CAPACITY_AT[rows])
    refused = stage.target("plain", MLP, wires.V2_BINARY, headers={"authorization": "Bearer wrong"}, label="control")
    control = stepped(stage, refused, connections=BASELINE_CONNECTIONS, rate=CONTROL_RATE)
    control_ms = control.step.sums.refused.percentile_ns(99) / 1e6
    baseline_ms = _baseline(stage, target, capacity).step.p_ms(50)
    made: dict[str, Sample] = {}
    for factor in FACTORS:
        found = _overload(stage, target, capacity, factor)
        again_s = _again_s(stage, target, capacity, baseline_ms, found.ended_s)
        made.update(_lines(f"{name}-{{}}-{factor}", found, capacity, control_ms, baseline_ms, again_s))
    return made


def gateway_bound(stage: Stage) -> Mapping[str, Sample]:
    target = stage.target("plain", FOREST, wires.JSON, headers=DEADLINE, label="overload forest")
    whole = closed(stage, target, EDGE_CONNECTIONS).rate
    count = ballast_count(whole, EDGE_FACTOR)
    with ballast(target.server.cores[0], count):
        part = closed(stage, target, EDGE_CONNECTIONS)
        found = _overload(stage, target, part.rate, EDGE_FACTOR)
    beside = {
        **_seen(found, part.rate),
        "capacity of the whole core/s": whole,
        "ballast processes": float(count),
        "by CPU time": accepted_for_cpu(found) * part.cpu_us,
    }
    return {
        "8.edge": Sample(
            value=found.rate / part.rate, others=found.others, full=found.full, unwanted=0, beside=beside
        )
    }


def ballast_count(rate: float, factor: int) -> int:
    """So many equal sharers that the generator can send `factor` times what is served with the rest of the core."""
    return max(0, math.ceil(rate * factor / GENERATOR_RATE) - 1)


def connections_for(capacity: float) -> int:
    wanted = int(capacity * DEADLINE_MS / 1000 * IN_FLIGHT_TIMES) + CONNECTIONS_MIN
    return min(CONNECTIONS_MAX, wanted)


def accepted_for_cpu(found: Stepped) -> float:
    """Accepted answers for a microsecond of the servers' processor time."""
    served_us = found.cpu_us * found.step.sums.asked
    return found.step.sums.accepted_in_time / served_us if served_us else 0.0


def recovered_s(points: Sequence[Point], limit_ms: float) -> float | None:
    """The end of the first slice from which on p50 stays within the limit; None where it does not by the end."""
    since: float | None = None
    for point in points:
        if point.accepted and point.p50_ms <= limit_ms:
            since = point.at_s + point.seconds if since is None else since
        else:
            since = None
    return since


def _with_rows(stage: Stage, rows: int) -> Target:
    """The mlp's requests with so many rows each, and with the deadline."""
    one = stage.target("plain", MLP, wires.V2_BINARY, headers=DEADLINE, label="overload mlp")
    if rows == 1:
        return one
    model = stage.model(MLP)
    named = Model(
        inputs=(Input(name=model.input, datatype="FP32", shape=(-1, model.features)),), outputs=(model.output,)
    )
    body = v2_binary_body(named, {model.input: np.resize(model.rows, (rows, model.features)).astype("<f4")})
    headers = {"authorization": f"Bearer {one.server.keys[MLP]}", **DEADLINE}
    request = request_bytes("localhost", PATHS[wires.V2_BINARY.name].format(MLP), body, tuple(headers.items()))
    return Target(label=f"overload mlp {rows} rows", server=one.server, requests=(request,))


def _capacity(stage: Stage, target: Target, at: Sequence[int]) -> float:
    for connections in at:
        closed(stage, target, connections)
    return stage.best[target.label]


def _baseline(stage: Stage, target: Target, capacity: float, seconds: float | None = None) -> Stepped:
    return stepped(
        stage,
        target,
        connections=BASELINE_CONNECTIONS,
        rate=capacity * BASELINE_PART,
        seconds=seconds,
        warm_up_s=0.0 if seconds else None,
    )


def _overload(stage: Stage, target: Target, capacity: float, factor: int) -> Stepped:
    return stepped(
        stage,
        target,
        connections=connections_for(capacity),
        rate=capacity * factor,
        warm_up_s=SETTLE_S,
        drain_s=DRAIN_S,
    )


def _again_s(stage: Stage, target: Target, capacity: float, baseline_ms: float, ended_s: float) -> float:
    """From the end of the overload. Where the baseline does not come back while it is watched: as long as that."""
    watched = _baseline(stage, target, capacity, RECOVERY_S)
    # Opening its connections is part of the way back.
    began_s = watched.ended_s - RECOVERY_S - ended_s
    found = recovered_s(watched.step.timeline, max(AGAIN_PART * baseline_ms, baseline_ms + AGAIN_MS))
    return began_s + (found if found is not None else time.monotonic() - watched.ended_s + 2 * RECOVERY_S)


def _lines(
    key: str, found: Stepped, capacity: float, control_ms: float, baseline_ms: float, again_s: float
) -> Mapping[str, Sample]:
    refused_ms = found.step.sums.refused.percentile_ns(99) / 1e6
    # Where nothing was accepted, nobody was served in time: as long as a client waits at most.
    accepted_ms = found.step.p_ms(99) if found.step.sums.accepted.count else REQUEST_TIMEOUT_S * 1e3
    above_ms = refused_ms - control_ms if found.step.sums.refused.count else 0.0
    values = {
        "goodput": (found.rate / capacity, _seen(found, capacity)),
        "accepted": (accepted_ms, {"p50 ms": found.step.p_ms(50)}),
        "refused": (above_ms, {"refused p99 ms": refused_ms, "control p99 ms": control_ms}),
        "again": (again_s, {"baseline p50 ms": baseline_ms}),
    }
    return {
        f"8.{key.format(name)}": Sample(
            value=value, others=found.others, full=found.full, unwanted=found.step.sums.failed, beside=beside
        )
        for name, (value, beside) in values.items()
    }


def _seen(found: Stepped, capacity: float) -> dict[str, float]:
    step = found.step
    return {
        "capacity/s": capacity,
        "asked/s": step.sums.asked / step.seconds,
        "accepted/s": step.accepted_rate,
        "refused/s": step.refused_rate,
        "accepted p99 ms": step.p_ms(99),
        "in time": share_within(step.sums.accepted, DEADLINE_MS * 1e6),
        "client late p99 ms": step.sums.lag.percentile_ns(99) / 1e6,
        "connections": float(step.connections),
        **{f"status {status}": float(count) for status, count in sorted(step.sums.statuses.items())},
        **{why: float(count) for why, count in sorted(step.sums.errors.items())},
    }

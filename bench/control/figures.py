"""Figures: reads and the start with 200 endpoints and 600 deployments; what a load does to scores elsewhere.

The 600 deployments share one small model, so that a start shows the control plane and not the disk; what loading took
is told beside it. Units: seconds.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.control import management as at
from bench.control.gateway import Gateway
from bench.control.management import Management
from bench.control.models import network, scaled
from bench.control.others import Others
from bench.control.scoring import Score
from bench.control.traffic import Traffic
from bench.control.wire import trusting

ENDPOINTS = 200
DEPLOYMENTS = ("dep0", "dep1", "dep2")
LIMITS = ("--endpoints-max", str(ENDPOINTS), "--deployments-max", str(ENDPOINTS * len(DEPLOYMENTS)))
NETWORK_MB = 20
RATE = 200.0
FACTOR = 3
READ_RATE = 40.0
READERS = 8
QUIET_S = 0.7
REST_S = 0.3
# Of the shortest load so far.
RESTS_SHARE = 0.9

_STRANGER = """
import hashlib, os, sys, time
os.nice(10)
ends_s, data = time.monotonic() + float(sys.argv[1]), bytes(1 << 20)
while time.monotonic() < ends_s:
    hashlib.sha256(data)
"""

Read = Callable[[str], str]
READS: dict[str, Read] = {
    "one endpoint": at.endpoint_path,
    "one deployment": lambda name: at.deployment_path(name, DEPLOYMENTS[0]),
    "the first page of endpoints": lambda name: at.ENDPOINTS,
    "the deployments of an endpoint": lambda name: f"{at.endpoint_path(name)}/deployments",
}


@dataclass(slots=True, kw_only=True)
class Starts:
    """`loading_s`: the part in which the first scorer loaded; `first_s`: with the folder, and nothing stored."""

    first_s: float = 0.0
    ready_s: list[float] = field(default_factory=list)
    loading_s: list[float] = field(default_factory=list)
    reads_s: dict[str, list[float]] = field(default_factory=dict)
    others: float = 0.0


@dataclass(slots=True, kw_only=True)
class Neighbours:
    """Latencies of scores on another endpoint, by window; the loads' own times; cores that others used.

    `strange`: while a process that has nothing to do with the gateway kept a core busy for as long as a load took.
    """

    quiet: list[list[float]] = field(default_factory=list)
    loaded: list[list[float]] = field(default_factory=list)
    strange: list[list[float]] = field(default_factory=list)
    loads_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    others: float = 0.0


async def starts(work: Path, *, count: int, reads: int) -> Starts:
    """Errors: StartFailed, Lost, Refused."""
    folder = work / "apply"
    write_folder(folder)
    result = Starts()
    result.first_s, _ = await _once(Gateway(work, options=("--apply", str(folder), *LIMITS)), 0)
    for number in range(count):
        ready_s, seen = await _once(Gateway(work, options=LIMITS), reads if number == count - 1 else 0)
        result.ready_s.append(ready_s)
        result.loading_s.append(seen.loading_s)
        result.reads_s, result.others = seen.reads_s, seen.others
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    loading_s: float
    reads_s: dict[str, list[float]]
    others: float


async def _once(gateway: Gateway, reads: int) -> tuple[float, _Seen]:
    """Start, look, stop; from the start to ready, and what was seen."""
    try:
        ready_s = await gateway.start()
        management = Management(gateway.urls["management"], trusting(gateway.urls["ca"]), gateway.token)
        loading_s = await _loading_s(management)
        management.close()
        reads_s, others = await _reads(gateway, reads)
        await gateway.stop()
    finally:
        gateway.end_family()
    return ready_s, _Seen(loading_s=loading_s, reads_s=reads_s, others=others)


async def _loading_s(management: Management) -> float:
    status = await management.need("GET", "/status")
    return sum(
        float(one["load_s"]) for endpoint in status["endpoints"].values() for one in endpoint["deployments"].values()
    )


async def _reads(gateway: Gateway, count: int) -> tuple[dict[str, list[float]], float]:
    """Each kind in turns at a fixed rate, whatever comes back; timed from when each was meant to be sent."""
    context = trusting(gateway.urls["ca"])
    idle = [Management(gateway.urls["management"], context, gateway.token) for _ in range(READERS)]
    others, chance = Others(), random.Random(0)
    found: dict[str, list[float]] = {kind: [] for kind in READS}
    running: list[asyncio.Task[None]] = []
    # The handshakes are not counted.
    await asyncio.gather(*(one.need("GET", at.WORKSPACE) for one in idle))
    due_s = time.monotonic()
    for number in range(count * len(READS)):
        kind = list(READS)[number % len(READS)]
        path = READS[kind](f"end-{chance.randrange(ENDPOINTS):03}")
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        running.append(asyncio.create_task(_read(idle, path, due_s, found[kind])))
        due_s += 1 / READ_RATE
    await asyncio.gather(*running)
    for one in idle:
        one.close()
    return found, others.cores()


async def _read(idle: list[Management], path: str, due_s: float, took_s: list[float]) -> None:
    while not idle:
        await asyncio.sleep(0.001)
    management = idle.pop()
    await management.need("GET", path)
    took_s.append(time.monotonic() - due_s)
    idle.append(management)


def write_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(scaled(FACTOR))
    traffic = "".join(f"  {name}: {100 * (name == DEPLOYMENTS[0])}\n" for name in DEPLOYMENTS)
    for number in range(ENDPOINTS):
        endpoint = f"end-{number:03}"
        (folder / f"{endpoint}.yml").write_text(f"name: {endpoint}\nauth_mode: key\ntraffic:\n{traffic}")
        for name in DEPLOYMENTS:
            (folder / f"{endpoint}-{name}.yml").write_text(
                f"name: {name}\nendpoint_name: {endpoint}\nmodel:\n  path: ./model.onnx\n  type: custom_model\n"
                "instance_type: Standard_DS3_v2\n"
            )


# ---- neighbours ----------------------------------------------------------------------------------------------------


async def neighbours(work: Path, *, loads: int, megabytes: int = NETWORK_MB) -> Neighbours:
    """Errors: StartFailed, Lost, Refused."""
    gateway = Gateway(work)
    result = Neighbours()
    try:
        await gateway.start()
        context = trusting(gateway.urls["ca"])
        management = Management(gateway.urls["management"], context, gateway.token)
        key = await _small(management)
        await _large(management, loads + 1, megabytes)
        await _load(management, 0)
        url, others = gateway.urls["scoring"], Others()
        async with Traffic(url, context, "small", key, RATE, _judge) as traffic:
            await asyncio.sleep(1.0)
            for number in range(1, loads + 1):
                # Two windows without for one with, so that it is known how two of the same kind differ.
                await _window(traffic, result.quiet, asyncio.sleep(QUIET_S))
                began_s = time.monotonic()
                # It is not asked all the time how far it is, which would be a load of its own.
                rests_s = RESTS_SHARE * min(result.loads_s, default=0.0)
                await _window(traffic, result.loaded, _load(management, number, rests_s))
                result.loads_s.append(time.monotonic() - began_s)
                await asyncio.sleep(REST_S)
                await _window(traffic, result.quiet, asyncio.sleep(QUIET_S))
                await _window(traffic, result.strange, _stranger(result.loads_s[-1]))
                await asyncio.sleep(REST_S)
        result.others = others.cores()
        result.faults = traffic.faults
        management.close()
        await gateway.stop()
    finally:
        gateway.end_family()
    return result


async def _stranger(seconds: float) -> None:
    """As nice to others as a process that proves models, and as busy."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _STRANGER, str(seconds))
    await process.wait()


async def _window(traffic: Traffic, windows: list[list[float]], during: Awaitable[None]) -> None:
    """What was answered while it ran."""
    before = len(traffic.latencies)
    await during
    windows.append(traffic.latencies[before:])


async def _small(management: Management) -> str:
    """The endpoint that is scored; its key."""
    address = await management.upload(scaled(FACTOR))
    await management.do("PUT", at.model_path("small", "1"), at.model_body(address, {}))
    await management.do("PUT", at.endpoint_path("small"), at.endpoint_body({}, {}))
    path = at.deployment_path("small", "dep0")
    await management.do("PUT", path, at.deployment_body(at.model_path("small", "1"), {}))
    await management.do("PUT", at.endpoint_path("small"), at.endpoint_body({"dep0": 100}, {}))
    keys = await management.need("POST", f"{at.endpoint_path('small')}/listKeys")
    return str(keys["primaryKey"])


async def _large(management: Management, versions: int, megabytes: int) -> None:
    """Another endpoint, and the networks that its deployment will load one after the other."""
    await management.do("PUT", at.endpoint_path("large"), at.endpoint_body({}, {}))
    for number in range(versions):
        address = await management.upload(network(megabytes, number))
        await management.do("PUT", at.model_path("large", str(number)), at.model_body(address, {}))


async def _load(management: Management, number: int, rests_s: float = 0.0) -> None:
    path = at.deployment_path("large", "dep0")
    body = at.deployment_body(at.model_path("large", str(number)), {})
    await management.do("PUT", path, body, rests_s=rests_s)


def _judge(sent_s: float, answered_s: float, found: Score) -> str:
    return "" if found.factor == FACTOR else f"the answer has factor {found.factor}"

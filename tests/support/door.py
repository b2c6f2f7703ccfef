"""The scoring door with simulated models behind it: the real ASGI application, in-process or behind the real server.

`open_door` gives a door and a client, and checks when it closes that every lease, seat and place in a queue was
given back: in each test, whatever it did.
Units: *_ms milliseconds, *_s seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import httpx
import numpy as np

from gateway.channel import Collected
from gateway.dataplane.admit import Gate
from gateway.dataplane.app import ScoringApp
from gateway.dataplane.authenticate import Authenticator
from gateway.dataplane.documents import documents
from gateway.dataplane.lane import ScoringLane
from gateway.dataplane.live import (
    LiveDeployment,
    LiveEndpoint,
    LiveRuntime,
    LiveSnapshot,
    SnapshotCell,
)
from gateway.dataplane.paths import scoring_paths
from gateway.dataplane.score import Scoring, ScoringOptions
from gateway.listener import HttpLimits, HttpServer
from gateway.seats import SeatTable
from gateway.snapshot import AuthSpec, DeploymentSpec, EndpointSpec
from gateway.telemetry.record import DeploymentRecord, ScorerRecord
from runtimes import (
    Array,
    BatchLimits,
    Datatype,
    LoopScheduler,
    RuntimeSpec,
    ScriptClient,
    Signature,
    Tensors,
    TensorSpec,
    now_ns,
)
from runtimes.batching.batch import Batch
from runtimes.batching.collate import Collator
from runtimes.instance import Finished, execute
from runtimes.runtime import Runtime
from runtimes.session import Session
from runtimes.simulated import Behaviour, SimulatedSession
from tests.support.scripts import Run, Workers, script_spec
from tests.support.waiting import PATIENCE_S
from tests.support.wire import port_of, serving

KEY = "the-primary-key-of-the-endpoint"
OTHER_KEY = "the-secondary-key-of-the-endpoint"
BEARER = f"Bearer {KEY}"
WIRED = ("wire", "lane")
WAYS = ("asgi", *WIRED)
POISON = -1.0


class EchoSession:
    """Gives back what it takes: INT64 `ids` [N] and FP32 `x` [N, 3]."""

    provider = "simulated"

    def __init__(self) -> None:
        specs = (
            TensorSpec(name="ids", datatype=Datatype.INT64, shape=(-1,), batch_axis=0),
            TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 3), batch_axis=0),
        )
        self.signature = Signature(inputs=specs, outputs=specs, batched=True)

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        return {name: np.asarray(array) for name, array in inputs.items() if outputs is None or name in outputs}

    def close(self) -> None:
        """Holds nothing."""


class WatchedSession:
    """Keeps what it ran."""

    provider = "simulated"

    def __init__(self, session: Session) -> None:
        self.ran: list[Tensors] = []
        self.signature = session.signature
        self._session = session

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        self.ran.append(inputs)
        return self._session.run(inputs, outputs)

    def close(self) -> None:
        self._session.close()


class HeldPool:
    """One instance that runs batches in a later turn of the loop, or only when it is released."""

    instances = 1
    capacity = 1

    def __init__(self, session: Session, loop: asyncio.AbstractEventLoop, is_held: bool) -> None:
        self._watched = WatchedSession(session)
        self._collator = Collator(session.signature)
        self._loop = loop
        self._staged: list[tuple[Batch, Finished]] = []
        self._is_held = is_held

    @property
    def ran(self) -> list[Tensors]:
        """The inputs of each run."""
        return self._watched.ran

    def start(self, batch: Batch, finished: Finished) -> None:
        self._staged.append((batch, finished))
        if not self._is_held:
            self._loop.call_soon(self.release)

    def release(self) -> None:
        """Run what is held, and hold nothing from now on."""
        self._is_held = False
        staged, self._staged = self._staged, []
        for batch, finished in staged:
            execute(self._watched, self._collator, batch, now_ns)
            finished(batch)

    def grow(self, sessions: Sequence[Session]) -> None:
        raise AssertionError("it keeps its one instance")

    def shrink(self, count: int) -> None:
        raise AssertionError("it keeps its one instance")

    def close(self, timeout_s: float = 0.0) -> bool:
        return True


def simulated() -> Session:
    return SimulatedSession(7, Behaviour(poison=POISON))


def keys() -> AuthSpec:
    return AuthSpec(mode="key", key_digests=(sha256(KEY.encode()).digest(), sha256(OTHER_KEY.encode()).digest()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One deployment: a model, or with `script` workers that run this function. With `is_held` nothing is run until
    the test releases it. `pool`: the sockets of other workers, which are asked instead. `repository`: what a Triton
    repository calls the model and its version."""

    session: Callable[[], Session] = simulated
    script: Run | None = None
    pool: Callable[[], tuple[socket.socket, socket.socket]] | None = None
    workers: int = 1
    swagger: Mapping[str, str] = field(default_factory=dict)
    cors_origins: tuple[str, ...] = ()
    is_held: bool = False
    limits: BatchLimits = field(default_factory=BatchLimits)
    timeout_ms: int = 5000
    queue_wait_ms: int = 0
    pending_max: int = 0
    body_bytes_max: int = 100_000
    repository: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is served under the endpoint `Digits`."""

    parts: Mapping[str, Part] = field(default_factory=lambda: {"blue": Part()})
    traffic: Mapping[str, int] = field(default_factory=lambda: {"blue": 100})
    mirror: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    auth: AuthSpec = field(default_factory=keys)
    options: ScoringOptions = field(default_factory=ScoringOptions)
    domain: str = "models.example"
    http: HttpLimits = field(default_factory=HttpLimits)


def spec_of(name: str, part: Part, row: int) -> DeploymentSpec:
    return DeploymentSpec(
        name=name,
        runtime=RuntimeSpec(path="", sha256=""),
        request_timeout_ns=part.timeout_ms * 1_000_000,
        queue_wait_ns=part.queue_wait_ms * 1_000_000,
        pending_max=part.pending_max,
        seat=row if part.pending_max else -1,
        body_bytes_max=part.body_bytes_max,
        script=script_spec(name, part.workers, part.swagger, part.cors_origins) if part.script else None,
        model_name=part.repository[0],
        model_version=part.repository[1],
    )


class Door:
    """The application and everything behind it, for the running loop."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.record = ScorerRecord()
        self.pools: dict[str, HeldPool] = {}
        self.workers: dict[str, Workers] = {}
        self.server: HttpServer | None = None
        self._scheduler = LoopScheduler(asyncio.get_running_loop())
        self._seats_fd = SeatTable.create(1)
        self._seats = SeatTable(self._seats_fd, 1)
        self.scoring = Scoring(setting.options, self._scheduler)
        self.deployments = {
            name: self._deployment(name, part, row) for row, (name, part) in enumerate(setting.parts.items())
        }
        cell = self.cell = SnapshotCell()
        self.endpoint = self._endpoint()
        targets = scoring_paths(self.endpoint)
        cell.publish(LiveSnapshot(revision=1, endpoints={"digits": self.endpoint}, targets=targets))
        pages = documents(cell, self.scoring, self.record, self._gather, "1.2.3")
        self.app = ScoringApp(cell, self.scoring, pages, setting.domain)
        self.lane = ScoringLane(cell, self.scoring, setting.domain)

    def _deployment(self, name: str, part: Part, row: int) -> LiveDeployment:
        record = self.record.deployment("digits", name)
        spec = spec_of(name, part, row)
        gate = Gate(name, part.pending_max, self._seats, row, 0)
        live = LiveRuntime(self._script(part, spec) if part.script else self._model(name, part, record))
        live.runtime.observe(record)
        return LiveDeployment(name=name, endpoint_name="Digits", spec=spec, live=live, gate=gate, record=record)

    def _script(self, part: Part, spec: DeploymentSpec) -> ScriptClient:
        assert part.script is not None
        assert spec.script is not None
        workers = self.workers[spec.name] = Workers(part.script, part.workers, part.is_held)
        work, replies = part.pool() if part.pool is not None else workers.sockets()
        client = ScriptClient(
            spec=spec.script,
            scorer=0,
            work=work,
            replies=replies,
            scheduler=self._scheduler,
            observer=self.record.deployment("digits", spec.name),
            recycle=lambda pool, worker, request: workers.recycled.append(worker),
        )
        client.attach(asyncio.get_running_loop())
        return client

    def _model(self, name: str, part: Part, record: DeploymentRecord) -> Runtime:
        session = part.session()
        pool = self.pools[name] = HeldPool(session, asyncio.get_running_loop(), part.is_held)
        return Runtime(
            name=name,
            sessions=(session,),
            signature=session.signature,
            limits=part.limits,
            dispatch="inline",
            scheduler=self._scheduler,
            observer=record,
            pool=pool,
        )

    def _endpoint(self) -> LiveEndpoint:
        setting = self.setting
        spec = EndpointSpec(
            name="Digits",
            auth=setting.auth,
            traffic=dict(setting.traffic),
            mirror=dict(setting.mirror),
            deployments={
                name: spec_of(name, setting.parts.get(name, Part()), 0)
                for name in (*self.deployments, *setting.failed)
            },
        )
        return LiveEndpoint(
            spec=spec,
            authenticator=Authenticator(setting.auth, "Digits"),
            deployments=self.deployments,
            failed=dict(setting.failed),
            record=self.record.endpoint("digits"),
        )

    async def _gather(self) -> Collected:
        return Collected(totals=self.record.snapshot())

    def counted(self, name: str = "blue") -> DeploymentRecord:
        return self.deployments[name].record

    def codes(self, name: str = "blue") -> dict[int, int]:
        """How often the deployment gave which status."""
        return self.counted(name).snapshot().codes

    def pending(self, name: str = "blue") -> int:
        status = self.deployments[name].live.runtime.status()
        return status.queued_items + status.in_flight_items

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                await asyncio.sleep(0.001)

    def held(self) -> dict[str, int]:
        """Everything that requests hold and have to give back."""
        found = {"mirrored": self.scoring._mirror._in_flight}
        for row, (name, deployment) in enumerate(self.deployments.items()):
            found[f"{name} in flight"] = deployment.record.in_flight
            found[f"{name} leases"] = deployment.live._leases
            found[f"{name} pending"] = self.pending(name)
            found[f"{name} seats"] = self._seats.taken(row)
        return found

    async def close(self) -> None:
        """Let everything end, and check that nothing is left."""
        for pool in self.pools.values():
            pool.release()
        for workers in self.workers.values():
            workers.release()
        for _ in range(100):
            if not any(self.held().values()):
                break
            await asyncio.sleep(0.001)
        assert {what: count for what, count in self.held().items() if count} == {}
        for deployment in self.deployments.values():
            status = deployment.live.runtime.status()
            ended = status.succeeded + status.failed + status.expired + status.cancelled + status.closed
            assert status.accepted == ended
            deployment.live.runtime.close()
        for workers in self.workers.values():
            workers.close()
        self._seats.close()
        os.close(self._seats_fd)


@contextlib.asynccontextmanager
async def open_door(way: str, **setting: Any) -> AsyncIterator[tuple[Door, httpx.AsyncClient]]:
    """A door and a client with the primary key; `way` is "asgi" (in-process), "wire" or "lane" (over loopback)."""
    door = Door(Setting(**setting))
    headers = {"authorization": BEARER}
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(door.close)
        if way in WIRED:
            lane = door.lane if way == "lane" else None
            door.server = await stack.enter_async_context(serving(door.app, door.setting.http, lane))
            base = f"http://127.0.0.1:{port_of(door.server)}"
            client = httpx.AsyncClient(base_url=base, headers=headers, timeout=PATIENCE_S)
        else:
            transport = httpx.ASGITransport(app=door.app)
            client = httpx.AsyncClient(base_url="http://127.0.0.1:80", headers=headers, transport=transport)
        yield door, await stack.enter_async_context(client)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """An answer as ASGI messages gave it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


async def ask(
    app: Callable[..., Awaitable[None]],
    path: str,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    *,
    method: str = "POST",
    receive: Callable[[], Awaitable[Any]] | None = None,
) -> Raw:
    """One request by way of ASGI alone: whatever a server may let through."""
    sent: list[Any] = []

    is_read = False

    async def once() -> Any:
        nonlocal is_read
        if is_read:
            await asyncio.Event().wait()
        is_read = True
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "headers": headers,
    }
    await app(scope, receive or once, send)
    start, *parts = sent
    return Raw(
        status=start["status"], headers=list(start["headers"]), body=b"".join(part.get("body", b"") for part in parts)
    )

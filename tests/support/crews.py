"""A crew of real worker processes, and clients that stand for scorers, in the test's own loop.

Scripts are given as text. Every request that is sent is kept with its outcome, so that a story can say: everything
but this one succeeded.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.crew import Crew, CrewSpec
from runtimes import (
    BatchLimits,
    LoopScheduler,
    NullObserver,
    Observer,
    ScriptClient,
    ScriptRequest,
    ScriptSpec,
    now_ns,
)

ECHO = """
import json, os
def init():
    pass
def run(raw):
    return {"pid": os.getpid(), "got": json.loads(raw)}
"""


def crew_spec(folder: Path, script: str, **changes: Any) -> CrewSpec:
    code = folder / "code"
    code.mkdir(parents=True, exist_ok=True)
    (code / "score.py").write_text(script)
    given: dict[str, Any] = {
        "pool": "blue#1",
        "python": sys.executable,
        "code_dir": code,
        "scoring_script": "score.py",
        "folder": folder / "crew",
        "init_timeout_s": 20.0,
    }
    return CrewSpec(**(given | changes))


class Sent:
    """A request and its outcome: a status, or the kind of fault."""

    def __init__(self, request: ScriptRequest, done: asyncio.Future[None]) -> None:
        self.request = request
        self._done = done

    async def outcome(self) -> int | str:
        await self._done
        if self.request.fault is not None:
            return type(self.request.fault).__name__
        assert self.request.answer is not None
        return self.request.answer.status

    async def value(self) -> Any:
        assert await self.outcome() == 200, (self.request.answer, self.request.fault)
        assert self.request.answer is not None
        return json.loads(bytes(self.request.answer.body))

    @property
    def fault(self) -> str:
        return str(self.request.fault)


class Pool:
    """A crew with one client for each scorer."""

    def __init__(self, crew: Crew, clients: list[ScriptClient], gone: list[int]) -> None:
        self.crew = crew
        self.clients = clients
        self.gone = gone
        self.sent: list[Sent] = []

    def send(self, value: object, *, within_s: float = 10.0, scorer: int = 0) -> Sent:
        done = asyncio.get_running_loop().create_future()
        request = ScriptRequest(
            method="POST",
            target="/score",
            headers=[("content-type", "application/json")],
            body=value if isinstance(value, bytes) else json.dumps(value).encode(),
            deadline_ns=now_ns() + int(within_s * 1e9),
            reply=lambda _: done.set_result(None),
        )
        sent = Sent(request, done)
        self.clients[scorer].submit(request)
        self.sent.append(sent)
        return sent

    async def value(self, value: object, *, scorer: int = 0) -> Any:
        return await self.send(value, scorer=scorer).value()

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self.crew.status().workers]


def client_of(
    crew: Crew, scorer: int, batching: BatchLimits | None = None, observer: Observer | None = None
) -> ScriptClient:
    work, replies = (socket.socket(fileno=os.dup(fd)) for fd in crew.sockets(scorer))
    loop = asyncio.get_running_loop()
    client = ScriptClient(
        spec=ScriptSpec(pool=crew.spec.pool, workers=crew.spec.workers, batching=batching),
        scorer=scorer,
        work=work,
        replies=replies,
        scheduler=LoopScheduler(loop),
        observer=observer or NullObserver(),
        recycle=lambda _, worker, serial: _keep(loop.create_task(crew.recycle(worker, serial))),
    )
    client.attach(loop)
    return client


def _keep(task: asyncio.Task[None]) -> None:
    # The task holds itself until it has run: the loop has it, and a failure is no mystery.
    task.add_done_callback(lambda done: done.result())


@asynccontextmanager
async def pool(
    spec: CrewSpec, scorers: int = 1, batching: BatchLimits | None = None, observer: Observer | None = None
) -> AsyncIterator[Pool]:
    gone: list[int] = []
    clients: list[ScriptClient] = []

    def on_gone(number: int) -> None:
        gone.append(number)
        for client in clients:
            client.worker_gone(number)

    crew = Crew(spec, on_gone)
    try:
        await crew.start(scorers)
        clients += [client_of(crew, scorer, batching, observer) for scorer in range(scorers)]
        yield Pool(crew, clients, gone)
    finally:
        for client in clients:
            client.close()
        await crew.stop(1.0)


async def until(condition: Callable[[], object], what: str, timeout_s: float = 15.0) -> float:
    """Wait for what another process makes true; how long it took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < timeout_s, f"{what}: not within {timeout_s:g} s"
        await asyncio.sleep(0.005)
    return time.monotonic() - began_s

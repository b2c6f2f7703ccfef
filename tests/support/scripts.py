"""Script workers without processes: the other ends of a pool's sockets, answered on the test's own loop.

A Run is what a script does with a request; each worker runs one at a time, in a turn of its own, or only when the
test releases them. What they were sent is kept.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from runtimes import ScriptSpec
from runtimes.script.worker_lib.igw_worker import wire

JSON = ("content-type", "application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as a script sees it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    request_id: str

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a script answers."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=lambda: [JSON])
    body: bytes = b"{}"
    failed: bool = False
    ms: float = 1.25


# None: the run never ends.
Run = Callable[[Asked], Answered | None]


def echo(asked: Asked) -> Answered:
    """What arrived, as JSON."""
    seen: dict[str, Any] = {"method": asked.method, "target": asked.target, "headers": asked.headers}
    return Answered(body=orjson.dumps(seen | {"body": asked.body.decode("latin-1")}))


def always(**answered: Any) -> Run:
    return lambda asked: Answered(**answered)


def script_spec(
    name: str, workers: int = 1, swagger: Mapping[str, str] | None = None, cors_origins: tuple[str, ...] = ()
) -> ScriptSpec:
    return ScriptSpec(pool=f"pool-of-{name}", workers=workers, swagger=dict(swagger or {}), cors_origins=cors_origins)


class Workers:
    """A pool. `asked`: what was run; `recycled`: the workers that a client asked to replace."""

    def __init__(self, run: Run, workers: int = 1, is_held: bool = False) -> None:
        self.asked: list[Asked] = []
        self.recycled: list[int] = []
        self._run = run
        self._is_held = is_held
        self._idle = deque(range(workers))
        self._work = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._replies = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._taken: deque[tuple[int, wire.Frame]] = deque()
        for one in (*self._work, *self._replies):
            one.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._listen()

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """The scorer's ends, for one client."""
        return self._work[0].dup(), self._replies[0].dup()

    def release(self) -> None:
        """Run what is held, and hold nothing from now on."""
        self._is_held = False
        while self._taken:
            self._finish(*self._taken.popleft())

    def close(self) -> None:
        self._loop.remove_reader(self._work[1].fileno())
        for one in (*self._work, *self._replies):
            one.close()

    def _listen(self) -> None:
        self._loop.add_reader(self._work[1].fileno(), self._take)

    def _take(self) -> None:
        try:
            frame = wire.receive(self._work[1])
        except BlockingIOError:
            return
        assert frame is not None
        worker = self._idle.popleft()
        if not self._idle:
            self._loop.remove_reader(self._work[1].fileno())
        wire.send(self._replies[1], wire.TAKEN, request_id=frame.request_id, worker=worker, scorer=frame.scorer)
        if self._is_held:
            self._taken.append((worker, frame))
        else:
            self._finish(worker, frame)

    def _finish(self, worker: int, frame: wire.Frame) -> None:
        head = frame.head
        asked = Asked(
            method=head["method"],
            target=head["target"],
            headers=[(name, value) for name, value in head["headers"]],
            body=bytes(frame.body),
            request_id=head["request_id"],
        )
        self.asked.append(asked)
        answered = self._run(asked)
        if answered is None:
            return
        wire.send(
            self._replies[1],
            wire.ANSWER,
            request_id=frame.request_id,
            worker=worker,
            scorer=frame.scorer,
            head={
                "status": answered.status,
                "headers": answered.headers,
                "failed": answered.failed,
                "ms": answered.ms,
            },
            body=answered.body,
        )
        self._idle.append(worker)
        self._listen()

"""A generator process: JSON lines in on stdin, JSON lines out on stdout.

Why a process: an interpreter has one lock, so one process is one core. It keeps no opinion: what to send, when
and for how long it is told; what it saw it sends on in slices, so that the other side can show, judge and end a
step.

| in | out |
|---|---|
| load: address, requests, timeout_s, check | loaded |
| connect: connections | ready: open, error |
| go: start_ns, begin_ns, end_ns or null, slice_ns, drain_s, first, schedule | slice, once each; at the end done |
| stop: at_ns | |

`schedule` is null (closed loop), {"kind", "rate", "seed", "index", "of"}, or {"recorded": [[at_s, number], ...],
"speed"}. Times are of the monotonic clock, which is one for all processes of a machine.
The process ends with its stdin. Requests may hold keys: they come here and go to the server, nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import itertools
import os
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import orjson
import uvloop

from bench.client.ends import FOREVER_NS
from bench.client.engine import Dial, Engine
from bench.client.record import Record
from bench.client.schedule import arrivals, recorded
from bench.client.trust import client_context
from bench.machine import waited_s

LINE_BYTES_MAX = 1 << 31
COLLECT_AFTER = 100_000


class Worker:
    """Carries out what it is told, one step at a time. `say` sends a message back."""

    def __init__(self, say: Any) -> None:
        self._say = say
        self._dial = Dial(host="", port=0)
        self._requests: list[bytes] = []
        self._references: dict[int, bytes] | None = None
        self._timeout_ns = 0
        self._engine: Engine | None = None
        self._record = Record()
        self._step: asyncio.Task[None] | None = None

    def load(self, message: dict[str, Any]) -> None:
        address = message["address"]
        tls = client_context(address["ca"], address["insecure"]) if address["tls"] else None
        self._dial = Dial(
            host=address["host"], port=address["port"], tls=tls, server_name=address["host"] if tls else None
        )
        self._requests = [base64.b64decode(text) for text in message["requests"]]
        self._references = {} if message["check"] else None
        self._timeout_ns = int(message["timeout_s"] * 1e9)
        # What is loaded stays; a collection in a step would be a pause that the server did not make.
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER)
        self._say({"op": "loaded"})

    async def connect(self, message: dict[str, Any]) -> None:
        schedule, picks = self._plan(message["schedule"], message["first"])
        self._record = Record()
        self._engine = Engine(
            self._dial,
            self._requests,
            picks,
            self._record,
            timeout_ns=self._timeout_ns,
            schedule=schedule,
            references=self._references,
        )
        opened = await self._engine.connect(message["connections"])
        self._say({"op": "ready", "open": opened, "error": self._engine.first_error})

    def go(self, message: dict[str, Any]) -> None:
        assert self._engine is not None
        self._record.begin_ns = message["begin_ns"]
        self._record.end_ns = message["end_ns"] or FOREVER_NS
        self._engine.go(message["start_ns"], self._record.end_ns)
        self._step = asyncio.create_task(self._report(self._engine, message["slice_ns"], message["drain_s"]))

    def stop(self, message: dict[str, Any]) -> None:
        if self._engine is not None and message["at_ns"] < self._record.end_ns:
            self._record.end_ns = message["at_ns"]
            self._engine.end_at(message["at_ns"])

    def _plan(self, wanted: dict[str, Any] | None, first: int) -> tuple[Iterator[int] | None, Iterator[int]]:
        """When to send, and what: requests in turn, each process from another one on."""
        if wanted is not None and "recorded" in wanted:
            events = wanted["recorded"]
            times = recorded([at_s for at_s, _ in events], wanted["speed"])
            return iter(times), iter([number for _, number in events])
        in_turn = itertools.cycle([*range(first, len(self._requests)), *range(first)])
        return (arrivals(**wanted) if wanted is not None else None), in_turn

    async def _report(self, engine: Engine, slice_ns: int, drain_s: float) -> None:
        record = self._record
        await _until(record.begin_ns, record)
        meter = _Meter()
        boundary_ns = record.begin_ns + slice_ns
        while boundary_ns <= record.end_ns:
            if not await _until(boundary_ns, record):
                break
            self._say({"op": "slice", **self._taken(engine, meter)})
            boundary_ns += slice_ns
        await _until(record.end_ns, record)
        used = meter.read()
        await engine.finished(drain_s)
        await engine.close()
        references = {str(number): digest.hex() for number, digest in (self._references or {}).items()}
        self._say({"op": "done", **self._taken(engine, None), **used, "references": references})
        self._engine = None

    def _taken(self, engine: Engine, meter: _Meter | None) -> dict[str, Any]:
        used = meter.read() if meter is not None else {"cpu_s": 0.0, "waited_s": 0.0}
        return {**self._record.take(), **used, "waiting": engine.waiting, "in_flight": engine.in_flight}


class _Meter:
    """Processor time of this process since it was last read, and the time it waited for a core."""

    def __init__(self) -> None:
        self._cpu_s, self._waited_s = time.process_time(), waited_s() or 0.0

    def read(self) -> dict[str, float]:
        cpu_s, waited = time.process_time(), waited_s() or 0.0
        used = {"cpu_s": cpu_s - self._cpu_s, "waited_s": waited - self._waited_s}
        self._cpu_s, self._waited_s = cpu_s, waited
        return used


async def _until(at_ns: int, record: Record) -> bool:
    """Waits for a moment; False where the step ends before it."""
    while (now_ns := time.monotonic_ns()) < at_ns:
        if record.end_ns < at_ns and now_ns >= record.end_ns:
            return False
        # The end may be moved while this waits.
        await asyncio.sleep(min(0.05, (min(at_ns, record.end_ns) - now_ns) / 1e9 + 0.0001))
    return True


async def serve() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    worker = Worker(_say)
    while line := await reader.readline():
        message = orjson.loads(line)
        match message["op"]:
            case "load":
                worker.load(message)
            case "connect":
                await worker.connect(message)
            case "go":
                worker.go(message)
            case "stop":
                worker.stop(message)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(serve())
    # Nothing is left to be written, and connections that are still open need no farewell.
    os._exit(0)


if __name__ == "__main__":
    main()

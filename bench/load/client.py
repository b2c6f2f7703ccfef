"""A closed loop of keep-alive connections, with every latency kept: the engine of `gateway bench` and plain lists.

Units: *_ns monotonic nanoseconds. Latency is from the first byte handed to the socket to the last byte of the answer.
Errors: none are raised for answers; a status other than 200 and a lost connection are counted.
"""

from __future__ import annotations

import itertools
import ssl
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field

from bench.client.engine import Dial, Engine

# A server that goes silent must not hang the run: what is open a while after the end counts as lost.
SILENT_AFTER_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send, over how many connections, for how long. The warm-up comes first and is not counted."""

    host: str
    port: int
    requests: tuple[bytes, ...]
    connections: int
    warm_up_s: float
    seconds: float
    tls: ssl.SSLContext | None = None


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What was seen between the warm-up and the end."""

    seconds: float = 0.0
    latencies_ns: array[int] = field(default_factory=lambda: array("q"))
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0


class _Tally:
    """Counts what is answered between two moments; an error is never warm-up."""

    def __init__(self, begin_ns: int, end_ns: int) -> None:
        self._begin_ns, self._end_ns = begin_ns, end_ns
        self.outcome = Outcome()

    def answered(self, due_ns: int, now_ns: int, status: int) -> None:
        if self._begin_ns <= now_ns < self._end_ns:
            self.outcome.latencies_ns.append(now_ns - due_ns)
            self.outcome.statuses[status] += 1
        elif status != 200:
            self.outcome.statuses[status] += 1

    def failed(self, due_ns: int, why: str) -> None:
        self.outcome.lost += 1

    def sent_late(self, due_ns: int, now_ns: int) -> None:
        """Of an open loop only."""

    def held_up(self, due_ns: int, now_ns: int) -> None:
        """The report tells the processor time of the generator instead."""

    def differs(self) -> None:
        """Answers are checked before anything is measured."""


async def run(plan: Plan) -> Outcome:
    """Errors: OSError where a connection cannot be opened at all."""
    begin_ns = time.monotonic_ns() + int(plan.warm_up_s * 1e9)
    tally = _Tally(begin_ns, begin_ns + int(plan.seconds * 1e9))
    engine = Engine(
        Dial(host=plan.host, port=plan.port, tls=plan.tls, server_name="localhost" if plan.tls else None),
        plan.requests,
        itertools.cycle(range(len(plan.requests))),
        tally,
        timeout_ns=int(SILENT_AFTER_S * 1e9),
    )
    try:
        if await engine.connect(plan.connections) < plan.connections:
            raise OSError(engine.first_error)
        engine.go(time.monotonic_ns(), begin_ns + int(plan.seconds * 1e9))
        await engine.finished(SILENT_AFTER_S)
    finally:
        await engine.close()
    tally.outcome.seconds = plan.seconds
    return tally.outcome

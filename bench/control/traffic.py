"""Checked traffic: so many requests a second whatever comes back, each on a connection that is kept open.

Open loop: a request is sent when its time has come; where every connection is busy another is opened.
Units: seconds; latencies count from when a request was meant to be sent.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable

from bench.control.scoring import BODY, Score, read, score_headers, score_path
from bench.control.wire import Connection, Lost

CONNECTIONS = 16
FAULTS_KEPT = 20

Judge = Callable[[float, float, Score], str]


class Traffic:
    """`async with Traffic(...)`: sends until the block ends. `key` may be changed while it runs.

    `judge` says what is wrong with an answer ("" for nothing), given when it was sent and answered.
    """

    def __init__(self, url: str, context: ssl.SSLContext, endpoint: str, key: str, rate: float, judge: Judge) -> None:
        self.key = key
        self.latencies: list[float] = []
        self.answered: Counter[str] = Counter()
        self.failed = 0
        self.misrouted = 0
        self.faults: list[str] = []
        self.late_s = 0.0
        self._url, self._context = url, context
        self._endpoint = endpoint
        self._every_s = 1 / rate
        self._judge = judge
        self._idle = [Connection(self._url, self._context) for _ in range(CONNECTIONS)]
        self._all = list(self._idle)
        self._in_flight: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Traffic:
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)
        await asyncio.gather(*self._in_flight)
        for connection in self._all:
            connection.close()

    async def switch(self, key: str) -> None:
        """From now on with this key; returns once nothing is under way with the one before."""
        self.key = key
        await asyncio.gather(*self._in_flight)

    async def _send(self) -> None:
        due_s = time.monotonic()
        while True:
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self.late_s = max(self.late_s, time.monotonic() - due_s)
            task = asyncio.create_task(self._one(due_s, self.key))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)
            due_s += self._every_s

    async def _one(self, due_s: float, key: str) -> None:
        connection = self._idle.pop() if self._idle else self._another()
        sent_s = time.monotonic()
        try:
            answer = await connection.request("POST", score_path(self._endpoint), score_headers(key), BODY)
        except Lost as error:
            self._fault("failed", str(error))
            return
        finally:
            # The one that rested longest comes next, so that all are used.
            self._idle.insert(0, connection)
        answered_s = time.monotonic()
        self.latencies.append(answered_s - due_s)
        score = read(answer)
        self.answered[score.deployment] += 1
        if score.status != 200:
            self._fault("failed", score.text)
            return
        said = self._judge(sent_s, answered_s, score)
        if said:
            self._fault("misrouted", said)

    def _another(self) -> Connection:
        connection = Connection(self._url, self._context)
        self._all.append(connection)
        return connection

    def _fault(self, kind: str, text: str) -> None:
        if kind == "failed":
            self.failed += 1
        else:
            self.misrouted += 1
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(f"{kind}: {text}")

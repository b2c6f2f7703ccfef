"""The lane: scoring requests answered from the connection's callbacks, with no task, scope or event of their own.

Why: those cost more than everything else that is done for a small model's request. The lane takes what scoring
clients send: POST to a path that scores, spelled as it is shown. All else is the application's (app.py), which can do
everything and is the oracle: both doors call the same `Scoring`, and one contract suite holds their answers equal.
Promise: as `Scoring` has it; every call ends once, also when the caller is gone or the body never comes.
Units: *_ns monotonic nanoseconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from gateway.dataplane.body import body_is_late, too_large
from gateway.dataplane.head import Head
from gateway.dataplane.live import SnapshotCell, Target
from gateway.dataplane.paths import MODELS, endpoint_in_host, suffix_of
from gateway.dataplane.score import Call, Reply, Scoring
from gateway.errors import Problem
from gateway.exchange import NOBODY_WAITS, Exchange, MessageEvent
from gateway.listener import GuardedProtocol
from gateway.oidc import KeysNeeded
from gateway.problem import internal
from runtimes import now_ns

log = logging.getLogger(__name__)


class ScoringLane:
    """The lane of one scorer. `domain` is the suffix of host-name routing, "" for none."""

    def __init__(self, cell: SnapshotCell, scoring: Scoring, domain: str) -> None:
        self._cell = cell
        self._scoring = scoring
        self._suffix = suffix_of(domain)

    def exchange(
        self, connection: GuardedProtocol, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]
    ) -> ScoringExchange | None:
        target = self._cell.current.targets.get(url.decode("latin-1"))
        if target is None or method != b"POST":
            return None
        if self._suffix and target.path.startswith(MODELS) and endpoint_in_host(headers, self._suffix):
            # On an endpoint's own host name the model may be one of its own.
            return None
        return ScoringExchange(connection, self._scoring, target, headers)

    def again(self, connection: GuardedProtocol, before: Exchange) -> ScoringExchange | None:
        assert isinstance(before, ScoringExchange)
        target = self._cell.current.targets.get(before.path)
        if target is None or before.head is None:
            return None
        return ScoringExchange(connection, self._scoring, target, (), before.head)


class ScoringExchange:
    """One scoring request on the lane. What it keeps when it is over is its head, to be asked again."""

    __slots__ = (
        *("_body", "_call", "_headers", "_scoring", "_size", "_target", "_timer"),
        *("body_bytes", "connection", "disconnected", "head", "keep_alive", "more_body", "path"),
        *("response_complete", "response_started", "waiting_for_100_continue"),
    )

    def __init__(
        self,
        connection: GuardedProtocol,
        scoring: Scoring,
        target: Target,
        headers: Sequence[tuple[bytes, bytes]],
        head: Head | None = None,
    ) -> None:
        self.connection = connection
        self.body_bytes = 0
        self.keep_alive = self.disconnected = self.waiting_for_100_continue = False
        self.response_started = self.response_complete = False
        self.more_body = True
        self.path = target.path
        self.head = head
        self._scoring = scoring
        self._target = target
        self._headers = headers
        self._call: Call | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def message_event(self) -> MessageEvent:
        return NOBODY_WAITS

    def begin(self) -> bool:
        """False where the caller's token can only be proven once keys are fetched: that takes a task."""
        scoring = self._scoring
        try:
            head = self.head
            if head is None:
                head = self.head = Head(self._headers)
            self._call = call = scoring.open(self._target, head, now_ns())
            scoring.admit(call)
        except KeysNeeded:
            return False
        except Problem as problem:
            self._fail(problem)
        except Exception:
            log.exception("a scoring request failed before its body")
            self._fail(internal())
        return True

    def take(self, body: bytes) -> None:
        assert self._call is not None
        self._size += len(body)
        self._body.append(body)
        limit = self._call.deployment.spec.body_bytes_max
        if self._size > limit:
            self._fail(too_large("is larger", limit))

    def wait(self) -> None:
        """The request's deadline counts from its head, whether its body comes or not."""
        if self._timer is None and not self.response_started:
            assert self._call is not None
            delay_s = max(0.0, (self._call.deadline_ns - now_ns()) / 1e9)
            self._timer = self.connection.loop.call_later(delay_s, self._late)

    def end(self) -> None:
        self._disarm()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        call = self._call
        assert call is not None
        try:
            self._scoring.submit(call, body, self._answer)
        except Problem as problem:
            self._fail(problem)
        except Exception:
            log.exception("request %s failed", call.request_id)
            self._fail(internal())

    def lost(self) -> None:
        self._disarm()
        if self._call is not None:
            self._scoring.cancel(self._call)

    def _late(self) -> None:
        self._fail(body_is_late())

    def _fail(self, problem: Problem) -> None:
        scoring, call = self._scoring, self._call
        self._answer(scoring.fail(call, problem) if call is not None else scoring.refuse(self._target, problem))

    def _answer(self, reply: Reply) -> None:
        if self._timer is not None:
            self._disarm()
        # The call leads back here by its reply: without this, every request would be left to the garbage collector.
        self._call = None
        self.connection.answer(self, reply.status, reply.lines, reply.body)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

"""Mirror: a bounded copy of live traffic to another deployment; its answers are thrown away.

Promise: the caller's answer is sent before its copy is made; neither errors nor latency of the copy reach anybody.
When `in_flight_max` copies are under way, or the deployment is full, a copy is dropped and counted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.errors import Problem
from runtimes import Scheduler, WorkItem, now_ns

if TYPE_CHECKING:
    from gateway.dataplane.score import Call, Scoring

log = logging.getLogger(__name__)


class Mirror:
    """Copies of one scorer's traffic."""

    def __init__(self, scoring: Scoring, in_flight_max: int, scheduler: Scheduler) -> None:
        self._scoring = scoring
        self._in_flight_max = in_flight_max
        self._scheduler = scheduler
        self._in_flight = 0

    def copy(self, call: Call) -> None:
        """Score the call's body on its mirror deployment, in a later turn of the loop."""
        assert call.mirror is not None
        if self._in_flight >= self._in_flight_max:
            call.mirror.record.mirrored("dropped")
            return
        self._in_flight += 1
        copy = type(call)(call.target, call.mirror, call.head, now_ns())
        copy.body = call.body
        # Until it ends, the copy holds the mirror's runtime open as any request does.
        copy.deployment.live.lease()
        copy.leased = True
        self._scheduler.call_soon(lambda: self._submit(copy))

    def _submit(self, copy: Call) -> None:
        def on_item(item: WorkItem) -> None:
            self._end(copy, "failed" if item.fault is not None else "answered")

        try:
            self._scoring.hand_over(copy, copy.body, on_item, 0)
        except Problem as problem:
            self._end(copy, "dropped" if problem.code.may_retry else "failed")
        except Exception:
            log.exception("a mirrored copy for deployment %s failed", copy.deployment.name)
            self._end(copy, "failed")

    def _end(self, copy: Call, outcome: str) -> None:
        self._in_flight -= 1
        copy.deployment.record.mirrored(outcome)
        self._scoring.close(copy)

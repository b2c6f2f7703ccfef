"""Mirror: a bounded copy of live traffic to another deployment, whose answers are compared and thrown away.

Promise: the caller's answer is sent before its copy is made; neither errors nor latency of the copy reach anybody.
When `in_flight_max` copies are under way, or the deployment is full, a copy is dropped and counted. A copy is under
way until it is compared.
How it costs others little: what is compared is bounded (compare.py), and each turn of the loop compares one copy, so
that requests are read and answered between two of them. What a scoring script answers has no outputs to compare: of
such copies the outcome and the time are counted.
Units: times from the moment a request's body is there until its results are, for both in the same way.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.dataplane.compare import Excerpts, compare, excerpts
from gateway.dataplane.script import is_success
from gateway.errors import Problem
from runtimes import Scheduler, ScriptRequest, WorkItem, now_ns

if TYPE_CHECKING:
    from gateway.dataplane.live import LiveDeployment
    from gateway.dataplane.score import Call, Scoring

log = logging.getLogger(__name__)

Item = WorkItem | ScriptRequest


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is kept of one answer, and how long it took. `outputs`: None where they are not what the model's signature
    says, or are a script's."""

    outputs: Excerpts | None
    took_ns: int
    is_script: bool = False


class Mirror:
    """Copies of one scorer's traffic."""

    def __init__(self, scoring: Scoring, in_flight_max: int, scheduler: Scheduler) -> None:
        self._scoring = scoring
        self._in_flight_max = in_flight_max
        self._scheduler = scheduler
        self._in_flight = 0
        # While this holds something, a turn of the loop is asked for.
        self._answered: deque[tuple[LiveDeployment, _Answer, _Answer]] = deque()

    def copy(self, call: Call, item: Item) -> None:
        """Score the call's body on its mirror deployment, in a later turn of the loop. `item`: the live one."""
        assert call.mirror is not None
        if self._in_flight >= self._in_flight_max:
            call.mirror.record.mirrored("dropped")
            call.mirror.record.comparison().skipped("dropped")
            return
        self._in_flight += 1
        copy = type(call)(call.target, call.mirror, call.head, now_ns(), call.method, call.query)
        copy.request_id = call.request_id
        copy.body = call.body
        # Until it ends, the copy holds the mirror's runtime open as any request does.
        copy.deployment.live.lease()
        copy.leased = True
        self._scheduler.call_soon(lambda: self._submit(copy, call, item))

    def _submit(self, copy: Call, call: Call, live_item: Item) -> None:
        live = _answer(call, live_item)

        def on_item(item: Item) -> None:
            self._end(copy, item, live)

        try:
            self._scoring.check_kind(copy)
            self._scoring.hand_over(copy, copy.body, on_item, 0)
        except Problem as problem:
            self._give_up(copy, "dropped" if problem.code.may_retry else "failed")
        except Exception:
            log.exception("a mirrored copy for deployment %s failed", copy.deployment.name)
            self._give_up(copy, "failed")

    def _end(self, copy: Call, item: Item, live: _Answer | None) -> None:
        """The copy's reply: what it held is given back at once."""
        mirrored = _answer(copy, item)
        if mirrored is None:
            self._give_up(copy, "failed")
            return
        target = copy.deployment
        target.record.mirrored("answered")
        self._scoring.close(copy)
        if live is None:
            self._in_flight -= 1
            target.record.comparison().skipped("live_failed")
            return
        if not self._answered:
            self._scheduler.call_soon(self._compare)
        self._answered.append((target, live, mirrored))

    def _give_up(self, copy: Call, outcome: str) -> None:
        self._in_flight -= 1
        record = copy.deployment.record
        record.mirrored(outcome)
        record.comparison().skipped(outcome)
        self._scoring.close(copy)

    def _compare(self) -> None:
        """One copy; the next has the next turn."""
        target, live, mirrored = self._answered.popleft()
        if self._answered:
            self._scheduler.call_soon(self._compare)
        self._in_flight -= 1
        told = target.record.comparison()
        told.timed(mirrored.took_ns - live.took_ns)
        if live.is_script or mirrored.is_script:
            told.skipped("script")
            return
        if live.outputs is None or mirrored.outputs is None:
            told.skipped("error")
            return
        try:
            found = compare(live.outputs, mirrored.outputs)
        except Exception:
            log.exception("a mirrored answer of deployment %s could not be compared", target.name)
            told.skipped("error")
            return
        told.compared(found.rows, found.agreeing, found.difference, found.nonfinite)
        if found.reason:
            told.skipped(found.reason)
        if found.difference is not None:
            target.live.largest_difference = max(target.live.largest_difference, found.difference)


def _answer(call: Call, item: Item) -> _Answer | None:
    """What is kept of an answer; None where there is none."""
    if isinstance(item, ScriptRequest):
        if item.answer is None or not is_success(item.answer):
            return None
        return _Answer(None, item.finished_ns - call.submitted_ns, is_script=True)
    if item.results is None:
        return None
    outputs: Excerpts | None = None
    try:
        model = call.deployment.live.model
        assert model is not None
        outputs = excerpts(item.results, model.signature)
    except Exception:
        log.exception("an answer of deployment %s cannot be compared", call.deployment.name)
    return _Answer(outputs, item.finished_ns - call.submitted_ns)

"""A batch of requests through run_batch(): what each is answered, and what becomes of all when the call fails.

Promise: each request that is given here is told of once, answered or expired. When run_batch() raises, or takes
longer than SCORING_TIMEOUT_MS, each request of the batch is run alone, once, unless its time is over by then: so one
that the script cannot bear fails alone. A result of the wrong shape is the script's own mistake, and fails all.
Units: *_ns monotonic nanoseconds; milliseconds of the performance counter.
Errors: none.
"""

import logging
import time
from typing import Any, List, Optional, Sequence

from .batch_form import BatchForm, WrongShape
from .forms import Answer
from .host import FAILED_RUN, Outcome, ScriptHost, request_of
from .parcel import Part
from .shims.aml_request import AMLRequest


class Listener:
    """Who wants to know, as it happens. Here: nobody."""

    def begins(self, deadline_ns: int) -> None:
        """A run begins, which must have ended by then; 0: whenever."""

    def ran(self, rows: int, run_ms: float, failed: bool) -> None:
        """It has ended."""

    def answers(self, part: Part, answer: Answer) -> None: ...

    def expires(self, part: Part) -> None: ...


class _Call:
    __slots__ = ("part", "request", "text")

    def __init__(self, part: Part, request: AMLRequest, text: str) -> None:
        self.part = part
        self.request = request
        self.text = text


class Batches:
    """Calls one script's run_batch(), through its host."""

    def __init__(self, form: BatchForm, host: ScriptHost) -> None:
        self._form = form
        self._host = host
        self._logger = logging.getLogger("azmlinfsrv")

    def serve(self, parts: Sequence[Part], told: Listener) -> Optional[int]:
        """An exit code where the script wants to end."""
        calls = []
        for part in parts:
            request = request_of(part.head, part.body)
            arguments = self._host.arguments(request, part.body)
            if isinstance(arguments, Answer):
                told.answers(part, self._host.completed(request, arguments))
            else:
                calls.append(_Call(part, request, next(iter(arguments.values()))))
        return self._run(calls, told) if calls else None

    def _run(self, calls: List[_Call], told: Listener) -> Optional[int]:
        told.begins(_last_deadline(calls))
        texts = [call.text for call in calls]
        headers = [call.request.headers.to_dict() for call in calls] if self._form.with_headers else []
        outcome = self._host.attempt(self._form.call, {"texts": texts, "headers": headers})
        told.ran(len(calls), outcome.run_ms, bool(outcome.failure))
        if outcome.failure and len(calls) > 1 and outcome.exit_code is None and outcome.error is not WrongShape:
            return self._run_each(calls, told)
        for call, result in zip(calls, outcome.value or [None] * len(calls)):
            self._answer(call, outcome, result, told)
        return outcome.exit_code

    def _run_each(self, calls: List[_Call], told: Listener) -> Optional[int]:
        self._logger.warning("run_batch() failed for %d requests; each of them is run alone", len(calls))
        for index, call in enumerate(calls):
            if 0 < call.part.deadline_ns <= time.monotonic_ns():
                told.expires(call.part)
                continue
            code = self._run([call], told)
            if code is not None:
                # The process ends, so those behind it are not run any more.
                for other in calls[index + 1 :]:
                    self._answer(other, Outcome(0.0, failure=FAILED_RUN), None, told)
                return code
        return None

    def _answer(self, call: _Call, outcome: Outcome, result: Any, told: Listener) -> None:
        if isinstance(result, BaseException):
            self._host.log_failure(result)
            outcome = Outcome(outcome.run_ms, failure=FAILED_RUN)
        told.answers(call.part, self._host.completed(call.request, self._host.answer(outcome, result)))


def _last_deadline(calls: List[_Call]) -> int:
    """0 where one of them has none. A run that is too late for one of a batch is in time for the others."""
    deadlines = [call.part.deadline_ns for call in calls]
    return max(deadlines) if all(deadlines) else 0

"""One request after the other: from its head and body to an Answer, whatever the script does.

Why: a script's failure is an answer like any other, and its traceback is for the log, never for the caller.
Units: milliseconds of the performance counter for run(); bytes for results.
Errors: none leave `handle` but Leave, with the answer that is still owed, where the script wants its process ended.
Threads: the main thread, since a scoring timeout is a signal.
"""

import json
import logging
import re
import signal
import time
from types import FrameType
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

from .forms import INTERNAL, Answer, Body, Refused, ScoringTimeout, answer_of, refusal
from .script import UserScript, trace_of
from .shims.aml_request import AMLRequest

FAILED_RUN = "An unexpected error occurred in scoring script. Check the logs for more info."
_ID_MAX = 100
_ID_HEADERS = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id")
# What makes an entry of AML_CORS_ORIGINS a pattern.
_PATTERN = re.compile(r"[*\\\]?$^\[()]")


class Leave(Exception):
    """The script called sys.exit(): its answer is sent, then the process ends as the script said."""

    def __init__(self, answer: Answer, code: int) -> None:
        super().__init__(f"the scoring script ended its process with code {code}")
        self.answer = answer
        self.code = code


class Outcome:
    """What became of a call: `value`, or `failure`, which the caller is told, and what kind of `error` it was.

    `exit_code`: the script wants its process to end with it.
    """

    __slots__ = ("error", "exit_code", "failure", "run_ms", "value")

    def __init__(
        self,
        run_ms: float,
        value: Any = None,
        failure: str = "",
        error: Optional[type] = None,
        exit_code: Optional[int] = None,
    ) -> None:
        self.run_ms = run_ms
        self.value = value
        self.failure = failure
        self.error = error
        self.exit_code = exit_code


class ScoringTimer:
    """Interrupts run() after a time, by SIGALRM; without one it leaves that signal to the script.

    The inference server's default is an hour, which no deployment's timeout reaches: so none is set then.
    """

    def __init__(self, timeout_ms: Optional[int]) -> None:
        self.timeout_ms = timeout_ms
        self._before: Any = None

    def __enter__(self) -> None:
        if self.timeout_ms is not None:
            self._before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self.timeout_ms / 1000)

    def __exit__(self, *_: Any) -> None:
        if self.timeout_ms is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    def _ring(self, number: int, frame: Optional[FrameType]) -> None:
        raise ScoringTimeout


class ScriptHost:
    """Calls one script's run(). `cors_origins`: none switches CORS off."""

    def __init__(
        self,
        script: UserScript,
        *,
        server_version: str = "",
        timeout_ms: Optional[int] = None,
        max_result_bytes: int,
        cors_origins: Tuple[str, ...] = (),
    ) -> None:
        self._script = script
        self._server_version = server_version
        self._timer = ScoringTimer(timeout_ms)
        self._max_result_bytes = max_result_bytes
        self._cors_origins = cors_origins
        self._logger = logging.getLogger("azmlinfsrv")

    def handle(self, head: Mapping[str, Any], body: Body) -> Answer:
        """The answer to one request; raises Leave only."""
        request = request_of(head, body)
        arguments = self.arguments(request, body)
        if isinstance(arguments, Answer):
            return self.completed(request, arguments)
        outcome = self.attempt(self._script.run, arguments)
        answer = self.completed(request, self.answer(outcome, outcome.value))
        if outcome.exit_code is not None:
            raise Leave(answer, outcome.exit_code)
        return answer

    def arguments(self, request: AMLRequest, body: Body) -> Union[Answer, Dict[str, Any]]:
        """What run() is given, by name; or the answer to what it is not called for."""
        refused = self._refused_at_sight(request)
        if refused is not None:
            return refused
        try:
            return self._script.form.arguments(request, body)
        except Refused as exc:
            return refusal(exc.status, exc.message)
        except Exception as exc:  # noqa: BLE001 -- what no rule foresaw is the request's fault, not the worker's end
            self.log_failure(exc)
            return refusal(400, "The request could not be read.")

    def attempt(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Outcome:
        """Call a function of the script's; its failure is in the log."""
        started = time.perf_counter()
        try:
            with self._timer:
                value = function(**arguments)
            return Outcome((time.perf_counter() - started) * 1000, value)
        except BaseException as exc:  # noqa: BLE001 -- a script may raise anything
            run_ms = (time.perf_counter() - started) * 1000
            self.log_failure(exc)
            if isinstance(exc, ScoringTimeout):
                return Outcome(run_ms, None, f"Scoring timeout after {self._timer.timeout_ms} ms", type(exc))
            code = _exit_code(exc) if isinstance(exc, (SystemExit, KeyboardInterrupt)) else None
            return Outcome(run_ms, None, FAILED_RUN, type(exc), code)

    def answer(self, outcome: Outcome, value: Any) -> Answer:
        """The answer with this value, which is the call's or a part of it; or with the call's failure."""
        if outcome.failure:
            return refusal(500, outcome.failure, failed=True, run_ms=outcome.run_ms)
        return self._answer(value, outcome.run_ms)

    def completed(self, request: AMLRequest, answer: Answer) -> Answer:
        """With the headers that every answer has."""
        if self._server_version:
            answer.headers.append(("x-ms-server-version", self._server_version))
        if self._cors_origins:
            answer.headers += self._cors(request)
        return answer

    def log_access(self, head: Mapping[str, Any], answer: Answer, taken_ms: float) -> None:
        """The inference server's one line a request."""
        where = f"{head['method']} {head['target'] if head['target'][-1:] != '?' else head['target'][:-1]}"
        self._logger.info("%s %d %.3fms %d", where, answer.status, taken_ms, len(answer.body))

    def _refused_at_sight(self, request: AMLRequest) -> Optional[Answer]:
        for name, value in request.headers:
            if len(value) > _ID_MAX and name.lower() in _ID_HEADERS:
                return refusal(431, f"{name.lower()} must not exceed {_ID_MAX} characters")
        if request.method == "OPTIONS" and self._script.form.kind != "raw":
            return Answer(200, b"") if self._cors_origins else refusal(405, "Method not allowed")
        return None

    def _answer(self, value: Any, run_ms: float) -> Answer:
        try:
            answer = answer_of(value, run_ms)
        except Exception as exc:  # noqa: BLE001 -- a value's own methods run here
            self._logger.error("run() returned what is neither JSON nor a response. %s", trace_of(exc))
            return refusal(500, INTERNAL, failed=True, run_ms=run_ms)
        if len(answer.body) > self._max_result_bytes:
            message = f"The result has {len(answer.body)} bytes; at most {self._max_result_bytes} can be answered."
            self._logger.error("%s", message)
            return refusal(500, message, failed=True, run_ms=run_ms)
        return answer

    def log_failure(self, exc: BaseException) -> None:
        self._logger.error("Encountered Exception: %s", trace_of(exc))

    def _cors(self, request: AMLRequest) -> List[Tuple[str, str]]:
        origin = request.headers.get("origin", "")
        lines = [("vary", "Origin")]
        if not origin or not any(_matches(entry, origin) for entry in self._cors_origins):
            return lines
        lines.append(("access-control-allow-origin", origin))
        if request.method == "OPTIONS":
            lines.append(("access-control-allow-methods", "GET, POST"))
            wanted = request.headers.get("access-control-request-headers")
            if wanted:
                lines.append(("access-control-allow-headers", wanted))
        return lines


def request_of(head: Mapping[str, Any], body: Body) -> AMLRequest:
    return AMLRequest(head["method"], head["target"], head["headers"], body)


def _exit_code(exc: BaseException) -> int:
    return exc.code if isinstance(exc, SystemExit) and isinstance(exc.code, int) else 1


def _matches(entry: str, origin: str) -> bool:
    if entry == "*":
        return True
    if not _PATTERN.search(entry):
        return entry.lower() == origin.lower()
    try:
        return re.match(entry, origin, re.IGNORECASE) is not None
    except re.error:
        return False


def head_of(answer: Answer) -> Dict[str, Any]:
    """An answer's head, as it travels."""
    headers = [[name, value] for name, value in answer.headers]
    return {"status": answer.status, "headers": headers, "failed": answer.failed, "ms": round(answer.run_ms, 3)}


def origins_of(text: str) -> Tuple[str, ...]:
    """AML_CORS_ORIGINS: origins between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def timeout_of(text: str) -> Optional[int]:
    """SCORING_TIMEOUT_MS, None where it is not set. Raises ValueError."""
    if not text.strip():
        return None
    timeout_ms = int(text)
    if timeout_ms <= 0:
        raise ValueError(f"{timeout_ms} is not above 0")
    return timeout_ms


def event_line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event).encode("utf-8") + b"\n"

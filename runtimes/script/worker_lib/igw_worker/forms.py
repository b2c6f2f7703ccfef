"""From a request to run()'s arguments, and from what run() returns to an answer.

Why: scripts are written against the inference server's rules, so these follow it to the letter. Which form run() has
is decided once, when the script is loaded.
Shapes: plain run(raw): the body as text, or a GET's query as JSON text. With @input_schema: one argument for each key
of the JSON object. With @rawhttp: the request itself. `request_headers`, in any form: a dict, names in title case.
Errors: Refused, with the status and message for the caller; Unfit for a run() that no request could be given to.
"""

import inspect
import json
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from .shims.aml_request import AMLRequest
from .shims.aml_response import AMLResponse

Body = Union[bytes, bytearray, memoryview]
INTERNAL = "An unexpected internal error occurred. Check the logs for more info."
_FAILED = "x-ms-run-function-failed"


class Refused(Exception):
    """The request does not fit run(); `message` is what the caller is told."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ScoringTimeout(TimeoutError):
    """run() took longer than SCORING_TIMEOUT_MS."""


class Unfit(Exception):
    """run() is declared in a way that cannot be called."""


class Answer:
    """What goes back to the caller. `run_ms` is the time within run(), 0 where it was not called."""

    __slots__ = ("body", "failed", "headers", "run_ms", "status")

    def __init__(
        self,
        status: int,
        body: bytes,
        *,
        failed: bool = False,
        headers: Optional[List[Tuple[str, str]]] = None,
        run_ms: float = 0.0,
    ) -> None:
        self.status = status
        self.body = body
        self.failed = failed
        self.run_ms = run_ms
        self.headers = [("content-type", "application/json")] if headers is None else headers


def refusal(status: int, message: str, *, failed: bool = False, run_ms: float = 0.0) -> Answer:
    """An error in the one shape that the inference server has."""
    body = json.dumps({"message": message}).encode("utf-8")
    headers = [("content-type", "application/json"), (_FAILED, str(failed))]
    return Answer(status, body, failed=failed, headers=headers, run_ms=run_ms)


class Form:
    """How one run() is called."""

    __slots__ = ("_parameters", "_with_headers", "kind")

    def __init__(self, run: Callable[..., Any], *, is_raw: bool, has_schema: bool) -> None:
        parameters = list(inspect.signature(run).parameters.values())
        plain = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if any(parameter.kind not in plain for parameter in parameters):
            raise Unfit("run() cannot accept positional-only arguments, *args, or **kwargs")
        if is_raw and has_schema:
            raise Unfit("run() cannot be decorated with both @rawhttp and @input_schema")
        self._parameters = [parameter for parameter in parameters if parameter.name != "request_headers"]
        self._with_headers = len(self._parameters) < len(parameters)
        if not self._parameters:
            other = ' other than "request_headers"' if self._with_headers else " for input data"
            raise Unfit(f"run() needs to accept an argument{other}")
        self.kind = "raw" if is_raw else "schema" if has_schema else "plain"

    def __repr__(self) -> str:
        return f"<Form {self.kind} run({', '.join(parameter.name for parameter in self._parameters)})>"

    def arguments(self, request: AMLRequest, body: Body) -> Dict[str, Any]:
        """By name. Raises Refused."""
        if self.kind == "raw":
            found: Dict[str, Any] = {self._parameters[0].name: request}
        elif request.method == "POST":
            found = self._from_body(request, body)
        elif request.method == "GET":
            found = self._from_query(request)
        else:
            raise Refused(405, "Method not allowed")
        if self._with_headers:
            found["request_headers"] = request.headers.to_dict()
        return found

    def _from_body(self, request: AMLRequest, body: Body) -> Dict[str, Any]:
        if self.kind == "schema":
            return self._by_name(_object(request, body))
        try:
            return {self._parameters[0].name: str(body, "utf-8")}
        except UnicodeDecodeError as exc:
            raise Refused(400, f"Input cannot be decoded as UTF-8: {exc.reason} at byte {exc.start}") from None

    def _from_query(self, request: AMLRequest) -> Dict[str, Any]:
        args = request.args
        values = {name: [_value(text) for text in args.getlist(name)] for name in args}
        query = {name: found[0] if len(found) == 1 else found for name, found in values.items()}
        return self._by_name(query) if self.kind == "schema" else {self._parameters[0].name: json.dumps(query)}

    def _by_name(self, values: Dict[str, Any]) -> Dict[str, Any]:
        found = {}
        for parameter in self._parameters:
            value = values.get(parameter.name, parameter.default)
            if value is inspect.Parameter.empty:
                raise Refused(400, f"A value is not provided for the {parameter.name!r} parameter.")
            found[parameter.name] = value
        return found


def _object(request: AMLRequest, body: Body) -> Dict[str, Any]:
    if not request.is_json:
        raise Refused(415, "Expects Content-Type to be application/json")
    if not body:
        raise Refused(400, "POST body is empty. Expecting a JSON dictionary.")
    try:
        value = json.loads(body if isinstance(body, bytes) else bytes(body))
    except (ValueError, RecursionError) as exc:
        raise Refused(400, f"POST body could not be decoded as JSON: {exc}") from None
    if not isinstance(value, dict):
        raise Refused(400, "POST body should be a JSON dictionary.")
    return value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def answer_of(value: Any, run_ms: float) -> Answer:
    """What run() returned, as an answer. Raises what JSON raises for a value that it does not know."""
    if isinstance(value, AMLResponse) or _is_response(value):
        status = int(value.status_code)
        headers = [(str(name).lower(), str(text)) for name, text in value.headers.items()]
        told = [text for name, text in headers if name == _FAILED]
        failed = status >= 500 or "True" in told
        headers = [line for line in headers if line[0] not in (_FAILED, "content-length")]
        body = bytes(value.get_data())
    else:
        status, failed = 200, False
        headers = [("content-type", "application/json")]
        body = json.dumps({} if value is None else value).encode("utf-8")
    headers += [(_FAILED, str(failed)), ("x-ms-run-fn-exec-ms", f"{run_ms:.3f}")]
    return Answer(status, body, failed=failed, headers=headers, run_ms=run_ms)


def _is_response(value: Any) -> bool:
    """A response of Flask or Werkzeug, known by its members: neither need be installed."""
    return all(hasattr(value, name) for name in ("status_code", "headers", "get_data"))

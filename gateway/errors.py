"""The table of failures: every refusal the gateway can give, with its HTTP status and whether a retry may help.

Clients branch on `code`, never on text. A message says what was attempted, what was found and what would be
accepted. `runtimes` raises its own faults and knows no HTTP: `problem_of` maps them.
"""

from __future__ import annotations

from enum import Enum

import runtimes


class Code(Enum):
    """A failure's code, HTTP status and whether the same request may succeed later."""

    INVALID_INPUT = ("invalid_input", 400, False)
    UNAUTHENTICATED = ("unauthenticated", 401, False)
    FORBIDDEN = ("forbidden", 403, False)
    NOT_FOUND = ("not_found", 404, False)
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, False)
    DEADLINE_EXCEEDED = ("deadline_exceeded", 408, True)
    CONFLICT = ("conflict", 409, True)
    PRECONDITION_FAILED = ("precondition_failed", 412, False)
    PAYLOAD_TOO_LARGE = ("payload_too_large", 413, False)
    URI_TOO_LONG = ("uri_too_long", 414, False)
    UNSUPPORTED_MEDIA_TYPE = ("unsupported_media_type", 415, False)
    MODEL_FAILED = ("model_failed", 424, False)
    OVERLOADED = ("overloaded", 429, True)
    HEADERS_TOO_LARGE = ("headers_too_large", 431, False)
    INTERNAL = ("internal", 500, False)
    NOT_IMPLEMENTED = ("not_implemented", 501, False)
    UNAVAILABLE = ("unavailable", 503, True)
    VERSION_NOT_SUPPORTED = ("version_not_supported", 505, False)
    INSUFFICIENT_STORAGE = ("insufficient_storage", 507, True)

    def __init__(self, text: str, status: int, may_retry: bool) -> None:
        self.text = text
        self.status = status
        self.may_retry = may_retry


class Problem(Exception):
    """A request that gets no answer but a reason. `headers` are added to the response."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        details: tuple[str, ...] = (),
        headers: tuple[tuple[bytes, bytes], ...] = (),
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.headers = headers
        # Why, for rejected_total: queue_full, deadline, concurrency, rate, draining, too_large, auth.
        self.reason = reason


# What a managed endpoint says beside 424: the status and reason that the model itself gave.
MODEL_ERROR = (
    (b"ms-azureml-model-error-statuscode", b"500"),
    (b"ms-azureml-model-error-reason", b"model_failed"),
)


def retry_after(seconds: float) -> tuple[bytes, bytes]:
    """The header, in whole seconds, at least one."""
    return (b"retry-after", str(max(1, round(seconds))).encode())


def problem_of(fault: runtimes.RuntimeFault) -> Problem:
    """Maps what a runtime reports to what a caller is told."""
    text = str(fault)
    match fault:
        case runtimes.InvalidInput():
            return Problem(Code.INVALID_INPUT, text)
        case runtimes.DeadlineExceeded():
            return Problem(Code.DEADLINE_EXCEEDED, text, reason="deadline")
        case runtimes.QueueWaitExceeded():
            return Problem(Code.OVERLOADED, text, headers=(retry_after(1),), reason="queue_wait")
        case runtimes.TooLate():
            return Problem(Code.OVERLOADED, text, headers=(retry_after(fault.retry_after_s),), reason="deadline")
        case runtimes.Overloaded():
            headers = (retry_after(fault.retry_after_s),)
            return Problem(Code.OVERLOADED, text, headers=headers, reason="queue_full")
        case runtimes.Unavailable():
            return Problem(Code.UNAVAILABLE, text, headers=(retry_after(1),), reason="draining")
        case runtimes.ModelFailed():
            return Problem(Code.MODEL_FAILED, text, headers=MODEL_ERROR)
        case _:
            return Problem(Code.INTERNAL, "the gateway failed; the log has the cause under this request id")

"""Any refusal as bytes: one JSON error shape a protocol, with the status and headers that go with it.

Shapes: `{"error": {"code", "message", "details", "request_id"}}`; on V2 routes `{"error": text, "code",
"request_id"}`, because V2 clients read `error` as text.
"""

from __future__ import annotations

import orjson

from gateway.errors import Code, Problem

JSON = (b"content-type", b"application/json")


def azure_body(problem: Problem, request_id: str) -> bytes:
    return orjson.dumps(
        {
            "error": {
                "code": problem.code.text,
                "message": problem.message,
                "details": list(problem.details),
                "request_id": request_id,
            }
        }
    )


def v2_body(problem: Problem, request_id: str) -> bytes:
    return orjson.dumps({"error": problem.message, "code": problem.code.text, "request_id": request_id})


def internal() -> Problem:
    """Our own bug: the cause goes to the log under the request id, never to the caller."""
    return Problem(Code.INTERNAL, "the gateway failed; its log has the cause under this request id")

"""Scoring scripts at the edge: which headers a script sees, and what of its answer goes back. Pure.

Why apart: a script gets the request as it was sent and answers with headers of its own, so this is the one place
where what strangers wrote passes through the gateway, in both directions.
Promise: a script never sees the caller's credentials; its answer cannot end a header line, frame the body, or say
what is the gateway's to say (which request this was, who answered, how long it took).
Errors: none; headers that may not pass are left out.
Source: sections 5.4, 5.5 and 6 of the endpoint contract: an answer of a model that is not 200 is a 424 that names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus

from gateway.dataplane.head import Head
from runtimes import ScriptAnswer, ScriptSpec

Header = tuple[bytes, bytes]

# The script's view of the scoring path, wherever the endpoint lies.
PATH = "/score"
METHODS = ("GET", "OPTIONS", "POST")

_HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    )
)
_KEPT_FROM_SCRIPT = _HOP_BY_HOP | frozenset(
    (
        *(b"authorization", b"azureml-model-deployment", b"expect", b"content-length"),
        *(b"x-request-id", b"x-ms-request-id", b"x-ms-client-request-id"),
    )
)
_KEPT_FROM_CALLER = _HOP_BY_HOP | frozenset(
    (
        *(b"content-length", b"date", b"server", b"azureml-model-deployment", b"traceparent", b"traceid"),
        *(b"x-request-id", b"x-ms-request-id", b"x-ms-client-request-id"),
        *(b"x-ms-run-function-failed", b"x-ms-run-fn-exec-ms"),
        *(b"ms-azureml-model-error-statuscode", b"ms-azureml-model-error-reason"),
    )
)
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# What may stand in a value: visible characters of Latin-1, blanks and tabs within.
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_PREFLIGHT_NAMES = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z, ]{1,1024}")


def headers_for_script(head: Head, request_id: str, body_bytes: int | None) -> list[tuple[str, str]]:
    """The caller's headers in their order, without credentials and what concerns the connection alone; then the
    request's ids as the caller is told them. `body_bytes`: None where no body was sent."""
    left_out = _KEPT_FROM_SCRIPT | _named_by_connection(head.lines)
    if head.inflates:
        left_out |= {b"content-encoding"}
    found = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.lines if name not in left_out]
    if body_bytes is not None:
        found.append(("content-length", str(body_bytes)))
    client_id = head.client_id.decode()
    found += [("x-request-id", request_id), ("x-ms-request-id", client_id or request_id)]
    if client_id:
        found.append(("x-ms-client-request-id", client_id))
    return found


def is_success(answer: ScriptAnswer) -> bool:
    """Azure takes any other status, also 201 and 204, for a failure of the model."""
    return answer.status == 200


def headers_of_answer(answer: ScriptAnswer) -> list[Header]:
    """What the script's answer says of itself, as far as it may, and how the run went."""
    lines = [(name, value) for name, value in _valid(answer.headers) if name not in _KEPT_FROM_CALLER]
    if not is_success(answer):
        lines += [
            (b"ms-azureml-model-error-statuscode", b"%d" % answer.status),
            (b"ms-azureml-model-error-reason", _reason(answer.status)),
        ]
    lines.append((b"x-ms-run-function-failed", b"True" if answer.failed else b"False"))
    lines.append((b"x-ms-run-fn-exec-ms", b"%.3f" % answer.run_ms))
    return lines


def preflight(script: ScriptSpec, headers: Iterable[Header]) -> list[Header]:
    """The answer to a browser that asks whether a page of another origin may score here. Origins are names or "*":
    a pattern would be the user's own code, as it may take for ever, and none of that runs in this process."""
    asked = dict(headers)
    origin = asked.get(b"origin", b"").decode("latin-1")
    if "*" in script.cors_origins:
        lines = [(b"access-control-allow-origin", b"*")]
    elif origin.lower() in [one.lower() for one in script.cors_origins]:
        lines = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]
    else:
        return [(b"vary", b"Origin")]
    lines.append((b"access-control-allow-methods", ", ".join(METHODS).encode()))
    wanted = asked.get(b"access-control-request-headers", b"")
    if _PREFLIGHT_NAMES.fullmatch(wanted):
        lines.append((b"access-control-allow-headers", wanted))
    return lines


def _named_by_connection(headers: Sequence[Header]) -> frozenset[bytes]:
    """Headers that the caller has declared to be meant for the next hop only."""
    values = [value for name, value in headers if name == b"connection"]
    return frozenset(part.strip().lower() for value in values for part in value.split(b","))


def _valid(headers: Iterable[tuple[str, str]]) -> Iterable[Header]:
    """Those that are headers: of any other, a part could be read as something else."""
    pairs = list(headers)
    named = {
        part.strip().lower() for name, value in pairs if name.lower() == "connection" for part in value.split(",")
    }
    for name, value in pairs:
        text = value.strip(" \t")
        if name.lower() not in named and _NAME.fullmatch(name) and _VALUE.fullmatch(text):
            yield name.lower().encode(), text.encode("latin-1")


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"

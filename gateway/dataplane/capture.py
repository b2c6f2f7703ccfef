"""Capture: what of a deployment's requests and answers is collected, decided by a share and copied after the answer.

Promise: the answer has left when a copy is queued, in a later turn of the loop; copying waits for nothing and fails
no request. One chance decides for a request and its answer, so with equal shares both of a pair are there.
What: the bodies as the deployment was given them and as it gave them (inflated), the headers that are asked for, and
never those that prove callers. Refusals before the model or script was asked are not collected, be they made on
arrival or after a wait, nor are the copies of a mirror.
Units: *_ns monotonic nanoseconds; times on records in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from gateway.collection.records import Record
from gateway.collection.spec import NEVER_COLLECTED, REQUEST, RESPONSE, CollectorSpec
from gateway.collection.writer import Collection, Writer, size_of_headers
from gateway.dataplane.script import PATH
from gateway.identity import RequestIds
from gateway.telemetry.record import DeploymentRecord

if TYPE_CHECKING:
    from gateway.dataplane.score import Call, Reply

# What `sample` answers, together.
TAKES_REQUEST, TAKES_RESPONSE = 1, 2

Header = tuple[bytes, bytes]


class Captures:
    """Makes the captures of one scorer. `agent`: who the records say made them."""

    def __init__(self, writer: Writer, agent: str) -> None:
        self.writer = writer
        self.agent = agent
        self.ids = RequestIds()

    def of(self, spec: CollectorSpec | None, record: DeploymentRecord) -> Capture | None:
        return Capture(spec, self, record) if spec is not None else None


class Capture:
    """Of one deployment in one scorer."""

    __slots__ = ("_agent", "_headers", "_ids", "_kept", "_request", "_response", "_shares", "_version", "_writer")

    def __init__(self, spec: CollectorSpec, captures: Captures, record: DeploymentRecord) -> None:
        self._writer = captures.writer
        self._agent = captures.agent
        self._ids = captures.ids
        self._version = spec.model_version
        self._headers = frozenset(name.encode() for name in spec.headers if name not in NEVER_COLLECTED)
        self._kept = self._headers | {b"content-type"}
        self._request = _collection(spec, REQUEST, record)
        self._response = _collection(spec, RESPONSE, record)
        self._shares = (_share(spec, REQUEST), _share(spec, RESPONSE))

    def sample(self, chance: float) -> int:
        """What is taken of a request: TAKES_REQUEST, TAKES_RESPONSE, both or 0. `chance`: from 0 to less than 1."""
        request, response = self._shares
        return (TAKES_REQUEST if chance < request else 0) | (TAKES_RESPONSE if chance < response else 0)

    def take(self, call: Call, reply: Reply, now_s: float, now_ns: int) -> None:
        """Queue what was decided for the call, which has ended with this reply."""
        if call.sampled & TAKES_REQUEST and self._request is not None:
            time_s = now_s - (now_ns - call.arrived_ns) / 1e9
            # Not the call itself, which holds the decoded body too, nor headers that no record names.
            path, query, body = _path(call), call.query, call.body
            lines = [line for line in call.head.lines if line[0] in self._kept]
            asked = _Asked(call.request_id, call.method, path, query, lines, body)
            size = len(body) + len(path) + len(query) + size_of_headers(lines)
            self._writer.put(self._request, size, time_s, partial(self._of_request, asked, time_s))
        if call.sampled & TAKES_RESPONSE and self._response is not None:
            make = partial(self._of_response, call.request_id, reply, now_s)
            self._writer.put(self._response, len(reply.body) + len(reply.lines), now_s, make)

    # On the writer's thread.

    def _of_request(self, asked: _Asked, time_s: float) -> Record:
        query = asked.query.decode("latin-1")
        return Record(
            id=self._ids.next(),
            type=REQUEST,
            time_s=time_s,
            content_type=_value(asked.lines, b"content-type"),
            body=asked.body,
            members={
                "path": f"{asked.path}?{query}" if query else asked.path,
                "method": asked.method,
                **self._common(asked.request_id, asked.lines),
            },
        )

    def _of_response(self, request_id: str, reply: Reply, time_s: float) -> Record:
        lines = reply.headers
        return Record(
            id=self._ids.next(),
            type=RESPONSE,
            time_s=time_s,
            content_type=_value(lines, b"content-type"),
            body=reply.body,
            is_gzip=_value(lines, b"content-encoding").lower() == "gzip",
            members={"statuscode": reply.status, **self._common(request_id, lines)},
        )

    def _common(self, request_id: str, lines: Sequence[Header]) -> dict[str, object]:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in lines if name in self._headers}
        return {
            "headers": headers or None,
            "correlationid": request_id,
            "xrequestid": request_id,
            "modelversion": self._version,
            "agent": self._agent,
        }


class _Asked(NamedTuple):
    """What is kept of a request until its record is made."""

    request_id: str
    method: str
    path: str
    query: bytes
    lines: Sequence[Header]
    body: bytes


def _path(call: Call) -> str:
    """As a script sees it; V2's own where the request is one of V2."""
    return call.target.path if call.is_v2 else PATH


def _share(spec: CollectorSpec, name: str) -> float:
    found = spec.named(name)
    return found.sampling_rate if found is not None else 0.0


def _collection(spec: CollectorSpec, name: str, record: DeploymentRecord) -> Collection | None:
    found = spec.named(name)
    if found is None:
        return None
    return Collection(
        folder=found.folder,
        rolling_rate=spec.rolling_rate,
        source=spec.source,
        counts=record.collection(name),
    )


def _value(lines: Sequence[Header], name: bytes) -> str:
    return next((value for found, value in lines if found == name), b"").decode("latin-1")

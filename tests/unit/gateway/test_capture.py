"""What of requests is taken, by a chance that is given, and what records say of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.collection.records import Record, line_of
from gateway.collection.spec import CollectionSpec, CollectorSpec
from gateway.collection.writer import HEADER_BYTES, Collection, Writer
from gateway.dataplane.capture import TAKES_REQUEST, TAKES_RESPONSE, Capture, Captures
from gateway.dataplane.score import Call, Reply
from gateway.telemetry.record import DeploymentRecord


class Kept:
    """In the place of a writer: the records as they would be written."""

    def __init__(self) -> None:
        self.records: list[tuple[str, int, float, Record]] = []

    def put(self, collection: Collection, size_bytes: int, time_s: float, make: Callable[[], Record]) -> bool:
        self.records.append((collection.folder, size_bytes, time_s, make()))
        return True


def collector(request: float | None = 1.0, response: float | None = 1.0, **more: Any) -> CollectorSpec:
    rates = (("request", request), ("response", response))
    found = tuple(
        CollectionSpec(name=name, folder=f"home/{name}", sampling_rate=rate)
        for name, rate in rates
        if rate is not None
    )
    return CollectorSpec(source="the deployment", collections=found, **more)


def capture(spec: CollectorSpec, kept: Kept | None = None) -> Capture:
    made = Captures(cast("Writer", kept or Kept()), "gateway/1").of(spec, DeploymentRecord())
    assert made is not None
    return made


def call(body: bytes = b"[1]", **more: Any) -> Call:
    head = SimpleNamespace(
        lines=[
            (b"content-type", b"application/json"),
            (b"x-tenant", b"north"),
            (b"authorization", b"Bearer secret"),
            (b"cookie", b"secret"),
        ]
    )
    target = SimpleNamespace(path="/v2/models/digits/infer")
    values = {"is_v2": False, "query": b"", "method": "POST", "sampled": TAKES_REQUEST | TAKES_RESPONSE, **more}
    return cast(
        "Call", SimpleNamespace(head=head, target=target, body=body, request_id="r", arrived_ns=10**9, **values)
    )


REPLY = Reply(424, b"content-type: text/plain\r\nset-cookie: secret\r\nx-tenant: south\r\n", b"no")


@pytest.mark.parametrize(
    ("request_rate", "response_rate", "chance", "taken"),
    [
        (1.0, 1.0, 0.999999, TAKES_REQUEST | TAKES_RESPONSE),
        (0.0, 0.0, 0.0, 0),
        (0.5, 0.5, 0.499, TAKES_REQUEST | TAKES_RESPONSE),
        (0.5, 0.5, 0.5, 0),
        (0.2, 0.8, 0.5, TAKES_RESPONSE),
        (0.8, 0.2, 0.5, TAKES_REQUEST),
        (None, 1.0, 0.0, TAKES_RESPONSE),
        (1.0, None, 0.0, TAKES_REQUEST),
    ],
)
def test_one_chance_decides_for_a_request_and_its_answer(
    request_rate: float | None, response_rate: float | None, chance: float, taken: int
) -> None:
    assert capture(collector(request_rate, response_rate)).sample(chance) == taken


def test_both_of_a_pair_name_the_request_and_each_has_its_time_and_size() -> None:
    kept = Kept()
    spec = collector(headers=("x-tenant",), model_version="3")
    capture(spec, kept).take(call(query=b"a=1"), REPLY, now_s=100.0, now_ns=3 * 10**9)
    (folder, size, time_s, asked), (other, other_size, later_s, answered) = kept.records
    assert (folder, time_s) == ("home/request", 98.0)
    assert (other, later_s) == ("home/response", 100.0)
    # All that is held until the records are made: body, path, query and the two headers that are kept of four.
    assert size == len("[1]/scorea=1content-typeapplication/jsonx-tenantnorth") + 2 * HEADER_BYTES
    assert other_size == len(REPLY.body) + len(REPLY.lines)
    assert asked.id != answered.id
    common = {"correlationid": "r", "xrequestid": "r", "modelversion": "3", "agent": "gateway/1"}
    assert asked.members == {
        "path": "/score?a=1",
        "method": "POST",
        "headers": {"x-tenant": "north"},
        **common,
    }
    assert answered.members == {"statuscode": 424, "headers": {"x-tenant": "south"}, **common}
    assert (answered.content_type, answered.body) == ("text/plain", b"no")


def test_a_request_of_v2_keeps_its_own_path() -> None:
    kept = Kept()
    capture(collector(), kept).take(call(is_v2=True, sampled=TAKES_REQUEST), REPLY, 0.0, 10**9)
    ((_, _, _, asked),) = kept.records
    assert asked.members["path"] == "/v2/models/digits/infer"


def test_credentials_are_never_on_a_line_even_where_they_are_asked_for() -> None:
    kept = Kept()
    spec = collector(headers=("authorization", "cookie", "set-cookie", "x-tenant"))
    capture(spec, kept).take(call(), REPLY, 0.0, 10**9)
    lines = [line_of(record, "s", "f")[0].decode() for *_, record in kept.records]
    assert "secret" not in "".join(lines)
    assert [json.loads(one)["headers"] for one in lines] == [{"x-tenant": "north"}, {"x-tenant": "south"}]


def test_nothing_is_made_for_a_deployment_that_collects_nothing() -> None:
    assert Captures(cast("Writer", Kept()), "gateway/1").of(None, DeploymentRecord()) is None


def test_the_counts_of_what_is_collected_are_there_from_the_start() -> None:
    record = DeploymentRecord()
    Captures(cast("Writer", Kept()), "gateway/1").of(collector(response=None), record)
    assert record.snapshot().collections == {
        "request": dict.fromkeys(
            ("stored", "queue_full", "too_large", "invalid", "disk_full", "disk_error", "error"), 0
        )
    }

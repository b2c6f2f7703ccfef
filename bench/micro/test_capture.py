"""Data collection: what it costs the scoring loop to take a pair, and the writer's thread to make its line."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import cast

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gateway.collection.records import Record, line_of
from gateway.collection.spec import CollectionSpec, CollectorSpec
from gateway.collection.writer import Writer
from gateway.dataplane.capture import Captures
from gateway.dataplane.score import Call, Reply
from gateway.telemetry.record import DeploymentRecord
from runtimes import now_ns


class Nowhere:
    """A disk that keeps nothing."""

    def append(self, folder: str, lines: bytes) -> None:
        """It is gone."""

    def put(self, folder: str, name: str, content: bytes) -> None:
        """It is gone."""


def test_take_a_pair(benchmark: BenchmarkFixture) -> None:
    """On the loop: sampled and queued, both of it."""
    both = tuple(CollectionSpec(name=name, folder=name) for name in ("request", "response"))
    writer = Writer(Nowhere(), 1 << 30)
    capture = Captures(writer, "bench").of(CollectorSpec(source="s", collections=both), DeploymentRecord())
    assert capture is not None
    head = SimpleNamespace(lines=[(b"content-type", b"application/json")])
    given = {
        "body": b"[1]",
        "request_id": "r",
        "arrived_ns": now_ns(),
        "is_v2": False,
        "query": b"",
        "method": "POST",
    }
    call = cast("Call", SimpleNamespace(head=head, sampled=0, **given))
    reply = Reply(200, b"content-type: application/json\r\n", b"[1]")

    def take() -> None:
        call.sampled = capture.sample(0.5)
        capture.take(call, reply, time.time(), now_ns())

    benchmark(take)
    writer.close()


@pytest.mark.parametrize("size", [100, 10_000, 1_000_000])
def test_make_a_line(benchmark: BenchmarkFixture, size: int) -> None:
    """On the writer's thread: of JSON of so many bytes."""
    body = b"[" + b"1.5," * (size // 4) + b"1]"
    record = Record(id="i", type="request", time_s=time.time(), content_type="application/json", body=body)
    benchmark(line_of, record, "the deployment", "a/folder")

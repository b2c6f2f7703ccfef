"""The disk that collected data goes to stands still, or is full: requests go on as if nothing were collected."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable

import pytest
import uvloop

from gateway.collection.spec import CollectionSpec, CollectorSpec
from gateway.collection.writer import Writer
from gateway.dataplane.capture import Captures
from tests.support.door import Door, open_door

SCORE = "/endpoints/digits/score"
ROWS = {"input_data": [[1.0, 2.0, 3.0, 4.0]]}
QUEUE_BYTES = 64 * 1024


class Disk:
    """`before` is called for each write, on the writer's thread."""

    def __init__(self, before: Callable[[], object]) -> None:
        self.lines = 0
        self._before = before

    def append(self, folder: str, lines: bytes) -> None:
        self._before()
        self.lines += lines.count(b"\n")

    def put(self, folder: str, name: str, content: bytes) -> None:
        self._before()


def collect(door: Door, writer: Writer) -> None:
    both = tuple(CollectionSpec(name=one, folder=one) for one in ("request", "response"))
    deployment = door.deployments["blue"]
    deployment.capture = Captures(writer, "gateway/1").of(
        CollectorSpec(source="s", collections=both), deployment.record
    )


def counts(door: Door) -> dict[str, int]:
    """Of requests and answers together."""
    both = door.counted().snapshot().collections.values()
    return {outcome: sum(one[outcome] for one in both) for outcome in ("stored", "queue_full", "disk_full", "error")}


def test_a_disk_that_stands_still_costs_no_request_anything() -> None:
    async def main() -> None:
        moves = threading.Event()
        disk = Disk(lambda: moves.wait(30))
        writer = Writer(disk, QUEUE_BYTES)
        async with open_door("lane") as (door, client):
            collect(door, writer)
            slowest_s = 0.0
            for _ in range(300):
                began_s = time.monotonic()
                answer = await client.post(SCORE, json=ROWS)
                slowest_s = max(slowest_s, time.monotonic() - began_s)
                assert answer.status_code == 200
            stuck = counts(door)
            # A write would take 30 s; whatever else the machine does is far below.
            assert slowest_s < 5
            assert stuck["stored"] == 0
            assert stuck["queue_full"] > 0
            # Never more than the bound waits.
            assert (600 - stuck["queue_full"]) * 1024 <= QUEUE_BYTES
            moves.set()
            await asyncio.to_thread(writer.close)
            ended = counts(door)
            assert ended["stored"] + ended["queue_full"] == 600
            assert disk.lines == ended["stored"]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_bug_in_the_writing_costs_its_records_and_not_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    bugs = [RuntimeError("a bug of ours")]

    def buggy() -> None:
        if bugs:
            raise bugs.pop()

    async def main() -> None:
        disk = Disk(buggy)
        writer = Writer(disk, 1 << 20)
        async with open_door("lane") as (door, client):
            collect(door, writer)
            for stored in (0, 1):
                assert (await client.post(SCORE, json=ROWS)).status_code == 200
                await door.until(lambda wanted=stored: sum(counts(door).values()) == 2 * (wanted + 1))  # type: ignore[misc]
            await asyncio.to_thread(writer.close)
            ended = counts(door)
            # One write of one folder failed, with the one record that it had.
            assert (ended["error"], ended["stored"], disk.lines) == (1, 3, 3)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert "collected data could not be written to" in caplog.text


def test_a_full_disk_drops_and_counts_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def main() -> None:
        writer = Writer(Disk(full), 1 << 20)
        async with open_door("lane") as (door, client):
            collect(door, writer)
            for _ in range(50):
                assert (await client.post(SCORE, json=ROWS)).status_code == 200
            await asyncio.sleep(0)
            await asyncio.to_thread(writer.close)
            assert counts(door) == {"stored": 0, "queue_full": 0, "disk_full": 100, "error": 0}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    messages = [one.message for one in caplog.records if "cannot be written" in one.message]
    assert len(messages) == 1

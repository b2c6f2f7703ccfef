"""Requests that are collected, by every door and from both kinds of deployment, once the answer has left."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from gateway.collection.records import Record
from gateway.collection.spec import CollectionSpec, CollectorSpec
from gateway.collection.writer import Collection, Writer
from gateway.dataplane.capture import Captures
from gateway.dataplane.score import ScoringOptions
from tests.support.door import BEARER, WAYS, Door, Part, open_door
from tests.support.scripts import always

SCORE = "/endpoints/digits/score"
ROWS = {"input_data": [[1.0, 2.0, 3.0, 4.0]]}


class Kept(Writer):
    """Records as they would be written; `meanwhile` is called for each before it is put."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.records: list[Record] = []
        self._meanwhile = meanwhile

    def put(self, collection: Collection, size_bytes: int, time_s: float, make: Callable[[], Record]) -> bool:
        self._meanwhile()
        self.records.append(make())
        return True


def collect(door: Door, kept: Writer, name: str = "blue") -> None:
    both = tuple(CollectionSpec(name=one, folder=one) for one in ("request", "response"))
    spec = CollectorSpec(source="s", collections=both)
    deployment = door.deployments[name]
    deployment.capture = Captures(kept, "gateway/1").of(spec, deployment.record)


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


@pytest.mark.parametrize("way", WAYS)
def test_both_bodies_are_collected_as_they_were_sent(way: str) -> None:
    async def main() -> None:
        kept = Kept()
        async with open_door(way) as (door, client):
            collect(door, kept)
            answer = await client.post(SCORE, json=ROWS)
            await door.until(lambda: len(kept.records) == 2)
        asked, answered = kept.records
        assert (asked.body, answered.body) == (answer.request.content, answer.content)
        assert {one.members["xrequestid"] for one in kept.records} == {answer.headers["x-request-id"]}
        assert answered.members["statuscode"] == 200

    run(main())


@pytest.mark.parametrize("way", WAYS)
def test_what_a_script_was_asked_and_failed_to_answer_is_collected_too(way: str) -> None:
    async def main() -> None:
        kept = Kept()
        async with open_door(way, parts={"blue": Part(script=always(status=500, body=b"no"))}) as (door, client):
            collect(door, kept)
            answer = await client.post(SCORE + "?page=2", content=b"any text")
            await door.until(lambda: len(kept.records) == 2)
        asked, answered = kept.records
        assert (asked.body, asked.members["path"]) == (b"any text", "/score?page=2")
        assert (answered.members["statuscode"], answered.body) == (answer.status_code, b"no") == (424, answer.content)

    run(main())


@pytest.mark.parametrize("way", WAYS)
def test_a_refusal_is_not_collected_and_nothing_is_where_no_collector_is(way: str) -> None:
    async def main() -> None:
        kept = Kept()
        async with open_door(way) as (door, client):
            assert (await client.post(SCORE, json=ROWS)).status_code == 200
            collect(door, kept)
            assert (await client.post(SCORE, content=b"no json")).status_code == 400
            assert (await client.post(SCORE, json=ROWS, headers={"authorization": "Bearer no"})).status_code == 401
            await asyncio.sleep(0)
            assert kept.records == []

    run(main())


@pytest.mark.parametrize("way", WAYS)
def test_what_waited_in_vain_is_not_collected_and_what_ran_too_long_is(way: str) -> None:
    async def main() -> None:
        kept = Kept()
        parts = {
            "blue": Part(is_held=True, queue_wait_ms=20),
            "busy": Part(is_held=True, timeout_ms=20),
            "script": Part(script=lambda _: None, timeout_ms=40),
        }
        async with open_door(way, parts=parts) as (door, client):
            for name in parts:
                collect(door, kept, name)

            async def status(name: str) -> int:
                return (await client.post(SCORE, json=ROWS, headers={"azureml-model-deployment": name})).status_code

            assert [await status("blue"), await status("busy")] == [429, 408]
            # The first is taken by the one worker, which never ends it; the second waits for that.
            assert [await status("script"), await status("script")] == [408, 408]
            await door.until(lambda: len(kept.records) >= 2)
            await asyncio.sleep(0)
            for name in ("blue", "busy"):
                door.pools[name].release()
        assert [one.type for one in kept.records] == ["request", "response"]
        assert b"while the scoring script ran" in kept.records[1].body

    run(main())


def test_a_compressed_answer_is_collected_as_a_compressed_one() -> None:
    async def main() -> None:
        kept = Kept()
        rows = {"input_data": [[1.0, 2.0, 3.0, 4.0]] * 500}
        async with open_door("lane", options=ScoringOptions(gzip=True)) as (door, client):
            collect(door, kept)
            answer = await client.post(SCORE, json=rows, headers={"accept-encoding": "gzip"})
            assert answer.headers["content-encoding"] == "gzip"
            await door.until(lambda: len(kept.records) == 2)
        assert kept.records[1].is_gzip

    run(main())


@pytest.mark.parametrize("way", ["wire", "lane"])
def test_the_caller_has_the_whole_answer_before_anything_is_collected(way: str) -> None:
    """The loop stands still in `put` until a caller in another thread has read its answer."""

    async def main() -> None:
        has_read = threading.Event()
        seen: list[bool] = []
        kept = Kept(lambda: seen.append(has_read.wait(10)))
        async with open_door(way) as (door, client):
            collect(door, kept)
            port = client.base_url.port
            assert port is not None

            def ask() -> bytes:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("POST", SCORE, b'{"input_data": [[1, 2, 3, 4]]}', {"authorization": BEARER})
                body = connection.getresponse().read()
                has_read.set()
                connection.close()
                return body

            body = await asyncio.to_thread(ask)
            await door.until(lambda: len(kept.records) == 2)
        assert seen == [True, True]
        assert kept.records[1].body == body

    run(main())


def test_a_collector_that_fails_fails_no_request() -> None:
    def broken() -> None:
        raise RuntimeError("a bug of ours")

    async def main() -> None:
        async with open_door("lane") as (door, client):
            collect(door, Kept(broken))
            for _ in range(3):
                assert (await client.post(SCORE, json=ROWS)).status_code == 200

    run(main())

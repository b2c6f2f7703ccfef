"""A deployment's log by server-sent events: what comes first, what follows, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from gateway.controlplane.authorize import Role
from gateway.controlplane.rest import logs
from gateway.controlplane.store.database import StoreBusy
from gateway.controlplane.store.records import Kind, Ref
from gateway.log_stream import BYTES_MAX
from tests.support.house import FIRST_TOKEN, House
from tests.support.waiting import PATIENCE_S

NAME = "digits/blue"
PATH = "/onlineEndpoints/digits/deployments/blue/logs"


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(logs, "LOOK_EVERY_S", 0.01)
    found = House(tmp_path)
    found.add_endpoint()
    found.add_model()
    found.add_deployment()
    found.settle()
    yield found
    found.close()


class Reader:
    """A caller of the stream that reads as fast as the test says."""

    def __init__(self, house: House, query: str = "follow=true", token: str = FIRST_TOKEN, **headers: str) -> None:
        self.head: dict[str, Any] = {}
        self.text = ""
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.hangs_up = asyncio.Event()
        self._house = house
        given = {"authorization": f"Bearer {token}", "host": "gateway", **headers}
        self._scope = {
            "type": "http",
            "method": "GET",
            "path": "",
            "raw_path": house.ws(PATH).encode(),
            "query_string": query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
        }
        self.done = asyncio.create_task(house.app(self._scope, self._receive, self._send))

    async def _receive(self) -> MutableMapping[str, Any]:
        await self.hangs_up.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: MutableMapping[str, Any]) -> None:
        await self.may_read.wait()
        self.head = self.head or dict(event)
        self.text += event.get("body", b"").decode()

    @property
    def lines(self) -> list[str]:
        return [one.removeprefix("data: ") for one in self.text.splitlines() if one.startswith("data: ")]

    @property
    def last_id(self) -> str:
        return [one.removeprefix("id: ") for one in self.text.splitlines() if one.startswith("id: ")][-1]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.005)


def write(house: House, *lines: str, source: str = "worker 0") -> None:
    house.streams.of(NAME).add(source, "".join(f"{one}\n" for one in lines).encode())


def test_the_last_lines_come_first_and_without_follow_that_is_all(house: House) -> None:
    write(house, "one", "two", "three")
    reply = house.get(house.ws(f"{PATH}?tail=2"))
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream")
    assert reply.headers["cache-control"] == "no-store"
    assert reply.text.endswith("\ndata: [worker 0] two\ndata: [worker 0] three\n\n")
    assert house.get(house.ws(f"{PATH}?tail=0")).text == ""
    assert house.ask("HEAD", house.ws(PATH)).status_code == 200
    assert house.streams.followers == 0


def test_a_model_without_workers_has_the_lines_of_its_events(house: House) -> None:
    text = house.get(house.ws(PATH)).text
    assert "data: [gateway] " in text
    assert "succeeded" in text


def test_what_comes_is_followed_lines_and_events_alike(house: House) -> None:
    async def story() -> None:
        write(house, "old")
        reader = Reader(house, "follow=true&tail=1")
        await reader.until(lambda: reader.lines)
        write(house, "pip install numpy", source="environment")
        await reader.until(lambda: len(reader.lines) == 2)
        await house.control.tell(NAME, "degraded", "a scorer was replaced")
        await reader.until(lambda: len(reader.lines) == 3)
        reader.hangs_up.set()
        await reader.done
        assert reader.lines[:2] == ["[worker 0] old", "[environment] pip install numpy"]
        assert "degraded: a scorer was replaced" in reader.lines[2]

    house.run(story())
    assert house.streams.followers == 0


def test_who_comes_after_a_failure_sees_its_reason_among_the_lines(house: House) -> None:
    write(house, "one")
    house.now_s += 1
    house.run(house.control.tell(NAME, "failed", "init() raised"))
    house.now_s += 1
    write(house, "two")
    first, reason, last = house.get(house.ws(f"{PATH}?tail=3")).text.strip().splitlines()[-3:]
    assert (first, last) == ("data: [worker 0] one", "data: [worker 0] two")
    assert reason.endswith("failed: init() raised")


def test_a_store_that_is_busy_at_first_makes_no_old_event_a_new_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        await house.control.tell(NAME, "degraded", "long ago")
        write(house, "one")
        read = house.store.read
        busy = [1, 1]

        async def sometimes(work: Any) -> Any:
            # The route looks for the deployment first.
            if len(busy) < 2 and busy:
                busy.pop()
                raise StoreBusy("busy")
            if busy:
                busy.pop()
            return await read(work)

        monkeypatch.setattr(house.store, "read", sometimes)
        reader = Reader(house)
        await reader.until(lambda: reader.lines == ["[worker 0] one"] and not busy)
        place = reader.last_id
        assert place.endswith(".1.")
        await asyncio.sleep(0.05)
        await house.control.tell(NAME, "degraded", "now")
        await reader.until(lambda: len(reader.lines) == 2)
        assert reader.lines[1].endswith("degraded: now")
        reader.hangs_up.set()
        await reader.done

    house.run(story())


def test_a_reader_that_comes_back_goes_on_where_it_was(house: House) -> None:
    async def story() -> None:
        write(house, "one")
        first = Reader(house)
        await first.until(lambda: first.lines)
        first.hangs_up.set()
        await first.done
        write(house, "two", "three")
        await house.control.tell(NAME, "degraded", "meanwhile")
        again = Reader(house, last_event_id=first.last_id)
        await again.until(lambda: len(again.lines) >= 3)
        assert again.lines[:2] == ["[worker 0] two", "[worker 0] three"]
        assert "meanwhile" in again.lines[2]
        assert len(again.lines) == 3
        other = Reader(house, last_event_id=f"00000000.1.{again.last_id.split('.')[2]}")
        await other.until(lambda: "three" in other.text)
        assert "event: lost\ndata: the gateway or the deployment was started anew" in other.text
        nonsense = Reader(house, last_event_id="what")
        await nonsense.until(lambda: "three" in nonsense.text)
        for reader in (again, other, nonsense):
            reader.hangs_up.set()
            await reader.done

    house.run(story())


def test_a_reader_of_a_log_that_began_anew_is_told_so_and_misses_none_of_its_lines(house: House) -> None:
    async def story() -> None:
        write(house, "one", "two")
        reader = Reader(house)
        await reader.until(lambda: "two" in reader.text)
        place = reader.last_id
        house.streams.keep_only([])
        write(house, "new", "newer", "newest")
        again = Reader(house, last_event_id=place)
        await reader.until(lambda: "newest" in reader.text)
        await again.until(lambda: "newest" in again.text)
        for one in (reader, again):
            lost, _, news = one.text.rpartition("event: lost\n")[2].partition("\n\n")
            assert "the gateway or the deployment was started anew" in lost
            assert [line for line in news.splitlines() if line.startswith("data: ")] == [
                "data: [worker 0] new",
                "data: [worker 0] newer",
                "data: [worker 0] newest",
            ]
            one.hangs_up.set()
            await one.done

    house.run(story())


def test_a_slow_reader_loses_the_oldest_lines_and_is_told_how_many(house: House) -> None:
    async def story() -> None:
        write(house, "begin")
        reader = Reader(house)
        await reader.until(lambda: reader.lines)
        reader.may_read.clear()
        write(house, "stuck")
        # It waits in the middle of that line, while more comes than is kept.
        await asyncio.sleep(0.05)
        for number in range(5):
            write(house, f"{number}" + "x" * (BYTES_MAX // 2 - 10))
        reader.may_read.set()
        await reader.until(lambda: "event: lost" in reader.text and len(reader.lines) >= 5)
        assert "data: 4 lines are not kept any more" in reader.text or "data: 3 lines" in reader.text
        assert reader.lines[-1].startswith("[worker 0] 4x")
        reader.hangs_up.set()
        await reader.done

    house.run(story())


def test_an_end_of_the_deployment_of_the_credential_or_of_the_gateway_ends_it_with_its_reason(house: House) -> None:
    guest = house.add_token("guest", Role.READER)

    async def ends(act: Callable[[], Any], token: str = FIRST_TOKEN) -> str:
        write(house, "begin")
        reader = Reader(house, token=token)
        await reader.until(lambda: reader.lines)
        result = act()
        if asyncio.iscoroutine(result):
            await result
        await asyncio.wait_for(reader.done, 10)
        return reader.text.rpartition("event: end\n")[2]

    async def forget() -> None:
        await house.store.write(lambda tx: tx.delete_token("guest"))
        house.doorkeeper.forget()

    async def gone() -> None:
        await house.store.write(lambda tx: tx.delete(Ref(kind=Kind.ONLINE_DEPLOYMENT, parent="digits", key="blue")))

    assert "management" in house.run(ends(forget, guest))
    assert house.run(ends(gone)) == "data: deployment blue is gone\n\n"
    house.add_deployment()
    house.settle()
    assert house.run(ends(house.streams.close)) == "data: the gateway is stopping\n\n"


def test_what_an_apply_makes_ready_can_be_followed_before_it_is_written(house: House) -> None:
    house.delete(house.ws("/onlineEndpoints/digits"))
    house.settle()

    async def story() -> None:
        house.running.add(NAME)
        write(house, "pip install numpy", source="environment")
        reader = Reader(house)
        await reader.until(lambda: reader.lines == ["[environment] pip install numpy"])
        house.running.clear()
        await asyncio.wait_for(reader.done, 10)
        assert "deployment blue is gone" in reader.text

    house.run(story())


def test_silence_is_interrupted_by_a_sign_of_life(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "HEARTBEAT_S", 0.02)

    async def story() -> None:
        reader = Reader(house, "follow=true&tail=0")
        await reader.until(lambda: reader.text.count(": here\n\n") >= 2)
        reader.hangs_up.set()
        await reader.done

    house.run(story())


def test_so_many_follow_and_no_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FOLLOWERS_MAX", 1)

    async def story() -> None:
        first = Reader(house)
        await first.until(lambda: first.head)
        second = Reader(house)
        await second.done
        assert second.head["status"] == 429
        first.hangs_up.set()
        await first.done

    house.run(story())
    assert house.get(house.ws(PATH)).status_code == 200


def test_what_is_not_there_or_asked_for_wrongly_is_refused(house: House) -> None:
    assert house.get(house.ws("/onlineEndpoints/digits/deployments/green/logs")).status_code == 404
    for query in ("tail=-1", "tail=x", "tail=10001", "follow=perhaps"):
        assert house.get(house.ws(f"{PATH}?{query}")).status_code == 400, query

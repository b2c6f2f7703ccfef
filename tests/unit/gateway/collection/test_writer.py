"""Records on their way to the disk, without the writer's thread: what is held of them meanwhile."""

from __future__ import annotations

import errno
import gzip
import json
import logging
import threading
import weakref
from collections.abc import Callable

import pytest

from gateway.collection import writer as writers
from gateway.collection.records import Record
from gateway.collection.writer import RECORD_BYTES, TELL_EVERY_S, Collection, Writer
from gateway.telemetry.collection import CollectionRecord

ROWS = json.dumps({"rows": [0] * 1000}).encode()
PACKED = gzip.compress(ROWS)


class Disk:
    """Each write, by its length; `before` is called for each."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.before: Callable[[], None] = lambda: None

    def append(self, folder: str, lines: bytes) -> None:
        self.before()
        self.written.append(len(lines))

    def put(self, folder: str, name: str, content: bytes) -> None:
        raise AssertionError("all of it fits on its line")


class Make:
    """A record's payload until it is made, of which it can be seen whether anybody has it still."""

    def __call__(self) -> Record:
        return Record(id="i", type="response", time_s=1.0, content_type="", body=PACKED, is_gzip=True)


def writer_without_thread(disk: Disk, queue_bytes_max: int) -> Writer:
    writer = Writer(disk, queue_bytes_max)
    writer._thread = threading.current_thread()
    return writer


def collection(folder: str = "c") -> Collection:
    return Collection(folder=folder, rolling_rate="day", source="s", counts=CollectionRecord())


def test_compressed_payloads_are_not_all_inflated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "BATCH_BYTES", 4 * len(ROWS))
    disk = Disk()
    writer = writer_without_thread(disk, 1 << 20)
    kinds = [collection("a"), collection("b")]
    payloads = []
    for number in range(50):
        make = Make()
        payloads.append(weakref.ref(make))
        assert writer.put(kinds[number % 2], len(PACKED), 1.0, make)
        del make
    waiting: list[int] = []
    disk.before = lambda: waiting.append(sum(one() is not None for one in payloads))

    writer._write()

    # What was made into lines is held no more; each time, the rest still waits as it was put.
    assert waiting[:4] == [46, 46, 42, 42]
    assert max(disk.written) < 3 * len(ROWS)
    assert [one.counts.snapshot()["stored"] for one in kinds] == [25, 25]
    assert writer._put_bytes == writer._ended_bytes


def test_what_is_written_makes_room_while_the_rest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "BATCH_BYTES", 1)
    disk = Disk()
    writer = writer_without_thread(disk, 3 * (len(PACKED) + RECORD_BYTES))
    kind = collection()
    assert [writer.put(kind, len(PACKED), 1.0, Make()) for _ in range(4)] == [True, True, True, False]
    taken: list[bool] = []
    disk.before = lambda: taken.append(writer.put(kind, len(PACKED), 1.0, Make()))

    writer._write()

    # At the first write nothing has ended; at each that follows, the one before has.
    assert taken == [False, True, True]
    disk.before = lambda: None
    writer._write()
    counts = kind.counts.snapshot()
    assert (counts["stored"], counts["queue_full"]) == (5, 2)


def test_a_disk_that_fails_by_turns_is_told_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    disk, kind = Disk(), collection()
    now_ns = [0]
    writer = writer_without_thread(disk, 1 << 20)
    writer._clock = lambda: now_ns[0]

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write(before: Callable[[], None]) -> None:
        disk.before = before
        assert writer.put(kind, 1, 1.0, Make())
        writer._write()

    def told() -> list[str]:
        said = [one.levelname for one in caplog.records]
        caplog.clear()
        return said

    for _ in range(50):
        write(full)
        write(lambda: None)
    assert told() == ["ERROR", "INFO"]
    now_ns[0] = int(TELL_EVERY_S * 1e9)
    for _ in range(50):
        write(full)
    assert told() == ["ERROR"]
    write(lambda: None)
    assert told() == ["INFO"]
    # What began to fail within the minute is told once that is over.
    write(full)
    assert told() == []
    now_ns[0] *= 2
    write(full)
    assert told() == ["ERROR"]
    counts = kind.counts.snapshot()
    assert (counts["disk_full"], counts["stored"]) == (102, 51)


def test_what_is_on_its_way_takes_room_until_it_is_put_or_given_up() -> None:
    writer, kind = writer_without_thread(Disk(), 4 * RECORD_BYTES), collection()
    assert writer.reserve(3 * RECORD_BYTES)
    assert not writer.reserve(RECORD_BYTES + 1)
    assert [writer.put(kind, 1, 1.0, Make()), writer.put(kind, 0, 1.0, Make())] == [False, True]
    assert not writer.reserve(1)
    writer.release(3 * RECORD_BYTES)
    assert writer.put(kind, 2 * RECORD_BYTES, 1.0, Make())


def test_a_closed_writer_counts_what_comes_too_late() -> None:
    writer = Writer(Disk(), 1 << 20)
    assert [writer.close(), writer.close()] == [True, True]
    kind = collection()
    assert not writer.put(kind, 1, 1.0, Make())
    assert not writer.reserve(1)
    assert kind.counts.snapshot()["queue_full"] == 1

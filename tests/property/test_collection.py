"""Collected records, whatever they hold and however the disk fails: every line is JSON, none is there twice or torn,
and each record that was put is stored or counted under one reason."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.collection.appending import Appender
from gateway.collection.records import Record, line_of
from gateway.collection.writer import Collection, Writer
from gateway.telemetry.collection import STORED, CollectionRecord

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
INDENTS = st.sampled_from([None, 1])
CONTENT_TYPES = st.sampled_from(["application/json", "text/plain", "application/octet-stream", "", "a/b; c=d"])


@given(JSON, INDENTS, CONTENT_TYPES)
def test_json_reads_back_from_its_line_as_it_was_sent(value: object, indent: int | None, content_type: str) -> None:
    body = json.dumps(value, indent=indent).encode()
    record = Record(id="i", type="request", time_s=1.0, content_type=content_type, body=body)
    text, name, beside = line_of(record, "source", "folder")
    assert text.count(b"\n") == 1
    if name:
        # JSON has escapes that are half a character; such text is not looked into.
        assert (beside, content_type) == (body, "application/octet-stream")
        return
    data = json.loads(text)["data"]
    assert data == value or json.loads(data) == value


@given(st.binary(max_size=200), CONTENT_TYPES, st.booleans())
def test_any_bytes_are_on_one_line_or_beside_it(body: bytes, content_type: str, is_gzip: bool) -> None:
    record = Record(id="i", type="request", time_s=1.0, content_type=content_type, body=body, is_gzip=is_gzip)
    text, name, beside = line_of(record, "source", "folder")
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    found = json.loads(text)
    if name:
        assert found["datainblob"] == "true"
        assert beside == body or is_gzip
    elif isinstance(found["data"], str) and not is_gzip:
        assert found["data"].encode() == body or json.loads(body) == found["data"]


class FailingDisk(Appender):
    """Fails some of its writes, some of them in the midst of a line."""

    def __init__(self, root: Path, faults: list[str]) -> None:
        super().__init__(root, "scorer-0", file_bytes_max=2000)
        self._faults = faults

    def append(self, folder: str, lines: bytes) -> None:
        match self._faults.pop() if self._faults else "":
            case "full":
                raise OSError(errno.ENOSPC, "full")
            case "broken":
                raise OSError(errno.EIO, "broken")
            case "torn":
                torn_write(partial(super().append, folder, lines))
            case _:
                super().append(folder, lines)


def torn_write(append: Callable[[], None]) -> None:
    """The kernel takes the first half of what it is given."""
    whole = os.write
    with mock.patch.object(os, "write", lambda descriptor, data: whole(descriptor, data[: len(data) // 2])):
        append()


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=300)), max_size=8), max_size=12),
    faults=st.lists(st.sampled_from(["", "", "full", "broken", "torn"]), max_size=20),
    queue_bytes_max=st.integers(1000, 20_000),
)
def test_every_record_is_stored_once_or_counted_as_dropped(
    batches: list[list[tuple[int, bytes]]], faults: list[str], queue_bytes_max: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        queue = Writer(FailingDisk(root, faults), queue_bytes_max)
        # Without its thread: each batch is written when the property says so.
        queue._thread = threading.current_thread()
        kinds = [
            Collection(folder=f"c{number % 2}", rolling_rate="day", source="s", counts=CollectionRecord())
            for number in range(3)
        ]
        puts = 0
        for batch in batches:
            for kind, body in batch:
                puts += 1
                identity = f"{puts}"
                queue.put(kinds[kind], len(body), 1.0, partial(make, identity, body))
            queue._write()
        assert queue._put_bytes == queue._ended_bytes
        counts = [one.counts.snapshot() for one in kinds]
        assert sum(sum(one.values()) for one in counts) == puts
        text = b"".join(path.read_bytes() for path in sorted(root.rglob("*.jsonl")))
        assert text == b"" or text.endswith(b"\n")
        identities = [json.loads(line)["id"] for line in text.splitlines()]
        assert len(identities) == len(set(identities)) == sum(one[STORED] for one in counts)


def make(identity: str, body: bytes) -> Record:
    if body.startswith(b"\x00"):
        raise RuntimeError("a record that cannot be made")
    return Record(id=identity, type="request", time_s=1.0, content_type="", body=body)

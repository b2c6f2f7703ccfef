"""Frames between scorers and workers: whole or not at all, whatever the other side sends, and no descriptor leaks."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtimes.script.worker_lib.igw_worker import wire

Pair = tuple[socket.socket, socket.socket]
HEADER = struct.Struct("<BBHIQQIIq")


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def memory_file(content: bytes, *, sealed: bool) -> int:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, content)
    if sealed:
        fcntl.fcntl(descriptor, 1033, 2)
    return descriptor


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    kind=st.integers(1, 6),
    numbers=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    deadline_ns=st.integers(-(2**63), 2**63 - 1),
    head=st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers() | st.lists(st.text(max_size=3))),
    size=st.sampled_from([0, 1, wire.INLINE_BYTES - 1, wire.INLINE_BYTES, wire.INLINE_BYTES + 1, 300_000]),
)
def test_what_was_sent_is_received(
    pair: Pair, kind: int, numbers: tuple[int, int, int], deadline_ns: int, head: dict[str, Any], size: int
) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    request_id, worker, scorer = numbers
    wire.send(
        pair[0],
        kind,
        request_id=request_id,
        worker=worker,
        scorer=scorer,
        deadline_ns=deadline_ns,
        head=head,
        body=body,
    )
    frame = wire.receive(pair[1])
    assert frame is not None
    assert (frame.kind, frame.request_id, frame.worker, frame.scorer) == (kind, request_id, worker, scorer)
    assert (frame.deadline_ns, frame.head, bytes(frame.body)) == (deadline_ns, head, body)
    assert str(request_id) in repr(frame)


@pytest.mark.parametrize("make", [bytearray, memoryview])
def test_any_kind_of_bytes_can_be_a_body(pair: Pair, make: Any) -> None:
    for size in (10, 100_000):
        wire.send(pair[0], wire.ANSWER, request_id=1, body=make(b"y" * size))
        frame = wire.receive(pair[1])
        assert frame is not None
        assert bytes(frame.body) == b"y" * size


def test_no_descriptor_is_left(pair: Pair) -> None:
    before = open_descriptors()
    for _ in range(3):
        wire.send(pair[0], wire.REQUEST, request_id=1, body=b"z" * 100_000)
    frames = [wire.receive(pair[1]) for _ in range(3)]
    del frames
    assert open_descriptors() == before


def test_a_full_socket_takes_nothing_and_an_empty_one_gives_nothing(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        wire.receive(pair[1])
    before = open_descriptors()
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            wire.send(pair[0], wire.REQUEST, request_id=sent, body=b"x" * 15_000)
            sent += 1
    with pytest.raises(BlockingIOError):
        wire.send(pair[0], wire.REQUEST, request_id=sent, body=b"x" * 100_000)
    assert open_descriptors() == before
    received = []
    for _ in range(sent):
        frame = wire.receive(pair[1])
        assert frame is not None
        received.append(frame.request_id)
    assert received == list(range(sent))
    with pytest.raises(BlockingIOError):
        wire.receive(pair[1])


def test_none_tells_that_the_other_side_is_gone(pair: Pair) -> None:
    wire.send(pair[1], wire.REQUEST, request_id=1)
    pair[0].close()
    assert wire.receive(pair[1]) is None
    assert wire.receive(pair[1]) is None
    with pytest.raises(BrokenPipeError):
        wire.send(pair[1], wire.REQUEST, request_id=1)


def test_a_head_has_a_bound(pair: Pair) -> None:
    with pytest.raises(ValueError, match="at most 65536"):
        wire.send(pair[0], wire.ANSWER, request_id=1, head={"x": "y" * 70_000})


@pytest.mark.parametrize(
    ("datagram", "says"),
    [
        (b"short", "its header alone"),
        (HEADER.pack(9, 1, 0, 0, 0, 1, 0, 0, 0), "kind 9"),
        (HEADER.pack(1, 2, 0, 0, 0, 1, 0, 0, 0), "version 2"),
        (HEADER.pack(1, 1, 0, 5, 0, 1, 0, 0, 0), "whose header tells"),
        (HEADER.pack(1, 1, 0, 0, 0, 1, 0, 0, 0) + b"more", "whose header tells"),
        (HEADER.pack(1, 1, 0, 3, 0, 1, 0, 0, 0) + b"{{{", "not JSON"),
        (HEADER.pack(1, 1, 0, 2, 0, 1, 0, 0, 0) + b"[]", "not a JSON object"),
        (HEADER.pack(1, 1, 1, 0, 5, 1, 0, 0, 0), "0 descriptors"),
    ],
)
def test_what_is_no_frame_is_refused(pair: Pair, datagram: bytes, says: str) -> None:
    pair[0].send(datagram)
    with pytest.raises(wire.BadFrame, match=says):
        wire.receive(pair[1])


@pytest.mark.parametrize(("size", "sealed"), [(20_000, False), (20_001, True), (0, True)])
def test_a_memory_file_that_could_be_cut_short_is_never_mapped(pair: Pair, size: int, sealed: bool) -> None:
    before = open_descriptors()
    descriptor = memory_file(b"x" * 20_000, sealed=sealed)
    socket.send_fds(pair[0], [HEADER.pack(1, 1, 1, 0, size, 1, 0, 0, 0)], [descriptor])
    os.close(descriptor)
    with pytest.raises(wire.BadFrame, match="20000 bytes"):
        wire.receive(pair[1])
    assert open_descriptors() == before


def test_no_more_is_mapped_than_the_reader_expects(pair: Pair) -> None:
    """A file has any size at no cost; mapping it would make each of its pages."""
    before = open_descriptors()
    size = 1 << 40
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, 1033, 2)
    socket.send_fds(pair[0], [HEADER.pack(3, 1, 1, 0, size, 7, 0, 0, 0)], [descriptor])
    os.close(descriptor)
    asked: list[tuple[int, int]] = []

    def bound(kind: int, request_id: int) -> int:
        asked.append((kind, request_id))
        return wire.RESULT_BYTES_MAX

    with pytest.raises(wire.BadFrame, match=f"a body of {size} bytes, where at most {wire.RESULT_BYTES_MAX} are"):
        wire.receive(pair[1], bound)
    assert set(asked) == {(wire.ANSWER, 7)}
    assert open_descriptors() == before
    wire.send(pair[0], wire.ANSWER, request_id=7, body=b"x" * 100_000)
    frame = wire.receive(pair[1], bound)
    assert frame is not None
    assert len(frame.body) == 100_000


def test_other_descriptors_and_more_than_one_are_refused_and_closed(pair: Pair) -> None:
    before = open_descriptors()
    for count in (1, 2, 5):
        ends = [os.pipe() for _ in range(count)]
        socket.send_fds(pair[0], [HEADER.pack(1, 1, 1, 0, 5, 1, 0, 0, 0)], [end[0] for end in ends])
        for end in ends:
            os.close(end[0])
            os.close(end[1])
        with pytest.raises(wire.BadFrame, match="no memory file"):
            wire.receive(pair[1])
    assert open_descriptors() == before


def test_a_descriptor_that_nobody_told_of_is_closed(pair: Pair) -> None:
    before = open_descriptors()
    ends = os.pipe()
    socket.send_fds(pair[0], [HEADER.pack(1, 1, 0, 0, 0, 1, 0, 0, 0)], [ends[0]])
    os.close(ends[0])
    os.close(ends[1])
    assert wire.receive(pair[1]) is not None
    assert open_descriptors() == before


def test_no_room_for_descriptors_is_a_full_socket() -> None:
    class Refusing:
        def sendmsg(self, *_: Any) -> int:
            raise OSError(109, "Too many references")

    with pytest.raises(BlockingIOError):
        wire.send(Refusing(), wire.ANSWER, request_id=1, body=b"x" * 100_000)  # type: ignore[arg-type]

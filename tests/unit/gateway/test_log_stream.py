"""What followers of a deployment's output are given: numbered lines, bounded, and woken when there are more."""

from __future__ import annotations

import asyncio

from gateway import log_stream
from gateway.log_stream import Lines, LogStream, LogStreams


def test_bytes_become_whole_lines_and_one_that_does_not_end_is_cut() -> None:
    lines = Lines()
    assert lines.feed(b"a\nb") == b"a\n"
    assert lines.feed(b"c") == b""
    assert lines.feed(b"d\n\n") == b"bcd\n\n"
    long = b"x" * (log_stream.LINE_BYTES_MAX + 1)
    assert lines.feed(long) == long + b"\n"
    assert lines.feed(b"y\n") == b"y\n"
    assert lines.feed(b"z") == b""
    assert (lines.rest(), lines.rest()) == (b"z\n", b"")


def test_lines_are_numbered_and_say_who_wrote_them() -> None:
    stream = LogStream()
    stream.add("worker 0", b"a\nb\n")
    stream.add("worker 1", "é\n\n".encode())
    stream.add("worker 1", b"")
    assert (stream.first, stream.end) == (0, 4)
    assert stream.since(0) == ["[worker 0] a", "[worker 0] b", "[worker 1] é", "[worker 1] "]
    assert stream.since(1) == ["[worker 0] b", "[worker 1] é", "[worker 1] "]
    assert stream.since(3) == ["[worker 1] "]
    assert stream.since(4) == stream.since(9) == []


def test_what_is_no_text_and_bars_of_progress_are_shown_as_a_terminal_would() -> None:
    stream = LogStream()
    stream.add("w", b"\xff\r\n10%\r50%\r100%\n")
    assert stream.since(0) == ["[w] �", "[w] 100%"]


def test_the_oldest_lines_go_and_the_numbers_stay() -> None:
    stream = LogStream()
    half = b"x" * (log_stream.BYTES_MAX // 2 - 1) + b"\n"
    for _ in range(5):
        stream.add("w", half)
    assert (stream.first, stream.end) == (3, 5)
    assert len(stream.since(0)) == len(stream.since(3)) == 2
    stream.add("w", b"y\n" * log_stream.BYTES_MAX)
    assert stream.first == 5
    assert len(stream.since(0)) == stream.end - stream.first == log_stream.BYTES_MAX // 2


def test_a_follower_is_woken_by_a_line_and_by_the_end() -> None:
    async def story() -> None:
        streams = LogStreams()
        stream = streams.of("e/d")
        waiting = asyncio.create_task(stream.grown(0, 60))
        await asyncio.sleep(0)
        assert not waiting.done()
        stream.add("w", b"a\n")
        await waiting
        await stream.grown(0, 60)
        ended = asyncio.create_task(stream.grown(1, 60))
        await asyncio.sleep(0)
        streams.close()
        await ended
        assert streams.is_closed
        await stream.grown(1, 0)

    asyncio.run(story())


def test_streams_of_what_is_gone_are_forgotten() -> None:
    streams = LogStreams()
    kept, gone = streams.of("e/a"), streams.of("e/b")
    streams.keep_only({"e/a"})
    assert streams.of("e/a") is kept
    assert streams.of("e/b") is not gone
    # Its lines count from 0 again, so they are told apart from those before.
    assert streams.of("e/b").run not in (gone.run, kept.run)

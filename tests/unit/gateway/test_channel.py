"""The channel between supervisor and scorer, over a real socket pair in one loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from gateway import channel as channel_module
from gateway.channel import (
    FRAME_BYTES_MAX,
    Abort,
    Channel,
    ChannelClosed,
    Collect,
    Collected,
    Commit,
    Done,
    Failed,
    Load,
    Message,
    Prepare,
    RemoteFailed,
    TooLarge,
)
from gateway.snapshot import AuthSpec, DeploymentSpec, EndpointSpec, SnapshotSpec
from gateway.telemetry.totals import ScorerTotals
from runtimes import BatchingSpec, BatchLimits, Learned, RuntimeSpec

SPEC = SnapshotSpec(
    revision=7,
    endpoints={
        "digits": EndpointSpec(
            name="Digits",
            auth=AuthSpec(mode="key", key_digests=(b"\x00\xff", b"two")),
            traffic={"blue": 100},
            deployments={
                "blue": DeploymentSpec(
                    name="Blue",
                    runtime=RuntimeSpec(
                        path="/models/a.onnx",
                        sha256="abc",
                        device_ids=(0, 1),
                        batching=BatchingSpec(limits=BatchLimits(batch_rows_max=8), axes={"state": 1}),
                    ),
                    request_timeout_ns=5_000_000_000,
                    queue_wait_ns=0,
                    pending_max=2,
                    seat=3,
                    body_bytes_max=1024,
                )
            },
        )
    },
)


async def _ignore(message: Message) -> Message:
    return Done()


def over_a_pair(
    story: Callable[[Channel, Channel], Awaitable[None]], handler: Callable[[Message], Awaitable[Message]]
) -> None:
    """Run the story with both ends in one loop; the second end answers with the handler."""

    async def run() -> None:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        left = await Channel.over(ours, _ignore)
        right = await Channel.over(theirs, handler)
        serving = [asyncio.create_task(left.serve()), asyncio.create_task(right.serve())]
        try:
            await story(left, right)
        finally:
            left.close()
            right.close()
            await asyncio.gather(*serving)

    asyncio.run(run())


def test_a_snapshot_arrives_as_it_was_sent() -> None:
    received: list[Message] = []

    async def keep(message: Message) -> Message:
        received.append(message)
        return Done()

    async def story(left: Channel, right: Channel) -> None:
        learned = {"digits/blue": Learned(batched=True, reason="proven", input_axes={"x": 0})}
        assert await left.call(Prepare(spec=SPEC, learned=learned)) == Done()
        assert received == [Prepare(spec=SPEC, learned=learned)]

    over_a_pair(story, keep)


def test_answers_find_their_calls_whatever_their_order() -> None:
    release = asyncio.Event()

    async def slow_commit(message: Message) -> Message:
        if isinstance(message, Commit):
            await release.wait()
            return Done()
        return Collected(totals=ScorerTotals(connections_open=3))

    async def story(left: Channel, right: Channel) -> None:
        first = asyncio.create_task(left.call(Commit(revision=1)))
        assert await left.call(Collect()) == Collected(totals=ScorerTotals(connections_open=3))
        assert not first.done()
        release.set()
        assert await first == Done()

    over_a_pair(story, slow_commit)


def test_a_failure_at_the_other_end_is_told_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(message: Message) -> Message:
        raise ValueError("revision 9 was not prepared here")

    async def story(left: Channel, right: Channel) -> None:
        with pytest.raises(RemoteFailed, match="revision 9 was not prepared here"):
            await left.call(Commit(revision=9))

    over_a_pair(story, fail)
    assert "Commit failed" in caplog.text


def test_an_open_call_ends_when_the_other_process_does() -> None:
    never = asyncio.Event()

    async def hang(message: Message) -> Message:
        await never.wait()
        return Done()

    async def story(left: Channel, right: Channel) -> None:
        call = asyncio.create_task(left.call(Abort(revision=1)))
        await asyncio.sleep(0)
        right.close()
        with pytest.raises(ChannelClosed):
            await call
        with pytest.raises(ChannelClosed):
            await left.call(Collect())
        never.set()

    over_a_pair(story, hang)


def test_a_call_that_is_not_answered_in_time_is_given_up_and_its_late_answer_dropped() -> None:
    release = asyncio.Event()

    async def late(message: Message) -> Message:
        await release.wait()
        return Done()

    async def story(left: Channel, right: Channel) -> None:
        with pytest.raises(TimeoutError):
            await left.call(Collect(), timeout_s=0.01)
        release.set()
        assert await left.call(Collect(), timeout_s=5) == Done()

    over_a_pair(story, late)


def test_what_the_other_end_would_not_read_is_not_sent_and_both_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(channel_module, "FRAME_BYTES_MAX", 1000)

    async def answer(message: Message) -> Message:
        return Failed("y" * 2000) if isinstance(message, Commit) else Done()

    async def story(left: Channel, right: Channel) -> None:
        with pytest.raises(TooLarge, match=r"^Load of \d+ bytes; a message between processes has at most 1000$"):
            await left.call(
                Load(name="x" * 2000, deployment=SPEC.endpoints["digits"].deployments["blue"], learned=None)
            )
        with pytest.raises(
            RemoteFailed, match=r"^Failed of \d+ bytes; a message between processes has at most 1000$"
        ):
            await left.call(Commit(revision=1))
        assert await left.call(Collect()) == Done()

    over_a_pair(story, answer)
    assert "an answer is not sent" in caplog.text


def test_a_frame_over_the_bound_closes_the_channel(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        channel = await Channel.over(ours, _ignore)
        await asyncio.get_running_loop().sock_sendall(theirs, (FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
        await channel.serve()
        with pytest.raises(ChannelClosed):
            await channel.call(Collect())
        theirs.close()

    asyncio.run(story())
    assert "at most" in caplog.text

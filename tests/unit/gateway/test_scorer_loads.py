"""What the supervisor knows of a scorer that loads: can it be asked, may it be silent, and what came of it."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from gateway.channel import (
    Channel,
    ChannelClosed,
    Done,
    Load,
    Message,
    RemoteFailed,
    ScorerDied,
    Unload,
)
from gateway.fleet import Fleet, ScorerProcess
from tests.support.scorer_loads import BLUE, LOADED


class FakeChannel:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.answers: asyncio.Queue[Message | Exception] = asyncio.Queue()

    async def call(self, message: Message, timeout_s: float | None = None) -> Message:
        self.asked.append(message)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


def scorer_over(channel: FakeChannel) -> ScorerProcess:
    scorer = ScorerProcess(0, cast(Fleet, None))
    scorer._channel = cast(Channel, channel)
    return scorer


def test_a_scorer_is_loading_until_it_answers_even_when_nobody_waits_any_more() -> None:
    async def story() -> None:
        channel = FakeChannel()
        scorer = scorer_over(channel)
        loading = asyncio.create_task(scorer.load("e/blue", BLUE, None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen = [scorer.is_loading]
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        seen.append(scorer.is_loading)
        channel.answers.put_nowait(RemoteFailed("not wanted any more"))
        await asyncio.gather(*scorer._loading, return_exceptions=True)
        await asyncio.sleep(0)
        seen.append(scorer.is_loading)
        assert seen == [True, True, False]
        assert channel.asked == [Load(name="e/blue", deployment=BLUE, learned=None)]

    asyncio.run(story())


def test_what_it_learned_is_given_back_and_why_it_failed_is_raised() -> None:
    async def story() -> None:
        channel = FakeChannel()
        scorer = scorer_over(channel)
        channel.answers.put_nowait(LOADED)
        assert await scorer.load("e/blue", BLUE, None) == LOADED
        channel.answers.put_nowait(RemoteFailed("the file is empty"))
        with pytest.raises(RemoteFailed, match="the file is empty"):
            await scorer.load("e/blue", BLUE, None)
        assert not scorer.is_loading

    asyncio.run(story())


def test_a_scorer_that_dies_while_it_loads_gives_nothing_and_holds_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        channel = FakeChannel()
        scorer = scorer_over(channel)
        channel.answers.put_nowait(ChannelClosed("gone"))
        assert await scorer.load("e/blue", BLUE, None) is None
        channel.answers.put_nowait(ChannelClosed("gone"))
        await scorer.unload("e/blue")
        channel.answers.put_nowait(Done())
        await scorer.unload("e/blue")
        assert channel.asked[1:] == [Unload(name="e/blue")] * 2

    asyncio.run(story())
    assert "scorer 0 died while it was asked to load a model" in caplog.text


def test_a_scorer_that_was_not_started_is_not_up() -> None:
    async def story() -> None:
        scorer = ScorerProcess(0, cast(Fleet, None))
        assert not scorer.is_up
        with pytest.raises(ScorerDied, match="is not running"):
            await scorer.abort(1)

    asyncio.run(story())

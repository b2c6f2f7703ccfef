"""Scorers that hang, whatever they were asked: who is ended when, and what becomes of the change that waits."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import pytest

from gateway.channel import (
    Abort,
    Channel,
    ChannelClosed,
    Collect,
    Collected,
    Commit,
    Cover,
    Done,
    Load,
    LoadOverdue,
    Message,
    Opening,
    Prepare,
    Prepared,
    RemoteFailed,
    ScorerDied,
    ScorerSettings,
)
from gateway.controlplane.reconcile import ChangeRefused, change
from gateway.fleet import HUNG_AFTER_S, LOAD_TIMEOUT_S, Fleet, ScorerProcess
from gateway.seats import SeatTable
from gateway.snapshot import SnapshotSpec
from gateway.telemetry.totals import ScorerTotals
from tests.support.scorer_loads import BLUE, LOADED

SPEC = SnapshotSpec(revision=7)


class FakeChannel:
    """Answers what it has an answer for. With nothing, a call that has a time limit is at its end at once, and any
    other waits until the channel is closed."""

    def __init__(self, *hangs_at: type[Message]) -> None:
        self.asked: list[Message] = []
        self.is_closed = False
        self._answers: dict[type[Message], Message] = {
            Prepare: Prepared(revision=7, learned={}, failures={}, loaded={}),
            Commit: Done(),
            Abort: Done(),
            Collect: Collected(totals=ScorerTotals()),
            Cover: Done(),
            Load: LOADED,
        }
        for asked in hangs_at:
            del self._answers[asked]
        self._waiting: list[asyncio.Future[Message]] = []

    async def call(self, message: Message, timeout_s: float | None = None) -> Message:
        self.asked.append(message)
        if self.is_closed:
            raise ChannelClosed("gone")
        if type(message) in self._answers:
            return self._answers[type(message)]
        if timeout_s is not None:
            raise TimeoutError
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        return await answer

    def has(self, asked: type[Message], answer: Message) -> None:
        """From now on it answers so."""
        self._answers[asked] = answer

    def answer(self, message: Message) -> None:
        """To what has waited longest."""
        self._waiting.pop(0).set_result(message)

    def close(self) -> None:
        self.is_closed = True
        for answer in self._waiting:
            answer.set_exception(ChannelClosed("gone"))
        self._waiting = []


def fleet_over(*channels: FakeChannel) -> Fleet:
    """Scorers that serve, and answered just now."""
    sockets = [cast(socket.socket, None)] * len(channels)
    fleet = Fleet(cast(ScorerSettings, None), sockets, cast(SeatTable, None), -1, lambda _: None)
    for scorer, channel in zip(fleet.scorers, channels, strict=True):
        scorer._channel = cast(Channel, channel)
        scorer._is_started = scorer.is_serving = scorer.is_answering = True
        scorer.answered_s = asyncio.get_running_loop().time()
    return fleet


def hang(scorer: ScorerProcess) -> None:
    """It has not answered for so long."""
    scorer.answered_s -= HUNG_AFTER_S + 1


async def settle() -> None:
    """Whatever can go on without another answer does."""
    for _ in range(20):
        await asyncio.sleep(0)


async def changed(fleet: Fleet) -> None:
    """As a publisher changes what is served."""
    async with fleet.changing:
        await change(fleet.scorers, SPEC, {}, {})


@pytest.mark.parametrize("hung", [0, 1])
def test_one_that_hangs_in_prepare_is_ended_and_the_change_with_it(hung: int) -> None:
    async def story() -> None:
        channels = [FakeChannel(), FakeChannel()]
        channels[hung] = FakeChannel(Prepare, Collect)
        fleet = fleet_over(*channels)
        changing = asyncio.create_task(changed(fleet))
        await settle()
        assert Prepare(spec=SPEC, learned={}) in channels[hung].asked

        hang(fleet.scorers[hung])
        await fleet._look()

        await settle()
        assert changing.done()
        with pytest.raises(ScorerDied, match=f"scorer {hung} died while it was asked to load the models"):
            await changing
        assert [one.is_closed for one in channels] == [hung == 0, hung == 1]
        # The other goes on with what it had, and whoever comes next may change something.
        assert Abort(revision=7) in channels[1 - hung].asked
        assert not fleet.changing.locked()

    asyncio.run(story())


def test_a_change_stands_whose_commit_finds_a_scorer_hung(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        well, hung = FakeChannel(), FakeChannel(Commit, Collect)
        fleet = fleet_over(well, hung)
        changing = asyncio.create_task(changed(fleet))
        await settle()
        hang(fleet.scorers[1])
        await fleet._look()
        await settle()
        assert changing.done()
        await changing
        assert (well.is_closed, hung.is_closed) == (False, True)
        assert Commit(revision=7) in well.asked

    asyncio.run(story())
    assert "its replacement will serve revision 7" in caplog.text


def test_an_abort_waits_for_none_that_hangs() -> None:
    async def story() -> None:
        refuses, hung = FakeChannel(Prepare), FakeChannel(Abort, Collect)
        fleet = fleet_over(refuses, hung)
        changing = asyncio.create_task(changed(fleet))
        await settle()
        failed = {"e/blue": "no such file"}
        refuses.answer(Prepared(revision=7, learned={}, failures=failed, loaded={}))
        await settle()
        assert hung.asked[-1] == Abort(revision=7)
        hang(fleet.scorers[1])
        await fleet._look()
        await settle()
        assert changing.done()
        with pytest.raises(ChangeRefused, match="deployment e/blue: no such file"):
            await changing
        assert hung.is_closed

    asyncio.run(story())


def test_one_that_opens_models_for_a_change_may_be_silent_for_as_long_as_one_may_take() -> None:
    async def story() -> None:
        opens = FakeChannel(Prepare, Collect)
        fleet = fleet_over(opens)
        (scorer,) = fleet.scorers
        changing = asyncio.create_task(changed(fleet))
        await settle()
        for name in ("e/blue", "e/green"):
            # For each anew.
            assert await scorer._handle(Opening(name=name)) == Done()
            hang(scorer)
            await fleet._look()
            assert not opens.is_closed
            scorer._load_began_s -= LOAD_TIMEOUT_S - 1
            await fleet._look()
            assert not opens.is_closed
        scorer._load_began_s -= 2
        await fleet._look()
        assert opens.is_closed
        said = r"^deployment e/green: it was not loaded within 600 s \(setting load_timeout_s\)$"
        with pytest.raises(LoadOverdue, match=said) as overdue:
            await changing
        assert overdue.value.name == "e/green"

    asyncio.run(story())


def test_the_answer_for_which_it_was_silent_counts_as_one() -> None:
    async def story() -> None:
        opens = FakeChannel(Prepare, Collect)
        fleet = fleet_over(opens)
        (scorer,) = fleet.scorers
        preparing = asyncio.create_task(scorer.prepare(SPEC, {}))
        await settle()
        await scorer._handle(Opening(name="e/blue"))
        hang(scorer)
        opens.answer(Prepared(revision=7, learned={}, failures={}, loaded={}))
        await preparing
        await fleet._look()
        assert not opens.is_closed
        assert not scorer.is_loading
        # From now on it may be silent for no longer than any other.
        hang(scorer)
        await fleet._look()
        assert opens.is_closed

    asyncio.run(story())


def test_who_gives_up_a_change_does_not_make_a_scorer_that_opens_models_look_hung() -> None:
    async def story() -> None:
        opens = FakeChannel(Prepare, Collect)
        fleet = fleet_over(opens)
        (scorer,) = fleet.scorers
        changing = asyncio.create_task(changed(fleet))
        await settle()
        await scorer._handle(Opening(name="e/blue"))
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        hang(scorer)
        await fleet._look()
        assert (opens.is_closed, scorer.is_loading) == (False, True)

    asyncio.run(story())


def test_one_that_hangs_before_it_serves_is_ended_too() -> None:
    async def story() -> None:
        hung = FakeChannel(Prepare, Collect)
        fleet = fleet_over(hung)
        (scorer,) = fleet.scorers
        scorer.is_serving = scorer.is_answering = False
        preparing = asyncio.create_task(scorer.prepare(SPEC, {}))
        await settle()
        hang(scorer)
        await fleet._look()
        await settle()
        assert preparing.done()
        with pytest.raises(ScorerDied):
            await preparing

    asyncio.run(story())


def test_one_that_tells_its_counters_before_it_serves_accepts_nothing_yet() -> None:
    async def story() -> None:
        fleet = fleet_over(FakeChannel())
        (scorer,) = fleet.scorers
        scorer.is_serving = scorer.is_answering = False
        hang(scorer)
        await fleet.collect()
        assert not scorer.is_answering
        await fleet._look()
        assert scorer.is_up
        scorer.is_serving = True
        await fleet.collect()
        assert scorer.is_answering

    asyncio.run(story())


def test_a_load_that_never_ends_gets_no_more_time_by_those_behind_it() -> None:
    async def story() -> None:
        channel = FakeChannel(Load)
        fleet = fleet_over(channel)
        (scorer,) = fleet.scorers
        endless = asyncio.create_task(scorer.load("e/endless", BLUE, None))
        await settle()
        scorer._load_began_s -= LOAD_TIMEOUT_S + 1
        channel.has(Load, LOADED)
        assert await scorer.load("e/behind", BLUE, None) == LOADED
        await fleet._look()
        assert channel.is_closed
        with pytest.raises(RemoteFailed, match="it was not loaded within 600 s"):
            await endless

    asyncio.run(story())

"""A deployment's log as it grows, by server-sent events: what its workers write, its environment's build, its events.

Why: a change takes as long as a build and an `init()`, and those minutes are when people look. The stream begins with
the last `tail` lines and events, as they came, and, with `follow`, goes on until the deployment is gone, the gateway
stops, or the caller hangs up or is not let in any more.
Shape: an event of several `data` lines is as many lines of the log; its `id` says how far the reader is, and a reader
that comes back with it as `Last-Event-ID` goes on there. `event: lost` says how many lines came and went in between,
`event: end` why there are no more. A comment every HEARTBEAT_S shows that both ends are there.
Bounds: at most FOLLOWERS_MAX readers; one keeps only its place, so a slow one loses lines and holds up nobody.
Units: *_s seconds. Errors: Problem.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from gateway.controlplane.authorize import Role, require
from gateway.controlplane.events import log_text
from gateway.controlplane.rest.context import Call, Reply
from gateway.controlplane.rest.endpoints import ONLINE_DEPLOYMENTS
from gateway.controlplane.rest.query import FOLLOW, TAIL
from gateway.controlplane.store.database import StoreBusy
from gateway.controlplane.store.records import Event, Ref
from gateway.errors import Code, Problem, retry_after
from gateway.log_stream import LogStream

TAIL_DEFAULT, EVENTS_MAX = 100, 1000
FOLLOWERS_MAX = 32
LOOK_EVERY_S, HEARTBEAT_S = 1.0, 15.0
BEGUN_ANEW = "the gateway or the deployment was started anew; what was written before is not here"
_ID = re.compile(r"([0-9a-f]{8})\.(\d{1,15})\.(\d{0,15})")


async def follow(call: Call) -> Reply:
    """GET .../deployments/{d}/logs"""
    ref = ONLINE_DEPLOYMENTS.ref(call)
    # What an apply makes ready is written only when it serves.
    if not call.services.is_running(_name(ref)):
        await ONLINE_DEPLOYMENTS.need(call)
    streams = call.services.streams
    if streams.followers >= FOLLOWERS_MAX:
        raise Problem(
            Code.OVERLOADED,
            f"{FOLLOWERS_MAX} readers follow logs already; try again later",
            headers=(retry_after(5),),
        )
    return Reply(headers={"content-type": "text/event-stream"}, stream=Follower(call, ref))


@dataclass(slots=True)
class _Place:
    """How far a reader is: the number of the next line of which stream, and the id of the last event; None where the
    store has not told it yet."""

    run: str
    line: int
    event: int | None


class Follower:
    """One reader, counted for as long as it is not closed."""

    def __init__(self, call: Call, ref: Ref) -> None:
        self._call = call
        self._ref = ref
        self._streams = call.services.streams
        self._streams.followers += 1

    def close(self) -> None:
        self._streams.followers -= 1

    @property
    def _stream(self) -> LogStream:
        return self._streams.of(_name(self._ref))

    async def chunks(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        tail = self._call.query.number(TAIL)
        tail = TAIL_DEFAULT if tail is None else tail
        place, is_back, notice = self._place(tail)
        events, why = await self._look(place, 0 if is_back else min(tail, EVENTS_MAX))
        is_following = self._call.query.choice(FOLLOW) == "true"
        sent_s = looked_s = loop.time()
        if notice:
            yield _event(notice, kind="lost")
        if not is_back:
            for chunk in self._beginning(place, events, tail):
                yield chunk
            events = []
        while True:
            for chunk in self._news(place, events):
                yield chunk
                sent_s = loop.time()
            if not is_following:
                return
            why = why or ("the gateway is stopping" if self._streams.is_closed else "")
            if why:
                yield _event(why, kind="end")
                return
            if loop.time() - sent_s >= HEARTBEAT_S:
                yield b": here\n\n"
                sent_s = loop.time()
            await self._stream.grown(place.line, LOOK_EVERY_S)
            events = []
            if loop.time() - looked_s >= LOOK_EVERY_S:
                events, why = await self._look(place)
                looked_s = loop.time()

    def _place(self, tail: int) -> tuple[_Place, bool, str]:
        """Where the reader begins, whether it goes on where it was, and what it has to know."""
        stream = self._stream
        found = _ID.fullmatch(self._call.headers.get("last-event-id", ""))
        begins = max(stream.first, stream.end - tail)
        place = _Place(stream.run, begins, int(found[3]) if found and found[3] else None)
        if found is None:
            return place, False, ""
        if found[1] == stream.run:
            place.line = min(int(found[2]), stream.end)
            return place, True, ""
        # Events outlive the gateway, lines do not.
        return place, place.event is not None, BEGUN_ANEW

    def _beginning(self, place: _Place, events: list[Event], tail: int) -> Iterable[bytes]:
        """The last lines and events, as they came."""
        told = [(one.at, line) for one, line in zip(events, _lines(events), strict=False)]
        told += self._stream.timed_since(place.line)
        place.line = self._stream.end
        lines = [line for _, line in sorted(told, key=lambda one: one[0])]
        if lines and tail:
            yield _event(*lines[-tail:], id_=self._id(place))

    def _news(self, place: _Place, events: list[Event]) -> Iterable[bytes]:
        stream = self._stream
        if place.run != stream.run:
            place.run, place.line = stream.run, stream.first
            yield _event(BEGUN_ANEW, id_=self._id(place), kind="lost")
        if place.line < stream.first:
            count, place.line = stream.first - place.line, stream.first
            yield _event(f"{count} lines are not kept any more", id_=self._id(place), kind="lost")
        lines = stream.since(place.line)
        place.line = stream.end
        lines += _lines(events)
        if lines:
            yield _event(*lines, id_=self._id(place))

    def _id(self, place: _Place) -> str:
        return f"{place.run}.{place.line}.{'' if place.event is None else place.event}"

    async def _look(self, place: _Place, last: int = 0) -> tuple[list[Event], str]:
        """The events that the reader has not been told, the `last` ones where it has been told none; and why there is
        nothing more to follow, "" where there is."""
        call, ref = self._call, self._ref
        after = place.event
        limit = max(last, 1) if after is None else EVENTS_MAX
        try:
            actor = await call.services.doorkeeper.identify(
                call.headers.get("authorization"), call.actor.source, call.request_id
            )
            require(actor, Role.READER)
            is_there, events = await call.read(
                lambda tx: (tx.get(ref) is not None, tx.events(ref.parent, ref.key, limit, after or 0))
            )
        except StoreBusy:
            # Later.
            return [], ""
        except Problem as problem:
            return [], problem.message if problem.code.status < 500 else ""
        place.event = events[-1].id if events else after or 0
        is_there = is_there or call.services.is_running(_name(ref))
        news = events if last or after is not None else []
        return news, "" if is_there else f"deployment {ref.key} is gone"


def _lines(events: list[Event]) -> list[str]:
    return [f"[gateway] {line}" for line in log_text(events).splitlines()]


def _name(ref: Ref) -> str:
    return f"{ref.parent}/{ref.key}"


def _event(*lines: str, id_: str = "", kind: str = "") -> bytes:
    head = (f"event: {kind}\n" if kind else "") + (f"id: {id_}\n" if id_ else "")
    body = "".join(f"data: {line}\n" for line in lines)
    return f"{head}{body}\n".encode("utf-8", "replace")

"""Requests that are answered without the application: an Exchange is one, a Lane makes them.

Why: a task, its events and a scope cost more than everything else that is done for a small model's request. An
Exchange stands where the server keeps the cycle of an ASGI request, so that pipelining, deadlines, back-pressure and
shutdown are one code for both (listener.py).
Threads: the loop's only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.listener import GuardedProtocol


class Exchange(Protocol):
    """One request, from its head to its answer.

    The connection calls `begin` when the head is whole, `take` for each piece of the body, `wait` where the rest of
    it is still to come, `end` after the last, and `lost` when the caller is gone before the answer. The answer goes
    to `connection.answer`, once, at any time after the head. The attributes are the connection's and the server's to
    set: `more_body` is True at first, the other flags False.
    """

    body_bytes: int
    keep_alive: bool
    more_body: bool
    disconnected: bool
    response_started: bool
    response_complete: bool
    waiting_for_100_continue: bool

    @property
    def message_event(self) -> MessageEvent:
        """What the server sets to wake the task of a cycle."""
        ...

    def begin(self) -> bool:
        """Decide about the request. False, with nothing done, where only the application can."""
        ...

    def take(self, body: bytes) -> None:
        """A piece of the body."""
        ...

    def wait(self) -> None:
        """The rest of the body is still on its way."""
        ...

    def end(self) -> None:
        """The body is whole."""
        ...

    def lost(self) -> None:
        """The caller is gone; more than once does no harm."""
        ...


class MessageEvent:
    """Set for nobody: an exchange has no task that sleeps, and `lost` says the same."""

    def set(self) -> None:
        """Wakes nobody."""


NOBODY_WAITS = MessageEvent()


class Lane(Protocol):
    """Answers some requests without the application, in the same words."""

    def exchange(
        self, connection: GuardedProtocol, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]
    ) -> Exchange | None:
        """None for a request that is the application's."""
        ...

    def again(self, connection: GuardedProtocol, before: Exchange) -> Exchange | None:
        """A request with the very head of one that is over; None where the head should be read anew."""
        ...

"""Requests that are answered without the application: an Exchange is one, a Lane makes them.

Why: a task, its events and a scope cost more than everything else that is done for a small model's request. An
Exchange stands where the server keeps the cycle of an ASGI request, so that pipelining, deadlines, back-pressure and
shutdown are one code for both (listener.py).
Threads: the loop's only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.listener import GuardedProtocol


class Exchange(ABC):
    """One request, from its head to its answer.

    The connection calls `begin` when the head is whole, `take` for each piece of the body, `wait` where the rest of
    it is still to come, `end` after the last, and `lost` when the caller is gone before the answer. The answer goes
    to `connection.answer`, once, at any time after the head.
    """

    __slots__ = (
        *("body_bytes", "connection", "disconnected", "keep_alive", "more_body"),
        *("response_complete", "response_started", "waiting_for_100_continue"),
    )

    def __init__(self, connection: GuardedProtocol) -> None:
        self.connection = connection
        self.body_bytes = 0
        self.keep_alive = False
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.waiting_for_100_continue = False

    @property
    def message_event(self) -> Exchange:
        """What the server sets to wake the task of a cycle; here nobody sleeps."""
        return self

    def set(self) -> None:  # noqa: B027 - there is nothing to do, not something left to be done
        """Nobody waits: `lost` says the same."""

    @abstractmethod
    def begin(self) -> bool:
        """Decide about the request. False, with nothing done, where only the application can."""

    @abstractmethod
    def take(self, body: bytes) -> None:
        """A piece of the body."""

    @abstractmethod
    def wait(self) -> None:
        """The rest of the body is still on its way."""

    @abstractmethod
    def end(self) -> None:
        """The body is whole."""

    @abstractmethod
    def lost(self) -> None:
        """The caller is gone; more than once does no harm."""


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

"""Gate: how many requests a deployment may have pending. A permit is a seat in flight.

Why: where the YAML sets `max_concurrent_requests_per_instance`, twice that over all instances may be pending, over
all scorers together; what is over it is refused at once.
Errors: Problem OVERLOADED with Retry-After.
"""

from __future__ import annotations

from gateway.errors import Code, Problem, retry_after
from gateway.seats import SeatTable


class Gate:
    """`bound` 0 lets everything in: such a deployment is bounded by its queue and deadlines alone."""

    __slots__ = ("_bound", "_column", "_name", "_row", "_seats")

    def __init__(self, name: str, bound: int, seats: SeatTable, row: int, column: int) -> None:
        self._name = name
        self._bound = bound
        self._seats = seats
        self._row = row
        self._column = column

    def check_room(self) -> None:
        """Refuse early, before a body is read; takes no seat."""
        if self._bound and self._seats.taken(self._row) >= self._bound:
            raise self._full()

    def enter(self) -> None:
        """Take a seat; `leave` gives it back, exactly once."""
        if self._bound and not self._seats.take(self._row, self._column, self._bound):
            raise self._full()

    def leave(self) -> None:
        if self._bound:
            self._seats.give(self._row, self._column)

    def _full(self) -> Problem:
        return Problem(
            Code.OVERLOADED,
            f"deployment {self._name!r} has {self._bound} requests pending, which is its bound "
            "(twice max_concurrent_requests_per_instance times instance_count)",
            headers=(retry_after(1),),
            reason="concurrency",
        )

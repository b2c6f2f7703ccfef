"""The states of a runtime and the only moves between them.

Why: "may it take work" and "may it be closed" are asked from several places, and must have one answer.
A runtime is made of sessions that are loaded and warm, so its life begins ready; loading is the loader's own matter.
Errors: IllegalMove, for it is always our bug.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    READY = "ready"
    DRAINING = "draining"
    CLOSED = "closed"


MOVES: Mapping[State, frozenset[State]] = {
    State.READY: frozenset({State.DRAINING, State.CLOSED}),
    State.DRAINING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}


class IllegalMove(Exception):
    """A move that the table does not have."""


class Lifecycle:
    """Where a runtime is in its life, and why, in one sentence."""

    __slots__ = ("reason", "state")

    def __init__(self) -> None:
        self.state = State.READY
        self.reason = "loaded and warm"

    def move(self, to: State, reason: str) -> None:
        if to not in MOVES[self.state]:
            allowed = ", ".join(sorted(state.value for state in MOVES[self.state])) or "nothing"
            raise IllegalMove(f"a {self.state.value} runtime cannot become {to.value}; it can become {allowed}")
        self.state = to
        self.reason = reason

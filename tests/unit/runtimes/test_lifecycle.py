"""The states of a runtime and the only moves between them."""

from __future__ import annotations

import pytest

from runtimes.lifecycle import MOVES, IllegalMove, Lifecycle, State


def test_a_runtime_is_ready_then_drains_then_closes() -> None:
    lifecycle = Lifecycle()
    states = [lifecycle.state]
    lifecycle.move(State.DRAINING, "a newer one is there")
    assert lifecycle.reason == "a newer one is there"
    states.append(lifecycle.state)
    lifecycle.move(State.CLOSED, "drained")
    states.append(lifecycle.state)
    assert states == [State.READY, State.DRAINING, State.CLOSED]


def test_an_illegal_move_raises_and_says_what_is_allowed() -> None:
    lifecycle = Lifecycle()
    lifecycle.move(State.DRAINING, "")
    with pytest.raises(IllegalMove, match="a draining runtime cannot become ready; it can become closed"):
        lifecycle.move(State.READY, "")
    lifecycle.move(State.CLOSED, "")
    with pytest.raises(IllegalMove, match="it can become nothing"):
        lifecycle.move(State.DRAINING, "")


def test_every_state_has_its_row_in_the_table() -> None:
    assert set(MOVES) == set(State)

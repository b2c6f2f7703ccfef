"""The shared table of pending requests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.admit import Gate
from gateway.errors import Code, Problem
from gateway.seats import SeatTable


@pytest.fixture
def table() -> Iterator[SeatTable]:
    fd = SeatTable.create(2)
    table = SeatTable(fd, 2)
    yield table
    table.close()
    os.close(fd)


def test_the_bound_holds_over_all_scorers(table: SeatTable) -> None:
    assert [table.take(5, column, 3) for column in (0, 1, 0, 1)] == [True, True, True, False]
    table.give(5, 0)
    assert table.take(5, 1, 3)
    assert table.taken(5) == 3
    assert table.taken(4) == table.taken(6) == 0


def test_what_a_dead_scorer_had_pending_is_free_again(table: SeatTable) -> None:
    table.take(0, 0, 2)
    table.take(0, 1, 2)
    table.clear_column(0)
    assert table.taken(0) == 1
    table.clear_row(0)
    assert table.taken(0) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1)), max_size=60))
def test_seats_are_conserved(steps: list[tuple[bool, int]]) -> None:
    fd = SeatTable.create(2)
    table = SeatTable(fd, 2)
    held = [0, 0]
    for takes, column in steps:
        if takes:
            held[column] += table.take(1, column, 4)
        elif held[column]:
            table.give(1, column)
            held[column] -= 1
        assert table.taken(1) == sum(held) <= 4
    table.close()
    os.close(fd)


def test_a_full_gate_refuses_with_the_bound_and_when_to_come_back(table: SeatTable) -> None:
    gate = Gate("blue", 1, table, 0, 0)
    gate.check_room()
    gate.enter()
    for refused in (gate.check_room, gate.enter):
        with pytest.raises(Problem) as caught:
            refused()
        assert caught.value.code is Code.OVERLOADED
        assert "1 requests pending" in caught.value.message
        assert caught.value.headers[0][0] == b"retry-after"
    gate.leave()
    gate.check_room()


def test_a_gate_without_a_bound_lets_everything_in(table: SeatTable) -> None:
    gate = Gate("blue", 0, table, 0, 0)
    for _ in range(1000):
        gate.enter()
    gate.check_room()
    assert table.taken(0) == 0

"""One timer for all deadlines, and none for those who are done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.batching.item import WorkItem
from runtimes.batching.timeouts import Timeouts
from tests.support.virtual import START_NS, VirtualScheduler


class Due:
    def __init__(self) -> None:
        self.scheduler = VirtualScheduler()
        self.items: list[tuple[int, WorkItem]] = []
        self.timeouts = Timeouts(self.scheduler, self.note)

    def note(self, item: WorkItem, now_ns: int) -> None:
        self.items.append((now_ns - START_NS, item))

    def add(self, after_ns: int) -> WorkItem:
        item = WorkItem(inputs={}, rows=1, key=None, outputs=None, deadline_ns=0, reply=lambda _: None)
        self.timeouts.add(START_NS + after_ns, item)
        return item


def test_each_item_is_due_at_its_own_time_whatever_the_order() -> None:
    due = Due()
    late, early, same = due.add(30), due.add(10), due.add(30)
    due.scheduler.run_out()
    assert due.items == [(10, early), (30, late), (30, same)]


def test_there_is_never_more_than_one_timer() -> None:
    due = Due()
    for after_ns in (50, 40, 60, 10, 20):
        due.add(after_ns)
        assert due.scheduler.armed == 1
    due.scheduler.advance(15)
    assert due.scheduler.armed == 1


def test_a_done_item_is_not_due() -> None:
    due = Due()
    gone, stays = due.add(10), due.add(20)
    gone.done = True
    due.scheduler.run_out()
    assert due.items == [(20, stays)]


def test_when_all_are_done_the_timer_is_not_armed_again() -> None:
    due = Due()
    for item in (due.add(10), due.add(20)):
        item.done = True
    due.scheduler.advance(10)
    assert due.scheduler.armed == 0


@pytest.mark.parametrize("after_ns", [[10**12], [10**12, 10**11]], ids=["in order", "out of order"])
def test_done_items_are_let_go_long_before_their_deadline(after_ns: list[int]) -> None:
    due = Due()
    stays = due.add(10**9)
    for _ in range(5_000):
        for one_ns in after_ns:
            due.add(one_ns).done = True
    assert len(due.timeouts) < 600
    due.scheduler.run_out()
    assert [item for _, item in due.items] == [stays]


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=60))
def test_whoever_is_not_done_is_due_once_and_in_time(items: list[tuple[int, bool]]) -> None:
    due = Due()
    live = []
    for after_ns, is_done in items:
        item = due.add(after_ns)
        item.done = is_done
        if not is_done:
            live.append((after_ns, item))
    due.scheduler.run_out()
    assert sorted(due.items, key=lambda entry: entry[0]) == due.items
    assert {id(item): when for when, item in due.items} == {id(item): when for when, item in live}
    assert len(due.items) == len(live)
    assert len(due.timeouts) == 0


def test_a_timer_that_fires_early_counts_as_on_time() -> None:
    due = Due()
    item = due.add(10)
    due.timeouts._fire()
    assert due.items == [(10, item)]


def test_after_close_nobody_is_due() -> None:
    due = Due()
    due.add(10)
    due.timeouts.close()
    due.scheduler.run_out()
    assert due.items == []
    assert due.scheduler.armed == 0

"""Who waits, who is next, and that nobody who left takes up room."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.batching.collate import Collator
from runtimes.batching.item import WorkItem
from runtimes.batching.latency import LatencyTable
from runtimes.batching.policy import weigh
from runtimes.batching.queue import Queue
from runtimes.batching.split import Split
from runtimes.errors import Overloaded
from runtimes.simulated import simulated_signature

ROWS_MAX = 4


def item(rows: int = 1, key: str = "a", deadline_ns: int = 0) -> WorkItem:
    made = WorkItem(
        inputs={"x": np.zeros((rows, 1), dtype=np.float32)},
        rows=rows,
        key=key,
        outputs=None,
        deadline_ns=deadline_ns,
        reply=lambda _: None,
    )
    made.weight = weigh(rows, ROWS_MAX, True)
    if rows > ROWS_MAX:
        made.split = Split(made, ROWS_MAX, Collator(simulated_signature()))
    return made


def queue_of(*items: WorkItem, items_max: int = 100) -> Queue[WorkItem]:
    queue: Queue[WorkItem] = Queue(items_max=items_max, rows_max=ROWS_MAX)
    for one in items:
        queue.put(one)
    return queue


def hang_up(queue: Queue[WorkItem], one: WorkItem) -> None:
    one.done = True
    queue.discard(one)


def test_items_of_a_key_come_out_in_order_and_never_more_than_fit() -> None:
    a, b, c = item(2), item(2), item(1)
    queue = queue_of(a, b, c)
    assert queue.take("a", ROWS_MAX) == [a, b]
    assert queue.take("a", ROWS_MAX) == [c]
    assert queue.waiting == queue.rows == 0


def test_no_item_overtakes_one_that_does_not_fit() -> None:
    a, b, c = item(3), item(2), item(1)
    queue = queue_of(a, b, c)
    assert queue.take("a", ROWS_MAX) == [a]
    assert queue.take("a", 1) == []
    assert queue.oldest() is b


def test_other_keys_stay() -> None:
    a, b, c = item(1, "a"), item(1, "b"), item(1, "a")
    queue = queue_of(a, b, c)
    assert queue.take("a", ROWS_MAX) == [a, c]
    assert queue.oldest() is b
    assert queue.take("nobody's", ROWS_MAX) == []


def test_a_full_queue_refuses_and_a_hung_up_caller_frees_a_seat_at_once() -> None:
    a, b = item(), item()
    queue = queue_of(a, b, items_max=2)
    with pytest.raises(Overloaded, match="2 requests wait for an instance and at most 2 may"):
        queue.put(item())
    hang_up(queue, a)
    queue.put(item())
    assert queue.waiting == 2
    assert queue.oldest() is b


def test_a_large_request_holds_one_seat_until_its_last_part_left() -> None:
    large, small = item(9), item(1)
    queue = queue_of(large, small, items_max=2)
    assert queue.rows == 10
    parts = [queue.take("a", ROWS_MAX), queue.take("a", ROWS_MAX)]
    assert [[part.rows for part in batch] for batch in parts] == [[4], [4]]
    assert (queue.waiting, queue.rows) == (2, 2)
    last = queue.take("a", ROWS_MAX)
    assert [part.rows for part in last] == [1, 1]
    assert last[1] is small
    assert (queue.waiting, queue.rows) == (0, 0)


def test_a_large_request_that_left_half_way_leaves_nothing() -> None:
    large = item(9)
    queue = queue_of(large)
    queue.take("a", ROWS_MAX)
    hang_up(queue, large)
    assert (queue.waiting, queue.rows) == (0, 0)
    assert queue.oldest() is None
    assert not queue.has_full


def test_a_key_is_full_while_its_items_fill_a_batch() -> None:
    a, b, c = item(3, "a"), item(2, "b"), item(2, "b")
    queue = queue_of(a, b)
    was_full = [queue.has_full]
    queue.put(c)
    was_full.append(queue.has_full)
    assert queue.full_key() == "b"
    hang_up(queue, b)
    was_full.append(queue.has_full)
    assert was_full == [False, True, False]


def test_an_item_of_no_rows_fills_a_batch_alone() -> None:
    empty, one = item(0), item(1)
    queue = queue_of(empty, one)
    assert queue.has_full
    assert queue.take("a", ROWS_MAX) == [empty]
    assert queue.take("a", ROWS_MAX) == [one]


def test_those_who_left_are_let_go_even_behind_one_who_waits() -> None:
    first, behind = item(1, "a"), item(1, "b")
    queue = queue_of(first, behind)
    for _ in range(5000):
        gone = item(1, "b")
        queue.put(gone)
        hang_up(queue, gone)
    assert len(queue._line) < 200
    assert len(queue.lanes["b"].items) < 200
    assert queue.items() == [first, behind]
    assert queue.take("b", ROWS_MAX) == [behind]


def test_keys_that_nobody_waits_for_are_forgotten_but_for_a_few() -> None:
    waiting = item(1, "one")
    queue = queue_of(waiting)
    for number in range(1000):
        queue.put(item(1, f"key {number}"))
        queue.take(f"key {number}", ROWS_MAX)
    assert len(queue.lanes) < 100
    assert queue.take("one", ROWS_MAX) == [waiting]


def test_the_work_that_waits_is_what_its_rows_cost_in_full_batches() -> None:
    table = LatencyTable(ROWS_MAX, {ROWS_MAX: 1000.0 * ROWS_MAX})
    queue: Queue[WorkItem] = Queue(items_max=100, rows_max=ROWS_MAX, table=table)
    a, b, c = item(2, "a"), item(1, "a"), item(3, "b")
    for one in (a, b, c):
        queue.put(one)
    work = [queue.work_ns]
    queue.take("a", 2)
    work.append(queue.work_ns)
    hang_up(queue, c)
    work.append(queue.work_ns)
    queue.take("a", ROWS_MAX)
    work.append(queue.work_ns)
    assert work == [6000.0, 4000.0, 1000.0, 0.0]


def test_the_work_follows_what_a_key_now_costs() -> None:
    table = LatencyTable(ROWS_MAX, {ROWS_MAX: 1000.0 * ROWS_MAX})
    queue: Queue[WorkItem] = Queue(items_max=100, rows_max=ROWS_MAX, table=table)
    queue.put(item(2, "a"))
    for _ in range(50):
        table.learn("a", ROWS_MAX, 3000 * ROWS_MAX)
    queue.reprice("a")
    queue.reprice("a key that nobody waits for")
    assert queue.work_ns == pytest.approx(6000, rel=0.01)
    assert queue.cost_and_load("a")[1] == 2
    assert queue.cost_and_load("b")[1] == 0


def test_who_would_be_late_leaves_but_never_the_first_of_a_batch() -> None:
    late, later, prompt = item(1, deadline_ns=10), item(1, deadline_ns=20), item(1, deadline_ns=30)
    queue = queue_of(late, later, prompt)
    assert queue.take("a", ROWS_MAX, 25, True) == [late, prompt]
    assert queue.late == [later]
    assert (queue.waiting, queue.rows, later.taken) == (0, 0, True)


def test_who_has_no_room_in_a_batch_is_not_too_late_for_it() -> None:
    first, second, later = item(2), item(2), item(1, deadline_ns=20)
    queue = queue_of(first, second, later)
    assert queue.take("a", ROWS_MAX, 25, True) == [first, second]
    assert queue.late == []
    assert queue.take("a", ROWS_MAX, 0, True) == [later]


def test_a_batch_that_is_empty_takes_one_item_whatever_its_size() -> None:
    large, small = item(3), item(1)
    queue = queue_of(large, small)
    assert queue.take("a", 2) == []
    assert queue.take("a", 2, 0, True) == [large]
    assert queue.take("a", 2) == [small]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.just("put"), st.integers(0, 9), st.sampled_from("abc"))
        | st.tuples(st.just("leave"), st.integers(0, 30), st.just(""))
        | st.tuples(st.just("take"), st.integers(0, 4), st.sampled_from("abc")),
        max_size=60,
    )
)
def test_it_is_the_same_as_a_plain_list(steps: list[tuple[str, int, str]]) -> None:
    queue = queue_of()
    plain: list[WorkItem] = []
    for verb, number, key in steps:
        if verb == "put":
            plain.append(item(number, key))
            queue.put(plain[-1])
        elif verb == "leave" and plain:
            hang_up(queue, plain.pop(number % len(plain)))
        elif verb == "take":
            taken = [part.part_of.parent if part.part_of else part for part in queue.take(key, number)]
            assert taken == take_plainly(plain, key, number)
            plain = [one for one in plain if not one.taken]
        check_same(queue, plain)


def take_plainly(plain: list[WorkItem], key: str, room: int) -> list[WorkItem]:
    """What fits, told without the queue; the parts of split requests were cut already, so their rows are known."""
    taken = []
    for one in plain:
        if one.key != key:
            continue
        rows = cut_rows(one)
        if not rows:
            assert one.weight > room
            break
        for part in rows:
            assert part <= room
            room -= part
            taken.append(one)
        if not one.taken:
            assert one.weight > room
            break
    return taken


def cut_rows(one: WorkItem) -> list[int]:
    """The weights of what an item just gave: itself, or its newest parts."""
    if one.split is None:
        return [one.weight] if one.taken else []
    newest = [part.weight for part in one.split.running]
    one.split.running.clear()
    return newest


def check_same(queue: Queue[WorkItem], plain: list[WorkItem]) -> None:
    assert queue.items() == plain
    assert queue.waiting == len(plain)
    assert queue.rows == sum(one.split.left if one.split else one.rows for one in plain)
    assert queue.oldest() is (plain[0] if plain else None)
    load = {key: sum(one.split.left if one.split else one.weight for one in plain if one.key == key) for key in "abc"}
    assert queue.has_full == any(rows >= ROWS_MAX for rows in load.values())
    if queue.has_full:
        assert load[str(queue.full_key())] >= ROWS_MAX

"""What the batcher does with each request, one story at a time, on a virtual clock."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from runtimes.batching.item import WorkItem
from runtimes.errors import DeadlineExceeded, ModelFailed, Overloaded, QueueWaitExceeded
from runtimes.simulated import Behaviour
from runtimes.spec import BatchLimits
from runtimes.tensor import Array
from tests.support.virtual import MS, START_NS, World

SLOW = Behaviour(run_ns=10 * MS, poison=-1.0, hang_on=-2.0)
BOTH = pytest.mark.parametrize("kind", ["inline", "virtual"])


def matrix(rows: int, width: int = 2, start: int = 0) -> Array:
    return np.arange(start, start + rows * width, dtype=np.float32).reshape(rows, width)


def after_ns(world: World, item: WorkItem) -> int:
    """When an item was replied to, counted from the start of the world."""
    return next(when for when, replied in world.replies if replied is item) - START_NS


# Forming batches.


@BOTH
def test_requests_of_one_tick_share_a_batch(kind: str) -> None:
    world = World(kind=kind)
    items = [world.send(float(n)) for n in range(5)]
    world.scheduler.run_out()
    assert world.batch_rows == [5]
    assert all(world.is_right(item) for item in items)


def test_a_reply_never_comes_from_inside_submit() -> None:
    world = World(kind="inline")
    item = world.send()
    assert not item.done
    world.scheduler.settle()
    assert world.replied(item) == 1


def test_an_idle_instance_does_not_wait_and_a_busy_one_lets_the_next_batch_grow() -> None:
    world = World(behaviour=SLOW)
    first = world.send(1.0)
    world.scheduler.advance(1 * MS)
    others = []
    for n in range(3):
        others.append(world.send(float(n)))
        world.scheduler.advance(1 * MS)
    world.scheduler.run_out()
    assert world.batch_rows == [1, 3]
    assert after_ns(world, first) == 10 * MS
    assert all(after_ns(world, item) == 20 * MS for item in others)


def test_one_batch_runs_and_one_is_staged_for_each_instance() -> None:
    world = World(behaviour=SLOW, instances=2, limits=BatchLimits(batch_rows_max=1))
    for n in range(7):
        world.send(float(n))
    world.scheduler.advance(0)
    status = world.runtime.status()
    assert (status.busy, status.in_flight_items, status.queued_items) == (2, 4, 3)
    assert world.pool.most_outstanding == 4


def test_a_free_instance_takes_whatever_batch_is_staged() -> None:
    world = World(behaviour=Behaviour(row_ns=10 * MS), instances=2, limits=BatchLimits(batch_rows_max=4))
    long, *shorts = [world.send(matrix(4))] + [world.send(matrix(1, width)) for width in (3, 4, 5)]
    world.scheduler.run_out()
    assert after_ns(world, long) == 40 * MS
    assert [after_ns(world, item) for item in shorts] == [10 * MS, 20 * MS, 30 * MS]


def test_rows_are_counted_and_never_requests() -> None:
    world = World(kind="inline", limits=BatchLimits(batch_rows_max=8))
    for _ in range(3):
        world.send(matrix(3))
    world.scheduler.run_out()
    assert world.batch_rows == [6, 3]


def test_a_staged_batch_gives_room_back_without_letting_anyone_overtake() -> None:
    world = World(behaviour=SLOW, instances=2, limits=BatchLimits(batch_rows_max=2))
    for width in (5, 6):
        world.send(matrix(1, width))
    world.scheduler.advance(1 * MS)
    gone, second, third = world.send(matrix(1)), world.send(matrix(2)), None
    world.scheduler.advance(1 * MS)
    world.runtime.cancel(gone)
    third = world.send(matrix(1))
    world.scheduler.run_out()
    assert after_ns(world, second) <= after_ns(world, third)
    assert [x.shape for _, x in world.ran] == [(1, 5), (1, 6), (2, 2), (1, 2)]


def test_inline_runs_batches_for_some_milliseconds_a_tick() -> None:
    world = World(kind="inline", behaviour=Behaviour(run_ns=3 * MS // 2), limits=BatchLimits(batch_rows_max=1))
    for n in range(5):
        world.send(float(n))
    done = []
    for _ in range(3):
        world.scheduler.tick()
        done.append(len(world.replies))
    assert done == [2, 4, 5]


@BOTH
def test_a_model_that_is_not_batched_runs_each_request_alone_in_order(kind: str) -> None:
    world = World(kind=kind, batched=False, limits=BatchLimits(batch_rows_max=2))
    items = [world.send(matrix(rows)) for rows in (1, 5, 2)]
    world.scheduler.run_out()
    assert world.batch_rows == [1, 5, 2]
    assert [item for _, item in world.replies] == items


@BOTH
def test_a_request_of_no_rows_runs_alone_and_gets_an_empty_answer(kind: str) -> None:
    world = World(kind=kind)
    before, empty, after = world.send(1.0), world.send(matrix(0)), world.send(2.0)
    world.scheduler.run_out()
    assert world.batch_rows == [1, 0, 1]
    assert empty.results is not None
    assert empty.results["y"].shape == (0,)
    assert world.is_right(before)
    assert world.is_right(after)


# Queue delay.


def test_a_queue_delay_counts_from_the_oldest_item() -> None:
    world = World(limits=BatchLimits(queue_delay_ns=5 * MS))
    first = world.send(1.0)
    world.scheduler.advance(3 * MS)
    second = world.send(2.0)
    world.scheduler.run_out()
    assert world.batch_rows == [2]
    assert after_ns(world, first) == after_ns(world, second) == 5 * MS


def test_a_full_batch_goes_at_once_even_if_another_key_is_older() -> None:
    world = World(limits=BatchLimits(queue_delay_ns=5 * MS, batch_rows_max=2))
    older = world.send(matrix(1, 3))
    full = [world.send(1.0), world.send(2.0)]
    world.scheduler.run_out()
    assert [after_ns(world, item) for item in full] == [0, 0]
    assert after_ns(world, older) == 5 * MS


def test_the_delay_is_kept_with_one_timer_and_no_polling() -> None:
    world = World(limits=BatchLimits(queue_delay_ns=5 * MS))
    gone = world.send(1.0)
    world.scheduler.advance(1 * MS)
    world.runtime.cancel(gone)
    for n in range(3):
        world.send(float(n))
        world.scheduler.settle()
        assert world.scheduler.armed == 1
    world.scheduler.run_out()
    assert {when - START_NS for when, _ in world.replies} == {6 * MS}


def test_each_key_is_held_for_its_own_oldest_item() -> None:
    world = World(limits=BatchLimits(queue_delay_ns=5 * MS, batch_rows_max=2), behaviour=SLOW)
    first = world.send(matrix(1, 3))
    world.scheduler.advance(4 * MS)
    second = world.send(matrix(1, 4))
    world.scheduler.run_out()
    assert [x.shape for _, x in world.ran] == [(1, 3), (1, 4)]
    assert (first.started_ns - START_NS, second.started_ns - START_NS) == (5 * MS, 15 * MS)


def test_a_drain_holds_nobody_back() -> None:
    world = World(limits=BatchLimits(queue_delay_ns=1000 * MS))
    item = world.send()
    world.runtime.drain(lambda: None)
    world.scheduler.settle()
    assert world.is_right(item)


# Requests larger than a batch.


@BOTH
def test_a_large_request_is_split_and_put_together_in_order(kind: str) -> None:
    world = World(kind=kind, instances=1 if kind == "inline" else 3, limits=BatchLimits(batch_rows_max=4))
    large = world.send(matrix(11))
    world.scheduler.run_out()
    assert world.batch_rows == [4, 4, 3]
    assert world.replied(large) == 1
    assert world.is_right(large)


def test_the_last_part_of_a_large_request_shares_its_batch() -> None:
    world = World(kind="inline", limits=BatchLimits(batch_rows_max=4))
    large, small = world.send(matrix(6)), world.send(matrix(2, start=50))
    world.scheduler.run_out()
    assert world.batch_rows == [4, 4]
    assert world.is_right(large)
    assert world.is_right(small)


def test_a_part_that_fails_fails_the_whole_request_once_and_the_rest_never_runs() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=2))
    x = matrix(9)
    x[0] = -1.0
    large = world.send(x)
    world.scheduler.run_out()
    assert world.replied(large) == 1
    assert world.fault(large) is ModelFailed
    assert world.batch_rows == [2, 2]
    assert world.runtime.status().queued_rows == 0


def test_a_large_request_that_expires_is_answered_once_and_stops_running() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=2))
    large = world.send(matrix(9), within_ns=15 * MS)
    world.scheduler.run_out()
    assert after_ns(world, large) == 15 * MS
    assert world.fault(large) is DeadlineExceeded
    assert len(world.ran) == 2


def test_a_large_request_that_expires_within_its_first_part_had_started() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=2))
    large = world.send(matrix(9), within_ns=7 * MS)
    world.scheduler.run_out()
    assert "while an instance ran it" in str(large.fault)
    assert large.started_ns > 0


def test_a_large_request_that_is_cancelled_stops_running() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=2))
    large, small = world.send(matrix(9)), world.send(1.0)
    world.scheduler.advance(5 * MS)
    world.runtime.cancel(large)
    world.scheduler.run_out()
    assert world.replied(large) == 0
    assert world.is_right(small)
    assert world.batch_rows == [2, 1]


def test_a_large_request_waits_for_an_instance_only_until_its_first_part_has_one() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=2))
    large = world.send(matrix(9), start_within_ns=5 * MS)
    late = world.send(matrix(9, width=3), start_within_ns=5 * MS)
    world.scheduler.run_out()
    assert world.is_right(large)
    assert world.fault(late) is QueueWaitExceeded


def test_a_large_request_to_a_model_that_loses_rows_fails() -> None:
    world = World(kind="inline", limits=BatchLimits(batch_rows_max=2), behaviour=Behaviour(loses_rows=True))
    large = world.send(matrix(5))
    world.scheduler.run_out()
    assert world.fault(large) is ModelFailed
    assert world.replied(large) == 1


# Deadlines.


@BOTH
def test_an_item_past_its_deadline_is_refused_at_submit(kind: str) -> None:
    world = World(kind=kind)
    item = world.item(within_ns=1)
    world.scheduler.advance(1)
    with pytest.raises(DeadlineExceeded, match="had passed before it was submitted"):
        world.submit(item)
    assert world.runtime.status().refused == 1


def test_a_waiting_item_is_answered_at_its_deadline_and_never_run() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=1))
    for n in range(2):
        world.send(float(n))
    late = world.send(5.0, within_ns=7 * MS)
    world.scheduler.run_out()
    assert after_ns(world, late) == 7 * MS
    assert world.fault(late) is DeadlineExceeded
    assert "while it waited for an instance" in str(late.fault)
    assert late.started_ns == 0
    assert world.observer.expired_items == 1
    assert all(x[0, 0] != 5.0 for _, x in world.ran)


def test_a_running_item_is_answered_at_its_deadline_and_its_result_dropped() -> None:
    world = World(behaviour=SLOW)
    late, good = world.send(1.0, within_ns=7 * MS), world.send(2.0, within_ns=11 * MS)
    world.scheduler.run_out()
    assert after_ns(world, late) == 7 * MS
    assert "while an instance ran it" in str(late.fault)
    assert late.started_ns == START_NS
    assert late.results is None
    assert world.observer.expired_items == 0
    assert world.is_right(good)


def test_an_inline_run_past_the_deadline_gives_no_answer_but_the_fault() -> None:
    world = World(kind="inline", behaviour=SLOW)
    late = world.send(1.0, within_ns=7 * MS)
    world.scheduler.run_out()
    assert world.fault(late) is DeadlineExceeded
    assert world.replied(late) == 1


def test_the_wait_for_an_instance_ends_when_an_instance_takes_the_item() -> None:
    world = World(behaviour=SLOW)
    taken = world.send(1.0, start_within_ns=5 * MS, within_ns=50 * MS)
    also = world.send(1.0, start_within_ns=5 * MS)
    world.scheduler.advance(1 * MS)
    staged = world.send(2.0, start_within_ns=5 * MS, within_ns=50 * MS)
    world.scheduler.run_out()
    assert world.is_right(taken)
    assert world.is_right(also)
    assert world.fault(staged) is QueueWaitExceeded
    assert after_ns(world, staged) == 6 * MS


def test_a_started_item_still_has_its_deadline() -> None:
    world = World(behaviour=SLOW)
    item = world.send(1.0, start_within_ns=3 * MS, within_ns=6 * MS)
    world.scheduler.run_out()
    assert after_ns(world, item) == 6 * MS
    assert world.fault(item) is DeadlineExceeded


def test_an_item_that_was_late_when_its_batch_was_taken_is_answered_with_the_batch() -> None:
    # A loop that is late itself: the instance sees the deadline before the timer does.
    world = World(kind="inline")
    late = world.send(1.0, within_ns=5 * MS, start_within_ns=2 * MS)
    good = world.send(2.0)
    world.scheduler.spend(3 * MS)
    world.runtime._batcher.pump._take_turn()
    assert world.fault(late) is QueueWaitExceeded
    assert world.is_right(good)
    assert world.batch_rows == [1]


def test_half_of_a_failed_batch_is_not_run_after_its_deadline() -> None:
    world = World(behaviour=SLOW)
    poison = world.send(-1.0)
    late = world.send(2.0, within_ns=15 * MS)
    world.scheduler.run_out()
    assert world.fault(poison) is ModelFailed
    assert after_ns(world, late) == 15 * MS
    assert world.batch_rows == [2, 1]


def test_there_is_one_timer_however_many_deadlines() -> None:
    world = World(behaviour=SLOW)
    for n in range(50):
        world.send(float(n), within_ns=(100 - n) * MS)
        assert world.scheduler.armed == 1


# Failing sessions.


@BOTH
def test_a_poisoned_row_fails_alone(kind: str) -> None:
    world = World(kind=kind, behaviour=SLOW)
    items = [world.send(float(n)) for n in range(7)]
    poison = world.send(-1.0)
    world.scheduler.run_out()
    assert world.fault(poison) is ModelFailed
    assert str(poison.fault) == "the simulated model met a poisoned row; it takes any other"
    assert all(world.is_right(item) for item in items)
    assert [failed for _, _, _, failed in world.observer.runs].count(True) == 4


@BOTH
def test_a_model_that_gives_too_few_rows_is_run_one_request_at_a_time(kind: str) -> None:
    world = World(kind=kind, behaviour=Behaviour(loses_rows=True))
    items = [world.send(float(n)) for n in range(4)]
    world.scheduler.run_out()
    assert all(world.is_right(item) for item in items)
    assert world.replies == [(START_NS, item) for item in items]


def test_a_broken_session_gives_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    world = World(kind="inline")
    item = world.item(np.zeros((1, 2), dtype=np.float32))
    item.inputs = {}
    world.submit(item)
    world.scheduler.run_out()
    assert str(item.fault) == "the model raised KeyError while it ran this request: 'x'"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_session_that_would_end_its_thread_fails_its_whole_batch(caplog: pytest.LogCaptureFixture) -> None:
    def leave() -> None:
        raise SystemExit(3)

    world = World(kind="inline", behaviour=SLOW, limits=BatchLimits(batch_rows_max=4))
    world.sessions[0]._hang = leave
    bad, mate, large = world.send(-2.0), world.send(1.0), world.send(np.full((9, 2), -2.0, dtype=np.float32))
    world.scheduler.settle()
    assert [world.fault(item) for item in (bad, mate, large)] == [ModelFailed] * 3
    assert [world.replied(item) for item in (bad, mate, large)] == [1, 1, 1]
    assert "an instance failed outside its session" in caplog.text
    good = world.send(1.0)
    world.scheduler.run_out()
    assert world.is_right(good)


# Callers.


@BOTH
def test_a_reply_that_raises_costs_nobody_else_anything(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World(kind=kind)

    def rude(_: WorkItem) -> None:
        raise GeneratorExit

    world.submit(world.item(1.0, reply=rude))
    good = world.send(2.0)
    world.scheduler.run_out()
    assert world.is_right(good)
    assert "a reply raised" in caplog.text
    later = world.send(3.0)
    world.scheduler.run_out()
    assert world.is_right(later)


def test_a_reply_may_submit_the_next_request() -> None:
    world = World(kind="inline", limits=BatchLimits(batch_rows_max=1))

    def again(item: WorkItem) -> None:
        world.record(item)
        if len(world.replies) < 5:
            world.submit(world.item(1.0, reply=again))

    world.submit(world.item(1.0, reply=again))
    world.scheduler.run_out()
    assert len(world.replies) == 5


def test_a_cancelled_item_is_not_replied_to_and_its_seat_is_free_at_once() -> None:
    world = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=1, queue_items_max=1))
    for n in range(2):
        world.send(float(n))
        world.scheduler.settle()
    waiting = world.send(3.0)
    with pytest.raises(Overloaded, match="the queue is full") as refusal:
        world.send(4.0)
    assert refusal.value.retry_after_s == 1.0
    world.runtime.cancel(waiting)
    instead = world.send(5.0)
    world.scheduler.run_out()
    assert world.replied(waiting) == 0
    assert world.is_right(instead)
    assert world.observer.cancelled_items == 1


def test_cancelling_twice_or_late_or_without_submit_does_nothing() -> None:
    world = World()
    never, gone, done = world.item(), world.send(1.0), world.send(2.0)
    for _ in range(2):
        world.runtime.cancel(never)
        world.runtime.cancel(gone)
    world.scheduler.run_out()
    world.runtime.cancel(done)
    status = world.runtime.status()
    assert (status.cancelled, status.succeeded) == (1, 1)
    assert world.is_right(done)


def test_a_running_item_that_is_cancelled_is_dropped_and_was_not_spared() -> None:
    world = World(behaviour=SLOW)
    gone, stays = world.send(1.0), world.send(2.0)
    world.scheduler.advance(1 * MS)
    world.runtime.cancel(gone)
    world.scheduler.run_out()
    assert gone.results is None
    assert world.replied(gone) == 0
    assert world.is_right(stays)
    assert world.observer.cancelled_items == 0


def test_a_refused_item_may_be_tried_elsewhere() -> None:
    full = World(behaviour=SLOW, limits=BatchLimits(batch_rows_max=1, queue_items_max=1))
    for n in range(3):
        full.send(float(n))
        full.scheduler.settle()
    other = World(limits=BatchLimits(batch_rows_max=64))
    item = other.item(matrix(5))
    with pytest.raises(Overloaded):
        full.submit(item)
    other.submit(item)
    other.scheduler.run_out()
    assert other.is_right(item)
    assert other.batch_rows == [5]


class RaisingObserver:
    def ran(self, rows: int, items: int, run_ns: int, failed: bool) -> None:
        raise RuntimeError("no metrics today")

    def padded(self, positions: int, padding: int) -> None:
        raise RuntimeError("no metrics today")

    def expired(self, items: int) -> None:
        raise RuntimeError("no metrics today")

    def cancelled(self, items: int) -> None:
        raise RuntimeError("no metrics today")


def test_an_observer_that_raises_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = World(observer=RaisingObserver(), behaviour=SLOW)
    good = world.send(1.0)
    world.scheduler.advance(1 * MS)
    late, gone = world.send(2.0, within_ns=1 * MS), world.send(3.0)
    world.runtime.cancel(gone)
    world.scheduler.run_out()
    assert world.is_right(good)
    assert world.fault(late) is DeadlineExceeded
    assert caplog.text.count("an observer raised") == 3


def test_times_of_an_item_are_its_own() -> None:
    world = World(behaviour=SLOW)
    world.send(1.0)
    world.scheduler.advance(4 * MS)
    item = world.send(2.0)
    world.scheduler.run_out()
    times = [when - START_NS for when in (item.enqueued_ns, item.started_ns, item.finished_ns)]
    assert times == [4 * MS, 10 * MS, 20 * MS]


def test_one_slow_caller_does_not_keep_the_whole_batch_in_memory() -> None:
    world = World()
    item, _ = world.send(1.0), world.send(2.0)
    world.scheduler.run_out()
    assert item.batch is not None
    assert item.batch.items == []
    assert item.batch.runs == []


@pytest.mark.parametrize(
    "limits",
    [BatchLimits(batch_rows_max=0), BatchLimits(queue_items_max=0), BatchLimits(queue_delay_ns=-1)],
)
def test_limits_that_hold_nothing_are_refused(limits: BatchLimits) -> None:
    with pytest.raises(ValueError, match="a batch and a queue hold at least 1"):
        World(limits=limits)


def test_a_split_request_that_is_too_late_ends_once() -> None:
    """Its second part is dropped as late in the turn in which an inline run finds it past its deadline."""
    world = World(kind="inline", behaviour=Behaviour(run_ns=2 * MS), limits=BatchLimits(batch_rows_max=1))
    world.runtime.cancel(world.send(matrix(0, 1)))
    items = [world.send(matrix(2), within_ns=3 * MS), world.send(matrix(2), within_ns=1 * MS)]
    world.scheduler.run_out()
    assert [world.replied(item) for item in items] == [1, 1]
    status = world.runtime.status()
    assert (status.accepted, status.expired, status.cancelled, status.in_flight_items) == (3, 2, 1, 0)

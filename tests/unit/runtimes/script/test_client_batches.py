"""A scorer's batches for run_batch(): who shares one, when it goes, and what becomes of each request in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtimes.errors import DeadlineExceeded, ModelFailed, QueueWaitExceeded, TooLate, Unavailable
from runtimes.script.client import LOST_AFTER_NS, RECYCLE_AFTER_NS
from runtimes.script.line import BATCH_BYTES_MAX
from runtimes.script.spec import ScriptSpec
from runtimes.script.worker_lib.igw_worker import wire
from runtimes.script.worker_lib.igw_worker.parcel import unpack
from runtimes.spec import BatchLimits
from tests.support.script_room import Room
from tests.support.virtual import MS

ROWS_MAX = 4
LIMITS = BatchLimits(batch_rows_max=ROWS_MAX)


def made(workers: int = 1, limits: BatchLimits | None = LIMITS, queue_items_max: int = 1000) -> Room:
    return Room(workers=workers, batching=limits, queue_items_max=queue_items_max)


@pytest.fixture
def room() -> Iterator[Room]:
    one = made()
    yield one
    one.scheduler.settle()
    one.check_account()
    one.close()
    one.check_account()


def test_requests_of_one_turn_travel_together_each_with_its_own(room: Room) -> None:
    requests = [room.send(within_ms=50 + number, body=b"%d" % number) for number in range(3)]
    room.scheduler.settle()
    _, parts = room.take_parcel()
    assert [bytes(part.body) for part in parts] == [b"0", b"1", b"2"]
    assert [part.deadline_ns for part in parts] == [one.deadline_ns for one in requests]
    assert [part.request_id for part in parts] == [one.serial for one in requests]
    assert parts[0].head["headers"] == [["a", "b"]]
    for part in reversed(parts):
        room.answer(part.request_id)
    assert room.replied == requests[::-1]


def test_one_request_for_an_idle_worker_goes_at_once(room: Room) -> None:
    room.send_batch(1)
    assert len(room.finish()) == 1


def test_a_batch_grows_while_the_worker_is_busy_and_goes_when_it_is_free(room: Room) -> None:
    room.send_batch(1)
    parcel, parts = room.take_parcel()
    for _ in range(3):
        room.send_batch(1)
    assert room.receive() is None
    assert room.client.status().queued_items == 3
    room.ran(parcel, 1)
    room.answer(parts[0].request_id)
    assert len(room.finish()) == 3


def test_a_full_batch_is_sent_ahead_and_the_next_one_is_not(room: Room) -> None:
    room.send_batch(1)
    room.take_parcel()
    room.send_batch(ROWS_MAX)
    room.send_batch(ROWS_MAX)
    frame = room.receive()
    assert frame is not None
    assert len(unpack(frame.body)) == ROWS_MAX
    assert room.receive() is None


def test_with_several_workers_the_next_batch_waits_until_the_last_one_is_taken() -> None:
    room = made(workers=3)
    room.send_batch(1)
    room.send_batch(2)
    assert room.client.status().queued_items == 2
    room.take_parcel(0)
    assert len(room.take_parcel(1)[1]) == 2
    room.check_account()
    room.close()


def test_what_is_no_post_travels_alone_and_in_its_turn(room: Room) -> None:
    get = room.send(method="GET")
    room.send_batch(2)
    frame = room.receive()
    assert frame is not None
    assert (frame.kind, frame.head["method"]) == (wire.REQUEST, "GET")
    room.say(wire.TAKEN, frame.request_id)
    room.answer(frame.request_id)
    assert room.replied == [get]
    assert len(room.finish()) == 2
    assert room.observer.runs == [(1, 1, 2 * MS, False), (2, 2, 2 * MS, False)]


def test_a_run_is_counted_once_with_its_rows(room: Room) -> None:
    room.send_batch(3)
    room.finish(ms=7.0)
    assert room.observer.runs == [(3, 3, 7 * MS, False)]
    status = room.client.status()
    assert (status.batched, status.rows_cap, status.batches, status.succeeded) == (True, ROWS_MAX, 1, 3)


@pytest.mark.parametrize(
    "head", [{}, {"rows": 9, "ms": 1.0}, {"rows": 1, "ms": -1}, {"rows": "1", "ms": 1.0}, {"rows": 1, "ms": "x"}]
)
def test_a_run_that_no_worker_of_ours_would_tell_of_is_not_counted(room: Room, head: dict[str, object]) -> None:
    room.send_batch(2)
    parcel, parts = room.take_parcel()
    room.say(wire.RAN, parcel, 0, head)
    room.say(wire.RAN, 12345, 0, {"rows": 1, "ms": 1.0})
    assert room.observer.runs == []
    for part in parts:
        room.answer(part.request_id)


def test_who_was_cancelled_or_expired_before_the_hand_over_is_not_in_the_batch(room: Room) -> None:
    room.send_batch(1)
    parcel, parts = room.take_parcel()
    gone, late = room.send(), room.send(within_ms=5)
    kept = room.send_batch(1)
    room.client.cancel(gone)
    room.scheduler.advance(5 * MS)
    assert room.replied == [late]
    assert isinstance(late.fault, DeadlineExceeded)
    room.ran(parcel, 1)
    room.answer(parts[0].request_id)
    assert [part.request_id for part in room.finish()] == [one.serial for one in kept]
    assert room.observer.cancelled_items == 1


def test_a_deadline_and_a_cancellation_in_a_running_batch_leave_the_others_alone(room: Room) -> None:
    short, gone, other = room.send(within_ms=5), room.send(within_ms=90), room.send(within_ms=90)
    room.scheduler.settle()
    _, parts = room.take_parcel()
    room.client.cancel(gone)
    room.scheduler.advance(5 * MS)
    assert isinstance(short.fault, DeadlineExceeded)
    assert "while the scoring script ran" in str(short.fault)
    for part in parts:
        room.answer(part.request_id)
    assert room.replied == [short, other]
    assert other.fault is None


def test_what_a_worker_found_too_late_ends_alone(room: Room) -> None:
    late = room.send(within_ms=50, start_within_ms=5)
    other = room.send(within_ms=50)
    room.scheduler.settle()
    frame = room.receive()
    assert frame is not None
    room.say(wire.EXPIRED, late.serial)
    assert isinstance(late.fault, QueueWaitExceeded)
    room.say(wire.TAKEN, frame.request_id, 4)
    room.answer(other.serial, 4)
    assert other.fault is None
    assert room.client.status().busy == 0


def test_a_death_costs_what_the_worker_had_not_answered_and_nothing_else() -> None:
    room = made(workers=2)
    first = room.send_batch(3)
    room.take_parcel(worker=0)
    second = room.send_batch(2)
    room.take_parcel(worker=1)
    room.answer(first[0].serial, 0)
    room.client.worker_gone(0)
    assert [type(one.fault) for one in first] == [type(None), ModelFailed, ModelFailed]
    assert room.observer.runs == [(2, 2, 0, True)]
    for request in second:
        room.answer(request.serial, 1)
    assert all(one.fault is None for one in second)
    room.check_account()
    room.close()


def test_a_batch_that_a_worker_took_to_its_grave_fails_soon_after(room: Room) -> None:
    requests = room.send_batch(2)
    assert room.receive() is not None
    room.client.worker_gone(0)
    assert room.replied == []
    room.scheduler.advance(LOST_AFTER_NS)
    assert [type(one.fault) for one in requests] == [ModelFailed] * 2


@pytest.mark.parametrize("workers", [1, 3])
def test_a_batch_that_was_lost_in_silence_holds_back_no_other(workers: int) -> None:
    room = made(workers=workers)
    lost = room.send_batch(2)
    assert room.receive() is not None
    room.client.worker_gone(0)
    later = room.send_batch(1, within_ms=20)
    assert len(room.finish(worker=1)) == 1
    assert later[0].fault is None
    assert room.replied == later
    room.scheduler.advance(LOST_AFTER_NS)
    assert [type(one.fault) for one in lost] == [ModelFailed] * 2
    assert (len(room.client._out), room.client._out.untaken) == (0, 0)
    room.check_account()
    room.close()


def test_a_lost_batch_holds_back_no_other_though_other_scorers_fill_the_kernel() -> None:
    room = made(workers=3)
    room.send_batch(1)
    assert room.receive() is not None
    wire.send(room.client._work, wire.REQUEST, request_id=1, scorer=9, head={})
    room.client.worker_gone(0)
    later = room.send_batch(1)
    assert room.receive() is not None
    assert len(room.finish(worker=1)) == 1
    assert later[0].fault is None
    room.check_account()
    room.close()


def test_a_batch_that_a_worker_could_not_read_holds_back_no_other_once_a_deadline_has_passed() -> None:
    room = made(workers=3)
    short, long = room.send(within_ms=10), room.send(within_ms=60_000)
    room.scheduler.settle()
    assert room.receive() is not None
    waiting = room.send_batch(1)
    assert not waiting[0].is_sent
    room.scheduler.advance(10 * MS)
    assert room.replied == [short]
    assert len(room.finish()) == 1
    room.scheduler.advance(LOST_AFTER_NS)
    assert isinstance(long.fault, ModelFailed)
    assert (len(room.client._out), room.client._out.untaken) == (0, 0)
    room.check_account()
    room.close()


def test_a_batch_that_was_doubted_and_is_taken_counts_again() -> None:
    room = made(workers=3)
    requests = room.send_batch(2)
    room.client.worker_gone(0)
    assert (len(room.client._out), room.client._out.untaken) == (0, 0)
    parcel, parts = room.take_parcel(1)
    assert (len(room.client._out), room.client._out.untaken) == (1, 0)
    for part in parts:
        room.answer(part.request_id, 1)
    assert [one.fault for one in requests] == [None, None]
    assert (len(room.client._out), room.client._out.doubted) == (0, 0)
    assert parcel not in room.client._out.parcels
    room.check_account()
    room.close()


def test_a_batch_that_is_still_in_the_kernel_when_a_worker_dies_is_not_lost(room: Room) -> None:
    requests = room.send_batch(2)
    room.client.worker_gone(0)
    room.scheduler.advance(3 * LOST_AFTER_NS)
    room.finish(worker=1)
    assert [one.fault for one in requests] == [None, None]
    room.scheduler.run_out()


def test_a_worker_that_runs_on_is_reported_with_the_number_of_its_batch(room: Room) -> None:
    room.send(within_ms=10)
    room.send(within_ms=20)
    room.scheduler.settle()
    parcel, parts = room.take_parcel(worker=7)
    room.scheduler.advance(20 * MS + RECYCLE_AFTER_NS)
    assert room.recycled == [("p", 7, parcel)] * 2
    for part in parts:
        room.answer(part.request_id, 7)
    room.send(within_ms=10)
    room.scheduler.settle()
    room.finish(7)
    room.scheduler.advance(20 * MS + RECYCLE_AFTER_NS)
    assert len(room.recycled) == 2


def test_a_batch_whose_answer_was_lost_holds_back_the_next_until_its_last_deadline_only() -> None:
    room = made()
    lost, other = room.send(within_ms=10), room.send(within_ms=300)
    room.scheduler.settle()
    _, parts = room.take_parcel()
    room.answer(parts[1].request_id)
    room.scheduler.advance(10 * MS)
    assert room.replied == [other, lost]
    waiting = room.send_batch(1, within_ms=5000)
    room.scheduler.advance(300 * MS + RECYCLE_AFTER_NS)
    assert waiting[0].is_sent
    assert room.client.status().busy == 0
    room.finish()
    assert waiting[0].fault is None
    # What the worker took since shows that the other is lost.
    assert (room.client._out.parcels, len(room.client._out), room.client._out.untaken) == ({}, 0, 0)
    room.check_account()
    room.close()


def test_a_close_forgets_what_was_reported() -> None:
    room = made()
    for within_ms in (10, 300):
        room.send(within_ms=within_ms)
    room.scheduler.settle()
    room.take_parcel()
    room.scheduler.advance(10 * MS + RECYCLE_AFTER_NS)
    assert len(room.recycled) == 1
    room.client.close()
    room.scheduler.run_out()
    assert len(room.client._out) == 0
    room.close()


def test_a_queue_delay_holds_a_batch_until_it_is_over_or_full() -> None:
    room = made(limits=BatchLimits(batch_rows_max=3, queue_delay_ns=10 * MS))
    room.send_batch(1)
    room.scheduler.advance(9 * MS)
    assert room.receive() is None
    room.scheduler.advance(1 * MS)
    assert len(room.finish()) == 1
    room.send_batch(1)
    room.send_batch(2)
    assert len(room.finish()) == 3
    room.send_batch(1)
    room.client.drain(lambda: None)
    assert len(room.finish()) == 1
    room.check_account()
    room.close()


def test_with_a_goal_batches_stay_as_small_as_they_must() -> None:
    room = made(limits=BatchLimits(batch_rows_max=64, slo_ns=20 * MS))
    for _ in range(8):
        room.send_batch(64)
        while room.client.status().queued_items or room.client.status().in_flight_items:
            room.finish(ms=40.0)
    assert room.client.status().rows_cap < 8
    room.check_account()
    room.close()


def test_who_would_be_late_behind_the_batch_is_dropped_early_for_those_behind() -> None:
    room = made(limits=BatchLimits(batch_rows_max=64))
    for _ in range(4):
        room.send_batch(2)
        room.finish(ms=100.0)
    room.send_batch(1)
    room.take_parcel()
    hopeless = room.send(within_ms=50)
    others = room.send_batch(2, within_ms=5000)
    room.answer(room.client._out.requests.copy().popitem()[0])
    assert isinstance(hopeless.fault, TooLate)
    assert [part.request_id for part in room.finish()] == [one.serial for one in others]
    room.check_account()
    room.close()


def taught(workers: int, **ms_by_rows: float) -> Room:
    """A room that knows what runs of so many rows take: `of_1=50.0`."""
    room = made(workers=workers, limits=BatchLimits(batch_rows_max=8))
    for _ in range(12):
        for name, ms in ms_by_rows.items():
            room.send_batch(int(name.removeprefix("of_")))
            room.finish(ms=ms)
    return room


def test_who_would_be_late_in_a_batch_is_another_workers_that_is_idle() -> None:
    room = taught(2, of_1=50.0, of_2=100.0)
    first, short = room.send(within_ms=10_000), room.send(within_ms=70)
    room.scheduler.settle()
    _, parts = room.take_parcel(0)
    assert [part.request_id for part in parts] == [first.serial]
    _, parts = room.take_parcel(1)
    assert [part.request_id for part in parts] == [short.serial]
    assert (first.fault, short.fault) == (None, None)
    room.client.close()
    room.close()


def test_nobody_is_dropped_for_the_pace_of_the_others_while_another_worker_is_idle() -> None:
    room = taught(2, of_1=50.0, of_8=60.0)
    short = room.send(within_ms=58)
    others = [room.send(within_ms=10_000) for _ in range(7)]
    room.scheduler.settle()
    assert [part.request_id for part in room.take_parcel(0)[1]] == [short.serial, others[0].serial]
    assert [part.request_id for part in room.take_parcel(1)[1]] == [one.serial for one in others[1:]]
    assert short.fault is None
    room.client.close()
    room.close()


def test_who_is_dropped_makes_no_room_for_more_bytes_though_another_worker_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runtimes.script.line.BATCH_BYTES_MAX", 100)
    room = taught(2, of_1=50.0, of_2=100.0)
    hopeless = room.send(within_ms=10, body=b"x")
    large = [room.send(within_ms=10_000, body=b"x" * 60) for _ in range(2)]
    room.scheduler.settle()
    assert isinstance(hopeless.fault, TooLate)
    for worker, one in enumerate(large):
        assert [part.request_id for part in room.take_parcel(worker)[1]] == [one.serial]
    room.client.close()
    room.close()


def test_who_is_late_is_judged_by_the_run_that_large_bodies_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtimes.script.line.BATCH_BYTES_MAX", 100)
    room = taught(1, of_1=10.0, of_2=20.0, of_4=100.0)
    room.send_batch(1)
    parcel, parts = room.take_parcel()
    small, short = room.send(within_ms=10_000, body=b"x"), room.send(within_ms=60, body=b"x")
    large = [room.send(within_ms=10_000, body=b"x" * 100) for _ in range(2)]
    room.ran(parcel, 1, ms=10.0)
    room.answer(parts[0].request_id)
    room.scheduler.settle()
    assert [part.request_id for part in room.finish()] == [small.serial, short.serial]
    assert short.fault is None
    for one in large:
        assert [part.request_id for part in room.finish()] == [one.serial]
    room.check_account()
    room.close()


def test_a_failed_batch_teaches_nothing_of_how_long_batches_take() -> None:
    room = made(limits=BatchLimits(batch_rows_max=8))
    room.send_batch(8)
    parcel, parts = room.take_parcel()
    room.ran(parcel, 8, ms=1.0, failed=True)
    assert room.client._line._table.predict("shared", 8) == (0.0, 0.0)
    for part in parts:
        room.ran(parcel, 1, ms=30.0)
        room.answer(part.request_id)
    assert room.client._line._table.predict("shared", 1)[0] == pytest.approx(30 * MS)
    assert [run[0] for run in room.observer.runs] == [8] + [1] * 8
    room.check_account()
    room.close()


def test_large_bodies_make_a_batch_smaller_and_one_goes_whatever_its_size(room: Room) -> None:
    large = b"x" * (BATCH_BYTES_MAX // 2 + 1)
    for _ in range(3):
        room.send(body=large)
    room.scheduler.settle()
    assert len(room.finish()) == 1
    assert len(room.finish()) == 1
    room.send(body=b"x" * (BATCH_BYTES_MAX + 1))
    room.scheduler.settle()
    assert len(room.finish()) == 1
    assert len(room.finish()) == 1


def test_what_is_dropped_as_too_late_makes_no_room_for_more_bytes_than_may_travel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runtimes.script.line.BATCH_BYTES_MAX", 100)
    room = made(limits=BatchLimits(batch_rows_max=8))
    for _ in range(4):
        room.send_batch(8)
        room.finish(ms=100.0)
    room.send_batch(1)
    parcel, parts = room.take_parcel()
    first = room.send(body=b"x")
    late = [room.send(within_ms=50, body=b"x") for _ in range(3)]
    large = [room.send(body=b"x" * 60) for _ in range(4)]
    room.scheduler.settle()
    room.ran(parcel, 1, ms=100.0)
    room.answer(parts[0].request_id)
    assert [type(one.fault) for one in late] == [TooLate] * 3
    assert [len(part.body) for part in room.finish()] == [len(first.body), 60]
    assert [len(part.body) for part in room.finish()] == [60]
    assert [one.fault for one in large[:2]] == [None, None]
    room.check_account()
    room.close()


def test_when_the_kernel_is_full_a_batch_is_held_and_shrinks_by_those_who_leave() -> None:
    room = made(workers=10_000, limits=BatchLimits(batch_rows_max=2), queue_items_max=100_000)
    while not room.client._is_blocked:
        room.send_batch(2)
    first, second = room.client._held
    room.client.cancel(first)
    room.check_account()
    while room.receive() is not None:
        pass
    room.client.write()
    _, parts = room.take_parcel()
    assert [part.request_id for part in parts] == [second.serial]
    room.check_account()
    room.close()


def test_a_batch_for_a_pool_that_is_gone_is_unavailable(room: Room) -> None:
    room.work.close()
    requests = room.send_batch(2)
    assert [type(one.fault) for one in requests] == [Unavailable] * 2


def test_a_close_answers_who_waits_who_is_held_and_who_runs(room: Room) -> None:
    requests = room.send_batch(2)
    room.take_parcel()
    requests += room.send_batch(3)
    room.client.close()
    assert [type(one.fault) for one in requests] == [Unavailable] * 5
    room.scheduler.run_out()


def test_other_limits_hold_for_those_that_wait_already(room: Room) -> None:
    room.send_batch(1)
    parcel, parts = room.take_parcel()
    room.send_batch(3)
    room.client.adapt(ScriptSpec(pool="p", workers=1, batching=BatchLimits(batch_rows_max=2)))
    assert len(room.take_parcel()[1]) == 2
    room.client.adapt(ScriptSpec(pool="p", workers=3))
    frame = room.receive()
    assert frame is not None
    assert frame.kind == wire.REQUEST
    assert room.client.status().batched is False
    room.answer(parts[0].request_id)
    assert parcel not in room.client._out.parcels


def test_a_shorter_queue_delay_holds_for_those_that_wait_already() -> None:
    room = made(limits=BatchLimits(batch_rows_max=3, queue_delay_ns=1000 * MS))
    room.send_batch(1)
    shorter = BatchLimits(batch_rows_max=3, queue_delay_ns=10 * MS)
    room.client.adapt(ScriptSpec(pool="p", workers=1, batching=shorter))
    room.scheduler.advance(9 * MS)
    assert room.receive() is None
    room.scheduler.advance(1 * MS)
    assert len(room.finish()) == 1
    assert room.scheduler.armed == 0
    room.check_account()
    room.close()


def test_the_forecast_counts_batches_and_not_requests() -> None:
    room = made(limits=BatchLimits(batch_rows_max=8))
    room.send_batch(8)
    room.finish(ms=80.0)
    room.send_batch(8)
    room.take_parcel()
    room.send_batch(20)
    now_ns = room.scheduler.now_ns()
    assert room.client.status().waiting_runs == 2
    room.client.check_room(now_ns + 281 * MS, now_ns)
    with pytest.raises(TooLate, match="about 280 ms"):
        room.client.check_room(now_ns + 279 * MS, now_ns)
    room.check_account()
    room.close()

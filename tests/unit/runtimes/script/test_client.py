"""A scorer's view of a pool: order, bounds, deadlines, cancellation, and workers that die at every moment."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from runtimes.errors import (
    DeadlineExceeded,
    ModelFailed,
    Overloaded,
    QueueWaitExceeded,
    TooLate,
    Unavailable,
)
from runtimes.script import client as client_module
from runtimes.script.client import LOST_AFTER_NS, RECYCLE_AFTER_NS, ScriptClient
from runtimes.script.spec import ScriptSpec
from runtimes.script.worker_lib.igw_worker import wire
from tests.support.script_room import Room
from tests.support.virtual import MS, RecordingObserver, VirtualScheduler


def is_blocked(room: Room) -> bool:
    return room.client._is_blocked


async def turns(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


@pytest.fixture
def room() -> Iterator[Room]:
    made = Room()
    yield made
    made.check_account()
    made.close()
    made.check_account()


def test_a_request_travels_whole_and_its_answer_comes_back(room: Room) -> None:
    request = room.send(within_ms=50)
    frame = room.receive()
    assert frame is not None
    assert (frame.kind, frame.scorer, frame.deadline_ns, bytes(frame.body)) == (
        wire.REQUEST,
        3,
        request.deadline_ns,
        b"{}",
    )
    assert frame.head == {
        "method": "POST",
        "target": "/score",
        "headers": [["a", "b"]],
        "request_id": "",
        "client_request_id": "",
        "deadline_ns": request.deadline_ns,
    }
    room.say(wire.TAKEN, frame.request_id)
    room.answer(frame.request_id)
    assert room.replied == [request]
    assert request.answer is not None
    assert (request.answer.status, request.answer.headers, bytes(request.answer.body)) == (200, [("x", "y")], b"[1]")
    assert (request.answer.failed, request.answer.run_ms, request.fault) == (False, 2.0, None)
    assert room.observer.runs == [(1, 1, 2_000_000, False)]
    assert room.client.status().succeeded == 1


def test_only_one_more_than_there_are_workers_is_handed_over_and_the_rest_follows_in_order(room: Room) -> None:
    requests = [room.send() for _ in range(5)]
    assert [one.is_sent for one in requests] == [True, True, False, False, False]
    assert room.client.status().queued_items == 3
    for request in requests:
        room.answer(room.take())
        assert room.replied[-1] is request
    assert room.receive() is None


def test_a_pool_that_grows_takes_more_at_once(room: Room) -> None:
    requests = [room.send() for _ in range(4)]
    room.client.resize(3)
    assert all(one.is_sent for one in requests)
    assert room.client.instances == 3


def test_a_full_queue_refuses_and_says_so_before_a_body_is_read() -> None:
    room = Room(queue_items_max=1)
    for _ in range(3):
        room.send()
    with pytest.raises(Overloaded, match="at most 1 may"):
        room.send()
    with pytest.raises(Overloaded, match="the queue is full"):
        room.client.check_room(0, 0)
    assert room.client.status().refused == 1
    room.check_account()
    room.close()


def test_who_cannot_be_in_time_is_refused_by_what_runs_have_taken(room: Room) -> None:
    now_ns = room.scheduler.now_ns()
    room.send()
    room.answer(room.take(), ms=100.0)
    room.client.check_room(now_ns + 1, now_ns)
    for _ in range(3):
        room.send()
    room.client.check_room(0, now_ns)
    room.client.check_room(now_ns + 301 * MS, now_ns)
    with pytest.raises(TooLate, match="about 300 ms") as refused:
        room.client.check_room(now_ns + 299 * MS, now_ns)
    assert refused.value.retry_after_s == pytest.approx(0.3)


def test_a_request_whose_deadline_has_passed_is_refused_at_once(room: Room) -> None:
    request = room.request(within_ms=1)
    room.scheduler.advance(2 * MS)
    with pytest.raises(DeadlineExceeded):
        room.client.submit(request)


def test_a_deadline_is_kept_while_the_request_waits_is_staged_or_runs(room: Room) -> None:
    running = room.send(within_ms=30)
    staged, waiting = room.send(within_ms=20), room.send(within_ms=10)
    serial = room.take()
    room.scheduler.advance(10 * MS)
    assert room.replied == [waiting]
    room.scheduler.advance(10 * MS)
    assert room.replied == [waiting, staged]
    room.scheduler.advance(10 * MS)
    assert room.replied == [waiting, staged, running]
    assert [type(one.fault) for one in room.replied] == [DeadlineExceeded] * 3
    assert "while the scoring script ran" in str(running.fault)
    assert "before a worker was free" in str(staged.fault)
    assert room.observer.expired_items == 3
    # What comes late is nobody's any more, and frees the worker.
    room.answer(serial)
    assert len(room.replied) == 3
    assert running.answer is None


def test_who_waits_longer_for_a_worker_than_allowed_is_told_so_and_who_was_taken_is_not(room: Room) -> None:
    taken, staged = room.send(within_ms=50, start_within_ms=5), room.send(within_ms=50, start_within_ms=5)
    serial = room.take()
    frame = room.receive()
    assert frame is not None
    assert frame.deadline_ns == staged.start_by_ns
    room.scheduler.advance(5 * MS)
    assert room.replied == [staged]
    assert isinstance(staged.fault, QueueWaitExceeded)
    room.say(wire.EXPIRED, frame.request_id)
    room.scheduler.advance(45 * MS)
    assert isinstance(taken.fault, DeadlineExceeded)
    room.answer(serial)


def test_a_taken_request_without_a_deadline_may_take_its_time(room: Room) -> None:
    request = room.send(start_within_ms=5)
    serial = room.take()
    room.scheduler.advance(1000 * MS)
    assert room.replied == []
    room.answer(serial)
    assert request.fault is None


def test_a_worker_that_found_it_too_late_ends_it(room: Room) -> None:
    request = room.send(within_ms=5)
    frame = room.receive()
    assert frame is not None
    room.say(wire.EXPIRED, frame.request_id)
    assert isinstance(request.fault, QueueWaitExceeded | DeadlineExceeded)


def test_a_run_long_past_its_deadline_is_reported_once_and_one_that_ended_is_not(room: Room) -> None:
    room.send(within_ms=10)
    serial = room.take(worker=7)
    room.scheduler.advance(10 * MS)
    assert room.recycled == []
    room.scheduler.advance(RECYCLE_AFTER_NS)
    assert room.recycled == [("p", 7, serial)]
    room.answer(serial, 7)
    room.send(within_ms=10)
    later = room.take(worker=8)
    room.scheduler.advance(10 * MS)
    room.answer(later, 8)
    room.scheduler.advance(2 * RECYCLE_AFTER_NS)
    assert len(room.recycled) == 1


def test_a_worker_that_says_late_what_it_took_is_watched_too(room: Room) -> None:
    room.send(within_ms=10)
    frame = room.receive()
    assert frame is not None
    room.scheduler.advance(11 * MS)
    room.say(wire.TAKEN, frame.request_id, 4)
    room.scheduler.advance(RECYCLE_AFTER_NS)
    assert room.recycled == [("p", 4, frame.request_id)]
    room.answer(frame.request_id, 4)


def test_a_cancelled_request_gets_no_reply_wherever_it_is(room: Room) -> None:
    requests = [room.send(within_ms=100) for _ in range(3)]
    serial = room.take()
    for request in requests:
        room.client.cancel(request)
        room.client.cancel(request)
    room.scheduler.advance(200 * MS)
    assert room.replied == []
    assert room.observer.cancelled_items == 3
    assert room.client.status().queued_items == 0
    room.answer(serial)
    # Its run goes on, so its worker is watched.
    again = room.send(within_ms=10)
    assert room.receive() is not None
    taken = room.take(5)
    room.client.cancel(again)
    room.scheduler.advance(10 * MS + RECYCLE_AFTER_NS)
    assert room.recycled == [("p", 5, taken)]


def test_the_cancelled_do_not_pile_up_behind_one_that_waits(room: Room) -> None:
    for _ in range(3):
        room.send()
    for _ in range(1000):
        room.client.cancel(room.send())
    assert len(room.client._line._queue._line) < 200


def test_a_death_costs_what_the_worker_had_taken_and_nothing_else() -> None:
    room = Room(workers=2)
    first, second, third = (room.send(within_ms=10_000) for _ in range(3))
    room.take(worker=0)
    other = room.take(worker=1)
    room.client.worker_gone(0)
    assert room.replied == [first]
    assert isinstance(first.fault, ModelFailed)
    room.answer(other, 1)
    room.answer(room.take(1), 1)
    assert room.replied == [first, second, third]
    assert room.client.status().failed == 1
    room.check_account()
    room.close()


def test_an_answer_that_was_sent_before_the_death_counts(room: Room) -> None:
    request = room.send()
    frame = room.receive()
    assert frame is not None
    for kind, head in ((wire.TAKEN, None), (wire.ANSWER, {"status": 200})):
        wire.send(room.replies, kind, request_id=frame.request_id, worker=2, head=head)
    room.client.worker_gone(2)
    assert request.fault is None
    assert request.answer is not None


def test_what_a_worker_took_to_its_grave_without_a_word_fails_soon_after(room: Room) -> None:
    lost = room.send(within_ms=60_000)
    assert room.receive() is not None
    room.client.worker_gone(0)
    assert room.replied == []
    room.scheduler.advance(LOST_AFTER_NS)
    assert room.replied == [lost]
    assert isinstance(lost.fault, ModelFailed)


def test_what_is_still_in_the_kernel_when_a_worker_dies_is_not_lost(room: Room) -> None:
    request = room.send(within_ms=60_000)
    room.client.worker_gone(0)
    room.scheduler.advance(3 * LOST_AFTER_NS)
    assert room.replied == []
    room.answer(room.take(1), 1)
    assert room.replied == [request]
    room.scheduler.run_out()


def test_what_was_handed_over_before_something_that_was_taken_is_lost_though_the_kernel_holds_more() -> None:
    room = Room(workers=3)
    lost, _, _, _ = (room.send(within_ms=60_000) for _ in range(4))
    assert room.receive() is not None
    taken = room.take(1)
    room.client.worker_gone(0)
    room.scheduler.advance(LOST_AFTER_NS)
    assert room.replied == [lost]
    for _ in range(2):
        room.answer(room.take(1), 1)
    room.answer(taken, 1)
    room.check_account()
    room.close()
    room.scheduler.run_out()


def test_what_nobody_announces_gives_its_place_back_when_its_deadline_has_passed(room: Room) -> None:
    lost = [room.send(within_ms=10), room.send(within_ms=10)]
    # Two workers could not read them, and nobody is told.
    assert None not in (room.receive(), room.receive())
    waiting = room.send(within_ms=5000)
    assert room.client.status().queued_items == 1
    room.scheduler.advance(10 * MS)
    assert room.replied == lost
    assert waiting.is_sent
    room.answer(room.take())
    room.scheduler.advance(LOST_AFTER_NS)
    assert room.client._out.parcels == {}
    assert room.replied == [*lost, waiting]


def test_what_waits_in_the_kernel_beyond_its_deadline_keeps_its_place(room: Room) -> None:
    staged = [room.send(within_ms=10), room.send(within_ms=10)]
    waiting = room.send(within_ms=60_000)
    room.scheduler.advance(10 * MS + 2 * LOST_AFTER_NS)
    assert not waiting.is_sent
    for request in staged:
        room.receive()
        room.say(wire.EXPIRED, request.serial)
    room.answer(room.take())
    assert waiting.fault is None
    room.scheduler.run_out()


def test_what_a_worker_takes_as_another_look_is_due_is_not_lost(room: Room) -> None:
    request = room.send(within_ms=60_000)
    room.client.worker_gone(0)
    room.scheduler.advance(LOST_AFTER_NS - 1)
    frame = room.receive()
    assert frame is not None
    room.scheduler.advance(1)
    assert room.replied == []
    # Its word is in the socket when the time is over.
    wire.send(room.replies, wire.TAKEN, request_id=frame.request_id, worker=1)
    room.scheduler.advance(LOST_AFTER_NS)
    assert room.replied == []
    assert room.client.status().busy == 1
    room.answer(frame.request_id, 1)
    assert request.fault is None
    room.scheduler.run_out()


def test_a_death_lets_no_more_go_ahead_than_the_worker_can_have_had() -> None:
    room = Room(workers=2)
    requests = [room.send(within_ms=60_000) for _ in range(8)]
    taken = room.take(worker=0)
    assert sum(one.is_sent for one in requests) == 3
    # It had said what it had, so it had nothing else.
    room.client.worker_gone(0)
    assert sum(one.is_sent for one in requests) == 4
    # This one may have had one of the three.
    room.client.worker_gone(1)
    assert sum(one.is_sent for one in requests) == 5
    assert taken not in room.client._out.parcels
    room.client.close()
    room.check_account()
    room.close()


def test_an_unreadable_answer_fails_its_request_and_an_unreadable_frame_is_skipped(room: Room) -> None:
    heads: list[dict[str, object]] = [{}, {"status": 99}, {"status": 200, "ms": -1}, {"status": "x"}]
    heads.append({"status": 200, "headers": [1]})
    for head in heads:
        request = room.send()
        serial = room.take()
        room.replies.send(b"nonsense")
        room.say(wire.ANSWER, serial, 0, head)
        assert isinstance(request.fault, ModelFailed)
    room.say(wire.ANSWER, 12345)


def test_a_failed_run_is_an_answer_and_counts_as_failed(room: Room) -> None:
    request = room.send()
    room.answer(room.take(), failed=True)
    assert request.answer is not None
    assert room.client.status().failed == 1
    assert room.observer.runs[-1][-1] is True


def test_a_drain_ends_when_the_accepted_have_their_answers(room: Room) -> None:
    drained: list[bool] = []
    room.send()
    room.client.drain(lambda: drained.append(True))
    with pytest.raises(Unavailable, match="draining"):
        room.send()
    room.scheduler.settle()
    assert drained == []
    room.answer(room.take())
    room.scheduler.settle()
    assert drained == [True]
    room.client.drain(lambda: drained.append(True))
    room.scheduler.settle()
    assert drained == [True, True]


def test_a_close_answers_everybody(room: Room) -> None:
    requests = [room.send(within_ms=10) for _ in range(4)]
    room.take()
    assert room.client.close(1.0)
    assert [type(one.fault) for one in requests] == [Unavailable] * 4
    assert room.client.close()
    room.scheduler.run_out()
    assert room.client.status().closed == 4


def test_when_the_kernel_is_full_requests_wait_and_go_on(room: Room) -> None:
    room.client.resize(1000)
    requests = []
    while not is_blocked(room):
        requests.append(room.send())
    waiting = room.send()
    assert not waiting.is_sent
    while room.receive() is not None:
        pass
    room.client.write()
    assert waiting.is_sent


def test_a_pool_that_is_gone_answers_unavailable(room: Room) -> None:
    room.work.close()
    request = room.send()
    assert room.replied == []
    room.scheduler.settle()
    assert isinstance(request.fault, Unavailable)
    room.replies.close()
    assert room.client.read() is False


def test_a_head_that_is_too_large_fails_alone(room: Room) -> None:
    request = room.request()
    request.headers = [("x", "y" * 100_000)]
    room.client.submit(request)
    room.scheduler.settle()
    assert isinstance(request.fault, Unavailable)
    room.send()
    room.answer(room.take())


def test_frames_are_read_a_bounded_number_at_a_time(room: Room) -> None:
    room.client.resize(200)
    for _ in range(100):
        room.send()
    serials = []
    while (frame := room.receive()) is not None:
        serials.append(frame.request_id)
    for serial in serials:
        wire.send(room.replies, wire.ANSWER, request_id=serial, head={"status": 200})
    assert room.client.read() is True
    assert len(room.replied) == client_module._FRAMES_A_TURN
    assert room.client.read() is False


class Flooded:
    """A reply socket that a script fills as fast as it is read; `first`: what lies in it before."""

    def __init__(self, room: Room, *first: bytes) -> None:
        self.read = 0
        self._room = room
        self._replies = room.client._replies
        self._first = list(first)

    def recvmsg_into(self, buffers: tuple[memoryview], *_: int) -> tuple[int, list[object], int, None]:
        self.read += 1
        data = self._first.pop(0) if self._first else b"x"
        buffers[0][: len(data)] = data
        return len(data), [], 0, None

    def fileno(self) -> int:
        return self._replies.fileno()

    def close(self) -> None:
        self._replies.close()


def flood(room: Room, monkeypatch: pytest.MonkeyPatch, *first: bytes) -> Flooded:
    flooded = Flooded(room, *first)
    monkeypatch.setattr(room.client, "_replies", flooded)
    return flooded


def test_a_flood_of_what_is_no_frame_takes_nobodys_turn_when_a_worker_dies(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [room.send(within_ms=60_000), room.send(within_ms=60_000)]
    room.take(worker=0)
    flooded = flood(room, monkeypatch)
    room.client.worker_gone(0)
    assert flooded.read == client_module._FRAMES_A_TURN
    assert room.replied == []
    room.scheduler.tick()
    assert flooded.read == 2 * client_module._FRAMES_A_TURN
    room.scheduler.settle()
    assert room.replied == requests[:1]
    # What the other worker has taken in silence is found to be lost, flood or not.
    assert room.receive() is not None
    room.client.worker_gone(1)
    room.scheduler.advance(3 * LOST_AFTER_NS)
    assert room.replied == requests


def test_an_answer_behind_all_that_a_reply_socket_holds_counts_though_its_worker_is_dead(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = room.send(within_ms=60_000)
    serial = room.take(worker=0)
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        wire.send(one, wire.ANSWER, request_id=serial, head={"status": 200})
        answer = other.recv(1000)
    # The kernel doubles the MiB that a crew asks for, and counts at least 768 bytes for a datagram.
    flood(room, monkeypatch, *[b"x"] * (2 * 1024 * 1024 // 768), answer)
    room.client.worker_gone(0)
    room.scheduler.settle()
    assert room.replied == [request]
    assert request.fault is None


def test_what_cannot_be_read_is_told_now_and_then(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    room.send()
    for _ in range(100):
        room.replies.send(b"nonsense")
    while room.client.read():
        pass
    assert len(caplog.records) == 1
    room.scheduler.advance(60_000 * MS)
    room.replies.send(b"nonsense")
    room.client.read()
    assert "101 such frames so far" in caplog.text


def test_a_large_body_is_mapped_only_where_somebody_waits_for_it(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    request = room.send()
    serial = room.take()
    for kind, number in ((wire.ANSWER, serial + 1), (wire.RAN, serial)):
        wire.send(room.replies, kind, request_id=number, body=b"x" * 100_000)
        room.client.read()
    assert "a body of 100000 bytes, where at most 0 are expected" in caplog.text
    wire.send(room.replies, wire.ANSWER, request_id=serial, head={"status": 200}, body=b"x" * 100_000)
    room.client.read()
    assert request.answer is not None
    assert len(request.answer.body) == 100_000
    assert room.client._bound(wire.ANSWER, room.send().serial) == wire.RESULT_BYTES_MAX


def test_a_worker_that_takes_another_has_lost_the_answer_that_has_not_come(room: Room) -> None:
    first, second = room.send(within_ms=60_000), room.send(within_ms=60_000)
    room.take(worker=0)
    room.take(worker=0)
    assert room.replied == [first]
    assert isinstance(first.fault, ModelFailed)
    assert "lost" in str(first.fault)
    assert room.client.status().busy == 1
    # The second is lost too, and holds back nobody either.
    third = room.send(within_ms=60_000)
    serial = room.take(worker=0)
    assert room.replied == [first, second]
    room.answer(serial)
    assert third.fault is None
    assert room.client.status().busy == 0


def test_what_was_taken_is_not_taken_by_another(room: Room) -> None:
    first, second = room.send(), room.send()
    serials = room.take(worker=0), room.take(worker=1)
    room.say(wire.TAKEN, serials[0], worker=1)
    assert room.replied == []
    for serial in serials:
        room.answer(serial)
    assert room.replied == [first, second]


def test_the_status_tells_what_runs_and_who_waits_longest(room: Room) -> None:
    room.send()
    room.scheduler.advance(5 * MS)
    for _ in range(2):
        room.send()
    room.take()
    room.scheduler.advance(10 * MS)
    status = room.client.status()
    assert (status.name, status.state, status.instances, status.busy) == ("blue", "ready", 1, 1)
    assert (status.oldest_wait_ns, status.longest_run_ns) == (10 * MS, 10 * MS)
    assert repr(room.client) == "<ScriptClient blue ready 1/1 busy, 1 queued>"
    other = RecordingObserver()
    room.client.observe(other)
    room.client.cancel(room.send())
    assert other.cancelled_items == 1


def test_a_pool_without_workers_is_refused() -> None:
    work, replies = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with work, replies, pytest.raises(ValueError, match="at least 1 worker"):
        ScriptClient(
            spec=ScriptSpec(pool="p", workers=0),
            scorer=0,
            work=work,
            replies=replies,
            scheduler=VirtualScheduler(),
            observer=RecordingObserver(),
            recycle=lambda *_: None,
        )


def test_an_attached_client_is_woken_by_its_sockets_until_it_is_detached() -> None:
    async def story() -> None:
        room = Room()
        loop = asyncio.get_running_loop()
        room.client.attach(loop)
        room.client.resize(10_000)
        while not is_blocked(room):
            room.send()
        waiting = room.send()
        serials = []
        while (frame := room.receive()) is not None:
            serials.append(frame.request_id)
        wire.send(room.replies, wire.ANSWER, request_id=serials[0], head={"status": 200})
        await turns(lambda: bool(room.replied and waiting.is_sent))
        while not is_blocked(room):
            room.send()
        room.close()
        room.client.detach()

    asyncio.run(story())


def test_when_workers_and_supervisor_are_gone_reading_stops() -> None:
    async def story() -> None:
        room = Room()
        room.client.attach(asyncio.get_running_loop())
        room.replies.close()
        await turns(lambda: room.client._loop is None)
        room.close()

    asyncio.run(story())


def test_numbers_are_those_of_no_earlier_client_of_the_same_sockets(room: Room) -> None:
    request = room.send()
    assert request.serial > room.scheduler.now_ns()
    assert os.fstat(room.client._work.fileno())

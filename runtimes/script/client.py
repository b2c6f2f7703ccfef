"""ScriptClient: a scorer's way to one pool of script workers, behind the same verbs as a Runtime.

How: requests wait here, in order and bounded, where they can expire, be cancelled and be refused (`line.py`). Only as
many as there are workers, and one more, are handed to the kernel, which gives each to the first idle worker; so an
idle worker never waits for this process, and little is out of reach (`outbox.py`). A worker says what it took before
it runs it: its death fails exactly that. Requests to a script that has run_batch() are handed over by the batch.
Promise: each request that was accepted gets one reply, on the loop, whatever happens to workers; none later than its
deadline. A request that has its reply, but still occupies a worker, is remembered until the worker is free or gone.
Ownership: the client owns its two sockets from the moment it is made; it closes them.
Threads: everything here is for the loop's thread.
Units: *_ns monotonic nanoseconds, the same in all processes of the machine.
Errors: `submit` raises Overloaded, Unavailable or DeadlineExceeded at once, and the request stays the caller's.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import logging
import socket
import struct
import termios
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from runtimes.batching.timeouts import Timeouts
from runtimes.clock import Scheduler, Timer
from runtimes.errors import (
    DeadlineExceeded,
    ModelFailed,
    Overloaded,
    QueueWaitExceeded,
    RuntimeFault,
    TooLate,
    Unavailable,
)
from runtimes.lifecycle import Lifecycle, State
from runtimes.observer import Observer
from runtimes.runtime import RuntimeStatus
from runtimes.script.line import Line
from runtimes.script.outbox import Outbox, Parcel
from runtimes.script.request import ALONE, SHARED, ScriptAnswer, ScriptRequest
from runtimes.script.spec import ScriptSpec
from runtimes.script.worker_lib.igw_worker import wire

log = logging.getLogger(__name__)

# How long after its deadline a run may go on before its worker is reported: most end by themselves meanwhile.
RECYCLE_AFTER_NS = 500_000_000
# What has left the kernel and was not announced for so long is lost: a worker that lives says at once what it took.
LOST_AFTER_NS = 1_000_000_000
# So many frames are read in one turn of the loop, so that others get theirs; and in so many turns, more than a reply
# socket can hold (gateway/crew.py: 2 MiB with what the kernel adds, of which a datagram takes at least 768 bytes).
_FRAMES_A_TURN, _TURNS_MAX = 64, 64
# What cannot be read is told so often: the script may write to any descriptor of its process, as fast as it likes.
_COMPLAIN_EVERY_NS = 60_000_000_000


class _Counts:
    """accepted = succeeded + failed + expired + cancelled + closed + what is waiting or out."""

    __slots__ = ("accepted", "cancelled", "closed", "expired", "failed", "refused", "runs", "succeeded")

    def __init__(self) -> None:
        self.accepted = self.refused = self.succeeded = self.failed = 0
        self.expired = self.cancelled = self.closed = self.runs = 0


class ScriptClient:
    """A pool of workers as one scorer sees it. `recycle(pool, worker, serial)` reports a worker that runs on long
    after its request's deadline."""

    def __init__(
        self,
        *,
        spec: ScriptSpec,
        scorer: int,
        work: socket.socket,
        replies: socket.socket,
        scheduler: Scheduler,
        observer: Observer,
        recycle: Callable[[str, int, int], None],
        name: str = "",
    ) -> None:
        if spec.workers < 1 or spec.queue_items_max < 1:
            raise ValueError(f"a pool was given {spec}; it has at least 1 worker and room for 1 request")
        self.spec = spec
        self.name = name or spec.pool
        self._workers = spec.workers
        self._scorer = scorer
        self._work = work
        self._replies = replies
        self._scheduler = scheduler
        self._observer = observer
        self._recycle = recycle
        self._lifecycle = Lifecycle()
        self._counts = _Counts()
        self._timeouts: Timeouts[ScriptRequest] = Timeouts(scheduler, self._due)
        self._line = Line(spec.batching)
        # What was taken from the line and the kernel had no room for.
        self._held: list[ScriptRequest] = []
        # What the kernel or a worker has; also what was answered or cancelled meanwhile.
        self._out = Outbox()
        # From the clock, so that no answer to an earlier process that had these sockets is taken for one to this.
        self._serials = itertools.count(scheduler.now_ns() + 1)
        # Up to this number something may be with nobody; the timer is for another look.
        self._suspect_until = 0
        self._look_timer: Timer | None = None
        self._is_due = False
        self._wake: Timer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_blocked = False
        self._unreadable = self._complain_ns = 0
        self._on_drained: list[Callable[[], None]] = []
        work.setblocking(False)
        replies.setblocking(False)

    # The loop.

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read replies on this loop from now on."""
        self._loop = loop
        loop.add_reader(self._replies.fileno(), self.read)

    def detach(self) -> None:
        """Read no more. Harmless where nothing was attached."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.remove_reader(self._replies.fileno())
            if self._is_blocked:
                loop.remove_writer(self._work.fileno())
        self._is_blocked = False

    # Requests.

    def submit(self, request: ScriptRequest) -> None:
        """Take the request. Its reply is called once, later on the loop, with `answer` or `fault` set."""
        now_ns = self._scheduler.now_ns()
        self._check_open(request, now_ns)
        request.submitted_ns = now_ns
        self._counts.accepted += 1
        if request.due_ns:
            self._timeouts.add(request.due_ns, request)
        if not (self._held or self._is_blocked) and self._line.passes(request, self._out, self._workers):
            self._hand_over([request])
            return
        self._line.put(request)
        if request.key == SHARED:
            self._ask()
        else:
            self._pump()

    def check_room(self, deadline_ns: int, now_ns: int) -> None:
        """Whether a request may still be in time, before its body is known. Errors: Overloaded, TooLate."""
        if self._line.waiting >= self.spec.queue_items_max:
            raise self._full()
        if not self._line.waiting or not deadline_ns:
            return
        # The other scorers' requests are not known here, so this is the least that it may take.
        ahead_ns = (self._line.work_ns + self._out.work_ns) / self._workers
        if ahead_ns > deadline_ns - now_ns:
            raise TooLate(
                f"{self._line.waiting} requests wait for {self._workers} workers, which takes about "
                f"{ahead_ns / 1e6:.0f} ms; the answer would come after the deadline",
                ahead_ns / 1e9,
            )

    def cancel(self, request: ScriptRequest) -> None:
        """The caller is gone: no reply any more. A run that began goes on. Harmless to a request that is done."""
        if request.done:
            return
        self._withdraw(request)
        self._counts.cancelled += 1
        self._observer.cancelled(1)
        if request.is_taken:
            self._watch(request)
        self._tidy()

    def worker_gone(self, worker: int) -> None:
        """The worker ended: what it had taken fails, once all that it sent is read."""
        self._after_reading(partial(self._bury, worker))

    def _bury(self, worker: int) -> None:
        had = self._out.of(worker)
        if had is not None:
            lost = self._out.drop(had)
            self._observer.ran(len(lost), len(lost), self._scheduler.now_ns() - had.taken_ns, True)
            for request in lost:
                self._fail(request, ModelFailed("the worker process ended while it ran the scoring script"))
        else:
            # It was idle, or had taken one and not said so yet; whoever still has one takes no other.
            self._out.doubt_next()
        self._suspect()
        self._pump()
        self._tidy()

    # Life.

    @property
    def instances(self) -> int:
        """How many workers serve, for all scorers together."""
        return self._workers

    def resize(self, workers: int) -> None:
        """The pool has so many workers from now on."""
        self._workers = workers
        self._pump()

    def adapt(self, spec: ScriptSpec) -> None:
        """The pool is described so from now on: other workers, other limits; never another pool."""
        before, self.spec = self.spec, spec
        if spec.batching != before.batching:
            self._line.set(spec.batching, self._line.requests())
            if self._wake is not None:
                # It was set for the delay that was.
                self._wake.cancel()
                self._wake = None
        self.resize(spec.workers)

    def observe(self, observer: Observer) -> None:
        """Tell this observer of what happens from now on, instead of the one before."""
        self._observer = observer

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Refuse new requests and call back once the accepted ones have their answers; may be asked for again."""
        if self._lifecycle.state is State.READY:
            self._lifecycle.move(State.DRAINING, f"deployment {self.name!r} is draining; it takes no new requests")
        self._on_drained.append(on_drained)
        self._line.hurry()
        self._pump()
        self._tidy()

    def close(self, timeout_s: float = 0.0) -> bool:
        """Answer what is left with Unavailable and let go of the sockets; drain first to lose nothing. True: nothing
        here is waited for, so the time is not used."""
        if self._lifecycle.state is State.CLOSED:
            return True
        self._lifecycle.move(State.CLOSED, f"deployment {self.name!r} is closed; it takes no new requests")
        self.detach()
        self._timeouts.close()
        if self._wake is not None:
            self._wake.cancel()
        left = [*self._out.close(), *self._held, *self._line.requests()]
        self._held = []
        self._line = Line(None)
        for request in left:
            if not request.done:
                self._counts.closed += 1
                self._finish(request, Unavailable(self._lifecycle.reason))
        self._work.close()
        self._replies.close()
        self._tidy()
        return True

    def status(self) -> RuntimeStatus:
        counts, line = self._counts, self._line
        running = list(self._out.running())
        held = [one for one in self._held if not one.done]
        staged = [one for one in self._out.requests.values() if not (one.done or one.is_taken)]
        waiting = [one.submitted_ns for one in [*line.requests(), *held, *staged]]
        now_ns = self._scheduler.now_ns()
        return RuntimeStatus(
            name=self.name,
            state=self._lifecycle.state.value,
            reason=self._lifecycle.reason,
            batched=self.spec.batching is not None,
            dispatch="process",
            rows_cap=line.rows_cap,
            instances=self._workers,
            busy=min(len(running), self._workers),
            queued_items=line.waiting + len(held),
            queued_rows=line.waiting + len(held),
            waiting_runs=line.runs + bool(held),
            oldest_wait_ns=now_ns - min(waiting) if waiting else 0,
            in_flight_items=sum(not one.done for one in self._out.requests.values()),
            longest_run_ns=max((now_ns - one.taken_ns for one in running), default=0),
            batches=counts.runs,
            accepted=counts.accepted,
            refused=counts.refused,
            succeeded=counts.succeeded,
            failed=counts.failed,
            expired=counts.expired,
            cancelled=counts.cancelled,
            closed=counts.closed,
        )

    def __repr__(self) -> str:
        busy = len(list(self._out.running()))
        return (
            f"<ScriptClient {self.name} {self._lifecycle.state.value} {busy}/{self._workers} busy, "
            f"{self._line.waiting} queued>"
        )

    # To the workers.

    def _check_open(self, request: ScriptRequest, now_ns: int) -> None:
        if self._lifecycle.state is not State.READY:
            self._counts.refused += 1
            raise Unavailable(self._lifecycle.reason)
        if 0 < request.deadline_ns <= now_ns:
            self._counts.refused += 1
            raise DeadlineExceeded("the deadline passed before the request could wait for a worker")
        if self._line.waiting >= self.spec.queue_items_max:
            self._counts.refused += 1
            raise self._full()

    def _full(self) -> Overloaded:
        return Overloaded(
            f"the queue is full: {self._line.waiting} requests wait for a worker and at most "
            f"{self.spec.queue_items_max} may; try again later"
        )

    def _ask(self) -> None:
        """Hand over in the loop's next turn, so that requests that were read in one share a batch."""
        if not self._is_due:
            self._is_due = True
            self._scheduler.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._is_due = False
        self._pump()

    def _pump(self, now_ns: int = 0) -> None:
        """Hand over what waits, as far as a worker may be free for it."""
        line = self._line
        if not line.waiting and not self._held:
            return
        now_ns = now_ns or self._scheduler.now_ns()
        while not self._is_blocked and self._lifecycle.state is not State.CLOSED:
            requests = self._take_held() or line.next(self._out, self._workers, now_ns)
            if not requests:
                break
            self._hand_over(requests)
            if not line.waiting:
                break
        if line.wake_ns and self._wake is None:
            # The oldest only gets younger, so a timer that is armed fires in time; at worst for one who has left.
            self._wake = self._scheduler.call_at(line.wake_ns, partial(self._woken, line.wake_ns))
        if line.has_late:
            for request in line.take_late():
                self._drop_early(request)

    def _take_held(self) -> list[ScriptRequest]:
        """What the kernel had no room for, without those that have left since."""
        held, self._held = self._held, []
        return [one for one in held if not one.done] if held else held

    def _woken(self, when_ns: int) -> None:
        self._wake = None
        # A loop's timer may be some microseconds early; the time it was set for has come all the same.
        self._pump(max(self._scheduler.now_ns(), when_ns))
        self._tidy()

    def _hand_over(self, requests: list[ScriptRequest]) -> None:
        parcel = Parcel(next(self._serials), requests, self._line.run_ns(requests))
        for request in requests:
            request.serial = next(self._serials) if request.key == SHARED else parcel.serial
        try:
            self._out.send(self._work, self._scorer, parcel)
        except BlockingIOError:
            self._held = requests
            self._wait_for_room()
        except (OSError, ValueError) as error:
            log.error("%s: a request could not be handed to a worker: %s", self.name, error)
            text = f"the request could not be handed to a worker: {error}"
            for request in requests:
                # Not in the caller's own call: it has not been told yet that the request was taken.
                self._scheduler.call_soon(partial(self._fail, request, Unavailable(text)))

    def _wait_for_room(self) -> None:
        """The kernel holds as much as it may, of other scorers too."""
        self._is_blocked = True
        if self._loop is not None:
            self._loop.add_writer(self._work.fileno(), self.write)

    def write(self) -> None:
        """There may be room in the kernel again."""
        self._is_blocked = False
        if self._loop is not None:
            self._loop.remove_writer(self._work.fileno())
        self._pump()

    # From the workers.

    def _after_reading(self, then: Callable[[], None], turns: int = _TURNS_MAX) -> None:
        """Call it once all that workers have sent by now is read: at once where that is little. Nobody's turn is
        taken for it; and no more is read for it than there can be by now, as a script may send without an end."""
        if self.read() and turns:
            self._scheduler.call_soon(partial(self._after_reading, then, turns - 1))
        else:
            then()

    def read(self) -> bool:
        """Read what workers have sent, some of it; whether there may be more."""
        for _ in range(_FRAMES_A_TURN):
            if self._lifecycle.state is State.CLOSED:
                # By somebody's reply.
                return False
            try:
                frame = wire.receive(self._replies, self._bound)
            except BlockingIOError:
                break
            except (wire.BadFrame, OSError) as error:
                # If it was an answer, its request fails at its deadline.
                self._complain(error)
                continue
            if frame is None:
                # Whoever keeps the pool has closed it, and closes this client next.
                self.detach()
                break
            self._heard(frame)
            if not self._out.parcels:
                # Nothing more is to come; to look for it costs more than to be told.
                break
        else:
            return True
        self._pump()
        self._tidy()
        return False

    def _bound(self, kind: int, request_id: int) -> int:
        """Only what somebody is waiting for is mapped, once, so a script keeps nobody busy with it."""
        return wire.RESULT_BYTES_MAX if kind == wire.ANSWER and request_id in self._out.requests else 0

    def _complain(self, error: Exception) -> None:
        self._unreadable += 1
        now_ns = self._scheduler.now_ns()
        if now_ns >= self._complain_ns:
            self._complain_ns = now_ns + _COMPLAIN_EVERY_NS
            text = "%s: what a worker sent cannot be read: %s; %d such frames so far"
            log.warning(text, self.name, error, self._unreadable)

    def _heard(self, frame: wire.Frame) -> None:
        """`taken` and `ran` are about a parcel, the others about one request; what is not out is nobody's now."""
        parcel = self._out.parcels.get(frame.request_id)
        request = self._out.requests.get(frame.request_id)
        match frame.kind:
            case wire.TAKEN if parcel is not None and not parcel.is_taken:
                self._taken(parcel, frame.worker)
            case wire.RAN if parcel is not None:
                self._ran(parcel, frame.head)
            case wire.ANSWER if request is not None:
                self._out.forget(request)
                self._answered(request, frame)
            case wire.EXPIRED if request is not None:
                self._out.forget(request)
                if not request.done:
                    self._expire(request, self._scheduler.now_ns())

    def _taken(self, parcel: Parcel, worker: int) -> None:
        lost = self._out.take(parcel, worker, self._scheduler.now_ns())
        if lost is not None:
            for request in self._out.drop(lost):
                self._fail(request, ModelFailed("the worker's answer was lost: this process did not read it in time"))
        for request in parcel.requests:
            if request.done and request.parcel is parcel:
                self._watch(request)

    def _ran(self, parcel: Parcel, head: Mapping[str, Any]) -> None:
        """A call of run_batch() for some requests of a parcel; their answers follow."""
        told = _run(head, len(parcel.requests))
        if told is not None:
            self._count_run(SHARED, *told)

    def _count_run(self, key: str, rows: int, run_ns: int, failed: bool) -> None:
        self._counts.runs += 1
        self._observer.ran(rows, rows, run_ns, failed)
        # A batch that failed did not do the work of so many; each of them is run again.
        if run_ns and not (failed and rows > 1):
            self._line.learn(key, rows, run_ns)

    def _answered(self, request: ScriptRequest, frame: wire.Frame) -> None:
        answer = _answer(frame)
        if request.key == ALONE:
            run_ns = int(answer.run_ms * 1e6) if answer is not None else 0
            self._count_run(ALONE, 1, run_ns, answer is None or answer.failed)
        if request.done:
            return
        if answer is None:
            self._fail(request, ModelFailed("the worker's answer cannot be read"))
            return
        request.answer = answer
        self._counts.failed += answer.failed
        self._counts.succeeded += not answer.failed
        self._finish(request, None)

    # Ends.

    def _due(self, request: ScriptRequest, now_ns: int) -> None:
        if request.is_taken and (not request.deadline_ns or now_ns < request.deadline_ns):
            # It was due to be taken, and was.
            if request.deadline_ns:
                self._timeouts.add(request.deadline_ns, request)
            return
        self._withdraw(request)
        self._expire(request, now_ns)
        if request.is_taken:
            self._watch(request)
        self._pump()
        self._tidy()

    def _drop_early(self, request: ScriptRequest) -> None:
        self._counts.expired += 1
        self._observer.expired(1)
        ahead_s = (self._line.work_ns + self._out.work_ns) / self._workers / 1e9
        text = (
            "the request was not run, as it would have ended after its deadline; try again later, or allow more time"
        )
        self._finish(request, TooLate(text, ahead_s))

    def _expire(self, request: ScriptRequest, now_ns: int) -> None:
        self._counts.expired += 1
        self._observer.expired(1)
        if request.is_taken:
            fault: RuntimeFault = DeadlineExceeded("the deadline passed while the scoring script ran")
        elif request.deadline_ns and now_ns >= request.deadline_ns:
            fault = DeadlineExceeded("the deadline passed before a worker was free")
        else:
            fault = QueueWaitExceeded("the request waited longer for a worker than the deployment allows")
        self._finish(request, fault)

    def _fail(self, request: ScriptRequest, fault: RuntimeFault) -> None:
        if not request.done:
            self._counts.failed += 1
            self._finish(request, fault)
            self._tidy()

    def _finish(self, request: ScriptRequest, fault: RuntimeFault | None) -> None:
        request.fault = fault
        request.done = True
        request.finished_ns = self._scheduler.now_ns()
        request.reply(request)

    def _withdraw(self, request: ScriptRequest) -> None:
        request.done = True
        if not request.taken:
            self._line.discard(request)
        elif request.parcel is not None and not request.is_taken:
            # It is in the kernel still, or with nobody.
            self._suspect()

    def _tidy(self) -> None:
        if self._on_drained and not self._line.waiting and all(one.done for one in self._alive()):
            told, self._on_drained = self._on_drained, []
            for on_drained in told:
                self._scheduler.call_soon(on_drained)

    def _alive(self) -> Iterator[ScriptRequest]:
        """Who left the line, and may still want a reply."""
        yield from self._held
        yield from self._out.requests.values()

    # Workers that hang, and what a dead one took with it.

    def _watch(self, request: ScriptRequest) -> None:
        """Report the worker if it still runs this long after the deadline."""
        if request.deadline_ns:
            self._scheduler.call_at(request.deadline_ns + RECYCLE_AFTER_NS, partial(self._report, request))

    def _report(self, request: ScriptRequest) -> None:
        parcel = request.parcel
        if parcel is None:
            return
        self._recycle(self.spec.pool, request.worker, parcel.serial)
        if all(one.deadline_ns for one in parcel.requests):
            last_ns = max(one.deadline_ns for one in parcel.requests)
            self._scheduler.call_at(last_ns + RECYCLE_AFTER_NS, partial(self._release, parcel))

    def _release(self, parcel: Parcel) -> None:
        """Its worker does not run it any more: it is being ended, or it has answered and the answer is lost."""
        if parcel.serial in self._out.parcels:
            self._out.doubt(parcel)
            self._pump()
            self._tidy()

    def _suspect(self) -> None:
        """Of what is handed over now, something may be with nobody."""
        self._suspect_until = next(reversed(self._out.parcels), 0)
        self._look(self._scheduler.now_ns())

    def _look(self, now_ns: int) -> None:
        """Note what is neither in the kernel nor with a worker that said so; look again while there are suspects.

        The kernel keeps the order, so what was handed over before something that a worker has is not there any more.
        """
        suspects = self._out.silent(self._suspect_until)
        if not suspects or self._lifecycle.state is State.CLOSED:
            return
        is_empty = _unread_bytes(self._work) == 0
        for parcel in suspects:
            if not parcel.gone_ns and (is_empty or parcel.serial < self._out.announced):
                parcel.gone_ns = now_ns
                self._out.doubt(parcel)
        if self._look_timer is None:
            when_ns = now_ns + LOST_AFTER_NS
            self._look_timer = self._scheduler.call_at(when_ns, partial(self._find_lost, when_ns))

    def _find_lost(self, when_ns: int) -> None:
        """Fail what is lost: a worker ended, or could not read it, before it said that it had taken it."""
        # What has been announced meanwhile is not lost.
        self._after_reading(partial(self._fail_lost, when_ns))

    def _fail_lost(self, when_ns: int) -> None:
        self._look_timer = None
        # As in `_woken`: a timer may be early.
        now_ns = max(self._scheduler.now_ns(), when_ns)
        for parcel in self._out.silent(self._suspect_until):
            if parcel.gone_ns and now_ns - parcel.gone_ns >= LOST_AFTER_NS and parcel.serial in self._out.parcels:
                for request in self._out.drop(parcel):
                    self._fail(request, ModelFailed("the worker process ended as it took the request"))
        self._look(now_ns)
        self._pump()
        self._tidy()


def _run(head: Mapping[str, Any], requests: int) -> tuple[int, int, bool] | None:
    """How many requests a run had, its time, and whether it failed; None for what no worker of ours writes."""
    rows, run_ms = head.get("rows"), head.get("ms")
    if not isinstance(rows, int) or not isinstance(run_ms, int | float):
        return None
    if not (1 <= rows <= requests and 0.0 <= run_ms < 1e12):
        return None
    return rows, int(run_ms * 1e6), head.get("failed") is True


def _answer(frame: wire.Frame) -> ScriptAnswer | None:
    """None for what no worker of ours writes: the script can reach the socket too."""
    head = frame.head
    try:
        status, run_ms = int(head["status"]), float(head.get("ms", 0.0))
        headers = [(str(name), str(value)) for name, value in head.get("headers", ())]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not (100 <= status <= 599 and 0.0 <= run_ms < 1e12):
        return None
    body = bytes(frame.body) if isinstance(frame.body, bytearray) else frame.body
    return ScriptAnswer(status=status, headers=headers, body=body, failed=head.get("failed") is True, run_ms=run_ms)


def _unread_bytes(sock: socket.socket) -> int:
    """How much of what was sent here has not been received, whoever sent it."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))
    return int(count)

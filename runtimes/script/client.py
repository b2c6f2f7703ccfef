"""ScriptClient: a scorer's way to one pool of script workers, behind the same verbs as a Runtime.

How: requests wait here, in order and bounded, where they can expire, be cancelled and be refused. Only as many as
there are workers, and one more, are handed to the kernel, which gives each to the first idle worker; so an idle
worker never waits for this process, and little is out of reach. A worker says what it took before it runs it: its
death fails exactly that.
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
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from runtimes.batching.timeouts import Timeouts
from runtimes.clock import Scheduler
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
from runtimes.script.spec import ScriptSpec
from runtimes.script.worker_lib.igw_worker import wire

log = logging.getLogger(__name__)

# How long after its deadline a run may go on before its worker is reported: most end by themselves meanwhile.
RECYCLE_AFTER_NS = 500_000_000
# After a worker's death: what it took and could not announce any more is known by then.
LOST_AFTER_NS = 1_000_000_000
# So many frames are read in one turn of the loop, so that others get theirs.
_FRAMES_A_TURN = 64
# A new run counts by an eighth in what a run is expected to take.
_PACE = 8
# The line may hold so many that are done beyond as many as wait, so that a short line is never rebuilt.
_SLACK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptAnswer:
    """What the script answered. A large body is a view of memory that lives for as long as the view does."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | memoryview
    failed: bool
    run_ms: float


class ScriptRequest:
    """One request, from submit to its one reply. Mutable on purpose: it is touched several times on the hot path.

    `deadline_ns` and `start_by_ns` (when a worker must have taken it): 0 for none.
    """

    __slots__ = (
        *("answer", "body", "deadline_ns", "done", "due_ns", "fault", "finished_ns", "headers", "is_sent", "method"),
        *("reply", "request_id", "serial", "start_by_ns", "submitted_ns", "target", "taken_ns", "worker"),
        "client_request_id",
    )

    def __init__(
        self,
        *,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
        deadline_ns: int,
        reply: Callable[[ScriptRequest], None],
        start_by_ns: int = 0,
        request_id: str = "",
        client_request_id: str = "",
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.deadline_ns = deadline_ns
        self.start_by_ns = start_by_ns
        self.reply = reply
        self.request_id = request_id
        self.client_request_id = client_request_id
        self.answer: ScriptAnswer | None = None
        self.fault: RuntimeFault | None = None
        self.submitted_ns = 0
        self.finished_ns = 0
        # The client's own: its number on the wire, whether it was handed to the kernel, which worker took it and
        # when; `done` once it was answered or cancelled.
        self.serial = 0
        self.is_sent = False
        self.worker = -1
        self.taken_ns = 0
        self.done = False
        # When it is due next: to be taken, or to be answered.
        self.due_ns = _sooner(deadline_ns, start_by_ns)

    @property
    def is_taken(self) -> bool:
        return self.worker >= 0


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
        # In order of arrival; those that are done meanwhile are skipped. `_queued` counts those that are not.
        self._line: deque[ScriptRequest] = deque()
        self._queued = 0
        # What the kernel or a worker has, by number; also what was answered or cancelled meanwhile.
        self._out: dict[int, ScriptRequest] = {}
        # From the clock, so that no answer to an earlier process that had these sockets is taken for one to this.
        self._serials = itertools.count(scheduler.now_ns() + 1)
        self._announced = 0
        self._suspect_until = 0
        self._run_ns = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_blocked = False
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
        self._line.append(request)
        self._queued += 1
        if request.due_ns:
            self._timeouts.add(request.due_ns, request)
        self._pump()

    def check_room(self, deadline_ns: int, now_ns: int) -> None:
        """Whether a request may still be in time, before its body is known. Errors: Overloaded, TooLate."""
        if self._queued >= self.spec.queue_items_max:
            raise self._full()
        if not self._queued or not deadline_ns:
            return
        # The other scorers' requests are not known here, so this is the least that it may take.
        ahead_ns = (self._queued + len(self._out)) * self._run_ns / self._workers
        if ahead_ns > deadline_ns - now_ns:
            raise TooLate(
                f"{self._queued} requests wait for {self._workers} workers, which takes about "
                f"{ahead_ns / 1e6:.0f} ms; the answer would come after the deadline",
                ahead_ns / 1e9,
            )

    def cancel(self, request: ScriptRequest) -> None:
        """The caller is gone: no reply any more. A run that began goes on. Harmless to a request that is done."""
        if request.done:
            return
        self._leave(request)
        self._counts.cancelled += 1
        self._observer.cancelled(1)
        if request.is_taken:
            self._watch(request)
        self._tidy()

    def worker_gone(self, worker: int) -> None:
        """The worker ended: what it had taken fails, once all that it sent is read."""
        while self.read():
            pass
        for request in [one for one in self._out.values() if one.worker == worker]:
            self._forget(request)
            self._observer.ran(1, 1, self._scheduler.now_ns() - request.taken_ns, True)
            self._fail(request, ModelFailed("the worker process ended while it ran the scoring script"))
        self._suspect_until = max(self._out, default=0)
        self._scheduler.call_at(self._scheduler.now_ns() + LOST_AFTER_NS, self._find_lost)
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

    def observe(self, observer: Observer) -> None:
        """Tell this observer of what happens from now on, instead of the one before."""
        self._observer = observer

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Refuse new requests and call back once the accepted ones have their answers; may be asked for again."""
        if self._lifecycle.state is State.READY:
            self._lifecycle.move(State.DRAINING, f"deployment {self.name!r} is draining; it takes no new requests")
        self._on_drained.append(on_drained)
        self._tidy()

    def close(self, timeout_s: float = 0.0) -> bool:
        """Answer what is left with Unavailable and let go of the sockets; drain first to lose nothing. True: nothing
        here is waited for, so the time is not used."""
        if self._lifecycle.state is State.CLOSED:
            return True
        self._lifecycle.move(State.CLOSED, f"deployment {self.name!r} is closed; it takes no new requests")
        self.detach()
        self._timeouts.close()
        left = [*self._out.values(), *self._line]
        self._out.clear()
        self._line.clear()
        self._queued = 0
        for request in left:
            if not request.done:
                self._counts.closed += 1
                self._finish(request, Unavailable(self._lifecycle.reason))
        self._work.close()
        self._replies.close()
        self._tidy()
        return True

    def status(self) -> RuntimeStatus:
        counts = self._counts
        running = [one for one in self._out.values() if one.is_taken]
        waiting = [one.submitted_ns for one in [*self._line, *self._out.values()] if not (one.done or one.is_taken)]
        now_ns = self._scheduler.now_ns()
        return RuntimeStatus(
            name=self.name,
            state=self._lifecycle.state.value,
            reason=self._lifecycle.reason,
            batched=False,
            dispatch="process",
            rows_cap=1,
            instances=self._workers,
            busy=min(len(running), self._workers),
            queued_items=self._queued,
            queued_rows=self._queued,
            waiting_runs=self._queued,
            oldest_wait_ns=now_ns - min(waiting) if waiting else 0,
            in_flight_items=sum(not one.done for one in self._out.values()),
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
        busy = sum(one.is_taken for one in self._out.values())
        return (
            f"<ScriptClient {self.name} {self._lifecycle.state.value} {busy}/{self._workers} busy, "
            f"{self._queued} queued>"
        )

    # To the workers.

    def _check_open(self, request: ScriptRequest, now_ns: int) -> None:
        if self._lifecycle.state is not State.READY:
            self._counts.refused += 1
            raise Unavailable(self._lifecycle.reason)
        if 0 < request.deadline_ns <= now_ns:
            self._counts.refused += 1
            raise DeadlineExceeded("the deadline passed before the request could wait for a worker")
        if self._queued >= self.spec.queue_items_max:
            self._counts.refused += 1
            raise self._full()

    def _full(self) -> Overloaded:
        return Overloaded(
            f"the queue is full: {self._queued} requests wait for a worker and at most "
            f"{self.spec.queue_items_max} may; try again later"
        )

    def _pump(self) -> None:
        """Hand over what waits, as far as a worker may be free for it."""
        while self._queued and len(self._out) <= self._workers and not self._is_blocked:
            request = self._line.popleft()
            if not request.done:
                self._hand_over(request)
        while self._line and self._line[0].done:
            self._line.popleft()
        if len(self._line) > 2 * self._queued + _SLACK:
            self._line = deque(one for one in self._line if not one.done)

    def _hand_over(self, request: ScriptRequest) -> None:
        request.serial = next(self._serials)
        try:
            wire.send(
                self._work,
                wire.REQUEST,
                request_id=request.serial,
                scorer=self._scorer,
                deadline_ns=request.due_ns,
                head=_head(request),
                body=request.body,
            )
        except BlockingIOError:
            self._line.appendleft(request)
            self._wait_for_room()
        except (OSError, ValueError) as error:
            log.error("%s: a request could not be handed to a worker: %s", self.name, error)
            self._queued -= 1
            request.is_sent = True
            # Not in the caller's own call: it has not been told yet that the request was taken.
            text = f"the request could not be handed to a worker: {error}"
            self._scheduler.call_soon(partial(self._fail, request, Unavailable(text)))
        else:
            self._queued -= 1
            request.is_sent = True
            self._out[request.serial] = request

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

    def read(self) -> bool:
        """Read what workers have sent, some of it; whether there may be more."""
        for _ in range(_FRAMES_A_TURN):
            if self._lifecycle.state is State.CLOSED:
                # By somebody's reply.
                return False
            try:
                frame = wire.receive(self._replies)
            except BlockingIOError:
                break
            except (wire.BadFrame, OSError) as error:
                # The script may write to any descriptor of its process. Its request fails at its deadline.
                log.warning("%s: what a worker sent cannot be read: %s", self.name, error)
                continue
            if frame is None:
                # Whoever keeps the pool has closed it, and closes this client next.
                self.detach()
                break
            self._heard(frame)
        else:
            return True
        self._pump()
        self._tidy()
        return False

    def _heard(self, frame: wire.Frame) -> None:
        request = self._out.get(frame.request_id)
        if request is None:
            return
        match frame.kind:
            case wire.TAKEN:
                self._taken(request, frame.worker)
            case wire.ANSWER:
                self._forget(request)
                self._answered(request, frame)
            case wire.EXPIRED:
                self._forget(request)
                if not request.done:
                    self._expire(request, self._scheduler.now_ns())

    def _taken(self, request: ScriptRequest, worker: int) -> None:
        request.worker = worker
        request.taken_ns = self._scheduler.now_ns()
        self._announced = max(self._announced, request.serial)
        if request.done:
            self._watch(request)

    def _answered(self, request: ScriptRequest, frame: wire.Frame) -> None:
        answer = _answer(frame)
        self._counts.runs += 1
        failed = answer is None or answer.failed
        run_ns = int(answer.run_ms * 1e6) if answer is not None else 0
        self._run_ns += (run_ns - self._run_ns) / _PACE if self._run_ns else run_ns
        self._observer.ran(1, 1, run_ns, failed)
        if request.done:
            return
        if answer is None:
            self._fail(request, ModelFailed("the worker's answer cannot be read"))
            return
        request.answer = answer
        self._counts.failed += failed
        self._counts.succeeded += not failed
        self._finish(request, None)

    # Ends.

    def _due(self, request: ScriptRequest, now_ns: int) -> None:
        if request.is_taken and (not request.deadline_ns or now_ns < request.deadline_ns):
            # It was due to be taken, and was.
            if request.deadline_ns:
                self._timeouts.add(request.deadline_ns, request)
            return
        if not request.is_sent:
            self._queued -= 1
        self._expire(request, now_ns)
        if request.is_taken:
            self._watch(request)
        self._pump()
        self._tidy()

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

    def _leave(self, request: ScriptRequest) -> None:
        request.done = True
        if not request.is_sent:
            self._queued -= 1

    def _forget(self, request: ScriptRequest) -> None:
        """Neither the kernel nor a worker has it any more."""
        self._announced = max(self._announced, request.serial)
        del self._out[request.serial]

    def _tidy(self) -> None:
        if self._on_drained and self._queued == 0 and all(one.done for one in self._out.values()):
            told, self._on_drained = self._on_drained, []
            for on_drained in told:
                self._scheduler.call_soon(on_drained)

    # Workers that hang, and what a dead one took with it.

    def _watch(self, request: ScriptRequest) -> None:
        """Report the worker if it still runs this long after the deadline."""
        if request.deadline_ns:
            self._scheduler.call_at(request.deadline_ns + RECYCLE_AFTER_NS, partial(self._report, request))

    def _report(self, request: ScriptRequest) -> None:
        if request.serial in self._out:
            self._recycle(self.spec.pool, request.worker, request.serial)

    def _find_lost(self) -> None:
        """Fail what a dead worker had taken but not announced: it is not in the kernel, and nobody has it.

        The kernel keeps the order, so what was handed over before something that a worker has is not there any more.
        """
        if self._lifecycle.state is State.CLOSED:
            return
        suspects = [one for one in self._out.values() if not one.is_taken and one.serial <= self._suspect_until]
        is_empty = _unread_bytes(self._work) == 0
        for request in suspects:
            if is_empty or request.serial < self._announced:
                del self._out[request.serial]
                self._fail(request, ModelFailed("the worker process ended as it took the request"))
        if any(one.serial in self._out for one in suspects):
            self._scheduler.call_at(self._scheduler.now_ns() + LOST_AFTER_NS, self._find_lost)
        self._pump()
        self._tidy()


def _sooner(deadline_ns: int, start_by_ns: int) -> int:
    if deadline_ns and start_by_ns:
        return min(deadline_ns, start_by_ns)
    return deadline_ns or start_by_ns


def _head(request: ScriptRequest) -> dict[str, object]:
    """`deadline_ns` is when the run must have ended; the frame's own, when it must have begun."""
    return {
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "request_id": request.request_id,
        "client_request_id": request.client_request_id,
        "deadline_ns": request.deadline_ns,
    }


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

"""What the kernel or the workers have of one scorer's requests: parcels, in the order they were sent.

A parcel is what travels in one frame and is run by one worker: a request, or several that share a run. It is out
until the worker is done with each of its requests, also with those that were answered meanwhile.
Units: *_ns monotonic nanoseconds.
Errors: those of the wire; then nothing was sent.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from runtimes.script.request import SHARED, ScriptRequest
from runtimes.script.worker_lib.igw_worker import wire
from runtimes.script.worker_lib.igw_worker.parcel import Part, pack


class Parcel:
    """`left`: how many of its requests the worker is not done with. `run_ns`: what its run is expected to take.

    `is_doubted`: perhaps nobody has it any more. `gone_ns`: since when it is known to be out of the kernel, while no
    worker has said that it took it; 0: it is not known.
    """

    __slots__ = ("gone_ns", "is_doubted", "left", "requests", "run_ns", "serial", "taken_ns", "worker")

    def __init__(self, serial: int, requests: list[ScriptRequest], run_ns: float) -> None:
        self.serial = serial
        self.requests = requests
        self.left = len(requests)
        self.run_ns = run_ns
        self.worker = -1
        self.taken_ns = 0
        self.is_doubted = False
        self.gone_ns = 0

    @property
    def is_taken(self) -> bool:
        return self.worker >= 0


class Outbox:
    """`requests` by their numbers, `parcels` by theirs. `untaken`: the parcels that no worker is known to have.

    A parcel that is doubted counts neither in `untaken` nor in `len`: it shows nothing of how busy the workers are,
    and one that is lost, or whose answer is, must not hold back others until it is known to be.

    `announced`: the highest number of a parcel that a worker is known to have had. The kernel keeps the order, so
    what was sent before it is not there any more.
    """

    __slots__ = ("_had", "announced", "doubted", "parcels", "requests", "untaken", "work_ns")

    def __init__(self) -> None:
        self.requests: dict[int, ScriptRequest] = {}
        self.parcels: dict[int, Parcel] = {}
        # What each worker took last, while it is out.
        self._had: dict[int, Parcel] = {}
        self.untaken = self.doubted = 0
        self.announced = 0
        self.work_ns = 0.0

    def __len__(self) -> int:
        return len(self.parcels) - self.doubted

    def send(self, work: socket.socket, scorer: int, parcel: Parcel) -> None:
        """Its requests are out from now on. Errors: BlockingIOError where the kernel is full; OSError, ValueError."""
        requests = parcel.requests
        first = requests[0]
        if first.key == SHARED:
            parts = [Part(one.serial, one.due_ns, one.head(), one.body) for one in requests]
            wire.send(work, wire.PARCEL, request_id=parcel.serial, scorer=scorer, body=pack(parts))
        else:
            wire.send(
                work,
                wire.REQUEST,
                request_id=first.serial,
                scorer=scorer,
                deadline_ns=first.due_ns,
                head=first.head(),
                body=first.body,
            )
        for request in requests:
            request.is_sent = True
            request.parcel = parcel
            self.requests[request.serial] = request
        self.parcels[parcel.serial] = parcel
        self.untaken += 1
        self.work_ns += parcel.run_ns

    def take(self, parcel: Parcel, worker: int, now_ns: int) -> Parcel | None:
        """A worker has it. Given back is what it had before, which it is done with though not all is answered: it has
        one at a time and its words come in order, so the rest is lost."""
        before = self._had.get(worker)
        self._had[worker] = parcel
        self._settle(parcel)
        self.announced = max(self.announced, parcel.serial)
        parcel.worker, parcel.taken_ns = worker, now_ns
        for request in parcel.requests:
            request.worker, request.taken_ns = worker, now_ns
        return before

    def forget(self, request: ScriptRequest) -> None:
        """Neither the kernel nor a worker has it any more."""
        parcel, request.parcel = request.parcel, None
        assert parcel is not None, "it was sent"
        self.announced = max(self.announced, parcel.serial)
        del self.requests[request.serial]
        parcel.left -= 1
        if not parcel.left:
            self._leave(parcel)

    def drop(self, parcel: Parcel) -> list[ScriptRequest]:
        """It is lost, whole; those of its requests that the worker was not done with."""
        lost = [one for one in parcel.requests if one.parcel is parcel]
        for request in lost:
            request.parcel = None
            del self.requests[request.serial]
        self._leave(parcel)
        return lost

    def doubt(self, parcel: Parcel) -> None:
        if not parcel.is_doubted:
            parcel.is_doubted = True
            self.untaken -= not parcel.is_taken
            self.doubted += 1

    def doubt_next(self) -> None:
        """A worker may have ended with one that it had not announced: the oldest, for the kernel keeps the order."""
        for parcel in self.parcels.values():
            if not (parcel.is_taken or parcel.is_doubted):
                self.doubt(parcel)
                return

    def silent(self, until: int) -> list[Parcel]:
        """Those up to this number that no worker is known to have."""
        return [one for one in self.parcels.values() if one.serial <= until and not one.is_taken]

    def of(self, worker: int) -> Parcel | None:
        return self._had.get(worker)

    def running(self) -> Iterator[Parcel]:
        return (one for one in self._had.values() if not one.is_doubted)

    def close(self) -> list[ScriptRequest]:
        """All that is out, which is forgotten."""
        requests = list(self.requests.values())
        for request in requests:
            request.parcel = None
        self.requests.clear()
        self.parcels.clear()
        self._had.clear()
        self.untaken = self.doubted = 0
        return requests

    def _settle(self, parcel: Parcel) -> None:
        """It is not untaken any more."""
        if parcel.is_doubted:
            parcel.is_doubted = False
            self.doubted -= 1
        else:
            self.untaken -= not parcel.is_taken

    def _leave(self, parcel: Parcel) -> None:
        del self.parcels[parcel.serial]
        if self._had.get(parcel.worker) is parcel:
            del self._had[parcel.worker]
        self._settle(parcel)
        # Sums of fractions do not come back to nothing by themselves.
        self.work_ns = self.work_ns - parcel.run_ns if self.parcels else 0.0
        # It leads to its requests, and they may have led here.
        parcel.requests = []

"""A scorer's client of a pool of script workers, on a virtual clock; the test plays the workers over real sockets."""

from __future__ import annotations

import socket
from typing import Any

from runtimes.script.client import ScriptClient
from runtimes.script.request import ScriptRequest
from runtimes.script.spec import ScriptSpec
from runtimes.script.worker_lib.igw_worker import wire
from runtimes.script.worker_lib.igw_worker.parcel import Part, unpack
from runtimes.spec import BatchLimits
from tests.support.virtual import MS, RecordingObserver, VirtualScheduler


class Room:
    """A client on a virtual clock; the test plays the workers."""

    def __init__(self, workers: int = 1, queue_items_max: int = 100, batching: BatchLimits | None = None) -> None:
        self.scheduler = VirtualScheduler()
        self.observer = RecordingObserver()
        work, self.work = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.replies, replies = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.recycled: list[tuple[str, int, int]] = []
        self.client = ScriptClient(
            spec=ScriptSpec(pool="p", workers=workers, queue_items_max=queue_items_max, batching=batching),
            scorer=3,
            work=work,
            replies=replies,
            scheduler=self.scheduler,
            observer=self.observer,
            recycle=lambda *told: self.recycled.append(told),
            name="blue",
        )
        self.replied: list[ScriptRequest] = []

    def request(
        self, within_ms: int = 0, start_within_ms: int = 0, body: bytes = b"{}", method: str = "POST"
    ) -> ScriptRequest:
        now_ns = self.scheduler.now_ns()
        return ScriptRequest(
            method=method,
            target="/score",
            headers=[("a", "b")],
            body=body,
            deadline_ns=now_ns + within_ms * MS if within_ms else 0,
            start_by_ns=now_ns + start_within_ms * MS if start_within_ms else 0,
            reply=self.replied.append,
        )

    def send(self, within_ms: int = 0, start_within_ms: int = 0, **what: Any) -> ScriptRequest:
        request = self.request(within_ms, start_within_ms, **what)
        self.client.submit(request)
        return request

    def send_batch(self, count: int, within_ms: int = 0) -> list[ScriptRequest]:
        """Requests that arrive in one turn of the loop, which then ends."""
        requests = [self.send(within_ms) for _ in range(count)]
        self.scheduler.settle()
        return requests

    def receive(self) -> wire.Frame | None:
        """What a worker finds, None where there is nothing."""
        try:
            return wire.receive(self.work)
        except BlockingIOError:
            return None

    def take(self, worker: int = 0) -> int:
        """A worker takes the next request and says so; its number."""
        frame = self.receive()
        assert frame is not None
        self.say(wire.TAKEN, frame.request_id, worker)
        return frame.request_id

    def take_parcel(self, worker: int = 0) -> tuple[int, list[Part]]:
        """A worker takes the next batch and says so; its number and what it holds."""
        frame = self.receive()
        assert frame is not None
        assert frame.kind == wire.PARCEL
        self.say(wire.TAKEN, frame.request_id, worker)
        return frame.request_id, unpack(frame.body)

    def ran(self, parcel: int, rows: int, ms: float = 2.0, *, failed: bool = False) -> None:
        self.say(wire.RAN, parcel, 0, {"rows": rows, "ms": ms, "failed": failed})

    def finish(self, worker: int = 0, ms: float = 2.0) -> list[Part]:
        """A worker takes the next batch, runs it and answers all of it."""
        parcel, parts = self.take_parcel(worker)
        self.ran(parcel, len(parts), ms)
        for part in parts:
            self.answer(part.request_id, worker, ms)
        self.scheduler.settle()
        return parts

    def say(self, kind: int, serial: int, worker: int = 0, head: dict[str, object] | None = None) -> None:
        wire.send(self.replies, kind, request_id=serial, worker=worker, scorer=3, head=head, body=b"[1]")
        self.client.read()

    def answer(self, serial: int, worker: int = 0, ms: float = 2.0, *, failed: bool = False) -> None:
        head: dict[str, object] = {"status": 200, "headers": [["x", "y"]], "failed": failed, "ms": ms}
        self.say(wire.ANSWER, serial, worker, head)

    def close(self) -> None:
        self.client.close()
        self.work.close()
        self.replies.close()

    def check_account(self) -> None:
        """Whoever was accepted has exactly one end, or is still here."""
        status = self.client.status()
        ends = status.succeeded + status.failed + status.expired + status.cancelled + status.closed
        assert status.accepted == ends + status.queued_items + status.in_flight_items
        assert len(self.replied) == len({id(one) for one in self.replied}) == ends - status.cancelled

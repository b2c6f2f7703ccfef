"""A request to a scoring script and its answer, as a scorer has them.

Ownership: the caller makes it; after `ScriptClient.submit` it is the client's until `reply(request)` is called, once,
on the loop's thread. A cancelled request is never replied to.
Units: *_ns monotonic nanoseconds, 0 for none or not yet; a request is one row of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtimes.errors import RuntimeFault

if TYPE_CHECKING:
    from runtimes.script.outbox import Parcel

# Requests of one key may share a run; what is ALONE shares none.
SHARED, ALONE = "shared", "alone"


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
        *("answer", "body", "deadline_ns", "done", "due_ns", "fault", "finished_ns", "headers", "is_sent", "key"),
        *("method", "parcel", "reply", "request_id", "serial", "start_by_ns", "submitted_ns", "taken", "taken_ns"),
        *("client_request_id", "target", "worker"),
    )

    # A request is a row, and is never cut into parts.
    rows = weight = 1
    split = None

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
        # The client's own: with whom it may share a run; `taken` once it left the queue and `is_sent` once the
        # kernel has it; its number on the wire and the parcel that it travels in, until a worker is done with it;
        # which worker took it and when; `done` once it was answered or cancelled.
        self.key = ALONE
        self.taken = False
        self.is_sent = False
        self.serial = 0
        self.parcel: Parcel | None = None
        self.worker = -1
        self.taken_ns = 0
        self.done = False
        # When it is due next: to be taken, or to be answered.
        self.due_ns = _sooner(deadline_ns, start_by_ns)

    @property
    def is_taken(self) -> bool:
        """Whether a worker has it, or had."""
        return self.worker >= 0

    def head(self) -> dict[str, object]:
        """As it travels. `deadline_ns` is when the run must have ended."""
        return {
            "method": self.method,
            "target": self.target,
            "headers": self.headers,
            "request_id": self.request_id,
            "client_request_id": self.client_request_id,
            "deadline_ns": self.deadline_ns,
        }


def _sooner(deadline_ns: int, start_by_ns: int) -> int:
    if deadline_ns and start_by_ns:
        return min(deadline_ns, start_by_ns)
    return deadline_ns or start_by_ns

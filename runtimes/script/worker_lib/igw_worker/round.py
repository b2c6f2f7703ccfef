"""One parcel in a worker: what becomes of its requests, as it becomes known, told to the scorer and to the crew.

Why: each request of a batch is answered as soon as its answer is made, so that one large result holds up no other and
not all of them are in memory at once.
Units: *_ns monotonic nanoseconds; milliseconds.
Errors: none.
"""

import time
from typing import Any, Callable, Dict, List, Optional

from . import wire
from .batch import Listener
from .forms import Answer
from .host import ScriptHost
from .parcel import Part

# Kind, head and body of a frame, and the number of the request that it is about; 0 for the parcel itself.
Reply = Callable[[int, Optional[Dict[str, Any]], bytes, int], None]


class Round(Listener):
    """`note(deadline_ns)`: what runs now must have ended by then. `answer(answer, request_id)` hands one over."""

    def __init__(
        self,
        host: ScriptHost,
        *,
        note: Callable[[int], None],
        reply: Reply,
        answer: Callable[[Answer, int], None],
    ) -> None:
        self._host = host
        self._note = note
        self._reply = reply
        self._answer = answer
        self._began = time.perf_counter()

    def live(self, parts: List[Part]) -> List[Part]:
        """Those whose run may still begin; the others are told to be too late."""
        now_ns = time.monotonic_ns()
        late = [part for part in parts if 0 < part.due_ns <= now_ns]
        for part in late:
            self.expires(part)
        return [part for part in parts if part not in late]

    def begins(self, deadline_ns: int) -> None:
        self._note(deadline_ns)

    def ran(self, rows: int, run_ms: float, failed: bool) -> None:
        self._reply(wire.RAN, {"rows": rows, "ms": round(run_ms, 3), "failed": failed}, b"", 0)

    def answers(self, part: Part, answer: Answer) -> None:
        self._answer(answer, part.request_id)
        self._host.log_access(part.head, answer, (time.perf_counter() - self._began) * 1000)

    def expires(self, part: Part) -> None:
        self._reply(wire.EXPIRED, None, b"", part.request_id)

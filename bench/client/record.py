"""What one process counts of one step, in slices that are sent on while the step runs. Pure.

What counts: requests that were meant to be sent between `begin_ns` and `end_ns`, whenever they were answered; so
what is slow at the end of a step is not left out. Throughput counts answers by when they came, in the same span.
Units: *_ns monotonic nanoseconds.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.client.ends import CONNECT, FOREVER_NS
from bench.client.latency import Latencies


class Record:
    """Counts since the last `take`. Accepted are answers 200 to 299; other answers are refused."""

    def __init__(self, begin_ns: int = 0, end_ns: int = FOREVER_NS) -> None:
        self.begin_ns = begin_ns
        self.end_ns = end_ns
        self.accepted = Latencies()
        self.refused = Latencies()
        self.lag = Latencies()
        self.loop_lag = Latencies()
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.accepted_in_time = 0
        self.refused_in_time = 0
        self.mismatches = 0

    def answered(self, due_ns: int, now_ns: int, status: int) -> None:
        """On the hot path."""
        begin_ns, end_ns = self.begin_ns, self.end_ns
        is_accepted = 200 <= status < 300
        if begin_ns <= now_ns < end_ns:
            if is_accepted:
                self.accepted_in_time += 1
            else:
                self.refused_in_time += 1
        if begin_ns <= due_ns < end_ns:
            self.statuses[status] += 1
            (self.accepted if is_accepted else self.refused).record(now_ns - due_ns)

    def failed(self, due_ns: int, why: str) -> None:
        if self.begin_ns <= due_ns < self.end_ns:
            self.errors[why] += 1

    def sent_late(self, due_ns: int, now_ns: int) -> None:
        """How long after its time a request was sent, where a connection was free for it. On the hot path."""
        if self.begin_ns <= due_ns < self.end_ns:
            self.lag.record(now_ns - due_ns)

    def held_up(self, due_ns: int, now_ns: int) -> None:
        """How long after its time a turn of the event loop came."""
        if self.begin_ns <= due_ns < self.end_ns:
            self.loop_lag.record(max(0, now_ns - due_ns))

    def differs(self) -> None:
        self.mismatches += 1

    def take(self) -> dict[str, Any]:
        """The counts as plain data; they start again at zero."""
        taken = {
            "accepted": self.accepted.encode(),
            "refused": self.refused.encode(),
            "lag": self.lag.encode(),
            "loop_lag": self.loop_lag.encode(),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "errors": dict(self.errors),
            "accepted_in_time": self.accepted_in_time,
            "refused_in_time": self.refused_in_time,
            "mismatches": self.mismatches,
        }
        for latencies in (self.accepted, self.refused, self.lag, self.loop_lag):
            latencies.clear()
        self.statuses.clear()
        self.errors.clear()
        self.accepted_in_time = self.refused_in_time = self.mismatches = 0
        return taken


class Sums:
    """Slices of many processes, added up."""

    def __init__(self) -> None:
        self.accepted = Latencies()
        self.refused = Latencies()
        self.lag = Latencies()
        self.loop_lag = Latencies()
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.accepted_in_time = 0
        self.refused_in_time = 0
        self.mismatches = 0

    def add(self, taken: dict[str, Any]) -> None:
        for name in ("accepted", "refused", "lag", "loop_lag"):
            getattr(self, name).add_encoded(taken[name])
        self.statuses.update({int(status): count for status, count in taken["statuses"].items()})
        self.errors.update(taken["errors"])
        self.accepted_in_time += taken["accepted_in_time"]
        self.refused_in_time += taken["refused_in_time"]
        self.mismatches += taken["mismatches"]

    def merge(self, other: Sums) -> None:
        for name in ("accepted", "refused", "lag", "loop_lag"):
            getattr(self, name).add(getattr(other, name))
        self.statuses.update(other.statuses)
        self.errors.update(other.errors)
        self.accepted_in_time += other.accepted_in_time
        self.refused_in_time += other.refused_in_time
        self.mismatches += other.mismatches

    @property
    def failed(self) -> int:
        """Requests without an answer."""
        return sum(count for why, count in self.errors.items() if why != CONNECT)

    @property
    def asked(self) -> int:
        """All requests that were meant to be sent."""
        return sum(self.statuses.values()) + self.failed

    @property
    def error_ratio(self) -> float:
        """The part of them that was not accepted; where there were none at all, everything failed."""
        accepted = sum(count for status, count in self.statuses.items() if 200 <= status < 300)
        return 1 - accepted / self.asked if self.asked else 1.0

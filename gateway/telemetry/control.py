"""What the control plane counts: changes, requests to the management listener, and transactions of the store.

Plain integers, as record.py has them for scoring; metrics.py shows them. Nothing here is on the way of a score.
Units: *_ns nanoseconds; bytes as on the disk; traffic in percent.
Bounds: every key that is counted by is one of a fixed set; refusals are by status, of which errors.py has the table.
Threads: the supervisor's loop only.
Errors: none.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.telemetry.record import Histogram
from gateway.telemetry.totals import HistogramTotals
from runtimes import now_ns

_MS = 1_000_000
_S = 1_000_000_000

# A change of traffic takes milliseconds, one that loads and warms a large model minutes.
OPERATION_EDGES_NS = (50 * _MS, 250 * _MS, _S, 5 * _S, 30 * _S, 120 * _S, 600 * _S)
STORE_EDGES_NS = (1 * _MS, 5 * _MS, 20 * _MS, 100 * _MS, 500 * _MS, 2_500 * _MS)

ACTIONS = ("create", "update", "delete", "regenerate", "apply")
OUTCOMES = ("succeeded", "failed")
KINDS = ("read", "change", "blob")
CLASSES = ("2xx", "3xx", "4xx", "5xx")
MODES = ("read", "write")
STATES = ("serving", "degraded", "update_failed", "failed")

Outcome = Literal["succeeded", "failed"]

_READS = ("GET", "HEAD", "OPTIONS")


@dataclass(slots=True)
class Running:
    """An operation under way; who carries it out says how it ended."""

    outcome: Outcome | None = None


class OperationsRecord:
    """Operations by how they ended, and how long they were carried out."""

    def __init__(self, clock: Callable[[], int] = now_ns) -> None:
        self._clock = clock
        self.under_way = 0
        self.ended = dict.fromkeys(((action, outcome) for action in ACTIONS for outcome in OUTCOMES), 0)
        self._time = Histogram(OPERATION_EDGES_NS)

    @contextlib.contextmanager
    def running(self, action: str) -> Iterator[Running]:
        """One that leaves without an outcome, for the gateway ends, is counted by the gateway that resumes it."""
        began_ns, running = self._clock(), Running()
        self.under_way += 1
        try:
            yield running
        finally:
            self.under_way -= 1
            if running.outcome is not None:
                self.ended[action, running.outcome] += 1
                self._time.observe(self._clock() - began_ns)

    def ended_at_once(self, action: str) -> None:
        """One that is done with the transaction that accepted it."""
        self.ended[action, "succeeded"] += 1
        self._time.observe(0)

    def totals(self) -> HistogramTotals:
        return self._time.totals(1000)


class DoorRecord:
    """Answers of the management listener: by kind of request and class of status, and refusals by status."""

    def __init__(self) -> None:
        self.answers = dict.fromkeys(((kind, status) for kind in KINDS for status in CLASSES), 0)
        self.refused: Counter[int] = Counter()

    def answered(self, method: str, status: int, *, is_blob: bool = False) -> None:
        kind = "blob" if is_blob else "read" if method in _READS else "change"
        self.answers[kind, f"{status // 100}xx"] += 1
        if status >= 400:
            self.refused[status] += 1


class StoreRecord:
    """Transactions, from being asked for to their end: what waits for the one thread waits in here too."""

    def __init__(self) -> None:
        self._time = {mode: Histogram(STORE_EDGES_NS) for mode in MODES}
        self.busy = 0

    def ended(self, *, writes: bool, took_ns: int) -> None:
        self._time["write" if writes else "read"].observe(took_ns)

    def totals(self) -> dict[str, HistogramTotals]:
        return {mode: one.totals(1000) for mode, one in self._time.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFacts:
    """A rollout that is not over. `percent`: what its step gives the new deployment of what both have."""

    endpoint: str
    percent: int
    is_paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlFacts:
    """The counts of a moment; without arguments, those of a gateway that has done nothing. Times are in microseconds.

    `operations` by action and outcome; `requests` by kind and class of status; `refused` by status; `store_time` by
    read and write; `deployments` by state.
    """

    operations: Mapping[tuple[str, str], int] = field(default_factory=lambda: OperationsRecord().ended)
    operations_under_way: int = 0
    operation_time: HistogramTotals = field(default_factory=lambda: OperationsRecord().totals())
    requests: Mapping[tuple[str, str], int] = field(default_factory=lambda: DoorRecord().answers)
    refused: Mapping[int, int] = field(default_factory=dict)
    store_time: Mapping[str, HistogramTotals] = field(default_factory=lambda: StoreRecord().totals())
    store_busy: int = 0
    assets_bytes: int = 0
    assets_bytes_max: int = 0
    deployments: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    rollouts: tuple[RolloutFacts, ...] = ()

"""What was measured, as plain values: steps, their windows and timeline, and what they say of the client. Pure.

Units: *_s seconds, *_ms milliseconds, rates a second; shares are parts of one core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.client.ends import CONNECT, LOST, NO_HTTP, TIMEOUT, UNANSWERED
from bench.client.latency import Latencies
from bench.client.record import Sums
from bench.client.settle import Settled, Window

PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)
# Where the curve of percentiles is drawn, and written as JSON.
CURVE = (
    *(1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0, 96.0, 97.0, 98.0, 98.5),
    *(99.0, 99.2, 99.4, 99.5, 99.6, 99.7, 99.8, 99.85, 99.9, 99.92, 99.94, 99.95, 99.96, 99.97, 99.98, 99.99),
)
# A process that needs more of a core than this cannot send more, whatever the server does.
CORE_SHARE_MAX = 0.85
# Later than this, and by more than that part of the p99, and the p99 is partly the client's.
LAG_P99_MAX_MS = 1.0
LOOP_LAG_P99_MAX_MS = 5.0
LAG_PART = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A generator process while it measured: the part of a core it used, and the part it waited for one."""

    used: float
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A slice of time, `at_s` after the warm-up."""

    at_s: float
    seconds: float
    accepted: int
    refused: int
    failed: int
    p50_ms: float
    p99_ms: float
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One load, held for `seconds`. `rate` None is a closed loop; `note` says what cut the step short."""

    connections: int
    rate: float | None
    seconds: float
    sums: Sums
    windows: Sequence[Window]
    settled: Settled
    timeline: Sequence[Point]
    processes: Sequence[Process]
    note: str = ""
    mismatches: int = 0

    @property
    def label(self) -> str:
        if self.rate is None:
            return f"{self.connections} connection{'s' if self.connections != 1 else ''}"
        return f"{self.rate:,.6g}/s"

    @property
    def accepted_rate(self) -> float:
        return self.sums.accepted_in_time / self.seconds if self.seconds else 0.0

    @property
    def refused_rate(self) -> float:
        return self.sums.refused_in_time / self.seconds if self.seconds else 0.0

    def p_ms(self, percent: float) -> float:
        return self.sums.accepted.percentile_ns(percent) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run: `search` is the outcome of --find-rate in a sentence, `failures` what was asked and not met."""

    target: Mapping[str, Any]
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    measured_at: str
    steps: Sequence[Step]
    best_rate: float | None = None
    search: str = ""
    failures: Sequence[str] = field(default=())
    interrupted: bool = False

    @property
    def warnings(self) -> list[str]:
        """Each once, with the step it was seen in."""
        return [f"{step.label}: {said}" for step in self.steps for said in bottlenecks(step)]


def bottlenecks(step: Step) -> list[str]:
    """Where the client itself was the limit, in sentences; none where it was not."""
    found = []
    for number, process in enumerate(step.processes):
        if process.used + process.waited > CORE_SHARE_MAX:
            found.append(
                f"the client was the bottleneck: generator process {number} needed "
                f"{process.used + process.waited:.2f} of a core (used {process.used:.2f}, waited for one "
                f"{process.waited:.2f})"
            )
    p99_ms = step.p_ms(99)
    for latencies, most_ms, what in (
        (step.sums.lag, LAG_P99_MAX_MS, "sent 1 in 100 requests at least"),
        (step.sums.loop_lag, LOOP_LAG_P99_MAX_MS, "was held up, 1 time in 100, for at least"),
    ):
        lag_ms = latencies.percentile_ns(99) / 1e6
        if lag_ms > most_ms and lag_ms > LAG_PART * p99_ms:
            late = " late" if latencies is step.sums.lag else ""
            found.append(f"the client was the bottleneck: it {what} {lag_ms:.1f} ms{late}")
    return found


def shortfalls(step: Step, slo_p99_ms: float | None, error_ratio_max: float | None) -> list[str]:
    """What the step does not meet of what was asked, in sentences."""
    found = []
    p99_ms, ratio = step.p_ms(99), step.sums.error_ratio
    if slo_p99_ms is not None and not step.sums.accepted.count:
        found.append("no request was accepted")
    elif slo_p99_ms is not None and p99_ms > slo_p99_ms:
        found.append(f"p99 {p99_ms:.2f} ms is over {slo_p99_ms:g} ms")
    if error_ratio_max is not None and ratio > error_ratio_max:
        found.append(f"{ratio:.2%} of the requests were not accepted, more than {error_ratio_max:.2%}")
    return found


def summary(latencies: Latencies) -> dict[str, Any]:
    """Count, mean, percentiles and maximum in ms; the histogram itself, so that reports can be merged."""
    count = latencies.count
    if not count:
        return {"count": 0}
    return {
        "count": count,
        "mean_ms": latencies.mean_ns / 1e6,
        **{f"p{percent:g}_ms": latencies.percentile_ns(percent) / 1e6 for percent in PERCENTS},
        "max_ms": latencies.max_ns / 1e6,
        "curve": [[percent, latencies.percentile_ns(percent) / 1e6] for percent in CURVE],
        "hdr_ns": latencies.encode(),
    }


def as_json(report: Report) -> dict[str, Any]:
    """The report as `--json` writes it."""
    return {
        "tool": "gateway bench",
        "measured_at": report.measured_at,
        "target": dict(report.target),
        "settings": dict(report.settings),
        "machine": dict(report.machine),
        "interrupted": report.interrupted,
        "best_rate": report.best_rate,
        "search": report.search,
        "failures": list(report.failures),
        "client_was_bottleneck": bool(report.warnings),
        "warnings": report.warnings,
        "steps": [_step_json(step) for step in report.steps],
    }


def _step_json(step: Step) -> dict[str, Any]:
    sums = step.sums
    return {
        "connections": step.connections,
        "rate_asked": step.rate,
        "seconds": step.seconds,
        "accepted_rate": step.accepted_rate,
        "refused_rate": step.refused_rate,
        "requests": sums.asked,
        "error_ratio": sums.error_ratio,
        "accepted": summary(sums.accepted),
        "refused": summary(sums.refused),
        "statuses": {str(status): count for status, count in sorted(sums.statuses.items())},
        "errors": {why: sums.errors.get(why, 0) for why in (LOST, TIMEOUT, UNANSWERED, NO_HTTP, CONNECT)},
        "mismatches": step.mismatches,
        "settled": step.settled.yes,
        "why": step.settled.why,
        "note": step.note,
        "windows": [
            {"rate": one.rate, "p99_ms": one.p99_ms, "failed_ratio": one.failed_ratio} for one in step.windows
        ],
        "timeline": [
            {
                "at_s": point.at_s,
                "accepted_rate": point.accepted / point.seconds,
                "refused_rate": point.refused / point.seconds,
                "failed": point.failed,
                "p50_ms": point.p50_ms,
                "p99_ms": point.p99_ms,
                "waiting": point.waiting,
            }
            for point in step.timeline
        ],
        "client": {
            "processes": [{"core_used": one.used, "core_waited_for": one.waited} for one in step.processes],
            "send_lag_p99_ms": sums.lag.percentile_ns(99) / 1e6,
            "loop_lag_p99_ms": sums.loop_lag.percentile_ns(99) / 1e6,
            "was_bottleneck": bool(bottlenecks(step)),
        },
    }

"""How the copies that a mirror's target answered compare with the live answers: counted, and told in its status.

Each copy ends in one of two ways: compared whole, or counted under one of SKIPPED. One of UNLIKE says that some
output could not be compared; what could be is counted all the same. `script`: a scoring script answered one of the
two, and has no outputs.
Units: differences of values in the outputs' own; of times in nanoseconds, the copy's minus the live request's, so
above 0 the target is slower. An upper edge belongs to its bucket.
Why no sums of the differences of values: sums of doubles depend on their order, and scorers' must add up exactly.
Threads: a record is written and read by the scorer's loop only.
Errors: none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from gateway.telemetry.totals import ComparisonTotals, DeploymentTotals, HistogramTotals, ScorerTotals

# Why an output was not compared; where several hold for one copy, the first is counted.
UNLIKE = ("names", "datatype", "shape", "too_large")
SKIPPED = ("dropped", "failed", "live_failed", *UNLIKE, "script", "error")

DIFFERENCE_EDGES = (0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_LATER_US = (50, 250, 1_000, 5_000, 25_000, 100_000, 500_000)
LATENCY_EDGES_NS = tuple(us * 1000 for us in (*(-us for us in reversed(_LATER_US)), 0, *_LATER_US))

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class ComparisonRecord:
    """What one scorer counts for one target of copies."""

    __slots__ = ("_agreeing", "_difference", "_latency", "_latency_ns", "_nonfinite", "_rows", "_skipped")

    def __init__(self) -> None:
        self._rows = self._agreeing = self._nonfinite = self._latency_ns = 0
        # All reasons are there from the start: a rate over a series needs its zero.
        self._skipped = dict.fromkeys(SKIPPED, 0)
        self._difference = [0] * (len(DIFFERENCE_EDGES) + 1)
        self._latency = [0] * (len(LATENCY_EDGES_NS) + 1)

    def skipped(self, reason: str) -> None:
        """A copy was not compared, or not whole, for one of SKIPPED."""
        self._skipped[reason] += 1

    def timed(self, difference_ns: int) -> None:
        """A copy of a request that was answered was answered too."""
        self._latency[bisect_left(LATENCY_EDGES_NS, difference_ns)] += 1
        self._latency_ns += difference_ns

    def compared(self, rows: int, agreeing: int, difference: float | None, nonfinite: bool) -> None:
        """One copy's outputs. `difference`: the largest, None where there were no numbers. With `nonfinite`, a number
        stood against NaN or an infinity: that is beyond every edge."""
        self._rows += rows
        self._agreeing += agreeing
        if nonfinite:
            self._nonfinite += 1
            self._difference[-1] += 1
        elif difference is not None:
            self._difference[bisect_left(DIFFERENCE_EDGES, difference)] += 1

    def snapshot(self) -> ComparisonTotals:
        return ComparisonTotals(
            rows=self._rows,
            agreeing=self._agreeing,
            nonfinite=self._nonfinite,
            skipped=dict(self._skipped),
            difference=HistogramTotals(tuple(self._difference), 0),
            latency=HistogramTotals(tuple(self._latency), self._latency_ns // 1000),
        )


def mirror_status(totals: ScorerTotals, endpoint: str, deployment: str) -> dict[str, Any] | None:
    """How the deployment compares with those that it gets copies from, for its status; None where it never was to get
    any. Names as the totals have them: lower-cased."""
    found = totals.endpoints.get(endpoint)
    one = found.deployments.get(deployment) if found is not None else None
    return None if one is None or one.comparison is None else _status(one, one.comparison)


def _status(one: DeploymentTotals, compared: ComparisonTotals) -> dict[str, Any]:
    has_differences = compared.difference.count > 0
    return {
        "copies": dict(one.mirrored),
        "skipped": {reason: count for reason, count in compared.skipped.items() if count},
        "compared_rows": compared.rows,
        "top1_agreement": compared.agreeing / compared.rows if compared.rows else None,
        "max_abs_difference": one.max_abs_difference if has_differences else None,
        "nonfinite": compared.nonfinite,
        "latency_difference_ms": _latency(compared.latency),
    }


def _latency(totals: HistogramTotals) -> dict[str, float] | None:
    """The mean is exact; the others are right to the bucket that they fall in."""
    if not totals.count:
        return None
    told = {"mean": totals.total / totals.count / 1000}
    return told | {name: _quantile(LATENCY_EDGES_NS, totals.counts, share) / 1e6 for name, share in _SHARES.items()}


def _quantile(edges: Sequence[int], counts: Sequence[int], share: float) -> float:
    """As Prometheus has it: linear within a bucket, and an outermost bucket is its one edge."""
    rank, below, at = share * sum(counts), 0, 0
    while at < len(edges) and below + counts[at] < rank:
        below += counts[at]
        at += 1
    if at in (0, len(edges)):
        return edges[min(at, len(edges) - 1)]
    low = edges[at - 1]
    return low + (edges[at] - low) * (rank - below) / counts[at]

"""What both deployments did between two reports of the scorers: requests, failures and durations.

Exactness: counts are exact. Durations are known by bucket (telemetry/record.py, DURATION_EDGES_NS): within one they
are taken to lie evenly, and above the last edge, 10 s, to be 10 s. Equal distributions give equal percentiles.
What is counted: every request that reached the deployment, also those that named it in a header; copies of mirrored
traffic are not. A failure is an answer 408, 424, 429 or 5xx, or a caller who left before the answer: what a slow or
overloaded deployment causes. Other 4xx are the caller's.
Units: *_s seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.telemetry.record import DURATION_EDGES_NS
from gateway.telemetry.totals import DeploymentTotals, ScorerTotals

_FAILURES = (408, 424, 429)
_EDGES_S = tuple(edge / 1e9 for edge in DURATION_EDGES_NS)
_BUCKETS = len(_EDGES_S) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One deployment in a window. `durations`: answers by bucket; those who left early have no duration."""

    requests: int = 0
    failures: int = 0
    durations: tuple[int, ...] = (0,) * _BUCKETS

    @property
    def failure_ratio(self) -> float:
        return self.failures / self.requests if self.requests else 0.0

    @property
    def answers(self) -> int:
        return sum(self.durations)

    @property
    def p99_s(self) -> float:
        """The 99th percentile of the durations, 0 without any."""
        return quantile_s(self.durations, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Both deployments in one window."""

    old: Seen = Seen()
    new: Seen = Seen()


def observe(begin: ScorerTotals, end: ScorerTotals, endpoint: str, old: str, new: str) -> Observation | None:
    """What happened between the reports; None where counters went back, as those of a deployment that was deleted and
    made again do: then the window has to begin anew."""
    both = [_between(_counted(begin, endpoint, name), _counted(end, endpoint, name)) for name in (old, new)]
    if both[0] is None or both[1] is None:
        return None
    return Observation(old=both[0], new=both[1])


def quantile_s(durations: Sequence[int], part: float) -> float:
    """The duration that this part of the answers does not exceed; 0 without answers."""
    rank = part * sum(durations)
    for bucket, count in enumerate(durations[:-1]):
        if count and rank <= count:
            low, high = _bounds(bucket)
            return low + (high - low) * rank / count
        rank -= count
    return _EDGES_S[-1] if durations[-1] else 0.0


def slower(durations: Sequence[int], limit_s: float) -> float:
    """How many answers took longer than the limit."""
    count = float(durations[-1]) if limit_s < _EDGES_S[-1] else 0.0
    for bucket, inside in enumerate(durations[:-1]):
        low, high = _bounds(bucket)
        count += inside * min(1.0, max(0.0, (high - limit_s) / (high - low)))
    return count


def _bounds(bucket: int) -> tuple[float, float]:
    return (_EDGES_S[bucket - 1] if bucket else 0.0, _EDGES_S[bucket])


def _counted(totals: ScorerTotals, endpoint: str, deployment: str) -> Seen:
    """All that was ever counted of a deployment, nothing where no scorer knows it."""
    found = totals.endpoints.get(endpoint)
    record = found.deployments.get(deployment) if found is not None else None
    return Seen() if record is None else _seen(record)


def _seen(record: DeploymentTotals) -> Seen:
    failed = sum(count for code, count in record.codes.items() if code in _FAILURES or code >= 500)
    return Seen(
        requests=sum(record.codes.values()) + record.hung_up,
        failures=failed + record.hung_up,
        durations=record.duration.counts,
    )


def _between(begin: Seen, end: Seen) -> Seen | None:
    durations = tuple(b - a for a, b in zip(begin.durations, end.durations, strict=True))
    requests, failures = end.requests - begin.requests, end.failures - begin.failures
    if requests < 0 or failures < 0 or min(durations) < 0:
        return None
    return Seen(requests=requests, failures=failures, durations=durations)

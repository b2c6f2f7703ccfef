"""What is read from two reports of the scorers."""

from __future__ import annotations

import pytest

from gateway.controlplane.rollout.observe import Observation, Seen, observe, quantile_s, slower
from gateway.telemetry.record import DURATION_EDGES_NS, ScorerRecord
from gateway.telemetry.totals import ScorerTotals

MS = 1_000_000
BUCKETS = len(DURATION_EDGES_NS) + 1


def between(first: ScorerRecord, begin: ScorerTotals) -> Observation:
    seen = observe(begin, first.snapshot(), "e1", "blue", "green")
    assert seen is not None
    return seen


def test_only_the_window_counts() -> None:
    record = ScorerRecord()
    blue = record.deployment("e1", "blue")
    blue.answered(500, 3 * MS)
    begin = record.snapshot()
    blue.answered(200, 3 * MS)
    assert between(record, begin).old == Seen(
        requests=1, failures=0, durations=tuple(1 if edge == 3 else 0 for edge in range(BUCKETS))
    )


@pytest.mark.parametrize(
    ("code", "failures"),
    [(200, 0), (400, 0), (401, 0), (404, 0), (413, 0), (408, 1), (424, 1), (429, 1), (500, 1), (503, 1), (504, 1)],
)
def test_a_failure_is_what_the_deployment_causes(code: int, failures: int) -> None:
    record = ScorerRecord()
    record.deployment("e1", "green").answered(code, MS)
    seen = between(record, ScorerTotals()).new
    assert (seen.requests, seen.failures, seen.failure_ratio) == (1, failures, float(failures))


def test_callers_who_left_are_failures_without_a_duration() -> None:
    record = ScorerRecord()
    record.deployment("e1", "green").hung_up()
    seen = between(record, ScorerTotals()).new
    assert (seen.requests, seen.failures, seen.answers, seen.p99_s) == (1, 1, 0, 0.0)


def test_a_deployment_that_nobody_asked_has_seen_nothing() -> None:
    assert between(ScorerRecord(), ScorerTotals()) == Observation()
    record = ScorerRecord()
    record.deployment("e1", "red")
    assert between(record, record.snapshot()) == Observation()


def test_counters_that_went_back_are_no_observation() -> None:
    record = ScorerRecord()
    record.deployment("e1", "green").answered(200, MS)
    assert observe(record.snapshot(), ScorerTotals(), "e1", "blue", "green") is None
    other = ScorerRecord()
    other.deployment("e1", "green").answered(200, 9 * MS)
    assert observe(record.snapshot(), other.snapshot(), "e1", "blue", "green") is None


def test_a_percentile_lies_within_its_bucket() -> None:
    durations = [0] * BUCKETS
    durations[2] = 100  # 1 to 2.5 ms
    assert quantile_s(durations, 0.5) == pytest.approx(0.00175)
    assert quantile_s(durations, 1.0) == pytest.approx(0.0025)
    assert quantile_s([0] * BUCKETS, 0.99) == 0.0
    durations[-1] = 100
    assert quantile_s(durations, 0.99) == 10.0


def test_slower_counts_what_lies_above() -> None:
    durations = [0] * BUCKETS
    durations[2], durations[-1] = 100, 7
    assert slower(durations, 0.0) == 107
    assert slower(durations, 0.001) == 107
    assert slower(durations, 0.00175) == pytest.approx(57)
    assert slower(durations, 0.0025) == 7
    assert slower(durations, 10.0) == 0

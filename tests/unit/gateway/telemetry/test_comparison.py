"""What is counted of copies that were compared, how scorers' counts add up, and what the status says of them."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.telemetry.comparison import (
    DIFFERENCE_EDGES,
    LATENCY_EDGES_NS,
    SKIPPED,
    UNLIKE,
    ComparisonRecord,
    mirror_status,
)
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import ScorerTotals, add, fold

MS = 1_000_000


def test_edges_rise_and_those_of_times_are_symmetric() -> None:
    for edges in (DIFFERENCE_EDGES, LATENCY_EDGES_NS):
        assert all(low < high for low, high in itertools.pairwise(edges))
    assert tuple(-edge for edge in reversed(LATENCY_EDGES_NS)) == LATENCY_EDGES_NS
    assert set(UNLIKE) <= set(SKIPPED)


def test_a_copy_is_counted_by_its_largest_difference() -> None:
    record = ComparisonRecord()
    record.compared(3, 2, 0.0, False)
    record.compared(1, 1, 1e-7, False)
    record.compared(1, 1, 2e-7, False)
    record.compared(1, 0, 1e9, False)
    record.compared(1, 0, 0.5, True)
    record.compared(5, 5, None, False)
    totals = record.snapshot()
    assert (totals.rows, totals.agreeing, totals.nonfinite) == (12, 9, 1)
    assert totals.difference.counts == (1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2)


def test_times_may_be_below_zero() -> None:
    record = ComparisonRecord()
    for difference_ns in (-700 * MS, -MS, 0, 1, 700 * MS):
        record.timed(difference_ns)
    totals = record.snapshot().latency
    assert totals.counts == (1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1)
    assert totals.total == -1000


def test_all_reasons_are_there_from_the_start() -> None:
    record = ComparisonRecord()
    record.skipped("shape")
    assert record.snapshot().skipped == dict.fromkeys(SKIPPED, 0) | {"shape": 1}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("compared"), st.integers(0, 9), st.one_of(st.none(), st.floats(0, 1e6)), st.booleans()),
        st.tuples(st.just("timed"), st.integers(-(10**12), 10**12), st.none(), st.booleans()),
        st.tuples(st.just("skipped"), st.sampled_from(SKIPPED), st.none(), st.booleans()),
        st.tuples(st.just("nothing"), st.none(), st.none(), st.booleans()),
    ),
    max_size=8,
)


Step = tuple[str, int | str | None, float | None, bool]


def _scorer(steps: list[Step]) -> ScorerTotals:
    record = ScorerRecord()
    one = record.deployment("e", "green")
    for verb, first, difference, nonfinite in steps:
        match verb, first:
            case "compared", int(rows):
                one.comparison().compared(rows, rows // 2, difference, nonfinite)
                one.max_abs_difference = max(one.max_abs_difference, difference or 0.0)
            case "timed", int(difference_ns):
                one.comparison().timed(difference_ns)
            case "skipped", str(reason):
                one.comparison().skipped(reason)
    return record.snapshot()


@settings(max_examples=60, deadline=None)
@given(st.tuples(STEPS, STEPS, STEPS))
def test_scorers_add_up_exactly_in_any_order(steps: tuple[list[Step], list[Step], list[Step]]) -> None:
    a, b, c = (_scorer(each) for each in steps)
    assert add(add(a, b), c) == add(a, add(b, c)) == add(c, add(b, a))
    assert add(a, ScorerTotals()) == a == add(ScorerTotals(), a)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(a), type=ScorerTotals) == a
    totals = add(add(a, b), c).endpoints["e"].deployments["green"]
    flat = [step for each in steps for step in each]
    if totals.comparison is None:
        assert all(step[0] == "nothing" for step in flat)
        return
    assert totals.comparison.rows == sum(int(step[1] or 0) for step in flat if step[0] == "compared")
    assert totals.comparison.latency.count == sum(step[0] == "timed" for step in flat)
    assert sum(totals.comparison.skipped.values()) == sum(step[0] == "skipped" for step in flat)
    largest = max((step[2] for step in flat if step[2] is not None), default=0.0)
    assert totals.max_abs_difference == largest


def test_a_dead_scorer_leaves_its_counts_and_takes_its_largest_difference() -> None:
    dead = _scorer([("compared", 4, 2.5, False)])
    kept = fold(dead).endpoints["e"].deployments["green"]
    assert kept.max_abs_difference == 0.0
    assert kept.comparison == dead.endpoints["e"].deployments["green"].comparison


def test_the_status_says_nothing_of_a_deployment_that_never_was_to_get_copies() -> None:
    totals = _scorer([])
    assert mirror_status(totals, "e", "green") is None
    assert mirror_status(totals, "e", "blue") is None
    assert mirror_status(totals, "f", "green") is None


def test_the_status_of_a_target_without_copies_has_no_shares() -> None:
    record = ScorerRecord()
    record.deployment("e", "green").comparison()
    status = mirror_status(record.snapshot(), "e", "green")
    assert status == {
        "copies": {"answered": 0, "dropped": 0, "failed": 0},
        "skipped": {},
        "compared_rows": 0,
        "top1_agreement": None,
        "max_abs_difference": None,
        "nonfinite": 0,
        "latency_difference_ms": None,
    }


def test_the_status_sums_over_scorers() -> None:
    one = _scorer([("compared", 4, 0.5, False), ("timed", 2 * MS, None, False), ("skipped", "failed", None, False)])
    two = _scorer([("compared", 4, 0.25, True), ("timed", -MS, None, False)])
    status = mirror_status(add(one, two), "e", "green")
    assert status is not None
    assert (status["compared_rows"], status["top1_agreement"], status["max_abs_difference"]) == (8, 0.5, 0.5)
    assert (status["skipped"], status["nonfinite"]) == ({"failed": 1}, 1)
    assert status["latency_difference_ms"]["mean"] == 0.5


@pytest.mark.parametrize(
    ("times_ms", "p50", "p99"),
    [
        ([0.0], 0.0, 0.0),
        ([-2000.0], -500.0, -500.0),
        ([2000.0], 500.0, 500.0),
        ([3.0] * 100, 3.0, 4.96),
        ([-3.0] * 50 + [3.0] * 50, -1.0, 4.92),
    ],
)
def test_shares_of_times_are_right_to_their_bucket(times_ms: list[float], p50: float, p99: float) -> None:
    record = ScorerRecord()
    for time_ms in times_ms:
        record.deployment("e", "green").comparison().timed(int(time_ms * MS))
    status = mirror_status(record.snapshot(), "e", "green")
    assert status is not None
    found = status["latency_difference_ms"]
    assert found["mean"] == pytest.approx(sum(times_ms) / len(times_ms))
    assert found["p50"] == pytest.approx(p50, abs=0.05)
    assert found["p99"] == pytest.approx(p99, abs=0.05)
    assert found["p50"] <= found["p90"] <= found["p99"]

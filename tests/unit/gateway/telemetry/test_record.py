"""What a scorer counts: histograms, deployments, endpoints, and their snapshot."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.record import (
    BATCH_SIZES_MAX,
    DURATION_EDGES_NS,
    REASONS,
    STAGE_EDGES_NS,
    DeploymentRecord,
    EndpointRecord,
    Histogram,
    ScorerRecord,
)
from gateway.telemetry.totals import RunTotals, ScorerTotals
from runtimes import Observer

MS = 1_000_000


def test_a_value_on_an_edge_belongs_to_that_edge() -> None:
    histogram = Histogram((10, 20))
    for value in (10, 11, 20, 21):
        histogram.observe(value)
    assert histogram.counts == [1, 2, 1]
    assert histogram.totals().total == 62


@pytest.mark.parametrize("edges", [DURATION_EDGES_NS, STAGE_EDGES_NS])
def test_edges_rise(edges: tuple[int, ...]) -> None:
    assert all(low < high for low, high in itertools.pairwise(edges))


@given(st.lists(st.integers(min_value=0, max_value=2**62)))
def test_a_histogram_loses_nothing(values: list[int]) -> None:
    histogram = Histogram(DURATION_EDGES_NS)
    for value in values:
        histogram.observe(value)
    totals = histogram.totals(1000)
    assert totals.count == len(values)
    assert totals.total == sum(values) // 1000
    for edge, below in zip(DURATION_EDGES_NS, itertools.accumulate(totals.counts), strict=False):
        assert below == sum(value <= edge for value in values)


def test_an_answer_is_counted_by_code_and_stage() -> None:
    record = DeploymentRecord()
    record.answered(200, 9 * MS, 1 * MS, 2 * MS, 3 * MS, 4 * MS, 5 * MS)
    record.answered(200, 1 * MS, 1 * MS, 1 * MS, 1 * MS, 1 * MS)
    record.answered(400, 1 * MS, 1 * MS)
    totals = record.snapshot()
    assert totals.codes == {200: 2, 400: 1}
    assert totals.duration.count == 3
    assert totals.duration.total == 11_000
    assert totals.succeeded_us == 10_000
    counts = [totals.parse.count, totals.queue.count, totals.batch_wait.count, totals.infer.count]
    assert counts == [3, 2, 1, 2]
    assert totals.serialize.total == 5_000


def test_a_stage_that_was_not_reached_is_not_observed() -> None:
    record = DeploymentRecord()
    record.answered(429, MS, 0, -5, 0, -7_000_000_000, -1)
    totals = record.snapshot()
    assert totals.duration.count == 1
    stages = (totals.parse, totals.queue, totals.batch_wait, totals.infer, totals.serialize)
    assert [stage.count for stage in stages] == [0] * 5


def test_runs_are_counted_by_batch_size_and_failed_ones_apart() -> None:
    times = iter((50, 70, 90))
    record = DeploymentRecord(clock=lambda: next(times))
    observer: Observer = record
    observer.ran(4, 2, 1000, False)
    observer.ran(4, 4, 3000, False)
    observer.ran(1, 1, 500, False)
    observer.ran(8, 3, 9999, True)
    totals = record.snapshot()
    assert (totals.runs, totals.rows, totals.items, totals.run_ns, totals.failed_runs) == (3, 9, 7, 4500, 1)
    assert totals.by_rows == {4: RunTotals(2, 4000), 1: RunTotals(1, 500)}
    assert totals.last_run_ns == 90
    assert totals.batch_size.count == 4
    assert totals.batch_size.total == 17


def test_the_number_of_batch_sizes_is_bounded() -> None:
    record = DeploymentRecord(clock=lambda: 0)
    for rows in range(1, BATCH_SIZES_MAX + 10):
        record.ran(rows, 1, 1, False)
    record.ran(1, 1, 1, False)
    totals = record.snapshot()
    assert len(totals.by_rows) == BATCH_SIZES_MAX
    assert totals.by_rows[1].count == 2
    assert totals.runs == BATCH_SIZES_MAX + 10


def test_what_never_ran_who_left_and_copies_are_counted_apart() -> None:
    record = DeploymentRecord()
    record.expired(3)
    record.cancelled(2)
    record.hung_up()
    for outcome in ("answered", "answered", "dropped"):
        record.mirrored(outcome)
    totals = record.snapshot()
    assert (totals.expired, totals.cancelled, totals.hung_up) == (3, 2, 1)
    assert totals.mirrored == {"answered": 2, "dropped": 1, "failed": 0}


def test_a_record_holds_no_dictionary_of_its_own() -> None:
    for thing in (DeploymentRecord(), EndpointRecord(), ScorerRecord(), Histogram((1,))):
        assert not hasattr(thing, "__dict__")


def test_refusals_have_bounded_reasons_that_start_at_zero() -> None:
    record = EndpointRecord()
    record.rejected("auth")
    record.rejected("something a caller wrote")
    record.refused(401)
    totals = record.snapshot()
    assert set(totals.rejected) == set(REASONS)
    assert {reason: n for reason, n in totals.rejected.items() if n} == {"auth": 1, "invalid": 1}
    assert totals.codes == {401: 1}


def test_a_scorer_reports_everything_it_counted() -> None:
    record = ScorerRecord()
    deployment = record.deployment("digits", "blue")
    deployment.in_flight = 2
    deployment.queue_depth = 1
    deployment.request_bytes += 10
    deployment.response_bytes += 20
    record.endpoint("digits").refused(404)
    record.unknown(404)
    record.unknown(404)
    record.connections_open = 5
    record.connections_refused = 1
    totals = record.snapshot()
    blue = totals.endpoints["digits"].deployments["blue"]
    assert (blue.in_flight, blue.queue_depth, blue.request_bytes, blue.response_bytes) == (2, 1, 10, 20)
    assert totals.endpoints["digits"].codes == {404: 1}
    assert totals.unknown == {404: 2}
    assert (totals.connections_open, totals.connections_refused) == (5, 1)


def test_a_record_is_made_once() -> None:
    record = ScorerRecord()
    assert record.endpoint("digits") is record.endpoint("digits")
    assert record.deployment("digits", "blue") is record.endpoint("digits").deployments["blue"]


def test_a_snapshot_does_not_change_afterwards() -> None:
    record = ScorerRecord()
    deployment = record.deployment("digits", "blue")
    deployment.answered(200, MS)
    deployment.ran(1, 1, 1, False)
    before = record.snapshot()
    deployment.answered(200, MS)
    deployment.ran(1, 1, 1, False)
    record.endpoint("digits").rejected("auth")
    blue = before.endpoints["digits"].deployments["blue"]
    assert blue.codes == {200: 1}
    assert blue.by_rows[1].count == 1
    assert before.endpoints["digits"].rejected["auth"] == 0


def _names(totals: ScorerTotals) -> dict[str, set[str]]:
    return {name: set(endpoint.deployments) for name, endpoint in totals.endpoints.items()}


def test_what_is_deleted_is_forgotten_and_the_rest_goes_on() -> None:
    record = ScorerRecord()
    for endpoint, deployment in (("a", "blue"), ("a", "green"), ("b", "blue"), ("c", "blue")):
        record.deployment(endpoint, deployment).answered(200, MS)
    record.drop("a", "green")
    record.drop("a", "no such")
    record.drop("no such", "blue")
    record.drop("b")
    assert _names(record.snapshot()) == {"a": {"blue"}, "c": {"blue"}}
    record.keep_only({"a": {"blue", "red"}, "new": {"blue"}})
    assert _names(record.snapshot()) == {"a": {"blue"}}
    assert record.snapshot().endpoints["a"].deployments["blue"].codes == {200: 1}
    record.keep_only({"a": set()})
    assert _names(record.snapshot()) == {"a": set()}

"""What a scorer counts: histograms, deployments, endpoints, and their snapshot."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.record import (
    BATCH_SIZES_MAX,
    DURATION_EDGES_NS,
    EDGE_REASONS,
    REASONS,
    STAGE_EDGES_NS,
    DeploymentRecord,
    EndpointRecord,
    Histogram,
    ScorerRecord,
    slo_edge_us,
)
from gateway.telemetry.totals import HistogramTotals, RunTotals, ScorerTotals
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


def test_a_cut_tells_how_many_of_its_bucket_were_at_or_under_it() -> None:
    histogram = Histogram((10, 20, 30))
    histogram.split_at(15)
    for value in (10, 11, 15, 16, 20, 21, 99):
        histogram.observe(value)
    assert histogram.totals() == HistogramTotals((1, 4, 1, 1), 192, 15, 2)


def test_a_cut_may_lie_above_the_last_edge_or_under_the_first() -> None:
    histogram = Histogram((10, 20))
    for edge, below in ((5, 1), (25, 1)):
        histogram.split_at(edge)
        for value in (1, 6, 22, 30):
            histogram.observe(value)
        assert (histogram.totals().slo_us, histogram.totals().below_slo) == (edge, below)
    assert histogram.totals().counts == (4, 0, 4)


@pytest.mark.parametrize("edge", [0, 10, 20])
def test_an_edge_that_is_there_anyway_adds_none(edge: int) -> None:
    histogram = Histogram((10, 20))
    histogram.split_at(15)
    histogram.split_at(edge)
    histogram.observe(15)
    assert histogram.totals() == HistogramTotals((0, 1, 0), 15)
    assert histogram.edges == (10, 20)


@given(
    st.lists(
        st.one_of(st.tuples(st.just("split"), st.integers(0, 50)), st.tuples(st.just("observe"), st.integers(0, 50))),
        max_size=40,
    )
)
def test_a_cut_changes_no_other_count_and_knows_only_what_came_after_it(steps: list[tuple[str, int]]) -> None:
    cut, plain = Histogram((10, 20, 30)), Histogram((10, 20, 30))
    edge, since = 0, list[int]()
    for verb, value in steps:
        if verb == "split":
            since = since if value == edge else []
            edge = value
            cut.split_at(value)
        else:
            since.append(value)
            cut.observe(value)
            plain.observe(value)
    totals = cut.totals()
    assert (totals.counts, totals.total) == (plain.totals().counts, plain.total)
    if edge in (0, 10, 20, 30):
        assert (totals.slo_us, totals.below_slo) == (0, 0)
    else:
        low = max((each for each in (10, 20, 30) if each < edge), default=-1)
        assert (totals.slo_us, totals.below_slo) == (edge, sum(low < value <= edge for value in since))


def test_an_slo_is_kept_by_all_deployments_of_its_endpoint_and_by_those_to_come() -> None:
    record = ScorerRecord()
    early = record.deployment("digits", "blue")
    record.endpoint("digits").keep_slo(12 * MS)
    late = record.deployment("digits", "green")
    other = record.deployment("letters", "blue")
    for one in (early, late, other):
        one.answered(200, 12 * MS)
        one.answered(200, 12 * MS + 1)
    durations = [one.snapshot().duration for one in (early, late, other)]
    assert [(each.slo_us, each.below_slo) for each in durations] == [(12_000, 1), (12_000, 1), (0, 0)]
    assert len({each.counts for each in durations}) == 1


def test_an_slo_on_a_standard_edge_adds_none() -> None:
    assert [slo_edge_us(slo_ns) for slo_ns in (0, 40 * MS, 41 * MS)] == [0, 0, 41_000]


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
    deployment.queue_oldest_ns = 7
    deployment.request_bytes += 10
    deployment.response_bytes += 20
    record.endpoint("digits").refused(404)
    record.unknown(404)
    record.unknown(404)
    record.connections_open = 5
    record.edge_refused({"connections": 1, "slow_head": 3, "something new": 2})
    totals = record.snapshot()
    blue = totals.endpoints["digits"].deployments["blue"]
    assert (blue.in_flight, blue.queue_depth, blue.queue_oldest_ns) == (2, 1, 7)
    assert (blue.request_bytes, blue.response_bytes) == (10, 20)
    assert totals.endpoints["digits"].codes == {404: 1}
    assert totals.unknown == {404: 2}
    assert totals.connections_open == 5
    assert tuple(totals.edge_refused) == EDGE_REASONS
    refused = {reason: count for reason, count in totals.edge_refused.items() if count}
    assert refused == {"connections": 1, "slow_head": 3, "other": 2}


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

"""Sums of what scorers report: exact, in any order, over a scorer's death and a deployment's end."""

from __future__ import annotations

from functools import partial

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.telemetry.record import DeploymentRecord, ScorerRecord
from gateway.telemetry.totals import HistogramTotals, ScorerTotals, add, fold, re_edge, restrict

NAMES = st.sampled_from(["a", "b", "c"])
CODES = st.sampled_from([200, 400, 424, 429, 503])
TIMES = st.integers(min_value=-1, max_value=2**53)

EVENTS = st.one_of(
    st.tuples(st.just("answered"), NAMES, NAMES, CODES, TIMES, TIMES),
    st.tuples(st.just("ran"), NAMES, NAMES, st.integers(1, 70), TIMES, st.booleans()),
    st.tuples(st.just("refused"), NAMES, st.just(""), CODES, st.just(0), st.just(0)),
    st.tuples(st.just("gauge"), NAMES, NAMES, st.integers(0, 9), st.just(0), st.just(0)),
    st.tuples(
        st.just("slo"), NAMES, st.just(""), st.sampled_from([0, 3_000, 4_000, 40_000_000]), st.just(0), st.just(0)
    ),
    st.tuples(st.just("unknown"), st.just(""), st.just(""), CODES, st.just(0), st.just(0)),
)
Event = tuple[str, str, str, int, int, int]


def _scorer(events: list[Event]) -> ScorerTotals:
    record = ScorerRecord()
    for kind, endpoint, deployment, number, time, other in events:
        match kind:
            case "answered":
                record.deployment(endpoint, deployment).answered(number, abs(time), time, other)
            case "ran":
                one = record.endpoint(endpoint).deployments.setdefault(deployment, DeploymentRecord(lambda: 1))
                one.ran(number, 1, abs(time), bool(other))
            case "refused":
                record.endpoint(endpoint).refused(number)
                record.endpoint(endpoint).rejected("auth")
            case "gauge":
                record.deployment(endpoint, deployment).in_flight = number
                record.deployment(endpoint, deployment).queue_depth = number
                record.deployment(endpoint, deployment).queue_oldest_ns = number
                record.connections_open = number
                record.edge_refused({"connections": number})
            case "slo":
                record.endpoint(endpoint).keep_slo(number)
            case _:
                record.unknown(number)
    return record.snapshot()


SCORERS = st.lists(EVENTS, max_size=12).map(_scorer)


@settings(max_examples=60, deadline=None)
@given(SCORERS, SCORERS, SCORERS)
def test_sums_do_not_depend_on_the_order(a: ScorerTotals, b: ScorerTotals, c: ScorerTotals) -> None:
    assert add(add(a, b), c) == add(a, add(b, c))
    assert add(a, b) == add(b, a)
    assert add(a, ScorerTotals()) == a


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=12), st.lists(EVENTS, max_size=12))
def test_two_scorers_sum_to_what_they_saw(first: list[Event], second: list[Event]) -> None:
    both = add(_scorer(first), _scorer(second))
    events = first + second
    answered = [event for event in events if event[0] == "answered"]
    deployments = [one for endpoint in both.endpoints.values() for one in endpoint.deployments.values()]
    assert sum(sum(one.codes.values()) for one in deployments) == len(answered)
    assert sum(one.duration.count for one in deployments) == len(answered)
    assert sum(one.batch_size.total for one in deployments) == sum(e[3] for e in events if e[0] == "ran")
    refused = sum(endpoint.rejected["auth"] for endpoint in both.endpoints.values())
    assert refused == sum(event[0] == "refused" for event in events)
    assert sum(both.unknown.values()) == sum(event[0] == "unknown" for event in events)


@settings(max_examples=60, deadline=None)
@given(SCORERS)
def test_totals_travel_unchanged(totals: ScorerTotals) -> None:
    sent = msgspec.msgpack.encode(totals)
    assert msgspec.msgpack.decode(sent, type=ScorerTotals) == totals


def test_a_sum_of_centuries_of_waiting_still_travels() -> None:
    record = ScorerRecord()
    for _ in range(5):
        record.deployment("a", "blue").answered(200, 2**63, 2**63)
    totals = record.snapshot()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(totals), type=ScorerTotals) == totals


@settings(max_examples=60, deadline=None)
@given(SCORERS, SCORERS)
def test_a_dead_scorer_keeps_its_counters_and_loses_its_gauges(alive: ScorerTotals, dead: ScorerTotals) -> None:
    kept = fold(dead)
    assert kept.connections_open == 0
    assert kept.edge_refused == dead.edge_refused
    for name, endpoint in kept.endpoints.items():
        assert endpoint.rejected == dead.endpoints[name].rejected
        for key, one in endpoint.deployments.items():
            before = dead.endpoints[name].deployments[key]
            assert (one.in_flight, one.queue_depth, one.queue_oldest_ns) == (0, 0, 0)
            assert (one.codes, one.duration, one.by_rows) == (before.codes, before.duration, before.by_rows)
    assert add(alive, kept).unknown == add(alive, dead).unknown


def test_the_later_run_is_the_last_one() -> None:
    early, late = ScorerRecord(), ScorerRecord()
    for scorer, when in ((early, 10), (late, 20)):
        scorer.endpoint("a").deployments["blue"] = DeploymentRecord(clock=partial(int, when))
        scorer.deployment("a", "blue").ran(1, 1, 1, False)
    both = add(late.snapshot(), early.snapshot())
    assert both.endpoints["a"].deployments["blue"].last_run_ns == 20


def test_the_longest_wait_is_that_of_all_scorers() -> None:
    both = ScorerTotals()
    for age_ns, depth in ((30, 1), (20, 2)):
        record = ScorerRecord()
        record.deployment("a", "blue").queue_oldest_ns = age_ns
        record.deployment("a", "blue").queue_depth = depth
        both = add(both, record.snapshot())
    blue = both.endpoints["a"].deployments["blue"]
    assert (blue.queue_oldest_ns, blue.queue_depth) == (30, 3)


def _slo(slo_us: int, *durations_us: int) -> ScorerTotals:
    record = ScorerRecord()
    record.endpoint("a").keep_slo(slo_us * 1000)
    for duration_us in durations_us:
        record.deployment("a", "blue").answered(200, duration_us * 1000)
    return record.snapshot()


def _duration(totals: ScorerTotals) -> HistogramTotals:
    return totals.endpoints["a"].deployments["blue"].duration


def test_counts_within_one_slo_are_added() -> None:
    both = _duration(add(_slo(12_000, 11_000, 13_000), _slo(12_000, 12_000)))
    assert (both.slo_us, both.below_slo, both.count) == (12_000, 2, 3)


def test_counts_within_another_slo_are_not_added() -> None:
    both = _duration(add(_slo(12_000, 11_000, 13_000), _slo(13_000, 12_000)))
    assert (both.slo_us, both.below_slo, both.count) == (13_000, 1, 3)


def test_a_report_by_another_slo_counts_as_not_within_this_one() -> None:
    report = _slo(12_000, 11_000, 13_000)
    new = _duration(re_edge(report, {"a": 13_000}, ScorerTotals()))
    assert (new.slo_us, new.below_slo, new.counts) == (13_000, 0, _duration(report).counts)
    none = _duration(re_edge(report, {"a": 0}, ScorerTotals()))
    assert (none.slo_us, none.below_slo) == (0, 0)
    assert re_edge(report, {"a": 12_000}, ScorerTotals()) == report
    assert re_edge(report, {"other": 1}, ScorerTotals()) == report


def test_what_an_earlier_report_knew_to_be_within_the_slo_still_is() -> None:
    earlier, later = _slo(12_000, 11_000), _slo(13_000, 11_000, 12_500)
    assert _duration(re_edge(later, {"a": 12_000}, earlier)).below_slo == 1


@settings(max_examples=60, deadline=None)
@given(SCORERS, SCORERS)
def test_with_one_slo_no_count_within_it_is_lost_or_invented(a: ScorerTotals, b: ScorerTotals) -> None:
    slos = dict.fromkeys(("a", "b", "c"), 4)
    left, right = (re_edge(totals, slos, ScorerTotals()) for totals in (a, b))
    both = add(left, right)
    for name, endpoint in both.endpoints.items():
        for key, one in endpoint.deployments.items():
            parts = [
                side.endpoints[name].deployments[key].duration
                for side in (left, right)
                if name in side.endpoints and key in side.endpoints[name].deployments
            ]
            assert (one.duration.slo_us, one.duration.below_slo) == (4, sum(part.below_slo for part in parts))
            assert one.duration.below_slo <= one.duration.counts[0]


def test_what_is_served_no_more_leaves_the_sum() -> None:
    record = ScorerRecord()
    for endpoint, deployment in (("a", "blue"), ("a", "green"), ("b", "blue")):
        record.deployment(endpoint, deployment).answered(200, 1)
    record.unknown(404)
    kept = restrict(record.snapshot(), {"a": {"blue"}, "new": {"blue"}})
    assert {name: set(one.deployments) for name, one in kept.endpoints.items()} == {"a": {"blue"}}
    assert kept.unknown == {404: 1}

"""The bench's arithmetic: histograms as hdrh lays them out, arrival times, windows that agree, and the search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.client.latency import HIGHEST_NS, LOWEST_NS, Latencies, merged
from bench.client.schedule import arrivals, constant, poisson, recorded, shares
from bench.client.search import LOWEST_RATE, Limits, RateSearch
from bench.client.settle import Tolerance, Window, is_hopeless, is_over, settled

NS = st.integers(0, HIGHEST_NS)


def filled(*values: int) -> Latencies:
    latencies = Latencies()
    for value in values:
        latencies.record(value)
    return latencies


# Histograms.


@given(st.lists(NS, min_size=1, max_size=50))
@settings(max_examples=60)
def test_recording_in_line_counts_where_hdrh_counts(values: list[int]) -> None:
    reference = HdrHistogram(LOWEST_NS, HIGHEST_NS, 3)
    for value in values:
        assert reference.record_value(value)
    latencies = filled(*values)
    assert list(latencies._counts) == list(reference.counts)
    assert latencies.count == len(values)


@given(st.lists(st.integers(LOWEST_NS, HIGHEST_NS), min_size=1, max_size=200), st.floats(0.1, 100))
@settings(max_examples=60)
def test_a_percentile_is_within_the_precision_of_the_exact_one(values: list[int], percent: float) -> None:
    exact = int(np.percentile(values, percent, method="inverted_cdf"))
    assert exact <= filled(*values).percentile_ns(percent) <= exact * 1.001 + LOWEST_NS


def test_mean_and_maximum_are_within_the_precision() -> None:
    latencies = filled(1_000_000, 3_000_000, 5_000_000)
    assert latencies.mean_ns == pytest.approx(3_000_000, rel=1e-3)
    assert latencies.max_ns == pytest.approx(5_000_000, rel=1e-3)


def test_nothing_recorded_is_zero_everywhere() -> None:
    empty = Latencies()
    assert (empty.count, empty.max_ns, empty.mean_ns, empty.percentile_ns(99), empty.encode()) == (0, 0, 0.0, 0, "")


def test_what_takes_for_ever_counts_as_the_longest() -> None:
    assert filled(HIGHEST_NS * 10).max_ns == pytest.approx(HIGHEST_NS, rel=1e-3)


@given(st.lists(NS, max_size=30), st.lists(NS, max_size=30))
@settings(max_examples=30)
def test_merging_encoded_or_not_is_recording_all(left: list[int], right: list[int]) -> None:
    both = merged(filled(*left), filled(*right))
    from_text = Latencies()
    for part in (left, right):
        from_text.add_encoded(filled(*part).encode())
    assert list(both._counts) == list(from_text._counts) == list(filled(*left, *right)._counts)


def test_clearing_starts_again_and_keeps_recording() -> None:
    latencies = filled(1000, 2000)
    latencies.clear()
    latencies.record(5_000_000)
    assert latencies.count == 1


# Arrivals.


@given(st.floats(0.5, 1e6), st.integers(1, 8))
def test_the_shares_of_constant_arrivals_are_the_whole(rate: float, of: int) -> None:
    parts = [list(itertools.islice(constant(rate, index, of), 10)) for index in range(of)]
    assert sorted(itertools.chain(*parts)) == list(itertools.islice(constant(rate), 10 * of))


def test_constant_arrivals_do_not_drift() -> None:
    assert next(itertools.islice(constant(3.0), 3_000_000, None)) == 1_000_000 * 10**9


@given(st.integers(0, 1000), st.integers(1, 4))
@settings(max_examples=20)
def test_poisson_arrivals_come_at_the_rate_in_order_and_again_for_the_same_seed(seed: int, of: int) -> None:
    count, rate = 10_000, 2000.0
    times = [list(itertools.islice(poisson(rate, seed, index, of), count)) for index in range(of)]
    assert all(part == sorted(part) for part in times)
    # 10,000 exponential gaps: their mean is within 6 sigma of 1 %.
    assert times[0][-1] == pytest.approx(count * of / rate * 1e9, rel=0.06)
    assert times == [list(itertools.islice(arrivals("poisson", rate, seed, index, of), count)) for index in range(of)]
    # Exponential: about 63.2 % of the gaps are shorter than their mean, 6 sigma are 3 %.
    gaps = np.diff(times[0])
    assert np.mean(gaps < gaps.mean()) == pytest.approx(0.632, abs=0.03)


def test_recorded_times_are_sped_up() -> None:
    assert recorded([0.0, 0.5, 3.0], 2.0) == [0, 250_000_000, 1_500_000_000]
    assert next(arrivals("constant", 10.0, 0, 1, 2)) == 100_000_000


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_shares_are_as_even_as_can_be(total: int, of: int) -> None:
    dealt = shares(total, of)
    assert sum(dealt) == total and max(dealt) - min(dealt) <= 1


# Windows.


def windows(*pairs: tuple[float, float]) -> list[Window]:
    return [Window(rate=rate, p99_ms=p99_ms) for rate, p99_ms in pairs]


@pytest.mark.parametrize(
    ("seen", "yes"),
    [
        (windows((100, 5), (100, 5)), False),
        (windows((100, 5), (104, 5.5), (98, 6)), True),
        (windows((100, 5), (100, 5), (120, 5)), False),
        (windows((100, 5), (100, 5), (100, 9)), False),
        (windows((50, 90), (100, 5), (104, 5.5), (98, 6)), True),
        # A quarter of a millisecond is what timers and neighbours do.
        (windows((100, 0.1), (100, 0.2), (100, 0.34)), True),
        (windows((0, 0), (0, 0), (0, 0)), False),
        (windows((0, 1), (0, 1), (5, 1)), False),
    ],
)
def test_a_step_has_settled_when_its_last_windows_agree(seen: list[Window], yes: bool) -> None:
    found = settled(seen, Tolerance())
    assert found.yes is yes
    assert found.why.startswith("settled" if yes else "not settled")


def test_a_step_is_over_when_settled_or_when_its_windows_are_used_up() -> None:
    growing = windows((100, 5), (100, 50), (100, 500), (100, 5000))
    assert not is_over(growing[:3], Tolerance(windows_max=4))
    assert is_over(growing, Tolerance(windows_max=4))
    assert "p99 by" in settled(growing, Tolerance()).why
    assert is_over(windows((100, 5), (100, 5), (100, 5)), Tolerance())


def test_a_step_is_hopeless_after_two_windows_far_over() -> None:
    assert is_hopeless(windows((100, 41), (100, 50)), 20.0, 0.0)
    assert not is_hopeless(windows((100, 41)), 20.0, 0.0)
    assert not is_hopeless(windows((100, 41), (100, 39)), 20.0, 0.0)
    failing = [Window(rate=1, p99_ms=1, failed_ratio=0.5)] * 2
    assert is_hopeless(failing, 20.0, 0.01) and not is_hopeless(failing, 20.0, 0.3)


# The search.


def search(threshold: float, limits: Limits) -> tuple[RateSearch, list[float]]:
    found, tried = RateSearch(limits), []
    while (rate := found.next_rate()) is not None:
        tried.append(rate)
        found.judge(rate, rate <= threshold)
    return found, tried


@given(st.floats(1, 500_000), st.floats(1, 100_000), st.floats(0.01, 0.5))
def test_the_search_ends_close_below_what_a_server_can_do(threshold: float, first: float, precision: float) -> None:
    limits = Limits(first=first, precision=precision, steps_max=200)
    found, tried = search(threshold, limits)
    assert found.best is not None and found.failed is not None
    assert found.best <= threshold < found.failed <= found.best * (1 + precision)
    assert len(tried) < 60 and len(set(tried)) == len(tried)


def test_the_search_stops_at_its_highest_and_lowest_rate() -> None:
    found, tried = search(float("inf"), Limits(first=100, highest=500))
    assert tried == [100, 200, 400, 500] and found.best == 500
    assert "nothing higher was tried" in found.says()
    found, tried = search(0.0, Limits(first=3))
    assert tried == [3, 1.5, LOWEST_RATE] and found.best is None
    assert "no rate passed" in found.says()
    assert RateSearch(Limits()).says() == "no rate was tried to its end"


def test_the_search_is_bounded_whatever_the_verdicts() -> None:
    found = RateSearch(Limits(steps_max=5, precision=0.001))
    steps = 0
    while (rate := found.next_rate()) is not None:
        found.judge(rate, rate < 777)
        steps += 1
    assert steps == 5


def test_a_rate_that_failed_bounds_one_that_passed_later() -> None:
    found = RateSearch(Limits(first=100))
    for rate, passed in ((100.0, True), (200.0, False), (141.0, True)):
        found.judge(rate, passed)
    assert found.next_rate() == 168.0
    assert found.says() == "141 a second passed, 200 did not"

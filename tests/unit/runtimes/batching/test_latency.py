"""The table of run times: what it expects, how fast it learns, and what does not impress it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.batching.latency import Cost, LatencyTable, size_class

MS = 1_000_000


def affine(rows: int) -> int:
    return 10 * MS + rows * MS


def cost_of(*sizes: int, rows_max: int = 64, slo_ns: int = 0) -> Cost:
    return Cost({rows: float(affine(rows)) for rows in sizes}, rows_max, slo_ns)


def test_sizes_fall_into_classes_by_powers_of_two() -> None:
    assert [size_class(rows) for rows in (1, 2, 3, 4, 5, 8, 9, 64, 65, 1 << 60)] == [0, 1, 2, 2, 3, 3, 4, 6, 7, 24]


def test_what_was_never_measured_costs_nothing() -> None:
    table = LatencyTable(64)
    assert table.predict("any", 8) == (0.0, 0.0)
    assert table.cost("any").row_ns == 0.0


def test_between_two_sizes_a_time_is_interpolated_and_beyond_them_it_goes_on() -> None:
    cost = cost_of(1, 4, 16)
    for rows in (1, 2, 4, 10, 16, 32, 64):
        assert cost.predict(rows)[0] == pytest.approx(affine(rows))
        assert cost.run_ns(rows) == pytest.approx(affine(rows))
        assert cost.predict(rows)[1] == pytest.approx(1.375 * affine(rows))


def test_fewer_rows_than_were_ever_run_cost_no_more_than_the_fewest() -> None:
    assert cost_of(8).predict(2)[0] == affine(8)


def test_one_size_alone_tells_nothing_of_how_a_run_grows() -> None:
    assert cost_of(1).predict(64)[0] == affine(1)


def test_a_run_that_gets_shorter_with_more_rows_is_not_taken_to_fall_below_that() -> None:
    cost = Cost({1: 5.0 * MS, 2: 4.0 * MS}, 64)
    assert cost.predict(64)[0] == 4 * MS


def test_one_run_that_was_held_up_moves_little() -> None:
    cost = cost_of(8)
    for _ in range(20):
        cost.learn(8, affine(8))
    cost.learn(8, 1000 * affine(8))
    assert cost.predict(8)[0] <= 1.13 * affine(8)
    assert cost.predict(8)[1] <= 1.6 * affine(8)


def test_one_first_run_that_was_held_up_is_soon_forgotten() -> None:
    table = LatencyTable(64)
    table.learn("a", 8, 100 * affine(8))
    for _ in range(30):
        table.learn("a", 8, affine(8))
    assert table.predict("a", 8)[0] <= 1.1 * affine(8)


@pytest.mark.parametrize("factor", [0.02, 0.1, 0.5, 2, 10, 50])
def test_a_model_that_changed_is_known_again_within_fifty_runs(factor: float) -> None:
    cost = cost_of(8)
    for _ in range(20):
        cost.learn(8, affine(8))
    for _ in range(50):
        cost.learn(8, round(factor * affine(8)))
    assert cost.predict(8)[0] == pytest.approx(factor * affine(8), rel=0.05)


def test_the_high_estimate_covers_what_varies() -> None:
    cost = cost_of(8)
    for turn in range(400):
        cost.learn(8, affine(8) + (turn % 5) * MS)
    expected, high = cost.predict(8)
    assert expected == pytest.approx(affine(8) + 2 * MS, rel=0.05)
    assert affine(8) + 4 * MS <= high <= affine(8) + 8 * MS


def test_the_pace_of_a_queue_is_that_of_full_batches() -> None:
    cost = cost_of(1, 64)
    assert cost.row_ns == pytest.approx(affine(64) / 64)
    for _ in range(60):
        cost.learn(64, 2 * affine(64))
        cost.learn(1, 100 * MS)
    assert cost.row_ns == pytest.approx(2 * affine(64) / 64, rel=0.01)


def test_before_full_batches_were_run_their_pace_is_foreseen() -> None:
    cost = cost_of(1, 2)
    assert cost.row_ns == pytest.approx(affine(64) / 64)


def test_without_a_goal_the_limit_is_the_one_that_was_given() -> None:
    assert cost_of(1, 64).rows_cap == 64
    assert LatencyTable(64).rows_cap == 64


@pytest.mark.parametrize(("slo_ms", "rows"), [(5, 1), (28, 1), (55, 10), (83, 20), (1000, 64)])
def test_with_a_goal_a_batch_has_the_most_rows_for_which_two_runs_meet_it(slo_ms: int, rows: int) -> None:
    cost = cost_of(1, 2, 4, 8, 16, 32, 64, slo_ns=slo_ms * MS)
    assert cost.rows_cap == rows
    # Deviations are taken to be an eighth before any run was seen.
    if 1 < rows < 64:
        assert 2 * 1.375 * affine(rows) <= slo_ms * MS < 2 * 1.375 * affine(rows + 1)


def test_with_a_goal_sizes_that_were_never_run_are_tried_by_doubling() -> None:
    cost = Cost({}, 64, 1000 * MS)
    caps = [cost.rows_cap]
    for _ in range(6):
        for _ in range(8):
            cost.learn(cost.rows_cap, affine(cost.rows_cap))
        caps.append(cost.rows_cap)
    assert caps == [2, 4, 8, 16, 32, 64, 64]


def test_with_a_goal_a_slower_model_gets_smaller_batches_and_larger_ones_when_it_recovers() -> None:
    cost = cost_of(*(1 << power for power in range(7)), slo_ns=100 * MS)
    caps = []
    for slowness in (1, 3, 1):
        for _ in range(2000):
            cost.learn(cost.rows_cap, slowness * affine(cost.rows_cap))
        caps.append(cost.rows_cap)
    assert caps[1] < caps[0] / 2
    assert 0.7 * caps[0] <= caps[2] <= 1.3 * caps[0]
    assert 30 <= caps[0] <= 40


def test_rows_within_a_time() -> None:
    cost = cost_of(1, 64)
    assert [cost.rows_within(ms * MS) for ms in (5, 11, 30.5, 1000)] == [0, 1, 20, 64]


def test_each_key_has_times_of_its_own_and_begins_with_the_seed() -> None:
    table = LatencyTable(64, {1: 5.0 * MS})
    for _ in range(50):
        table.learn("slow", 1, 50 * MS)
    assert table.predict("slow", 1)[0] == pytest.approx(50 * MS, rel=0.01)
    assert table.predict("new", 1)[0] == 5 * MS


def test_a_key_may_have_a_limit_of_its_own() -> None:
    table = LatencyTable(64, rows_max_of=lambda key: 8 if key == "long" else 64)
    assert (table.cost("long").rows_cap, table.cost("short").rows_cap, table.rows_cap) == (8, 64, 64)


def test_keys_are_bounded_and_those_in_use_are_kept() -> None:
    table = LatencyTable(64)
    kept = table.cost("kept")
    for number in range(1000):
        table.cost(number)
        assert table.cost("kept") is kept
    assert len(table) <= 130


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 10**12)), max_size=60), st.integers(0, 10**10))
def test_whatever_is_learned_every_estimate_is_finite_and_the_limit_is_kept(
    runs: list[tuple[int, int]], slo_ns: int
) -> None:
    cost = Cost({}, 64, slo_ns)
    for rows, ns in runs:
        assert cost.learn(rows, ns) >= 0
    for rows in (1, 2, 3, 7, 64, 100, 10**6):
        expected, high = cost.predict(rows)
        assert 0 <= expected <= high < 1e18
        assert cost.run_ns(rows) >= 0
    assert 1 <= cost.rows_cap <= 64
    assert cost.row_ns >= 0

"""When to send, and how much room an item takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.batching.policy import Choice, choose, may_hand_over, weigh


def test_without_a_delay_the_oldest_goes_at_once() -> None:
    assert choose(oldest_ns=100, has_full=False, delay_ns=0, now_ns=100) is Choice.OLDEST
    assert choose(oldest_ns=100, has_full=True, delay_ns=0, now_ns=100) is Choice.OLDEST


def test_within_the_delay_only_a_full_batch_goes() -> None:
    assert choose(oldest_ns=100, has_full=False, delay_ns=50, now_ns=149) is Choice.WAIT
    assert choose(oldest_ns=100, has_full=True, delay_ns=50, now_ns=149) is Choice.FULL


def test_a_due_item_goes_before_a_full_batch_of_others() -> None:
    assert choose(oldest_ns=100, has_full=True, delay_ns=50, now_ns=150) is Choice.OLDEST


@given(oldest=st.integers(1, 10**12), delay=st.integers(0, 10**10), late=st.integers(0, 10**10))
def test_no_oldest_item_is_held_longer_than_the_delay(oldest: int, delay: int, late: int) -> None:
    assert choose(oldest, False, delay, oldest + delay + late) is Choice.OLDEST


@pytest.mark.parametrize(
    ("rows", "merges", "weight"),
    [(1, True, 1), (8, True, 8), (9, True, 8), (0, True, 8), (1, False, 8), (0, False, 8), (9, False, 8)],
)
def test_what_must_run_alone_weighs_a_whole_batch(rows: int, merges: bool, weight: int) -> None:
    assert weigh(rows, 8, merges) == weight


def test_to_workers_that_take_by_themselves_a_batch_goes_while_one_may_be_idle() -> None:
    assert may_hand_over(out=0, untaken=0, workers=1, is_full=False)
    assert may_hand_over(out=1, untaken=0, workers=2, is_full=False)
    assert not may_hand_over(out=1, untaken=0, workers=1, is_full=False)
    # One that nobody has taken shows that no worker is idle.
    assert not may_hand_over(out=1, untaken=1, workers=2, is_full=False)


@given(out=st.integers(0, 50), untaken=st.integers(0, 50), workers=st.integers(1, 40))
def test_one_full_batch_is_sent_ahead_and_no_more(out: int, untaken: int, workers: int) -> None:
    assert may_hand_over(out, untaken, workers, is_full=True) == (out <= workers)
    assert may_hand_over(out, untaken, workers, is_full=True) or not may_hand_over(
        out, untaken, workers, is_full=False
    )

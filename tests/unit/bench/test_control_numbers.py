"""The pure parts of the proofs under traffic: what may answer when, and when a shift is more than noise."""

from __future__ import annotations

from bench.control.models import scaled
from bench.control.possible import Possible, State
from bench.control.scoring import read
from bench.control.shift import percentile, shift
from bench.control.wire import Answer

BLUE = State(traffic={"blue": 100, "green": 0}, factors={"blue": 2, "green": 3})
GREEN = State(traffic={"blue": 0, "green": 100}, factors={"blue": 2, "green": 3})


def test_a_flip_may_count_from_when_it_is_asked_for_and_the_old_until_it_has_ended() -> None:
    possible = Possible(BLUE)
    possible.asked(10.0, GREEN)
    assert possible.now == GREEN
    assert possible.allows(5, 6, "blue", 2)
    assert not possible.allows(5, 6, "green", 3)
    assert possible.allows(9, 10.5, "green", 3)
    assert possible.allows(11, 12, "blue", 2)
    possible.ended(13.0)
    assert possible.allows(12.5, 13.5, "blue", 2)
    assert not possible.allows(13.1, 13.5, "blue", 2)
    assert possible.allows(13.1, 13.5, "green", 3)


def test_a_deployment_must_answer_with_its_own_model() -> None:
    possible = Possible(BLUE)
    assert not possible.allows(0, 1, "blue", 3)
    assert not possible.allows(0, 1, "blue", 0)
    assert not possible.allows(0, 1, "", 2)


def test_what_ended_long_ago_is_forgotten_and_what_holds_is_not() -> None:
    possible = Possible(BLUE)
    possible.asked(10.0, GREEN)
    possible.ended(11.0)
    possible.forget(12.0)
    assert not possible.allows(0, 1, "blue", 2)
    assert possible.allows(100, 101, "green", 3)


def test_windows_of_one_kind_differ_by_noise_only() -> None:
    quiet = [[1.0, 2.0, 3.0 + number / 10] for number in range(10)]
    same = shift(quiet, quiet[:4], 99)
    assert same.is_noise
    slow = shift(quiet, [[9.0, 10.0]], 99)
    assert not slow.is_noise
    assert slow.ratio > 2


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([3, 1, 2], 50) == 2
    assert percentile([1], 99) == 1
    assert percentile(range(100), 99) == 99


def test_an_answer_tells_its_factor() -> None:
    def factor(body: bytes, status: int = 200) -> int:
        return read(Answer(status=status, headers={}, body=body)).factor

    assert factor(b"[[7.0, 14.0]]") == 7
    assert factor(b'{"predictions": [[7.0, 14.0]]}') == 7
    assert factor(b"[[7.0, 15.0]]") == 0
    assert factor(b"{}") == 0
    assert factor(b"no json") == 0
    assert factor(b"[[7.0, 14.0]]", 503) == 0
    assert scaled(7) != scaled(8)

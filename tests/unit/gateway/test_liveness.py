"""When an idle worker is asked whether it lives, and when its silence ends it."""

from __future__ import annotations

from gateway.liveness import Liveness, Move, Probe

PROBE = Probe(initial_delay_s=10, period_s=5, timeout_s=2, failure_threshold=2)
WAIT, ASK, END = Move.WAIT, Move.ASK, Move.END


def moves(liveness: Liveness, *times: float, running: bool = False) -> list[Move]:
    return [liveness.look(one, running) for one in times]


def test_the_defaults_are_azures() -> None:
    assert Probe() == Probe(initial_delay_s=10, period_s=10, timeout_s=2, failure_threshold=30)


def test_nobody_is_asked_before_the_initial_delay_and_then_once_a_period() -> None:
    one = Liveness(PROBE, 100)
    assert moves(one, 100, 109.9, 110) == [WAIT, WAIT, ASK]
    one.answered()
    assert moves(one, 114.9, 115) == [WAIT, ASK]


def test_so_many_silences_one_after_the_other_end_it() -> None:
    one = Liveness(PROBE, 0)
    assert moves(one, 10, 11.9, 12, 15, 16.9, 17) == [ASK, WAIT, WAIT, ASK, WAIT, END]


def test_an_answer_forgets_the_silences_before() -> None:
    one = Liveness(PROBE, 0)
    assert moves(one, 10, 12, 15) == [ASK, WAIT, ASK]
    one.answered()
    assert moves(one, 20, 22, 25) == [ASK, WAIT, ASK]
    assert one.failures == 1


def test_one_that_runs_a_request_is_neither_asked_nor_blamed() -> None:
    one = Liveness(PROBE, 0)
    assert moves(one, 10, 12, 15) == [ASK, WAIT, ASK]
    assert moves(one, 16, 500, running=True) == [WAIT, WAIT]
    assert one.failures == 0
    assert moves(one, 501, 503) == [ASK, WAIT]


def test_a_timeout_longer_than_the_period_is_waited_for() -> None:
    one = Liveness(Probe(initial_delay_s=0, period_s=1, timeout_s=10, failure_threshold=1), 0)
    assert moves(one, 0, 1, 9, 10) == [ASK, WAIT, WAIT, END]

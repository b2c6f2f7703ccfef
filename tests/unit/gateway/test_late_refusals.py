"""What a caller is told whose answer could not have been in time."""

from __future__ import annotations

from gateway.errors import Code, problem_of
from runtimes import DeadlineExceeded, Overloaded, TooLate


def test_a_refusal_by_forecast_is_a_429_that_says_when_to_come_back() -> None:
    problem = problem_of(TooLate("too late", retry_after_s=7))
    assert (problem.code, problem.reason, problem.headers) == (Code.OVERLOADED, "deadline", ((b"retry-after", b"7"),))


def test_a_full_queue_and_a_deadline_that_passed_are_told_apart_from_it() -> None:
    assert problem_of(Overloaded("full", retry_after_s=3)).reason == "queue_full"
    assert problem_of(DeadlineExceeded("late")).code is Code.DEADLINE_EXCEEDED

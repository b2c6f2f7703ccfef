"""The account of all scorers: no counter goes back, whichever scorer dies and whatever SLO an endpoint gets."""

from __future__ import annotations

from gateway.fleet import Ledger
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import DeploymentTotals

MS = 1_000_000
SERVED = {"digits": {"blue"}}


class Scorer:
    """A scorer's record, with answers of 11, 12 and 13 ms to count."""

    def __init__(self, slo_ms: int) -> None:
        self.record = ScorerRecord()
        self.keep(slo_ms)

    def keep(self, slo_ms: int) -> None:
        self.record.endpoint("digits").keep_slo(slo_ms * MS)

    def answer(self) -> None:
        for duration_ms in (11, 12, 13):
            self.record.deployment("digits", "blue").answered(200, duration_ms * MS)


def _blue(ledger: Ledger) -> DeploymentTotals:
    return ledger.total().endpoints["digits"].deployments["blue"]


def _within(ledger: Ledger) -> tuple[int, int, int]:
    """The SLO's edge, how many are within it, and all."""
    duration = _blue(ledger).duration
    return duration.slo_us, duration.below_slo, duration.count


def test_the_living_and_the_dead_are_counted_within_one_slo() -> None:
    ledger = Ledger()
    ledger.keep(SERVED, {"digits": 12_000})
    for number in range(3):
        scorer = Scorer(12)
        scorer.answer()
        ledger.collected(number, scorer.record.snapshot())
    ledger.died(1)
    ledger.died(7)
    assert _within(ledger) == (12_000, 6, 9)


def test_a_new_slo_counts_from_its_commit_on_and_forgets_no_answer() -> None:
    ledger, scorer, dead = Ledger(), Scorer(12), Scorer(12)
    ledger.keep(SERVED, {"digits": 12_000})
    for number, one in enumerate((scorer, dead)):
        one.answer()
        ledger.collected(number, one.record.snapshot())
    ledger.died(1)
    assert _within(ledger) == (12_000, 4, 6)

    # The scorer has the new SLO already, the supervisor not yet: nothing goes back meanwhile.
    scorer.keep(13)
    ledger.collected(0, scorer.record.snapshot())
    assert _within(ledger) == (12_000, 4, 6)
    scorer.answer()
    ledger.collected(0, scorer.record.snapshot())
    assert _within(ledger) == (12_000, 4, 9)

    ledger.keep(SERVED, {"digits": 13_000})
    assert _within(ledger) == (13_000, 0, 9)
    ledger.collected(0, scorer.record.snapshot())
    assert _within(ledger) == (13_000, 3, 9)
    ledger.died(0)
    assert _within(ledger) == (13_000, 3, 9)

    ledger.keep(SERVED, {"digits": 0})
    assert _within(ledger) == (0, 0, 9)


def test_a_report_from_before_a_change_is_counted_by_the_slo_of_now() -> None:
    ledger, scorer = Ledger(), Scorer(12)
    scorer.answer()
    ledger.keep(SERVED, {"digits": 13_000})
    ledger.collected(0, scorer.record.snapshot())
    assert _within(ledger) == (13_000, 0, 3)


def test_what_is_served_no_more_is_forgotten_with_the_dead() -> None:
    ledger, scorer = Ledger(), Scorer(12)
    scorer.answer()
    scorer.record.deployment("digits", "green").answered(200, MS)
    for number in (0, 1):
        ledger.collected(number, scorer.record.snapshot())
    ledger.died(0)
    ledger.keep(SERVED, {})
    assert set(ledger.total().endpoints["digits"].deployments) == {"blue"}


def test_nobody_waits_at_a_dead_scorer() -> None:
    ledger, scorer = Ledger(), Scorer(12)
    scorer.record.deployment("digits", "blue").queue_oldest_ns = 5
    ledger.collected(0, scorer.record.snapshot())
    assert _blue(ledger).queue_oldest_ns == 5
    ledger.died(0)
    assert _blue(ledger).queue_oldest_ns == 0

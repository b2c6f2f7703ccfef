"""How much of a deployment's work was padding is counted, summed over scorers and shown."""

from __future__ import annotations

from gateway.telemetry.metrics import TABLE
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import add, fold


def scorer(positions: int, padding: int) -> ScorerRecord:
    record = ScorerRecord()
    record.deployment("texts", "blue").padded(positions, padding)
    return record


def test_positions_and_padding_add_up_over_scorers_and_survive_them() -> None:
    both = add(fold(scorer(100, 20).snapshot()), scorer(50, 5).snapshot())
    totals = both.endpoints["texts"].deployments["blue"]
    assert (totals.positions, totals.padding_positions) == (150, 25)


def test_both_counters_are_in_the_table_of_metrics() -> None:
    kinds = {row.name: (row.kind, row.labels) for row in TABLE}
    for name in ("gateway_batch_positions_total", "gateway_padding_positions_total"):
        assert kinds[name] == ("counter", ("endpoint", "deployment"))

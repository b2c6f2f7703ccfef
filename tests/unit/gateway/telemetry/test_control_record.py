"""What the control plane counts: every operation once, every answer once, the store's time."""

from __future__ import annotations

import pytest

from gateway.telemetry.control import DoorRecord, OperationsRecord, StoreRecord

MS = 1_000_000


def test_an_operation_is_under_way_and_then_counted_with_its_outcome_and_time() -> None:
    now = [0]
    record = OperationsRecord(lambda: now[0])
    with record.running("create") as running:
        assert record.under_way == 1
        now[0] = 300 * MS
        running.outcome = "failed"
    assert record.under_way == 0
    assert record.ended["create", "failed"] == sum(record.ended.values()) == 1
    assert record.totals().counts == (0, 0, 1, 0, 0, 0, 0, 0)
    assert record.totals().total == 300_000


def test_an_operation_that_is_left_without_an_outcome_is_not_counted() -> None:
    record = OperationsRecord()
    with pytest.raises(KeyboardInterrupt), record.running("delete"):
        raise KeyboardInterrupt
    assert (record.under_way, sum(record.ended.values()), record.totals().count) == (0, 0, 0)


def test_what_is_done_at_once_counts_too() -> None:
    record = OperationsRecord()
    record.ended_at_once("update")
    assert record.ended["update", "succeeded"] == record.totals().count == 1


@pytest.mark.parametrize(
    ("method", "is_blob", "kind"),
    [
        ("GET", False, "read"),
        ("HEAD", False, "read"),
        ("OPTIONS", False, "read"),
        ("PUT", False, "change"),
        ("POST", False, "change"),
        ("BREW", False, "change"),
        ("GET", True, "blob"),
        ("PUT", True, "blob"),
    ],
)
@pytest.mark.parametrize("status", [204, 304, 412, 503])
def test_an_answer_counts_by_kind_and_class_and_a_refusal_by_status(
    method: str, is_blob: bool, kind: str, status: int
) -> None:
    record = DoorRecord()
    record.answered(method, status, is_blob=is_blob)
    assert record.answers[kind, f"{status // 100}xx"] == sum(record.answers.values()) == 1
    assert record.refused == ({status: 1} if status >= 400 else {})


def test_transactions_are_timed_apart() -> None:
    record = StoreRecord()
    record.ended(writes=True, took_ns=30 * MS)
    record.ended(writes=False, took_ns=2 * MS)
    totals = record.totals()
    assert (totals["write"].total, totals["read"].total) == (30_000, 2_000)
    assert [one.count for one in totals.values()] == [1, 1]

"""Who may use a device beside whom. The waiting itself is tested with threads, in tests/contract."""

from __future__ import annotations

import pytest

from runtimes.onnx.gate import CaptureGate, process_gate


def test_runs_and_loads_go_side_by_side() -> None:
    gate = CaptureGate()
    with gate.run(), gate.run(), gate.load():
        pass
    with gate.capture(0) as is_alone:
        assert is_alone


def test_a_capture_is_not_made_beside_a_run_and_is_made_after_it() -> None:
    gate = CaptureGate()
    with gate.run(), gate.capture(0) as is_alone:
        assert not is_alone
    with gate.capture(0) as is_alone:
        assert is_alone


def test_a_capture_does_not_wait_for_a_load() -> None:
    gate = CaptureGate()
    with gate.load(), gate.capture(600) as is_alone:
        assert not is_alone


def test_two_captures_are_never_made_at_once() -> None:
    gate = CaptureGate()
    with gate.capture(0) as first, gate.capture(600) as second:
        assert (first, second) == (True, False)
    with gate.run():
        pass


def test_a_capture_that_fails_lets_the_others_go_on() -> None:
    gate = CaptureGate()
    with pytest.raises(RuntimeError, match="no"), gate.capture(0):
        raise RuntimeError("no")
    with gate.run():
        pass


def test_a_process_has_one_gate() -> None:
    assert process_gate() is process_gate()

"""A capture and the runs beside it, in threads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Event, Thread
from typing import Any

import pytest

from runtimes.onnx.gate import CaptureGate


def entered(use: Callable[[], AbstractContextManager[Any]]) -> tuple[Thread, Event]:
    """A thread that goes in, tells so, and comes out."""
    is_in = Event()

    def work() -> None:
        with use():
            is_in.set()

    thread = Thread(target=work, daemon=True)
    thread.start()
    return thread, is_in


@pytest.mark.parametrize("kind", ["run", "load"])
def test_what_comes_during_a_capture_waits_for_its_end(kind: str) -> None:
    gate = CaptureGate()
    with gate.capture(0) as is_alone:
        assert is_alone
        thread, is_in = entered(getattr(gate, kind))
        assert not is_in.wait(0.05)
    assert is_in.wait(10)
    thread.join(10)


def test_a_capture_waits_for_the_runs_under_way() -> None:
    gate, is_running, may_end = CaptureGate(), Event(), Event()

    def work() -> None:
        with gate.run():
            is_running.set()
            may_end.wait(10)

    thread = Thread(target=work, daemon=True)
    thread.start()
    assert is_running.wait(10)

    def capture() -> AbstractContextManager[bool]:
        return gate.capture(10)

    other, is_in = entered(capture)
    assert not is_in.wait(0.05)
    may_end.set()
    assert is_in.wait(10)
    thread.join(10)
    other.join(10)

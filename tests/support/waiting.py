"""Waiting for what another process does: a condition is looked at until it holds or the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# How long a test waits for what must come: only a defect, never a slow machine, takes as long.
PATIENCE_S = 60.0

_LOOK_EVERY_S = 0.02


def eventually(condition: Callable[[], T], what: str, timeout_s: float = PATIENCE_S) -> T:
    """The condition's first true value; AssertionError with `what` was awaited when the time is up."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what}: not within {timeout_s:g} s")
        time.sleep(_LOOK_EVERY_S)

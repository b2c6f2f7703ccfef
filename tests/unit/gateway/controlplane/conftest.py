"""A control plane for each test, and no waiting in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.controlplane import control, steps
from tests.support.plane import Plane


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    monkeypatch.setattr(control, "WRITE_AGAIN_S", (0.0, 0.0))
    monkeypatch.setattr(steps, "AGAIN_S", 0.0)
    made = Plane(tmp_path)
    yield made
    made.close()


@pytest.fixture
def impatient(plane: Plane) -> Callable[[], None]:
    """From when it is called, changes are answered before they have ended."""
    return lambda: plane.answers_within(0.0)

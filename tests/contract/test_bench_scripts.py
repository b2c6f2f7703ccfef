"""The measurement of the way to a script's worker measures that way."""

from __future__ import annotations

import asyncio

import pytest

from bench import scripts
from runtimes import BatchLimits


@pytest.mark.parametrize(("text", "requests"), [(scripts.SCRIPT, 1), (scripts.SCRIPT + scripts.RUN_BATCH, 4)])
def test_both_sides_are_measured_so_often(text: str, requests: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "WARM_UP", 1)
    limits = BatchLimits(batch_rows_max=4) if requests > 1 else None
    alone, through = asyncio.run(scripts.measured(text, limits, requests, rounds=12))
    assert len(alone) == len(through) == 12 // requests
    assert min(through) > min(alone) > 0

"""What `make prove` proves with 200 kills, in short: nothing that was acknowledged is lost to SIGKILL."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.control import kills

KILLS = 12
# A killed gateway starts within 2 s on a machine that has nothing else to do; here is room for one that has.
RESTART_WITHIN_S = 15.0


def test_nothing_acknowledged_is_lost_to_kills_at_random_moments(tmp_path: Path) -> None:
    found = asyncio.run(kills.run(tmp_path, kills=KILLS, seed=3, limit_s=100))
    assert found.faults == []
    assert found.rounds == KILLS
    assert max(found.restarts_s) < RESTART_WITHIN_S
    assert found.counts["PutDeployment"], found.counts

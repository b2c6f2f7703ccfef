"""What `make prove` proves with 250 changes, in short: changes of what is served fail and misroute no request."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.control import flips


def test_changes_under_traffic_fail_and_misroute_no_request(tmp_path: Path) -> None:
    found = asyncio.run(flips.run(tmp_path, flips=10, updates=10, regenerations=5, seed=1))
    assert found.faults == []
    assert (found.failed, found.misrouted) == (0, 0)
    assert found.requests > 200
    assert max(found.refused_s) <= flips.REFUSED_WITHIN_S
    assert set(found.answered) == set(flips.DEPLOYMENTS)

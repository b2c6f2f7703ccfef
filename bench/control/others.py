"""How much of the machine other processes use meanwhile: what tells a noisy measurement from a bad one.

Units: cores. Source: /proc; 0 elsewhere.
"""

from __future__ import annotations

import os
import time

from bench.machine import busy_s, tree_s


class Others:
    """Cores used by others than this process and those below it, none of which may end meanwhile."""

    def __init__(self) -> None:
        self._began = _now()

    def cores(self) -> float:
        now = _now()
        took_s, busy, ours = (after - before for before, after in zip(self._began, now, strict=True))
        return max(0.0, (busy - ours) / took_s)


def _now() -> tuple[float, float, float]:
    return time.monotonic(), busy_s() or 0.0, tree_s(os.getpid()) or 0.0

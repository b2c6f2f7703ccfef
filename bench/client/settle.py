"""Whether a step has settled: its last windows agree in throughput and p99. Pure.

Why: a figure taken while a server warms up, or while its queue still grows, is of nothing. A step goes on until
`WINDOWS` successive windows agree, or its windows are used up, and the report says which.
Units: rates in answers a second, p99 in milliseconds; a tolerance is a part of the median of the windows looked
at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

WINDOWS = 3
# p99s that differ by less than this agree, whatever the ratio: a machine's timers and neighbours do that much.
P99_FLOOR_MS = 0.25
# A step is given up where its last windows are this many times over what is asked of it.
HOPELESS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What was answered in one window; `failed_ratio` is the part of its requests that was not accepted."""

    rate: float
    p99_ms: float
    failed_ratio: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    rate: float = 0.10
    p99: float = 0.25
    windows_max: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """`yes` where the last windows agree; `why` is a sentence either way."""

    yes: bool
    why: str


def settled(windows: Sequence[Window], tolerance: Tolerance) -> Settled:
    """Looks at the last `WINDOWS` of all windows so far."""
    if len(windows) < WINDOWS:
        return Settled(yes=False, why=f"not settled: {len(windows)} of the {WINDOWS} windows that are compared")
    last = windows[-WINDOWS:]
    rates, p99s = [window.rate for window in last], [window.p99_ms for window in last]
    rate_spread, p99_spread = _spread(rates), _spread(p99s)
    p99_agrees = p99_spread <= tolerance.p99 or max(p99s) - min(p99s) <= P99_FLOOR_MS
    if min(rates) > 0 and rate_spread <= tolerance.rate and p99_agrees:
        return Settled(yes=True, why=f"settled after {len(windows)} windows")
    return Settled(
        yes=False,
        why=f"not settled in {len(windows)} windows: in the last {WINDOWS}, throughput differs by {rate_spread:.0%} "
        f"and p99 by {p99_spread:.0%}; {tolerance.rate:.0%} and {tolerance.p99:.0%} are accepted",
    )


def is_over(windows: Sequence[Window], tolerance: Tolerance) -> bool:
    """Whether a step that may be extended ends here."""
    return len(windows) >= tolerance.windows_max or settled(windows, tolerance).yes


def is_hopeless(windows: Sequence[Window], slo_p99_ms: float, error_ratio_max: float) -> bool:
    """Whether two successive windows are so far over that no later one can make the step pass."""
    return len(windows) >= 2 and all(
        window.p99_ms > HOPELESS * slo_p99_ms or window.failed_ratio > max(0.01, HOPELESS * error_ratio_max)
        for window in windows[-2:]
    )


def _spread(values: Sequence[float]) -> float:
    middle = median(values)
    return (max(values) - min(values)) / middle if middle else (0.0 if max(values) == min(values) else float("inf"))

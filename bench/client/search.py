"""The search for the highest rate that passes: doubling until one fails, then bisection. Pure.

`next_rate` is the rate to try, None when the search is over; `judge` takes the verdict on it. `best` is the
highest rate that passed below the lowest that failed; a noisy verdict moves a bound for good, so a search always
ends.
Units: requests a second; `precision` is the gap at the end, as a part of the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

LOWEST_RATE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    first: float = 100.0
    highest: float = 1_000_000.0
    precision: float = 0.05
    steps_max: int = 40


class RateSearch:
    """Between `best` (passed) and `failed`, either of which may not be known yet."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.best: float | None = None
        self.failed: float | None = None
        self.steps = 0

    def next_rate(self) -> float | None:
        limits = self._limits
        if self.steps >= limits.steps_max:
            return None
        if self.best is None and self.failed is None:
            return min(max(limits.first, LOWEST_RATE), limits.highest)
        if self.failed is None:
            assert self.best is not None
            return None if self.best >= limits.highest else min(self.best * 2, limits.highest)
        if self.best is None:
            return None if self.failed <= LOWEST_RATE else max(self.failed / 2, LOWEST_RATE)
        if self.failed / self.best <= 1 + limits.precision:
            return None
        # The middle as ratios go: half of the doublings that are left; a round number, where one lies between.
        middle = sqrt(self.best * self.failed)
        rounded = float(f"{middle:.3g}")
        return rounded if self.best < rounded < self.failed else middle

    def judge(self, rate: float, passed: bool) -> None:
        self.steps += 1
        if passed:
            self.best = rate if self.best is None else max(self.best, rate)
        else:
            self.failed = rate if self.failed is None else min(self.failed, rate)

    def says(self) -> str:
        """The outcome in a sentence."""
        if self.best is None:
            if self.failed is None:
                return "no rate was tried to its end"
            return f"no rate passed; the lowest that was tried is {self.failed:,.0f} a second"
        if self.failed is None:
            return f"{self.best:,.0f} a second passed; nothing higher was tried"
        return f"{self.best:,.0f} a second passed, {self.failed:,.0f} did not"

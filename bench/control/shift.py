"""Whether latencies of one kind of window differ from those of another by more than windows differ anyway. Pure.

Noise: windows without a load are parted in two halves at random, many times; the ratio of the halves' figures is what
the same measurement gives of itself. 95 of 100 halvings give less than `noise`.
Units: as given; a window is the latencies of its requests.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

HALVINGS = 1000
SEED = 0

Window = Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    quiet: float
    loaded: float
    noise: float

    @property
    def ratio(self) -> float:
        return self.loaded / self.quiet

    @property
    def is_noise(self) -> bool:
        return self.ratio <= self.noise


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many of a hundred do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def shift(quiet: Sequence[Window], loaded: Sequence[Window], percent: float) -> Shift:
    def figure(windows: Sequence[Window]) -> float:
        return percentile(list(chain.from_iterable(windows)), percent)

    return Shift(quiet=figure(quiet), loaded=figure(loaded), noise=_noise(quiet, figure))


def _noise(quiet: Sequence[Window], figure: Callable[[Sequence[Window]], float]) -> float:
    chance, windows, ratios = random.Random(SEED), list(quiet), []
    for _ in range(HALVINGS):
        chance.shuffle(windows)
        middle = len(windows) // 2
        one, other = figure(windows[:middle]), figure(windows[middle:])
        ratios.append(max(one, other) / min(one, other))
    return percentile(ratios, 95)

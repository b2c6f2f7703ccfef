"""Whether latencies of one kind of window differ from those of another by more than windows differ anyway. Pure.

Noise: windows without a load are parted in two at random, many times, one part with as many requests as there were
under load, but at most half; the ratio of the parts' figures is what the same measurement gives of itself. 95 of 100
partings give less than `noise`.
Units: as given; a window is the latencies of its requests.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

PARTINGS = 1000
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

    return Shift(quiet=figure(quiet), loaded=figure(loaded), noise=_noise(quiet, _requests(loaded), figure))


def _requests(windows: Sequence[Window]) -> int:
    return sum(map(len, windows))


def _noise(quiet: Sequence[Window], requests: int, figure: Callable[[Sequence[Window]], float]) -> float:
    chance, windows, ratios = random.Random(SEED), list(quiet), []
    # How many windows have so many requests; one at least.
    share = requests / max(1, _requests(windows))
    count = max(1, min(len(windows) // 2, round(share * len(windows))))
    for _ in range(PARTINGS):
        chance.shuffle(windows)
        one, other = figure(windows[:count]), figure(windows[count:])
        ratios.append(max(one, other) / min(one, other))
    return percentile(ratios, 95)

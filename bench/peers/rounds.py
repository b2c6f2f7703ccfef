"""From rounds to figures: which rounds count, their median, their spread.

The noise rule, fixed before any figure was kept: a round in which other processes used more than 15 % of a core is
dropped where at least two clean ones remain; otherwise all rounds are used and the row is marked with `~`.
Units: as in the rounds; `*_us` microseconds, `rate` answers (or rows) a second, `others` and `generator` in cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

OTHERS_MAX = 0.15
CLEAN_MIN = 2
# From here on the generator has no more to give, and a rate is at least partly its own.
GENERATOR_FULL = 0.95
FIGURES = ("rate", "p50_us", "p99_us", "cpu_us", "starvation")

Round = Mapping[str, Any]


def counted(rounds: Sequence[Round]) -> tuple[list[Round], bool]:
    """The rounds that count, and whether they are weak."""
    clean = [one for one in rounds if one["others"] <= OTHERS_MAX]
    if len(clean) >= CLEAN_MIN or (clean and len(clean) == len(rounds)):
        return clean, False
    return list(rounds), True


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Per figure the median, the lowest and the highest; and every round, counted or not."""
    chosen, weak = counted(rounds)
    figures = {name: spread([one[name] for one in chosen if one.get(name) is not None]) for name in FIGURES}
    return {
        **{name: figure for name, figure in figures.items() if figure is not None},
        "weak": weak,
        "rounds_counted": len(chosen),
        "refused": sum(one.get("refused", 0) for one in rounds),
        "generator_full": any(one.get("generator", 0.0) >= GENERATOR_FULL for one in chosen),
        "rounds": list(rounds),
    }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": median(values), "low": min(values), "high": max(values)}

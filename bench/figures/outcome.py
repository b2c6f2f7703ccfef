"""From rounds to a line of the report: the median, the spread, and whether the bound is reached. Pure.

Which rounds count is decided by the noise rule of `bench.peers.rounds`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.figures.reach import Line
from bench.peers.rounds import counted, spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One round of one line. `others`: cores used by other processes; `full`: the generator had no more to give;
    `unwanted`: answers that should not have been refused, and lost ones; `beside`: what the value was made of."""

    value: float
    others: float = 0.0
    full: bool = False
    unwanted: int = 0
    beside: Mapping[str, float] = field(default_factory=dict)

    def as_round(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "others": round(self.others, 4),
            "generator_full": self.full,
            "unwanted": self.unwanted,
            "beside": dict(self.beside),
        }


def summary(line: Line, samples: Sequence[Sample]) -> dict[str, Any]:
    """The line's part of the result document; `samples` are of at least one round."""
    rounds = [sample.as_round() for sample in samples]
    chosen, weak = counted(rounds)
    figure = spread([one["value"] for one in chosen])
    assert figure is not None
    return {
        "text": line.text,
        "bound": line.bound,
        "most": line.most,
        "unit": line.unit,
        **figure,
        "met": line.met(figure["median"]),
        "weak": weak,
        "rounds_counted": len(chosen),
        "generator_full": any(one["generator_full"] for one in chosen),
        "unwanted": sum(one["unwanted"] for one in rounds),
        "beside": _medians([one["beside"] for one in chosen]),
        "rounds": rounds,
    }


def _medians(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: median([part[name] for part in parts if name in part]) for name in names}

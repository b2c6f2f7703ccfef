"""Many samples into one table and one JSON document.

Units: as in the samples; a spread is the lowest and the highest of the rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from statistics import median
from typing import Any

from bench.load.measure import Sample

# More of a core than this, used by other processes, and a row is marked as weak.
OTHERS_CORES_MAX = 0.15
DERIVED = ("added_p50_us", "added_p99_us", "ratio")
HEADINGS = (
    *("case", "bare p50", "1 conn p50", "added p50", "added p99"),
    *("rows/s", "bare rows/s", "ratio", "spread", "p99", "cpu/row", "refused"),
)


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Per figure: the median of the rounds, the lowest, the highest and all of them."""
    names = [field.name for field in fields(Sample)] + list(DERIVED)
    columns = {name: [getattr(sample, name) for sample in samples] for name in names}
    return {
        name: {"median": median(values), "low": min(values), "high": max(values), "rounds": values}
        for name, values in columns.items()
    }


def refused(samples: Mapping[str, Sequence[Sample]]) -> int:
    return sum(sample.refused for rounds in samples.values() for sample in rounds)


def table(samples: Mapping[str, Sequence[Sample]], connections: int) -> str:
    rows = [HEADINGS, *(_row(label, rounds) for label, rounds in samples.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    notes = (
        f"Times in us; rows/s, p99 and cpu at {connections} connections; bare rows/s: one thread, batches of 64; "
        "ratio: rows/s over bare rows/s.\n"
        f"~ marks a case with a round in which other processes used more than {OTHERS_CORES_MAX} of a core."
    )
    return "\n".join([*lines, "", notes])


def _row(label: str, rounds: Sequence[Sample]) -> tuple[str, ...]:
    figures = summary(rounds)

    def mid(name: str) -> float:
        return float(figures[name]["median"])

    ratio = figures["ratio"]
    weak = figures["others_cores"]["high"] > OTHERS_CORES_MAX
    return (
        label + (" ~" if weak else ""),
        f"{mid('bare_p50_us'):.0f}",
        f"{mid('one_p50_us'):.0f}",
        f"{mid('added_p50_us'):.0f}",
        f"{mid('added_p99_us'):.0f}",
        f"{mid('rate'):.0f}",
        f"{mid('bare_rate'):.0f}",
        f"{mid('ratio'):.3f}",
        f"{ratio['low']:.3f}-{ratio['high']:.3f}",
        f"{mid('many_p99_us'):.0f}",
        f"{mid('gateway_cpu_us'):.0f}",
        f"{sum(sample.refused for sample in rounds)}",
    )

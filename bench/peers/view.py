"""The result document as lines to show: one per server and wire format, with its share of the gateway's rate.

A peer is compared with the gateway's own answer to the same kind of bodies: text with JSON, binary with binary.
Units: rates a second, *_us microseconds; `share` is the peer's rate over the gateway's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.peers.catalogue import CEILING, GATEWAY
from bench.peers.table import RAW

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What was seen at one number of connections."""

    rate: float
    low: float
    high: float
    share: float | None
    p50_us: float | None
    p99_us: float | None
    cpu_us: float | None
    weak: bool
    generator_full: bool
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    peer: str
    title: str
    wire: str
    binary: bool
    cells: Mapping[int, Cell]

    @property
    def weak(self) -> bool:
        return any(cell.weak for cell in self.cells.values())

    @property
    def generator_full(self) -> bool:
        return any(cell.generator_full for count, cell in self.cells.items() if count > 1)


def lines(document: Document, table: str) -> list[Line]:
    """The fastest first; bare onnxruntime and the ceiling lead, for nothing can pass them."""
    rows = document["tables"][table]["rows"]
    ours = {row.get("binary", False): row for row in rows.values() if row["peer"] == GATEWAY}
    made = [_line(document, row, ours.get(row.get("binary", False), {})) for row in rows.values()]
    return sorted(made, key=lambda line: (line.peer not in (RAW, CEILING), line.peer != RAW, -fastest(line)))


def fastest(line: Line) -> float:
    return max((cell.rate for count, cell in line.cells.items() if count > 1), default=0.0)


def connections(found: Sequence[Line]) -> list[int]:
    return sorted({count for line in found for count in line.cells})


def absent(document: Document) -> dict[str, str]:
    """Why a peer is not in a table, by its name."""
    reasons = dict(document["absent"])
    for table, content in document["tables"].items():
        for name, reason in content["absent"].items():
            reasons.setdefault(f"{name} ({table})", reason)
    return reasons


def _line(document: Document, row: Mapping[str, Any], ours: Mapping[str, Any]) -> Line:
    about = document["peers"].get(row["peer"], {"title": row["peer"]})
    counts = [name for name in row if name.isdigit()]
    return Line(
        peer=row["peer"],
        title=about["title"],
        wire=row["wire"],
        binary=row.get("binary", False),
        cells={int(count): _cell(row[count], ours.get(count)) for count in counts},
    )


def _cell(found: Mapping[str, Any], ours: Mapping[str, Any] | None) -> Cell:
    rate = found["rate"]
    gateway = ours["rate"]["median"] if ours else 0.0
    return Cell(
        rate=rate["median"],
        low=rate["low"],
        high=rate["high"],
        share=rate["median"] / gateway if gateway else None,
        p50_us=_median(found, "p50_us"),
        p99_us=_median(found, "p99_us"),
        cpu_us=_median(found, "cpu_us"),
        weak=found["weak"],
        generator_full=found["generator_full"],
        refused=found["refused"],
    )


def _median(found: Mapping[str, Any], name: str) -> float | None:
    return found[name]["median"] if name in found else None

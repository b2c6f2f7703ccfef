"""What is promised: one line a figure, with the bound it is to reach. Pure data.

Units: a ratio where `unit` is empty, else what `unit` says. `most` tells an upper bound from a lower one.
`key` is the number of the figure and a word; lines of one number are measured together.
"""

from __future__ import annotations

from dataclasses import dataclass

# Open loop: what is offered, requests a second.
RATES = (100, 500, 1000, 2000, 4000, 6000)
# Overload: times the capacity.
FACTORS = (2, 3)
DEADLINE_MS = 250
# Rows of a request. With many the model alone is the limit, some milliseconds a request; with one, reading and
# refusing requests takes a good part of the core, too.
ROWS = {"many": 64, "one": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    key: str
    text: str
    bound: float
    most: bool = False
    unit: str = ""

    @property
    def figure(self) -> int:
        return int(self.key.partition(".")[0])

    def met(self, value: float) -> bool:
        return value <= self.bound if self.most else value >= self.bound

    @property
    def reach(self) -> str:
        return f"{'<=' if self.most else '>='} {self.bound:g}{' ' * bool(self.unit)}{self.unit}"


def _least(key: str, text: str, bound: float) -> Line:
    return Line(key=key, text=text, bound=bound)


def _most(key: str, text: str, bound: float, unit: str = "") -> Line:
    return Line(key=key, text=text, bound=bound, most=True, unit=unit)


def _overload(name: str, rows: int, factor: int) -> tuple[Line, ...]:
    at = f"mlp binary, {rows} row{'s' * (rows > 1)} a request, at {factor} x capacity"
    return (
        _least(f"8.{name}-goodput-{factor}", f"{at}: accepted a second over capacity", 0.95),
        _most(f"8.{name}-accepted-{factor}", f"{at}: p99 of accepted requests", DEADLINE_MS, "ms"),
        _most(f"8.{name}-refused-{factor}", f"{at}: p99 of refusals above one of the idle gateway", 5, "ms"),
        _most(f"8.{name}-again-{factor}", f"{at}: until p50 is the baseline's again", 2, "s"),
    )


LINES = (
    _least("1.rate", "forest JSON, 64 connections: rate over the bare protocol's", 0.27),
    _least("1.cpu", "the same by processor time of the servers per request", 0.27),
    _least("2.rate", "forest JSON over TLS, 64 connections: rate over its own without TLS", 0.65),
    _least("2.cpu", "the same by processor time of the servers per request", 0.65),
    _least("3.binary-64", "mlp binary, one core, 64 connections: rows over raw onnxruntime's", 0.70),
    _least("3.binary-256", "mlp binary, one core, 256 connections: rows over raw onnxruntime's", 0.70),
    _least("3.json-64", "mlp JSON, one core, 64 connections: rows over raw onnxruntime's", 0.58),
    _least("3.json-256", "mlp JSON, one core, 256 connections: rows over raw onnxruntime's", 0.58),
    _least("4.binary", "mlp binary, two cores, 256 connections: rows over raw onnxruntime's on one core", 1.25),
    _least("4.json", "mlp JSON, two cores, 256 connections: rows over raw onnxruntime's on one core", 1.08),
    _most("5.p50", "forest JSON, one connection: p50 over the bare protocol's", 1.4),
    _most("5.p99", "forest JSON, one connection: p99 over the bare protocol's", 2),
    _most("6.forest", "forest JSON, 256 connections: p99 of the slowest connection over the median one's", 3),
    _most("6.mlp", "mlp binary, 256 connections: p99 of the slowest connection over the median one's", 3),
    *(
        _most(f"7.{name}-{rate}", f"{what}, open loop at {rate:,} a second: p50 above the bare model's", 2, "ms")
        for name, what in (("mlp", "mlp binary"), ("forest", "forest JSON"))
        for rate in RATES
    ),
    *(line for name, rows in ROWS.items() for factor in FACTORS for line in _overload(name, rows, factor)),
    _least("8.edge", "forest JSON at 3 x capacity: accepted a second over capacity", 0.55),
    _most("9.cost", "metrics and limits, per request", 5, "us"),
    _least("10.rate", "200 endpoints x 3 deployments, traffic on one: rate over that with one endpoint", 0.95),
    _least("10.cpu", "the same by processor time of the servers per request", 0.95),
    _most("11.start", "start to ready, digits demo, warm disk", 1.5, "s"),
)
FIGURES = tuple(dict.fromkeys(line.figure for line in LINES))

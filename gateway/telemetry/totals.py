"""Counters as plain data: what a scorer reports, how reports are summed, and what is kept of a scorer that died.

Why: every scorer counts for itself; the supervisor adds the reports up exactly and shows one gateway. What was shown
once must never go back, so a dead scorer's last report stays in the sum for as long as the supervisor lives.
Units: `*_us` microseconds (a sum in nanoseconds would outgrow MessagePack's 64 bits within months at a thousand
requests in flight), `*_ns` nanoseconds, bytes, rows. Keys: endpoint name, then deployment name.
Laws: `add` is associative and commutative, with `ScorerTotals()` as its zero (tests/unit, by property).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

# Fields that say when, not how many: the later one wins.
_LATEST = frozenset({"last_run_ns"})


class HistogramTotals(msgspec.Struct, frozen=True, array_like=True):
    """`counts` has one more element than the histogram has edges; `total` is the sum of the observed values."""

    counts: tuple[int, ...]
    total: int

    @property
    def count(self) -> int:
        return sum(self.counts)


class RunTotals(msgspec.Struct, frozen=True, array_like=True):
    """Successful runs of one batch size."""

    count: int
    run_ns: int


class DeploymentTotals(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment in one scorer, or summed over scorers. `in_flight` and `queue_depth` are of this moment.

    `codes`: answers by status. `runs`, `rows`, `items`, `run_ns`: successful runs of the model, the rows and requests
    in them and their time. `last_run_ns`: monotonic, 0 for never. `by_rows`: successful runs by batch size.
    `mirrored`: copies of other requests that it was meant to get, by outcome. `expired` and `cancelled` never ran;
    `hung_up` counts callers who left before their answer, whether it ran or not.
    """

    duration: HistogramTotals
    parse: HistogramTotals
    queue: HistogramTotals
    batch_wait: HistogramTotals
    infer: HistogramTotals
    serialize: HistogramTotals
    batch_size: HistogramTotals
    codes: dict[int, int] = {}
    by_rows: dict[int, RunTotals] = {}
    mirrored: dict[str, int] = {}
    succeeded_us: int = 0
    runs: int = 0
    rows: int = 0
    items: int = 0
    run_ns: int = 0
    last_run_ns: int = 0
    failed_runs: int = 0
    expired: int = 0
    cancelled: int = 0
    hung_up: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    in_flight: int = 0
    queue_depth: int = 0


class EndpointTotals(msgspec.Struct, frozen=True, kw_only=True):
    """`codes`: answers that were given before a deployment was chosen."""

    rejected: dict[str, int] = {}
    codes: dict[int, int] = {}
    deployments: dict[str, DeploymentTotals] = {}


class ScorerTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one scorer counted. `unknown`: answers to paths of no endpoint, by status."""

    endpoints: dict[str, EndpointTotals] = {}
    unknown: dict[int, int] = {}
    connections_open: int = 0
    connections_refused: int = 0


def add(a: ScorerTotals, b: ScorerTotals) -> ScorerTotals:
    """Both together, exactly; gauges are summed too."""
    total = _plus(a, b)
    assert isinstance(total, ScorerTotals)
    return total


def fold(dead: ScorerTotals) -> ScorerTotals:
    """What stays of a scorer that died, to be added to the sum: its counters. Its gauges went with it."""
    endpoints = {
        name: msgspec.structs.replace(
            endpoint,
            deployments={
                key: msgspec.structs.replace(value, in_flight=0, queue_depth=0)
                for key, value in endpoint.deployments.items()
            },
        )
        for name, endpoint in dead.endpoints.items()
    }
    return msgspec.structs.replace(dead, endpoints=endpoints, connections_open=0)


def restrict(totals: ScorerTotals, served: Mapping[str, Collection[str]]) -> ScorerTotals:
    """Without the endpoints and deployments that are not served any more: their label values vanish."""
    endpoints = {
        name: msgspec.structs.replace(
            endpoint,
            deployments={key: value for key, value in endpoint.deployments.items() if key in served[name]},
        )
        for name, endpoint in totals.endpoints.items()
        if name in served
    }
    return msgspec.structs.replace(totals, endpoints=endpoints)


def _plus(a: Any, b: Any) -> Any:
    """Adds two values of one shape, field by field, so that a new field is never forgotten."""
    match a:
        case int():
            return a + b
        case tuple():
            return tuple(x + y for x, y in zip(a, b, strict=True))
        case dict():
            both = {key: _plus(value, b[key]) if key in b else value for key, value in a.items()}
            return both | {key: value for key, value in b.items() if key not in a}
        case _:
            return type(a)(**{name: _field_plus(name, a, b) for name in a.__struct_fields__})


def _field_plus(name: str, a: Any, b: Any) -> Any:
    x, y = getattr(a, name), getattr(b, name)
    return max(x, y) if name in _LATEST else _plus(x, y)

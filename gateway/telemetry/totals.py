"""Counters as plain data: what a scorer reports, how reports are summed, and what is kept of a scorer that died.

Why: every scorer counts for itself; the supervisor adds the reports up exactly and shows one gateway. What was shown
once must never go back, so a dead scorer's last report stays in the sum for as long as the supervisor lives.
Units: `*_us` microseconds (a sum in nanoseconds would outgrow MessagePack's 64 bits within months at a thousand
requests in flight), `*_ns` nanoseconds, bytes, rows. Keys: endpoint name, then deployment name.
Laws: `add` is associative and commutative, with `ScorerTotals()` as its zero (tests/unit, by property).
An endpoint's SLO may change: `re_edge` makes reports from before and after it ones that may be added.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

# Fields that say when or how long, not how many: the largest is that of all.
_LARGEST = frozenset({"last_run_ns", "queue_oldest_ns", "batch_rows_limit", "max_abs_difference"})
# What goes with a scorer that died.
_GAUGES = (
    *("in_flight", "queue_depth", "queue_oldest_ns", "batch_rows_limit", "instances", "busy", "waiting_runs"),
    "max_abs_difference",
)
_NO_GAUGES = dict.fromkeys(_GAUGES, 0)


class HistogramTotals(msgspec.Struct, frozen=True, array_like=True):
    """`counts` has one more element than the histogram has edges; `total` is the sum of the observed values.

    `slo_us`: one more edge, between two others, 0 for none; `below_slo`: how many of the bucket that holds it are
    known to be at or under it. What was observed before the edge was set is not known to be: it is a lower bound.
    """

    counts: tuple[int, ...]
    total: int
    slo_us: int = 0
    below_slo: int = 0

    @property
    def count(self) -> int:
        return sum(self.counts)


class RunTotals(msgspec.Struct, frozen=True, array_like=True):
    """Successful runs of one batch size."""

    count: int
    run_ns: int


class ComparisonTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Copies of other requests, compared with the live answers (telemetry/comparison.py).

    `rows`: those that could agree, and how many were `agreeing`. `nonfinite`: copies with a number where the other
    has NaN or an infinity. `skipped`: copies that were not compared whole, by reason. `difference`: the largest of
    each copy, without a sum. `latency`: the copy's time minus the live request's, in microseconds, maybe below 0.
    """

    difference: HistogramTotals
    latency: HistogramTotals
    rows: int = 0
    agreeing: int = 0
    nonfinite: int = 0
    skipped: dict[str, int] = {}


class DeploymentTotals(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment in one scorer, or summed over scorers. `in_flight`, `queue_depth` and `queue_oldest_ns` (the age
    of who waits longest, the largest of all scorers') are of this moment, as are its `instances`, how many of them
    are `busy`, and how many `waiting_runs` it takes to run what waits for one.

    `codes`: answers by status. `runs`, `rows`, `items`, `run_ns`: successful runs of the model, the rows and requests
    in them and their time. `last_run_ns`: monotonic, 0 for never. `by_rows`: successful runs by batch size.
    `mirrored`: copies of other requests that it was meant to get, by outcome. `expired` and `cancelled` never ran;
    `hung_up` counts callers who left before their answer, whether it ran or not. `positions`, `padding_positions`:
    what runs with padding computed, in rows times padded lengths, and how much of it was padding. `comparison`: of
    its answers to copies with the live ones, None where it never was to get copies; `max_abs_difference`: the largest
    since its model was loaded. `collections`: what became of the records of each collection, by outcome
    (telemetry/collection.py).
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
    positions: int = 0
    padding_positions: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    in_flight: int = 0
    queue_depth: int = 0
    queue_oldest_ns: int = 0
    batch_rows_limit: int = 0
    instances: int = 0
    busy: int = 0
    waiting_runs: int = 0
    max_abs_difference: float = 0.0
    comparison: ComparisonTotals | None = None
    collections: dict[str, dict[str, int]] = {}


class EndpointTotals(msgspec.Struct, frozen=True, kw_only=True):
    """`codes`: answers that were given before a deployment was chosen."""

    rejected: dict[str, int] = {}
    codes: dict[int, int] = {}
    deployments: dict[str, DeploymentTotals] = {}


class ScorerTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one scorer counted. `unknown`: answers to paths of no endpoint, by status. `edge_refused`: what its
    listener refused, by reason.
    """

    endpoints: dict[str, EndpointTotals] = {}
    unknown: dict[int, int] = {}
    connections_open: int = 0
    edge_refused: dict[str, int] = {}


def add(a: ScorerTotals, b: ScorerTotals) -> ScorerTotals:
    """Both together, exactly; gauges are summed too. Of two SLOs the larger stays: `re_edge` leaves only one."""
    total = _plus(a, b)
    assert isinstance(total, ScorerTotals)
    return total


def fold(dead: ScorerTotals) -> ScorerTotals:
    """What stays of a scorer that died, to be added to the sum: its counters. Its gauges went with it."""
    endpoints = {
        name: msgspec.structs.replace(
            endpoint,
            deployments={
                key: msgspec.structs.replace(value, **_NO_GAUGES) for key, value in endpoint.deployments.items()
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


def re_edge(totals: ScorerTotals, slo_us: Mapping[str, int], before: ScorerTotals) -> ScorerTotals:
    """With the SLO that each endpoint has now, by name; endpoints that are not named keep theirs.

    What was counted by another SLO is not known to be within this one, except what `before`, an earlier report of the
    same scorer, knew of it: so a bucket never goes back while some scorers have a new SLO already.
    """
    endpoints = {
        name: _re_edge_endpoint(endpoint, slo_us[name], before.endpoints.get(name)) if name in slo_us else endpoint
        for name, endpoint in totals.endpoints.items()
    }
    return msgspec.structs.replace(totals, endpoints=endpoints)


def _re_edge_endpoint(totals: EndpointTotals, slo_us: int, before: EndpointTotals | None) -> EndpointTotals:
    known = before.deployments if before is not None else {}
    deployments = {}
    for name, value in totals.deployments.items():
        duration = value.duration
        if duration.slo_us != slo_us:
            earlier = known[name].duration if name in known else duration
            below = earlier.below_slo if earlier.slo_us == slo_us else 0
            duration = msgspec.structs.replace(duration, slo_us=slo_us, below_slo=below)
            value = msgspec.structs.replace(value, duration=duration)
        deployments[name] = value
    return msgspec.structs.replace(totals, deployments=deployments)


def _plus(a: Any, b: Any) -> Any:
    """Adds two values of one shape, field by field, so that a new field is never forgotten. None adds nothing."""
    if a is None or b is None:
        return b if a is None else a
    match a:
        case int():
            return a + b
        case tuple():
            return tuple(x + y for x, y in zip(a, b, strict=True))
        case dict():
            both = {key: _plus(value, b[key]) if key in b else value for key, value in a.items()}
            return both | {key: value for key, value in b.items() if key not in a}
        case HistogramTotals():
            return _histogram_plus(a, b)
        case _:
            return type(a)(**{name: _field_plus(name, a, b) for name in a.__struct_fields__})


def _field_plus(name: str, a: Any, b: Any) -> Any:
    x, y = getattr(a, name), getattr(b, name)
    return max(x, y) if name in _LARGEST else _plus(x, y)


def _histogram_plus(a: HistogramTotals, b: HistogramTotals) -> HistogramTotals:
    slo_us = max(a.slo_us, b.slo_us)
    below_slo = sum(one.below_slo for one in (a, b) if one.slo_us == slo_us)
    return HistogramTotals(_plus(a.counts, b.counts), a.total + b.total, slo_us, below_slo)

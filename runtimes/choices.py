"""What a deployment gets that nobody tuned: dispatch, batch limit, threads and instances, out of measured run times.

Why: a rule for all is wrong for most: a model of microseconds loses more to a hand-over than it computes, one of
seconds gains nothing from batches, and a session too many takes the memory of one that is needed. What is set by a
person is never overruled. Every choice comes with its reason, one sentence for the deployment's status.
Units: *_ns nanoseconds of one run; rows along the batch axis; cores are those that one scorer may use.
Errors: none.
Source: thresholds for inline from measurements of hand-overs (20 us on one core, 100 us across cores).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from runtimes.batching.latency import Cost
from runtimes.spec import BatchLimits, RuntimeSpec

# A model that is faster than this, whatever the request, runs on the event loop: handing it to a thread would cost
# more than it takes. Nor may a whole batch keep the loop from its sockets for long.
_INLINE_ROW_NS = 200_000
_INLINE_BATCH_NS = 1_000_000
_INLINE_BATCH_ROWS = 16

# What a run costs beside running, so that batches of microsecond models are worth their while.
_HAND_OVER_NS = {"inline": 20_000, "thread": 100_000}
# The smallest batch with so much of the best pace is chosen: beyond it there is only waiting to win.
_PLATEAU = 0.95
_CORES_FOR_TWO = 3

Dispatch = Literal["inline", "thread"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is known of a model.

    `batched`: whether its requests share runs. `times`: of a run by rows, empty where no sample runs. `is_free`:
    whether a request's size beside its rows is its own. `failed_rows`: a size that failed, 0 for none.
    """

    batched: bool
    times: Mapping[int, int]
    is_free: bool = False
    failed_rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """`reasons` has one sentence under each other field's name."""

    dispatch: Dispatch
    rows_max: int
    threads: int
    instances: int
    reasons: dict[str, str]


def choose(spec: RuntimeSpec, measured: Measured, cores: int) -> Choices:
    dispatch, why_dispatch = _dispatch(spec, measured)
    rows_max, why_rows = _rows_max(spec, measured, dispatch)
    threads, why_threads = _threads(spec)
    count, why_instances = instances(spec, dispatch, cores)
    return Choices(
        dispatch=dispatch,
        rows_max=rows_max,
        threads=threads,
        instances=count,
        reasons={
            "dispatch": why_dispatch,
            "rows_max": why_rows,
            "threads": why_threads,
            "instances": why_instances,
        },
    )


def sizes(limits: BatchLimits) -> tuple[int, ...]:
    """The sizes of batches worth measuring: those that are allowed, else 1, 2, 4 and so on up to the limit."""
    most = limits.batch_rows_max
    if limits.sizes:
        return tuple(sorted({1, *(size for size in limits.sizes if size <= most)}))
    doubled = [1 << power for power in range(most.bit_length())]
    return tuple(doubled if doubled[-1] == most else [*doubled, most])


def _dispatch(spec: RuntimeSpec, measured: Measured) -> tuple[Dispatch, str]:
    if spec.dispatch != "auto":
        return spec.dispatch, "set by gateway.runtime.dispatch"
    if not measured.times:
        return "thread", "no generated sample runs, so nobody knows how long a run would hold the event loop"
    if spec.provider != "cpu":
        return "thread", "a run on a device is waited for, and the event loop must not wait"
    row_ns = measured.times[1]
    if measured.is_free:
        return "thread", f"a run of the sample takes {_us(row_ns)}, but requests may be of any size"
    rows = min(_INLINE_BATCH_ROWS, max(measured.times))
    batch_ns = _cost(measured).predict(rows)[0]
    took = f"a run of 1 row takes {_us(row_ns)}" + (f" and one of {rows} {_us(batch_ns)}" if rows > 1 else "")
    if row_ns < _INLINE_ROW_NS and batch_ns < _INLINE_BATCH_NS:
        return "inline", f"{took}: handing it to a thread would cost more than it saves"
    return "thread", f"{took}: the event loop must not wait for that"


def _rows_max(spec: RuntimeSpec, measured: Measured, dispatch: Dispatch) -> tuple[int, str]:
    limits = spec.batching.limits
    if not measured.batched:
        return 1, "requests share no run"
    most = sizes(limits)[-1]
    if not limits.rows_learned:
        return limits.batch_rows_max, f"set by {limits.rows_from}"
    if not measured.times:
        return most, "no generated sample runs, so nothing was measured"
    why_most = "the most unless gateway.batching.max_rows says otherwise"
    if measured.failed_rows:
        most, why_most = max(measured.times), f"a run of {measured.failed_rows} rows failed"
    cost = _cost(measured)
    if dispatch == "inline" and spec.dispatch == "auto" and cost.predict(most)[0] > _INLINE_BATCH_NS:
        most = max(1, cost.rows_within(_INLINE_BATCH_NS))
        why_most = f"a larger run would hold the event loop for more than {_us(_INLINE_BATCH_NS)}"
    candidates = [size for size in sizes(limits) if size < most] + [most]
    paces = {size: size * 1e9 / (cost.predict(size)[0] + _HAND_OVER_NS[dispatch]) for size in candidates}
    best = max(paces.values())
    chosen = next(size for size, pace in paces.items() if pace >= _PLATEAU * best)
    if chosen == most:
        return chosen, f"{paces[chosen]:,.0f} rows a second, and more with every row so far; {why_most}"
    return chosen, f"{paces[chosen]:,.0f} rows a second; larger batches give at most {best:,.0f}"


def _threads(spec: RuntimeSpec) -> tuple[int, str]:
    if spec.threads:
        return spec.threads, "set by gateway.runtime.threads"
    return 1, "scorers and instances share the cores out, so that runs do not wait for each other's threads"


def instances(spec: RuntimeSpec, dispatch: Dispatch, cores: int) -> tuple[int, str]:
    """How many, and why. Capacity is no part of what is learned: it follows the spec while the rest stays."""
    if dispatch == "inline":
        return 1, "the event loop is one thread and has use for one session"
    if spec.instances:
        return spec.instances, "set by gateway.runtime.instances"
    count = max(1, spec.instance_count)
    if count == 1 and spec.provider == "cpu" and cores >= _CORES_FOR_TWO:
        return 2, f"a scorer has {cores} cores: one for the event loop, and more than one for runs"
    return count, f"this scorer's share of instance_count; it has {cores} core{'s' if cores != 1 else ''}"


def _cost(measured: Measured) -> Cost:
    return Cost(measured.times, 1 << 24)


def _us(ns: float) -> str:
    return f"{ns / 1e6:,.1f} ms" if ns >= 1e6 else f"{ns / 1e3:,.0f} us"

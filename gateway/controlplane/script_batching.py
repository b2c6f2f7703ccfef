"""Whether a scoring script is given many requests at once, how many at most, and why, in one sentence. Pure.

What: a script asks for it by defining run_batch(), which its workers tell when they are ready; `gateway.batching` of
its deployment then says how. What of it is about tensors (sizes, padding, axes) has no meaning here.
Errors: none.
"""

from __future__ import annotations

from dataclasses import replace

from runtimes import ALONE_REASON, BatchingSpec, BatchLimits, ScriptSpec

# What is given where nobody asks for anything but the number that may wait, which has an effect without batches too.
_UNASKED = BatchingSpec(limits=BatchLimits(queue_items_max=0))


def with_batching(spec: ScriptSpec, given: BatchingSpec, has_run_batch: bool) -> ScriptSpec:
    """The pool as scorers know it, with these limits."""
    limits = given.limits
    batching, reason = None, _why_not(given, has_run_batch)
    if not reason:
        batching = replace(limits, tokens_max=0, sizes=())
        reason = f"batched by run_batch(), at most {limits.batch_rows_max} rows: {_whose(limits)}"
    return replace(spec, queue_items_max=limits.queue_items_max, batching=batching, batching_reason=reason)


def _why_not(given: BatchingSpec, has_run_batch: bool) -> str:
    if not has_run_batch:
        is_asked = replace(given, limits=replace(given.limits, queue_items_max=0)) != _UNASKED
        return f"{ALONE_REASON}; so gateway.batching has no effect" if is_asked else ALONE_REASON
    if not given.enabled:
        return "gateway.batching.enabled is false, so each request runs alone"
    return ""


def _whose(limits: BatchLimits) -> str:
    said = "the default of gateway.batching.max_rows" if limits.rows_learned else "gateway.batching.max_rows says so"
    return f"{said}, and fewer where gateway.batching.slo_ms asks for it" if limits.slo_ns else said

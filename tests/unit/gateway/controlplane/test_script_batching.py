"""Whether a script shares its runs, how far, and the one sentence that says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.controlplane.plan import Defaults, deployment_spec
from gateway.controlplane.script_batching import with_batching
from gateway.resources import Deployment, LocalTree, Script, ScriptEnvironment
from runtimes import ALONE_REASON, BatchingSpec, BatchLimits, ScriptSpec

SPEC = ScriptSpec(pool="p", workers=2)


def test_a_script_without_run_batch_is_never_batched() -> None:
    found = with_batching(SPEC, BatchingSpec(), False)
    assert (found.batching, found.batching_reason) == (None, ALONE_REASON)


def test_who_asked_for_batches_of_such_a_script_is_told_that_it_has_no_effect() -> None:
    found = with_batching(SPEC, BatchingSpec(limits=BatchLimits(batch_rows_max=9)), False)
    assert found.batching is None
    assert found.batching_reason == f"{ALONE_REASON}; so gateway.batching has no effect"


def test_how_many_may_wait_is_for_every_script() -> None:
    found = with_batching(SPEC, BatchingSpec(limits=BatchLimits(queue_items_max=9)), False)
    assert (found.queue_items_max, found.batching_reason) == (9, ALONE_REASON)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (BatchLimits(), "at most 64 rows: the default of gateway.batching.max_rows"),
        (BatchLimits(batch_rows_max=5, rows_learned=False), "at most 5 rows: gateway.batching.max_rows says so"),
        (BatchLimits(slo_ns=1), "and fewer where gateway.batching.slo_ms asks for it"),
    ],
)
def test_the_reason_names_the_bound_and_where_it_comes_from(limits: BatchLimits, said: str) -> None:
    found = with_batching(SPEC, BatchingSpec(limits=limits), True)
    assert found.batching == limits
    assert found.batching_reason.startswith("batched by run_batch(), at most ")
    assert said in found.batching_reason


def test_what_is_about_tensors_does_not_travel() -> None:
    found = with_batching(SPEC, BatchingSpec(limits=BatchLimits(sizes=(1, 2), tokens_max=9)), True)
    assert found.batching == BatchLimits()


def test_batching_can_be_switched_off() -> None:
    found = with_batching(SPEC, BatchingSpec(enabled=False), True)
    assert found.batching is None
    assert found.batching_reason == "gateway.batching.enabled is false, so each request runs alone"


@pytest.mark.parametrize(
    ("concurrent", "batches", "pending"), [(None, False, 4), (None, True, 0), (3, False, 12), (3, True, 12)]
)
def test_azures_default_of_one_request_at_a_time_is_for_scripts_that_do_not_batch(
    concurrent: int | None, batches: bool, pending: int
) -> None:
    script = Script(code=LocalTree(path=Path("c")), scoring_script="s", environment=ScriptEnvironment())
    deployment = Deployment(
        name="blue",
        endpoint_name="e",
        script=script,
        instance_count=2,
        max_concurrent_requests_per_instance=concurrent,
    )
    workers = with_batching(SPEC, BatchingSpec(), batches)
    spec = deployment_spec(deployment, None, 0, Defaults(cache_dir="", body_bytes_max=1), workers)
    assert spec.pending_max == pending

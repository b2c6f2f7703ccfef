"""Triton's metric names for the gateway's numbers, so that dashboards and autoscalers made for Triton go on working.

The endpoint is the model and the deployment its version. Untyped: OpenMetrics wants `_total` at the end of a
counter's name, and Triton's have none. Off unless the setting asks for them.
Units: Triton's own, `_us` microseconds summed up.
Source: triton-inference-server/server docs/user_guide/metrics.md (names, labels, reasons).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import UnknownMetricFamily

from gateway.telemetry.totals import DeploymentTotals, ScorerTotals

_MODEL = ("model", "version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    name: str
    help: str
    labels: tuple[str, ...] = _MODEL


TABLE: tuple[Alias, ...] = (
    Alias(name="nv_inference_request_success", help="Requests that were answered with 200."),
    Alias(
        name="nv_inference_request_failure",
        help="Requests that failed: REJECTED (408, 429, 503, 504), CANCELED by the caller, BACKEND (424), OTHER.",
        labels=(*_MODEL, "reason"),
    ),
    Alias(name="nv_inference_count", help="Rows in successful runs."),
    Alias(name="nv_inference_exec_count", help="Successful runs."),
    Alias(name="nv_inference_pending_request_count", help="Requests that wait for an instance."),
    Alias(name="nv_inference_request_duration_us", help="Time of all requests."),
    Alias(name="nv_inference_queue_duration_us", help="Time that requests waited for a run."),
    Alias(name="nv_inference_compute_input_duration_us", help="Time that requests took to be parsed."),
    Alias(name="nv_inference_compute_infer_duration_us", help="Time that requests took in the model."),
    Alias(name="nv_inference_compute_output_duration_us", help="Time that answers took to be written."),
)

_REJECTED = frozenset({408, 429, 503, 504})
# 499 is how some log a caller that hung up; those are counted as CANCELED already.
_NOT_OTHER = _REJECTED | {200, 424, 499}


def families(totals: ScorerTotals) -> Iterator[UnknownMetricFamily]:
    by_name = {row.name: UnknownMetricFamily(row.name, row.help, labels=row.labels) for row in TABLE}
    for endpoint, of_endpoint in sorted(totals.endpoints.items()):
        for deployment, one in sorted(of_endpoint.deployments.items()):
            for name, value in _numbers(one).items():
                by_name[name].add_metric((endpoint, deployment), value)
            for reason, value in _failures(one).items():
                by_name["nv_inference_request_failure"].add_metric((endpoint, deployment, reason), value)
    yield from by_name.values()


def _numbers(totals: DeploymentTotals) -> dict[str, int]:
    return {
        "nv_inference_request_success": totals.codes.get(200, 0),
        "nv_inference_count": totals.rows,
        "nv_inference_exec_count": totals.runs,
        "nv_inference_pending_request_count": totals.queue_depth,
        "nv_inference_request_duration_us": totals.duration.total,
        "nv_inference_queue_duration_us": totals.queue.total + totals.batch_wait.total,
        "nv_inference_compute_input_duration_us": totals.parse.total,
        "nv_inference_compute_infer_duration_us": totals.infer.total,
        "nv_inference_compute_output_duration_us": totals.serialize.total,
    }


def _failures(totals: DeploymentTotals) -> dict[str, int]:
    codes = totals.codes
    return {
        "REJECTED": sum(codes.get(code, 0) for code in _REJECTED),
        "CANCELED": totals.hung_up,
        "BACKEND": codes.get(424, 0),
        "OTHER": sum(count for code, count in codes.items() if code not in _NOT_OTHER),
    }

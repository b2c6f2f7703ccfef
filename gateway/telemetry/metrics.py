"""What is shown to Prometheus: the one table of metrics, and the page made from it.

Why one table: names, labels and buckets are promises to dashboards; the page, docs/reference/metrics.md and the tests
all read them here. Only this file and triton.py name prometheus_client.
Units: seconds and bytes, as Prometheus wants them; traffic in percent, as the YAML writes it.
Bounds: no label takes a value that a caller may choose; a deployment, its endpoint's series with it, shows at most
140 series beside its status codes (and 40 more once it is a mirror's target, 7 more for each collection, 13 more with
Triton's names), a GPU 3, and the rest of the gateway at most 110 (tests/contract/test_metrics_page.py).
Source: contract, operators and users, section 2.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from gateway.telemetry import triton
from gateway.telemetry.collection import DROPPED, STORED
from gateway.telemetry.comparison import DIFFERENCE_EDGES, LATENCY_EDGES_NS
from gateway.telemetry.control import OPERATION_EDGES_NS, STORE_EDGES_NS, ControlFacts
from gateway.telemetry.gpu import GpuFacts
from gateway.telemetry.record import DURATION_EDGES_NS, ROWS_EDGES, STAGE_EDGES_NS
from gateway.telemetry.totals import (
    ComparisonTotals,
    DeploymentTotals,
    EndpointTotals,
    HistogramTotals,
    ScorerTotals,
)

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]

STAGES = ("parse", "queue", "batch_wait", "infer", "serialize")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric. `edges` are a histogram's upper edges, in the metric's unit."""

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    edges: tuple[float, ...] = ()


def _seconds(edges_ns: Sequence[int]) -> tuple[float, ...]:
    return tuple(edge / 1e9 for edge in edges_ns)


_ONE = ("endpoint", "deployment")
_GPU = ("gpu",)

TABLE: tuple[Row, ...] = (
    Row(
        name="gateway_requests_total",
        kind="counter",
        help="Answers to scoring requests by status code; without a deployment where none was chosen, and without "
        "an endpoint where the path named none.",
        labels=(*_ONE, "code"),
    ),
    Row(
        name="gateway_request_duration_seconds",
        kind="histogram",
        help="Time from a request's first byte to its answer, for requests that reached a deployment.",
        labels=_ONE,
        edges=_seconds(DURATION_EDGES_NS),
    ),
    Row(
        name="gateway_stage_duration_seconds",
        kind="histogram",
        help="Where a request's time went: parse, queue, batch_wait, infer, serialize.",
        labels=(*_ONE, "stage"),
        edges=_seconds(STAGE_EDGES_NS),
    ),
    Row(
        name="gateway_requests_in_flight",
        kind="gauge",
        help="Requests that a deployment is working on now.",
        labels=_ONE,
    ),
    Row(
        name="gateway_queue_depth",
        kind="gauge",
        help="Requests that wait for an instance of the deployment now.",
        labels=_ONE,
    ),
    Row(
        name="gateway_queue_oldest_seconds",
        kind="gauge",
        help="How long the request that waits longest has waited for an instance, in the queue or in a batch that no "
        "instance has taken yet; 0 when none waits.",
        labels=_ONE,
    ),
    Row(
        name="gateway_batch_rows_limit",
        kind="gauge",
        help="Rows that a run of the model may have now: the batch limit, or less where slo_ms asks for it.",
        labels=_ONE,
    ),
    Row(
        name="gateway_batch_size",
        kind="histogram",
        help="Rows in each run of the model; the count is the number of runs, the sum the number of rows.",
        labels=_ONE,
        edges=tuple(float(edge) for edge in ROWS_EDGES),
    ),
    Row(
        name="gateway_batched_requests_total",
        kind="counter",
        help="Requests that took part in successful runs of the model.",
        labels=_ONE,
    ),
    Row(
        name="gateway_batch_positions_total",
        kind="counter",
        help="Positions (rows times padded length; rows where no length is padded) that runs of a deployment with "
        "padding or batch sizes computed.",
        labels=_ONE,
    ),
    Row(
        name="gateway_padding_positions_total",
        kind="counter",
        help="Positions of gateway_batch_positions_total that were padding: the share of work that was wasted.",
        labels=_ONE,
    ),
    Row(
        name="gateway_failed_runs_total",
        kind="counter",
        help="Runs that the model failed; a failed batch is run again in halves, each of which counts.",
        labels=_ONE,
    ),
    Row(
        name="gateway_expired_total",
        kind="counter",
        help="Requests whose deadline or queue wait passed before they ran.",
        labels=_ONE,
    ),
    Row(
        name="gateway_cancelled_total",
        kind="counter",
        help="Requests whose caller hung up before they ran.",
        labels=_ONE,
    ),
    Row(
        name="gateway_hung_up_total",
        kind="counter",
        help="Requests whose caller hung up before the answer, whether they ran or not.",
        labels=_ONE,
    ),
    Row(
        name="gateway_mirror_total",
        kind="counter",
        help="Copies of requests meant for the deployment by outcome: answered, dropped for want of room, failed.",
        labels=(*_ONE, "outcome"),
    ),
    Row(
        name="gateway_mirror_compared_rows_total",
        kind="counter",
        help="Rows of answers to copies that were compared with the live ones: by the place of their largest entry, "
        "labels and strings by equality; absent, as all of gateway_mirror_* below, where no copies ever were to go.",
        labels=_ONE,
    ),
    Row(
        name="gateway_mirror_agreeing_rows_total",
        kind="counter",
        help="Rows of gateway_mirror_compared_rows_total that agreed with the live answer.",
        labels=_ONE,
    ),
    Row(
        name="gateway_mirror_abs_difference",
        kind="histogram",
        help="The largest absolute difference between numbers of a copy's answer and of the live one, for each copy, "
        "without a sum; NaN or an infinity against a number is above every edge.",
        labels=_ONE,
        edges=DIFFERENCE_EDGES,
    ),
    Row(
        name="gateway_mirror_max_abs_difference",
        kind="gauge",
        help="The largest absolute difference between two finite numbers since the deployment's model was loaded.",
        labels=_ONE,
    ),
    Row(
        name="gateway_mirror_nonfinite_total",
        kind="counter",
        help="Copies with a number where the live answer has NaN or an infinity, or the other way about.",
        labels=_ONE,
    ),
    Row(
        name="gateway_mirror_latency_difference_seconds",
        kind="histogram",
        help="How much longer the copy took than the live request, from its body to its results; below 0 where it "
        "was quicker, so without a sum.",
        labels=_ONE,
        edges=_seconds(LATENCY_EDGES_NS),
    ),
    Row(
        name="gateway_mirror_skipped_total",
        kind="counter",
        help="Copies that were not compared with the live answer, or not whole, by reason: dropped, failed, "
        "live_failed (there was no live answer), names, datatype, shape (an output is not like the live one), "
        "too_large (not one row is within bounds), script (a scoring script answered, which has no outputs), error.",
        labels=(*_ONE, "reason"),
    ),
    Row(
        name="gateway_data_collection_events_total",
        kind="counter",
        help="Collected records that were stored, by collection (request, response, or one that the script writes); "
        "absent where nothing is collected.",
        labels=(*_ONE, "type"),
    ),
    Row(
        name="gateway_data_collection_errors_total",
        kind="counter",
        help="Records that were to be collected and were dropped, by reason: queue_full (the disk does not keep up), "
        "too_large, invalid (of a script), disk_full, disk_error, error.",
        labels=(*_ONE, "type", "reason"),
    ),
    Row(
        name="gateway_request_bytes_total",
        kind="counter",
        help="Bytes of request bodies that a deployment was given.",
        labels=_ONE,
    ),
    Row(
        name="gateway_response_bytes_total",
        kind="counter",
        help="Bytes of response bodies that a deployment gave.",
        labels=_ONE,
    ),
    Row(
        name="gateway_rejected_total",
        kind="counter",
        help="Requests that were refused, by reason.",
        labels=("endpoint", "reason"),
    ),
    Row(
        name="gateway_slo_seconds",
        kind="gauge",
        help="The time within which the endpoint shall answer (gateway.slo_ms), an edge of its request durations; "
        "absent without one.",
        labels=("endpoint",),
    ),
    Row(
        name="gateway_rollout_percent",
        kind="gauge",
        help="What the step of the endpoint's rollout gives the new deployment, in percent of what both have; absent "
        "where no rollout is under way.",
        labels=("endpoint",),
    ),
    Row(
        name="gateway_rollout_paused",
        kind="gauge",
        help="1 while the endpoint's rollout is paused and waits for somebody, 0 while it runs; absent without one.",
        labels=("endpoint",),
    ),
    Row(
        name="gateway_traffic_weight",
        kind="gauge",
        help="Percent of the endpoint's traffic that the deployment is meant to get.",
        labels=_ONE,
    ),
    Row(
        name="gateway_concurrency_limit",
        kind="gauge",
        help="Requests that may be pending on the deployment, over all scorers; absent where nothing bounds them.",
        labels=_ONE,
    ),
    Row(
        name="gateway_instances",
        kind="gauge",
        help="Sessions of the deployment's model that run or wait for work now, over all scorers.",
        labels=_ONE,
    ),
    Row(
        name="gateway_autoscale_instances",
        kind="gauge",
        help="Instances that autoscale gives the deployment now; absent where the number is fixed.",
        labels=_ONE,
    ),
    Row(
        name="gateway_autoscale_instances_max",
        kind="gauge",
        help="Instances that autoscale may give the deployment (scale_settings.max_instances); absent where the "
        "number is fixed.",
        labels=_ONE,
    ),
    Row(
        name="gateway_min_rtt_seconds",
        kind="gauge",
        help="What one row took alone when the model was loaded, below which no answer comes; absent where it was "
        "not measured.",
        labels=_ONE,
    ),
    Row(
        name="gateway_model_load_seconds",
        kind="gauge",
        help="How long the deployment's model took to load, to be checked and to warm up.",
        labels=_ONE,
    ),
    Row(
        name="gateway_model_info",
        kind="gauge",
        help="Always 1; the labels say which model file is served and on what.",
        labels=(*_ONE, "version", "sha256", "provider"),
    ),
    Row(
        name="gateway_scorers",
        kind="gauge",
        help="Scoring processes by state.",
        labels=("state",),
    ),
    Row(
        name="gateway_scorer_restarts_total",
        kind="counter",
        help="Scoring processes that were replaced, by reason.",
        labels=("reason",),
    ),
    Row(
        name="gateway_deployments",
        kind="gauge",
        help="Deployments by state: serving, degraded (a scorer that was replaced could not load it again), "
        "update_failed (what was before is served on), failed (it could not be loaded and is not served).",
        labels=("state",),
    ),
    Row(
        name="gateway_operations_total",
        kind="counter",
        help="Changes that were carried out, by action (create, update, delete, regenerate, apply) and outcome.",
        labels=("action", "outcome"),
    ),
    Row(
        name="gateway_operations_under_way",
        kind="gauge",
        help="Changes that are accepted and being carried out now.",
    ),
    Row(
        name="gateway_operation_duration_seconds",
        kind="histogram",
        help="How long changes took to be carried out, loading and warming models included; those that a restart "
        "interrupted count from there.",
        edges=_seconds(OPERATION_EDGES_NS),
    ),
    Row(
        name="gateway_management_requests_total",
        kind="counter",
        help="Answers of the management listener by kind of request (read: GET, HEAD and OPTIONS, change: the other "
        "methods, blob: asset storage) and class of status (2xx, 3xx, 4xx, 5xx).",
        labels=("kind", "status"),
    ),
    Row(
        name="gateway_management_refused_total",
        kind="counter",
        help="Answers of the management listener of 400 and above, by status code.",
        labels=("code",),
    ),
    Row(
        name="gateway_store_duration_seconds",
        kind="histogram",
        help="How long transactions of the store took, reads and writes, with their wait for the ones before.",
        labels=("mode",),
        edges=_seconds(STORE_EDGES_NS),
    ),
    Row(
        name="gateway_store_busy_total",
        kind="counter",
        help="Transactions that the store refused for the moment: locked by another program, out of room, not "
        "reachable, or too many waiting.",
    ),
    Row(
        name="gateway_assets_bytes",
        kind="gauge",
        help="Bytes of assets that are kept or being written: uploads, and models of applied folders.",
    ),
    Row(
        name="gateway_assets_bytes_max",
        kind="gauge",
        help="Bytes of assets that may be kept (setting assets_max_bytes).",
    ),
    Row(
        name="gateway_connections_open",
        kind="gauge",
        help="Connections that callers hold open on the scoring listener now.",
    ),
    Row(
        name="gateway_edge_refused_total",
        kind="counter",
        help="Connections, requests and headers that the scoring listener refused before there was a request to "
        "route, by reason; connections: their bound was reached.",
        labels=("reason",),
    ),
    Row(
        name="gateway_gpu_memory_used_bytes",
        kind="gauge",
        help="Memory of the GPU that is in use, whoever uses it; absent without NVML.",
        labels=_GPU,
    ),
    Row(
        name="gateway_gpu_memory_total_bytes",
        kind="gauge",
        help="Memory of the GPU; absent without NVML.",
        labels=_GPU,
    ),
    Row(
        name="gateway_gpu_utilization_ratio",
        kind="gauge",
        help="Share of the driver's last sample period in which the GPU ran something; absent without NVML.",
        labels=_GPU,
    ),
    Row(
        name="gateway_tls_certificate_expiry_timestamp_seconds",
        kind="gauge",
        help="When the served certificate expires, in seconds since 1970; absent without TLS.",
    ),
    Row(
        name="gateway_config_last_reload_success",
        kind="gauge",
        help="1 if the last change of the configuration was applied, 0 if it was refused.",
    ),
    Row(
        name="gateway_config_reloads_total",
        kind="counter",
        help="Changes of the configuration by outcome: applied, refused.",
        labels=("outcome",),
    ),
    Row(
        name="gateway_build_info",
        kind="gauge",
        help="Always 1; the labels say what runs. form: pure or compiled (docs/compiled.md).",
        labels=("version", "python", "onnxruntime", "form"),
    ),
    Row(
        name="process_start_time_seconds",
        kind="gauge",
        help="When the gateway started, in seconds since 1970.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentFacts:
    """What the supervisor knows of one deployment. `version` is the model's, "" where the YAML gives none.

    `concurrency_limit`: requests that may be pending, 0 for no bound. `min_rtt_s`: what the fastest run took when the
    model was loaded, 0 where none was measured. `autoscale_instances`: what autoscale gives it now, of at most
    `autoscale_max`; 0 where the number is fixed. `collections`: what became of the records that its script collected.
    """

    endpoint: str
    deployment: str
    sha256: str
    provider: str
    load_s: float
    traffic: int
    version: str = ""
    concurrency_limit: int = 0
    min_rtt_s: float = 0.0
    autoscale_instances: int = 0
    autoscale_max: int = 0
    collections: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorFacts:
    """What only the supervisor knows. `*_unix_s` seconds since 1970; maps go from label value to number.

    `slos_s`: by endpoint, for those that have one.
    """

    version: str
    python: str
    onnxruntime: str
    started_unix_s: float
    form: str = "pure"
    scorers: Mapping[str, int] = field(default_factory=dict)
    scorer_restarts: Mapping[str, int] = field(default_factory=dict)
    tls_expiry_unix_s: float | None = None
    is_last_reload_applied: bool = True
    config_reloads: Mapping[str, int] = field(default_factory=dict)
    deployments: tuple[DeploymentFacts, ...] = ()
    slos_s: Mapping[str, float] = field(default_factory=dict)
    gpus: tuple[GpuFacts, ...] = ()
    control: ControlFacts = field(default_factory=ControlFacts)


def render(
    totals: ScorerTotals,
    facts: SupervisorFacts,
    triton_aliases: bool = False,
    open_metrics: bool = False,
) -> bytes:
    """The page, in Prometheus' text format or in OpenMetrics'."""
    registry = CollectorRegistry()
    registry.register(_Page(totals, facts, triton_aliases))
    # The library's OpenMetrics encoder has the other's signature, but no annotations.
    encode: Callable[[CollectorRegistry], bytes] = openmetrics.generate_latest if open_metrics else generate_latest
    return encode(registry)


def page(
    totals: ScorerTotals, facts: SupervisorFacts, triton_aliases: bool = False, accept: str = ""
) -> tuple[bytes, str]:
    """The page in the format that the caller's Accept header asks for, and its content type."""
    open_metrics = wants_open_metrics(accept)
    body = render(totals, facts, triton_aliases, open_metrics)
    return body, openmetrics.CONTENT_TYPE_LATEST if open_metrics else CONTENT_TYPE_PLAIN_0_0_4


def wants_open_metrics(accept: str) -> bool:
    return any(part.split(";")[0].strip() == "application/openmetrics-text" for part in accept.lower().split(","))


def reference() -> str:
    """docs/reference/metrics.md, whole."""
    lines = [
        "# Metrics",
        "",
        "Served on the telemetry listener at `/metrics`. This page is made from the table in",
        "`gateway/telemetry/metrics.py`; a test keeps the two equal. Label values of deleted endpoints and",
        "deployments vanish. A deployment, its endpoint's series with it, shows at most 140 series beside its status",
        "codes (and 40 more once it is a mirror's target, 7 for each collection, 13 with Triton's names), a GPU 3,",
        "the rest of the gateway at most 110.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{row.name}` | {row.kind} | {_code(row.labels)} | {row.help} |" for row in TABLE]
    lines += ["", "## Buckets", "", "| histogram | upper edges |", "|---|---|"]
    lines += [f"| `{row.name}` | {_code(_texts(row.edges))} |" for row in TABLE if row.edges]
    lines += [
        "",
        "The durations of an endpoint that has an SLO (`gateway: {slo_ms: 42}` in its YAML) have that time as one",
        "more edge, so the share of answers within it is counted, not estimated:",
        "",
        "```promql",
        'sum(rate(gateway_request_duration_seconds_bucket{endpoint="digits", le="0.042"}[5m]))',
        '  / sum(rate(gateway_request_duration_seconds_count{endpoint="digits"}[5m]))',
        "```",
        "",
        "`gateway_slo_seconds` tells the edge. When the SLO changes, what was observed before counts as not within",
        "the new one where its bucket cannot tell: the new edge's count is a lower bound, and its growth is exact.",
        "",
        "A quantile made from these buckets is right to the bucket it falls in. For long-tailed times that is within",
        "a tenth; where a tail ends in the lower part of a wide bucket (10 to 15 ms, 250 to 500 ms), the estimate is",
        "too high by up to the width of that bucket.",
    ]
    lines += [
        "",
        "## Triton's names",
        "",
        "The setting `triton_metrics` adds the names that dashboards for Triton read, from the same numbers: `model`",
        "is the endpoint and `version` the deployment. They are untyped, because OpenMetrics wants `_total` at the",
        "end of a counter's name and Triton's have none.",
        "",
        "| metric | labels | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{row.name}` | {_code(row.labels)} | {row.help} |" for row in triton.TABLE]
    return "\n".join(lines) + "\n"


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _texts(edges: Iterable[float]) -> tuple[str, ...]:
    """As the exposition formats write a number: 0.0005, 1.0, 128.0."""
    return tuple(str(edge) for edge in edges)


class _Page(Collector):
    """Numbers become families of the table, in the table's order."""

    def __init__(self, totals: ScorerTotals, facts: SupervisorFacts, triton_aliases: bool) -> None:
        self._totals = totals
        self._triton_aliases = triton_aliases
        self._values: dict[str, list[tuple[Labels, float]]] = {row.name: [] for row in TABLE}
        self._histograms: dict[str, list[tuple[Labels, HistogramTotals, float]]] = {
            row.name: [] for row in TABLE if row.edges
        }
        self._put_facts(facts)
        self._put_control(facts.control)
        self._put_totals(totals)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry is made for one page and checks no names against others."""
        return ()

    def collect(self) -> Iterator[Metric]:
        for row in TABLE:
            yield self._family(row)
        if self._triton_aliases:
            yield from triton.families(self._totals)

    def _family(self, row: Row) -> Metric:
        if row.kind == "histogram":
            histogram = HistogramMetricFamily(row.name, row.help, labels=row.labels)
            for labels, value, scale in self._histograms[row.name]:
                histogram.add_metric(labels, _buckets(row.edges, value), value.total / scale if scale else None)
            return histogram
        kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
        family = kind(row.name, row.help, labels=row.labels)
        for labels, number in self._values[row.name]:
            family.add_metric(labels, number)
        return family

    def _put(self, name: str, value: float, *labels: str) -> None:
        self._values[name].append((labels, value))

    def _put_histogram(self, name: str, value: HistogramTotals, scale: float, *labels: str) -> None:
        """`scale`: how many of the sum's units make one of the metric's; 0 for a histogram without a sum."""
        self._histograms[name].append((labels, value, scale))

    def _put_each(self, name: str, values: Mapping[str, int] | Mapping[int, int], *labels: str) -> None:
        for key, value in sorted(values.items()):
            self._put(name, value, *labels, str(key))

    def _put_pairs(self, name: str, values: Mapping[tuple[str, str], int]) -> None:
        for pair, value in sorted(values.items()):
            self._put(name, value, *pair)

    def _put_facts(self, facts: SupervisorFacts) -> None:
        self._put("gateway_build_info", 1, facts.version, facts.python, facts.onnxruntime, facts.form)
        self._put("process_start_time_seconds", facts.started_unix_s)
        self._put_each("gateway_scorers", facts.scorers)
        self._put_each("gateway_scorer_restarts_total", facts.scorer_restarts)
        self._put("gateway_config_last_reload_success", int(facts.is_last_reload_applied))
        self._put_each("gateway_config_reloads_total", facts.config_reloads)
        if facts.tls_expiry_unix_s is not None:
            self._put("gateway_tls_certificate_expiry_timestamp_seconds", facts.tls_expiry_unix_s)
        for endpoint, slo_s in sorted(facts.slos_s.items()):
            self._put("gateway_slo_seconds", slo_s, endpoint)
        for gpu in facts.gpus:
            for name, value in (
                ("gateway_gpu_memory_used_bytes", gpu.used_bytes),
                ("gateway_gpu_memory_total_bytes", gpu.total_bytes),
                ("gateway_gpu_utilization_ratio", gpu.utilization),
            ):
                if value is not None:
                    self._put(name, value, str(gpu.index))
        for one in facts.deployments:
            names = (one.endpoint, one.deployment)
            self._put("gateway_traffic_weight", one.traffic, *names)
            self._put("gateway_model_load_seconds", one.load_s, *names)
            if one.concurrency_limit:
                self._put("gateway_concurrency_limit", one.concurrency_limit, *names)
            if one.min_rtt_s:
                self._put("gateway_min_rtt_seconds", one.min_rtt_s, *names)
            if one.autoscale_max:
                self._put("gateway_autoscale_instances", one.autoscale_instances, *names)
                self._put("gateway_autoscale_instances_max", one.autoscale_max, *names)
            self._put_collections(one.collections, *names)
            self._put("gateway_model_info", 1, *names, one.version, one.sha256, one.provider)

    def _put_control(self, facts: ControlFacts) -> None:
        self._put_each("gateway_deployments", facts.deployments)
        self._put_pairs("gateway_operations_total", facts.operations)
        self._put("gateway_operations_under_way", facts.operations_under_way)
        self._put_histogram("gateway_operation_duration_seconds", facts.operation_time, 1e6)
        self._put_pairs("gateway_management_requests_total", facts.requests)
        self._put_each("gateway_management_refused_total", facts.refused)
        for mode, time in sorted(facts.store_time.items()):
            self._put_histogram("gateway_store_duration_seconds", time, 1e6, mode)
        self._put("gateway_store_busy_total", facts.store_busy)
        self._put("gateway_assets_bytes", facts.assets_bytes)
        self._put("gateway_assets_bytes_max", facts.assets_bytes_max)
        for one in facts.rollouts:
            self._put("gateway_rollout_percent", one.percent, one.endpoint)
            self._put("gateway_rollout_paused", int(one.is_paused), one.endpoint)

    def _put_totals(self, totals: ScorerTotals) -> None:
        self._put("gateway_connections_open", totals.connections_open)
        self._put_each("gateway_edge_refused_total", totals.edge_refused)
        self._put_each("gateway_requests_total", totals.unknown, "", "")
        for name, endpoint in sorted(totals.endpoints.items()):
            self._put_endpoint(name, endpoint)

    def _put_endpoint(self, name: str, totals: EndpointTotals) -> None:
        self._put_each("gateway_rejected_total", totals.rejected, name)
        self._put_each("gateway_requests_total", totals.codes, name, "")
        for deployment, value in sorted(totals.deployments.items()):
            self._put_deployment(name, deployment, value)

    def _put_deployment(self, endpoint: str, deployment: str, totals: DeploymentTotals) -> None:
        names = (endpoint, deployment)
        self._put_each("gateway_requests_total", totals.codes, *names)
        self._put_histogram("gateway_request_duration_seconds", totals.duration, 1e6, *names)
        for stage in STAGES:
            self._put_histogram("gateway_stage_duration_seconds", getattr(totals, stage), 1e6, *names, stage)
        self._put_histogram("gateway_batch_size", totals.batch_size, 1, *names)
        self._put_each("gateway_mirror_total", totals.mirrored, *names)
        if totals.comparison is not None:
            self._put("gateway_mirror_max_abs_difference", totals.max_abs_difference, *names)
            self._put_comparison(totals.comparison, *names)
        self._put_collections(totals.collections, *names)
        for name, value in (
            ("gateway_requests_in_flight", totals.in_flight),
            ("gateway_queue_depth", totals.queue_depth),
            ("gateway_instances", totals.instances),
            ("gateway_queue_oldest_seconds", totals.queue_oldest_ns / 1e9),
            ("gateway_batch_rows_limit", totals.batch_rows_limit),
            ("gateway_batched_requests_total", totals.items),
            ("gateway_batch_positions_total", totals.positions),
            ("gateway_padding_positions_total", totals.padding_positions),
            ("gateway_failed_runs_total", totals.failed_runs),
            ("gateway_expired_total", totals.expired),
            ("gateway_cancelled_total", totals.cancelled),
            ("gateway_hung_up_total", totals.hung_up),
            ("gateway_request_bytes_total", totals.request_bytes),
            ("gateway_response_bytes_total", totals.response_bytes),
        ):
            self._put(name, value, *names)

    def _put_collections(self, collections: Mapping[str, Mapping[str, int]], *names: str) -> None:
        for type_, counts in sorted(collections.items()):
            self._put("gateway_data_collection_events_total", counts[STORED], *names, type_)
            for reason in DROPPED:
                self._put("gateway_data_collection_errors_total", counts[reason], *names, type_, reason)

    def _put_comparison(self, totals: ComparisonTotals, *names: str) -> None:
        self._put("gateway_mirror_compared_rows_total", totals.rows, *names)
        self._put("gateway_mirror_agreeing_rows_total", totals.agreeing, *names)
        self._put("gateway_mirror_nonfinite_total", totals.nonfinite, *names)
        self._put_each("gateway_mirror_skipped_total", totals.skipped, *names)
        self._put_histogram("gateway_mirror_abs_difference", totals.difference, 0, *names)
        self._put_histogram("gateway_mirror_latency_difference_seconds", totals.latency, 0, *names)


def _buckets(edges: Sequence[float], totals: HistogramTotals) -> list[tuple[str, float]]:
    """Cumulative counts by upper edge, as Prometheus has them."""
    below = 0
    buckets: list[tuple[str, float]] = []
    for edge, count in zip((*_texts(edges), "+Inf"), totals.counts, strict=True):
        below += count
        buckets.append((edge, below))
    if totals.slo_us:
        slo_s = totals.slo_us / 1e6
        at = bisect_left(edges, slo_s)
        buckets.insert(at, (str(slo_s), (buckets[at - 1][1] if at else 0) + totals.below_slo))
    return buckets

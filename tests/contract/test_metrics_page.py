"""The metrics page as its readers see it: valid in both formats, complete, bounded, documented, near the truth."""

from __future__ import annotations

import bisect
import inspect
import random
import re
import subprocess
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway import listener
from gateway.errors import Code
from gateway.telemetry import triton
from gateway.telemetry.collection import CollectionRecord
from gateway.telemetry.control import (
    ACTIONS,
    CLASSES,
    KINDS,
    ControlFacts,
    DoorRecord,
    OperationsRecord,
    RolloutFacts,
    StoreRecord,
)
from gateway.telemetry.gpu import GpuFacts
from gateway.telemetry.metrics import (
    TABLE,
    DeploymentFacts,
    SupervisorFacts,
    page,
    reference,
    render,
    wants_open_metrics,
)
from gateway.telemetry.record import (
    DURATION_EDGES_NS,
    EDGE_REASONS,
    OUTCOMES,
    REASONS,
    DeploymentRecord,
    Histogram,
    ScorerRecord,
)
from gateway.telemetry.totals import ScorerTotals, add
from tests.support.promtool import promtool

CODES = (200, 400, 424)
MS = 1_000_000

Key = tuple[str, frozenset[tuple[str, str]]]


def _load(record: DeploymentRecord) -> None:
    for code in CODES:
        record.answered(code, 9 * MS, MS, 2 * MS, 3 * MS, MS, MS)
    record.ran(4, 2, 3 * MS, False)
    record.ran(4, 2, 3 * MS, True)
    record.expired(1)
    record.cancelled(1)
    record.hung_up()
    for outcome in OUTCOMES:
        record.mirrored(outcome)
    record.request_bytes += 1000
    record.response_bytes += 100
    record.in_flight = 2
    record.queue_depth = 1
    record.queue_oldest_ns = 500 * MS
    record.instances = 3


def _compare(record: DeploymentRecord) -> None:
    told = record.comparison()
    told.compared(3, 2, 0.25, False)
    told.compared(1, 1, 0.0, True)
    told.timed(-3 * MS)
    told.timed(700 * MS)
    told.skipped("shape")
    record.max_abs_difference = 0.25


def _totals(deployments: int, are_targets: bool = True) -> ScorerTotals:
    """A scorer with one deployment an endpoint, which is what costs most series a deployment. Targets of mirrors here
    collect their requests too."""
    record = ScorerRecord()
    record.edge_refused({"connections": 2})
    for number in range(deployments):
        record.endpoint(f"endpoint{number}").keep_slo(9_500_000)
        _load(record.deployment(f"endpoint{number}", "blue"))
        if are_targets:
            _compare(record.deployment(f"endpoint{number}", "blue"))
            record.deployment(f"endpoint{number}", "blue").collection("request").stored()
        for reason in REASONS:
            record.endpoint(f"endpoint{number}").rejected(reason)
    record.unknown(404)
    return record.snapshot()


def _control(rollouts: int) -> ControlFacts:
    """One of each; refused with every status that there is."""
    ticks = iter((0, 2_000 * MS, 0, 40 * MS))
    operations, door, store = OperationsRecord(lambda: next(ticks)), DoorRecord(), StoreRecord()
    for outcome in ("succeeded", "failed"):
        with operations.running("update") as running:
            running.outcome = outcome
    for status in {200, *(code.status for code in Code)}:
        door.answered("PUT", status)
    store.ended(writes=True, took_ns=3 * MS)
    return ControlFacts(
        operations=operations.ended,
        operations_under_way=1,
        operation_time=operations.totals(),
        requests=door.answers,
        refused=door.refused,
        store_time=store.totals(),
        store_busy=4,
        assets_bytes=1000,
        assets_bytes_max=9000,
        deployments={"serving": 5, "degraded": 1, "update_failed": 0, "failed": 2},
        rollouts=tuple(
            RolloutFacts(endpoint=f"endpoint{number}", percent=10, is_paused=number == 0)
            for number in range(rollouts)
        ),
    )


def _facts(deployments: int, gpus: int = 1) -> SupervisorFacts:
    return SupervisorFacts(
        version="0.1.0",
        python="3.11.7",
        onnxruntime="1.22.0",
        started_unix_s=1_700_000_000.5,
        scorers={"starting": 0, "ready": 2, "draining": 0, "dead": 0},
        scorer_restarts={"exit": 1, "signal": 0, "hung": 0},
        tls_expiry_unix_s=1_800_000_000.0,
        config_reloads={"applied": 3, "refused": 1},
        deployments=tuple(
            DeploymentFacts(
                endpoint=f"endpoint{number}",
                deployment="blue",
                sha256="ab" * 32,
                provider="cpu",
                load_s=0.25,
                traffic=90,
                version="1",
                concurrency_limit=20,
                min_rtt_s=0.001,
                autoscale_instances=3,
                autoscale_max=8,
            )
            for number in range(deployments)
        ),
        slos_s={f"endpoint{number}": 0.0095 for number in range(deployments)},
        gpus=tuple(GpuFacts(index=index, used_bytes=10, total_bytes=100, utilization=0.5) for index in range(gpus)),
        control=_control(deployments),
    )


def _samples(body: bytes, parse: Callable[[str], Iterable[Metric]] = parse_text) -> dict[Key, float]:
    found: dict[Key, float] = {}
    for family in parse(body.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def _value(samples: dict[Key, float], name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_the_page_shows_what_was_counted() -> None:
    samples = _samples(render(add(_totals(1), _totals(1)), _facts(1)))
    one = {"endpoint": "endpoint0", "deployment": "blue"}
    assert _value(samples, "gateway_requests_total", **one, code="200") == 2
    assert _value(samples, "gateway_requests_total", endpoint="", deployment="", code="404") == 2
    assert _value(samples, "gateway_request_duration_seconds_bucket", **one, le="0.0075") == 0
    assert _value(samples, "gateway_request_duration_seconds_bucket", **one, le="0.0095") == 6
    assert _value(samples, "gateway_request_duration_seconds_bucket", **one, le="0.01") == 6
    assert _value(samples, "gateway_request_duration_seconds_bucket", **one, le="+Inf") == 6
    assert _value(samples, "gateway_request_duration_seconds_count", **one) == 6
    assert _value(samples, "gateway_request_duration_seconds_sum", **one) == pytest.approx(0.054)
    assert _value(samples, "gateway_stage_duration_seconds_sum", **one, stage="queue") == pytest.approx(0.012)
    assert _value(samples, "gateway_batch_size_bucket", **one, le="4.0") == 4
    assert _value(samples, "gateway_batch_size_sum", **one) == 16
    assert _value(samples, "gateway_rejected_total", endpoint="endpoint0", reason="queue_full") == 2
    assert _value(samples, "gateway_mirror_total", **one, outcome="dropped") == 2
    assert _value(samples, "gateway_mirror_compared_rows_total", **one) == 8
    assert _value(samples, "gateway_mirror_agreeing_rows_total", **one) == 6
    assert _value(samples, "gateway_mirror_nonfinite_total", **one) == 2
    assert _value(samples, "gateway_mirror_max_abs_difference", **one) == 0.25
    assert _value(samples, "gateway_mirror_skipped_total", **one, reason="shape") == 2
    assert _value(samples, "gateway_mirror_skipped_total", **one, reason="names") == 0
    assert _value(samples, "gateway_mirror_abs_difference_bucket", **one, le="0.1") == 0
    assert _value(samples, "gateway_mirror_abs_difference_bucket", **one, le="1.0") == 2
    assert _value(samples, "gateway_mirror_abs_difference_bucket", **one, le="+Inf") == 4
    assert _value(samples, "gateway_mirror_latency_difference_seconds_bucket", **one, le="-0.005") == 0
    assert _value(samples, "gateway_mirror_latency_difference_seconds_bucket", **one, le="-0.001") == 2
    assert _value(samples, "gateway_mirror_latency_difference_seconds_bucket", **one, le="0.5") == 2
    assert _value(samples, "gateway_mirror_latency_difference_seconds_bucket", **one, le="+Inf") == 4
    assert _value(samples, "gateway_requests_in_flight", **one) == 4
    assert _value(samples, "gateway_queue_depth", **one) == 2
    assert _value(samples, "gateway_queue_oldest_seconds", **one) == 0.5
    assert _value(samples, "gateway_slo_seconds", endpoint="endpoint0") == 0.0095
    assert _value(samples, "gateway_edge_refused_total", reason="connections") == 4
    assert _value(samples, "gateway_edge_refused_total", reason="slow_head") == 0
    assert _value(samples, "gateway_gpu_memory_used_bytes", gpu="0") == 10
    assert _value(samples, "gateway_gpu_memory_total_bytes", gpu="0") == 100
    assert _value(samples, "gateway_gpu_utilization_ratio", gpu="0") == 0.5
    assert _value(samples, "gateway_traffic_weight", **one) == 90
    assert _value(samples, "gateway_model_info", **one, version="1", sha256="ab" * 32, provider="cpu") == 1
    assert _value(samples, "gateway_scorers", state="ready") == 2
    assert _value(samples, "gateway_scorer_restarts_total", reason="exit") == 1
    assert _value(samples, "gateway_config_reloads_total", outcome="applied") == 3
    assert _value(samples, "gateway_config_last_reload_success") == 1
    assert _value(samples, "gateway_tls_certificate_expiry_timestamp_seconds") == 1_800_000_000
    assert _value(samples, "process_start_time_seconds") == 1_700_000_000.5


def test_the_page_shows_what_was_collected_by_scorers_and_by_a_script() -> None:
    record = ScorerRecord()
    told = record.deployment("e", "d").collection("request")
    for _ in range(3):
        told.stored()
    told.dropped("disk_full")
    script = CollectionRecord()
    script.dropped("too_large")
    names = {"endpoint": "e", "deployment": "d"}
    one = DeploymentFacts(
        endpoint="e",
        deployment="d",
        sha256="",
        provider="cpu",
        load_s=0,
        traffic=0,
        collections={"in": script.snapshot()},
    )
    facts = SupervisorFacts(version="0", python="3", onnxruntime="1", started_unix_s=0, deployments=(one,))
    samples = _samples(render(add(record.snapshot(), record.snapshot()), facts))
    events, errors = "gateway_data_collection_events_total", "gateway_data_collection_errors_total"
    assert _value(samples, events, **names, type="request") == 6
    assert _value(samples, errors, **names, type="request", reason="disk_full") == 2
    assert _value(samples, errors, **names, type="request", reason="queue_full") == 0
    assert _value(samples, events, **names, type="in") == 0
    assert _value(samples, errors, **names, type="in", reason="too_large") == 1
    # What one collection costs, as the table promises.
    assert sum(name.startswith("gateway_data_collection") for name, _ in samples) == 2 * 7


def test_the_page_shows_what_the_control_plane_did() -> None:
    samples = _samples(render(_totals(1), _facts(1)))
    one = {"endpoint": "endpoint0", "deployment": "blue"}
    assert _value(samples, "gateway_instances", **one) == 3
    assert _value(samples, "gateway_autoscale_instances", **one) == 3
    assert _value(samples, "gateway_autoscale_instances_max", **one) == 8
    assert _value(samples, "gateway_rollout_percent", endpoint="endpoint0") == 10
    assert _value(samples, "gateway_rollout_paused", endpoint="endpoint0") == 1
    assert _value(samples, "gateway_deployments", state="serving") == 5
    assert _value(samples, "gateway_deployments", state="failed") == 2
    assert _value(samples, "gateway_operations_total", action="update", outcome="succeeded") == 1
    assert _value(samples, "gateway_operations_total", action="update", outcome="failed") == 1
    assert _value(samples, "gateway_operations_total", action="apply", outcome="failed") == 0
    assert _value(samples, "gateway_operations_under_way") == 1
    assert _value(samples, "gateway_operation_duration_seconds_bucket", le="0.05") == 1
    assert _value(samples, "gateway_operation_duration_seconds_bucket", le="5.0") == 2
    assert _value(samples, "gateway_operation_duration_seconds_sum") == pytest.approx(2.04)
    assert _value(samples, "gateway_management_requests_total", kind="change", status="2xx") == 1
    assert _value(samples, "gateway_management_requests_total", kind="read", status="2xx") == 0
    assert _value(samples, "gateway_management_refused_total", code="409") == 1
    assert _value(samples, "gateway_store_duration_seconds_bucket", mode="write", le="0.001") == 0
    assert _value(samples, "gateway_store_duration_seconds_bucket", mode="write", le="0.005") == 1
    assert _value(samples, "gateway_store_duration_seconds_count", mode="read") == 0
    assert _value(samples, "gateway_store_busy_total") == 4
    assert _value(samples, "gateway_assets_bytes") == 1000
    assert _value(samples, "gateway_assets_bytes_max") == 9000


def test_what_never_happened_is_shown_as_nothing_and_not_left_out() -> None:
    """A counter that appears with its first event hides that event from `increase`."""
    facts = SupervisorFacts(version="0", python="3", onnxruntime="1", started_unix_s=0)
    samples = _samples(render(ScorerTotals(), facts))
    shown = [name for name, _ in samples]
    assert shown.count("gateway_operations_total") == 2 * len(ACTIONS)
    assert shown.count("gateway_management_requests_total") == len(KINDS) * len(CLASSES)
    assert shown.count("gateway_store_duration_seconds_count") == 2
    assert not any(name.startswith(("gateway_rollout", "gateway_autoscale")) for name in shown)


def test_every_metric_of_the_table_is_shown_and_no_other() -> None:
    families = {family.name: family for family in parse_text(render(_totals(1), _facts(1)).decode())}
    assert set(families) == {row.name.removesuffix("_total") for row in TABLE}
    for row in TABLE:
        family = families[row.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (row.kind, row.help)
        assert family.samples, f"{row.name} has no samples"
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(row.labels)


def test_histograms_of_differences_have_no_sum_to_go_back() -> None:
    names = {name for name, _ in _samples(render(_totals(1), _facts(1)))}
    for histogram in ("gateway_mirror_abs_difference", "gateway_mirror_latency_difference_seconds"):
        assert {name for name in names if name.startswith(histogram)} == {f"{histogram}_bucket"}


def test_without_tls_or_deployments_the_page_still_stands() -> None:
    facts = SupervisorFacts(version="0", python="3", onnxruntime="1", started_unix_s=0, is_last_reload_applied=False)
    samples = _samples(render(ScorerTotals(), facts))
    assert _value(samples, "gateway_config_last_reload_success") == 0
    absent = ("gateway_tls", "gateway_gpu", "gateway_slo")
    assert not any(name.startswith(absent) for name, _ in samples)


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    gpus = (GpuFacts(index=3, used_bytes=1, total_bytes=2), GpuFacts(index=4))
    facts = SupervisorFacts(version="0", python="3", onnxruntime="1", started_unix_s=0, gpus=gpus)
    shown = {key for key in _samples(render(ScorerTotals(), facts)) if key[0].startswith("gateway_gpu")}
    gpu3 = frozenset({("gpu", "3")})
    assert shown == {("gateway_gpu_memory_used_bytes", gpu3), ("gateway_gpu_memory_total_bytes", gpu3)}


def test_both_formats_say_the_same() -> None:
    text = _samples(render(_totals(2), _facts(2), True))
    assert _samples(render(_totals(2), _facts(2), True, True), parse_open_metrics) == text


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", False),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", True),
        ("text/plain, APPLICATION/OPENMETRICS-TEXT; version=\x00", True),
        ("application/openmetrics-textual", False),
    ],
)
def test_the_accept_header_chooses_the_format(accept: str, is_open: bool) -> None:
    body, content_type = page(_totals(1), _facts(1), accept=accept)
    assert wants_open_metrics(accept) is is_open
    assert body.endswith(b"# EOF\n") is is_open
    expected = "application/openmetrics-text; version=1.0.0" if is_open else "text/plain; version=0.0.4"
    assert content_type == f"{expected}; charset=utf-8"


def _series(deployments: int, gpus: int = 0, triton_aliases: bool = False, are_targets: bool = False) -> int:
    totals = _totals(deployments, are_targets)
    series = _samples(render(totals, _facts(deployments, gpus), triton_aliases))
    codes = sum(name == "gateway_requests_total" for name, _ in series)
    assert codes == len(CODES) * deployments + 1
    return len(series) - codes


def test_the_number_of_series_is_bounded() -> None:
    alone = _series(0)
    assert alone <= 110
    for deployments in (1, 3):
        own = _series(deployments) - alone
        assert own <= 140 * deployments
        assert _series(deployments, triton_aliases=True) - alone - own == 13 * deployments
        assert _series(deployments, are_targets=True) - alone - own == (41 + 7) * deployments
    assert _series(0, gpus=8) - alone == 3 * 8


def _buckets(record: ScorerRecord) -> list[tuple[float, float]]:
    """Upper edge and count of the durations of the only deployment, as they stand on the page."""
    families = parse_text(render(record.snapshot(), _facts(0)).decode())
    samples = next(one.samples for one in families if one.name == "gateway_request_duration_seconds")
    return [(float(one.labels["le"]), one.value) for one in samples if one.name.endswith("_bucket")]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300_000_000),
    st.lists(st.integers(0, 20_000 * MS), max_size=8),
    st.lists(st.integers(0, 20_000 * MS), max_size=8),
)
def test_the_edge_of_an_slo_stands_in_its_place(slo_us: int, before: list[int], after: list[int]) -> None:
    record = ScorerRecord()
    for duration_ns in before:
        record.deployment("digits", "blue").answered(200, duration_ns)
    record.endpoint("digits").keep_slo(slo_us * 1000)
    for duration_ns in after:
        record.deployment("digits", "blue").answered(200, duration_ns)
    record.deployment("digits", "blue")
    buckets = _buckets(record)
    edges = [edge for edge, _ in buckets]
    assert edges == sorted({*(edge / 1e9 for edge in DURATION_EDGES_NS), slo_us / 1e6, float("inf")})
    counts = dict(buckets)
    assert [count for _, count in buckets] == sorted(counts.values())
    for edge_ns in DURATION_EDGES_NS:
        assert counts[edge_ns / 1e9] == sum(duration <= edge_ns for duration in before + after)
    # What came before may count as not within it; what came after is counted exactly.
    within = [sum(duration <= slo_us * 1000 for duration in durations) for durations in (before, after)]
    assert within[1] <= counts[slo_us / 1e6] <= sum(within)
    if not before:
        assert counts[slo_us / 1e6] == within[1]


def test_the_slo_that_is_told_is_the_edge_that_is_shown() -> None:
    samples = _samples(render(_totals(1), _facts(1)))
    slo_s = _value(samples, "gateway_slo_seconds", endpoint="endpoint0")
    assert ("gateway_request_duration_seconds_bucket", str(slo_s)) in {
        (name, dict(labels).get("le")) for name, labels in samples
    }


def test_every_reason_that_the_listener_gives_has_a_series() -> None:
    """Read from its source: what it counts by name, and the codes and reasons of what it refuses."""
    source = inspect.getsource(listener)
    codes = {Code[name].text for name in re.findall(r"\bCode\.([A-Z_]+)", source)}
    named = set(re.findall(r'(?:reason=|count_refusal\()"(\w+)"', source))
    assert {"connections", "slow_head", "slow_body", "slow_read", "underscore_header"} <= named
    # These two have a reason of their own beside the code.
    codes -= {Code.DEADLINE_EXCEEDED.text, Code.UNAVAILABLE.text}
    assert named | codes <= set(EDGE_REASONS)


def test_a_deployment_that_is_gone_takes_its_series_along() -> None:
    record = ScorerRecord()
    _load(record.deployment("digits", "blue"))
    _load(record.deployment("digits", "green"))
    before = _samples(render(record.snapshot(), _facts(0), True))
    record.drop("digits", "green")
    after = _samples(render(record.snapshot(), _facts(0), True))
    assert after == {key: value for key, value in before.items() if "green" not in dict(key[1]).values()}


def test_odd_names_cannot_break_the_page() -> None:
    record = ScorerRecord()
    _load(record.deployment('a"b\\c\nd', "\u2028"))
    parsers: dict[bool, Callable[[str], Iterable[Metric]]] = {False: parse_text, True: parse_open_metrics}
    for is_open, parse in parsers.items():
        samples = _samples(render(record.snapshot(), _facts(0), True, is_open), parse)
        assert _value(samples, "gateway_queue_depth", endpoint='a"b\\c\nd', deployment="\u2028") == 1


def test_names_follow_the_rules() -> None:
    names = [row.name for row in TABLE]
    assert len(names) == len(set(names))
    for row in TABLE:
        assert re.fullmatch(r"(gateway|process)_[a-z0-9_]+", row.name)
        assert row.name.endswith("_total") == (row.kind == "counter")
        assert bool(row.edges) == (row.kind == "histogram")
        assert row.help.endswith(".")


def test_the_reference_page_names_every_metric() -> None:
    for name in [row.name for row in TABLE] + [row.name for row in triton.TABLE]:
        assert f"`{name}`" in reference()


def test_promtool_finds_nothing_to_say() -> None:
    done = subprocess.run(
        [promtool(), "check", "metrics"], input=render(_totals(2), _facts(2)), capture_output=True, timeout=30
    )
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "", "")


def test_promtool_only_minds_the_names_that_triton_chose() -> None:
    done = subprocess.run(
        [promtool(), "check", "metrics"], input=render(_totals(2), _facts(2), True), capture_output=True, timeout=30
    )
    # 3: the page is valid and there are remarks; 1 would be a page that cannot be read.
    assert done.returncode == 3
    assert {line.split("_")[0] for line in (done.stdout + done.stderr).decode().splitlines()} == {"nv"}


def _quantile(histogram: Histogram, q: float) -> float:
    """What Prometheus' histogram_quantile says: linear inside the bucket."""
    counts = histogram.totals().counts
    below, rank = 0, q * sum(counts)
    for index, count in enumerate(counts[:-1]):
        if count and below + count >= rank:
            low = histogram.edges[index - 1] if index else 0
            return low + (histogram.edges[index] - low) * (rank - below) / count
        below += count
    return histogram.edges[-1]


LONG_TAILS: dict[str, Callable[[random.Random], float]] = {
    "log-normal with a p99 of 32.5 ms": lambda chance: chance.lognormvariate(2.32, 0.5) * MS,
    "exponential, mean 2 ms": lambda chance: chance.expovariate(1 / 2) * MS,
    "hits and misses": lambda chance: (
        (1 + chance.random() if chance.random() < 0.9 else 60 + 30 * chance.random()) * MS
    ),
}
# A tail that ends in the lower part of a wide bucket: the estimate is too high, by as much as the bucket is wide.
SHORT_TAILS: dict[str, Callable[[random.Random], float]] = {
    "normal around 9 ms": lambda chance: max(0.1, chance.gauss(9, 1.5)) * MS,
    "uniform to 400 ms": lambda chance: 400 * chance.random() * MS,
}
SHAPES = LONG_TAILS | SHORT_TAILS


def _p99(shape: str) -> tuple[float, int]:
    """As the buckets have it, and as it is."""
    chance = random.Random(f"seed of {shape}")
    values = sorted(int(SHAPES[shape](chance)) for _ in range(20_000))
    histogram = Histogram(DURATION_EDGES_NS)
    for value in values:
        histogram.observe(value)
    return _quantile(histogram, 0.99), values[int(0.99 * len(values)) - 1]


@pytest.mark.parametrize("shape", LONG_TAILS)
def test_the_p99_of_a_long_tail_is_within_a_tenth_of_the_truth(shape: str) -> None:
    estimate, truth = _p99(shape)
    assert estimate == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_p99_is_right_to_the_bucket(shape: str) -> None:
    estimate, truth = _p99(shape)
    bucket = bisect.bisect_left(DURATION_EDGES_NS, truth)
    assert DURATION_EDGES_NS[bucket - 1] <= estimate <= DURATION_EDGES_NS[bucket]

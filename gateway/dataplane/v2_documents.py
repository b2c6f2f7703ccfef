"""The V2 protocol's documents about a server and its models, from plain arguments.

Clients are strict about them in ways the protocol text is not: perf_analyzer reads `extensions`, every key of the
statistics and `max_batch_size` without asking whether they are there, and takes the first dimension off every shape
where `max_batch_size` is above 0. So a model gets a `max_batch_size` only if rows are its first axis everywhere.
Units: durations are a count and nanoseconds; `last_inference_ms` milliseconds since the epoch.
Errors: none. Source: Open Inference Protocol; Triton's statistics, model configuration and repository extensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.telemetry.totals import DeploymentTotals, HistogramTotals
from runtimes import Datatype, Declared, Signature, TensorSpec

Document = dict[str, Any]

SERVER_NAME = "inference-gateway"
PLATFORM = "onnxruntime_onnx"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "statistics",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """How often a step was taken, and the sum of its time."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatistics:
    """The runs of one batch size: what a latency-over-batch curve is drawn from."""

    rows: int
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatistics:
    """`inference_count` counts rows, `execution_count` runs of the model: their ratio is the mean batch."""

    name: str
    version: str
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Duration = Duration()
    fail: Duration = Duration()
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()
    batches: tuple[BatchStatistics, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One version of a model in the repository; `reason` says why it is not ready."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE", "LOADING", "UNLOADING"]
    reason: str = ""


def server_metadata(version: str, extensions: Sequence[str] = EXTENSIONS) -> Document:
    return {"name": SERVER_NAME, "version": version, "extensions": list(extensions)}


def model_metadata(name: str, versions: Sequence[str], signature: Signature) -> Document:
    """Shapes include the batch dimension; -1 is free."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": PLATFORM,
        "inputs": [_tensor_metadata(spec) for spec in signature.inputs],
        "outputs": [_tensor_metadata(spec) for spec in signature.outputs],
    }


def model_config(
    name: str,
    signature: Signature,
    *,
    batch_rows_max: int,
    queue_delay_ns: int = 0,
    preferred: Sequence[int] = (),
    instance_count: int = 1,
    device_ids: Sequence[int] = (),
    declared: Declared | None = None,
    version: str = "",
) -> Document:
    """The model's configuration as Triton's model_config.proto says it in JSON. No devices: instances on the CPU.
    `declared`: what a configuration of its own says of tensors and rows; `version`: its number, where it has one."""
    rows_max = batch_rows_max if _has_rows_first(signature) else 0
    if declared is not None and (declared.rows_max or declared.inputs):
        rows_max = declared.rows_max
    policy = {"specific": {"versions": [int(version)]}} if version else {"latest": {"num_versions": 1}}
    config: Document = {
        "name": name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "runtime": "",
        "version_policy": policy,
        "max_batch_size": rows_max,
        "input": [_config_input(spec, rows_max) for spec in signature.inputs],
        "output": [_config_output(spec, rows_max) for spec in signature.outputs],
        "instance_group": [_instance_group(name, instance_count, device_ids)],
        "default_model_filename": "model.onnx",
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {},
        "model_warmup": [],
        "model_transaction_policy": {"decoupled": False},
    }
    if declared is not None:
        _add_reshapes(config, declared)
    if signature.batched:
        config["dynamic_batching"] = {
            "preferred_batch_size": list(preferred) or [batch_rows_max],
            "max_queue_delay_microseconds": queue_delay_ns // 1000,
            "preserve_ordering": False,
            "priority_levels": 0,
            "default_priority_level": 0,
            "priority_queue_policy": {},
        }
    return config


def statistics_of(name: str, version: str, counts: DeploymentTotals, now_ns: int, now_s: float) -> ModelStatistics:
    """A deployment's counters in these terms; times are exact to a microsecond. `now_s`: seconds since the epoch."""
    succeeded = counts.codes.get(200, 0)
    since_s = (now_ns - counts.last_run_ns) / 1e9
    return ModelStatistics(
        name=name,
        version=version,
        last_inference_ms=int((now_s - since_s) * 1000) if counts.last_run_ns else 0,
        inference_count=counts.rows,
        execution_count=counts.runs,
        success=Duration(count=succeeded, ns=counts.succeeded_us * 1000),
        fail=Duration(
            count=counts.duration.count - succeeded, ns=(counts.duration.total - counts.succeeded_us) * 1000
        ),
        queue=_sum(counts.queue),
        compute_input=_sum(counts.parse),
        compute_infer=_sum(counts.infer),
        compute_output=_sum(counts.serialize),
        batches=tuple(
            BatchStatistics(rows=rows, compute_infer=Duration(count=runs.count, ns=runs.run_ns))
            for rows, runs in sorted(counts.by_rows.items())
        ),
    )


def _sum(histogram: HistogramTotals) -> Duration:
    return Duration(count=histogram.count, ns=histogram.total * 1000)


def statistics_document(models: Iterable[ModelStatistics]) -> Document:
    return {"model_stats": [_model_statistics(model) for model in models]}


def repository_index(entries: Iterable[IndexEntry]) -> list[Document]:
    return [
        {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
        for entry in entries
    ]


def _datatype(spec: TensorSpec) -> Datatype:
    """Maps travel as JSON texts."""
    return Datatype.BYTES if spec.maps else spec.datatype


def _tensor_metadata(spec: TensorSpec) -> Document:
    return {"name": spec.name, "datatype": _datatype(spec).v2, "shape": list(spec.shape)}


def _has_rows_first(signature: Signature) -> bool:
    return signature.batched and all(spec.batch_axis == 0 for spec in signature.inputs + signature.outputs)


def _config_tensor(spec: TensorSpec, rows_max: int) -> Document:
    datatype = _datatype(spec)
    return {
        "name": spec.name,
        "data_type": "TYPE_STRING" if datatype is Datatype.BYTES else f"TYPE_{datatype.v2}",
        "dims": list(spec.shape[1:] if rows_max else spec.shape),
    }


def _add_reshapes(config: Document, declared: Declared) -> None:
    shapes = {one.name: one.inner for one in (*declared.inputs, *declared.outputs) if one.inner is not None}
    for tensor in (*config["input"], *config["output"]):
        if tensor["name"] in shapes:
            tensor["reshape"] = {"shape": list(shapes[tensor["name"]][1 if declared.rows_max else 0 :])}


def _config_input(spec: TensorSpec, rows_max: int) -> Document:
    return {
        **_config_tensor(spec, rows_max),
        "format": "FORMAT_NONE",
        "is_shape_tensor": False,
        "allow_ragged_batch": False,
        "optional": False,
    }


def _config_output(spec: TensorSpec, rows_max: int) -> Document:
    return {**_config_tensor(spec, rows_max), "label_filename": "", "is_shape_tensor": False}


def _instance_group(name: str, count: int, device_ids: Sequence[int]) -> Document:
    return {
        "name": f"{name}_0",
        "kind": "KIND_GPU" if device_ids else "KIND_CPU",
        "count": count,
        "gpus": list(dict.fromkeys(device_ids)),
        "secondary_devices": [],
        "profile": [],
        "passive": False,
        "host_policy": "",
    }


def _duration(duration: Duration) -> Document:
    return {"count": duration.count, "ns": duration.ns}


def _model_statistics(model: ModelStatistics) -> Document:
    none = _duration(Duration())
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": model.last_inference_ms,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": {
            "success": _duration(model.success),
            "fail": _duration(model.fail),
            "queue": _duration(model.queue),
            "compute_input": _duration(model.compute_input),
            "compute_infer": _duration(model.compute_infer),
            "compute_output": _duration(model.compute_output),
            "cache_hit": none,
            "cache_miss": dict(none),
        },
        "batch_stats": [_batch_statistics(batch) for batch in model.batches],
        "memory_usage": [],
        "response_stats": {},
    }


def _batch_statistics(batch: BatchStatistics) -> Document:
    return {
        "batch_size": batch.rows,
        "compute_input": _duration(batch.compute_input),
        "compute_infer": _duration(batch.compute_infer),
        "compute_output": _duration(batch.compute_output),
    }

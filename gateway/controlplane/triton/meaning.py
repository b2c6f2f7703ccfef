"""What a model configuration means here: each of its fields is honoured, refused, or named as having no effect.

Honoured are the fields that have a counterpart: rows and tensors, dynamic batching, the queue's bounds, instances,
provider, threads, optimization level. Refused is what would change what a client gets; noted what would not.
Units: microseconds become nanoseconds.
Errors: none raised; `Said.mistakes` and `Said.notes` begin with the field's path. Pure.
Source: model_config.proto and model_config_utils.cc of Triton, README of its onnxruntime_backend.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.controlplane.triton.hardware import instances, optimization, parameters
from gateway.controlplane.triton.model_config import DynamicBatching, ModelConfig, QueuePolicy
from gateway.controlplane.triton.said import Said
from gateway.controlplane.triton.tensors import tensors

_PLATFORM, _BACKEND = "onnxruntime_onnx", "onnxruntime"
_NS_MAX = 2**62
_QUEUE_MAX = 1_000_000


def meaning_of(config: ModelConfig, name: str) -> Said:
    """`name` is that of the model's folder."""
    said = Said()
    if config.name not in ("", name):
        said.refuse("name", f"found {config.name!r}; accepted: the name of the model's folder, {name!r}")
    _backend(config, said)
    _schedulers(config, said)
    _rows(config, said)
    tensors(config, name, said)
    if config.dynamic_batching is not None:
        _dynamic(config.dynamic_batching, config.max_batch_size, said)
    instances(config.instance_group, said)
    if config.optimization is not None:
        optimization(config.optimization, said)
    parameters(config, said)
    _in_vain(config, said)
    return said


def _backend(config: ModelConfig, said: Said) -> None:
    for key, found, accepted in (
        ("backend", config.backend, _BACKEND),
        ("platform", config.platform, _PLATFORM),
    ):
        if found not in ("", accepted):
            said.refuse(
                key,
                f"found {found!r}, which is not run here; convert the model to ONNX and give {accepted!r}, or serve "
                "it by a scoring script (code_configuration)",
            )


def _schedulers(config: ModelConfig, said: Said) -> None:
    for key, value, instead in (
        ("sequence_batching", config.sequence_batching, "keep a sequence's state in the client, or in"),
        (
            "ensemble_scheduling",
            config.ensemble_scheduling,
            "join the models into one ONNX file, or call them from",
        ),
    ):
        if value is not None:
            said.refuse(key, f"is not offered; {instead} a scoring script (code_configuration)")
    policy = config.model_transaction_policy
    if policy is not None and policy.decoupled:
        said.refuse("model_transaction_policy.decoupled", "is not offered; a request has exactly one answer")
    for key, given in (("batch_input", config.batch_input), ("batch_output", config.batch_output)):
        if given:
            said.refuse(key, "ragged batches are not offered; gateway.batching.padding joins different lengths")
    if config.model_operations is not None and config.model_operations.op_library_filename:
        said.refuse("model_operations.op_library_filename", "libraries of custom operators are not loaded")
    if config.model_repository_agents is not None and config.model_repository_agents.agents:
        said.refuse("model_repository_agents", "agents are not run; put the model as they would leave it")


def _rows(config: ModelConfig, said: Said) -> None:
    rows, dynamic = config.max_batch_size, config.dynamic_batching is not None
    # Triton completes what is not there, and then merges requests.
    completes = not (config.input and config.output)
    if rows < 0:
        said.refuse("max_batch_size", f"found {rows}; accepted: 0 and more")
    elif rows:
        said.rows_max = rows
        said.batches = dynamic or (completes and rows > 1)
        if not said.batches:
            said.why_not = f"config.pbtxt has max_batch_size {rows} and no dynamic_batching: requests are not merged"
    elif not completes:
        said.batches = False
        said.why_not = "config.pbtxt has max_batch_size 0: the model does not batch"
        if dynamic:
            said.note("dynamic_batching", "has no effect with max_batch_size 0")


def _dynamic(given: DynamicBatching, rows_max: int, said: Said) -> None:
    path = "dynamic_batching"
    for size in given.preferred_batch_size:
        if not 0 < size <= max(rows_max, 0):
            said.refuse(f"{path}.preferred_batch_size", f"found {size}; accepted: 1 to max_batch_size, {rows_max}")
    said.preferred = tuple(sorted(set(given.preferred_batch_size)))
    said.queue_delay_ns = min(given.max_queue_delay_microseconds * 1000, _NS_MAX)
    if given.preserve_ordering:
        said.note(
            f"{path}.preserve_ordering", "requests begin in order of arrival; answers go back as they are ready"
        )
    for key, is_given in (
        ("priority_levels", max(given.priority_levels, given.default_priority_level) > 1),
        ("priority_queue_policy", given.priority_queue_policy),
    ):
        if is_given:
            said.note(f"{path}.{key}", "has no effect here: requests are served in order of arrival")
    if given.priority_levels and not 0 < given.default_priority_level <= given.priority_levels:
        said.refuse(
            f"{path}.default_priority_level",
            f"found {given.default_priority_level}; accepted: 1 to priority_levels, {given.priority_levels}",
        )
    if given.default_queue_policy is not None:
        _queue(given.default_queue_policy, f"{path}.default_queue_policy", said)


def _queue(given: QueuePolicy, path: str, said: Said) -> None:
    if given.max_queue_size:
        said.queue_items_max = min(given.max_queue_size, _QUEUE_MAX)
    if given.timeout_action == "DELAY":
        said.note(f"{path}.timeout_action", "DELAY has no effect here: who waits longer keeps the place in the queue")
    else:
        said.queue_wait_ns = min(given.default_timeout_microseconds * 1000, _NS_MAX)


def _in_vain(config: ModelConfig, said: Said) -> None:
    for key, text in _vain(config):
        said.note(key, text)


def _vain(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """Fields that a client never sees the effect of."""
    nothing = "has no effect here"
    if config.model_warmup:
        yield "model_warmup", "has no effect: every model runs samples of its own making before it serves"
    if config.response_cache is not None and config.response_cache.enable:
        yield "response_cache", "has no effect: answers are not cached"
    if config.runtime:
        yield "runtime", nothing
    if config.cc_model_filenames:
        yield "cc_model_filenames", "has no effect: ONNX models are the same for every GPU"
    if config.metric_tags:
        yield "metric_tags", "has no effect: metrics are labelled by endpoint and deployment"
    if config.model_metrics is not None:
        yield "model_metrics", nothing

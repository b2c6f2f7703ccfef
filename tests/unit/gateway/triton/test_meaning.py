"""What each field of a configuration means: honoured, refused, or named."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest

from gateway.controlplane.triton.meaning import meaning_of
from gateway.controlplane.triton.model_config import ModelConfig
from gateway.controlplane.triton.said import Said
from gateway.controlplane.triton.typed import fields_of, read_as
from runtimes import DeclaredTensor

IO = 'input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } output { name: "y" data_type: TYPE_STRING dims: [ -1 ] }'


def said_of(text: str, *, io: str = IO) -> Said:
    return meaning_of(read_as(f"{io}\n{text}".encode(), ModelConfig), "net")


def test_a_plain_configuration_says_its_tensors_and_nothing_in_vain() -> None:
    said = said_of('name: "net" platform: "onnxruntime_onnx" backend: "onnxruntime" max_batch_size: 8')
    assert (said.mistakes, said.notes) == ([], [])
    assert said.declared is not None
    assert said.declared.inputs == (DeclaredTensor(name="x", datatype="FP32", shape=(-1, 3)),)
    assert said.declared.outputs == (DeclaredTensor(name="y", datatype="BYTES", shape=(-1, -1)),)
    assert (said.declared.rows_max, said.declared.source) == (8, "config.pbtxt of model 'net'")


@pytest.mark.parametrize(
    ("text", "io", "batches", "rows_max"),
    [
        ("max_batch_size: 8 dynamic_batching {}", IO, True, 8),
        ("max_batch_size: 8", IO, False, 8),
        ("max_batch_size: 8", "", True, 8),
        ("max_batch_size: 1", "", False, 1),
        ("", IO, False, 0),
        ("", "", None, 0),
        ("dynamic_batching {}", "", None, 0),
    ],
)
def test_requests_are_merged_where_triton_merges_them(
    text: str, io: str, batches: bool | None, rows_max: int
) -> None:
    """Without inputs or outputs Triton completes the file, and then merges what it can."""
    said = said_of(text, io=io)
    assert (said.batches, said.rows_max, said.mistakes) == (batches, rows_max, [])
    assert bool(said.why_not) == (batches is False)


def test_dynamic_batching_is_sizes_a_delay_and_a_queue() -> None:
    said = said_of(
        """max_batch_size: 8 dynamic_batching {
            preferred_batch_size: [ 8, 4, 4 ] max_queue_delay_microseconds: 250
            default_queue_policy { max_queue_size: 9 default_timeout_microseconds: 1500 allow_timeout_override: true }
        }"""
    )
    assert (said.preferred, said.queue_delay_ns) == ((4, 8), 250_000)
    assert (said.queue_items_max, said.queue_wait_ns) == (9, 1_500_000)
    assert (said.mistakes, said.notes) == ([], [])


@pytest.mark.parametrize(
    ("groups", "sessions", "provider", "devices"),
    [
        ("", 0, "", ()),
        ("instance_group { }", 0, "", ()),
        ("instance_group { kind: KIND_CPU count: 3 }", 3, "cpu", ()),
        ("instance_group { kind: KIND_GPU count: 2 gpus: [ 0, 1 ] }", 4, "gpu", (0, 1)),
        ("instance_group { kind: KIND_GPU gpus: [ 0, 1 ] }", 2, "gpu", (0, 1)),
        (
            "instance_group [ { kind: KIND_GPU count: 1 gpus: 0 }, { kind: KIND_GPU count: 2 gpus: [ 1, 2 ] } ]",
            5,
            "gpu",
            (0, 1, 1, 2, 2),
        ),
    ],
)
def test_instance_groups_are_sessions_on_devices(
    groups: str, sessions: int, provider: str, devices: tuple[int, ...]
) -> None:
    said = said_of(f"max_batch_size: 8 {groups}")
    assert (said.sessions, said.provider, said.device_ids) == (sessions, provider, devices)
    assert (said.mistakes, said.notes) == ([], [])


def test_optimizations_and_parameters_that_have_a_counterpart_count() -> None:
    said = said_of(
        """optimization { graph { level: -1 } execution_accelerators { gpu_execution_accelerator : [ {
            name : "tensorrt"
            parameters { key: "precision_mode" value: "FP32" }
            parameters { key: "trt_engine_cache_enable" value: "1" } } ] } }
        parameters { key: "intra_op_thread_count" value: { string_value: "3" } }
        parameters { key: "inter_op_thread_count" value: { string_value: "0" } }
        parameters { key: "execution_mode" value: { string_value: "0" } }
        parameters { key: "gpu_mem_limit" value: { string_value: "1048576" } }"""
    )
    assert (said.graph_level, said.tensorrt, said.threads, said.gpu_memory_bytes) == ("basic", True, 3, 1 << 20)
    assert (said.mistakes, said.notes) == ([], [])
    assert said_of("optimization { graph { level: 1 } }").graph_level == "extended"
    assert said_of("optimization { graph { level: 2 } }").graph_level == "none"


def test_a_reshape_is_what_callers_see_and_what_the_model_has() -> None:
    io = 'input { name: "x" data_type: TYPE_FP32 dims: [ 2, -1, 3 ] reshape { shape: [ -1, 3 ] } }'
    assert "turns [2, -1, 3] into [-1, 3], which holds another number" in said_of("", io=io).mistakes[0]
    io = 'input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }'
    said = said_of("max_batch_size: 4", io=io)
    assert said.declared is not None
    assert said.declared.inputs == (DeclaredTensor(name="x", datatype="FP32", shape=(-1, 1), inner=(-1,)),)
    assert "leaves no size" in said_of("", io=io).mistakes[0]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('name: "other"', "name: found 'other'; accepted: the name of the model's folder, 'net'"),
        ('platform: "tensorrt_plan"', "platform: found 'tensorrt_plan', which is not run here"),
        ('backend: "python"', "backend: found 'python', which is not run here"),
        ("max_batch_size: -1", "max_batch_size: found -1"),
        ("sequence_batching {}", "sequence_batching: is not offered"),
        ("ensemble_scheduling {}", "ensemble_scheduling: is not offered"),
        ("model_transaction_policy { decoupled: true }", "model_transaction_policy.decoupled: is not offered"),
        ("batch_input {}", "batch_input: ragged batches"),
        ("batch_output {}", "batch_output: ragged batches"),
        ('model_operations { op_library_filename: "x.so" }', "model_operations.op_library_filename: libraries"),
        ("model_repository_agents { agents {} }", "model_repository_agents: agents"),
        ("dynamic_batching { preferred_batch_size: 9 } max_batch_size: 8", "preferred_batch_size: found 9; accepted"),
        ("dynamic_batching { preferred_batch_size: 0 } max_batch_size: 8", "preferred_batch_size: found 0; accepted"),
        ("dynamic_batching { priority_levels: 2 } max_batch_size: 8", "default_priority_level: found 0; accepted"),
        ("instance_group { kind: KIND_MODEL }", "instance_group.kind: found KIND_MODEL"),
        ("instance_group { kind: KIND_CPU } instance_group { kind: KIND_GPU gpus: 0 }", "KIND_CPU, KIND_GPU side by"),
        ("instance_group { kind: KIND_CPU gpus: 0 }", "instance_group[0].gpus: found GPUs for KIND_CPU"),
        ("instance_group { gpus: -1 }", "instance_group[0].gpus: found -1"),
        ("instance_group { count: -1 }", "instance_group[0].count: found -1; accepted: numbers from 0"),
        ("instance_group { count: 2000 }", "instance_group.count: found 2000 in all; accepted: at most 1024"),
        ("optimization { graph { level: 7 } }", "optimization.graph.level: found 7"),
        (
            'optimization { execution_accelerators { gpu_execution_accelerator { name: "warp" } } }',
            "gpu_execution_accelerator: found 'warp'; accepted: tensorrt, cuda",
        ),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "many" } }',
            "parameters[intra_op_thread_count]: found 'many'; accepted: a number from 0 to 1024",
        ),
        ("input { name: 'x' data_type: TYPE_FP32 dims: 1 }", "input: 'x' stands there twice"),
        ("input { data_type: TYPE_FP32 dims: 1 }", "input[1].name: missing"),
        ("input { name: 'z' dims: 1 }", "input[1].data_type: missing for 'z'"),
        ("input { name: 'z' data_type: TYPE_FP32 }", "input[1].dims: missing for 'z'"),
        ("output { name: 'z' data_type: TYPE_FP32 dims: 0 }", "output[1].dims: found 0; accepted: sizes of 1"),
        ("input { name: 'z' data_type: TYPE_FP32 dims: 1 optional: true }", "input[1].optional: every request"),
        (
            "input { name: 'z' data_type: TYPE_FP32 dims: 1 is_shape_tensor: true }",
            "input[1].is_shape_tensor",
        ),
        ("input { name: 'z' data_type: TYPE_FP32 dims: 1 allow_ragged_batch: true }", "input[1].allow_ragged_batch"),
        (
            "output { name: 'z' data_type: TYPE_FP32 dims: 1 is_non_linear_format_io: true }",
            "output[1].is_non",
        ),
    ],
)
def test_what_would_change_answers_is_refused_by_its_name(text: str, path: str) -> None:
    assert any(path in mistake for mistake in said_of(text).mistakes)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("dynamic_batching {}", "dynamic_batching: has no effect with max_batch_size 0"),
        ("dynamic_batching { preserve_ordering: true }", "dynamic_batching.preserve_ordering"),
        ("dynamic_batching { priority_levels: 2 default_priority_level: 1 }", "dynamic_batching.priority_levels"),
        ("dynamic_batching { priority_queue_policy { key: 1 value {} } }", "dynamic_batching.priority_queue_policy"),
        (
            "dynamic_batching { default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 } }",
            "dynamic_batching.default_queue_policy.timeout_action",
        ),
        ("instance_group { kind: KIND_GPU }", "instance_group.gpus: not given, and the first GPU alone is used"),
        ("instance_group { passive: true }", "instance_group[0].passive"),
        ("instance_group { rate_limiter {} }", "instance_group[0].rate_limiter"),
        ("instance_group { secondary_devices {} }", "instance_group[0].secondary_devices"),
        ("instance_group { profile: '1' }", "instance_group[0].profile"),
        ("instance_group { host_policy: 'x' }", "instance_group[0].host_policy"),
        ("optimization { priority: PRIORITY_MAX }", "optimization.priority"),
        ("optimization { cuda { graphs: true } }", "optimization.cuda"),
        ("optimization { input_pinned_memory { enable: false } }", "optimization.input_pinned_memory"),
        ("optimization { output_pinned_memory { enable: true } }", "optimization.output_pinned_memory"),
        ("optimization { gather_kernel_buffer_threshold: 1 }", "optimization.gather_kernel_buffer_threshold"),
        ("optimization { eager_batching: true }", "optimization.eager_batching"),
        (
            "optimization { execution_accelerators { cpu_execution_accelerator { name: 'openvino' } } }",
            "optimization.execution_accelerators.cpu_execution_accelerator: 'openvino' has no effect",
        ),
        (
            "optimization { execution_accelerators { gpu_execution_accelerator { name: 'tensorrt' parameters { "
            "key: 'precision_mode' value: 'FP16' } } } }",
            "gpu_execution_accelerator.parameters[precision_mode]: FP16 has no effect",
        ),
        (
            "optimization { execution_accelerators { gpu_execution_accelerator { name: 'cuda' parameters { "
            "key: 'cudnn_conv_use_max_workspace' value: '0' } } } }",
            "gpu_execution_accelerator.parameters[cudnn_conv_use_max_workspace]",
        ),
        ("parameters { key: 'execution_mode' value { string_value: '1' } }", "parameters[execution_mode]"),
        ("parameters { key: 'whatever' value {} }", "parameters[whatever]"),
        ("model_warmup {}", "model_warmup: has no effect"),
        ("response_cache { enable: true }", "response_cache: has no effect"),
        ("runtime: 'x.so'", "runtime"),
        ("cc_model_filenames { key: '7.5' value: 'x' }", "cc_model_filenames"),
        ("metric_tags { key: 'a' value: 'b' }", "metric_tags"),
        ("model_metrics {}", "model_metrics"),
        ("input { name: 'z' data_type: TYPE_FP32 dims: 1 format: FORMAT_NHWC }", "input[1].format"),
        ("output { name: 'z' data_type: TYPE_FP32 dims: 1 label_filename: 'l' }", "output[1].label_filename"),
    ],
)
def test_what_has_no_effect_is_named(text: str, path: str) -> None:
    said = said_of(text)
    assert not said.mistakes
    assert any(note.startswith(path) for note in said.notes) or any(path in note for note in said.notes)


# Read elsewhere: which version and which file (repository.py); or so by default: a request's own timeout counts.
_ELSEWHERE = {
    "version_policy.latest.num_versions",
    "version_policy.specific.versions",
    "default_model_filename",
    "dynamic_batching.default_queue_policy.allow_timeout_override",
}


def leaves(kind: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every field that holds a value, wherever it is in a message: its path, and the message with it and without."""
    for name, (attribute, hint) in fields_of(kind).items():
        is_many, is_map = get_origin(hint) is tuple, get_origin(hint) is dict
        inner = get_args(hint)[-1 if is_map else 0] if is_many or is_map else hint
        below = f"{path}.{name}" if path else name
        if dataclasses.is_dataclass(inner) and dataclasses.fields(inner):
            for deeper, given, missing in leaves(inner, below):
                yield deeper, *(kind(**{attribute: _put(one, hint)}) for one in (given, missing))
        elif not dataclasses.is_dataclass(inner):
            yield below, kind(**{attribute: _put(_other(inner), hint)}), kind()


def _put(value: Any, hint: Any) -> Any:
    if get_origin(hint) is tuple:
        return (value,)
    if get_origin(hint) is dict:
        return {(2 if get_args(hint)[0] is not str else "k"): value}
    return value


def _path(one: Any) -> str:
    return one if isinstance(one, str) else "config"


def _other(hint: Any) -> Any:
    """A value that is not the default."""
    if get_origin(hint) is Literal:
        return get_args(hint)[-1]
    return {str: "x", bool: True, float: 0.5}.get(hint, 2)


@pytest.mark.parametrize(("path", "given", "missing"), list(leaves(ModelConfig)), ids=_path)
def test_no_field_is_ignored_in_silence(path: str, given: ModelConfig, missing: ModelConfig) -> None:
    """With any single field set, what is said changes, or the field is named, or a message that it is part of."""
    with_it, without = meaning_of(given, "net"), meaning_of(missing, "net")
    named = [said.partition(": ")[0].replace("[0]", "") for said in (*with_it.mistakes, *with_it.notes)]
    is_named = any(f"{path}.".startswith((f"{one}.", f"{one.partition('[')[0]}.")) for one in named)
    assert with_it != without or is_named or path in _ELSEWHERE


def test_nothing_said_is_nothing_changed() -> None:
    said: Any = meaning_of(ModelConfig(), "net")
    plain = Said()
    for one in dataclasses.fields(Said):
        if one.name != "declared":
            assert getattr(said, one.name) == getattr(plain, one.name)
    assert (said.declared.inputs, said.declared.outputs, said.declared.rows_max) == ((), (), 0)

"""What a model configuration says of where and how its model runs: instances, optimizations and parameters.

Errors: none raised; mistakes and notes go to Said. Pure.
Source: model_config.proto of Triton, README of its onnxruntime_backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gateway.controlplane.triton.model_config import InstanceGroup, ModelConfig, Optimization
from gateway.controlplane.triton.said import Said

_LEVELS: dict[int, Literal["all", "extended", "basic", "none"]] = {0: "all", 1: "extended", 2: "none", -1: "basic"}
_BYTES_MAX = 2**62
_THREADS_MAX, _SESSIONS_MAX = 1024, 1024


def instances(groups: Sequence[InstanceGroup], said: Said) -> None:
    kinds = {group.kind for group in groups}
    if "KIND_MODEL" in kinds:
        said.refuse("instance_group.kind", "found KIND_MODEL; accepted: KIND_CPU, KIND_GPU, KIND_AUTO")
    elif len(kinds) > 1:
        said.refuse("instance_group.kind", f"found {', '.join(sorted(kinds))} side by side; accepted: one of them")
    for place, group in enumerate(groups):
        _group(group, f"instance_group[{place}]", said)
    said.sessions = sum(_sessions(group) for group in groups)
    if said.sessions > _SESSIONS_MAX:
        said.refuse("instance_group.count", f"found {said.sessions} in all; accepted: at most {_SESSIONS_MAX}")
    said.device_ids = _devices(groups)
    if kinds == {"KIND_GPU"}:
        said.provider = "gpu"
        if not said.device_ids:
            said.note("instance_group.gpus", "not given, and the first GPU alone is used; list those that shall be")
    elif kinds == {"KIND_CPU"}:
        said.provider = "cpu"


def _sessions(group: InstanceGroup) -> int:
    """A GPU that is listed has one at least; 0 leaves the number open."""
    return max(1, group.count) * len(group.gpus) if group.gpus else max(0, group.count)


def _devices(groups: Sequence[InstanceGroup]) -> tuple[int, ...]:
    """A GPU for each instance in turn: as often as it has instances, where these differ."""
    if len({group.count for group in groups}) <= 1:
        return tuple(dict.fromkeys(gpu for group in groups for gpu in group.gpus))
    return tuple(gpu for group in groups for gpu in group.gpus for _ in range(max(1, min(group.count, 64))))


def _group(group: InstanceGroup, path: str, said: Said) -> None:
    if group.gpus and group.kind == "KIND_CPU":
        said.refuse(f"{path}.gpus", "found GPUs for KIND_CPU; accepted: gpus with KIND_GPU or KIND_AUTO")
    if any(gpu < 0 for gpu in group.gpus):
        said.refuse(f"{path}.gpus", f"found {min(group.gpus)}; accepted: numbers from 0")
    if group.count < 0:
        said.refuse(f"{path}.count", f"found {group.count}; accepted: numbers from 0")
    for key, given in (
        ("name", group.name),
        ("passive", group.passive),
        ("rate_limiter", group.rate_limiter is not None),
        ("secondary_devices", group.secondary_devices),
        ("profile", group.profile),
        ("host_policy", group.host_policy),
    ):
        if given:
            said.note(f"{path}.{key}")


def optimization(given: Optimization, said: Said) -> None:
    level = given.graph.level if given.graph is not None else 0
    if level not in _LEVELS:
        said.refuse("optimization.graph.level", f"found {level}; accepted: -1, 0, 1 or 2")
    said.graph_level = _LEVELS.get(level, "all")
    if given.execution_accelerators is not None:
        path = "optimization.execution_accelerators"
        for gpu in given.execution_accelerators.gpu_execution_accelerator:
            _accelerator(gpu.name, gpu.parameters, f"{path}.gpu_execution_accelerator", said)
        for cpu in given.execution_accelerators.cpu_execution_accelerator:
            said.note(f"{path}.cpu_execution_accelerator", f"{cpu.name!r} has no effect: the CPU provider runs it")
    for key, is_set in (
        ("priority", given.priority != "PRIORITY_DEFAULT"),
        ("cuda", given.cuda is not None),
        ("input_pinned_memory", given.input_pinned_memory is not None),
        ("output_pinned_memory", given.output_pinned_memory is not None),
        ("gather_kernel_buffer_threshold", given.gather_kernel_buffer_threshold),
        ("eager_batching", given.eager_batching),
    ):
        if is_set:
            said.note(f"optimization.{key}")


def _accelerator(name: str, parameters: dict[str, str], path: str, said: Said) -> None:
    if name not in ("tensorrt", "cuda"):
        said.refuse(path, f"found {name!r}; accepted: tensorrt, cuda")
    said.tensorrt = said.tensorrt or name == "tensorrt"
    for key, value in sorted(parameters.items()):
        as_here = (key, value.lower()) in (
            ("precision_mode", "fp32"),
            ("trt_engine_cache_enable", "1"),
            ("trt_engine_cache_enable", "true"),
        )
        if key == "precision_mode" and not as_here:
            said.note(f"{path}.parameters[{key}]", f"{value} has no effect: the model runs as precisely as it is")
        elif key == "gpu_mem_limit":
            said.gpu_memory_bytes = _number(f"{path}.parameters[{key}]", value, _BYTES_MAX, said)
        elif not as_here:
            said.note(f"{path}.parameters[{key}]")


def parameters(config: ModelConfig, said: Said) -> None:
    for key, given in sorted(config.parameters.items()):
        path, value = f"parameters[{key}]", given.string_value
        if key == "intra_op_thread_count":
            said.threads = _number(path, value, _THREADS_MAX, said)
        elif key == "gpu_mem_limit":
            said.gpu_memory_bytes = _number(path, value, _BYTES_MAX, said)
        elif not (key in ("execution_mode", "inter_op_thread_count") and value == "0"):
            said.note(path)


def _number(path: str, value: str, most: int, said: Said) -> int:
    if value.isascii() and value.isdecimal() and int(value[:20]) <= most:
        return int(value)
    said.refuse(path, f"found {value!r}; accepted: a number from 0 to {most}")
    return 0

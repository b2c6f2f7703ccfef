"""Execution providers of onnxruntime and their options, for one instance of a RuntimeSpec.

Order: the wanted provider first, then CUDA, then CPU, which take the nodes the first has no kernel for.
Devices: instance i runs on `device_ids[i % len(device_ids)]`, device 0 where none are named.
Errors: LoadFailed, when the installed onnxruntime has no such provider.
Source: onnxruntime's documentation of the CUDA and TensorRT execution providers (options and their defaults).

Options that differ from onnxruntime's defaults, and why:
* `arena_extend_strategy` kSameAsRequested: growing by powers of two takes memory that other deployments need.
* `cudnn_conv_algo_search` HEURISTIC: the default tries all algorithms anew for each new shape, for seconds.
* `use_tf32` off: TF32 rounds to ten bits and picks by shape, so a row in a batch could differ from the row alone.
* `enable_cuda_graph` only where the deployment names its batch sizes: each shape is one graph, and onnxruntime lets
  none go. Not for TensorRT: there onnxruntime keeps one graph a session, whatever its number, and would answer a
  second shape from the first one's.
* TensorRT's engine and timing caches are kept in a folder named after the model, the onnxruntime version and the
  machine's GPUs, as an engine is valid for no other of these; TensorRT puts its own version into the files' names.

Streams: onnxruntime gives each session streams of its own (one alone where it captures graphs), so that instances
do not wait for each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from runtimes.errors import LoadFailed
from runtimes.spec import RuntimeSpec

Option = str | int | bool
Provider = tuple[str, dict[str, Option]]

_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_TENSORRT_WORKSPACE_BYTES = 1 << 30
# What fixed buffers may take: in all, and of a memory limit (1/8), from which it is taken off.
_BUFFER_BYTES_MAX = 256 << 20
_BUFFER_SHARE = 8
_GPUS = Path("/proc/driver/nvidia/gpus")


def provider_name(spec: RuntimeSpec) -> str:
    """onnxruntime's name of the provider that the spec asks for."""
    return _NAMES[spec.provider]


def device_of(spec: RuntimeSpec, instance: int) -> int:
    return spec.device_ids[instance % len(spec.device_ids)] if spec.device_ids else 0


def check_available(spec: RuntimeSpec, available: Sequence[str]) -> None:
    """Refuse a provider that the installed onnxruntime was built without."""
    if provider_name(spec) not in available:
        raise LoadFailed(unusable(spec, "the installed onnxruntime was built without it (onnxruntime-gpu has it)"))


def unusable(spec: RuntimeSpec, why: str) -> str:
    """The one sentence for a device that cannot be had."""
    return (
        f"the model asks for provider {spec.provider!r} but {why}; use a CPU instance type, "
        "a host with such a device, or allow_cpu_fallback"
    )


def buffer_bytes_max(spec: RuntimeSpec) -> int:
    """How much of the device an instance may take for fixed buffers, beside onnxruntime's arena."""
    return min(_BUFFER_BYTES_MAX, spec.gpu_memory_bytes // _BUFFER_SHARE or _BUFFER_BYTES_MAX)


def no_graphs(spec: RuntimeSpec) -> str:
    """Why the deployment's shapes are not captured as CUDA graphs; "" where they are to be."""
    if spec.provider != "cuda":
        return "TensorRT keeps one graph a session, which would answer every shape"
    if not spec.batching.limits.sizes:
        return "no batch sizes are declared, so that shapes would be too many"
    return ""


def providers(spec: RuntimeSpec, instance: int, version: str, *, graphs: bool = False) -> list[Provider]:
    """Providers in order of preference; `version` is onnxruntime's. `graphs`: to capture CUDA graphs with."""
    chosen: list[Provider] = []
    if spec.provider == "tensorrt":
        chosen.append((_NAMES["tensorrt"], _tensorrt_options(spec, instance, version)))
    if spec.provider != "cpu":
        chosen.append((_NAMES["cuda"], _cuda_options(spec, instance, graphs=graphs)))
    return [*chosen, *cpu_only()]


def cpu_only() -> list[Provider]:
    return [(_NAMES["cpu"], {})]


def _cuda_options(spec: RuntimeSpec, instance: int, *, graphs: bool) -> dict[str, Option]:
    options: dict[str, Option] = {
        "device_id": device_of(spec, instance),
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "do_copy_in_default_stream": "1",
        "use_tf32": "0",
    }
    if spec.gpu_memory_bytes:
        # The arena's limit; what CUDA, cuDNN and cuBLAS take for themselves comes on top.
        options["gpu_mem_limit"] = spec.gpu_memory_bytes - buffer_bytes_max(spec)
    if graphs:
        options["enable_cuda_graph"] = "1"
    return options


def _tensorrt_options(spec: RuntimeSpec, instance: int, version: str) -> dict[str, Option]:
    workspace = min(_TENSORRT_WORKSPACE_BYTES, spec.gpu_memory_bytes or _TENSORRT_WORKSPACE_BYTES)
    options: dict[str, Option] = {
        "device_id": device_of(spec, instance),
        "trt_max_workspace_size": workspace,
        "trt_fp16_enable": False,
    }
    if spec.cache_dir:
        folder = str(cache_folder(spec, version))
        options |= {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": folder,
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": folder,
        }
    return options


def cache_folder(spec: RuntimeSpec, version: str, gpus: Path = _GPUS) -> Path:
    """Where this model's TensorRT engines are kept."""
    return Path(spec.cache_dir) / f"{spec.sha256[:16] or 'model'}-onnxruntime-{version}-{_machine(gpus)}"


def _machine(gpus: Path) -> str:
    """The kinds of GPUs that the driver tells of, as part of a file's name."""
    kinds = set()
    for told in gpus.glob("*/information"):
        found = re.search(r"^Model:[ \t]*(\S.*)$", told.read_text(errors="replace"), re.MULTILINE)
        kinds.add(re.sub(r"[^A-Za-z0-9]+", "-", found[1]).strip("-").lower() if found else "unknown")
    return "+".join(sorted(kinds)) or "unknown"

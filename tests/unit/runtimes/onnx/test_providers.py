"""Which execution providers are asked for, with which options."""

from dataclasses import replace
from pathlib import Path

import pytest

from runtimes.errors import LoadFailed
from runtimes.onnx.providers import (
    buffer_bytes_max,
    cache_folder,
    check_available,
    device_of,
    no_graphs,
    providers,
)
from runtimes.spec import BatchingSpec, BatchLimits, RuntimeSpec

CPU = RuntimeSpec(path="m.onnx", sha256="ab" * 32)
CUDA = RuntimeSpec(path="m.onnx", sha256="", provider="cuda", device_ids=(2, 5), gpu_memory_bytes=1 << 20)
TENSORRT = RuntimeSpec(path="m.onnx", sha256="ab" * 32, provider="tensorrt", cache_dir="/cache")


def test_a_cpu_model_has_the_cpu_only() -> None:
    assert providers(CPU, 0, "1.22.0") == [("CPUExecutionProvider", {})]


def test_a_gpu_model_falls_back_node_by_node() -> None:
    assert [name for name, _ in providers(CUDA, 0, "1.22.0")] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert [name for name, _ in providers(TENSORRT, 0, "1.22.0")] == [
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ]


def test_instances_go_round_the_devices() -> None:
    assert [device_of(CUDA, instance) for instance in range(4)] == [2, 5, 2, 5]
    assert device_of(TENSORRT, 3) == 0
    assert providers(CUDA, 1, "1.22.0")[0][1]["device_id"] == 5


def test_the_cuda_arena_is_bounded_and_grows_by_need() -> None:
    options = providers(CUDA, 0, "1.22.0")[0][1]
    assert options["gpu_mem_limit"] == (1 << 20) - (1 << 17)
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert "gpu_mem_limit" not in providers(TENSORRT, 0, "1.22.0")[1][1]


def test_fixed_buffers_have_a_share_of_the_memory_limit_and_are_bounded_without_one() -> None:
    assert buffer_bytes_max(CUDA) == 1 << 17
    assert buffer_bytes_max(replace(CUDA, gpu_memory_bytes=0)) == 256 << 20
    assert buffer_bytes_max(replace(CUDA, gpu_memory_bytes=80 << 30)) == 256 << 20


def test_cuda_graphs_are_for_deployments_that_name_their_batch_sizes() -> None:
    sized = replace(CUDA, batching=BatchingSpec(limits=BatchLimits(sizes=(1, 8))))
    assert no_graphs(sized) == ""
    assert no_graphs(CUDA) == "no batch sizes are declared, so that shapes would be too many"
    assert "TensorRT keeps one graph a session" in no_graphs(replace(sized, provider="tensorrt"))


def test_a_graph_is_asked_for_only_where_it_is_wanted() -> None:
    assert providers(CUDA, 0, "1.22.0", graphs=True)[0][1]["enable_cuda_graph"] == "1"
    assert "enable_cuda_graph" not in providers(CUDA, 0, "1.22.0")[0][1]


def test_a_session_has_streams_of_its_own() -> None:
    assert not any("stream" in name and name != "do_copy_in_default_stream" for name in providers(CUDA, 0, "1")[0][1])


def test_tensorrt_engines_are_kept_by_model_version_and_device(tmp_path: Path) -> None:
    for place, told in {
        "1": "Model: \t NVIDIA H200\nIRQ: 5\n",
        "2": "Model:  NVIDIA H200\n",
        "3": "IRQ: 1\n",
    }.items():
        (tmp_path / place).mkdir()
        (tmp_path / place / "information").write_text(told)
    assert str(cache_folder(TENSORRT, "1.22.0", tmp_path)) == (
        "/cache/abababababababab-onnxruntime-1.22.0-nvidia-h200+unknown"
    )
    assert cache_folder(TENSORRT, "1.22.0", tmp_path / "none").name == "abababababababab-onnxruntime-1.22.0-unknown"


def test_tensorrt_caches_engines_and_timings_there() -> None:
    options = providers(TENSORRT, 0, "1.22.0")[0][1]
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"]
    assert str(options["trt_engine_cache_path"]).startswith("/cache/abababababababab-onnxruntime-1.22.0-")
    assert options["trt_timing_cache_enable"] is True
    assert options["trt_engine_cache_enable"] is True
    assert options["trt_fp16_enable"] is False
    assert options["trt_max_workspace_size"] == 1 << 30


def test_without_a_folder_nothing_is_cached() -> None:
    spec = RuntimeSpec(path="m.onnx", sha256="", provider="tensorrt", gpu_memory_bytes=1 << 20)
    options = providers(spec, 0, "1.22.0")[0][1]
    assert not any("cache" in name for name in options)
    assert options["trt_max_workspace_size"] == 1 << 20


def test_a_provider_that_was_not_built_in_is_refused_in_one_sentence() -> None:
    check_available(CPU, ["CPUExecutionProvider"])
    with pytest.raises(LoadFailed) as caught:
        check_available(CUDA, ["CPUExecutionProvider"])
    assert str(caught.value) == (
        "the model asks for provider 'cuda' but the installed onnxruntime was built without it (onnxruntime-gpu has "
        "it); use a CPU instance type, a host with such a device, or allow_cpu_fallback"
    )

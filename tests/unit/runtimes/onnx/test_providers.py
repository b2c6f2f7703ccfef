"""Which execution providers are asked for, with which options."""

import pytest

from runtimes.errors import LoadFailed
from runtimes.onnx.providers import check_available, device_of, providers
from runtimes.spec import RuntimeSpec

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
    assert options["gpu_mem_limit"] == 1 << 20
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert "gpu_mem_limit" not in providers(TENSORRT, 0, "1.22.0")[1][1]


def test_tensorrt_engines_are_kept_by_model_and_version() -> None:
    options = providers(TENSORRT, 0, "1.22.0")[0][1]
    assert options["trt_engine_cache_path"] == "/cache/abababababababab-onnxruntime-1.22.0"
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

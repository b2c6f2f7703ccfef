"""Fixed buffers, CUDA graphs and pinned memory on an NVIDIA device. Skipped, and said so, where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import onnxruntime
import pytest

from runtimes import proof
from runtimes.errors import ModelFailed
from runtimes.loader import open_model
from runtimes.onnx.device import Device
from runtimes.onnx.memory import CudaMemory, cuda_memory
from runtimes.onnx.session import OnnxSession, open_session
from runtimes.spec import BatchingSpec, BatchLimits, RuntimeSpec
from runtimes.tensor import Array, Datatype
from tests.support import models

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
        reason="this onnxruntime has no CUDAExecutionProvider (onnxruntime-gpu has)",
    ),
    pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="there is no NVIDIA device on this host"),
]

UNITS = (64, 256, 256, 10)
SIZES = (1, 4, 16)
SIZED = BatchingSpec(limits=BatchLimits(batch_rows_max=16, sizes=SIZES))


def furthest(found: Device | None) -> Device | None:
    """The way that goes furthest, whatever it takes: a graph where one is possible, else fixed buffers."""
    return found and replace(found, pick="furthest")


def opened(folder: Path, model: bytes, batching: BatchingSpec = SIZED, instance: int = 0) -> OnnxSession:
    spec = RuntimeSpec(path=str(models.write(folder, model)), sha256="", provider="cuda", batching=batching)
    return open_session(spec, instance, 1, place=furthest)


@pytest.fixture
def mlp(tmp_path: Path) -> Iterator[OnnxSession]:
    session = opened(tmp_path, models.mlp(UNITS))
    yield session
    session.close()


@pytest.fixture
def memory(mlp: OnnxSession) -> CudaMemory:
    """Once a session is open, CUDA's library is loaded."""
    return cuda_memory(0)


def rows(count: int, seed: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 64)).astype(np.float32)}


def on_cpu(tmp_path: Path, inputs: dict[str, Array]) -> Array:
    session = open_session(RuntimeSpec(path=str(tmp_path / "model.onnx"), sha256=""), 0, 1)
    (result,) = session.run(inputs, None).values()
    return result


def test_what_is_written_to_the_device_comes_back(memory: CudaMemory) -> None:
    for size in (1, 100, 1 << 16, 1 << 24):
        staging, block = memory.pinned(size), memory.allocate(size)
        assert staging.bytes is not None
        staging.bytes[:] = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
        memory.copy(block.address, staging.address, size)
        back = np.zeros(size, np.uint8)
        memory.copy(back.ctypes.data, block.address, size)
        assert np.array_equal(back, staging.bytes)
        staging.free()
        block.free()


@pytest.mark.parametrize("size", SIZES)
def test_a_graph_gives_the_answers_of_the_cpu(mlp: OnnxSession, tmp_path: Path, size: int) -> None:
    for seed in range(8):
        inputs = rows(size, seed)
        (found,) = mlp.run(inputs, None).values()
        assert proof.same(on_cpu(tmp_path, inputs), found, Datatype.FP32)
    assert "1 by CUDA graph" in mlp.device_notes, mlp.device_notes


def test_every_size_has_a_graph_and_they_do_not_mix(mlp: OnnxSession, tmp_path: Path) -> None:
    order = [size for seed in range(6) for size in SIZES]
    for seed, size in enumerate(order):
        inputs = rows(size, seed)
        (found,) = mlp.run(inputs, None).values()
        assert proof.same(on_cpu(tmp_path, inputs), found, Datatype.FP32)
    assert "3 by CUDA graph" in mlp.device_notes, mlp.device_notes


def test_results_outlive_later_replays(mlp: OnnxSession) -> None:
    found = [next(iter(mlp.run(rows(4, seed), None).values())) for seed in range(6)]
    kept = [array.copy() for array in found]
    for seed in range(6, 12):
        mlp.run(rows(4, seed), None)
    assert all(np.array_equal(array, copy) for array, copy in zip(found, kept, strict=True))


def test_another_thread_gets_the_same_answers(mlp: OnnxSession, tmp_path: Path) -> None:
    for seed in range(3):
        mlp.run(rows(4, seed), None)
    wrong: list[int] = []

    def work() -> None:
        for seed in range(3, 20):
            inputs = rows(4, seed)
            (found,) = mlp.run(inputs, None).values()
            if not proof.same(on_cpu(tmp_path, inputs), found, Datatype.FP32):
                wrong.append(seed)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert wrong == []
    assert "by CUDA graph" in mlp.device_notes, mlp.device_notes


def test_instances_that_capture_at_once_do_not_fail_each_other(tmp_path: Path) -> None:
    sessions = [opened(tmp_path, models.mlp(UNITS), instance=instance) for instance in range(4)]
    faults: list[ModelFailed] = []

    def work(session: OnnxSession) -> None:
        try:
            for seed in range(60):
                session.run(rows(SIZES[seed % 3], seed), None)
        except ModelFailed as fault:
            faults.append(fault)

    threads = [Thread(target=work, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert not any("failed" in session.device_notes for session in sessions), sessions[0].device_notes


def test_a_model_with_control_flow_is_served_without_graphs(tmp_path: Path) -> None:
    path = models.real("silero_vad")
    if path is None:
        pytest.skip("the package silero_vad is not installed")
    loaded = open_model(RuntimeSpec(path=str(path), sha256="", provider="cuda", batching=SIZED))
    told = loaded.learned.reasons["device"]
    assert "without a CUDA graph, as " in told or "every shape runs plainly" in told, told


def test_loading_looks_at_every_declared_size(tmp_path: Path) -> None:
    path = models.write(tmp_path, models.mlp(UNITS))
    loaded = open_model(RuntimeSpec(path=str(path), sha256="", provider="cuda", batching=SIZED))
    assert loaded.learned.batched, loaded.learned.reason
    told = loaded.learned.reasons["device"]
    assert told.startswith("shapes run ") and "without a CUDA graph" not in told, told


@pytest.mark.parametrize("datatype", [Datatype.BF16, Datatype.FP16])
def test_halves_lie_in_fixed_buffers(tmp_path: Path, datatype: Datatype) -> None:
    session = opened(tmp_path, models.identity(datatype), BatchingSpec())
    bits = np.arange(6, dtype=np.uint16).reshape(3, 2)
    for _ in range(4):
        (found,) = session.run({"x": bits.view(datatype.dtype)}, None).values()
        assert np.array_equal(found.view(np.uint16), bits)
    assert "in fixed buffers" in session.device_notes, session.device_notes


def test_a_session_with_many_shapes_keeps_its_answers(mlp: OnnxSession, tmp_path: Path) -> None:
    for size in range(1, 100):
        for seed in range(3):
            inputs = rows(size, seed)
            (found,) = mlp.run(inputs, None).values()
        assert proof.same(on_cpu(tmp_path, inputs), found, Datatype.FP32)
    assert "there are 64 already" in mlp.device_notes, mlp.device_notes

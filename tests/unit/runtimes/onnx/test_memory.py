"""Memory of a device: addressed whole, freed once, copied by address; and CUDA's library found where it is loaded."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtimes.onnx.memory import CudaMemory, HostMemory, Memory, MemoryFault, cuda_memory
from tests.support.cuda import CudaRuntime

MEMORIES: dict[str, Callable[[], Memory]] = {"host": HostMemory, "cuda": lambda: CudaMemory(CudaRuntime(), 3)}


@pytest.fixture(params=list(MEMORIES.values()), ids=list(MEMORIES))
def memory(request: pytest.FixtureRequest) -> Memory:
    made: Memory = request.param()
    return made


def test_what_is_copied_to_a_block_comes_back(memory: Memory) -> None:
    staging, block = memory.pinned(16), memory.allocate(16)
    assert staging.bytes is not None
    staging.bytes[:] = np.arange(16, dtype=np.uint8)
    memory.copy(block.address, staging.address, 16)
    back = np.zeros(16, np.uint8)
    memory.copy(back.ctypes.data, block.address, 16)
    assert back.tolist() == list(range(16))


def test_a_block_is_freed_once_however_often_it_is_asked() -> None:
    library = CudaRuntime()
    memory = CudaMemory(library, 0)
    blocks = [memory.allocate(8), memory.pinned(8)]
    assert len(library.held) == 2
    for block in blocks * 2:
        block.free()
        assert block.bytes is None
    assert library.held == {}


def test_every_call_names_its_own_device() -> None:
    library = CudaRuntime()
    memory = CudaMemory(library, 3)
    memory.pinned(4).free()
    assert set(library.devices) == {3}
    assert len(library.devices) == 2


def test_an_address_is_never_cut_to_32_bits() -> None:
    library = CudaRuntime()
    CudaMemory(library, 0)
    functions = vars(library)
    assert functions["cudaMemcpy"].argtypes[:2] == [ctypes.c_void_p, ctypes.c_void_p]
    assert functions["cudaFree"].argtypes == functions["cudaFreeHost"].argtypes == [ctypes.c_void_p]


@pytest.mark.parametrize(
    ("function", "attempt"), [("cudaMalloc", "allocating 64 bytes"), ("cudaHostAlloc", "pinning 64 bytes")]
)
def test_a_device_that_refuses_is_quoted(function: str, attempt: str) -> None:
    library = CudaRuntime()
    library.fails.add(function)
    memory = CudaMemory(library, 1)
    with pytest.raises(MemoryFault) as caught:
        memory.allocate(64) if function == "cudaMalloc" else memory.pinned(64)
    assert str(caught.value) == f"{attempt} on CUDA device 1 failed: out of memory"


def test_a_device_that_is_not_there_is_no_memory() -> None:
    library = CudaRuntime()
    library.fails.add("cudaSetDevice")
    with pytest.raises(MemoryFault, match="on CUDA device 7 failed"):
        CudaMemory(library, 7).allocate(1)


def test_without_cudas_library_the_reason_is_told(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text("7f00-7f01 r-xp 00000000 fe:00 12  /usr/lib/libc.so.6\n7f02-7f03 rw-p 00000000 00:00 0\n")
    with pytest.raises(MemoryFault, match=r"libcudart.so is not loaded in this process"):
        cuda_memory(0, maps)
    with pytest.raises(MemoryFault, match="is not loaded"):
        cuda_memory(0, tmp_path / "nothing")


def test_a_library_that_is_no_cuda_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "libcudart.so.13"
    broken.write_bytes(b"no library")
    maps = tmp_path / "maps"
    maps.write_text(f"7f00-7f01 r-xp 00000000 fe:00 12                         {broken}\n")
    with pytest.raises(MemoryFault, match=r"CUDA's runtime library libcudart.so.13 cannot be used"):
        cuda_memory(0, maps)

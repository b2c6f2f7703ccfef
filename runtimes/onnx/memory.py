"""Memory on a device and memory of the host that the device reads without help: allocated, copied, given back.

Why not through onnxruntime: its Python interface has no pinned memory for the CUDA provider, and its copies hold the
interpreter's lock for as long as they take, so that a batch of some megabytes would stop the event loop. CUDA's own
runtime is in the process already; called through ctypes it lets the lock go.
Units: addresses and sizes in bytes. `copy` has finished when it returns.
Errors: MemoryFault, with what was attempted and CUDA's own words.
Source: CUDA runtime API (cudaMalloc, cudaHostAlloc, cudaMemcpy and its synchronization behaviour).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from runtimes.tensor import Array

_ANY_CONTEXT = 1  # cudaHostAllocPortable
_BY_ADDRESS = 4  # cudaMemcpyDefault: both ends are known by their addresses
_LIBRARY = "libcudart.so"


class MemoryFault(Exception):
    """The device did not do what was asked of its memory; one sentence."""


class Block:
    """Memory at an address, until `free`; that of the host has a view of it in `bytes`."""

    __slots__ = ("_free", "address", "bytes")

    def __init__(self, address: int, free: Callable[[], None], view: Array | None = None) -> None:
        self.address = address
        self.bytes = view
        self._free: Callable[[], None] | None = free

    def free(self) -> None:
        """May be called again. Whoever holds a view must have let go of it."""
        free, self._free, self.bytes = self._free, None, None
        if free is not None:
            free()


class Memory(Protocol):
    """One device's memory; `name` and `device_id` are onnxruntime's words for where it is."""

    @property
    def name(self) -> str: ...

    @property
    def device_id(self) -> int: ...

    def allocate(self, size: int) -> Block:
        """On the device. Errors: MemoryFault."""
        ...

    def pinned(self, size: int) -> Block:
        """On the host, with `bytes` to write to, never moved or swapped out. Errors: MemoryFault."""
        ...

    def copy(self, to: int, source: int, size: int) -> None:
        """Between any two addresses, on the host or the device. Errors: MemoryFault."""
        ...


class HostMemory:
    """The host as its own device: the same steps for the CPU provider, in tests and comparisons."""

    name = "cpu"
    device_id = 0

    def allocate(self, size: int) -> Block:
        return self.pinned(size)

    def pinned(self, size: int) -> Block:
        view = np.empty(size, np.uint8)
        return Block(view.ctypes.data, lambda: None, view)

    def copy(self, to: int, source: int, size: int) -> None:
        ctypes.memmove(to, source, size)


class CudaMemory:
    """One CUDA device, through CUDA's runtime library. Every call names the device first: a thread that never did
    has the first one, and a single call there would take some hundred megabytes of it."""

    name = "cuda"

    def __init__(self, library: Any, device_id: int) -> None:
        self.device_id = device_id
        self._library = library
        # Without its argument types, ctypes would cut an address down to 32 bits.
        size, address, out = ctypes.c_size_t, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
        library.cudaSetDevice.argtypes = [ctypes.c_int]
        library.cudaMalloc.argtypes = [out, size]
        library.cudaFree.argtypes = [address]
        library.cudaHostAlloc.argtypes = [out, size, ctypes.c_uint]
        library.cudaFreeHost.argtypes = [address]
        library.cudaMemcpy.argtypes = [address, address, size, ctypes.c_int]
        library.cudaGetErrorString.argtypes = [ctypes.c_int]
        library.cudaGetErrorString.restype = ctypes.c_char_p

    def allocate(self, size: int) -> Block:
        address = ctypes.c_void_p()
        self._call(f"allocating {size} bytes", self._library.cudaMalloc, ctypes.byref(address), size)
        return self._block(address, self._library.cudaFree)

    def pinned(self, size: int) -> Block:
        address = ctypes.c_void_p()
        self._call(f"pinning {size} bytes", self._library.cudaHostAlloc, ctypes.byref(address), size, _ANY_CONTEXT)
        block = self._block(address, self._library.cudaFreeHost)
        block.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(block.address))
        return block

    def copy(self, to: int, source: int, size: int) -> None:
        self._call(f"copying {size} bytes", self._library.cudaMemcpy, to, source, size, _BY_ADDRESS)

    def _block(self, address: ctypes.c_void_p, free: Any) -> Block:
        found = address.value or 0
        return Block(found, lambda: self._call("freeing memory", free, found))

    def _call(self, attempt: str, function: Any, *arguments: Any) -> None:
        status = self._library.cudaSetDevice(self.device_id) or function(*arguments)
        if status:
            said = self._library.cudaGetErrorString(status).decode(errors="replace")
            raise MemoryFault(f"{attempt} on CUDA device {self.device_id} failed: {said}")


def cuda_memory(device_id: int, maps: Path = Path("/proc/self/maps")) -> CudaMemory:
    """The device's memory through the very library that onnxruntime has loaded. Errors: MemoryFault."""
    path = _loaded(maps)
    try:
        return CudaMemory(ctypes.CDLL(path), device_id)
    except (OSError, AttributeError) as fault:
        raise MemoryFault(f"CUDA's runtime library {Path(path).name} cannot be used: {fault}") from fault


def _loaded(maps: Path) -> str:
    try:
        lines = maps.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        # Address, rights, offset, device, inode, path.
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and Path(fields[5]).name.startswith(_LIBRARY):
            return fields[5]
    raise MemoryFault(f"{_LIBRARY} is not loaded in this process, so its memory cannot be reached")

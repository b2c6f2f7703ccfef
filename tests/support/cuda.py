"""What only a GPU has, played by the CPU: a session that keeps CUDA graphs, and CUDA's runtime library.

The graphs behave as onnxruntime's do: one for each thread and number, bound to the buffers it was captured with; a
plain run of a session that captures must say that it does not want to be captured; a capture that fails spoils the
session.
"""

from __future__ import annotations

import ctypes
from threading import get_ident
from typing import Any

import onnxruntime


class Clock:
    """Goes on only when it is told to."""

    def __init__(self) -> None:
        self.ns = 0

    def now(self) -> int:
        return self.ns


class GraphSession:
    """A session of the CPU provider with the graphs of a GPU's. `costs`: nanoseconds of a run, by way."""

    def __init__(self, model: Any, clock: Clock | None = None, costs: dict[str, int] | None = None) -> None:
        """`model`: its bytes or path, or a session that is open already."""
        is_open = hasattr(model, "run_with_iobinding")
        self.real = model if is_open else onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.clock = clock or Clock()
        self.costs = costs or {"plain": 3, "bound": 2, "graph": 1}
        self.captured: dict[tuple[int, int], Any] = {}
        self.runs = {"plain": 0, "bound": 0, "captures": 0, "graph": 0}
        self.fails: set[str] = set()
        self.is_stale = False
        self.is_spoilt = False

    def run(self, names: list[str], inputs: dict[str, Any], options: Any) -> Any:
        assert number_of(options) == -1, "a plain run would have been captured"
        self._count("plain")
        return self.real.run(names, inputs, options)

    def io_binding(self) -> Any:
        return self.real.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        number = number_of(options)
        assert number != 0, "0 is the number of a run that asks for no graph"
        if number == -1:
            self._count("bound")
            self.real.run_with_iobinding(binding, options)
            return
        key = (get_ident(), number)
        if key not in self.captured:
            self._capture(key, binding, options)
            return
        self._count("graph")
        if not self.is_stale:
            self.real.run_with_iobinding(self.captured[key], options)

    def _capture(self, key: tuple[int, int], binding: Any, options: Any) -> None:
        if "captures" in self.fails:
            self.is_spoilt = True
        self._count("captures")
        self.captured[key] = binding
        self.real.run_with_iobinding(binding, options)

    def _count(self, way: str) -> None:
        self.runs[way] += 1
        self.clock.ns += self.costs.get(way, 0)
        if self.is_spoilt or way in self.fails:
            raise RuntimeError(
                "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 900: operation not permitted when capturing"
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def number_of(options: Any) -> int:
    return int(options.get_run_config_entry("gpu_graph_id"))


class CudaRuntime:
    """libcudart's functions over the host's memory; `fails` names those that report an error."""

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}
        self.devices: list[int] = []
        self.fails: set[str] = set()
        for function in (
            self._set_device,
            self._malloc,
            self._free,
            self._host_alloc,
            self._free_host,
            self._memcpy,
            self._get_error_string,
        ):
            words = function.__name__.removeprefix("_").split("_")
            name = "cuda" + "".join(word.capitalize() for word in words)
            setattr(self, name, _Function(function))

    def _set_device(self, device: int) -> int:
        self.devices.append(device)
        return self._status("cudaSetDevice")

    def _malloc(self, out: Any, size: int) -> int:
        return self._status("cudaMalloc") or self._take(out, size)

    def _host_alloc(self, out: Any, size: int, flags: int) -> int:
        assert flags == 1
        return self._status("cudaHostAlloc") or self._take(out, size)

    def _free(self, address: int) -> int:
        del self.held[address]
        return self._status("cudaFree")

    def _free_host(self, address: int) -> int:
        del self.held[address]
        return self._status("cudaFreeHost")

    def _memcpy(self, to: int, source: int, size: int, kind: int) -> int:
        assert kind == 4
        ctypes.memmove(to, source, size)
        return self._status("cudaMemcpy")

    def _get_error_string(self, status: int) -> bytes:
        return b"out of memory" if status == 2 else b"unknown error"

    def _take(self, out: Any, size: int) -> int:
        block = ctypes.create_string_buffer(size)
        address = ctypes.addressof(block)
        self.held[address] = block
        out._obj.value = address
        return 0

    def _status(self, name: str) -> int:
        return 2 if name in self.fails else 0


class _Function:
    """Takes the attributes that a function of ctypes has."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.argtypes: list[Any] = []
        self.restype: Any = ctypes.c_int

    def __call__(self, *arguments: Any) -> Any:
        assert len(arguments) == len(self.argtypes)
        return self.call(*arguments)

"""Slot: one shape's buffers on a device, bound to a session once, and the copies to and from them.

Why: a CUDA graph reads and writes where it did when it was captured, so the addresses must stay; and what stays need
not be allocated for every run. Inputs go through pinned memory: the device reads it without another copy, and what is
copied from it has arrived when the copy returns, which is not so for other memory.
Ownership: results are new arrays of the caller's own, copied straight from the device.
Errors: MemoryFault, and whatever onnxruntime raises.
Source: onnxruntime's Python IOBinding (bind_input and bind_output by address).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from runtimes.onnx.memory import Block, Memory, MemoryFault
from runtimes.signature import TensorSpec
from runtimes.tensor import Array, Datatype, Tensors

logger = logging.getLogger(__name__)

_BFLOAT16 = 16  # TensorProto.DataType
_LOG_FATAL = 4


def run_options(graph_id: int) -> Any:
    """Options of a run that captures or replays this graph; -1: neither."""
    options = ort.RunOptions()
    # A run has a level of its own: without it every failed run would be written to stderr.
    options.log_severity_level = _LOG_FATAL
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options


class _Tensor:
    """One bound input or output: its block on the device, and pinned memory on the host for an input."""

    __slots__ = ("array", "block", "shape", "size", "spec", "staging")

    def __init__(self, spec: TensorSpec, shape: tuple[int, ...]) -> None:
        self.spec = spec
        self.shape = shape
        self.size = math.prod(shape) * spec.datatype.itemsize
        self.block: Block | None = None
        self.staging: Block | None = None
        self.array: Array | None = None

    def allocate(self, memory: Memory, *, is_input: bool) -> None:
        self.block = memory.allocate(self.size)
        if is_input:
            self.staging = memory.pinned(self.size)
            assert self.staging.bytes is not None
            self.array = self.staging.bytes.view(self.spec.datatype.dtype).reshape(self.shape)

    @property
    def address(self) -> int:
        assert self.block is not None
        return self.block.address

    def free(self) -> None:
        self.array = None
        for block in (self.staging, self.block):
            if block is not None:
                try:
                    block.free()
                except MemoryFault as fault:
                    # The device has it or has lost it: nothing that anybody could do about it.
                    logger.warning("a buffer was not given back: %s", fault)


class Slot:
    """A shape's buffers, bound once. A graph that is captured here reads and writes them for ever."""

    def __init__(
        self,
        session: Any,
        memory: Memory,
        inputs: Sequence[tuple[TensorSpec, tuple[int, ...]]],
        outputs: Sequence[tuple[TensorSpec, tuple[int, ...]]],
    ) -> None:
        """Errors: MemoryFault and what onnxruntime raises, with nothing kept."""
        self._session = session
        self._memory = memory
        self._inputs: list[_Tensor] = []
        self._outputs: list[_Tensor] = []
        self._binding = session.io_binding()
        try:
            for spec, shape in inputs:
                self._inputs.append(_Tensor(spec, shape))
                self._inputs[-1].allocate(memory, is_input=True)
                self._binding.bind_input(*self._place(self._inputs[-1]))
            for spec, shape in outputs:
                self._outputs.append(_Tensor(spec, shape))
                self._outputs[-1].allocate(memory, is_input=False)
                self._binding.bind_output(*self._place(self._outputs[-1]))
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Tensors, options: Any) -> dict[str, Array]:
        """One run with these inputs; the results are new arrays."""
        self.write(inputs)
        self.execute(options)
        return {tensor.spec.name: self._read(tensor) for tensor in self._outputs}

    def write(self, inputs: Tensors) -> None:
        for tensor in self._inputs:
            assert tensor.array is not None and tensor.staging is not None
            # The arrays of a batch need not lie in one piece; the staging does.
            np.copyto(tensor.array, inputs[tensor.spec.name])
            self._memory.copy(tensor.address, tensor.staging.address, tensor.size)

    def execute(self, options: Any) -> None:
        self._session.run_with_iobinding(self._binding, options)

    def close(self) -> None:
        self._binding = self._session = None
        for tensor in self._inputs + self._outputs:
            tensor.free()
        self._inputs, self._outputs = [], []

    def _read(self, tensor: _Tensor) -> Array:
        result: Array = np.empty(tensor.shape, tensor.spec.datatype.dtype)
        self._memory.copy(result.ctypes.data, tensor.address, tensor.size)
        return result

    def _place(self, tensor: _Tensor) -> tuple[str, str, int, Any, tuple[int, ...], int]:
        datatype = tensor.spec.datatype
        element = _BFLOAT16 if datatype is Datatype.BF16 else datatype.dtype.type
        memory = self._memory
        return tensor.spec.name, memory.name, memory.device_id, element, tensor.shape, tensor.address

"""An ONNX model's signature, out of what onnxruntime says of its inputs and outputs.

Shapes: -1 for a free dimension, with the model's name for it in `symbols` where it gives a real one.
Batch axes of inputs are candidates here, not yet proven; those of outputs are found by running (runtimes/proof.py).
Sequences of maps (ZipMap) and maps become BYTES outputs with `maps` set, one dict a row. A sequence of tensors is
refused: its length and its elements' shapes may change with every request, so no signature could describe it.
Errors: LoadFailed, with the tensor's name and type.
Source: onnxruntime's Python `NodeArg` (name, type, shape). It gives a shape of [] both for a scalar and for an
unknown rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from runtimes.errors import LoadFailed
from runtimes.signature import Signature, TensorSpec
from runtimes.tensor import BY_ONNX_NAME, Datatype

# Names that exporters write where they know none: two dimensions called "?" need not be equal.
_NO_NAMES = ("", "?")


class NodeArg(Protocol):
    """What onnxruntime tells of one input or output."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...

    @property
    def shape(self) -> Sequence[int | str | None]: ...


def signature_of(
    inputs: Sequence[NodeArg], outputs: Sequence[NodeArg], axes: Mapping[str, int] | None = None
) -> Signature:
    """The signature with candidate batch axes; `axes` by input name wins over what the shapes suggest."""
    specs = tuple(_tensor(arg, "input") for arg in inputs)
    specs = tuple(_with_candidate(spec, _batch_symbol(specs)) for spec in specs)
    return Signature(inputs=_overridden(specs, axes or {}), outputs=tuple(_output(arg) for arg in outputs))


def _output(arg: NodeArg) -> TensorSpec:
    if arg.type.startswith(("seq(map(", "map(")):
        return TensorSpec(name=arg.name, datatype=Datatype.BYTES, shape=(-1,), symbols=(None,), maps=True)
    return _tensor(arg, "output")


def _tensor(arg: NodeArg, role: str) -> TensorSpec:
    datatype = BY_ONNX_NAME.get(arg.type)
    if datatype is None:
        allowed = "tensors" if role == "input" else "tensors and sequences of maps"
        raise LoadFailed(
            f"the model's {role} {arg.name!r} has type {arg.type}, which is not supported; {allowed} of "
            f"{', '.join(datatype.onnx for datatype in Datatype)} are"
        )
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in arg.shape)
    symbols = tuple(dim if isinstance(dim, str) and dim not in _NO_NAMES else None for dim in arg.shape)
    return TensorSpec(name=arg.name, datatype=datatype, shape=shape, symbols=symbols)


def _batch_symbol(specs: Sequence[TensorSpec]) -> str | None:
    """The name of the first leading free dimension, if the model names it."""
    return next((spec.symbols[0] for spec in specs if spec.shape[:1] == (-1,)), None)


def _with_candidate(spec: TensorSpec, batch_symbol: str | None) -> TensorSpec:
    free = [axis for axis, size in enumerate(spec.shape) if size == -1]
    axis: int | None = None
    if batch_symbol is not None and batch_symbol in spec.symbols:
        axis = spec.symbols.index(batch_symbol)
    elif 0 in free or len(free) == 1:
        axis = free[0]
    return replace(spec, batch_axis=axis)


def _overridden(specs: tuple[TensorSpec, ...], axes: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    names = [spec.name for spec in specs]
    for name in axes:
        if name not in names:
            raise LoadFailed(f"a batch axis is set for input {name!r}; the model's inputs are {names}")
    return tuple(replace(spec, batch_axis=_axis(spec, axes)) for spec in specs)


def _axis(spec: TensorSpec, axes: Mapping[str, int]) -> int | None:
    if spec.name not in axes:
        return spec.batch_axis
    axis = axes[spec.name]
    if not 0 <= axis < len(spec.shape) or spec.shape[axis] != -1:
        free = [place for place, size in enumerate(spec.shape) if size == -1]
        raise LoadFailed(
            f"batch axis {axis} is set for input {spec.name!r}, which is {spec.describe()}; its free axes are {free}"
        )
    return axis

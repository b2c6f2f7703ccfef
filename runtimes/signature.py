"""A model's inputs and outputs, and the check of tensors against them.

Shapes: a dimension of -1 is free. `batch_axis` is the axis along which rows are counted; None on an input
means that every request of a batch must bring the same value (a scalar such as a sampling rate).
Errors: InvalidInput, with the tensor's name, what was found and what would be accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np

from runtimes.errors import InvalidInput
from runtimes.padding.lengths import Padding, element
from runtimes.tensor import Array, Datatype, Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One named input or output.

    `symbols` holds the model's names for its free dimensions ("batch"), None where it gives none.
    `maps` marks an output that is a sequence of maps (ZipMap): an object array of dicts, one a row.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    symbols: tuple[str | None, ...] = ()
    batch_axis: int | None = None
    maps: bool = False

    def describe(self) -> str:
        return f"{self.datatype.v2} {list(self.shape)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """An input that is 1 wherever a request has something, made from another one when the caller leaves it out.

    `axes`: for each axis of the mask the axis of `like` that is as long, None where the mask's own size is fixed.
    """

    name: str
    like: str
    axes: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Inputs and outputs in the model's order. `batched` is true once batching is proven safe.

    `padding`: how requests of different lengths are made equally long, where that is proven too. `mask`: the input
    that a caller may leave out. `rows_max`: the most rows of a request along every input's first axis; 0: any.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool = False
    padding: Padding | None = None
    mask: Mask | None = None
    rows_max: int = 0
    # The inputs of which two requests may differ in more than their rows.
    _keyed: tuple[TensorSpec, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keyed", tuple(spec for spec in self.inputs if _is_keyed(spec)))

    def input(self, name: str) -> TensorSpec:
        for spec in self.inputs:
            if spec.name == name:
                return spec
        raise InvalidInput(f"there is no input {name!r}; the model's inputs are {_names(self.inputs)}")

    def output(self, name: str) -> TensorSpec:
        for spec in self.outputs:
            if spec.name == name:
                return spec
        raise InvalidInput(f"there is no output {name!r}; the model's outputs are {_names(self.outputs)}")

    def unbatched(self) -> Signature:
        """The same signature for a model that is run one request at a time."""
        return replace(self, batched=False, padding=None)

    def required(self, given: Collection[str]) -> tuple[TensorSpec, ...]:
        """The inputs that a request brings which brings these: all of them, but for a mask that it leaves out."""
        mask = self.mask
        if mask is None or mask.name in given:
            return self.inputs
        return tuple(spec for spec in self.inputs if spec.name != mask.name)

    def filled(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """The inputs with the mask that the caller left out, if the model has one. Errors: InvalidInput."""
        mask = self.mask
        if mask is None or mask.name in inputs or mask.like not in inputs:
            return inputs
        like, spec, own = inputs[mask.like], self.input(mask.like), self.input(mask.name)
        if like.ndim != len(spec.shape):
            self._refuse_shape(spec, like)
        shape = [size if axis is None else like.shape[axis] for axis, size in zip(mask.axes, own.shape, strict=True)]
        return {**inputs, mask.name: np.full(shape, element(1.0, own.datatype), own.datatype.dtype)}

    def check(self, inputs: Tensors) -> int:
        """Check datatypes and shapes; returns the request's rows (1 where the model has no batch axis)."""
        if len(inputs) != len(self.inputs):
            self._refuse_names(inputs)
        rows = -1
        for spec in self.inputs:
            array = inputs.get(spec.name)
            if array is None:
                self._refuse_names(inputs)
            if array.dtype != spec.datatype.dtype:
                raise InvalidInput(f"input {spec.name!r} is {array.dtype}; the model takes {spec.describe()}")
            if not _fits(array.shape, spec.shape):
                self._refuse_shape(spec, array)
            if spec.batch_axis is not None:
                size = array.shape[spec.batch_axis]
                if rows not in (-1, size):
                    raise InvalidInput(
                        f"input {spec.name!r} has {size} rows where another input has {rows}; "
                        "all inputs of a request have the same number of rows"
                    )
                rows = size
            if self.rows_max and array.shape[0] > self.rows_max:
                self._refuse_rows(spec, array)
        return 1 if rows == -1 else rows

    def key(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> Hashable:
        """What must be equal for two requests to share a batch: shapes beside the batch axis, the values of
        inputs without one, and the requested outputs. Lengths that are padded count by their buckets."""
        parts: list[Hashable] = [outputs]
        padding = self.padding
        if padding is not None:
            parts.append(padding.buckets(padding.sizes(inputs)))
        for spec in self._keyed:
            array = inputs[spec.name]
            axis = spec.batch_axis
            if axis is None:
                parts.append((array.shape, _bytes_of(array)))
            else:
                shape = array.shape if padding is None else padding.apart(spec.name, array.shape)
                parts.append(shape[:axis] + shape[axis + 1 :])
        return tuple(parts)

    def buckets_in(self, key: Hashable) -> tuple[int, ...]:
        """The padded lengths in what `key` gave; nothing where nothing is padded."""
        if self.padding is None or not isinstance(key, tuple):
            return ()
        buckets: tuple[int, ...] = key[1]
        return buckets

    def _refuse_shape(self, spec: TensorSpec, array: Array) -> NoReturn:
        raise InvalidInput(f"input {spec.name!r} has shape {list(array.shape)}; the model takes {spec.describe()}")

    def _refuse_rows(self, spec: TensorSpec, array: Array) -> NoReturn:
        raise InvalidInput(
            f"input {spec.name!r} has {array.shape[0]} rows; a request of this model has at most {self.rows_max}"
        )

    def _refuse_names(self, inputs: Tensors) -> NoReturn:
        wanted = {spec.name for spec in self.inputs}
        unknown = [name for name in inputs if name not in wanted]
        if unknown:
            raise InvalidInput(f"there is no input {unknown[0]!r}; the model's inputs are {_names(self.inputs)}")
        missing = sorted(wanted - set(inputs))
        raise InvalidInput(f"input {missing[0]!r} is missing; the model's inputs are {_names(self.inputs)}")


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    # A loop, not all() or zip(): this runs for every request, and these cost up to half a microsecond.
    if len(shape) != len(wanted):
        return False
    for axis, want in enumerate(wanted):  # noqa: SIM110
        if want != -1 and want != shape[axis]:
            return False
    return True


def _is_keyed(spec: TensorSpec) -> bool:
    axis = spec.batch_axis
    return axis is None or -1 in spec.shape[:axis] or -1 in spec.shape[axis + 1 :]


def _bytes_of(array: Array) -> Hashable:
    return tuple(array.ravel()) if array.dtype == object else array.tobytes()


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name!r} ({spec.describe()})" for spec in specs)

"""A model's signature against what a configuration beside it declares: checked, narrowed, and seen in other shapes.

What: names, datatypes and sizes must agree; where the model leaves a size free the declared one holds; outputs that
are not declared are not served. `Views` turn a request's shapes into the model's own and its answers' back.
What it cannot check: the shape of an output of which the model tells no rank.
Errors: LoadFailed that names both sides; ModelFailed for an answer that has not the shape that is declared.
Source: Triton's rules for ONNX models (onnxruntime_backend) and for `reshape` (model_configuration.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from runtimes.errors import LoadFailed, ModelFailed
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import Declared, DeclaredTensor
from runtimes.tensor import Array, Tensors

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """By tensor the shape that callers see and the one that the model has: the same free sizes, in order."""

    inputs: Mapping[str, tuple[Shape, Shape]] = field(default_factory=dict)
    outputs: Mapping[str, tuple[Shape, Shape]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.inputs or self.outputs)

    def enter(self, inputs: Tensors) -> Tensors:
        """Arrays that fit the signature, as the model takes them."""
        return {
            name: array.reshape(_translated(array.shape, *self.inputs[name])) if name in self.inputs else array
            for name, array in inputs.items()
        }

    def leave(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """The model's arrays, as callers see them. Errors: ModelFailed."""
        return {name: self._seen(name, array) for name, array in outputs.items()}

    def _seen(self, name: str, array: Array) -> Array:
        if name not in self.outputs:
            return array
        seen, own = self.outputs[name]
        if not _is_within(array.shape, own):
            raise ModelFailed(f"output {name!r} has shape {list(array.shape)}; {list(own)} is declared")
        return array.reshape(_translated(array.shape, own, seen))


def narrowed(signature: Signature, declared: Declared, axes: Mapping[str, int]) -> tuple[Signature, Views]:
    """The signature that is served. `axes`: batch axes of inputs that a person set. Errors: LoadFailed."""
    inputs = _declared(signature.inputs, declared.inputs, declared, "input")
    outputs = _declared(signature.outputs, declared.outputs, declared, "output")
    missing = [spec.name for spec in signature.inputs if spec.name not in {one.name for one in inputs}]
    if missing:
        raise LoadFailed(f"{declared.source} does not declare input {missing[0]!r}, which the model needs")
    if declared.rows_max:
        inputs = tuple(replace(spec, batch_axis=axes.get(spec.name, 0)) for spec in inputs)
    scalars = {spec.name for spec in signature.inputs if not spec.shape}
    views = Views(
        inputs={
            one.name: (one.shape, () if one.name in scalars else one.inner or ())
            for one in declared.inputs
            if one.inner is not None or one.name in scalars
        },
        outputs={one.name: (one.shape, one.inner) for one in declared.outputs if one.inner is not None},
    )
    return replace(signature, inputs=inputs, outputs=outputs, rows_max=declared.rows_max), views


def _declared(
    specs: Sequence[TensorSpec], given: Sequence[DeclaredTensor], declared: Declared, role: str
) -> tuple[TensorSpec, ...]:
    by_name = {spec.name: spec for spec in specs}
    for one in given:
        if one.name not in by_name:
            there = ", ".join(repr(name) for name in by_name) or "none"
            raise LoadFailed(f"{declared.source} declares {role} {one.name!r}; the model's {role}s are {there}")
    wanted = [by_name[one.name] for one in given] or list(specs)
    if declared.rows_max:
        for spec in wanted:
            _check_rows(spec, declared, role)
    return tuple(_narrowed(by_name[one.name], one, declared, role) for one in given) or tuple(specs)


def _check_rows(spec: TensorSpec, declared: Declared, role: str) -> None:
    """Every tensor's first size is free. An output that tells no rank may be anything."""
    if spec.shape[:1] == (-1,) or (role == "output" and not spec.shape):
        return
    raise LoadFailed(
        f"{declared.source} has max_batch_size {declared.rows_max}, for which the first size of {role} {spec.name!r} "
        f"must be free; the model's is {spec.describe()}; a model that does not batch has max_batch_size 0"
    )


def _narrowed(spec: TensorSpec, one: DeclaredTensor, declared: Declared, role: str) -> TensorSpec:
    own = one.shape if one.inner is None else one.inner
    if one.datatype != spec.datatype.v2 or not _agrees(spec, own, role):
        view = f", reshaped from {list(one.shape)}" if one.inner is not None else ""
        batch = " (its first size is the batch's)" if declared.rows_max else ""
        raise LoadFailed(
            f"{declared.source} declares {role} {one.name!r} as {one.datatype} {list(own)}{view}{batch}; "
            f"the model's is {spec.describe()}"
        )
    if role == "output" and not spec.shape:
        return spec
    # A size keeps the model's name for it where both are free and at one place.
    symbols = tuple(
        spec.symbols[axis] if size == -1 and spec.shape[axis : axis + 1] == (-1,) else None
        for axis, size in enumerate(one.shape)
    )
    return replace(spec, shape=one.shape, symbols=symbols)


def _agrees(spec: TensorSpec, shape: Shape, role: str) -> bool:
    """Whether the model may have this shape: what it leaves free can be any size."""
    if not spec.shape:
        # A scalar has no shape in such a configuration but sizes of 1.
        return role == "output" or all(size == 1 for size in shape)
    return len(spec.shape) == len(shape) and all(
        own in (-1, size) for own, size in zip(spec.shape, shape, strict=True)
    )


def _is_within(shape: Shape, wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(want in (-1, size) for size, want in zip(shape, wanted, strict=True))


def _translated(actual: Shape, here: Shape, there: Shape) -> Shape:
    """A shape that fits `here` as one that fits `there`."""
    free = iter([size for size, wanted in zip(actual, here, strict=True) if wanted == -1])
    return tuple(next(free) if size == -1 else size for size in there)

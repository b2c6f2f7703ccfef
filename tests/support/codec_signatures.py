"""Signatures that the codec tests share."""

from __future__ import annotations

from runtimes import Datatype, Signature, TensorSpec


def spec(
    name: str,
    datatype: Datatype = Datatype.FP32,
    shape: tuple[int, ...] = (-1, 3),
    *,
    batch_axis: int | None = 0,
    maps: bool = False,
) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape, batch_axis=batch_axis, maps=maps)


def signature(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (), batched: bool = True) -> Signature:
    return Signature(inputs=inputs or (spec("x"),), outputs=outputs or (spec("y", shape=(-1, 2)),), batched=batched)


def of_type(datatype: Datatype, shape: tuple[int, ...] = (-1, 3)) -> Signature:
    """One input `x` and one output `y`, both of a datatype and shape."""
    axis = 0 if shape and shape[0] == -1 else None
    return signature(
        spec("x", datatype, shape, batch_axis=axis), outputs=(spec("y", datatype, shape, batch_axis=axis),)
    )

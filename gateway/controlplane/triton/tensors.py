"""The inputs and outputs of a model configuration: what the model must have, and what callers see of it.

Errors: none raised; mistakes and notes go to Said. Pure.
Source: ValidateIOShape of Triton's model_config_utils.cc.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.controlplane.triton.model_config import Input, ModelConfig, Output
from gateway.controlplane.triton.said import Said
from runtimes import Declared, DeclaredTensor


def tensors(config: ModelConfig, name: str, said: Said) -> None:
    declared = Declared(
        source=f"config.pbtxt of model {name!r}",
        inputs=tuple(_declared("input", place, one, said) for place, one in enumerate(config.input)),
        outputs=tuple(_declared("output", place, one, said) for place, one in enumerate(config.output)),
        rows_max=max(0, config.max_batch_size),
    )
    for role, given in (("input", declared.inputs), ("output", declared.outputs)):
        names = [one.name for one in given]
        for twice in sorted({one for one in names if names.count(one) > 1}):
            said.refuse(role, f"{twice!r} stands there twice; accepted: each once")
    for place, one in enumerate(config.input):
        _refuse_flags(
            f"input[{place}]",
            {
                "is_shape_tensor": one.is_shape_tensor,
                "allow_ragged_batch": one.allow_ragged_batch,
                "optional": one.optional,
                "is_non_linear_format_io": one.is_non_linear_format_io,
            },
            said,
        )
        if one.format != "FORMAT_NONE":
            said.note(f"input[{place}].format", "says something to clients alone, and is not shown to them here")
    for place, two in enumerate(config.output):
        flags = {"is_shape_tensor": two.is_shape_tensor, "is_non_linear_format_io": two.is_non_linear_format_io}
        _refuse_flags(f"output[{place}]", flags, said)
        if two.label_filename:
            said.note(f"output[{place}].label_filename", "has no effect: classifications carry no labels here")
    said.declared = declared


_FLAGS = {
    "is_shape_tensor": "is for TensorRT plans, not for ONNX models",
    "is_non_linear_format_io": "is for TensorRT plans, not for ONNX models",
    "allow_ragged_batch": "ragged batches are not offered; gateway.batching.padding joins different lengths",
    "optional": "every request brings every input; give the model a default of its own, and take the input out",
}


def _refuse_flags(path: str, flags: dict[str, bool], said: Said) -> None:
    for key, is_set in flags.items():
        if is_set:
            said.refuse(f"{path}.{key}", _FLAGS[key])


def _declared(role: str, place: int, one: Input | Output, said: Said) -> DeclaredTensor:
    path = f"{role}[{place}]"
    if not one.name:
        said.refuse(f"{path}.name", "missing; accepted: the tensor's name in the model")
    if one.data_type == "TYPE_INVALID":
        said.refuse(f"{path}.data_type", f"missing for {one.name!r}; accepted: TYPE_FP32 and its like")
    inner = one.reshape.shape if one.reshape is not None else None
    _check_dims(f"{path}.dims", one.dims, said)
    if not one.dims:
        said.refuse(f"{path}.dims", f"missing for {one.name!r}; accepted: at least one size, beside the batch")
    if inner is not None:
        _check_dims(f"{path}.reshape.shape", inner, said)
        if _trunks(one.dims) != _trunks(inner):
            said.refuse(f"{path}.reshape", f"turns {list(one.dims)} into {list(inner)}, which holds another number")
        if not inner and not said.rows_max:
            said.refuse(f"{path}.reshape", "leaves no size, which only a batch (max_batch_size above 0) may")
    rows = (-1,) if said.rows_max else ()
    return DeclaredTensor(
        name=one.name,
        datatype="BYTES" if one.data_type == "TYPE_STRING" else one.data_type.removeprefix("TYPE_"),
        shape=(*rows, *one.dims),
        inner=(*rows, *inner) if inner is not None else None,
    )


def _check_dims(path: str, dims: Sequence[int], said: Said) -> None:
    wrong = [size for size in dims if size < 1 and size != -1]
    if wrong:
        said.refuse(path, f"found {wrong[0]}; accepted: sizes of 1 and more, or -1 for any")


def _trunks(dims: Sequence[int]) -> list[int]:
    """How many entries there are between the free sizes: what a reshape must leave as it is."""
    trunks = [1]
    for size in dims:
        if size == -1:
            trunks.append(1)
        else:
            trunks[-1] *= size
    return trunks

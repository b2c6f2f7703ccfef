"""Datatypes of tensors and their three names: V2 protocol, ONNX and numpy.

Shapes: row-major; a scalar has shape ().
Units: `itemsize` in bytes; BYTES has none (its elements vary).
Source: Open Inference Protocol V2 datatypes; onnxruntime's `NodeArg.type` texts.

A tensor inside the process is a numpy array. BYTES is an array of dtype object that holds `str`
(onnxruntime strings are UTF-8). BF16 is an array of `uint16` bit patterns, for numpy has no such type.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]
Tensors = Mapping[str, Array]


class Datatype(Enum):
    """A datatype: its V2 name, numpy dtype and the text onnxruntime uses for it."""

    BOOL = ("BOOL", np.dtype(np.bool_), "bool")
    UINT8 = ("UINT8", np.dtype(np.uint8), "uint8")
    UINT16 = ("UINT16", np.dtype(np.uint16), "uint16")
    UINT32 = ("UINT32", np.dtype(np.uint32), "uint32")
    UINT64 = ("UINT64", np.dtype(np.uint64), "uint64")
    INT8 = ("INT8", np.dtype(np.int8), "int8")
    INT16 = ("INT16", np.dtype(np.int16), "int16")
    INT32 = ("INT32", np.dtype(np.int32), "int32")
    INT64 = ("INT64", np.dtype(np.int64), "int64")
    FP16 = ("FP16", np.dtype(np.float16), "float16")
    BF16 = ("BF16", np.dtype(np.uint16), "bfloat16")
    FP32 = ("FP32", np.dtype(np.float32), "float")
    FP64 = ("FP64", np.dtype(np.float64), "double")
    BYTES = ("BYTES", np.dtype(np.object_), "string")

    def __init__(self, v2: str, dtype: np.dtype[Any], onnx: str) -> None:
        self.v2 = v2
        self.dtype = dtype
        self.onnx = onnx

    @property
    def itemsize(self) -> int:
        """Bytes an element takes on the wire; 0 for BYTES, whose elements carry their own length."""
        return 0 if self is Datatype.BYTES else self.dtype.itemsize

    @property
    def is_float(self) -> bool:
        return self in (Datatype.FP16, Datatype.BF16, Datatype.FP32, Datatype.FP64)

    @property
    def is_integer(self) -> bool:
        return self.v2.startswith(("INT", "UINT"))


BY_V2_NAME: Mapping[str, Datatype] = {datatype.v2: datatype for datatype in Datatype}
BY_ONNX_NAME: Mapping[str, Datatype] = {f"tensor({datatype.onnx})": datatype for datatype in Datatype}

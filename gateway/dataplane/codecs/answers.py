"""Arrays into what JSON can say: numbers as the shortest text that reads back the same, strings, and maps.

NaN and infinities become null, for JSON has no other word; `has_nonfinite` tells, so that a header can say so.
Float32 and float16 are printed by orjson as the shortest text that reads back to the same value. The values of maps
(ZipMap) are floats that onnxruntime widened from float32: they are printed as the float32 that they are.
Elements of an object array that are neither strings nor numbers (maps) are objects in JSON, BYTES in V2.
Errors: none of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from runtimes import Array, Datatype, TensorSpec

_NUMBERS = orjson.OPT_SERIALIZE_NUMPY
OPTIONS = _NUMBERS | orjson.OPT_NON_STR_KEYS
_BF16 = Datatype.BF16


def dump(value: object) -> bytes:
    """JSON bytes; text that is no valid Unicode (a lone surrogate from a model) has its bad parts replaced."""
    try:
        return orjson.dumps(value, option=OPTIONS)
    except orjson.JSONEncodeError:
        return orjson.dumps(_clean(value), option=OPTIONS)


def dump_tensor(array: Array, spec: TensorSpec) -> bytes:
    """JSON bytes of one tensor; most of them orjson prints as they are."""
    if spec.datatype is not _BF16:
        try:
            return orjson.dumps(array, option=_NUMBERS)
        except orjson.JSONEncodeError:
            # Objects, a scalar, or elements that do not lie side by side.
            pass
    return dump(jsonable(array, spec))


def dump_named(results: Mapping[str, Array], specs: tuple[TensorSpec, ...]) -> bytes:
    """JSON bytes of an object of tensors."""
    named = {}
    for spec in specs:
        # The one type whose elements orjson would print as something else.
        if spec.datatype is _BF16:
            break
        named[spec.name] = results[spec.name]
    else:
        try:
            return orjson.dumps(named, option=_NUMBERS)
        except orjson.JSONEncodeError:
            # As in dump_tensor, or a name that is no valid Unicode.
            pass
    return dump({spec.name: jsonable(results[spec.name], spec) for spec in specs})


def dump_numbers(value: object) -> bytes:
    """As `dump`, and quicker where nothing has names that are not strings."""
    try:
        return orjson.dumps(value, option=_NUMBERS)
    except orjson.JSONEncodeError:
        return dump(value)


def jsonable(array: Array, spec: TensorSpec) -> Any:
    """Something that `dump` prints as nested lists, or as one value for a scalar."""
    if spec.datatype is _BF16:
        array = widen_bfloat16(array)
    if array.dtype == np.object_:
        return elements(array) if array.ndim == 1 else _nested(array)
    if not array.ndim:
        # A numpy float says how many digits it needs; other scalars are exact in Python.
        return array[()] if array.dtype.kind == "f" else array.item()
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def elements(array: Array) -> list[Any]:
    """An object array's elements in row-major order, ready for JSON."""
    return [element if type(element) is str else _element(element) for element in array.ravel()]


def texts(array: Array) -> list[str]:
    """An object array's elements as strings: a map, or anything else that is no string, as its JSON text."""
    return [element if type(element) is str else dump(element).decode() for element in elements(array)]


def has_nonfinite(array: Array, spec: TensorSpec) -> bool:
    """Whether NaN or an infinity is in there and JSON would say null."""
    if spec.datatype is _BF16:
        array = widen_bfloat16(array)
    if array.dtype.kind == "f":
        return not bool(np.isfinite(array).all())
    return array.dtype == np.object_ and any(_holds_nonfinite(element) for element in array.ravel())


def widen_bfloat16(bits: Array) -> Array:
    """Bit patterns as the float32 values they stand for, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _nested(array: Array) -> Any:
    flat = np.empty(array.size, np.object_)
    flat[:] = elements(array)
    return flat.reshape(array.shape).tolist()


def _element(element: object) -> object:
    if type(element) is dict:
        return {key: _narrow(value) for key, value in element.items()}
    if type(element) is bytes:
        return element.decode("utf-8", "replace")
    if isinstance(element, np.ndarray) and not element.flags.c_contiguous:
        return np.ascontiguousarray(element)
    return element


def _narrow(value: object) -> object:
    """A float that is exactly a float32 is one; others stay as they are."""
    if type(value) is not float:
        return value
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return single if float(single) == value else value


def _holds_nonfinite(element: object) -> bool:
    if type(element) is dict:
        return any(_holds_nonfinite(value) for value in element.values())
    if isinstance(element, np.ndarray):
        return element.dtype.kind == "f" and not bool(np.isfinite(element).all())
    return isinstance(element, (float, np.floating)) and not bool(np.isfinite(element))


def _clean(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case list():
            return [_clean(item) for item in value]
        case dict():
            return {_clean(key): _clean(item) for key, item in value.items()}
        case _:
            return value

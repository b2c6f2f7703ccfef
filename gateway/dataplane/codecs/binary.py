"""Tensors as raw bytes, the V2 protocol's binary tensor data: read as views of the body, written as they lie.

Layout: row-major, little-endian (the order of every machine that onnxruntime is built for), no padding. BOOL is one
byte, 0 or 1. A BYTES element is a 32-bit length and then that many bytes of UTF-8.
Units: `offset` and `size` in bytes of the body.
Errors: InvalidInput with the tensor's name, what was found and what would be accepted.
Source: the binary tensor data extension of the Open Inference Protocol.
"""

from __future__ import annotations

from math import prod
from struct import Struct

import numpy as np

from runtimes import Array, Datatype, InvalidInput, TensorSpec

_LENGTH = Struct("<I")
_BYTES = Datatype.BYTES
_BOOL = Datatype.BOOL


def read(body: bytes, offset: int, size: int, spec: TensorSpec, shape: list[int]) -> Array:
    """The tensor in `size` bytes from `offset`, which lie inside the body: a view where these are aligned.

    `shape` has at most 64 sizes, and where one of them is 0 the others are small."""
    count = prod(shape)
    datatype = spec.datatype
    if datatype is _BYTES:
        return _read_texts(body, offset, size, count, spec).reshape(shape)
    if count * datatype.itemsize != size:
        raise InvalidInput(
            f"input {spec.name!r} has {size} bytes; {datatype.v2} of shape {_listed(shape)} takes "
            f"{count * datatype.itemsize}"
        )
    if not count:
        return np.empty(shape, datatype.dtype)
    array: Array = np.ndarray(shape, datatype.dtype, body, offset)
    if datatype is _BOOL and array.view(np.uint8).max() > 1:
        raise InvalidInput(f"input {spec.name!r} has a byte other than 0 and 1; BOOL takes one of these a byte")
    # onnxruntime takes the memory as it is, and its kernels may load whole elements at once.
    return array if array.flags.aligned else array.copy()


def read_raw(body: bytes, spec: TensorSpec) -> Array:
    """The whole body as the single input of one row: free dimensions follow from the size."""
    shape = [1 if axis == spec.batch_axis else size for axis, size in enumerate(spec.shape)]
    free = [axis for axis, size in enumerate(shape) if size < 0]
    if len(free) > 1:
        raise InvalidInput(
            f"a request without a JSON header leaves {len(free)} dimensions of input {spec.name!r} unknown "
            f"({spec.describe()}); one is accepted, so send a header with the shape"
        )
    if spec.datatype is _BYTES:
        for axis in free:
            shape[axis] = 1
        if prod(shape) != 1:
            raise InvalidInput(
                f"a request without a JSON header is one string and input {spec.name!r} is {spec.describe()}; "
                "send a header with the shape"
            )
        text = np.empty(1, np.object_)
        text[0] = _text(body, spec, 0)
        return text.reshape(shape)
    for axis in free:
        step = prod(size for size in shape if size >= 0) * spec.datatype.itemsize
        shape[axis] = len(body) // step if step else 0
    return read(body, 0, len(body), spec, shape)


def write_texts(texts: list[str]) -> bytes:
    parts = []
    for text in texts:
        data = text.encode("utf-8", "replace")
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
    return b"".join(parts)


def _read_texts(body: bytes, offset: int, size: int, count: int, spec: TensorSpec) -> Array:
    # Each element takes four bytes at least: a huge count is refused before anything is allocated for it.
    if count * _LENGTH.size > size:
        raise InvalidInput(
            f"input {spec.name!r} has {size} bytes, too few for {count} strings with a 4-byte length each"
        )
    texts = np.empty(count, np.object_)
    end = offset + size
    for index in range(count):
        start = offset + _LENGTH.size
        if start > end or start + _LENGTH.unpack_from(body, offset)[0] > end:
            raise InvalidInput(
                f"input {spec.name!r} ends inside string {index} of {count}; each is a 4-byte little-endian length "
                "and as many bytes"
            )
        offset = start + _LENGTH.unpack_from(body, start - _LENGTH.size)[0]
        texts[index] = _text(body[start:offset], spec, index)
    if offset != end:
        raise InvalidInput(
            f"input {spec.name!r} has {end - offset} bytes after its {count} strings; none are accepted"
        )
    return texts


def _text(data: bytes, spec: TensorSpec, index: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"input {spec.name!r} has a string that is not UTF-8 (string {index}, byte {error.start}); "
            "UTF-8 is accepted"
        ) from None


def _listed(shape: list[int]) -> str:
    return str(shape if len(shape) <= 16 else [*shape[:16], ...]).replace("Ellipsis", "…")

"""JSON values into tensors, exactly: nothing is cut, wrapped, parsed from text or turned from true into 1.

Why: numpy is generous (true in a float list becomes 1.0, "1.5" becomes 1.5, null becomes NaN, 1.5 becomes 1 in an
int64 array) and orjson turns 2**64 into a float. A model fed with such values answers confidently and wrongly.

How it stays cheap: when the body is `plain` (documents.py) struct's and numpy's own conversions are exact for floats,
and for integers after a look at the types: struct refuses others, numpy infers one. struct takes half of numpy's time
and takes rows. Everything else is flattened and its element types are checked, which costs about 25 ns an element and
can name the element that does not fit. Long blocks of numbers never become Python values: buffers.py.

| datatype | JSON accepted |
|---|---|
| BOOL | true, false (in V2 also 0 and 1) |
| INT*, UINT* | integers in range; 3.0 counts as 3 up to 2**53 |
| FP16, BF16, FP32, FP64 | numbers that round to a finite value of the type |
| BYTES | strings |

FP16 and BF16 round from the double that JSON gives, once, to nearest even. Triton takes them as binary only.
Shapes: row-major.
Errors: InvalidInput with the input's name, the place, what was found and what would be accepted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from contextvars import Context
from functools import lru_cache
from itertools import chain
from typing import Any, NoReturn

import numpy as np
import orjson

from gateway.dataplane.codecs import buffers
from runtimes import Array, Datatype, InvalidInput, TensorSpec

Leaves = list[Any]
Place = Callable[[int], str]
Packer = Callable[..., bytes]

_EXACT_INTEGER_MAX = 2**53
_SHOWN_MAX = 40
_RANK_MAX = 64
# As JSON would say them; numpy prints the largest float16 as 65500.0.
_LARGEST = {
    Datatype.FP16: "65504",
    Datatype.BF16: "3.3895314e+38",
    Datatype.FP32: "3.4028235e+38",
    Datatype.FP64: "1.7976931348623157e+308",
}

# numpy (2.0 and newer) keeps its error state in a context variable. Entering a context that has it costs 0.1 us a
# call, `with np.errstate` 1.1 us: as much as the conversion itself.
_OVERFLOW_RAISES = Context()
_OVERFLOW_RAISES.run(np.seterr, over="raise")


def _packers(code: str) -> Callable[[int], Packer]:
    """The packers of each length for one type. Only standard sizes ("<") refuse what a float cannot hold."""
    return lru_cache(maxsize=256)(lambda count: struct.Struct(f"<{count}{code}").pack)


# By what numpy calls the type. BF16 goes by the name of its bits, so there is no UINT16.
_PACKERS = {"f": _packers("f"), "d": _packers("d"), "i": _packers("i"), "l": _packers("q")}
_BF16 = Datatype.BF16


def tensor(value: object, spec: TensorSpec, *, plain: bool, bits: bool = False) -> Array:
    """The tensor that a JSON value says. `bits`: 0 and 1 are booleans too. The shape is the value's own."""
    array = _plain_tensor(value, spec) if plain else None
    return _exact_tensor(value, spec, bits) if array is None else array


def packed(value: list[Any], spec: TensorSpec, shape: tuple[int, ...] | None = None) -> Array | None:
    """The tensor of a plain list of numbers, or of rows of them; None for anything else. It is read-only.

    `shape`: what becomes of a list that is flat and as long."""
    dtype = spec.datatype.dtype
    packer = _PACKERS.get(dtype.char)
    if packer is None or not value:
        return None
    numbers: Iterable[Any] = value
    count = len(value)
    if type(value[0]) is list:
        numbers = value[0]
        size = len(value[0])
        shape = (count, size)
        if count > 1:
            if set(map(type, value)) != {list} or set(map(len, value)) != {size}:
                return None
            numbers = chain.from_iterable(value)
        count *= size
    try:
        return np.ndarray(shape or (count,), dtype, packer(count)(*numbers)) if count else None
    except (struct.error, OverflowError):
        # An object or a list among the numbers, or a number out of range.
        return None


def from_block(block: bytes, spec: TensorSpec) -> Array | None:
    """The tensor that a block cut out by buffers.py says; None where only the whole body tells."""
    dtype = spec.datatype.dtype
    if dtype.kind == "f":
        doubles = buffers.numbers_in(block, "d")
        try:
            return None if doubles is None else _OVERFLOW_RAISES.run(doubles.astype, dtype, copy=False)
        except (FloatingPointError, RuntimeError):
            return None
    if dtype.kind in "iu" and spec.datatype is not _BF16:
        integers = buffers.numbers_in(block, "i")
        return None if integers is None else _plain_integers(integers, dtype)
    return None


def with_lost_dimensions(array: Array, spec: TensorSpec) -> Array:
    """`[]` cannot say what its elements would have been: an empty tensor gets the rest of the model's shape."""
    if array.size or array.ndim >= len(spec.shape):
        return array
    return array.reshape(array.shape + tuple(max(size, 0) for size in spec.shape[array.ndim :]))


def _plain_tensor(value: object, spec: TensorSpec) -> Array | None:
    """Struct's conversion or numpy's where they are exact, None where they may not be."""
    if type(value) is list and (array := packed(value, spec)) is not None:
        return array
    dtype = spec.datatype.dtype
    kind = dtype.kind
    try:
        if kind == "f":
            return _OVERFLOW_RAISES.run(np.array, value, dtype)
        if kind in "iu" and spec.datatype is not _BF16:
            return _plain_integers(np.array(value), dtype)
    except (ValueError, TypeError, OverflowError, FloatingPointError, RuntimeError):
        # Ragged, an object among numbers, too deep or out of range: the exact way finds out which. RuntimeError:
        # another thread is inside the context; the exact way needs none.
        return None
    return None


def _plain_integers(array: Array, dtype: np.dtype[Any]) -> Array | None:
    if array.dtype == dtype:
        # Numpy infers `unsigned long long` for 2**63, which is the same 64 bits by another name.
        return array if array.dtype is dtype else array.view(dtype)
    if array.dtype.kind not in "iu" or not array.size:
        return None
    limits = np.iinfo(dtype)
    if int(array.min()) < limits.min or int(array.max()) > limits.max:
        return None
    return array.astype(dtype)


def _exact_tensor(value: object, spec: TensorSpec, bits: bool) -> Array:
    shape, leaves = _flatten(value, spec)

    def place(index: int) -> str:
        return _place(index, shape)

    datatype = spec.datatype
    if datatype is Datatype.BYTES:
        array = _texts(leaves, spec, place)
    elif datatype is Datatype.BOOL:
        array = _booleans(leaves, spec, place, bits)
    elif datatype.is_integer:
        array = _integers(leaves, spec, place)
    else:
        array = _floats(leaves, spec, place)
    return array.reshape(shape)


def _flatten(value: object, spec: TensorSpec) -> tuple[tuple[int, ...], Leaves]:
    """The shape of nested lists, and their elements in row-major order; ragged lists are refused."""
    shape: tuple[int, ...] = ()
    level: Leaves = [value]
    while level and type(level[0]) is list:
        size = len(level[0])
        if len(shape) == _RANK_MAX:
            raise InvalidInput(
                f"input {spec.name!r} nests more than {_RANK_MAX} lists; the model takes {spec.describe()}"
            )
        for index, item in enumerate(level):
            if type(item) is not list or len(item) != size:
                _refuse_ragged(item, size, spec, _place(index, shape))
        shape = (*shape, size)
        level = list(chain.from_iterable(level))
    if list in set(map(type, level)):
        index = next(index for index, item in enumerate(level) if type(item) is list)
        raise InvalidInput(
            f"input {spec.name!r} has a list{_place(index, shape)} where the first element there is "
            f"{_shown(level[0])}; lists of one depth and length are accepted"
        )
    return shape, level


def _refuse_ragged(item: object, size: int, spec: TensorSpec, place: str) -> NoReturn:
    found = f"{len(item)} elements" if type(item) is list else _shown(item)
    raise InvalidInput(
        f"input {spec.name!r} is ragged: it has {found}{place} where the first list there has {size} elements; "
        "lists of one depth and length are accepted"
    )


def _texts(leaves: Leaves, spec: TensorSpec, place: Place) -> Array:
    _check_types(leaves, {str}, spec, place)
    array = np.empty(len(leaves), np.object_)
    array[:] = leaves
    return array


def _booleans(leaves: Leaves, spec: TensorSpec, place: Place, bits: bool) -> Array:
    _check_types(leaves, {bool, int} if bits else {bool}, spec, place)
    for index, leaf in enumerate(leaves):
        if leaf not in (0, 1):
            _refuse(leaf, spec, place(index))
    return np.array(leaves, np.bool_)


def _integers(leaves: Leaves, spec: TensorSpec, place: Place) -> Array:
    types = _check_types(leaves, {int, float}, spec, place)
    limits = np.iinfo(spec.datatype.dtype)
    if float in types:
        leaves = [_whole(leaf, index, spec, place) for index, leaf in enumerate(leaves)]
    if leaves and (min(leaves) < limits.min or max(leaves) > limits.max):
        index = next(i for i, leaf in enumerate(leaves) if not limits.min <= leaf <= limits.max)
        _refuse(leaves[index], spec, place(index))
    return np.array(leaves, spec.datatype.dtype)


def _whole(leaf: int | float, index: int, spec: TensorSpec, place: Place) -> int:
    """3.0 is 3; 1.5 is refused, and so is a float so large that the digits sent may have been others."""
    if type(leaf) is float and not (leaf.is_integer() and abs(leaf) <= _EXACT_INTEGER_MAX):
        _refuse(leaf, spec, place(index))
    return int(leaf)


def _floats(leaves: Leaves, spec: TensorSpec, place: Place) -> Array:
    _check_types(leaves, {int, float}, spec, place)
    doubles = np.array(leaves, np.float64)
    if spec.datatype is Datatype.BF16:
        array = _bfloat16(doubles)
        finite = (array & 0x7F80) != 0x7F80
    else:
        with np.errstate(over="ignore"):
            array = doubles.astype(spec.datatype.dtype)
        finite = np.isfinite(array)
    if not finite.all():
        index = int(np.argmin(finite))
        _refuse(leaves[index], spec, place(index))
    return array


def _bfloat16(doubles: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Array:
    """Bit patterns, rounded once to nearest even. A plain way over float32 would round twice: so that step rounds
    towards zero and keeps whether anything was lost in its last bit ("round to odd")."""
    with np.errstate(over="ignore"):
        singles = doubles.astype(np.float32)
    bits = singles.view(np.uint32)
    bits = bits - (np.abs(singles.astype(np.float64)) > np.abs(doubles))
    bits = bits | (bits.view(np.float32).astype(np.float64) != doubles)
    rounded: Array = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded


def _check_types(leaves: Leaves, accepted: set[type], spec: TensorSpec, place: Place) -> set[type]:
    types = set(map(type, leaves))
    if not types <= accepted:
        index = next(index for index, leaf in enumerate(leaves) if type(leaf) not in accepted)
        _refuse(leaves[index], spec, place(index))
    return types


def _refuse(leaf: object, spec: TensorSpec, place: str) -> NoReturn:
    raise InvalidInput(
        f"input {spec.name!r} has {_shown(leaf)}{place}; {spec.datatype.v2} takes {accepted(spec.datatype)}"
    )


def accepted(datatype: Datatype) -> str:
    """What a datatype takes, in words."""
    if datatype is Datatype.BYTES:
        return "strings"
    if datatype is Datatype.BOOL:
        return "true and false"
    if datatype.is_integer:
        limits = np.iinfo(datatype.dtype)
        return f"whole numbers from {limits.min} to {limits.max}"
    return f"numbers from -{_LARGEST[datatype]} to {_LARGEST[datatype]}"


def _shown(leaf: object) -> str:
    """The value as JSON, cut where it is long. An object goes by its kind: it may be huge."""
    if type(leaf) is dict:
        return "an object"
    text = orjson.dumps(leaf).decode() if type(leaf) is not str else f'"{leaf[: _SHOWN_MAX + 1]}"'
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


def _place(index: int, shape: tuple[int, ...]) -> str:
    """` at [3][0]` for an element's index in row-major order; nothing for a scalar."""
    if not shape:
        return ""
    return " at " + "".join(f"[{int(i)}]" for i in np.unravel_index(index, shape))

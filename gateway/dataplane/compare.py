"""Compare: how far a copy's answer is from the live one, output by output.

What: rows are taken along an output's last axis. Two rows of numbers agree where their largest entries stand at the
same place (NaN counts as the largest, of equals the first does); rows of anything else, labels among them (integers
with one entry a row), where all is equal. The difference is the largest between two entries of one place: of floating
outputs and maps (ZipMap), and of integers with several entries a row. Label numbers are names: they have none.
NaN where the other has NaN, and an infinity where the other has it too, are no difference; where only one of the two
is finite there is no number for it, and `nonfinite` says so.
Bounds: the first whole rows of each output, `BYTES_MAX` and `ROWS_MAX` over all outputs of one answer.
Shapes: an excerpt's rows are [rows, width]; a rank-1 output along the batch axis has one entry a row.
Ownership: an excerpt holds copies, so that no batch lives longer for it.
Errors: what numpy raises for arrays that are not what their signature says; the caller counts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gateway.dataplane.codecs.answers import widen_bfloat16
from gateway.telemetry.comparison import UNLIKE
from runtimes import Array, Datatype, Signature, TensorSpec

BYTES_MAX = 1 << 20
ROWS_MAX = 4096
# What is computed on the way should stay in the processor's cache, and in memory that is there already.
BLOCK_ENTRIES = 8192
# What an entry counts as at least, for a short number is compared no faster than a long one; and what a string or an
# entry of a map counts as, which the interpreter compares.
_ENTRY_BYTES = 4
OBJECT_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """The first whole rows of one output; `shape` is that of the whole."""

    spec: TensorSpec
    shape: tuple[int, ...]
    rows: Array


Excerpts = Mapping[str, Excerpt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Rows that could agree and those that did, over all outputs; the largest difference, None where no numbers were
    compared; whether a number stood against NaN or an infinity. `reason`: why not all was compared, one of UNLIKE."""

    rows: int = 0
    agreeing: int = 0
    difference: float | None = None
    nonfinite: bool = False
    reason: str = ""


def excerpts(results: Mapping[str, Array], signature: Signature) -> dict[str, Excerpt]:
    """What is kept of an answer. Small outputs come first, and what they leave is shared by the larger ones."""
    specs = [spec for spec in signature.outputs if spec.name in results]
    specs.sort(key=lambda spec: results[spec.name].nbytes)
    bytes_left, rows_left = BYTES_MAX, ROWS_MAX
    found = {}
    for shares, spec in zip(range(len(specs), 0, -1), specs, strict=True):
        array = results[spec.name]
        width = _width(spec, array)
        row_bytes = max(1, _row_bytes(spec, array, width))
        rows = min(array.size // width if width else 0, rows_left // shares, bytes_left // shares // row_bytes)
        found[spec.name] = Excerpt(spec=spec, shape=array.shape, rows=_first(array, rows, width))
        bytes_left -= rows * row_bytes
        rows_left -= rows
    return found


def compare(live: Excerpts, mirror: Excerpts) -> Comparison:
    """Every output that both answers have in one datatype and shape."""
    found: list[Comparison] = []
    reasons: list[str] = []
    for name in dict.fromkeys((*live, *mirror)):
        left, right = live.get(name), mirror.get(name)
        if left is None or right is None:
            reasons.append("names")
        elif reason := _unlike(left, right):
            reasons.append(reason)
        elif left.rows.size:
            found += _by_blocks(left, right)
    return Comparison(
        rows=sum(one.rows for one in found),
        agreeing=sum(one.agreeing for one in found),
        difference=max((one.difference for one in found if one.difference is not None), default=None),
        nonfinite=any(one.nonfinite for one in found),
        reason=min(reasons, key=UNLIKE.index, default=""),
    )


def _width(spec: TensorSpec, array: Array) -> int:
    """Entries a row."""
    if not array.ndim or (array.ndim == 1 and spec.batch_axis == 0):
        return 1
    return array.shape[-1]


def _row_bytes(spec: TensorSpec, array: Array, width: int) -> int:
    if array.dtype != np.object_:
        return width * max(array.itemsize, _ENTRY_BYTES)
    if spec.maps and array.size:
        width *= len(array.flat[0])
    return width * OBJECT_BYTES


def _first(array: Array, rows: int, width: int) -> Array:
    if array.flags.c_contiguous and width:
        return array.reshape(-1, width)[:rows].copy()
    # Copies in row-major order, and no more than that.
    return np.asarray(array.flat[: rows * width]).reshape(rows, width)


def _unlike(live: Excerpt, mirror: Excerpt) -> str:
    """Why two outputs of one name cannot be compared; "" where they can."""
    if (live.spec.datatype, live.spec.maps) != (mirror.spec.datatype, mirror.spec.maps):
        return "datatype"
    if live.shape != mirror.shape:
        return "shape"
    is_empty = 0 in live.shape
    return "" if is_empty or (len(live.rows) and len(mirror.rows)) else "too_large"


def _by_blocks(live: Excerpt, mirror: Excerpt) -> list[Comparison]:
    rows, width = min(live.rows.shape, mirror.rows.shape)
    step = max(1, BLOCK_ENTRIES // width)
    blocks = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    return [_compare(live.spec, live.rows[block], mirror.rows[block]) for block in blocks]


def _compare(spec: TensorSpec, live: Array, mirror: Array) -> Comparison:
    datatype = spec.datatype
    if spec.maps:
        return _compare_maps(live, mirror)
    if datatype.is_float:
        return _compare_numbers(_doubles(live, datatype), _doubles(mirror, datatype))
    rows, width = live.shape
    if datatype.is_integer and width > 1:
        agreeing = _count(live.argmax(axis=1) == mirror.argmax(axis=1))
        # Exact where the difference of two signed numbers is not: it fits the unsigned type of their size.
        apart = (np.maximum(live, mirror) - np.minimum(live, mirror)).view(f"u{live.itemsize}")
        return Comparison(rows=rows, agreeing=agreeing, difference=float(apart.max()))
    return Comparison(rows=rows, agreeing=_count((live == mirror).all(axis=1)))


def _compare_maps(live: Array, mirror: Array) -> Comparison:
    """Maps of numbers by the same names are rows of numbers; other maps agree where they are equal."""
    names = list(live[0, 0])
    numbers = [_numbers(maps, names) for maps in (live, mirror)]
    if numbers[0] is not None and numbers[1] is not None:
        return _compare_numbers(numbers[0], numbers[1])
    return Comparison(rows=len(live), agreeing=_count((live == mirror).all(axis=1)))


def _numbers(maps: Array, names: list[object]) -> Array | None:
    """[rows, names]; None where a map has other names, or values that are no numbers."""
    rows = list(maps.ravel())
    if not names or any(len(row) != len(names) for row in rows):
        return None
    try:
        return np.array([[row[name] for name in names] for row in rows], np.float64)
    except (KeyError, ValueError, TypeError):
        return None


def _compare_numbers(live: Array, mirror: Array) -> Comparison:
    """Two arrays of doubles."""
    rows, width = live.shape
    agreeing = 0
    if width > 1:
        agreeing = _count(live.argmax(axis=1) == mirror.argmax(axis=1))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(live - mirror)
    largest = float(apart.max())
    nonfinite = False
    if not np.isfinite(largest):
        apart[(live == mirror) | (np.isnan(live) & np.isnan(mirror))] = 0.0
        is_finite = np.isfinite(apart)
        nonfinite = not is_finite.all()
        largest = float(apart[is_finite].max(initial=0.0))
    return Comparison(rows=rows if width > 1 else 0, agreeing=agreeing, difference=largest, nonfinite=nonfinite)


def _doubles(array: Array, datatype: Datatype) -> Array:
    if datatype is Datatype.BF16:
        array = widen_bfloat16(array)
    return array.astype(np.float64, copy=False)


def _count(mask: Array) -> int:
    return int(np.count_nonzero(mask))

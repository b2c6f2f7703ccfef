"""Generated sample inputs for a model that nobody described: for the batching proof and for warm-up.

A Recipe says how one row looks: a size for every free dimension, and how tame its values are. `recipes` lists the
likely ones first; `find` returns the first with which the model runs. Dimensions with one symbol get one size.
Level 0 has integers below 100 and words, level 1 integers 0 and 1 and digits, level 2 zeros: models look their
integers up in tables of unknown size. Everything is seeded, so a proof can be repeated.
Errors: none; a session's ModelFailed means that a recipe does not suit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from runtimes.clock import now_ns
from runtimes.errors import ModelFailed
from runtimes.session import Session
from runtimes.signature import Signature, TensorSpec
from runtimes.tensor import Array, Datatype, Tensors

# Sizes that models are made for: small ones that most accept, then text lengths, audio frames and image sides.
_SIZES = (32, 64, 16, 8, 4, 3, 2, 1, 48, 128, 192, 224, 256, 320, 384, 416, 512, 576, 640)
_SIZE_MAX = 1024
_PAIRED_SIZES = (48, 192, 32, 64, 128, 224, 256, 320, 8, 3, 1)
_ELEMENTS_MAX = 4_000_000
_SIZES_TRIED_MAX = 2000
_INTEGERS_BELOW = (100, 2, 1)
_WORDS = ("word", "Two words", "é", "", "7", "true", "x" * 40, "-1.5")
_DIGITS = ("0", "1")
_EXTREME = 1000.0


class Kind(Enum):
    """What a row is for: plain rows are compared; the others are batch-mates meant to disturb them."""

    PLAIN = "plain"
    EXTREME = "extreme"
    NAN = "nan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """`shapes` by input name, of one row (size 1 along the batch axis)."""

    shapes: Mapping[str, tuple[int, ...]]
    level: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Rows to be compared and rows to disturb them; each is a whole request of one row."""

    rows: tuple[Tensors, ...]
    mates: tuple[Tensors, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A recipe the model runs with, or None and what it said last."""

    recipe: Recipe | None
    tried: int
    fault: str = ""


def find(session: Session, signature: Signature, *, deadline_ns: int, now: Callable[[], int] = now_ns) -> Found:
    """The first recipe that runs, within the deadline (looked at between runs)."""
    fault, tried = "", 0
    for recipe in recipes(signature):
        if tried and now() > deadline_ns:
            break
        tried += 1
        try:
            session.run(row(signature, recipe, 0), None)
        except ModelFailed as failure:
            fault = str(failure)
        else:
            return Found(recipe=recipe, tried=tried)
    return Found(recipe=None, tried=tried, fault=fault)


def recipes(signature: Signature) -> Iterator[Recipe]:
    """The recipes worth trying, likely ones first, bounded in number."""
    free = unknowns(signature)
    levels = range(len(_INTEGERS_BELOW)) if any(_has_levels(spec) for spec in signature.inputs) else range(1)
    for sizes in itertools.islice(_assignments(len(free)), _SIZES_TRIED_MAX):
        shapes = _shapes(signature, dict(zip(free, sizes, strict=True)))
        if all(math.prod(shape) <= _ELEMENTS_MAX for shape in shapes.values()):
            for level in levels:
                yield Recipe(shapes=shapes, level=level)


def draw(signature: Signature, recipe: Recipe, count: int = 8) -> Samples:
    """`count` distinct rows, and mates of extreme values and of NaN."""
    return Samples(
        rows=tuple(row(signature, recipe, seed) for seed in range(count)),
        mates=(
            row(signature, recipe, 100, Kind.EXTREME),
            row(signature, recipe, 101, Kind.EXTREME),
            row(signature, recipe, 102, Kind.NAN),
        ),
    )


def row(signature: Signature, recipe: Recipe, seed: int, kind: Kind = Kind.PLAIN) -> dict[str, Array]:
    """One row. Inputs without a batch axis have the same value in every row, whatever the seed and kind."""
    result = {}
    for place, spec in enumerate(signature.inputs):
        shared = spec.batch_axis is None
        chance = np.random.default_rng((place, 0 if shared else seed + 1))
        values = _values(spec.datatype, recipe.shapes[spec.name], recipe.level, chance)
        result[spec.name] = values if shared else _disturbed(values, spec.datatype, recipe.level, kind)
    return result


def together(signature: Signature, rows: Sequence[Tensors]) -> dict[str, Array]:
    """The rows as one batch; inputs without a batch axis are taken from the first."""
    batch = {}
    for spec in signature.inputs:
        first = rows[0][spec.name]
        axis = spec.batch_axis
        batch[spec.name] = first if axis is None else np.concatenate([part[spec.name] for part in rows], axis)
    return batch


def unknowns(signature: Signature) -> list[Hashable]:
    """Each free dimension beside the batch axes: its symbol, or its place where it has none."""
    places = [
        _unknown(spec, axis)
        for spec in signature.inputs
        for axis, size in enumerate(spec.shape)
        if size == -1 and axis != spec.batch_axis
    ]
    return list(dict.fromkeys(places))


def _unknown(spec: TensorSpec, axis: int) -> Hashable:
    return spec.symbols[axis] or (spec.name, axis) if spec.symbols else (spec.name, axis)


def _assignments(count: int) -> Iterator[tuple[int, ...]]:
    if count == 0:
        yield ()
        return
    rest = [size for size in range(1, _SIZE_MAX + 1 if count == 1 else 129) if size not in _SIZES]
    equal = [(size,) * count for size in _SIZES]
    yield from equal
    if count > 1:
        yield from (sizes for sizes in itertools.product(_PAIRED_SIZES, repeat=count) if len(set(sizes)) > 1)
    yield from ((size,) * count for size in rest)


def _shapes(signature: Signature, sizes: Mapping[Hashable, int]) -> dict[str, tuple[int, ...]]:
    return {
        spec.name: tuple(
            size if size != -1 else 1 if axis == spec.batch_axis else sizes[_unknown(spec, axis)]
            for axis, size in enumerate(spec.shape)
        )
        for spec in signature.inputs
    }


def _has_levels(spec: TensorSpec) -> bool:
    return spec.datatype.is_integer or spec.datatype is Datatype.BYTES


def _values(datatype: Datatype, shape: tuple[int, ...], level: int, chance: np.random.Generator) -> Array:
    if datatype.is_float:
        return _floats(datatype, chance.standard_normal(shape, dtype=np.float32))
    if datatype is Datatype.BYTES:
        texts = (_WORDS, _DIGITS, _DIGITS[:1])[level]
        return np.asarray(np.array(texts, dtype=np.object_)[chance.integers(0, len(texts), shape)], dtype=np.object_)
    below = 2 if datatype is Datatype.BOOL else _INTEGERS_BELOW[level]
    return np.asarray(chance.integers(0, below, shape)).astype(datatype.dtype)


def _disturbed(values: Array, datatype: Datatype, level: int, kind: Kind) -> Array:
    if kind is Kind.PLAIN or datatype in (Datatype.BYTES, Datatype.BOOL):
        return values
    if not datatype.is_float:
        # The largest value the model is known to take.
        return np.full_like(values, _INTEGERS_BELOW[level] - 1)
    if kind is Kind.NAN:
        return _floats(datatype, np.full(values.shape, np.nan, np.float32))
    return _floats(datatype, np.sign(to_float(values, datatype)) * _EXTREME)


def signed(values: Array, datatype: Datatype, sign: int) -> Array:
    """The same floats, all positive (1) or all negative (-1)."""
    return _floats(datatype, sign * np.abs(to_float(values, datatype)))


def to_float(array: Array, datatype: Datatype) -> Array:
    """Floats as numpy can reckon with them: BF16 bit patterns become float32."""
    if datatype is Datatype.BF16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _floats(datatype: Datatype, values: Array) -> Array:
    if datatype is Datatype.BF16:
        return (np.asarray(values, dtype=np.float32, order="C").view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(datatype.dtype)

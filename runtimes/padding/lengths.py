"""Padding as plain data: which axes of which inputs grow to which length, and how the outputs follow.

Why: requests of different lengths share a run only if they are made equally long; this says how long, and how much
of each output is then the request's own. It is what a proof has found to be safe; it travels between processes.
Words: a *length* is a size that changes from request to request and that one or more inputs share ("sequence").
Units: sizes in entries along an axis. A size of 0 is never padded.
Errors: InvalidInput when inputs that share a length differ in it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtimes.errors import InvalidInput
from runtimes.tensor import Datatype, Tensors

# Without buckets or a multiple, lengths share a run with those up to this, 3/2 of it, twice it, and so on: at most a
# third of such a run is padding, and the shapes stay few.
_SMALLEST_BUCKET = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """One length and its buckets: a list of them, multiples of a number, or, where neither is given, our own steps.

    Lengths below `shortest`, and those whose bucket lies above `longest` (0: no bound), are never padded: they share
    runs with their equals only.
    """

    name: str
    multiple_of: int = 0
    buckets: tuple[int, ...] = ()
    shortest: int = 1
    longest: int = 0

    def bucket(self, size: int) -> int:
        """The length up to which a request of this size may be padded; its own where it may not."""
        if size < self.shortest:
            return size
        if self.buckets:
            place = bisect_left(self.buckets, size)
            bucket = self.buckets[place] if place < len(self.buckets) else size
        elif self.multiple_of:
            bucket = -(-size // self.multiple_of) * self.multiple_of
        else:
            bucket = _step_above(size)
        return size if self.longest and bucket > self.longest else bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedInput:
    """An input that grows along `axis` with the length of that place in `Padding.lengths`, by entries of `value`."""

    axis: int
    length: int
    value: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Follows:
    """An output's axis that follows a length: it has `times * ((size + offset) // step) + plus` entries."""

    axis: int
    length: int
    times: int = 1
    step: int = 1
    offset: int = 0
    plus: int = 0

    def size(self, size: int) -> int:
        return max(0, self.times * ((size + self.offset) // self.step) + self.plus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Padding:
    """How requests of one model are made equally long, by input and output name.

    `to_bucket`: a run is always as long as its bucket, so that a device sees few shapes; else only as long as its
    longest request.
    """

    lengths: tuple[Length, ...]
    inputs: dict[str, PaddedInput]
    outputs: dict[str, tuple[Follows, ...]] = field(default_factory=dict)
    to_bucket: bool = False

    def sizes(self, inputs: Tensors) -> tuple[int, ...]:
        """A request's own lengths. Errors: InvalidInput."""
        sizes = [-1] * len(self.lengths)
        for name, padded in self.inputs.items():
            size, place = inputs[name].shape[padded.axis], padded.length
            if sizes[place] not in (-1, size):
                self._refuse(name, size, place, sizes[place])
            sizes[place] = size
        return tuple(sizes)

    def buckets(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The lengths up to which such a request may be padded: what requests that share a run have in common."""
        return tuple([length.bucket(size) for length, size in zip(self.lengths, sizes, strict=True)])

    def apart(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """An input's shape with 0 in place of its length: what requests that share a run have in common besides."""
        padded = self.inputs.get(name)
        return shape if padded is None else (*shape[: padded.axis], 0, *shape[padded.axis + 1 :])

    def _refuse(self, name: str, size: int, place: int, other: int) -> None:
        first = next(name for name, padded in self.inputs.items() if padded.length == place)
        raise InvalidInput(
            f"input {name!r} has {size} entries along axis {self.inputs[name].axis}, input {first!r} has {other}; "
            f"inputs that share a length ({self.lengths[place].name!r}) have the same number"
        )


def element(value: float, datatype: Datatype) -> Any:
    """The number as an element of a tensor; BYTES are padded with empty strings."""
    if datatype is Datatype.BYTES:
        return ""
    if datatype is Datatype.BF16:
        return np.uint16(np.array(value, np.float32).view(np.uint32) >> 16)
    return datatype.dtype.type(value)


def _step_above(size: int) -> int:
    if size <= _SMALLEST_BUCKET:
        return _SMALLEST_BUCKET if size else 0
    above = 1 << (size - 1).bit_length()
    return above * 3 // 4 if size <= above * 3 // 4 else above

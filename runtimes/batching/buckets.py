"""Items of different lengths to one batch of one shape, and its outputs back, each cut to its item's own size.

Why: `Collator` joins what is equally long; this one makes it so. Inputs grow at the end of their axis with the value
that was declared, outputs are cut to the entries they would have had alone, and rows are filled up with copies of the
last one to a size that the model is run with.
Ownership: as in collate.py. An item alone whose shape is already right brings its own arrays, uncopied.
Errors: ModelFailed when an output is not as long as was proven, for then nobody knows which entries are whose.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from runtimes.batching.collate import Collator
from runtimes.batching.item import WorkItem
from runtimes.errors import ModelFailed
from runtimes.padding.lengths import Padding, element
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import BatchLimits
from runtimes.tensor import Array, Tensors

_NO_PADDING = Padding(lengths=(), inputs={})


def collator_for(signature: Signature, limits: BatchLimits) -> Collator:
    """The plain one wherever nothing is padded, so that nobody pays for what only some need."""
    if signature.batched and (signature.padding is not None or limits.sizes):
        return PaddingCollator(signature, limits)
    return Collator(signature)


def within(limits: BatchLimits) -> BatchLimits:
    """The limits with a batch that is never filled beyond the largest size that the model is run with."""
    sizes = _allowed(limits)
    return replace(limits, batch_rows_max=sizes[-1]) if sizes else limits


def _allowed(limits: BatchLimits) -> tuple[int, ...]:
    """Sizes above the limit are never run; a limit below all of them leaves the smallest."""
    sizes = tuple(sorted(limits.sizes))
    return tuple(size for size in sizes if size <= limits.batch_rows_max) or sizes[:1]


class PaddingCollator(Collator):
    """A signature's padding and a deployment's batch sizes, applied."""

    __slots__ = ("_marks", "_padding", "_rows_max", "_signature", "_sizes", "_tokens_max")

    def __init__(self, signature: Signature, limits: BatchLimits) -> None:
        super().__init__(signature)
        self._padding = signature.padding or _NO_PADDING
        self._signature = signature
        # For each length an input that has it.
        marks = {padded.length: (name, padded.axis) for name, padded in self._padding.inputs.items()}
        self._marks = tuple(marks[place] for place in range(len(self._padding.lengths)))
        self._sizes = _allowed(limits)
        self._rows_max = within(limits).batch_rows_max
        self._tokens_max = limits.tokens_max if self._padding.lengths else 0

    def rows_max(self, key: Hashable) -> int:
        """The most rows of a run of this key. One row is run however long it is."""
        tokens = sum(self._signature.buckets_in(key)) if self._tokens_max else 0
        if not tokens:
            return self._rows_max
        rows = min(self._rows_max, max(1, self._tokens_max // tokens))
        below = bisect_right(self._sizes, rows)
        return self._sizes[max(0, below - 1)] if self._sizes else rows

    def join(self, items: Sequence[WorkItem]) -> Tensors:
        first = items[0].inputs
        lengths, rows = self._lengths(items), sum([item.rows for item in items])
        target, size = self._target(lengths), self._size(rows)
        if len(items) == 1 and size == rows and lengths[0] == target:
            return first
        return {
            spec.name: first[spec.name]
            if spec.batch_axis is None
            else self._joined(spec, spec.batch_axis, items, lengths, target, size)
            for spec in self._signature.inputs
        }

    def part(self, outputs: Mapping[str, Array], items: Sequence[WorkItem]) -> list[dict[str, Array]]:
        lengths, rows = self._lengths(items), [item.rows for item in items]
        target, total = self._target(lengths), sum(rows)
        size = self._size(total)
        is_padded = any(own != target for own in lengths)
        if not is_padded and size == total:
            return super().part(outputs, items)
        if not isinstance(outputs, dict):
            raise ModelFailed(f"the model returned {type(outputs).__name__}; a dict of arrays is expected")
        results: list[dict[str, Array]] = [{} for _ in items]
        for name, array in outputs.items():
            axis = self._checked_axis(name, array, size)
            cut = [slice(None)] * array.ndim
            follows = self._padding.outputs.get(name, ()) if is_padded else ()
            for one in follows:
                self._check_length(name, array, one.axis, one.size(target[one.length]))
            start = 0
            for result, own, count in zip(results, lengths, rows, strict=True):
                cut[axis] = slice(start, start + count)
                for one in follows:
                    cut[one.axis] = slice(0, one.size(own[one.length]))
                result[name] = array[tuple(cut)]
                start += count
        return results

    def positions(self, items: Sequence[WorkItem]) -> tuple[int, int]:
        """What a run of these items computes, in rows times padded lengths, and how much of that is padding."""
        lengths = self._lengths(items)
        size, target = self._size(sum([item.rows for item in items])), self._target(lengths)
        computed = size * (sum(target) or 1)
        own = sum([item.rows * (sum(length) or 1) for item, length in zip(items, lengths, strict=True)])
        return computed, computed - own

    def _lengths(self, items: Sequence[WorkItem]) -> list[tuple[int, ...]]:
        """Each item's own lengths; that its inputs agree in them was checked when its key was made."""
        if len(self._marks) == 1:
            name, axis = self._marks[0]
            return [(item.inputs[name].shape[axis],) for item in items]
        return [tuple([item.inputs[name].shape[axis] for name, axis in self._marks]) for item in items]

    def _target(self, lengths: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        if self._padding.to_bucket:
            # All of a batch have the same buckets: their key says so.
            return self._padding.buckets(lengths[0])
        return lengths[0] if len(lengths) == 1 else tuple(map(max, zip(*lengths, strict=True)))

    def _size(self, rows: int) -> int:
        """The number of rows to run with. A request of no rows stays one, and so does what is larger than allowed."""
        sizes = self._sizes
        if not sizes or not 0 < rows <= sizes[-1]:
            return rows
        return sizes[bisect_left(sizes, rows)]

    def _joined(
        self,
        spec: TensorSpec,
        axis: int,
        items: Sequence[WorkItem],
        lengths: Sequence[tuple[int, ...]],
        target: tuple[int, ...],
        size: int,
    ) -> Array:
        first = items[0].inputs[spec.name]
        shape = list(first.shape)
        shape[axis] = size
        padded = self._padding.inputs.get(spec.name)
        if padded is not None:
            shape[padded.axis] = target[padded.length]
        if padded is None:
            batch: Array = np.empty(shape, first.dtype)
        else:
            batch = np.full(shape, element(padded.value, spec.datatype), first.dtype)
        start = 0
        place: list[slice] = [slice(None)] * first.ndim
        for item, own in zip(items, lengths, strict=True):
            stop = start + item.rows
            place[axis] = slice(start, stop)
            if padded is not None:
                place[padded.axis] = slice(0, own[padded.length])
            batch[tuple(place)] = item.inputs[spec.name]
            start = stop
        if 0 < start < size:
            rows_first = np.moveaxis(batch, axis, 0)
            rows_first[start:] = rows_first[start - 1]
        return batch

    def _check_length(self, name: str, array: Array, axis: int, size: int) -> None:
        if array.ndim <= axis or array.shape[axis] != size:
            raise ModelFailed(
                f"output {name!r} has shape {list(array.shape)} in a padded run; "
                f"{size} entries are expected along axis {axis}"
            )

"""Items to one batch, and a batch's outputs back to its items, by rows along each tensor's batch axis.

Why: a wrong row is the worst answer there is, so this is small, pure and checks that every row went home.
Shapes: every input and output has its own batch axis; an input without one is the same for all items of a batch
(the batch key says so) and is taken from the first.
Ownership: an item alone brings its own arrays to the session, uncopied, and gets the session's arrays as they are.
Shared outputs are handed back as views; each view keeps the whole batch's array alive, so a receiver that stores
a result copies it.
Errors: ModelFailed when an output does not have exactly the rows of its batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from runtimes.batching.item import WorkItem
from runtimes.errors import ModelFailed
from runtimes.signature import Signature
from runtimes.tensor import Array, Tensors


class Collator:
    """The batch axes of one signature, applied."""

    __slots__ = ("_inputs", "_outputs")

    def __init__(self, signature: Signature) -> None:
        self._inputs = tuple((spec.name, spec.batch_axis) for spec in signature.inputs)
        self._outputs = {spec.name: spec.batch_axis for spec in signature.outputs}

    def join(self, items: Sequence[WorkItem]) -> Tensors:
        """The inputs of all items as one, in the items' order."""
        first = items[0].inputs
        if len(items) == 1:
            return first
        return {
            name: first[name] if axis is None else np.concatenate([item.inputs[name] for item in items], axis=axis)
            for name, axis in self._inputs
        }

    def part(self, outputs: Mapping[str, Array], items: Sequence[WorkItem]) -> list[dict[str, Array]]:
        """Each item's own rows, in the items' order; an item alone gets all there is."""
        if not isinstance(outputs, dict):
            raise ModelFailed(f"the model returned {type(outputs).__name__}; a dict of arrays is expected")
        if len(items) == 1:
            return [outputs]
        rows = [item.rows for item in items]
        total = sum(rows)
        results: list[dict[str, Array]] = [{} for _ in items]
        for name, array in outputs.items():
            axis = self._checked_axis(name, array, total)
            before = (slice(None),) * axis
            start = 0
            for result, size in zip(results, rows, strict=True):
                stop = start + size
                # The plain slice is a third cheaper than the tuple of slices, and nearly always the one.
                result[name] = array[start:stop] if axis == 0 else array[(*before, slice(start, stop))]
                start = stop
        return results

    def cut(self, inputs: Tensors, start: int, stop: int) -> Tensors:
        """The rows from start to stop of a request's inputs, as views."""
        return {
            name: inputs[name] if axis is None else inputs[name][(*(slice(None),) * axis, slice(start, stop))]
            for name, axis in self._inputs
        }

    def assemble(self, parts: Sequence[Mapping[str, Array]], rows: Sequence[int]) -> dict[str, Array]:
        """A request's results from those of its parts, in order; `rows` are the parts' own."""
        results: dict[str, Array] = {}
        for name in parts[0]:
            arrays = [part[name] for part in parts]
            axes = [self._checked_axis(name, array, size) for array, size in zip(arrays, rows, strict=True)]
            results[name] = np.concatenate(arrays, axis=axes[0])
        return results

    def _checked_axis(self, name: str, array: Array, rows: int) -> int:
        axis = self._outputs.get(name)
        if axis is None:
            raise ModelFailed(f"output {name!r} has no batch axis, so it cannot be shared out to {rows} rows")
        if array.ndim <= axis or array.shape[axis] != rows:
            raise ModelFailed(
                f"output {name!r} has shape {list(array.shape)} for a batch of {rows} rows; "
                f"{rows} are expected along axis {axis}"
            )
        return axis

"""The proof that batching does not change a model's answers: each row alone equals the same row in a batch.

Why: a stranger's model may average over the batch, scale by its largest value, or drop rows; such a model is served
one request at a time, and says why.
How: each output's batch axis is the one that has as many entries as there are rows, for 1, 2 and 3 rows. Then rows
are run in batches of several sizes, in other places and beside extreme and NaN rows, and compared with the answers
they got alone: integers, strings and booleans exactly, floats within a tolerance of the answer's magnitude, for a
matrix product of many rows adds up in another order than that of one.
What it cannot show: branches of the model that no sample reaches.
Errors: none; what goes wrong is the reason for not batching.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtimes.clock import now_ns
from runtimes.errors import ModelFailed
from runtimes.samples import Samples, to_float, together
from runtimes.session import Session
from runtimes.signature import Signature, TensorSpec
from runtimes.tensor import Array, Datatype, Tensors

# Relative to the largest magnitude in the row's answer, and absolute.
_TOLERANCE: Mapping[Datatype, tuple[float, float]] = {
    Datatype.FP64: (1e-9, 1e-14),
    Datatype.FP32: (1e-4, 1e-6),
    Datatype.FP16: (1e-2, 1e-2),
    Datatype.BF16: (5e-2, 5e-2),
}
_MAP_TOLERANCE = _TOLERANCE[Datatype.FP32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The verdict and its reason, one sentence; the axes by name where `batched`."""

    batched: bool
    reason: str
    input_axes: dict[str, int] = field(default_factory=dict)
    output_axes: dict[str, int] = field(default_factory=dict)


class _Disproved(Exception):
    """Batching is not shown to be safe; `str` is the reason."""


def no_batch_axis(signature: Signature) -> str | None:
    """Why the signature alone rules batching out, if it does."""
    batched = [spec for spec in signature.inputs if spec.batch_axis is not None]
    if not batched:
        inputs = ", ".join(f"{spec.name!r} ({spec.describe()})" for spec in signature.inputs) or "none"
        return f"no input has a free dimension along which rows could be counted; the inputs are {inputs}"
    symbols = {spec.symbols[spec.batch_axis] for spec in batched if spec.symbols and spec.batch_axis is not None}
    for spec in signature.inputs:
        for axis, symbol in enumerate(spec.symbols):
            if axis != spec.batch_axis and symbol is not None and symbol in symbols:
                return f"axis {axis} of input {spec.name!r} must be as long as there are rows ({symbol!r})"
    return None


def prove(
    session: Session,
    signature: Signature,
    samples: Samples,
    *,
    deadline_ns: int,
    now: Callable[[], int] = now_ns,
) -> Proof:
    """Try to disprove that the rows are independent. The deadline is looked at between runs."""
    try:
        return _Trial(session, signature, samples, deadline_ns, now).run()
    except _Disproved as why:
        return Proof(batched=False, reason=str(why))


class _Trial:
    """One proof under way: the rows, their answers alone, and the output axes once they are known."""

    def __init__(
        self, session: Session, signature: Signature, samples: Samples, deadline_ns: int, now: Callable[[], int]
    ) -> None:
        self._session = session
        self._signature = signature
        self._rows = [samples.rows[place % len(samples.rows)] for place in range(max(3, len(samples.rows)))]
        self._mates = samples.mates
        self._deadline_ns = deadline_ns
        self._now = now
        self._alone: list[dict[str, Array]] = []
        self._axes: dict[str, int] = {}

    def run(self) -> Proof:
        reason = no_batch_axis(self._signature)
        if reason is not None:
            raise _Disproved(reason)
        self._learn_alone(3)
        self._check_repeatable()
        self._find_axes()
        self._check_mates()
        rows = self._check_larger()
        inputs = {spec.name: spec.batch_axis for spec in self._signature.inputs if spec.batch_axis is not None}
        reason = f"each of {rows} sample rows got the same answer alone and beside other rows"
        return Proof(batched=True, reason=reason, input_axes=inputs, output_axes=self._axes)

    def _learn_alone(self, count: int) -> None:
        for row in self._rows[len(self._alone) : count]:
            try:
                self._alone.append(self._timed_run(row))
            except ModelFailed as fault:
                raise _Disproved(f"a sample of one row failed: {fault}") from fault

    def _check_repeatable(self) -> None:
        again = self._together([0])
        for spec in self._signature.outputs:
            if not same(self._alone[0][spec.name], again[spec.name], spec.datatype):
                raise _Disproved(f"output {spec.name!r} of the same row differs from run to run")

    def _find_axes(self) -> None:
        """Runs 1, 2 and 3 rows; every output must have one axis with as many entries."""
        results = [self._alone[0], self._together([0, 1]), self._together([0, 1, 2])]
        for spec in self._signature.outputs:
            self._axes[spec.name] = _row_axis(spec.name, [result[spec.name].shape for result in results])
        self._compare(results[1], [0, 1])
        self._compare(results[2], [0, 1, 2])

    def _check_mates(self) -> None:
        """The first rows between extreme mates. A mate may make the whole run fail: then the batcher will find it
        alone, and nobody gets a wrong answer."""
        for mate in self._mates:
            order: list[int | None] = [None, 1, None, 0, 2]
            batch = [mate if place is None else self._rows[place] for place in order]
            try:
                result = self._timed_run(together(self._signature, batch))
            except ModelFailed:
                continue
            self._compare(result, order)

    def _check_larger(self) -> int:
        """All rows in one batch, backwards; left out for a model too slow for it. Returns the rows compared."""
        took_ns = -self._now()
        self._together([0])
        took_ns += self._now()
        count = len(self._rows)
        if self._now() + 2 * count * took_ns > self._deadline_ns:
            return 3
        self._learn_alone(count)
        places = list(reversed(range(count)))
        self._compare(self._together(places), places)
        return count

    def _together(self, places: Sequence[int]) -> dict[str, Array]:
        try:
            return self._timed_run(together(self._signature, [self._rows[place] for place in places]))
        except ModelFailed as fault:
            raise _Disproved(
                f"a run of {len(places)} rows fails where each row alone is answered: {fault}"
            ) from fault

    def _timed_run(self, inputs: Tensors) -> dict[str, Array]:
        if self._now() > self._deadline_ns:
            raise _Disproved("the model is too slow for a proof within the time that loading allows")
        return self._session.run(inputs, None)

    def _compare(self, result: Mapping[str, Array], order: Sequence[int | None]) -> None:
        """`order` tells which row stands where; None for a mate, which is not compared."""
        for spec in self._signature.outputs:
            axis, array = self._axes[spec.name], result[spec.name]
            if array.ndim <= axis or array.shape[axis] != len(order):
                raise _Disproved(_wrong_size(spec.name, array.shape, len(order)))
            for place, row in enumerate(order):
                if row is not None:
                    self._compare_row(spec, np.take(array, [place], axis), self._alone[row][spec.name])

    def _compare_row(self, spec: TensorSpec, in_batch: Array, alone: Array) -> None:
        if not same(alone, in_batch, spec.datatype):
            raise _Disproved(f"output {spec.name!r} of a row changes with the other rows of its batch")


def _row_axis(name: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """The axis that has 1, 2 and 3 entries in the shapes of 1, 2 and 3 rows."""
    for axis in range(min(len(shape) for shape in shapes)):
        if all(shape[axis] == rows for rows, shape in enumerate(shapes, start=1)):
            return axis
    raise _Disproved(_wrong_size(name, shapes[1], 2))


def _wrong_size(name: str, shape: tuple[int, ...], rows: int) -> str:
    return f"output {name!r} has shape {list(shape)} for {rows} rows of input, not one entry a row"


def same(left: Array, right: Array, datatype: Datatype) -> bool:
    """Equal in shape and, within the datatype's tolerance, in value; NaN equals NaN."""
    if left.shape != right.shape:
        return False
    if datatype.is_float:
        return _close(to_float(left, datatype), to_float(right, datatype), *_TOLERANCE[datatype])
    if datatype is Datatype.BYTES:
        return all(map(_same_element, left.ravel(), right.ravel()))
    return bool(np.array_equal(left, right))


def _close(left: Array, right: Array, relative: float, absolute: float) -> bool:
    left, right = left.astype(np.float64), right.astype(np.float64)
    finite = np.isfinite(left)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return False
    magnitude = float(np.max(np.abs(left[finite]), initial=0.0))
    return bool(np.all(np.abs(left[finite] - right[finite]) <= absolute + relative * magnitude))


def _same_element(left: Any, right: Any) -> bool:
    """Two strings, or two maps of a ZipMap."""
    if not isinstance(left, dict) or not isinstance(right, dict):
        return bool(left == right)
    if left.keys() != right.keys():
        return False
    values = [np.asarray([each[key] for key in left]) for each in (left, right)]
    if values[0].dtype.kind == "f":
        return _close(values[0], values[1], *_MAP_TOLERANCE)
    return bool(np.array_equal(values[0], values[1]))

"""A session with a seed: exact, and on request slow, failing, hanging or dependent on its batch.

Why: the batcher's tests need a model whose right answer is known for every row, and whose bad days come on cue.
Shapes: input x FP32 [rows, n] gives y FP32 [rows]: `scale * sum(x[row]) + offset`, exact while x holds small
integers, with scale and offset from the seed.
Units: *_ns nanoseconds, handed to `pause`, which sleeps, waits or moves a virtual clock.
Errors: ModelFailed for a poisoned row.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runtimes.errors import ModelFailed
from runtimes.signature import Signature, TensorSpec
from runtimes.tensor import Array, Datatype, Tensors


def simulated_signature(*, batched: bool = True) -> Signature:
    return Signature(
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, -1), batch_axis=0),),
        outputs=(TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1,), batch_axis=0),),
        batched=batched,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a simulated session does beside its sum. A row is poisoned, or hangs, if it holds that value."""

    run_ns: int = 0
    row_ns: int = 0
    poison: float | None = None
    hang_on: float | None = None
    # Adds the batch's mean to each row: a model that must not be batched.
    mixes_rows: bool = False
    # Returns a row less than it was given whenever it is given more than one.
    loses_rows: bool = False


def _no_pause(_: int) -> None:
    """Takes no time."""


def _no_hang() -> None:
    """Goes on at once."""


class SimulatedSession:
    """`pause(ns)` makes a run take time; `hang()` is called for a row that hangs, and may never return."""

    def __init__(
        self,
        seed: int = 0,
        behaviour: Behaviour | None = None,
        *,
        pause: Callable[[int], None] = _no_pause,
        hang: Callable[[], None] = _no_hang,
        batched: bool = True,
    ) -> None:
        chance = random.Random(seed)
        self.scale = chance.randint(1, 9)
        self.offset = chance.randint(-9, 9)
        self.is_closed = False
        self._behaviour = behaviour or Behaviour()
        self._pause = pause
        self._hang = hang
        self._signature = simulated_signature(batched=batched)

    @property
    def signature(self) -> Signature:
        return self._signature

    @property
    def provider(self) -> str:
        return "simulated"

    def answer(self, x: Array) -> Array:
        """What `run` gives for these rows on a good day."""
        return np.asarray(x.sum(axis=1) * self.scale + self.offset, dtype=np.float32)

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        x = inputs["x"]
        behaviour = self._behaviour
        self._pause(behaviour.run_ns + behaviour.row_ns * len(x))
        if behaviour.hang_on is not None and (x == behaviour.hang_on).any():
            self._hang()
        if behaviour.poison is not None and (x == behaviour.poison).any():
            raise ModelFailed("the simulated model met a poisoned row; it takes any other")
        y = self.answer(x)
        if behaviour.mixes_rows and len(y):
            y = y + y.mean(dtype=np.float32)
        if behaviour.loses_rows and len(y) > 1:
            y = y[:-1]
        return {"y": y} if outputs is None or "y" in outputs else {}

    def close(self) -> None:
        self.is_closed = True

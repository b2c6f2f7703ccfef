"""What the micro benchmarks share: the demo's models, and an event loop's turns without the loop."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from runtimes import Array, RuntimeSpec, now_ns
from runtimes.loader import OpenModel, open_model
from runtimes.signature import Signature, TensorSpec
from runtimes.tensor import Datatype

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
SEED = 0


class NeverDue:
    """A timer for what ends long before it."""

    def cancel(self) -> None:
        """Nothing was started."""


class Turns:
    """A scheduler whose turns the benchmark takes itself; timers never come due."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def now_ns(self) -> int:
        return now_ns()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._waiting.append(callback)

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> NeverDue:
        return NeverDue()

    def call_from_thread(self, callback: Callable[[], None]) -> None:
        self._waiting.append(callback)

    def run(self) -> None:
        """Turn after turn, until nobody waits."""
        while self._waiting:
            self._waiting.popleft()()


def open_digits(deployment: str) -> OpenModel:
    path = DIGITS / deployment / "model.onnx"
    return open_model(RuntimeSpec(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest()))


def rows(count: int, features: int) -> Array:
    return np.random.default_rng(SEED).standard_normal((count, features)).astype(np.float32)


def dense_signature(features: int, classes: int) -> Signature:
    """A model with one input `x` and one output `y`, both with rows along the first axis."""
    return Signature(
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, features), batch_axis=0),),
        outputs=(TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1, classes), batch_axis=0),),
        batched=True,
    )

"""The counterpart of every figure: onnxruntime alone, one thread, in the measuring process.

Units: *_us microseconds; `rate` rows a second.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import numpy as np
import onnxruntime

from bench.load.models import Served

BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BareOne:
    p50_us: float
    p99_us: float


class Bare:
    """One session with one thread, which is what one core can do."""

    def __init__(self, served: Served) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(served.path), options, providers=["CPUExecutionProvider"])
        self._input = served.input
        self._outputs = list(served.outputs)
        self._rows = [served.rows[i : i + 1] for i in range(len(served.rows))]
        self._batch = np.resize(served.rows, (BATCH, served.rows.shape[1]))

    def first_outputs(self) -> list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
        """The first row's answer, to hold the gateway's against."""
        answer: list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = self._session.run(
            self._outputs, {self._input: self._rows[0]}
        )
        return answer

    def one_by_one(self, seconds: float) -> BareOne:
        """Latency of one row alone."""
        took_ns = []
        rows = itertools.cycle(self._rows)
        end_ns = time.monotonic_ns() + int(seconds * 1e9)
        before_ns = time.monotonic_ns()
        while before_ns < end_ns:
            self._session.run(self._outputs, {self._input: next(rows)})
            now_ns = time.monotonic_ns()
            took_ns.append(now_ns - before_ns)
            before_ns = now_ns
        p50, p99 = np.percentile(took_ns, (50, 99)) / 1e3
        return BareOne(p50_us=float(p50), p99_us=float(p99))

    def rate(self, seconds: float) -> float:
        """Rows a second in batches of 64, which is what batching can reach at most."""
        runs = 0
        began_ns = time.monotonic_ns()
        while (now_ns := time.monotonic_ns()) - began_ns < seconds * 1e9:
            self._session.run(self._outputs, {self._input: self._batch})
            runs += 1
        return runs * BATCH / ((now_ns - began_ns) / 1e9)

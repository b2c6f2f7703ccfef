"""CaptureGate: many runs at once, or one capture of a CUDA graph, in the whole process.

Why: while one thread captures, CUDA refuses plain allocations and copies of every other thread and gives the capture
up for them: a neighbour's request would fail, and so would the graph. onnxruntime captures in that global mode.
A capture that cannot have the device to itself soon is not made: requests matter more, and it can be made later.
Units: seconds. Errors: none.
Source: CUDA runtime API, cudaStreamCaptureModeGlobal; onnxruntime core/providers/cuda/cuda_graph.cc.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Condition


class CaptureGate:
    def __init__(self) -> None:
        self._changed = Condition()
        self._running = 0
        self._loading = 0
        self._is_capturing = False

    @contextmanager
    def run(self) -> Iterator[None]:
        """Whatever uses the device and is over soon. Waits for a capture."""
        with self._changed:
            while self._is_capturing:
                self._changed.wait()
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def load(self) -> Iterator[None]:
        """Whatever uses the device for long: no capture waits for it."""
        with self._changed:
            while self._is_capturing:
                self._changed.wait()
            self._loading += 1
        try:
            yield
        finally:
            with self._changed:
                self._loading -= 1

    @contextmanager
    def capture(self, wait_s: float) -> Iterator[bool]:
        """Whether the device is this caller's alone until the end. New runs wait meanwhile, so `wait_s` is short."""
        with self._changed:
            is_alone = not (self._is_capturing or self._loading)
            if is_alone:
                self._is_capturing = True
                is_alone = self._changed.wait_for(lambda: not self._running, wait_s)
                if not is_alone:
                    self._release()
        try:
            yield is_alone
        finally:
            if is_alone:
                with self._changed:
                    self._release()

    def _release(self) -> None:
        self._is_capturing = False
        self._changed.notify_all()


@cache
def process_gate() -> CaptureGate:
    """The one of this process: CUDA's rule is about all its threads, whichever deployment they serve."""
    return CaptureGate()

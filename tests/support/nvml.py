"""A stand-in for NVIDIA's management library: GPUs with given numbers, and failures on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """The library's own."""


class FakeNvml:
    """The functions of the module pynvml that the gateway calls, with their names.

    `used`: bytes in use by GPU; `failing`: functions that raise; `before`: called before each answer of the count.
    """

    NVMLError = NVMLError

    def __init__(self, *used: int, before: Callable[[], None] = lambda: None) -> None:
        self.used = used
        self.failing: set[str] = set()
        self.called: Counter[str] = Counter()
        self.before = before

    def nvmlInit(self) -> None:
        self._enter("nvmlInit")

    def nvmlDeviceGetCount(self) -> int:
        self.before()
        self._enter("nvmlDeviceGetCount")
        return len(self.used)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        self._enter("nvmlDeviceGetHandleByIndex")
        return SimpleNamespace(index=index)

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        self._enter("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(used=self.used[handle.index], total=1000)

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        self._enter("nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=25 * (handle.index + 1), memory=99)

    def _enter(self, name: str) -> None:
        self.called[name] += 1
        if name in self.failing:
            raise NVMLError(f"{name} failed")

"""Time and turns: the one place that reads the monotonic clock and the one that asks the event loop for a turn.

Why: the batcher is a state machine driven by calls, so that a test drives it on a virtual clock, with no thread,
socket or sleep.
Units: *_ns are monotonic nanoseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Scheduler(Protocol):
    """What the batcher needs of an event loop. `call_soon` and `call_at` are for the loop's own thread."""

    def now_ns(self) -> int: ...

    def call_soon(self, callback: Callable[[], None]) -> None: ...

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer: ...

    def call_from_thread(self, callback: Callable[[], None]) -> None:
        """Run the callback on the loop soon; safe from any thread; dropped when the loop is closed."""
        ...


# The function itself, for it is called several times a request.
now_ns: Callable[[], int] = time.monotonic_ns


# What this thread alone was given of a processor: the same work takes the same time, whoever else is there.
thread_ns: Callable[[], int] = time.thread_time_ns


class LoopScheduler:
    """The scheduler over a running asyncio loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    now_ns = staticmethod(time.monotonic_ns)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        return self._loop.call_later(max(0, when_ns - time.monotonic_ns()) / 1e9, callback)

    def call_from_thread(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            # The loop closed while the instance was still running: nobody is left to answer.
            return

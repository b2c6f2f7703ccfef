"""An alarm for one moment at a time, as exact as the system's timers.

Why: an event loop's own timers count in milliseconds, and a request that is sent a millisecond late has a
millisecond too much in its latency. Linux has timers with a file descriptor; elsewhere the loop's timer is used,
then turns of the loop until the moment has come.
Units: nanoseconds of the monotonic clock. Source: timerfd_create(2).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

_MONOTONIC = 1
_ABSOLUTE = 1
_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
# A loop's timer may be this late, so the last part of a wait is turns of the loop.
_COARSE_NS = 1_500_000


class Alarm(Protocol):
    """Calls back once at or after the moment that was set last; `close` before the loop ends."""

    def set(self, at_ns: int) -> None: ...

    def close(self) -> None: ...


def make_alarm(loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> Alarm:
    try:
        return TimerFd(loop, ring)
    except (AttributeError, OSError):
        # No such function in this system's library, or a kernel that does not allow it.
        return Turns(loop, ring)


class _Spec(ctypes.Structure):
    """struct itimerspec: the interval, and the first expiry."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class TimerFd:
    """Errors: OSError where the kernel has no such timers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop, self._ring = loop, ring
        libc: Any = ctypes.CDLL(None, use_errno=True)
        self._settime: Any = libc.timerfd_settime
        self._spec = _Spec()
        self._at: Any = ctypes.byref(self._spec)
        self._fd: int = libc.timerfd_create(_MONOTONIC, _FLAGS)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._fd, self._rang)

    def set(self, at_ns: int) -> None:
        # Zero would disarm it.
        self._spec.value_s, self._spec.value_ns = divmod(max(1, at_ns), 1_000_000_000)
        self._settime(self._fd, _ABSOLUTE, self._at, None)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _rang(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # It was set again since.
        self._ring()


class Turns:
    """The portable one: precise, at the price of a busy loop for the last moment of each wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop, self._ring = loop, ring
        self._at_ns = 0
        self._handle: asyncio.Handle | None = None

    def set(self, at_ns: int) -> None:
        self._at_ns = at_ns
        self._cancel()
        self._wait()

    def close(self) -> None:
        self._cancel()

    def _wait(self) -> None:
        left_ns = self._at_ns - time.monotonic_ns()
        if left_ns > _COARSE_NS:
            self._handle = self._loop.call_later((left_ns - _COARSE_NS) / 1e9, self._wait)
        elif left_ns > 0:
            self._handle = self._loop.call_soon(self._wait)
        else:
            self._handle = None
            self._ring()

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

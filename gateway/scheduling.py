"""Who waits for whom, where there are more threads than cores.

Why: the kernel lets a thread that computes run on for some milliseconds although another, which would answer a
request, has just woken up on its core. A thread that has asked for a long slice is put off at once by whoever asked
for none, and gets the same share of the core in the end; a lower priority would be no cure for a thread that may hold
Python's lock, for it would then hold it for longer.
Units: nanoseconds.
Errors: none. Kernels before 6.12, and other systems, do not know the wish and go on as before.
Source: sched_setattr(2); Documentation/scheduler/sched-eevdf.rst of Linux.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import struct

log = logging.getLogger(__name__)

# The longest that the kernel takes.
LONG_NS = 100_000_000
# size, policy (0: the usual one), flags, nice, priority, slice, deadline, period.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}
_RESET_ON_FORK = 1


def yield_at_once(*, heirs: bool = False) -> None:
    """Let the calling thread be put off as soon as another wants its core; and those that it starts, if `heirs`."""
    number = _SET_ATTRIBUTES.get(platform.machine())
    if number is None or platform.system() != "Linux":
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    flags = 0 if heirs else _RESET_ON_FORK
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, 0, flags, nice, 0, LONG_NS, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 0, attributes, 0):
        log.debug("the kernel takes no wish for a slice: %s", os.strerror(ctypes.get_errno()))

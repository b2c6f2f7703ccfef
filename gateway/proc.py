"""What the kernel says of a process: its state, its memory and CPU time, and the process inside that it started.

Units: bytes; seconds of CPU time.
Errors: none; a process that has ended meanwhile has state X, and holds and used nothing.
"""

from __future__ import annotations

import os
from pathlib import Path


def state_of(pid: int) -> str:
    """The kernel's letter for what a process does; X where there is none."""
    fields = _fields(pid)
    return fields[0] if fields else "X"


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def cpu_seconds(pid: int) -> float:
    """What all of its threads have used, in programs and in the kernel."""
    fields = _fields(pid)
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def descendant(pid: int, generations: int) -> int:
    """The first child of its first child, and so on; as far as there is one."""
    for _ in range(generations):
        try:
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        except (OSError, IndexError, ValueError):
            break
    return pid


def _fields(pid: int) -> list[str]:
    """From the state on: what stands before may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

"""Processor time of a process and all that descend from it, to the nanosecond.

Why: the clock ticks of /proc/PID/stat are 10 ms, and the scheduler counts nanoseconds. A ratio of processor times
does not depend on how quick a load generator is.
Units: nanoseconds. Source: /proc/PID/task/TID/schedstat; Linux only.
Errors: none; what has ended since it was listed counts as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PROC = Path("/proc")


def used_ns(pid: int, proc: Path = PROC) -> int:
    """What the living threads of the living processes of a tree have used so far."""
    return sum(_of_process(one, proc) for one in tree(pid, parents(proc)))


def parents(proc: Path = PROC) -> dict[int, int]:
    found = {}
    for path in proc.glob("[0-9]*/stat"):
        fields = _read(path).rpartition(") ")[2].split()
        if len(fields) > 1:
            found[int(path.parent.name)] = int(fields[1])
    return found


def tree(pid: int, parent_of: Mapping[int, int]) -> list[int]:
    """The process and its descendants."""
    members = [pid]
    for one in members:
        members += [child for child, parent in parent_of.items() if parent == one]
    return members


def _of_process(pid: int, proc: Path) -> int:
    texts = (_read(path) for path in proc.glob(f"{pid}/task/[0-9]*/schedstat"))
    return sum(int(text.split()[0]) for text in texts if text)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

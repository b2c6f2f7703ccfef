"""How many cores and how much memory this process may really use, its control group's limits counted in.

Why: a container that is granted two of sixty-four cores must not start sixty-four threads; those above the quota
are throttled and the slowest of them sets the latency.
Units: cores; a quota may be a fraction, the answer is whole cores, rounded down, at least one. Memory in bytes.
Errors: none; a file that is missing or reads differently than documented grants no limit.
Source: Linux kernel documentation, cgroup-v1 and cgroup-v2 (`cpu.max`, `cpu.cfs_quota_us`, `memory.max`,
`memory.limit_in_bytes`); proc(5) (`MemAvailable`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

_V1_MEMORY = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def available_cores() -> int:
    """Whole cores for this process. Read it once at start: it opens a few files."""
    return cores(len(os.sched_getaffinity(0)), read_quotas())


def available_memory(
    meminfo: Path = Path("/proc/meminfo"),
    proc: Path = Path("/proc/self/cgroup"),
    mount: Path = Path("/sys/fs/cgroup"),
) -> int:
    """Bytes that this process and its children may still take."""
    free = [int(line.split()[1]) * 1024 for line in _text(meminfo).splitlines() if line.startswith("MemAvailable:")]
    for version, group in groups(_text(proc), "memory"):
        base = mount if version == 2 else mount / "memory"
        names = ("memory.max", "memory.current") if version == 2 else _V1_MEMORY
        for folder in _upwards(base, group):
            limit, used = (_text(folder / name).strip() for name in names)
            if limit.isdigit() and used.isdigit():
                free.append(max(0, int(limit) - int(used)))
    return min(free, default=0)


def cores(affinity: int, quotas: Iterable[float]) -> int:
    """The smallest of the limits, rounded down: what lies above a quota only waits."""
    return max(1, int(min([float(affinity), *quotas])))


def read_quotas(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> Iterator[float]:
    """The quotas of this process's groups and of all groups above them."""
    for version, group in groups(_text(proc)):
        base = mount if version == 2 else mount / "cpu"
        for folder in _upwards(base, group):
            quota = v2_quota(_text(folder / "cpu.max")) if version == 2 else _read_v1(folder)
            if quota is not None:
                yield quota


def groups(text: str, controller: str = "cpu") -> Iterator[tuple[int, str]]:
    """Cgroup version and group path of each line of /proc/self/cgroup that governs the CPU, or what is named."""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon:
            continue
        if number == "0" and not controllers:
            yield 2, path
        elif controller in controllers.split(","):
            yield 1, path


def v2_quota(text: str) -> float | None:
    """Cores out of `cpu.max`: "<quota µs> <period µs>", or "max" for no limit."""
    quota, _, period = text.strip().partition(" ")
    return _ratio(quota, period)


def v1_quota(quota: str, period: str) -> float | None:
    """Cores out of `cpu.cfs_quota_us` (-1 for no limit) and `cpu.cfs_period_us`."""
    return _ratio(quota.strip(), period.strip())


def _ratio(quota: str, period: str) -> float | None:
    if not (quota.isdigit() and period.isdigit()) or int(quota) == 0 or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read_v1(folder: Path) -> float | None:
    return v1_quota(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _upwards(base: Path, group: str) -> Iterator[Path]:
    """The group's folder and those above it, down to the mount: inside a container often only the mount exists."""
    parts = [part for part in PurePosixPath(group).parts if part not in ("/", "..")]
    for length in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:length])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        # Not there, or not ours to read: then it limits nothing we know of.
        return ""

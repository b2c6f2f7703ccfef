"""The machine's facts beside the figures, and who used its processors meanwhile.

Units: seconds of processor time. Source: /proc; elsewhere than on Linux the figures are None.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("numpy", "onnxruntime", "uvicorn", "uvloop", "httptools", "orjson")


def facts(packages: tuple[str, ...] = PACKAGES) -> dict[str, object]:
    """A package that is not installed is left out."""
    return {
        "processor": _processor(),
        "cores": len(cores()) or os.cpu_count(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "packages": {name: found for name in packages if (found := _version(name))},
    }


def cores() -> list[int]:
    """The cores that this process may use; empty where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def busy_s() -> float | None:
    """What all processes have used so far."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except FileNotFoundError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def waited_s() -> float | None:
    """How long the calling thread was ready to run, but waited for a core."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (FileNotFoundError, IndexError):
        return None


def tree_s(pid: int) -> float | None:
    """What a process and its living descendants have used so far."""
    stats = [text for path in Path("/proc").glob("[0-9]*/stat") if (text := _read(path))]
    if not stats:
        return None
    used_s, parents = {}, {}
    for stat in stats:
        number, _, rest = stat.partition(" (")
        fields = rest.rpartition(") ")[2].split()
        parents[int(number)] = int(fields[1])
        used_s[int(number)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return sum(used for number, used in used_s.items() if _descends(number, pid, parents))


def _read(path: Path) -> str:
    """Empty where the process has ended since it was listed."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _descends(number: int, ancestor: int, parents: dict[int, int]) -> bool:
    while number and number != ancestor:
        number = parents.get(number, 0)
    return number == ancestor


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

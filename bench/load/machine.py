"""The machine's facts beside the figures, and who used its processors meanwhile.

Units: seconds of processor time. Source: /proc; elsewhere than on Linux the figures are None.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("numpy", "onnxruntime", "uvicorn", "uvloop", "httptools", "orjson")


def facts() -> dict[str, object]:
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": " ".join([platform.system(), *platform.release().split(".")[:2]]),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def busy_s() -> float | None:
    """What all processes have used so far."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except FileNotFoundError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


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


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

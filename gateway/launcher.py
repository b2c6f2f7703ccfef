"""The step between the supervisor and a script worker: bounds itself, then becomes what it was told to run.

Why a process of its own: the supervisor has threads, so nothing but an exec may follow its fork; and the limits must
hold before the first line of the user's interpreter. Run as a file, with no site and no imports but the standard
library, so it starts in milliseconds. What to do comes in a memory file, for the command line is everybody's to read.
Source: a memory limit on writable private memory (RLIMIT_DATA) and not on addresses (RLIMIT_AS), for allocators and
numeric libraries reserve addresses that they never use.
Errors: exit status 126 with one line on stderr when a bound cannot be set or the program cannot be run.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
NICE = 5
UMASK = 0o077


def bound(plan: dict[str, Any]) -> None:
    """Limits that hold for the program and whatever it starts; 0 for none."""
    _limit(resource.RLIMIT_CORE, 0)
    for limit, name in ((resource.RLIMIT_DATA, "memory_bytes"), (resource.RLIMIT_NOFILE, "files_max")):
        if plan[name]:
            _limit(limit, plan[name])
    if plan["cpu_seconds"]:
        # First a signal that tells what it is, a second later the end.
        _limit(resource.RLIMIT_CPU, plan["cpu_seconds"], more=1)
    if plan["processes_max"]:
        # The kernel counts everything that this user runs, the gateway too.
        _limit(resource.RLIMIT_NPROC, plan["processes_max"] + _tasks_of(os.getuid()))
    os.umask(UMASK)
    os.nice(NICE)


def _limit(limit: int, value: int, more: int = 0) -> None:
    """`more`: by how much the hard limit is above."""
    _, hard = resource.getrlimit(limit)
    value, most = (one if hard == resource.RLIM_INFINITY else min(one, hard) for one in (value, value + more))
    resource.setrlimit(limit, (value, most))


def _tasks_of(uid: int) -> int:
    """How many processes and threads run for this user now."""
    count = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if folder.stat().st_uid == uid:
                    count += sum(1 for _ in (folder / "task").iterdir())
            except OSError:
                # It ended meanwhile.
                continue
    return count


def detach_privileges(parent: int) -> None:
    """No new privileges from any program; and an end with the supervisor, whatever becomes of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_PDEATHSIG, int(signal.SIGKILL))):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    if os.getppid() != parent:
        raise OSError("the supervisor ended meanwhile")


def main() -> None:
    fd = int(sys.argv[1])
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        plan = json.load(file)
    try:
        detach_privileges(plan["parent"])
        bound(plan)
        os.chdir(plan["folder"])
        os.execve(plan["command"][0], plan["command"], plan["environment"])
    except (OSError, ValueError) as error:
        sys.stderr.write(f"the worker could not be started: {error}\n")
        sys.exit(126)


if __name__ == "__main__":
    main()

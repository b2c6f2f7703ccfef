"""Whether bubblewrap can make a sandbox on this machine; where it cannot, tests are skipped and say what it said."""

from __future__ import annotations

import functools
import shutil
import subprocess

import pytest


@functools.cache
def _why_not() -> str:
    if shutil.which("bwrap") is None:
        return "bwrap is not installed (Debian: bubblewrap)"
    tried = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "true"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def has_bwrap() -> bool:
    return not _why_not()


def need_bwrap() -> None:
    why = _why_not()
    if why:
        pytest.skip(f"no sandbox on this machine: {why}")

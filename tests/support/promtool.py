"""Prometheus' own checker, where it can be had: `make test` puts it beside the interpreter."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def promtool() -> str:
    """Its path; skips the test, with the reason, where there is none."""
    found = shutil.which("promtool", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if not found:
        pytest.skip("promtool is not on PATH; Debian has it in the package prometheus")
    return found

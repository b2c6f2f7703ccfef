"""NVML on a machine that has a GPU. Skipped, and said so, where there is no device or no nvidia-ml-py."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest

from gateway.telemetry.gpu import GpuWatch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="nvidia-ml-py is not installed"),
    pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="there is no NVIDIA device on this host"),
]


def test_every_gpu_tells_its_memory() -> None:
    facts = asyncio.run(GpuWatch().read(timeout_s=60))
    assert facts
    for gpu in facts:
        if gpu.total_bytes is not None:
            assert gpu.used_bytes is not None
            assert 0 <= gpu.used_bytes <= gpu.total_bytes
        assert gpu.utilization is None or 0 <= gpu.utilization <= 1
    assert any(gpu.total_bytes for gpu in facts), f"no GPU told its memory: {facts}"

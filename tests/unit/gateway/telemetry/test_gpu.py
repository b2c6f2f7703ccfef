"""What NVML says of the GPUs, and what is made of a library that fails or is not there."""

from __future__ import annotations

import sys

import pytest

from gateway.telemetry.gpu import GpuFacts, Nvml, open_nvml
from tests.support.nvml import FakeNvml, NVMLError


def test_each_gpu_tells_its_memory_and_its_utilisation() -> None:
    assert Nvml(FakeNvml(10, 20)).read() == (
        GpuFacts(index=0, used_bytes=10, total_bytes=1000, utilization=0.25),
        GpuFacts(index=1, used_bytes=20, total_bytes=1000, utilization=0.5),
    )


@pytest.mark.parametrize(
    ("failing", "facts"),
    [
        ("nvmlDeviceGetCount", ()),
        ("nvmlDeviceGetHandleByIndex", (GpuFacts(index=0),)),
        ("nvmlDeviceGetMemoryInfo", (GpuFacts(index=0, utilization=0.25),)),
        ("nvmlDeviceGetUtilizationRates", (GpuFacts(index=0, used_bytes=10, total_bytes=1000),)),
    ],
)
def test_what_cannot_be_read_is_left_out_and_said_once(
    caplog: pytest.LogCaptureFixture, failing: str, facts: tuple[GpuFacts, ...]
) -> None:
    library = FakeNvml(10)
    nvml = Nvml(library)
    library.failing.add(failing)
    assert [nvml.read() for _ in range(3)] == [facts] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{failing} failed" in caplog.text
    library.failing.clear()
    assert nvml.read() == (GpuFacts(index=0, used_bytes=10, total_bytes=1000, utilization=0.25),)


def test_without_the_package_there_is_no_nvml(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_nvml() is None
    assert caplog.text == ""


def test_without_a_driver_there_is_no_nvml_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    library = FakeNvml()
    library.failing.add("nvmlInit")
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert open_nvml() is None
    assert "NVML cannot be used: nvmlInit failed" in caplog.text
    with pytest.raises(NVMLError):
        Nvml(library)


def test_with_both_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(10))
    nvml = open_nvml()
    assert nvml is not None
    assert len(nvml.read()) == 1
